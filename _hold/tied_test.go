package kfac

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// tiedCoder is an autoencoder of one weight, in x hidden: x w, and back by w^T.
type tiedCoder struct {
	In, Hidden int
	Cases      int
	Bias       bool // of the encoder
	OutByIn    bool // the weight is stored hidden x in
	Linear     bool
	loss       testnet.Likelihood
}

func drawTied(t *rapid.T) tiedCoder {
	return tiedCoder{
		In: rapid.IntRange(1, 4).Draw(t, "in"), Hidden: rapid.IntRange(1, 4).Draw(t, "hidden"),
		Cases: rapid.IntRange(1, 4).Draw(t, "cases"),
		Bias:  rapid.Bool().Draw(t, "bias"), OutByIn: rapid.Bool().Draw(t, "outByIn"),
		Linear: rapid.Bool().Draw(t, "linear"),
		loss: rapid.SampledFrom([]testnet.Likelihood{testnet.Squares(0.4), testnet.Binary, testnet.TwoHeads}).Draw(t,
			"loss"),
	}
}

func (a tiedCoder) build(seed uint64) *testnet.Net {
	s := testnet.NewSketch(seed)
	n := &testnet.Net{Sketch: s, X: s.Random("x", a.Cases, a.In)}
	shape := []int{a.In, a.Hidden}
	if a.OutByIn {
		shape = []int{a.Hidden, a.In}
	}
	w := s.Random("w", shape...)
	n.Params = list(w)
	encoder, decoder := w, transpose(w)
	if a.OutByIn {
		encoder, decoder = decoder, encoder
	}
	h := mul(n.X, encoder)
	if a.Bias {
		b := s.Random("b", 1, a.Hidden)
		h, n.Params = addRow(h, b), append(n.Params, b)
	}
	if !a.Linear {
		h = tanh(h)
	}
	n.Out = mul(h, decoder)
	n.Cost, n.Loss = a.loss(s, n.Out)
	return n
}

// tiedOf is the only block, with its exact factors.
func tiedOf(t rapid.TB, c *conductor[float64]) *tiedBlock[float64] {
	t.Helper()
	observeExactly(t, c, nil)
	for _, b := range c.blocks {
		if b, ok := b.(*tiedBlock[float64]); ok {
			return b
		}
	}
	t.Fatalf("no tied block; plan:\n%v", c.plan)
	return nil
}

// sumOfWays is A1 (x) G1 + G2 (x) A2, abar by abar and within each output by output. The
// homogeneous coordinate takes no part in the second.
func sumOfWays(b *tiedBlock[float64]) *mat.Dense {
	a1, g1, a2, g2 := &b.ways[0].a, &b.ways[0].g, &b.ways[1].a, &b.ways[1].g
	var sum, second mat.Dense
	sum.Kronecker(wholeOf(a1), wholeOf(g1))
	wide := mat.NewDense(a1.n, a1.n, nil)
	wide.Slice(0, g2.n, 0, g2.n).(*mat.Dense).Copy(wholeOf(g2))
	second.Kronecker(wide, wholeOf(a2))
	sum.Add(&sum, &second)
	return &sum
}

// partialTraces are tr_out and tr_in of a matrix of (in out) x (in out): in x in and out x out.
func partialTraces(m mat.Matrix, in, out int) (left, right *mat.Dense) {
	left, right = mat.NewDense(in, in, nil), mat.NewDense(out, out, nil)
	for i := range in {
		for j := range in {
			for o := range out {
				left.Set(i, j, left.At(i, j)+m.At(i*out+o, j*out+o))
			}
		}
	}
	for o := range out {
		for p := range out {
			for i := range in {
				right.Set(o, p, right.At(o, p)+m.At(i*out+o, i*out+p))
			}
		}
	}
	return left, right
}

