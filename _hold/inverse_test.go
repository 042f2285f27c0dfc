package kfac

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// looseBlock is a Kronecker block of a layer in no program, with random factors that are well
// conditioned and a random gradient.
func looseBlock(s *testnet.Sketch, in, out int, bias, outByIn bool) *kroneckerBlock[float64] {
	named := func(name string, n int) (*program.Node, *parameter[float64]) {
		src := gorgonia.NewVector(s.Graph, tensor.Float64, gorgonia.WithName(name), gorgonia.WithShape(n))
		return &program.Node{Src: src}, &parameter[float64]{place: place[float64]{src: src}}
	}
	l := &layer{in: in, out: out, outByIn: outByIn}
	var b *parameter[float64]
	var w *parameter[float64]
	l.weight, w = named("w", in*out)
	if bias {
		l.bias, b = named("b", out)
	}
	block := newKroneckerBlock(l, w, b)
	for _, p := range []*parameter[float64]{w, b} {
		if p != nil {
			p.allocate()
			copy(p.grad, s.Normals(len(p.grad)))
		}
	}
	copy(block.factors.a.next, positive(s, l.abar()))
	copy(block.factors.g.next, positive(s, out))
	return block
}

// positive is a random symmetric positive definite matrix.
func positive(s *testnet.Sketch, n int) []float64 {
	m := plainMoment(s.Normals(n*n), n, n)
	for i := range n {
		m[i*n+i] += 0.1
	}
	return m
}

// invertBlock computes the inverses of the factors in next.
func invertBlock(b *kroneckerBlock[float64], gamma float64) (raised int, err error) {
	first, _ := b.inversions(gamma)
	parallel.Jobs(first)
	return b.inverted()
}

// gathered is the block's gradient or direction, abar by abar and within each output by output.
func gathered(b *layerBlock[float64], of func(p *parameter[float64]) []float64) (v []float64) {
	w, in, out := of(b.weight), b.layer.in, b.layer.out
	for i := range in {
		for o := range out {
			if b.layer.outByIn {
				v = append(v, w[o*in+i])
			} else {
				v = append(v, w[i*out+o])
			}
		}
	}
	if b.bias != nil {
		v = append(v, of(b.bias)...)
	}
	return v
}

func gradientOf(p *parameter[float64]) []float64  { return p.grad }
func directionOf(p *parameter[float64]) []float64 { return p.dir }

// solved is ((A + dampA I) (x) (G + dampG I))^-1 v, from the explicit Kronecker product.
func solved(t rapid.TB, a, g []float64, dampA, dampG float64, v []float64) []float64 {
	t.Helper()
	var product mat.Dense
	product.Kronecker(plusDiagonal(a, dampA), plusDiagonal(g, dampG))
	var u mat.VecDense
	testnet.Check(t, u.SolveVec(&product, mat.NewVecDense(len(v), v)))
	return u.RawVector().Data
}

func plusDiagonal(x []float64, d float64) *mat.Dense {
	m := square(slices.Clone(x))
	for i := range m.RawMatrix().Rows {
		m.Set(i, i, m.At(i, i)+d)
	}
	return m
}

// The preconditioned gradient solves the explicit Kronecker system, for weights stored in x out and
// out x in, with a bias and without.
func TestDirectionSolvesKroneckerSystem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := testnet.NewSketch(rapid.Uint64().Draw(t, "seed"))
		in, out := rapid.IntRange(1, 6).Draw(t, "in"), rapid.IntRange(1, 6).Draw(t, "out")
		bias, outByIn := rapid.Bool().Draw(t, "bias"), rapid.Bool().Draw(t, "outByIn")
		gamma := math.Pow(10, rapid.Float64Range(-3, 2).Draw(t, "log gamma"))
		b := looseBlock(s, in, out, bias, outByIn)
		raised, err := invertBlock(b, gamma)
		if err != nil || raised != 0 {
			t.Fatalf("raised %d, error %v", raised, err)
		}
		b.precondition(gamma, true)

		a, g := square(b.factors.a.next), square(b.factors.g.next)
		pi := math.Sqrt(mat.Trace(a) / float64(b.layer.abar()) / (mat.Trace(g) / float64(out)))
		want := solved(t, b.factors.a.next, b.factors.g.next, pi*gamma, gamma/pi, gathered(b.layerBlock, gradientOf))
		testnet.Near(t, "direction", gathered(b.layerBlock, directionOf), want, 1e-11)

		// What has become current stays in use until the next is.
		b.keep(true)
		copy(b.factors.a.next, positive(s, b.layer.abar()))
		if _, err := invertBlock(b, 2*gamma); err != nil {
			t.Fatal(err)
		}
		b.precondition(2*gamma, false)
		testnet.Near(t, "direction of the current inverse", gathered(b.layerBlock, directionOf), want, 1e-11)
	})
}

