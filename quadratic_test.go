package kfac

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// twoDirections gives every parameter a random direction and a random previous update, and returns
// them, each in one piece.
func twoDirections(s *testnet.Sketch, c *training[float64]) (u, v []float64) {
	for _, p := range c.plan.order {
		p.given = true
		copy(p.direction, s.Normals(p.size()))
		copy(p.previous, s.Normals(p.size()))
		u, v = append(u, p.direction...), append(v, p.previous...)
	}
	return u, v
}

// previousOf and directionOf are those of the parameters that were given.
func previousOf(c *training[float64]) [][]float64 {
	return (&attempt[float64]{plan: c.plan}).given(func(p *parameter[float64]) []float64 { return p.previous })
}

func directionOf(c *training[float64]) [][]float64 {
	return (&attempt[float64]{plan: c.plan}).given(func(p *parameter[float64]) []float64 { return p.direction })
}

// productsOf are u^T F u, u^T F v and v^T F v on the cases of a batch, of direction and previous
// update.
func productsOf(t testing.TB, c *training[float64], b batch[float64]) []float64 {
	t.Helper()
	m := spanOver(t, c, b, 1, false)
	return []float64{m.f[0][0], m.f[0][1], m.f[1][1]}
}

// spanOver is the quadratic model over sign u and v, of direction and previous update.
func spanOver(t testing.TB, c *training[float64], b batch[float64], sign float64, terms bool) span {
	t.Helper()
	m, err := spanOf(c.plan.blocks, c.cfg.l2, true)
	testnet.Check(t, err)
	q := c.quadratic
	q.prepare(b, terms)
	testnet.Check(t, q.along(previous, 1, c.plan.order, previousOf(c)))
	testnet.Check(t, q.along(proposal, sign, c.plan.order, directionOf(c)))
	testnet.Check(t, q.products(&m, nil, nil))
	return m
}

// products are those on the listed cases.
func products(t testing.TB, c *training[float64], rows []int) []float64 {
	t.Helper()
	return productsOf(t, c, batch[float64]{wholeChunk(c, rows)})
}

// wholeChunk is what the graph holds, with the rows for the products.
func wholeChunk(c *training[float64], rows []int) chunk[float64] {
	return chunk[float64]{graph: c.graph, units: c.graph.units, plan: c.plan, cases: c.plan.model.Cases, rows: rows}
}

// form is u^T m v.
func form(m mat.Matrix, u, v []float64) float64 {
	return mat.Inner(mat.NewVecDense(len(u), u), m, mat.NewVecDense(len(v), v))
}

func denseProducts(f mat.Matrix, u, v []float64) []float64 {
	return []float64{form(f, u, u), form(f, u, v), form(f, v, v)}
}

// The products of the quadratic model are those of the Fisher matrix written out, whatever the
// layers and the likelihood, on the whole batch and on a part of it.
func TestFisherProducts(t *testing.T) {
	const cases = 6
	models := map[string]func() *testnet.Net{
		"convolution":       func() *testnet.Net { return testnet.Convolution(cases) },
		"sequence":          func() *testnet.Net { return testnet.Sequence(cases, gorgonia.Tanh) },
		"case by column":    func() *testnet.Net { return testnet.Columns(cases) },
		"tied weights":      func() *testnet.Net { return testnet.TiedLayers(cases) },
		"bias of each case": func() *testnet.Net { return testnet.ScaledCases(cases, testnet.Binary) },
	}
	for name, loss := range likelihoods {
		for _, outByIn := range []bool{false, true} {
			models[fmt.Sprintf("%s, outByIn=%v", name, outByIn)] = func() *testnet.Net {
				return testnet.MLP{Widths: []int{3, 4, 2}, Cases: cases, Unit: gorgonia.Tanh, OutByIn: outByIn,
					Loss: loss}.Build(2)
			}
		}
	}
	for name, build := range models {
		t.Run(name, func(t *testing.T) {
			c := attach(t, build())
			u, v := twoDirections(testnet.NewSketch(3), c)
			perCase := jacobians(t, c)
			testnet.Near(t, "whole batch", products(t, c, nil), denseProducts(denseFisher(t, c, perCase), u, v), 1e-9)
			rows := []int{4, 1, 3}
			for row, j := range perCase {
				if !slices.Contains(rows, row) {
					j.Zero()
				}
			}
			mean := denseProducts(denseFisher(t, c, perCase), u, v) // over all cases, three of which count
			floats.Scale(cases/float64(len(rows)), mean)
			testnet.Near(t, "three cases", products(t, c, rows), mean, 1e-9)
		})
	}
}

