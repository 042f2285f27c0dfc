package kfac_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
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

// trains does n iterations, none of which may fail or panic, and fails unless the cost is below the
// given part of what it was.
func trains(t *testing.T, tr *kfac.Trainer, n int, below float64) {
	t.Helper()
	var first, last float64
	for i := range n {
		if err := attempt(t, tr.Try); err != nil {
			t.Fatalf("iteration %d: %v", i+1, err)
		}
		finite(t, "weights", testnet.Weights(tr.Params))
		last = testnet.Numbers(tr.Cost.Value())[0]
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
		shape testnet.Shape
		spoil func(m *testnet.Net)
	}{
		{"batch of one", testnet.Shape{Cases: 1, Widths: []int{4, 5, 3}}, nil},
		{"more weights than cases", testnet.Shape{Cases: 3, Widths: []int{40, 30, 20}}, nil},
		{"layers of one unit", testnet.Shape{Cases: 24, Widths: []int{1, 1, 2}}, nil},
		{"input all zero", small, func(m *testnet.Net) { fill(m.X, constant(0)) }},
		{"input constant", small, func(m *testnet.Net) { fill(m.X, constant(3)) }},
		{"input the same in every case", small, func(m *testnet.Net) {
			fill(m.X, func(i int, _ float64) float64 { return float64(i%4) - 1 })
		}},
		{"input of very different scales", small, func(m *testnet.Net) {
			fill(m.X, func(i int, old float64) float64 { return old * math.Pow(10, 4*float64(i%4)-6) })
		}},
		{"weights all zero", small, func(m *testnet.Net) {
			for _, p := range m.Params {
				fill(p, constant(0))
			}
		}},
		{"units all saturated", small, func(m *testnet.Net) { fill(m.Params[0], constant(1e6)) }},
		{"one class only", small, func(m *testnet.Net) {
			fill(m.Y, func(i int, _ float64) float64 { return float64((i + 1) % 3 / 2) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, l := range map[string]testnet.Likelihood{"categorical": testnet.CrossEntropy,
				"bernoulli": testnet.BinaryCrossEntropy, "gaussian": testnet.SquaredError} {
				m := testnet.NewMLP[float64](1, c.shape, l)
				if c.spoil != nil {
					c.spoil(m)
				}
				t.Run(name, func(t *testing.T) { trains(t, kfac.NewTrainer(t, m), 30, 0.999) })
			}
		})
	}
}

// Nothing is left to learn: gradient zero, and for the categorical no curvature either. The weights
// stay where they are.
func TestNothingToLearn(t *testing.T) {
	t.Run("gaussian", func(t *testing.T) {
		// other rounding errors than the solver's own
		m := testnet.NewMLP[float32](1, testnet.Shape{Cases: 200, Widths: []int{30, 40, 20, 10}}, testnet.SquaredError)
		m.Grad(t)
		var out gorgonia.Value
		gorgonia.Read(m.Out, &out)
		run := testnet.Tape(m)
		if err := run(); err != nil {
			t.Fatal(err)
		}
		if err := gorgonia.Let(m.Y, must2(gorgonia.CloneValue(out))); err != nil {
			t.Fatal(err)
		}
		before := testnet.Weights(m.Params)
		(&kfac.Trainer{Net: m, Run: run, Solver: kfac.NewSolverOf(t, m)}).Steps(t, 4)
		testnet.SameBits(t, "weights", testnet.Weights(m.Params), before)
	})
	t.Run("categorical", func(t *testing.T) {
		m := testnet.NewMLP[float64](1, testnet.Shape{Cases: 6, Widths: []int{2, 3}}, testnet.CrossEntropy)
		w, b := m.Params[0].Value().(*tensor.Dense), m.Params[1].Value().(*tensor.Dense)
		w.Zero()
		b.Zero()
		b.Set(1, 1e4) // class 1, whatever the input
		y := m.Y.Value().(*tensor.Dense)
		y.Zero()
		for i := range 6 {
			y.Set(3*i+1, 1.0)
		}
		before := testnet.Weights(m.Params)
		kfac.NewTrainer(t, m).Steps(t, 4)
		testnet.SameBits(t, "weights", testnet.Weights(m.Params), before)
	})
}

func must2(v gorgonia.Value, err error) gorgonia.Value {
	if err != nil {
		panic(err)
	}
	return v
}

// A layer of rectifiers that are all off has neither gradient nor G. It stays; the layers above
// learn.
func TestDeadLayer(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	m := testnet.NewNet(1)
	m.X = m.Leaf("x", testnet.Normals(rng, 60, 1), 20, 3)
	m.Targets(m.Leaf("y", testnet.OneHots(rng, 20, 2), 20, 2))
	w0 := m.Leaf("w0", testnet.Normals(rng, 12, 1), 3, 4)
	b0 := m.Leaf("b0", []float64{-100, -100, -100, -100}, 1, 4)
	w1 := m.Leaf("w1", testnet.Normals(rng, 8, 1), 4, 2)
	b1 := m.Leaf("b1", testnet.Normals(rng, 2, 1), 1, 2)
	m.Params = gorgonia.Nodes{w0, b0, w1, b1}
	h := testnet.Rectify(testnet.AddRow(testnet.Mul(m.X, w0), b0))
	m.Out = testnet.AddRow(testnet.Mul(h, w1), b1)
	m.Cost, m.Loss = testnet.CrossEntropy(m.Sketch, m.Out)
	dead, alive := gorgonia.Nodes{w0, b0, w1}, gorgonia.Nodes{b1}
	before, b1Before := testnet.Weights(dead), testnet.Weights(alive)
	trains(t, kfac.NewTrainer(t, m), 20, 0.99)
	testnet.SameBits(t, "parameters that have no gradient", testnet.Weights(dead), before)
	testnet.Moved(t, alive, b1Before)
}

// A single case as a vector, Mul(w, x).
func TestCaseAsVector(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 3))
	m := testnet.NewNet(1)
	vector := func(name string, v []float64) *gorgonia.Node { return m.Leaf(name, v, len(v)) }
	m.X, m.Y = vector("x", testnet.Normals(rng, 4, 1)), vector("y", []float64{0, 1, 0})
	w, b := m.Leaf("w", testnet.Normals(rng, 12, 1), 3, 4), vector("b", testnet.Normals(rng, 3, 1))
	m.Params = gorgonia.Nodes{w, b}
	m.Out = testnet.Add(testnet.Mul(w, m.X), b)
	m.Loss = testnet.Categorical(m.Out)
	m.Cost = testnet.Neg(testnet.Sum(testnet.Hadamard(testnet.LogSoftMax(m.Out), m.Y)))
	trains(t, kfac.NewTrainer(t, m, kfac.WithStrict()), 30, 0.9)
}