// The encoder's way has the inputs and the gradients of the codes, the decoder's the codes and the
// gradients of the outputs.
func TestTiedFactors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawTied(t)
		a.Linear, a.loss = true, testnet.Squares(0.4)
		n := a.build(rapid.Uint64().Draw(t, "seed"))
		b := tiedOf(t, attach(t, n))
		x, w := mat.NewDense(a.Cases, a.In, testnet.Data(n.X)), mat.NewDense(a.In, a.Hidden, nil)
		stored := n.Params[0].Shape()
		var m mat.Matrix = mat.NewDense(stored[0], stored[1], testnet.Data(n.Params[0]))
		if a.OutByIn {
			m = m.T()
		}
		w.Copy(m)
		var codes, gramW mat.Dense
		codes.Mul(x, w)
		if a.Bias {
			for i := range a.Cases {
				for k, v := range testnet.Data(n.Params[1]) {
					codes.Set(i, k, codes.At(i, k)+v)
				}
			}
		}
		gramW.Mul(w.T(), w)
		moment := func(x *mat.Dense, homogeneous bool) []float64 {
			rows, cols := x.Dims()
			if homogeneous {
				return homogeneousMoment(flatOf(x), rows, cols)
			}
			return plainMoment(flatOf(x), rows, cols)
		}
		// The gradient of the outputs has covariance I / variance, that of the codes w^T w /
		// variance.
		ones := mat.NewDiagDense(a.In, slices.Repeat([]float64{1 / 0.4}, a.In))
		testnet.Near(t, "A of the encoder", b.ways[0].a.next, moment(x, a.Bias), identity)
		testnet.Near(t, "G of the encoder", b.ways[0].g.next, scaled(flatOf(&gramW), 1/0.4), identity)
		testnet.Near(t, "A of the decoder", b.ways[1].a.next, moment(&codes, false), identity)
		testnet.Near(t, "G of the decoder", b.ways[1].g.next, flatOf(ones), identity)
	})
}

// The Kronecker product has the partial traces, and so the trace, of the sum that it stands for.
func TestTiedBlockKeepsPartialTraces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawTied(t)
		b := tiedOf(t, attach(t, a.build(rapid.Uint64().Draw(t, "seed"))))
		in, out := b.factors.a.n, b.factors.g.n
		product, sum := kronecker(b.factors), sumOfWays(b)
		gotLeft, gotRight := partialTraces(product, in, out)
		wantLeft, wantRight := partialTraces(sum, in, out)
		testnet.Near(t, "left", flatOf(gotLeft), flatOf(wantLeft), identity)
		testnet.Near(t, "right", flatOf(gotRight), flatOf(wantRight), identity)
		testnet.Near(t, "trace", []float64{b.trace()}, []float64{mat.Trace(sum)}, identity)
	})
}

// Each way by itself is the block of a weight that is not tied: tying adds them up.
func TestTiedWaysAreThoseOfTwoWeights(t *testing.T) {
	for _, loss := range likelihoods {
		a := tiedCoder{In: 3, Hidden: 2, Cases: 4, Bias: true, loss: loss}
		tied := a.build(1)
		b := tiedOf(t, attach(t, tied))
		s := testnet.NewSketch(1)
		n := &testnet.Net{Sketch: s, X: s.Random("x", 4, 3)}
		w, bias := s.Random("w", 3, 2), s.Random("b", 1, 2)
		v := s.Leaf("v", slices.Clone(testnet.Data(w)), 3, 2)
		n.Out, n.Params = mul(tanh(addRow(mul(n.X, w), bias)), transpose(v)), list(w, bias, v)
		n.Cost, n.Loss = loss(s, n.Out)
		moments := momentsOf(t, attach(t, n), nil)
		checkMoments(t, "ways", [][]float64{b.ways[0].a.next, b.ways[0].g.next, b.ways[1].a.next, b.ways[1].g.next},
			moments)
	}
}