// A parameter that this step is not given does not move, so that it has no part in the products.
func TestFisherProductsOfSomeParameters(t *testing.T) {
	c := attach(t, testnet.MLP{Widths: []int{3, 4, 2}, Cases: 5, Unit: gorgonia.Tanh, Loss: testnet.Binary}.Build(2))
	twoDirections(testnet.NewSketch(3), c)
	c.plan.order[1].given = false
	var u, v []float64
	for _, p := range c.plan.order {
		zero := make([]float64, p.size())
		if p.given {
			u, v = append(u, p.direction...), append(v, p.previous...)
		} else {
			u, v = append(u, zero...), append(v, zero...)
		}
	}
	testnet.Near(t, "products", products(t, c, nil), denseProducts(denseFisher(t, c, jacobians(t, c)), u, v), 1e-9)
}

// denseModel is M(delta) - M(0) written out, with a random curvature of full rank and two
// directions.
type denseModel struct {
	f             *mat.Dense
	c             float64
	grad          []float64
	delta, delta0 []float64
}

func drawModel(t *rapid.T) *denseModel {
	s := testnet.NewSketch(rapid.Uint64().Draw(t, "seed"))
	n := rapid.IntRange(2, 6).Draw(t, "n")
	root := mat.NewDense(n, n, s.Normals(n*n))
	m := &denseModel{f: mat.NewDense(n, n, nil), c: rapid.Float64Range(0.01, 10).Draw(t, "damping"),
		grad: s.Normals(n), delta: s.Normals(n), delta0: s.Normals(n)}
	m.f.Mul(root.T(), root)
	return m
}

func (m *denseModel) span() *span {
	f := denseProducts(m.f, m.delta, m.delta0)
	return &span{
		f: [2][2]float64{{f[0], f[1]}, {0, f[2]}},
		dots: [2][2]float64{{floats.Dot(m.delta, m.delta), floats.Dot(m.delta, m.delta0)},
			{0, floats.Dot(m.delta0, m.delta0)}},
		slope: [2]float64{floats.Dot(m.grad, m.delta), floats.Dot(m.grad, m.delta0)},
	}
}

// system is the matrix of the model over the two directions, damping included.
func (m *denseModel) system() *mat.Dense {
	p := m.span()
	system := mat.NewDense(2, 2, []float64{p.f[0][0], p.f[0][1], p.f[0][1], p.f[1][1]})
	system.Add(system, mat.NewDense(2, 2, []float64{m.c * p.dots[0][0], m.c * p.dots[0][1], m.c * p.dots[0][1],
		m.c * p.dots[1][1]}))
	return system
}

// step is alpha Delta + mu delta0.
func (m *denseModel) step(alpha, mu float64) []float64 {
	d := make([]float64, len(m.grad))
	floats.AddScaled(d, alpha, m.delta)
	floats.AddScaled(d, mu, m.delta0)
	return d
}

// change is M(d) - M(0).
func (m *denseModel) change(d []float64) float64 {
	return (form(m.f, d, d)+m.c*floats.Dot(d, d))/2 + floats.Dot(m.grad, d)
}

// gradient is that of M at d.
func (m *denseModel) gradient(d []float64) []float64 {
	g := slices.Clone(m.grad)
	floats.AddScaled(g, m.c, d)
	var fd mat.VecDense
	fd.MulVec(m.f, mat.NewVecDense(len(d), d))
	floats.Add(g, fd.RawVector().Data)
	return g
}

// checkModelStep demands that a step's change and curvature are those of the model written out.
func checkModelStep(t rapid.TB, m *denseModel, s step) {
	t.Helper()
	d := m.step(s.alpha, s.mu)
	testnet.Near(t, "change and curvature", []float64{s.change, s.curvature}, []float64{m.change(d), form(m.f, d, d)},
		1e-9)
}

func TestMinimumOfTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		if mat.Cond(m.system(), 2) > 1e4 {
			t.Skip("ill-conditioned: alpha and mu are not known to 1e-9")
		}
		s := m.span().minimise(m.c, true)
		checkModelStep(t, m, s)
		d := m.step(s.alpha, s.mu)
		if half := floats.Dot(m.grad, d) / 2; math.Abs(s.change-half) > 1e-9*math.Abs(half) {
			t.Errorf("M(delta) - M(0) = %g, half of the slope is %g", s.change, half)
		}
		residual := m.gradient(d)
		scale := floats.Norm(m.grad, 2)
		for name, direction := range map[string][]float64{"Delta": m.delta, "delta0": m.delta0} {
			if slope := floats.Dot(residual, direction); math.Abs(slope) > 1e-9*scale*floats.Norm(direction,
				2)*(1+mat.Norm(m.f, 2)) {
				t.Errorf("the model has slope %g along %s at its minimum", slope, name)
			}
		}

		alone := m.span().minimise(m.c, false)
		checkModelStep(t, m, alone)
		if slope := floats.Dot(m.gradient(m.step(alone.alpha, 0)), m.delta); alone.mu != 0 ||
			math.Abs(slope) > 1e-9*scale*floats.Norm(m.delta, 2)*(1+mat.Norm(m.f, 2)) {
			t.Errorf("without momentum: mu %g, slope %g along Delta", alone.mu, slope)
		}
		if s.change > alone.change+1e-9*math.Abs(alone.change) {
			t.Errorf("two directions change the model by %g, one alone by %g", s.change, alone.change)
		}
	})
}

// The two numbers solve the 2 x 2 system of section 7.
func TestAlphaAndMuSolveTheSystem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		p, system := m.span(), m.system()
		if mat.Cond(system, 2) > 1e4 {
			t.Skip("ill-conditioned")
		}
		var want mat.VecDense
		testnet.Check(t, want.SolveVec(system, mat.NewVecDense(2, []float64{-p.slope[0], -p.slope[1]})))
		s := p.minimise(m.c, true)
		testnet.Near(t, "alpha, mu", []float64{s.alpha, s.mu}, want.RawVector().Data, 1e-9)
	})
}

// A previous update that is zero, or along the proposal, adds nothing: alpha alone is found.
func TestParallelDirections(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		alone := m.span().minimise(m.c, false)
		for _, by := range []float64{0, 1, -0.3, 1e-8, 1e8} {
			for i, d := range m.delta {
				m.delta0[i] = by * d
			}
			if s := m.span().minimise(m.c, true); s != alone {
				t.Errorf("delta0 = %g Delta: %+v, want %+v", by, s, alone)
			}
		}
	})
}

// Where the gradient is zero so is the proposal, and there is nothing to do.
func TestNoDirection(t *testing.T) {
	if s := (&span{}).minimise(0.1, true); s != (step{}) {
		t.Errorf("%+v, want the zero step", s)
	}
	s := (&span{f: [2][2]float64{{0, 0}, {0, 2}}, dots: [2][2]float64{{0, 0}, {0, 1}}}).minimise(0.1, true)
	if s != (step{}) {
		t.Errorf("with a previous update: %+v, want the zero step", s)
	}
}

func TestShrunkStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		p := m.span()
		for _, momentum := range []bool{false, true} {
			full := p.minimise(m.c, momentum)
			by := rapid.Float64Range(0.01, 1).Draw(t, "by")
			s := full.scaled(by, 0, p, m.c)
			testnet.Near(t, "alpha, mu", []float64{s.alpha, s.mu}, []float64{by * full.alpha, by * full.mu}, 1e-15)
			d := m.step(s.alpha, s.mu)
			// The two terms of the change nearly cancel, so that its rounding is that of the slope.
			slope := math.Abs(full.change)
			if want := m.change(d); math.Abs(s.change-want) > 1e-9*slope {
				t.Errorf("change %g, want %g", s.change, want)
			}
			// So do those of the curvature, where the directions are nearly parallel.
			terms := s.alpha*s.alpha*p.f[0][0] + 2*math.Abs(s.alpha*s.mu*p.f[0][1]) + s.mu*s.mu*p.f[1][1]
			if want := form(m.f, d, d); math.Abs(s.curvature-want) > 1e-12*terms {
				t.Errorf("curvature %g, want %g", s.curvature, want)
			}
		}
	})
}

