package kfac_test

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// finite fails unless all numbers are.
func finite(t testing.TB, what string, v []float64) {
	t.Helper()
	for i, x := range v {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			t.Fatalf("%s: element %d is %g", what, i, x)
		}
	}
}

// trains does n iterations, none of which may fail or panic, and fails unless the cost is below the given part of what it was.
func trains(t *testing.T, tr *trainer, n int, below float64) {
	t.Helper()
	var first, last float64
	for i := range n {
		if err := attempt(t, tr.step); err != nil {
			t.Fatalf("iteration %d: %v", i+1, err)
		}
		finite(t, "weights", weights(tr.params))
		last = numbers(tr.cost.Value())[0]
		if i == 0 {
			first = last
		}
	}
	if !(last < below*first) {
		t.Errorf("the cost went from %g to %g in %d iterations", first, last, n)
	}
}

// Data and nets in which a factor is singular or zero.
func TestDegenerateData(t *testing.T) {
	fill := func(n *gorgonia.Node, f func(i int, old float64) float64) {
		d := n.Value().(*tensor.Dense)
		for i := range d.Shape().TotalSize() {
			d.Set(i, f(i, d.Get(i).(float64)))
		}
	}
	constant := func(v float64) func(int, float64) float64 {
		return func(int, float64) float64 { return v }
	}
	for _, c := range []struct {
		name  string
		shape shape
		spoil func(m *net)
	}{
		{"batch of one", shape{1, []int{4, 5, 3}}, nil},
		{"more weights than cases", shape{3, []int{40, 30, 20}}, nil},
		{"layers of one unit", shape{24, []int{1, 1, 2}}, nil},
		{"input all zero", small, func(m *net) { fill(m.x, constant(0)) }},
		{"input constant", small, func(m *net) { fill(m.x, constant(3)) }},
		{"input the same in every case", small, func(m *net) { fill(m.x, func(i int, _ float64) float64 { return float64(i%4) - 1 }) }},
		{"input of very different scales", small, func(m *net) {
			fill(m.x, func(i int, old float64) float64 { return old * math.Pow(10, 4*float64(i%4)-6) })
		}},
		{"weights all zero", small, func(m *net) {
			for _, p := range m.params {
				fill(p, constant(0))
			}
		}},
		{"units all saturated", small, func(m *net) { fill(m.params[0], constant(1e6)) }},
		{"one class only", small, func(m *net) { fill(m.y, func(i int, _ float64) float64 { return float64((i + 1) % 3 / 2) }) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, l := range map[string]loss{"categorical": crossEntropy, "bernoulli": binaryCrossEntropy, "gaussian": squaredError} {
				m := newMLP[float64](1, c.shape, l)
				if c.spoil != nil {
					c.spoil(m)
				}
				dist := map[string]kfac.Distribution{"categorical": kfac.Categorical(m.out), "bernoulli": kfac.Bernoulli(m.out), "gaussian": kfac.Gaussian(m.out, 1)}[name]
				t.Run(name, func(t *testing.T) { trains(t, newTrainer(t, m, dist), 30, 0.999) })
			}
		})
	}
}

// Nothing is left to learn: gradient zero, and for the categorical no curvature either. The weights stay where they are.
func TestNothingToLearn(t *testing.T) {
	t.Run("gaussian", func(t *testing.T) {
		m := newMLP[float32](1, shape{200, []int{30, 40, 20, 10}}, squaredError) // other rounding errors than the solver's own
		m.grad(t)
		var out gorgonia.Value
		gorgonia.Read(m.out, &out)
		run := tape(m)
		if err := run(); err != nil {
			t.Fatal(err)
		}
		if err := gorgonia.Let(m.y, must2(gorgonia.CloneValue(out))); err != nil {
			t.Fatal(err)
		}
		before := weights(m.params)
		(&trainer{net: m, run: run, solver: newSolver(t, m, kfac.Gaussian(m.out, 1))}).steps(t, 4)
		sameBits(t, "weights", weights(m.params), before)
	})
	t.Run("categorical", func(t *testing.T) {
		m := newMLP[float64](1, shape{6, []int{2, 3}}, crossEntropy)
		w, b := m.params[0].Value().(*tensor.Dense), m.params[1].Value().(*tensor.Dense)
		w.Zero()
		b.Zero()
		b.Set(1, 1e4) // class 1, whatever the input
		y := m.y.Value().(*tensor.Dense)
		y.Zero()
		for i := range 6 {
			y.Set(3*i+1, 1.0)
		}
		before := weights(m.params)
		newTrainer(t, m, kfac.Categorical(m.out)).steps(t, 4)
		sameBits(t, "weights", weights(m.params), before)
	})
}