// With one case whose input is zero the encoder contributes nothing but its bias, and with none the
// block is the decoder's: exact.
func TestTiedBlockOfOneWayIsExact(t *testing.T) {
	t.Run("no input", func(t *testing.T) {
		n := tiedCoder{In: 3, Hidden: 3, Cases: 1, loss: testnet.Binary}.build(2)
		clear(testnet.Data(n.X))
		// tanh(0) = 0 leaves the decoder without an input too, so the codes come from elsewhere.
		s := n.Sketch
		w := n.Params[0]
		n.Out = mul(add(tanh(mul(n.X, w)), s.Random("codes", 1, 3)), transpose(w))
		n.Cost, n.Loss = testnet.Binary(s, n.Out)
		c := attach(t, n)
		b := tiedOf(t, c)
		if b.ways[0].a.trace() != 0 || b.ways[1].a.trace() == 0 {
			t.Fatalf("traces %g and %g of the inputs", b.ways[0].a.trace(), b.ways[1].a.trace())
		}
		checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
	})
	t.Run("no code", func(t *testing.T) {
		// The decoder's input is zero, that of the encoder is not: w x = 0.
		s := testnet.NewSketch(3)
		w := s.Leaf("w", []float64{1, -1, 2, 2, -2, 4}, 2, 3)
		n := &testnet.Net{Sketch: s, X: s.Leaf("x", []float64{1, 1, 0}, 1, 3), Params: list(w)}
		n.Out = mul(mul(n.X, transpose(w)), w)
		n.Cost, n.Loss = testnet.Binary(s, n.Out)
		c := attach(t, n)
		b := tiedOf(t, c)
		if b.ways[0].a.trace() == 0 || b.ways[1].a.trace() != 0 {
			t.Fatalf("traces %g and %g of the inputs", b.ways[0].a.trace(), b.ways[1].a.trace())
		}
		checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
	})
}

// The direction solves the explicit system of the damped Kronecker product. With a bias the weight
// may be stored either way.
func TestTiedDirection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawTied(t)
		c := attach(t, a.build(rapid.Uint64().Draw(t, "seed")))
		gradients(t, c)
		b := tiedOf(t, c)
		gamma := math.Pow(10, rapid.Float64Range(-2, 1).Draw(t, "log gamma"))
		directions(t, c, gamma)
		l, r := square(b.factors.a.next), square(b.factors.g.next)
		nl, nr := b.factors.a.n, b.factors.g.n
		pi := math.Sqrt(mat.Trace(l) / float64(nl) / (mat.Trace(r) / float64(nr)))
		want := solved(t, flatOf(l), flatOf(r), pi*gamma, gamma/pi, gathered(b.layerBlock, gradientOf))
		testnet.Near(t, "direction", gathered(b.layerBlock, directionOf), want, 1e-9)
	})
}

// An embedding that is tied with the output projection keeps the vocabulary's side diagonal in both
// ways.
func TestTiedEmbedding(t *testing.T) {
	const rows, width = 6, 3
	ids := []int{1, 4, 1, 0, 5}
	n := testnet.Language(1, rows, width, ids)
	c := attach(t, n)
	gradients(t, c)
	b := tiedOf(t, c)
	type sides struct{ A1, G1, A2, G2, L, R bool }
	got := sides{b.ways[0].a.diagonal, b.ways[0].g.diagonal, b.ways[1].a.diagonal, b.ways[1].g.diagonal,
		b.factors.a.diagonal, b.factors.g.diagonal}
	if want := (sides{A1: true, G2: true, L: true}); got != want {
		t.Fatalf("diagonal sides %+v, want %+v", got, want)
	}
	frequencies := make([]float64, rows)
	for _, id := range ids {
		frequencies[id] += 1 / float64(len(ids))
	}
	testnet.Near(t, "frequencies", b.ways[0].a.next, frequencies, identity)

	// The other way's G is the diagonal of diag(p) - p p^T, the mean over cases.
	run := c.sampler.run
	testnet.Check(t, run.Forward(nil))
	wanted := make([]float64, rows)
	for i := range ids {
		fisher := plainFisher(c.outputs[0].head, run.Value(c.outputs[0].node).Data[i*rows:(i+1)*rows])
		for k := range rows {
			wanted[k] += fisher[k*rows+k] / float64(len(ids))
		}
	}
	testnet.Near(t, "G of the projection", b.ways[1].g.next, wanted, identity)

	gotLeft, gotRight := partialTraces(kronecker(b.factors), rows, width)
	wantLeft, wantRight := partialTraces(sumOfWays(b), rows, width)
	testnet.Near(t, "left", flatOf(gotLeft), flatOf(wantLeft), identity)
	testnet.Near(t, "right", flatOf(gotRight), flatOf(wantRight), identity)

	const gamma = 0.2
	directions(t, c, gamma)
	l, r := flatOf(wholeOf(&b.factors.a)), b.factors.g.next
	pi := math.Sqrt(b.factors.a.trace() / rows / (b.factors.g.trace() / width))
	want := solved(t, l, r, pi*gamma, gamma/pi, gathered(b.layerBlock, gradientOf))
	testnet.Near(t, "direction", gathered(b.layerBlock, directionOf), want, 1e-10)
}