// On a quadratic objective with fixed preconditioner and damping, successive minima over (Delta,
// delta0) are the iterates of preconditioned linear conjugate gradients (Martens & Grosse 2015,
// section 7).
func TestMomentumIsConjugateGradients(t *testing.T) {
	s := testnet.NewSketch(5)
	const n, c = 7, 0.3
	root := mat.NewDense(n, n, s.Normals(n*n))
	f := mat.NewDense(n, n, nil)
	f.Mul(root.T(), root)
	damped := mat.DenseCopyOf(f)
	inverse := mat.NewDense(n, n, nil) // the preconditioner: diagonal, of another matrix
	for i := range n {
		damped.Set(i, i, damped.At(i, i)+c)
		inverse.Set(i, i, 1/(1+float64(i)))
	}
	times := func(m mat.Matrix, x []float64) []float64 {
		var y mat.VecDense
		y.MulVec(m, mat.NewVecDense(len(x), x))
		return y.RawVector().Data
	}
	b := s.Normals(n) // the gradient at 0

	x, delta0 := make([]float64, n), make([]float64, n)
	cgX, r := make([]float64, n), slices.Clone(b)
	floats.Scale(-1, r)
	z := times(inverse, r)
	p := slices.Clone(z)
	for k := range n - 1 {
		m := &denseModel{f: f, c: c, grad: times(damped, x), delta0: delta0}
		floats.Add(m.grad, b)
		m.delta = times(inverse, m.grad)
		floats.Scale(-1, m.delta)
		st := m.span().minimise(c, k > 0)
		delta0 = m.step(st.alpha, st.mu)
		floats.Add(x, delta0)

		ap := times(damped, p)
		rz := floats.Dot(r, z)
		alpha := rz / floats.Dot(p, ap)
		floats.AddScaled(cgX, alpha, p)
		floats.AddScaled(r, -alpha, ap)
		z = times(inverse, r)
		beta := floats.Dot(r, z) / rz
		next := slices.Clone(z)
		floats.AddScaled(next, beta, p)
		p = next
		testnet.Near(t, fmt.Sprint("iterate ", k+1), x, cgX, 1e-9)
	}
}

// Without damping, alpha, mu and the change of the model do not depend on the parameters that the
// function is written in, if the previous update is the same change of the function.
func TestUndampedModelIsInvariant(t *testing.T) {
	s := testnet.NewSketch(1)
	r := forEach(tanhNet.Widths, nearIdentity(s), nearIdentity(s))
	plain, twin := r.twin(t, tanhNet, 2)
	a, b := exactStepOf(t, plain), exactStepOf(t, twin)
	a.damped(t, 0)
	b.damped(t, 0)
	for i, p := range b.plan.order { // one layer each; a has weight and bias
		copy(p.previous, s.Normals(p.size()))
		plainUpdate := r.back(i, r.ofTwin(i, p.previous))
		w, bias := a.plan.order[2*i], a.plan.order[2*i+1]
		copy(w.previous, plainUpdate)
		copy(bias.previous, plainUpdate[w.size():])
	}
	minimum := func(c *training[float64]) step {
		m := spanOver(t, c, batch[float64]{wholeChunk(c, nil)}, -1, false)
		return m.minimise(0, true)
	}
	x, y := minimum(a.training), minimum(b.training)
	testnet.Near(t, "alpha, mu, change, curvature", []float64{y.alpha, y.mu, y.change, y.curvature},
		[]float64{x.alpha, x.mu, x.change, x.curvature}, 1e-9)
	if x.mu == 0 {
		t.Error("no momentum")
	}
}

// inChunks is a net of half as many cases, whose solver has saved the first half of the inputs of
// another net and holds the second.
func inChunks(t *testing.T, whole *testnet.Net, build func(cases int) *testnet.Net,
	inputs ...string) (c *training[float64], chunks batch[float64]) {
	t.Helper()
	half := testnet.CasesOf(whole.Out) / 2
	n := build(half)
	n.CopyParams(whole)
	c = attach(t, n)
	for i := range 2 {
		rows := make([]int, half)
		for k := range rows {
			rows[k] = i*half + k
		}
		for _, name := range inputs {
			copyCases(n.Input(name), whole.Input(name), rows)
		}
		chunks = append(chunks, wholeChunk(c, nil))
		if i == 0 {
			for _, p := range c.plan.order {
				p.given = true
			}
			saved, err := c.graph.save(nil, c.plan.params)
			testnet.Check(t, err)
			chunks[0].inputs = saved
		}
	}
	return c, chunks
}