// Moving a constant from one factor to the other changes nothing, since pi moves along.
func TestDirectionIsIndependentOfSplit(t *testing.T) {
	for _, c := range []float64{1e-6, 0.3, 50, 1e9} {
		b := looseBlock(testnet.NewSketch(1), 4, 3, true, false)
		if _, err := invertBlock(b, 0.2); err != nil {
			t.Fatal(err)
		}
		b.precondition(0.2, true)
		want := gathered(b.layerBlock, directionOf)
		for i := range b.factors.a.next {
			b.factors.a.next[i] *= c
		}
		for i := range b.factors.g.next {
			b.factors.g.next[i] /= c
		}
		if _, err := invertBlock(b, 0.2); err != nil {
			t.Fatal(err)
		}
		b.precondition(0.2, true)
		testnet.Near(t, fmt.Sprint("c = ", c), gathered(b.layerBlock, directionOf), want, identity)
	}
}

// Identity factors and lambda = 1/2 leave 1 / (1 + sqrt(1/2))^2 of the gradient.
func TestDirectionGolden(t *testing.T) {
	b := looseBlock(testnet.NewSketch(2), 3, 2, true, true)
	for _, f := range []*moment[float64]{&b.factors.a, &b.factors.g} {
		clear(f.next)
		for i := range f.n {
			f.next[i*f.n+i] = 1
		}
	}
	if _, err := invertBlock(b, gamma(0.5, 0)); err != nil {
		t.Fatal(err)
	}
	b.precondition(gamma(0.5, 0), true)
	want := gathered(b.layerBlock, gradientOf)
	for i := range want {
		want[i] *= 0.34314575050761985
	}
	testnet.Near(t, "direction", gathered(b.layerBlock, directionOf), want, identity)
}

// A layer that is dead on one side or on both is preconditioned by what is left, with gamma added
// to each factor.
func TestZeroFactors(t *testing.T) {
	const gamma = 0.1
	for name, zero := range map[string]func(b *kroneckerBlock[float64]){
		"zero inputs":    func(b *kroneckerBlock[float64]) { clear(b.factors.a.next) },
		"zero gradients": func(b *kroneckerBlock[float64]) { clear(b.factors.g.next) },
		"both":           func(b *kroneckerBlock[float64]) { clear(b.factors.a.next); clear(b.factors.g.next) },
	} {
		b := looseBlock(testnet.NewSketch(3), 4, 3, false, false)
		zero(b)
		raised, err := invertBlock(b, gamma)
		if err != nil || raised != 0 {
			t.Fatalf("%s: raised %d, error %v", name, raised, err)
		}
		b.precondition(gamma, true)
		want := solved(t, b.factors.a.next, b.factors.g.next, gamma, gamma, gathered(b.layerBlock, gradientOf))
		testnet.Near(t, name, gathered(b.layerBlock, directionOf), want, identity)
	}
}

// symmetric is Q diag(values) Q^T with a random orthogonal Q.
func symmetric(s *testnet.Sketch, values ...float64) []float64 {
	q := orthogonal(s, len(values))
	var m mat.Dense
	m.Product(q, mat.NewDiagDense(len(values), values), q.T())
	m.Add(&m, mat.DenseCopyOf(m.T()))
	m.Scale(0.5, &m)
	return flatOf(&m)
}

// orthogonal is a random orthogonal matrix.
func orthogonal(s *testnet.Sketch, n int) *mat.Dense {
	var qr mat.QR
	qr.Factorize(mat.NewDense(n, n, s.Normals(n*n)))
	var q mat.Dense
	qr.QTo(&q)
	return &q
}

// A factor of rank one, (v v^T + d I)^-1 = (I - v v^T / (d + v.v)) / d.
func TestNearlySingularFactor(t *testing.T) {
	const n, damping = 40, 1e-6
	v := testnet.NewSketch(4).Normals(n)
	f, inv := make([]float64, n*n), newInverseFactor[float64](n, false)
	want := make([]float64, n*n)
	for i := range n {
		for j := range n {
			f[i*n+j] = v[i] * v[j]
			want[i*n+j] = -v[i] * v[j] / (damping + dotOf(v, v)) / damping
		}
		want[i*n+i] += 1 / damping
	}
	inv.factorise(f, damping)
	if inv.err != nil || inv.raised {
		t.Fatalf("raised %v, error %v", inv.raised, inv.err)
	}
	testnet.Near(t, "inverse", inv.next, want, 1e-8)
}

