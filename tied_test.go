package kfac

import (
	"fmt"
	"math"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/curvature/curvaturetest"
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
	n.Params = gorgonia.Nodes{w}
	encoder, decoder := w, testnet.Transpose(w)
	if a.OutByIn {
		encoder, decoder = decoder, encoder
	}
	h := testnet.Mul(n.X, encoder)
	if a.Bias {
		b := s.Random("b", 1, a.Hidden)
		h, n.Params = testnet.AddRow(h, b), append(n.Params, b)
	}
	if !a.Linear {
		h = testnet.Tanh(h)
	}
	n.Out = testnet.Mul(h, decoder)
	n.Cost, n.Loss = a.loss(s, n.Out)
	return n
}

// A tied block is that of a weight that is used both ways round, with averages.
type tied struct {
	placedLayer
	block *curvature.Tied[float64]
	avg   *curvature.Averages[float64]
	// A and G of both ways.
	a1, g1, a2, g2 mat.Matrix
}

// tiedIn is the only tied block among some averages.
func tiedIn(t rapid.TB, c *training[float64], avg averages[float64]) tied {
	t.Helper()
	for _, l := range placedLayers(c) {
		if b, ok := l.block.Block.(*curvature.Tied[float64]); ok {
			m, s := avg[l.index].Moments, l.block.groups[0].shape
			return tied{l, b, avg[l.index], factorMatrix(m[0], s.Abar()), factorMatrix(m[1], s.Out),
				factorMatrix(m[2], s.Out), factorMatrix(m[3], s.In)}
		}
	}
	t.Fatalf("no tied block; plan:\n%v", c.describe())
	return tied{}
}

// sumOfWays is A1 (x) G1 + G2 (x) A2, abar by abar and within each output by output. The
// homogeneous coordinate takes no part in the second.
func (b *tied) sumOfWays() *mat.Dense {
	abar, _ := b.a1.Dims()
	in, _ := b.g2.Dims()
	var sum, second mat.Dense
	sum.Kronecker(b.a1, b.g1)
	wide := mat.NewDense(abar, abar, nil)
	wide.Slice(0, in, 0, in).(*mat.Dense).Copy(b.g2)
	second.Kronecker(wide, b.a2)
	sum.Add(&sum, &second)
	return &sum
}

// checkTied demands that the block has the trace of the sum of the ways, and that the direction
// solves the damped system of the Kronecker product with the sum's partial traces.
func checkTied(t rapid.TB, c *training[float64], avg averages[float64], gamma, tol float64) {
	t.Helper()
	b := tiedIn(t, c, avg)
	sum := b.sumOfWays()
	trace := mat.Trace(sum)
	testnet.Near(t, "trace", []float64{b.block.Trace(b.avg)}, []float64{trace}, identity)
	abar, _ := b.a1.Dims()
	left, right := curvaturetest.PartialTraces(sum, abar, b.Out)
	right.Scale(1/trace, right)
	directions(t, c, avg, gamma)
	testnet.Near(t, "direction", b.direction(c), tikhonovSolved(t, left, right, gamma, b.gradient(c)), tol)
}

// tikhonovDamped are the factors of a layer, with factored Tikhonov damping (Martens & Grosse 2015,
// section 6.3).
func tikhonovDamped(a, g mat.Matrix, gamma float64) (dampedA, dampedG *mat.Dense) {
	n, _ := a.Dims()
	m, _ := g.Dims()
	pi := math.Sqrt(mat.Trace(a) / float64(n) / (mat.Trace(g) / float64(m)))
	return plusDiagonal(flatOf(a), pi*gamma), plusDiagonal(flatOf(g), gamma/pi)
}

// tikhonovSolved is the damped (A (x) G)^-1 v, from the explicit Kronecker product.
func tikhonovSolved(t rapid.TB, a, g mat.Matrix, gamma float64, v []float64) []float64 {
	t.Helper()
	dampedA, dampedG := tikhonovDamped(a, g, gamma)
	var product mat.Dense
	product.Kronecker(dampedA, dampedG)
	var u mat.VecDense
	testnet.Check(t, u.SolveVec(&product, mat.NewVecDense(len(v), v)))
	return u.RawVector().Data
}