// The bias behind the second use is not that of the layer, since the first use has another or none,
// and gets a block of its own.
func TestTiedPlan(t *testing.T) {
	s := testnet.NewSketch(8)
	w, b1, b2 := s.Random("w", 4, 3), s.Random("b1", 1, 3), s.Random("b2", 1, 4)
	h := tanh(addRow(mul(s.Random("x", 5, 4), w), b1))
	n := &testnet.Net{Sketch: s, Out: addRow(mul(h, transpose(w)), b2), Params: list(w, b1, b2)}
	n.Cost, n.Loss = testnet.Binary(s, n.Out)
	want := []ParamPlan{
		{"w", []int{4, 3}, Kronecker, "w: A 5, G 3", "dense layer x w + b1; tied with dense layer x w^T"},
		{"b1", []int{1, 3}, Kronecker, "w: A 5, G 3", "homogeneous coordinate of w"},
		{"b2", []int{1, 4}, Full, "b2: 4 x 4", "used by +, which is no matrix product"},
	}
	if diff := gocmp.Diff(want, attach(t, n).plan.Params); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

// A tied weight takes part in no chain, even where its uses do not feed each other; the layers
// behind it do.
func TestTiedIsInNoChain(t *testing.T) {
	notes := func(build func(s *testnet.Sketch, w *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes)) []string {
		s := testnet.NewSketch(9)
		n := &testnet.Net{Sketch: s}
		n.Out, n.Params = build(s, s.Random("w", 4, 3))
		n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
		return attach(t, n, WithBlockTridiagonal()).plan.Notes
	}
	got := notes(func(s *testnet.Sketch, w *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
		v, u := s.Random("v", 4, 3), s.Random("u", 3, 2)
		h := tanh(mul(tanh(mul(s.Random("x", 5, 4), w)), transpose(w)))
		return mul(tanh(mul(h, v)), u), list(w, v, u)
	})
	if diff := gocmp.Diff([]string{"block-tridiagonal inverse along v - u"}, got); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	got = notes(func(s *testnet.Sketch, w *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
		v := s.Random("v", 2, 4)
		h := mul(tanh(mul(s.Random("x", 5, 2), v)), w)
		return concat(1, h, mul(s.Random("y2", 5, 3), transpose(w))), list(v, w)
	})
	if len(got) != 1 || !strings.Contains(got[0], "all blocks are inverted by themselves") {
		t.Errorf("notes %q", got)
	}
}

func TestTiedTrains(t *testing.T) {
	for _, a := range []tiedCoder{
		{In: 6, Hidden: 3, Cases: 20, Bias: true, loss: testnet.Squares(1)},
		{In: 5, Hidden: 5, Cases: 20, OutByIn: true, Bias: true, loss: testnet.Squares(1)},
	} {
		n := a.build(4)
		// Targets that an autoencoder can reach: those of other weights.
		teacher := a.build(5)
		copy(testnet.Data(teacher.X), testnet.Data(n.X))
		tr := NewTrainer(t, n)
		c := attach(t, teacher)
		run := c.sampler.run
		testnet.Check(t, run.Forward(nil))
		copy(testnet.Data(n.Input("y")), run.Value(c.outputs[0].node).Data)
		t.Run(fmt.Sprintf("%d x %d", a.In, a.Hidden), func(t *testing.T) { tr.Falls(t, 40, 0.3) })
	}
	t.Run("language", func(t *testing.T) {
		NewTrainer(t, testnet.Language(6, 12, 8, testnet.WordsOf(12, 12))).Falls(t, 30, 0.5)
	})
}