// Masks are drawn anew for the statistics; Gorgonia's gradients are right for p = 0.5.
func TestDropout(t *testing.T) {
	m := testnet.NewMLP[float64](1, testnet.Shape{Cases: 64, Widths: []int{4, 16, 3}}, testnet.CrossEntropy)
	dropped := gorgonia.Must(gorgonia.Dropout(testnet.Tanh(testnet.Mul(m.X, m.Params[0])), 0.5))
	m.Params = gorgonia.Nodes{m.Params[0], m.Params[2]}
	m.Out = testnet.Mul(dropped, m.Params[1])
	m.Cost, m.Loss = testnet.CrossEntropy(m.Sketch, m.Out)
	before := testnet.Weights(m.Params)
	tr := kfac.NewTrainer(t, m)
	for range 10 {
		if err := attempt(t, tr.Try); err != nil {
			t.Fatal(err)
		}
	}
	finite(t, "weights", testnet.Weights(m.Params))
	testnet.Moved(t, m.Params, before)
}

// Private runs must not count for the running statistics of BatchNorm.
func TestBatchNorm(t *testing.T) {
	build := func() (*kfac.Trainer, *gorgonia.BatchNormOp) {
		rng := rand.New(rand.NewPCG(6, 6))
		m := testnet.NewMLP[float64](1, testnet.Shape{Cases: 32, Widths: []int{4, 5, 3}}, testnet.CrossEntropy)
		ones := make([]float64, 32*5)
		for i := range ones {
			ones[i] = 1
		}
		scale, shift := m.Leaf("scale", ones, 32, 5), m.Leaf("shift", testnet.Normals(rng, 32*5, 0.1), 32, 5)
		normalised, _, _, op, err := gorgonia.BatchNorm(testnet.Mul(m.X, m.Params[0]), scale, shift, 0.9, 1e-5)
		if err != nil {
			t.Fatal(err)
		}
		m.Params = gorgonia.Nodes{m.Params[0], scale, shift, m.Params[2]}
		m.Out = testnet.Mul(testnet.Tanh(normalised), m.Params[3])
		m.Cost, m.Loss = testnet.CrossEntropy(m.Sketch, m.Out)
		return kfac.NewTrainer(t, m), op
	}
	tr, _ := build()
	trains(t, tr, 30, 0.9)

	with, opWith := build()
	without, opWithout := build()
	with.Steps(t, 1)
	if err := without.Run(); err != nil {
		t.Fatal(err)
	}
	mean, variance := opWith.Stats()
	wantMean, wantVariance := opWithout.Stats()
	testnet.SameBits(t, "running mean", testnet.Numbers(mean), testnet.Numbers(wantMean))
	testnet.SameBits(t, "running variance", testnet.Numbers(variance), testnet.Numbers(wantVariance))
}