// The encoder's way has the inputs and the gradients of the codes, the decoder's the codes and the
// gradients of the outputs.
func TestTiedFactors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawTied(t)
		a.Linear, a.loss = true, testnet.Squares(0.4)
		n := a.build(rapid.Uint64().Draw(t, "seed"))
		c := attach(t, n)
		b := tiedIn(t, c, exactAverages(t, c, nil))
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
			var rows [][]float64
			for i := range a.Cases {
				row := slices.Clone(x.RawRowView(i))
				if homogeneous {
					row = append(row, 1)
				}
				rows = append(rows, row)
			}
			return outerProducts(rows, a.Cases)
		}
		// The gradient of the outputs has covariance I / variance, that of the codes w^T w /
		// variance.
		ones := mat.NewDiagDense(a.In, slices.Repeat([]float64{1 / 0.4}, a.In))
		testnet.Near(t, "A of the encoder", flatOf(b.a1), moment(x, a.Bias), identity)
		testnet.Near(t, "G of the encoder", flatOf(b.g1), scaled(flatOf(&gramW), 1/0.4), identity)
		testnet.Near(t, "A of the decoder", flatOf(b.a2), moment(&codes, false), identity)
		testnet.Near(t, "G of the decoder", flatOf(b.g2), flatOf(ones), identity)
	})
}

// The block is a Kronecker product that has the partial traces, and so the trace, of the sum that
// it stands for. With a bias the weight may be stored either way.
func TestTiedDirection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := attach(t, drawTied(t).build(rapid.Uint64().Draw(t, "seed")))
		gamma := math.Pow(10, rapid.Float64Range(-2, 1).Draw(t, "log gamma"))
		gradients(t, c)
		checkTied(t, c, exactAverages(t, c, nil), gamma, 1e-9)
	})
}

// nearestProduct is the Kronecker product that is nearest to a matrix of (in out) x (in out), by
// singular vectors (Van Loan & Pitsianis 1993).
func nearestProduct(t rapid.TB, f mat.Matrix, in, out int) *mat.Dense {
	t.Helper()
	turned := mat.NewDense(in*in, out*out, nil)
	at := func(r, c int) (i, j int) { return r/in*out + c/out, r%in*out + c%out }
	for r := range in * in {
		for c := range out * out {
			i, j := at(r, c)
			turned.Set(r, c, f.At(i, j))
		}
	}
	var svd mat.SVD
	if !svd.Factorize(turned, mat.SVDThin) {
		t.Fatal("no singular values")
	}
	var u, v mat.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	nearest := mat.NewDense(in*out, in*out, nil)
	for r := range in * in {
		for c := range out * out {
			i, j := at(r, c)
			nearest.Set(i, j, svd.Values(nil)[0]*u.At(r, 0)*v.At(c, 0))
		}
	}
	return nearest
}

// The one product is hardly farther from the exact Fisher block than the sum of the ways is, or the
// Kronecker product that is nearest to that sum. What is left are the moments between the ways.
func TestTiedIsNearlyNearest(t *testing.T) {
	const in, hidden, nets = 6, 4, 20
	for name, loss := range map[string]testnet.Likelihood{"squares": testnet.Squares(0.4), "bits": testnet.Binary} {
		var ours, ofSum, nearestToSum, nearest float64 // mean distances
		for seed := range uint64(nets) {
			c := attach(t, tiedCoder{In: in, Hidden: hidden, Cases: 40, loss: loss}.build(seed))
			b := tiedIn(t, c, exactAverages(t, c, nil))
			sum := b.sumOfWays()
			exact := pick(denseFisher(t, c, jacobians(t, c)), elements(c, b.Layer))
			apart := func(m mat.Matrix) float64 {
				var e mat.Dense
				e.Sub(m, exact)
				return mat.Norm(&e, 2) / mat.Norm(exact, 2) / nets
			}
			left, right := curvaturetest.PartialTraces(sum, in, hidden)
			right.Scale(1/mat.Trace(sum), right)
			var product mat.Dense
			product.Kronecker(left, right)
			ours += apart(&product)
			ofSum += apart(sum)
			nearestToSum += apart(nearestProduct(t, sum, in, hidden))
			nearest += apart(nearestProduct(t, exact, in, hidden))
		}
		t.Logf("%s: ours %.3f, the sum of the ways %.3f, the product nearest to it %.3f, the nearest %.3f",
			name, ours, ofSum, nearestToSum, nearest)
		if !(ours <= 1.01*nearestToSum) {
			t.Errorf("%s: %.4f from the exact block, the product nearest to the sum %.4f", name, ours, nearestToSum)
		}
	}
}

