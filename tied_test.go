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
)

// tiedCoder is an autoencoder of one weight, in x hidden: x w, and back by w^T.
type tiedCoder struct {
	In, Hidden int
	Cases      int
	Bias       bool // of the encoder
	OutByIn    bool // the weight is stored hidden x in
	Linear     bool
	loss       lossFunc
}

func drawTied(t *rapid.T) tiedCoder {
	return tiedCoder{
		In: rapid.IntRange(1, 4).Draw(t, "in"), Hidden: rapid.IntRange(1, 4).Draw(t, "hidden"), Cases: rapid.IntRange(1, 4).Draw(t, "cases"),
		Bias: rapid.Bool().Draw(t, "bias"), OutByIn: rapid.Bool().Draw(t, "outByIn"), Linear: rapid.Bool().Draw(t, "linear"),
		loss: rapid.SampledFrom([]lossFunc{squares(0.4), binary, twoHeads}).Draw(t, "loss"),
	}
}

func (a tiedCoder) build(seed uint64) *network {
	s := newSketch(seed)
	n := &network{sketch: s, x: s.random("x", a.Cases, a.In)}
	shape := []int{a.In, a.Hidden}
	if a.OutByIn {
		shape = []int{a.Hidden, a.In}
	}
	w := s.random("w", shape...)
	n.params = list(w)
	encoder, decoder := w, transpose(w)
	if a.OutByIn {
		encoder, decoder = decoder, encoder
	}
	h := mul(n.x, encoder)
	if a.Bias {
		b := s.random("b", 1, a.Hidden)
		h, n.params = addRow(h, b), append(n.params, b)
	}
	if !a.Linear {
		h = tanh(h)
	}
	n.out = mul(h, decoder)
	n.cost, n.dist = a.loss(s, n.out)
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

// sumOfWays is A1 (x) G1 + G2 (x) A2, abar by abar and within each output by output. The homogeneous coordinate takes no part in the second.
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

// The encoder's way has the inputs and the gradients of the codes, the decoder's the codes and the gradients of the outputs.
func TestTiedFactors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawTied(t)
		a.Linear, a.loss = true, squares(0.4)
		n := a.build(rapid.Uint64().Draw(t, "seed"))
		b := tiedOf(t, attach(t, n))
		x, w := mat.NewDense(a.Cases, a.In, data(n.x)), mat.NewDense(a.In, a.Hidden, nil)
		stored := n.params[0].Shape()
		var m mat.Matrix = mat.NewDense(stored[0], stored[1], data(n.params[0]))
		if a.OutByIn {
			m = m.T()
		}
		w.Copy(m)
		var codes, gramW mat.Dense
		codes.Mul(x, w)
		if a.Bias {
			for i := range a.Cases {
				for k, v := range data(n.params[1]) {
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
		// The gradient of the outputs has covariance I / variance, that of the codes w^T w / variance.
		ones := mat.NewDiagDense(a.In, slices.Repeat([]float64{1 / 0.4}, a.In))
		checkNear(t, "A of the encoder", b.ways[0].a.next, moment(x, a.Bias), identity)
		checkNear(t, "G of the encoder", b.ways[0].g.next, scaled(flatOf(&gramW), 1/0.4), identity)
		checkNear(t, "A of the decoder", b.ways[1].a.next, moment(&codes, false), identity)
		checkNear(t, "G of the decoder", b.ways[1].g.next, flatOf(ones), identity)
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
		checkNear(t, "left", flatOf(gotLeft), flatOf(wantLeft), identity)
		checkNear(t, "right", flatOf(gotRight), flatOf(wantRight), identity)
		checkNear(t, "trace", []float64{b.trace()}, []float64{mat.Trace(sum)}, identity)
	})
}

// Each way by itself is the block of a weight that is not tied: tying adds them up.
func TestTiedWaysAreThoseOfTwoWeights(t *testing.T) {
	for _, loss := range likelihoods {
		a := tiedCoder{In: 3, Hidden: 2, Cases: 4, Bias: true, loss: loss}
		tied := a.build(1)
		b := tiedOf(t, attach(t, tied))
		s := newSketch(1)
		n := &network{sketch: s, x: s.random("x", 4, 3)}
		w, bias := s.random("w", 3, 2), s.random("b", 1, 2)
		v := s.leaf("v", slices.Clone(data(w)), 3, 2)
		n.out, n.params = mul(tanh(addRow(mul(n.x, w), bias)), transpose(v)), list(w, bias, v)
		n.cost, n.dist = loss(s, n.out)
		moments := momentsOf(t, attach(t, n), nil)
		checkMoments(t, "ways", [][]float64{b.ways[0].a.next, b.ways[0].g.next, b.ways[1].a.next, b.ways[1].g.next}, moments)
	}
}

// With one case whose input is zero the encoder contributes nothing but its bias, and with none the block is the decoder's: exact.
func TestTiedBlockOfOneWayIsExact(t *testing.T) {
	t.Run("no input", func(t *testing.T) {
		n := tiedCoder{In: 3, Hidden: 3, Cases: 1, loss: binary}.build(2)
		clear(data(n.x))
		// tanh(0) = 0 leaves the decoder without an input too, so the codes come from elsewhere.
		s := n.sketch
		w := n.params[0]
		n.out = mul(add(tanh(mul(n.x, w)), s.random("codes", 1, 3)), transpose(w))
		n.cost, n.dist = binary(s, n.out)
		c := attach(t, n)
		b := tiedOf(t, c)
		if b.ways[0].a.trace() != 0 || b.ways[1].a.trace() == 0 {
			t.Fatalf("traces %g and %g of the inputs", b.ways[0].a.trace(), b.ways[1].a.trace())
		}
		checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
	})
	t.Run("no code", func(t *testing.T) {
		// The decoder's input is zero, that of the encoder is not: w x = 0.
		s := newSketch(3)
		w := s.leaf("w", []float64{1, -1, 2, 2, -2, 4}, 2, 3)
		n := &network{sketch: s, x: s.leaf("x", []float64{1, 1, 0}, 1, 3), params: list(w)}
		n.out = mul(mul(n.x, transpose(w)), w)
		n.cost, n.dist = binary(s, n.out)
		c := attach(t, n)
		b := tiedOf(t, c)
		if b.ways[0].a.trace() == 0 || b.ways[1].a.trace() != 0 {
			t.Fatalf("traces %g and %g of the inputs", b.ways[0].a.trace(), b.ways[1].a.trace())
		}
		checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
	})
}

// The direction solves the explicit system of the damped Kronecker product. With a bias the weight may be stored either way.
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
		checkNear(t, "direction", gathered(b.layerBlock, directionOf), want, 1e-9)
	})
}