// Over several chunks the products of the quadratic model are those of all cases that were chosen,
// each with the same weight, and the objective is that of all cases, at other weights than the
// user's too.
func TestFisherProductsAndObjectiveOfChunks(t *testing.T) {
	const cases, eta = 6, 0.2
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			build := func(cases int) *testnet.Net {
				return testnet.MLP{Widths: []int{3, 4, 2}, Cases: cases, Unit: gorgonia.Tanh, Loss: loss}.Build(2)
			}
			n := build(cases)
			inputs := []string{"x", "y"}
			if name == "joint" {
				inputs = append(inputs, "y1")
			}
			c, chunks := inChunks(t, n, build, inputs...)
			u, v := twoDirections(testnet.NewSketch(3), c)
			whole := attach(t, n)
			perCase := jacobians(t, whole)
			for _, test := range []struct {
				name string
				rows [2][]int // nil: all
				all  []int    // the same, among all cases
			}{
				{"all", [2][]int{nil, nil}, []int{0, 1, 2, 3, 4, 5}},
				{"two and one", [2][]int{{2, 0}, {1}}, []int{2, 0, 4}},
				{"one and all", [2][]int{{1}, nil}, []int{1, 3, 4, 5}},
			} {
				chunks[0].rows, chunks[1].rows = test.rows[0], test.rows[1]
				var chosen []*mat.Dense
				for i, j := range perCase {
					if !slices.Contains(test.all, i) {
						j = mat.NewDense(j.RawMatrix().Rows, j.RawMatrix().Cols, nil)
					}
					chosen = append(chosen, j)
				}
				want := denseProducts(denseFisher(t, whole, chosen), u, v)
				floats.Scale(cases/float64(len(test.all)), want)
				testnet.Near(t, test.name, productsOf(t, c, chunks), want, 1e-9)
			}

			twoDirections(testnet.NewSketch(3), whole)
			for _, c := range []*training[float64]{c, whole} {
				for _, p := range c.plan.order {
					testnet.Check(t, p.readWeights(false))
				}
			}
			testnet.Near(t, "objective", objectives(t, c, chunks, eta, previousOf(c)),
				objectives(t, whole, batch[float64]{wholeChunk(whole, nil)}, eta, previousOf(whole)), identity)
		})
	}
}

// What lies behind an op without a derivative has its part in the products, too: by finite
// differences, in place of the forward mode that has the rest. The same net with an op that has a
// derivative gives the same numbers.
func TestFisherProductsByDifferences(t *testing.T) {
	build := func(unit testnet.Unit) *training[float64] {
		s := testnet.NewSketch(21)
		n := &testnet.Net{Sketch: s, X: s.Random("x", 5, 3)}
		h := gorgonia.Must(unit(n.Layer(n.X, 0, 3, 4, true, false)))
		return attach(t, n.Ends(n.Layer(h, 1, 4, 2, true, false), testnet.Binary))
	}
	opaque := build(func(x *gorgonia.Node) (*gorgonia.Node, error) { return gorgonia.ApplyOp(testnet.Cube{}, x) })
	known := build(gorgonia.Cube)
	for _, c := range []*training[float64]{opaque, known} {
		for _, p := range c.plan.order {
			testnet.Check(t, p.readWeights(false))
		}
	}
	if reached := opaque.plan.order[0].reached; reached {
		t.Fatal("the op has a derivative")
	}
	twoDirections(testnet.NewSketch(22), opaque)
	twoDirections(testnet.NewSketch(22), known)
	testnet.Near(t, "products", products(t, opaque, nil), products(t, known, nil), 1e-7)
}

// The products that go on from the statistics' forward pass are those of a forward pass of their
// own, random numbers included; a part of the batch has one of its own.
func TestProductsFromHeldPass(t *testing.T) {
	for _, part := range []bool{false, true} {
		s := testnet.NewSketch(5)
		n := &testnet.Net{Sketch: s, X: s.Random("x", 12, 4)}
		h := gorgonia.Must(gorgonia.Dropout(testnet.Tanh(n.Layer(n.X, 0, 4, 5, true, false)), 0.5))
		n.Ends(n.Layer(h, 1, 5, 3, true, false), testnet.Binary)
		var opts []Option
		if part {
			opts = []Option{WithModelFraction(0.5), WithMinModelCases(1)}
		}
		l := NewTrainer(t, n, opts...)
		testnet.Check(t, l.Run())
		c := trainingOf(l)
		k, err := c.take(l.ValueGrads(), &PhaseTimes{}, &stopwatch{})
		testnet.Check(t, err)
		if k.held == part {
			t.Fatalf("part of the batch: %v; pass held: %v", part, k.held)
		}
		twoDirections(s, c)
		held := productsOf(t, c, batch[float64]{k})
		k.held = false
		if own := productsOf(t, c, batch[float64]{k}); !slices.Equal(held, own) {
			t.Errorf("part of the batch: %v; from the held pass %v, from one of its own %v", part, held, own)
		}
	}
}