// Each way by itself is the block of a weight that is not tied: tying adds them up.
func TestTiedWaysAreThoseOfTwoWeights(t *testing.T) {
	for _, loss := range likelihoods {
		a := tiedCoder{In: 3, Hidden: 2, Cases: 4, Bias: true, loss: loss}
		c := attach(t, a.build(1))
		got := tiedIn(t, c, exactAverages(t, c, nil)).avg.Moments
		s := testnet.NewSketch(1)
		n := &testnet.Net{Sketch: s, X: s.Random("x", 4, 3)}
		w, bias := s.Random("w", 3, 2), s.Random("b", 1, 2)
		v := s.Leaf("v", slices.Clone(testnet.Data(w)), 3, 2)
		h := testnet.Tanh(testnet.AddRow(testnet.Mul(n.X, w), bias))
		n.Out, n.Params = testnet.Mul(h, testnet.Transpose(v)), gorgonia.Nodes{w, bias, v}
		n.Cost, n.Loss = loss(s, n.Out)
		two := attach(t, n)
		avg := exactAverages(t, two, nil)
		for i, weight := range []string{"w", "v"} {
			wantA, wantG := layerNamed(t, two, weight).factors(avg)
			testnet.Near(t, weight+": A", got[2*i], wantA, identity)
			testnet.Near(t, weight+": G", got[2*i+1], wantG, identity)
		}
	}
}

// With one case whose input is zero the encoder contributes nothing but its bias, and with none the
// block is the decoder's: exact.
func TestTiedBlockOfOneWayIsExact(t *testing.T) {
	// check demands that the block is that of the way whose inputs are not zero, and exact.
	check := func(t *testing.T, n *testnet.Net, encoder bool) {
		t.Helper()
		c := attach(t, n)
		avg := exactAverages(t, c, nil)
		b := tiedIn(t, c, avg)
		if first, second := mat.Trace(b.a1), mat.Trace(b.a2); (first != 0) != encoder || (second != 0) == encoder {
			t.Fatalf("traces %g and %g of the inputs", first, second)
		}
		left, right := b.g2, b.a2
		if encoder {
			left, right = b.a1, b.g1
		}
		var block mat.Dense
		block.Kronecker(left, right)
		fisher := denseFisher(t, c, jacobians(t, c))
		testnet.Near(t, "block", flatOf(&block), flatOf(pick(fisher, elements(c, b.Layer))), identity)
		gradients(t, c)
		directions(t, c, avg, 0.3)
		testnet.Near(t, "direction", b.direction(c), tikhonovSolved(t, left, right, 0.3, b.gradient(c)), 1e-11)
	}
	t.Run("no input", func(t *testing.T) {
		n := tiedCoder{In: 3, Hidden: 3, Cases: 1, loss: testnet.Binary}.build(2)
		clear(testnet.Data(n.X))
		// tanh(0) = 0 leaves the decoder without an input too, so the codes come from elsewhere.
		s := n.Sketch
		w := n.Params[0]
		h := testnet.Add(testnet.Tanh(testnet.Mul(n.X, w)), s.Random("codes", 1, 3))
		n.Out = testnet.Mul(h, testnet.Transpose(w))
		n.Cost, n.Loss = testnet.Binary(s, n.Out)
		check(t, n, false)
	})
	t.Run("no code", func(t *testing.T) {
		// The decoder's input is zero, that of the encoder is not: w x = 0.
		s := testnet.NewSketch(3)
		w := s.Leaf("w", []float64{1, -1, 2, 2, -2, 4}, 2, 3)
		n := &testnet.Net{Sketch: s, X: s.Leaf("x", []float64{1, 1, 0}, 1, 3), Params: gorgonia.Nodes{w}}
		n.Out = testnet.Mul(testnet.Mul(n.X, testnet.Transpose(w)), w)
		n.Cost, n.Loss = testnet.Binary(s, n.Out)
		check(t, n, true)
	})
}