// languageNet looks words up in a table and predicts words by the same table transposed.
func languageNet(seed uint64, rows, width int, ids []int) *network {
	s := newSketch(seed)
	n := &network{sketch: s}
	table, w := s.random("table", rows, width), s.random("w", width, width)
	h := tanh(mul(must(gorgonia.ByIndices(table, s.words("words", ids...), 0)), w))
	n.out, n.params = mul(h, transpose(table)), list(table, w)
	n.cost, n.dist = classes(s, n.out)
	return n
}

// An embedding that is tied with the output projection keeps the vocabulary's side diagonal in both ways.
func TestTiedEmbedding(t *testing.T) {
	const rows, width = 6, 3
	ids := []int{1, 4, 1, 0, 5}
	n := languageNet(1, rows, width, ids)
	c := attach(t, n)
	gradients(t, c)
	b := tiedOf(t, c)
	type sides struct{ A1, G1, A2, G2, L, R bool }
	got := sides{b.ways[0].a.diagonal, b.ways[0].g.diagonal, b.ways[1].a.diagonal, b.ways[1].g.diagonal, b.factors.a.diagonal, b.factors.g.diagonal}
	if want := (sides{A1: true, G2: true, L: true}); got != want {
		t.Fatalf("diagonal sides %+v, want %+v", got, want)
	}
	frequencies := make([]float64, rows)
	for _, id := range ids {
		frequencies[id] += 1 / float64(len(ids))
	}
	checkNear(t, "frequencies", b.ways[0].a.next, frequencies, identity)

	// The other way's G is the diagonal of diag(p) - p p^T, the mean over cases.
	run := c.sampler.run
	check(t, run.Forward(nil))
	wanted := make([]float64, rows)
	for i := range ids {
		fisher := plainFisher(c.outputs[0].head, run.Value(c.outputs[0].node).Data[i*rows:(i+1)*rows])
		for k := range rows {
			wanted[k] += fisher[k*rows+k] / float64(len(ids))
		}
	}
	checkNear(t, "G of the projection", b.ways[1].g.next, wanted, identity)

	gotLeft, gotRight := partialTraces(kronecker(b.factors), rows, width)
	wantLeft, wantRight := partialTraces(sumOfWays(b), rows, width)
	checkNear(t, "left", flatOf(gotLeft), flatOf(wantLeft), identity)
	checkNear(t, "right", flatOf(gotRight), flatOf(wantRight), identity)

	const gamma = 0.2
	directions(t, c, gamma)
	l, r := flatOf(wholeOf(&b.factors.a)), b.factors.g.next
	pi := math.Sqrt(b.factors.a.trace() / rows / (b.factors.g.trace() / width))
	want := solved(t, l, r, pi*gamma, gamma/pi, gathered(b.layerBlock, gradientOf))
	checkNear(t, "direction", gathered(b.layerBlock, directionOf), want, 1e-10)
}