func must2(v gorgonia.Value, err error) gorgonia.Value {
	if err != nil {
		panic(err)
	}
	return v
}

// A layer of rectifiers that are all off has neither gradient nor G. It stays; the layers above learn.
func TestDeadLayer(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	m := &net{graph: gorgonia.NewGraph()}
	m.x = input[float64](m.graph, "x", 20, 3, normal(rng, 60, 1))
	m.y = input[float64](m.graph, "y", 20, 2, oneHot(rng, 20, 2))
	w0 := input[float64](m.graph, "w0", 3, 4, normal(rng, 12, 1))
	b0 := input[float64](m.graph, "b0", 1, 4, []float64{-100, -100, -100, -100})
	w1 := input[float64](m.graph, "w1", 4, 2, normal(rng, 8, 1))
	b1 := input[float64](m.graph, "b1", 1, 2, normal(rng, 2, 1))
	m.params = gorgonia.Nodes{w0, b0, w1, b1}
	h := must(gorgonia.Rectify(must(gorgonia.BroadcastAdd(must(gorgonia.Mul(m.x, w0)), b0, nil, []byte{0}))))
	m.out = must(gorgonia.BroadcastAdd(must(gorgonia.Mul(h, w1)), b1, nil, []byte{0}))
	m.cost = crossEntropy(m.out, m.y)
	dead, alive := gorgonia.Nodes{w0, b0, w1}, gorgonia.Nodes{b1}
	before, b1Before := weights(dead), weights(alive)
	trains(t, newTrainer(t, m, kfac.Categorical(m.out)), 20, 0.99)
	sameBits(t, "parameters that have no gradient", weights(dead), before)
	moved(t, alive, b1Before)
}

// A single case as a vector, Mul(w, x).
func TestCaseAsVector(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 3))
	m := &net{graph: gorgonia.NewGraph()}
	vector := func(name string, v []float64) *gorgonia.Node {
		return gorgonia.NewVector(m.graph, tensor.Float64, gorgonia.WithName(name), gorgonia.WithShape(len(v)),
			gorgonia.WithValue(tensor.New(tensor.WithShape(len(v)), tensor.WithBacking(v))))
	}
	m.x, m.y = vector("x", normal(rng, 4, 1)), vector("y", []float64{0, 1, 0})
	w, b := input[float64](m.graph, "w", 3, 4, normal(rng, 12, 1)), vector("b", normal(rng, 3, 1))
	m.params = gorgonia.Nodes{w, b}
	m.out = must(gorgonia.Add(must(gorgonia.Mul(w, m.x)), b))
	m.cost = must(gorgonia.Neg(must(gorgonia.Sum(must(gorgonia.HadamardProd(must(gorgonia.LogSoftMax(m.out)), m.y))))))
	trains(t, newTrainer(t, m, kfac.Categorical(m.out), kfac.WithStrict()), 30, 0.9)
}

// Masks are drawn anew for the statistics; Gorgonia's gradients are right for p = 0.5.
func TestDropout(t *testing.T) {
	m := newMLP[float64](1, shape{64, []int{4, 16, 3}}, crossEntropy)
	dropped := must(gorgonia.Dropout(must(gorgonia.Tanh(must(gorgonia.Mul(m.x, m.params[0])))), 0.5))
	m.params = gorgonia.Nodes{m.params[0], m.params[2]}
	m.out = must(gorgonia.Mul(dropped, m.params[1]))
	m.cost = crossEntropy(m.out, m.y)
	before := weights(m.params)
	tr := newTrainer(t, m, kfac.Categorical(m.out))
	for range 10 {
		if err := attempt(t, tr.step); err != nil {
			t.Fatal(err)
		}
	}
	finite(t, "weights", weights(m.params))
	moved(t, m.params, before)
}