// Settings that are legal and extreme. Either the step is done and the weights are finite, or it
// fails and they are what they were.
func TestExtremeSettings(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		name string
		opts []kfac.Option
		rate bool  // the steps are those of a learning rate
		is   error // what float32, which has no 1e300, must fail with
	}{
		{"huge learning rate, norm constraint on", []kfac.Option{kfac.WithLearningRate(1e300)}, true, nil},
		{"huge learning rate, norm constraint off",
			[]kfac.Option{kfac.WithLearningRate(1e300), kfac.WithNormConstraint(inf)}, true, kfac.ErrNotFinite},
		{"tiny learning rate", []kfac.Option{kfac.WithLearningRate(1e-300)}, true, nil},
		{"huge damping", []kfac.Option{kfac.WithDamping(1e30)}, false, nil},
		{"huge L2 term", []kfac.Option{kfac.WithL2Reg(1e30)}, false, nil},
		{"tiny norm constraint", []kfac.Option{kfac.WithNormConstraint(1e-300)}, false, nil},
		{"one row of statistics", []kfac.Option{kfac.WithMinStatisticsCases(1),
			kfac.WithStatisticsFraction(1e-9)}, false, nil},
		{"no memory of statistics", []kfac.Option{kfac.WithCurvatureEMA(0)}, false, nil},
		{"no momentum", byRate(kfac.WithMomentum(0)), true, nil},
		{"almost all momentum", byRate(kfac.WithMomentum(0.999999)), true, nil},
		{"inverses at every step", []kfac.Option{kfac.WithInverseUpdatePeriod(1)}, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Run("float64", func(t *testing.T) { testExtreme[float64](t, c.opts, c.rate, nil) })
			t.Run("float32", func(t *testing.T) { testExtreme[float32](t, c.opts, c.rate, c.is) })
		})
	}
}

func testExtreme[T testnet.Float](t *testing.T, opts []kfac.Option, rate bool, is error) {
	m := testnet.NewMLP[T](1, small, testnet.CrossEntropy)
	tr := kfac.NewTrainer(t, m, opts...)
	for range 4 {
		if err := tr.Run(); err != nil {
			t.Fatal(err)
		}
		before := testnet.Weights(m.Params)
		if err := attempt(t, func() error { return tr.Solver.Step(tr.ValueGrads()) }); err != nil {
			refused(t, err, kfac.ErrNotFinite)
			testnet.SameBits(t, "weights after the error", testnet.Weights(m.Params), before)
			if is == nil && testnet.Dtype[T]() == tensor.Float32 {
				t.Fatal(err)
			}
			return
		}
		finite(t, "weights", testnet.Weights(m.Params))
		if s := tr.Solver.Stats(); !(s.Shrink > 0) || math.IsNaN(s.PreconGradNorm+s.UpdateNorm) ||
			math.IsNaN(s.KL) != rate {
			t.Errorf("%+v", s)
		}
	}
	if is != nil {
		t.Errorf("no error, want one that is %q", is)
	}
}