// The bias behind the second use is not that of the layer, since the first use has another or none, and gets a block of its own.
func TestTiedPlan(t *testing.T) {
	s := newSketch(8)
	w, b1, b2 := s.random("w", 4, 3), s.random("b1", 1, 3), s.random("b2", 1, 4)
	h := tanh(addRow(mul(s.random("x", 5, 4), w), b1))
	n := &network{sketch: s, out: addRow(mul(h, transpose(w)), b2), params: list(w, b1, b2)}
	n.cost, n.dist = binary(s, n.out)
	want := []ParamPlan{
		{"w", []int{4, 3}, Kronecker, "w: A 5, G 3", "tied weight: dense layer x w + b1, and its transpose: dense layer x w^T"},
		{"b1", []int{1, 3}, Kronecker, "w: A 5, G 3", "homogeneous coordinate of w"},
		{"b2", []int{1, 4}, Full, "b2: 4 x 4", "offset, element by element"},
	}
	if diff := gocmp.Diff(want, attach(t, n).plan.Params); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

// A tied weight takes part in no chain, even where its uses do not feed each other; the layers behind it do.
func TestTiedIsInNoChain(t *testing.T) {
	notes := func(build func(s *sketch, w *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes)) []string {
		s := newSketch(9)
		n := &network{sketch: s}
		n.out, n.params = build(s, s.random("w", 4, 3))
		n.cost, n.dist = squares(1)(s, n.out)
		return attach(t, n, WithBlockTridiagonal()).plan.Notes
	}
	got := notes(func(s *sketch, w *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
		v, u := s.random("v", 4, 3), s.random("u", 3, 2)
		h := tanh(mul(tanh(mul(s.random("x", 5, 4), w)), transpose(w)))
		return mul(tanh(mul(h, v)), u), list(w, v, u)
	})
	if diff := gocmp.Diff([]string{"block-tridiagonal inverse along v - u"}, got); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	got = notes(func(s *sketch, w *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
		v := s.random("v", 2, 4)
		h := mul(tanh(mul(s.random("x", 5, 2), v)), w)
		return concat(1, h, mul(s.random("y2", 5, 3), transpose(w))), list(v, w)
	})
	if len(got) != 1 || !strings.Contains(got[0], "all blocks are inverted by themselves") {
		t.Errorf("notes %q", got)
	}
}

func TestTiedTrains(t *testing.T) {
	for _, a := range []tiedCoder{
		{In: 6, Hidden: 3, Cases: 20, Bias: true, loss: squares(1)},
		{In: 5, Hidden: 5, Cases: 20, OutByIn: true, Bias: true, loss: squares(1)},
	} {
		n := a.build(4)
		// Targets that an autoencoder can reach: those of other weights.
		teacher := a.build(5)
		copy(data(teacher.x), data(n.x))
		tr := newTrainer(t, n)
		c := attach(t, teacher)
		run := c.sampler.run
		check(t, run.Forward(nil))
		copy(data(input(n, "y")), run.Value(c.outputs[0].node).Data)
		t.Run(fmt.Sprintf("%d x %d", a.In, a.Hidden), func(t *testing.T) { tr.falls(t, 40, 0.3) })
	}
	t.Run("language", func(t *testing.T) { newTrainer(t, languageNet(6, 12, 8, someWords(12, 12))).falls(t, 30, 0.5) })
}