// Private runs must not count for the running statistics of BatchNorm.
func TestBatchNorm(t *testing.T) {
	build := func() (*trainer, *gorgonia.BatchNormOp) {
		rng := rand.New(rand.NewPCG(6, 6))
		m := newMLP[float64](1, shape{32, []int{4, 5, 3}}, crossEntropy)
		ones := make([]float64, 32*5)
		for i := range ones {
			ones[i] = 1
		}
		scale, shift := input[float64](m.graph, "scale", 32, 5, ones), input[float64](m.graph, "shift", 32, 5, normal(rng, 32*5, 0.1))
		normalised, _, _, op, err := gorgonia.BatchNorm(must(gorgonia.Mul(m.x, m.params[0])), scale, shift, 0.9, 1e-5)
		if err != nil {
			t.Fatal(err)
		}
		m.params = gorgonia.Nodes{m.params[0], scale, shift, m.params[2]}
		m.out = must(gorgonia.Mul(must(gorgonia.Tanh(normalised)), m.params[3]))
		m.cost = crossEntropy(m.out, m.y)
		return newTrainer(t, m, kfac.Categorical(m.out)), op
	}
	tr, _ := build()
	trains(t, tr, 30, 0.9)

	with, opWith := build()
	without, opWithout := build()
	with.steps(t, 1)
	if err := without.run(); err != nil {
		t.Fatal(err)
	}
	mean, variance := opWith.Stats()
	wantMean, wantVariance := opWithout.Stats()
	sameBits(t, "running mean", numbers(mean), numbers(wantMean))
	sameBits(t, "running variance", numbers(variance), numbers(wantVariance))
}

// Settings that are legal and extreme. Either the step is done and the weights are finite, or it fails and they are what they were.
func TestExtremeSettings(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		name string
		opts []kfac.Option
		is   error // what float32, which has no 1e300, must fail with
	}{
		{"huge learning rate, norm constraint on", []kfac.Option{kfac.WithLearningRate(1e300)}, nil},
		{"huge learning rate, norm constraint off", []kfac.Option{kfac.WithLearningRate(1e300), kfac.WithNormConstraint(inf)}, kfac.ErrNotFinite},
		{"tiny learning rate", []kfac.Option{kfac.WithLearningRate(1e-300)}, nil},
		{"huge damping", []kfac.Option{kfac.WithDamping(1e300)}, nil},
		{"huge L2 term", []kfac.Option{kfac.WithL2Reg(1e300)}, kfac.ErrNotFinite},
		{"tiny norm constraint", []kfac.Option{kfac.WithNormConstraint(1e-300)}, nil},
		{"one row of statistics", []kfac.Option{kfac.WithMinStatisticsCases(1), kfac.WithStatisticsFraction(1e-9)}, nil},
		{"no memory of statistics", []kfac.Option{kfac.WithCurvatureEMA(0)}, nil},
		{"no momentum", byRate(kfac.WithMomentum(0)), nil},
		{"almost all momentum", byRate(kfac.WithMomentum(0.999999)), nil},
		{"inverses at every step", []kfac.Option{kfac.WithInverseUpdatePeriod(1)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Run("float64", func(t *testing.T) { testExtreme[float64](t, c.opts, nil) })
			t.Run("float32", func(t *testing.T) { testExtreme[float32](t, c.opts, c.is) })
		})
	}
}

func testExtreme[T float](t *testing.T, opts []kfac.Option, is error) {
	m := newMLP[T](1, small, crossEntropy)
	tr := newTrainer(t, m, kfac.Categorical(m.out), opts...)
	for range 4 {
		if err := tr.run(); err != nil {
			t.Fatal(err)
		}
		before := weights(m.params)
		if err := attempt(t, func() error { return tr.solver.Step(tr.valueGrads()) }); err != nil {
			refused(t, err, kfac.ErrNotFinite)
			sameBits(t, "weights after the error", weights(m.params), before)
			if is == nil && dtype[T]() == tensor.Float32 {
				t.Fatal(err)
			}
			return
		}
		finite(t, "weights", weights(m.params))
		if s := tr.solver.(*kfac.Solver).Stats(); !(s.Shrink > 0) || math.IsNaN(s.KL) {
			t.Errorf("Shrink %g, KL %g", s.Shrink, s.KL)
		}
	}
	if is != nil {
		t.Errorf("no error, want one that is %q", is)
	}
}

// The third parameter's update overflows when those of the first two are made already. They must be forgotten, momentum included.
func TestOverflowInTheMiddleOfAnUpdate(t *testing.T) {
	build := func() *trainer {
		m := newMLP[float32](1, small, crossEntropy)
		return newTrainer(t, m, kfac.Categorical(m.out), kfac.WithNormConstraint(math.Inf(1)), kfac.WithDamping(1e3), kfac.WithLearningRate(5e3))
	}
	tr, twin := build(), build()
	tr.steps(t, 3)
	twin.steps(t, 3)
	if err := tr.run(); err != nil {
		t.Fatal(err)
	}
	g, err := tr.param(t, "w1").Grad()
	if err != nil {
		t.Fatal(err)
	}
	g.(*tensor.Dense).Set(2, float32(3e38))
	solver := tr.solver.(*kfac.Solver)
	before := stateOf(tr.params, tr, solver)
	refused(t, attempt(t, func() error { return solver.Step(tr.valueGrads()) }), kfac.ErrNotFinite, "w1", "updating", "WithLearningRate")
	before.unchanged(t, tr.params, tr, solver)
	zeroGradients(t, tr.params)
	tr.steps(t, 2)
	twin.steps(t, 2)
	sameBits(t, "weights", weights(tr.params), weights(twin.params))
}