// The third parameter's update overflows when those of the first two are made already. They must be
// forgotten, momentum included.
func TestOverflowInTheMiddleOfAnUpdate(t *testing.T) {
	build := func() *kfac.Trainer {
		m := testnet.NewMLP[float32](1, small, testnet.CrossEntropy)
		return kfac.NewTrainer(t, m, kfac.WithNormConstraint(math.Inf(1)), kfac.WithDamping(1e3),
			kfac.WithLearningRate(5e3))
	}
	tr, twin := build(), build()
	tr.Steps(t, 5)
	twin.Steps(t, 5)
	if err := tr.Run(); err != nil {
		t.Fatal(err)
	}
	g, err := tr.Input("w1").Grad()
	if err != nil {
		t.Fatal(err)
	}
	g.(*tensor.Dense).Set(2, float32(3e38))
	solver := tr.Solver
	before := stateOf(tr.Params, tr, solver)
	refused(t, attempt(t, func() error {
		return solver.Step(tr.ValueGrads())
	}), kfac.ErrNotFinite, "w1", "updating", "WithLearningRate")
	before.unchanged(t, tr.Params, tr, solver)
	testnet.ZeroGradients(tr.Params)
	tr.Steps(t, 2)
	twin.Steps(t, 2)
	testnet.SameBits(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params))
}

// Damping so small that it is lost in rounding, on factors that are singular: it is raised, or by
// the paper's rules the error says what to raise.
func TestHopelessDamping(t *testing.T) {
	build := func(opts ...kfac.Option) *kfac.Trainer {
		m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
		d := m.X.Value().(*tensor.Dense)
		for i := range d.Shape().TotalSize() {
			d.Set(i, float64(i%4)/3) // one case, repeated: A has rank 1
		}
		return kfac.NewTrainer(t, m, append(opts, kfac.WithDamping(1e-300))...)
	}
	raised := build()
	trains(t, raised, 10, 1)
	if st := raised.Solver.Stats(); !(st.Damping > 1e-12) {
		t.Errorf("a damping of %g was enough", st.Damping)
	}

	tr := build(kfac.WithPaperRules())
	m, solver := tr.Net, tr.Solver
	if err := tr.Run(); err != nil {
		t.Fatal(err)
	}
	before := stateOf(m.Params, tr, solver)
	err := attempt(t, func() error { return solver.Step(tr.ValueGrads()) })
	refused(t, err, kfac.ErrNotPosDef, "w0", "Cholesky", "5 x 5", "WithDamping")
	before.unchanged(t, m.Params, tr, solver)
}

// A plan for another list of parameters must not outlive the step that failed with it.
func TestFailedReplan(t *testing.T) {
	for _, c := range []struct {
		name string
		opts []kfac.Option
		fail func(t *testing.T, tr *kfac.Trainer)
		is   error
	}{
		{"not finite", nil, func(_ *testing.T, tr *kfac.Trainer) { setColumn(tr.X, 1, math.NaN()) }, kfac.ErrNotFinite},
		{"no gradient", nil, func(_ *testing.T, tr *kfac.Trainer) { tr.Params = with(tr.X, tr) }, kfac.ErrNoGradient},
		{"strict", []kfac.Option{kfac.WithStrict()}, func(t *testing.T, tr *kfac.Trainer) {
			tr.Params = with(tr.X, tr)
		}, kfac.ErrStrict},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr, twin := classifier(t, c.opts...), classifier(t, c.opts...)
			all := tr.Params
			tr.Params, twin.Params = gorgonia.Nodes{all[2], all[0]}, gorgonia.Nodes{twin.Params[2], twin.Params[0]}
			few := tr.Params
			tr.Steps(t, 5)
			twin.Steps(t, 5)
			if err := tr.Run(); err != nil {
				t.Fatal(err)
			}
			solver := tr.Solver
			tr.Params = all
			x := testnet.Numbers(tr.X.Value())
			before := stateOf(all, tr, solver)
			c.fail(t, tr)
			err := attempt(t, func() error { return solver.Step(tr.ValueGrads()) })
			refused(t, err, c.is)
			before.unchanged(t, all, tr, solver)

			for i, v := range x {
				set(tr.X, i, v)
			}
			testnet.ZeroGradients(all)
			tr.Params = few
			tr.Steps(t, 5)
			twin.Steps(t, 5)
			testnet.SameBits(t, "weights", testnet.Weights(few), testnet.Weights(twin.Params))
		})
	}
}