// Where rounding has made a factor indefinite, its damping is raised tenfold until it can be
// factorised.
func TestIndefiniteFactorIsDampedMore(t *testing.T) {
	b := looseBlock(testnet.NewSketch(5), 3, 3, false, false)
	copy(b.factors.a.next, symmetric(testnet.NewSketch(6), 2, 1, -3e-7))
	pi := math.Sqrt(mat.Trace(square(b.factors.a.next)) / mat.Trace(square(b.factors.g.next)))
	raised, err := invertBlock(b, 1e-9/pi)
	if err != nil || raised != 1 {
		t.Fatalf("raised %d factors, error %v; want 1", raised, err)
	}
	if got := b.inverse.a.damping; math.Abs(got/1e-6-1) > 1e-12 {
		t.Errorf("damping %g, want 1e-6", got)
	}
	var inv mat.Dense
	testnet.Check(t, inv.Inverse(plusDiagonal(b.factors.a.next, 1e-6)))
	testnet.Near(t, "inverse", b.inverse.a.next, flatOf(&inv), 1e-9)
}

// A factor that can't be factorised at all is an error that says which, how large and how much
// damped; what is current stays.
func TestFactorNotPositiveDefinite(t *testing.T) {
	for name, bad := range map[string][]float64{
		"indefinite": symmetric(testnet.NewSketch(7), 1, 2, -1),
		"NaN":        {1, 0, 0, 0, math.NaN(), 0, 0, 0, 1},
	} {
		b := looseBlock(testnet.NewSketch(8), 3, 2, false, false)
		if _, err := invertBlock(b, 0.1); err != nil {
			t.Fatal(err)
		}
		b.keep(true)
		b.precondition(0.1, false)
		before := gathered(b.layerBlock, directionOf)

		copy(b.factors.a.next, bad)
		copy(b.factors.g.next, b.factors.g.now)
		first, _ := factoredTikhonov(b.factors.a.trace(), 3, b.factors.g.trace(), 2, 1e-9)
		_, err := invertBlock(b, 1e-9)
		var layer *LayerError
		if !errors.Is(err, ErrNotPosDef) || !errors.As(err, &layer) {
			t.Errorf("%s: error %v, want a LayerError that wraps ErrNotPosDef", name, err)
			continue
		}
		if layer.Layer != "w" || layer.Op != "Cholesky factorisation of A" || layer.Dim != 3 ||
			math.Abs(layer.Damping/first-1e6) > 1e-6 {
			t.Errorf("%s: error %#v, want damping %g", name, layer, 1e6*first)
		}
		b.precondition(0.1, false)
		if !slices.Equal(before, gathered(b.layerBlock, directionOf)) {
			t.Errorf("%s: the current inverse has changed", name)
		}
		copy(b.factors.a.next, b.factors.a.now)
		if raised, err := invertBlock(b, 0.1); raised != 0 || err != nil {
			t.Errorf("%s: the next attempt raised %d, error %v", name, raised, err)
		}
	}
}

// An inverse for a model in float32 is computed in float32 where the bound on the condition number
// allows that, and is that of float64 but for rounding then; where it does not, it is computed in
// float64.
func TestInverseInFloat32(t *testing.T) {
	const n = 90
	s := testnet.NewSketch(15)
	f := converted[float32](positive(s, n))
	trace := mat.Trace(square(converted[float64](f)))
	for _, bound := range []float64{10, 0.99 * safeCondition, 1.01 * safeCondition, 1e9} {
		damping := trace / bound
		var want mat.Dense
		testnet.Check(t, want.Inverse(plusDiagonal(converted[float64](f), damping)))
		narrow, inv := newInverseFactor[float32](n, false), newInverseFactor[float32](n, false)
		inv.factorise(f, damping)
		if inv.err != nil || inv.raised {
			t.Fatalf("bound %g: raised %t, error %v", bound, inv.raised, inv.err)
		}
		safe := narrow.invertNarrow(f, damping)
		if safe != (bound < safeCondition) || safe && !slices.Equal(inv.next, narrow.next) {
			t.Errorf("bound %g: computed in float32: %t", bound, safe)
		}
		if safe {
			testnet.Near(t, "inverse", converted[float64](inv.next), flatOf(&want), 1e-4)
		} else {
			testnet.Near(t, "inverse", converted[float64](inv.next), flatOf(&want), 1e-7)
		}
	}
	double := newInverseFactor[float64](n, false)
	if double.invertNarrow(converted[float64](f), trace) {
		t.Error("a model in float64 has an inverse in float32")
	}
}