// An embedding that is tied with the output projection keeps the vocabulary's side diagonal in both
// ways.
func TestTiedEmbedding(t *testing.T) {
	const rows, width = 6, 3
	ids := []int{1, 4, 1, 0, 5}
	n := testnet.Language(1, rows, width, ids)
	c := attach(t, n)
	avg := exactAverages(t, c, nil)
	b := tiedIn(t, c, avg)
	for i, size := range []int{rows, width * width, width * width, rows} { // A1, G1, A2, G2
		if got := len(b.avg.Moments[i]); got != size {
			t.Fatalf("moment %d has %d elements, want %d", i, got, size)
		}
	}
	frequencies := make([]float64, rows)
	for _, id := range ids {
		frequencies[id] += 1 / float64(len(ids))
	}
	testnet.Near(t, "frequencies", b.avg.Moments[0], frequencies, identity)

	// The other way's G is the diagonal of diag(p) - p p^T, the mean over cases.
	m := c.plan.model
	testnet.Check(t, m.run.Forward(nil))
	wanted := make([]float64, rows)
	for i := range ids {
		fisher := plainFisher(m.outputs[0].head, m.run.Value(m.outputs[0].node).Data[i*rows:(i+1)*rows])
		for k := range rows {
			wanted[k] += fisher[k*rows+k] / float64(len(ids))
		}
	}
	testnet.Near(t, "G of the projection", b.avg.Moments[3], wanted, identity)

	gradients(t, c)
	checkTied(t, c, avg, 0.2, 1e-10)
}

// The bias behind the second use is not that of the layer, since the first use has another or none,
// and gets a block of its own.
func TestTiedPlan(t *testing.T) {
	s := testnet.NewSketch(8)
	w, b1, b2 := s.Random("w", 4, 3), s.Random("b1", 1, 3), s.Random("b2", 1, 4)
	h := testnet.Tanh(testnet.AddRow(testnet.Mul(s.Random("x", 5, 4), w), b1))
	n := &testnet.Net{Sketch: s, Params: gorgonia.Nodes{w, b1, b2}}
	n.Ends(testnet.AddRow(testnet.Mul(h, testnet.Transpose(w)), b2), testnet.Binary)
	want := []ParamPlan{
		{"w", []int{4, 3}, Kronecker, "w: A 5, G 3",
			"tied weight: dense layer x w + b1, and its transpose: dense layer x w^T"},
		{"b1", []int{1, 3}, Kronecker, "w: A 5, G 3", "homogeneous coordinate of w"},
		{"b2", []int{1, 4}, Full, "b2: 4 x 4", "offset, element by element"},
	}
	if diff := gocmp.Diff(want, attach(t, n).describe().Params); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
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
		m := attach(t, teacher).plan.model
		testnet.Check(t, m.run.Forward(nil))
		copy(testnet.Data(n.Input("y")), m.run.Value(m.outputs[0].node).Data)
		t.Run(fmt.Sprintf("%d x %d", a.In, a.Hidden), func(t *testing.T) { tr.Falls(t, 40, 0.3) })
	}
	t.Run("language", func(t *testing.T) {
		NewTrainer(t, testnet.Language(6, 12, 8, testnet.WordsOf(12, 12))).Falls(t, 30, 0.5)
	})
}