func TestStrict(t *testing.T) {
	m := testnet.Offsets()
	m.Grad(t)
	_, err := kfac.NewSolver(m.Cost, kfac.Gaussian(m.Out, 1), kfac.WithStrict())
	refused(t, err, kfac.ErrStrict, `"a"`, "diagonal", "WithStrict")

	m = testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
	kfac.NewTrainer(t, m, kfac.WithStrict()).Steps(t, 2)
}

// Gorgonia's tape machine gives the sum of a reshaped value the memory of the value: the gradients
// of this model are wrong. Whoever knows better may say so.
func TestGradientCheckFindsOverwrittenRegisters(t *testing.T) {
	build := func() *testnet.Net {
		const cases = 16
		rng := rand.New(rand.NewPCG(9, 9))
		m := testnet.NewNet(1)
		m.X = m.Leaf("x", testnet.Normals(rng, cases*3, 1), cases, 3)
		m.Y = m.Leaf("y", testnet.Normals(rng, cases, 1), cases)
		m.Params = gorgonia.Nodes{m.Leaf("w", testnet.Normals(rng, 3, 1), 3, 1)}
		p := testnet.Sigmoid(testnet.Mul(m.X, m.Params[0]))
		m.Out = gorgonia.Must(gorgonia.Reshape(p, tensor.Shape{cases}))
		m.Cost, m.Loss = testnet.Mean(testnet.Square(testnet.Sub(m.Out, m.Y))), testnet.Normal(m.Out)
		return m
	}
	m := build()
	tr := kfac.NewTrainer(t, m)
	solver := tr.Solver
	if err := tr.Run(); err != nil {
		t.Fatal(err)
	}
	before := stateOf(m.Params, tr, solver)
	err := attempt(t, func() error { return solver.Step(tr.ValueGrads()) })
	refused(t, err, kfac.ErrGradient, `"w"`, "Reshape", "WithoutGradientCheck()")
	var ge *kfac.GradientError
	if !errors.As(err, &ge) || !(ge.Relative > 0.1) {
		t.Errorf("%#v", ge)
	}
	before.unchanged(t, m.Params, tr, solver)

	m = build()
	kfac.NewTrainer(t, m, kfac.WithoutGradientCheck()).Steps(t, 3)

	m = build() // a LispMachine computes the right gradients
	tr = &kfac.Trainer{Net: m, Run: testnet.Lisp(m), Solver: kfac.NewSolverOf(t, m)}
	trains(t, tr, 10, 0.999)
}

// What lies behind an op that only the user's machine can differentiate is trained by the plain
// gradient, and the plan says so.
func TestOpWithoutDerivative(t *testing.T) {
	t.Run("learning rate", func(t *testing.T) { testOpWithoutDerivative(t, kfac.WithLearningRate(0.01)) })
	t.Run("quadratic model", func(t *testing.T) { testOpWithoutDerivative(t) })
}

func testOpWithoutDerivative(t *testing.T, opts ...kfac.Option) {
	m := testnet.NewMLP[float64](1, small, testnet.SquaredError)
	m.Params = gorgonia.Nodes{m.Params[0], m.Params[2]}
	hidden := testnet.Mul(m.X, m.Params[0])
	m.Out = testnet.Mul(gorgonia.Must(gorgonia.ApplyOp(testnet.Cube{}, hidden)), m.Params[1])
	m.Cost, m.Loss = testnet.SquaredError(m.Sketch, m.Out)
	tr := &kfac.Trainer{Net: m, Run: testnet.Lisp(m), Solver: kfac.NewSolverOf(t, m, opts...)}
	before := testnet.Weights(m.Params)
	trains(t, tr, 10, 0.99)
	testnet.Moved(t, m.Params, before)
	for _, p := range tr.Solver.Plan().Params {
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