// The directions of a model in float32 are those of float64 but for rounding.
func TestDirectionInFloat32(t *testing.T) {
	for _, outByIn := range []bool{false, true} {
		b := looseBlock(testnet.NewSketch(9), 20, 7, false, outByIn)
		if _, err := invertBlock(b, 1e-4); err != nil {
			t.Fatal(err)
		}
		b.precondition(1e-4, true)
		single := newInverse[float32](b.layer)
		single.a.factorise(converted[float32](b.factors.a.next), b.inverse.a.damping)
		single.g.factorise(converted[float32](b.factors.g.next), b.inverse.g.damping)
		n := len(b.grad)
		u, tmp := make([]float32, n), make([]float32, n)
		single.apply(u, converted[float32](b.grad), tmp, outByIn, true)
		testnet.Near(t, "direction", converted[float64](u), b.dir, 1e-5)
	}
}

// One linear layer with least squares: without damping one full step lands on the optimum.
func TestUndampedStepSolvesLeastSquares(t *testing.T) {
	for _, m := range []testnet.MLP{
		{Widths: []int{4, 3}, Cases: 9, Loss: testnet.Squares(1)},
		{Widths: []int{4, 3}, Cases: 9, Loss: testnet.Squares(0.2), OutByIn: true},
		{Widths: []int{3, 4}, Cases: 9, Loss: testnet.Squares(1), NoBias: true},
	} {
		n := m.Build(10)
		c := attach(t, n)
		gradients(t, c)
		observeExactly(t, c, nil)
		directions(t, c, 0)

		in, out := m.Widths[0], m.Widths[1]
		x := mat.NewDense(9, in, testnet.Data(n.X))
		if !m.NoBias {
			var wide mat.Dense
			wide.Augment(x, mat.NewDense(9, 1, []float64{1, 1, 1, 1, 1, 1, 1, 1, 1}))
			x = &wide
		}
		var optimum mat.Dense
		testnet.Check(t, optimum.Solve(x, mat.NewDense(9, out, testnet.Data(n.Input("y")))))
		b := layerBlocks(c)[0]
		weights := gathered(b, func(p *parameter[float64]) []float64 { return testnet.Data(p.src) })
		step := gathered(b, directionOf)
		for i := range weights {
			weights[i] -= step[i]
		}
		testnet.Near(t, fmt.Sprintf("%+v", m.Widths), weights, flatOf(&optimum), identity)
	}
}

// Inverses are computed as often as they cost little: (n^3 + m^3) operations for each layer, of 6 B
// n m in an iteration.
func TestInversePeriod(t *testing.T) {
	for name, test := range map[string]struct {
		widths []int
		cases  int
		opts   []Option
		want   int
	}{
		"a small net":       {[]int{4, 3, 2}, 5, nil, 1},
		"a wide layer":      {[]int{149, 50}, 1000, nil, 2}, // 3.5e6 of 4.5e7 operations
		"the same, 1 case":  {[]int{149, 50}, 1, nil, 20},
		"tridiagonal":       {[]int{49, 50, 50}, 5000, []Option{WithBlockTridiagonal()}, 2}, // 5e5 x 20 of 1.5e8
		"diagonal":          {[]int{149, 50}, 1, []Option{WithMaxDim(40)}, 1},
		"given":             {[]int{4, 3}, 5, []Option{WithInverseUpdatePeriod(7)}, 7},
		"in the background": {[]int{4, 3}, 5, []Option{WithBackgroundInverses(20)}, 20},
		"by the paper":      {[]int{4, 3}, 5, []Option{WithPaperRules()}, 20},
	} {
		c := attach(t, testnet.MLP{Widths: test.widths, Cases: test.cases, Unit: gorgonia.Tanh,
			Loss: testnet.Squares(1)}.Build(1), test.opts...)
		if c.period != test.want {
			t.Errorf("%s: every %d steps, want %d", name, c.period, test.want)
		}
	}
	// To look up 60 words in each of 20 cases is no work; the product with one-hot rows is 2.2e7
	// operations. The inverses are 5.9e6.
	for oneHot, want := range map[bool]int{false: 20, true: 7} {
		if c := attach(t, testnet.Text(1, 1000, 20, testnet.WordsOf(1200, 1000), oneHot,
			testnet.Squares(1))); c.period != want {
			t.Errorf("words, as a product %t: every %d steps, want %d", oneHot, c.period, want)
		}
	}
	l := NewTrainer(t, testnet.MLP{Widths: []int{30, 30}, Cases: 20, Loss: testnet.Squares(1)}.Build(2),
		WithInverseUpdatePeriod(4))
	for k := 1; k <= 12; k++ {
		l.Steps(t, 1)
		if got, want := l.Solver.Stats().InverseUpdated, k <= 3 || k%4 == 0 || k == 5 || k == 10; got != want {
			t.Errorf("step %d: inverses updated: %t, want %t", k, got, want)
		}
	}
}