// Damping so small that it is lost in rounding, on factors that are singular: the error says what to raise.
func TestHopelessDamping(t *testing.T) {
	m := newMLP[float64](1, small, crossEntropy)
	d := m.x.Value().(*tensor.Dense)
	for i := range d.Shape().TotalSize() {
		d.Set(i, float64(i%4)/3) // one case, repeated: A has rank 1
	}
	tr := newTrainer(t, m, kfac.Categorical(m.out), kfac.WithDamping(1e-300))
	solver := tr.solver.(*kfac.Solver)
	if err := tr.run(); err != nil {
		t.Fatal(err)
	}
	before := stateOf(m.params, tr, solver)
	err := attempt(t, func() error { return solver.Step(tr.valueGrads()) })
	refused(t, err, kfac.ErrNotPosDef, "w0", "Cholesky", "5 x 5", "WithDamping")
	before.unchanged(t, m.params, tr, solver)
}

// A plan for another list of parameters must not outlive the step that failed with it.
func TestFailedReplan(t *testing.T) {
	for _, c := range []struct {
		name string
		opts []kfac.Option
		fail func(t *testing.T, tr *trainer)
		is   error
	}{
		{"not finite", nil, func(_ *testing.T, tr *trainer) { setColumn(tr.x, 1, math.NaN()) }, kfac.ErrNotFinite},
		{"no gradient", nil, func(_ *testing.T, tr *trainer) { tr.params = with(tr.x, tr) }, kfac.ErrNoGradient},
		{"strict", []kfac.Option{kfac.WithStrict()}, func(t *testing.T, tr *trainer) { tr.params = with(tr.x, tr) }, kfac.ErrStrict},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr, twin := classifier(t, c.opts...), classifier(t, c.opts...)
			all := tr.params
			tr.params, twin.params = gorgonia.Nodes{all[2], all[0]}, gorgonia.Nodes{twin.params[2], twin.params[0]}
			few := tr.params
			tr.steps(t, 5)
			twin.steps(t, 5)
			if err := tr.run(); err != nil {
				t.Fatal(err)
			}
			solver := tr.solver.(*kfac.Solver)
			tr.params = all
			x := numbers(tr.x.Value())
			before := stateOf(all, tr, solver)
			c.fail(t, tr)
			err := attempt(t, func() error { return solver.Step(tr.valueGrads()) })
			refused(t, err, c.is)
			before.unchanged(t, all, tr, solver)

			for i, v := range x {
				set(tr.x, i, v)
			}
			zeroGradients(t, all)
			tr.params = few
			tr.steps(t, 5)
			twin.steps(t, 5)
			sameBits(t, "weights", weights(few), weights(twin.params))
		})
	}
}

func TestStrict(t *testing.T) {
	m := newOffsets()
	m.grad(t)
	_, err := kfac.NewSolver(m.cost, kfac.Gaussian(m.out, 1), kfac.WithStrict())
	refused(t, err, kfac.ErrStrict, `"a"`, "diagonal", "WithStrict")

	m = newMLP[float64](1, small, crossEntropy)
	newTrainer(t, m, kfac.Categorical(m.out), kfac.WithStrict()).steps(t, 2)
}

// Gorgonia's tape machine gives the sum of a reshaped value the memory of the value: the gradients of this model are wrong. Whoever
// knows better may say so.
func TestGradientCheckFindsOverwrittenRegisters(t *testing.T) {
	build := func() *net {
		const cases = 16
		rng := rand.New(rand.NewPCG(9, 9))
		m := &net{graph: gorgonia.NewGraph()}
		m.x = input[float64](m.graph, "x", cases, 3, normal(rng, cases*3, 1))
		m.y = gorgonia.NewVector(m.graph, tensor.Float64, gorgonia.WithName("y"), gorgonia.WithShape(cases),
			gorgonia.WithValue(tensor.New(tensor.WithShape(cases), tensor.WithBacking(normal(rng, cases, 1)))))
		m.params = gorgonia.Nodes{input[float64](m.graph, "w", 3, 1, normal(rng, 3, 1))}
		p := must(gorgonia.Sigmoid(must(gorgonia.Mul(m.x, m.params[0]))))
		m.out = must(gorgonia.Reshape(p, tensor.Shape{cases}))
		m.cost = must(gorgonia.Mean(must(gorgonia.Square(must(gorgonia.Sub(m.out, m.y))))))
		return m
	}
	m := build()
	tr := newTrainer(t, m, kfac.Gaussian(m.out, 1))
	solver := tr.solver.(*kfac.Solver)
	if err := tr.run(); err != nil {
		t.Fatal(err)
	}
	before := stateOf(m.params, tr, solver)
	err := attempt(t, func() error { return solver.Step(tr.valueGrads()) })
	refused(t, err, kfac.ErrGradient, `"w"`, "Reshape", "WithoutGradientCheck()")
	var ge *kfac.GradientError
	if !errors.As(err, &ge) || !(ge.Relative > 0.1) {
		t.Errorf("%#v", ge)
	}
	before.unchanged(t, m.params, tr, solver)

	m = build()
	newTrainer(t, m, kfac.Gaussian(m.out, 1), kfac.WithoutGradientCheck()).steps(t, 3)

	m = build() // a LispMachine computes the right gradients
	tr = &trainer{net: m, run: lisp(m), solver: newSolver(t, m, kfac.Gaussian(m.out, 1))}
	trains(t, tr, 10, 0.999)
}

// cube is an op of a user: x^3 element by element. It has a derivative for LispMachines, and none for Grad.
type cube struct{}

func (cube) Arity() int    { return 1 }
func (cube) Type() hm.Type { return hm.NewFnType(hm.TypeVariable('a'), hm.TypeVariable('a')) }
func (cube) InferShape(in ...gorgonia.DimSizer) (tensor.Shape, error) {
	return in[0].(tensor.Shape).Clone(), nil
}
func (cube) ReturnsPtr() bool        { return false }
func (cube) CallsExtern() bool       { return false }
func (cube) OverwritesInput() int    { return -1 }
func (cube) String() string          { return "cube" }
func (c cube) WriteHash(h hash.Hash) { fmt.Fprint(h, c) }
func (c cube) Hashcode() uint32      { h := fnv.New32a(); c.WriteHash(h); return h.Sum32() }
func (cube) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	y := in[0].(*tensor.Dense).Clone().(*tensor.Dense)
	for i, x := range y.Float64s() {
		y.Set(i, x*x*x)
	}
	return y, nil
}

// DoDiff adds 3 x^2 dy to the gradient of the operand.
func (cube) DoDiff(_ gorgonia.ExecutionContext, in gorgonia.Nodes, out *gorgonia.Node) error {
	dx, err := in[0].Grad()
	if err != nil {
		return err
	}
	dy, err := out.Grad()
	if err != nil {
		return err
	}
	x, g := in[0].Value().(*tensor.Dense).Float64s(), dy.(*tensor.Dense).Float64s()
	for i := range x {
		dx.(*tensor.Dense).Float64s()[i] += 3 * x[i] * x[i] * g[i]
	}
	return nil
}

// What lies behind an op that only the user's machine can differentiate is trained by the plain gradient, and the plan says so.
func TestOpWithoutDerivative(t *testing.T) {
	t.Run("learning rate", func(t *testing.T) { testOpWithoutDerivative(t, kfac.WithLearningRate(0.01)) })
	t.Run("quadratic model", func(t *testing.T) { testOpWithoutDerivative(t) })
}

func testOpWithoutDerivative(t *testing.T, opts ...kfac.Option) {
	m := newMLP[float64](1, small, squaredError)
	m.params = gorgonia.Nodes{m.params[0], m.params[2]}
	hidden := must(gorgonia.Mul(m.x, m.params[0]))
	m.out = must(gorgonia.Mul(must(gorgonia.ApplyOp(cube{}, hidden)), m.params[1]))
	m.cost = squaredError(m.out, m.y)
	tr := &trainer{net: m, run: lisp(m), solver: newSolver(t, m, kfac.Gaussian(m.out, 1), opts...)}
	before := weights(m.params)
	trains(t, tr, 10, 0.99)
	moved(t, m.params, before)
	for _, p := range tr.solver.(*kfac.Solver).Plan().Params {
		switch p.Name {
		case "w0":
			if p.Treatment != kfac.Identity || !strings.Contains(p.Reason, "cube") {
				t.Errorf("w0: %s, %q", p.Treatment, p.Reason)
			}
		case "w1":
			if p.Treatment != kfac.Kronecker {
				t.Errorf("w1: %s, %q", p.Treatment, p.Reason)
			}
		}
	}
}
