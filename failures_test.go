package kfac_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// attempt calls f and makes a panic a failure of the test: no mistake of a user may panic.
func attempt(t *testing.T, f func() error) (err error) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("panic: %v", p)
		}
	}()
	return f()
}

// typed reports whether err is one of the package's error types.
func typed(err error) bool {
	for _, target := range []any{new(*kfac.ConfigError), new(*kfac.ParamError), new(*kfac.LayerError),
		new(*kfac.LossError), new(*kfac.InferenceError), new(*kfac.GradientError), new(*kfac.GraphError),
		new(*kfac.StateError),
		new(*kfac.PanicError)} {
		if errors.As(err, target) {
			return true
		}
	}
	return false
}

// refused fails unless err is typed, has the sentinel is in it, and names all of words, culprit and
// remedy.
func refused(t *testing.T, err, is error, words ...string) {
	t.Helper()
	switch {
	case err == nil:
		t.Fatalf("no error, want one that is %q", is)
	case !typed(err):
		t.Fatalf("%T is none of the package's error types: %v", err, err)
	case is != nil && !errors.Is(err, is):
		t.Fatalf("want an error that is %q, got: %v", is, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the message does not say %q: %v", w, err)
		}
	}
	for _, w := range []string{"%!", " false(", " true(", "(%"} { // names that Gorgonia makes
		if strings.Contains(err.Error(), w) {
			t.Errorf("the message says %q: %v", w, err)
		}
	}
}

// A slip is made in a healthy training loop. spoil, before RunAll, and spoilAfter, between RunAll
// and Step, return what repairs it.
type slip struct {
	name       string
	spoil      func(t *testing.T, tr *kfac.Trainer) (repair func())
	spoilAfter func(t *testing.T, tr *kfac.Trainer) (repair func())
	noRun      bool // RunAll is forgotten, or fails
	firstOnly  bool // later it is no mistake, or can't be made
	laterOnly  bool // at first another check finds it
	is         error
	words      []string // that the message has
}

// set changes one element of the value of a node.
func set(n *gorgonia.Node, i int, v float64) (repair func()) {
	d := n.Value().(*tensor.Dense)
	old := d.Get(i)
	d.Set(i, v)
	return func() { d.Set(i, old) }
}

// setInput and setTarget change one number of every case, so that every part of the batch has it.
func setInput(v float64) func(*testing.T, *kfac.Trainer) func() {
	return func(_ *testing.T, tr *kfac.Trainer) func() { return setColumn(tr.X, 3, v) }
}

func setTarget(v float64) func(*testing.T, *kfac.Trainer) func() {
	return func(_ *testing.T, tr *kfac.Trainer) func() { return setColumn(tr.Y, 2, v) }
}

func setColumn(n *gorgonia.Node, col int, v float64) (repair func()) {
	var repairs []func()
	for row := range n.Shape()[0] {
		repairs = append(repairs, set(n, row*n.Shape()[1]+col, v))
	}
	return func() {
		for _, r := range repairs {
			r()
		}
	}
}

func setWeight(v float64) func(*testing.T, *kfac.Trainer) func() {
	return func(t *testing.T, tr *kfac.Trainer) func() { return set(tr.Input("w1"), 4, v) }
}

func setGradient(v float64) func(*testing.T, *kfac.Trainer) func() {
	return func(t *testing.T, tr *kfac.Trainer) func() {
		g, err := tr.Input("w1").Grad()
		if err != nil {
			t.Fatal(err)
		}
		g.(*tensor.Dense).Set(2, v)
		return func() {} // the loop zeroes it
	}
}

// otherList gives Step another list of parameters.
func otherList(change func(t *testing.T, tr *kfac.Trainer) gorgonia.Nodes) func(*testing.T, *kfac.Trainer) func() {
	return func(t *testing.T, tr *kfac.Trainer) func() {
		old := tr.Params
		tr.Params = change(t, tr)
		return func() { tr.Params = old }
	}
}

func with(n *gorgonia.Node, tr *kfac.Trainer) gorgonia.Nodes {
	return append(append(gorgonia.Nodes{}, tr.Params...), n)
}

// reshaped gives a value another shape of the same size, which the graph does not know of.
func reshaped(t *testing.T, v gorgonia.Value, shape ...int) (repair func()) {
	d := v.(*tensor.Dense)
	old := d.Shape().Clone()
	if err := d.Reshape(shape...); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := d.Reshape(old...); err != nil {
			t.Fatal(err)
		}
	}
}

// setCost changes the value that the VM has computed for the cost, not the gradients.
func setCost(v float64) func(*testing.T, *kfac.Trainer) func() {
	return func(_ *testing.T, tr *kfac.Trainer) func() {
		*tr.Cost.Value().(*gorgonia.F64) = gorgonia.F64(v)
		return func() {} // the next RunAll does
	}
}

var slips = []slip{
	{name: "NaN in the input", spoil: setInput(math.NaN()), is: kfac.ErrNotFinite,
		words: []string{"w0", "gradient", "input"}},
	{name: "infinity in the input", spoil: setInput(math.Inf(1)), is: kfac.ErrNotFinite,
		words: []string{"gradient", "input"}},
	{name: "NaN in the input after RunAll", spoilAfter: setInput(math.NaN()), is: kfac.ErrNotFinite,
		words: []string{"input"}},
	{name: "infinity in the input after RunAll", spoilAfter: setInput(math.Inf(-1)), is: kfac.ErrNotFinite,
		words: []string{"input"}},
	{name: "NaN in the targets", spoil: setTarget(math.NaN()), is: kfac.ErrNotFinite, words: []string{"gradient"}},
	{name: "infinity in the targets", spoil: setTarget(math.Inf(1)), is: kfac.ErrNotFinite,
		words: []string{"gradient"}},
	{name: "NaN in the targets after RunAll", spoilAfter: setTarget(math.NaN()), firstOnly: true, is: kfac.ErrLoss,
		words: []string{"Categorical", "target"}},
	{name: "NaN in the weights", spoil: setWeight(math.NaN()), is: kfac.ErrNotFinite, words: []string{"w1", "weights"}},
	{name: "infinity in the weights", spoil: setWeight(math.Inf(1)), is: kfac.ErrNotFinite,
		words: []string{"w1", "weights"}},
	{name: "NaN in the weights after RunAll", spoilAfter: setWeight(math.NaN()), is: kfac.ErrNotFinite,
		words: []string{"w1", "weights"}},
	{name: "NaN in a gradient", spoilAfter: setGradient(math.NaN()), is: kfac.ErrNotFinite,
		words: []string{"w1", "gradient"}},
	{name: "infinity in a gradient", spoilAfter: setGradient(math.Inf(-1)), is: kfac.ErrNotFinite,
		words: []string{"w1", "gradient"}},
	{name: "huge gradient", spoilAfter: setGradient(1e300), firstOnly: true, is: kfac.ErrGradient,
		words: []string{"w1", "WithoutGradientCheck"}},
	{name: "gradient whose square overflows", spoilAfter: setGradient(1e300), laterOnly: true, is: kfac.ErrNotFinite,
		words: []string{"w1", "outliers"}},
	{name: "weights whose outputs overflow", spoil: setWeight(1e308), is: kfac.ErrNotFinite},

	{name: "NaN in the cost alone", spoilAfter: setCost(math.NaN()), is: kfac.ErrNotFinite,
		words: []string{"the cost", "NaN", "the VM is at fault"}},
	{name: "infinity in the cost alone", spoilAfter: setCost(math.Inf(1)), is: kfac.ErrNotFinite,
		words: []string{"the cost", "+Inf", "the VM is at fault", "overflows"}},
	{name: "minus infinity in the cost alone", spoilAfter: setCost(math.Inf(-1)), is: kfac.ErrNotFinite,
		words: []string{"the cost", "-Inf"}},

	{name: "empty list", spoil: otherList(func(*testing.T, *kfac.Trainer) gorgonia.Nodes {
		return nil
	}), is: kfac.ErrNoGradient, words: []string{"NodesToValueGrads"}},
	{name: "nil in the list", spoil: otherList(func(_ *testing.T, tr *kfac.Trainer) gorgonia.Nodes {
		return with(nil, tr)
	}), is: kfac.ErrForeign, words: []string{"element 4"}},
	{name: "node of another graph", spoil: otherList(func(_ *testing.T, tr *kfac.Trainer) gorgonia.Nodes {
		return with(testnet.NewMLP[float64](1, small, testnet.CrossEntropy).Params[0], tr)
	}), is: kfac.ErrForeign, words: []string{"w0", "another graph"}},
	{name: "input that has no gradient", spoil: otherList(func(_ *testing.T, tr *kfac.Trainer) gorgonia.Nodes {
		return with(tr.X, tr)
	}), is: kfac.ErrNoGradient, words: []string{`"x"`, "Grad"}},
	{name: "targets", spoil: otherList(func(_ *testing.T, tr *kfac.Trainer) gorgonia.Nodes {
		return with(tr.Y, tr)
	}), is: kfac.ErrNoGradient, words: []string{`"y"`, "Grad"}},
	{name: "computed node", spoil: otherList(func(_ *testing.T, tr *kfac.Trainer) gorgonia.Nodes {
		return with(tr.Out, tr)
	}), is: kfac.ErrForeign, words: []string{"computed"}},
	{name: "the cost itself", spoil: otherList(func(_ *testing.T, tr *kfac.Trainer) gorgonia.Nodes {
		return with(tr.Cost, tr)
	}), is: kfac.ErrForeign},
	{name: "parameter that the cost does not use",
		spoil: otherList(func(_ *testing.T, tr *kfac.Trainer) gorgonia.Nodes {
			return with(tr.Leaf("idle", make([]float64, 4), 2, 2), tr)
		}), is: kfac.ErrForeign, words: []string{"idle", "leave it out"}},

	{name: "RunAll forgotten", noRun: true, firstOnly: true, is: kfac.ErrNoGradient, words: []string{"w0", "RunAll"}},
	{name: "RunAll twice", spoil: func(t *testing.T, tr *kfac.Trainer) func() {
		if err := tr.Run(); err != nil {
			t.Fatal(err)
		}
		return func() {}
	}, firstOnly: true, is: kfac.ErrGradient, words: []string{"w0", "2 RunAlls"}},
	{name: "weight of another shape", spoil: func(t *testing.T, tr *kfac.Trainer) func() {
		return reshaped(t, tr.Params[0].Value(), 5, 4)
	},
		noRun: true, is: kfac.ErrShape, words: []string{"w0", "(5, 4)", "(4, 5)"}},
	{name: "weight of another shape after RunAll", spoilAfter: func(t *testing.T, tr *kfac.Trainer) func() {
		return reshaped(t, tr.Params[0].Value(), 20)
	},
		is: kfac.ErrShape, words: []string{"w0", "(20)", "(4, 5)"}},
	{name: "gradient of another shape", spoilAfter: func(t *testing.T, tr *kfac.Trainer) func() {
		g, err := tr.Params[2].Grad()
		if err != nil {
			t.Fatal(err)
		}
		return reshaped(t, g, 3, 5)
	}, is: kfac.ErrShape, words: []string{"w1", "(3, 5)", "(5, 3)"}},
}

// Each slip is made at the first step and at a later one. The step must fail, change nothing, and
// after the repair the training must go on as that of a twin in which the slip was never made, in
// every bit.
func TestSlips(t *testing.T) {
	for _, s := range slips {
		for _, done := range []int{0, 5} { // at the sixth step nothing is checked by the calendar
			if done > 0 && s.firstOnly || done == 0 && s.laterOnly {
				continue
			}
			t.Run(fmt.Sprintf("%s/step %d", s.name, done+1), func(t *testing.T) { s.test(t, done) })
		}
	}
}

func (s slip) test(t *testing.T, done int) {
	calls := 0
	tr := classifier(t, kfac.WithMinStatisticsCases(8), kfac.WithStats(func(kfac.Stats) { calls++ }))
	twin := classifier(t, kfac.WithMinStatisticsCases(8))
	tr.Steps(t, done)
	twin.Steps(t, done)

	repairs := []func(){}
	if s.spoil != nil {
		repairs = append(repairs, s.spoil(t, tr))
	}
	if !s.noRun {
		if err := tr.Run(); err != nil {
			t.Fatal(err)
		}
	}
	if s.spoilAfter != nil {
		repairs = append(repairs, s.spoilAfter(t, tr))
	}
	solver := tr.Solver
	before := stateOf(twin.Params, tr, solver)
	err := attempt(t, func() error { return solver.Step(tr.ValueGrads()) })
	refused(t, err, s.is, s.words...)
	before.unchanged(t, twin.Params, tr, solver)
	if calls != done {
		t.Errorf("the callback was called %d times for %d steps", calls, done)
	}

	for _, repair := range repairs {
		repair()
	}
	testnet.ZeroGradients(tr.Params)
	for range 4 {
		tr.Steps(t, 1)
		twin.Steps(t, 1)
		testnet.SameBits(t, "after the repair, weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params))
		a, b := solver.Stats(), twin.Solver.Stats()
		if !kfac.SameStats(a, b) {
			t.Fatalf("after the repair: %+v, want %+v", a, b)
		}
	}
	if a, b := solver.Plan().String(), twin.Solver.Plan().String(); a != b {
		t.Errorf("after the repair the plan is\n%s, want\n%s", a, b)
	}
}

// state is all that a user can see of a step.
type state struct {
	weights, grads []float64
	stats          kfac.Stats
	plan           string
}

// stateOf reads the parameters named like those in names, whatever the list is at the moment.
func stateOf(names gorgonia.Nodes, tr *kfac.Trainer, s *kfac.Solver) state {
	st := state{stats: s.Stats(), plan: s.Plan().String()}
	for _, twin := range names {
		n := tr.Graph.ByName(twin.Name())[0]
		st.weights = append(st.weights, testnet.Numbers(n.Value())...)
		if g, err := n.Grad(); err == nil && g != nil {
			st.grads = append(st.grads, testnet.Numbers(g)...)
		}
	}
	return st
}

func (before state) unchanged(t *testing.T, names gorgonia.Nodes, tr *kfac.Trainer, s *kfac.Solver) {
	t.Helper()
	after := stateOf(names, tr, s)
	testnet.SameBits(t, "after the error, weights", after.weights, before.weights)
	if len(before.grads) > 0 {
		testnet.SameBits(t, "after the error, gradients", after.grads, before.grads)
	}
	if !kfac.SameStats(after.stats, before.stats) || after.stats.Time != before.stats.Time ||
		after.plan != before.plan {
		t.Errorf("after the error, Stats or Plan differ: %+v\n%s", after.stats, after.plan)
	}
}

// foreign is a ValueGrad of somebody else's.
type foreign struct{}

func (foreign) Value() gorgonia.Value         { return gorgonia.NewF64(1) }
func (foreign) Grad() (gorgonia.Value, error) { return gorgonia.NewF64(1), nil }

func TestForeignValueGrad(t *testing.T) {
	tr := classifier(t)
	if err := tr.Run(); err != nil {
		t.Fatal(err)
	}
	solver := tr.Solver
	before := stateOf(tr.Params, tr, solver)
	for _, vg := range []gorgonia.ValueGrad{foreign{}, nil, (*gorgonia.Node)(nil)} {
		err := attempt(t, func() error { return solver.Step(append(tr.ValueGrads(), vg)) })
		refused(t, err, kfac.ErrForeign, "element 4", "NodesToValueGrads")
		before.unchanged(t, tr.Params, tr, solver)
	}
}

// Grad was not called, or the machine does not compute the gradients.
func TestNoGradients(t *testing.T) {
	for _, c := range []struct {
		name  string
		run   func(m *testnet.Net) testnet.Machine
		words string
	}{
		{"Grad forgotten", func(m *testnet.Net) testnet.Machine { return testnet.Tape(m) }, "was not called for it"},
		{"Grad forgotten, with BindDualValues", testnet.DualTape, "Grad was not called for it"},
		{"compiled without the gradients", func(m *testnet.Net) testnet.Machine {
			m.Grad(t)
			prog, locMap, err := gorgonia.CompileFunction(m.Graph, append(gorgonia.Nodes{m.X, m.Y}, m.Params...),
				gorgonia.Nodes{m.Cost})
			if err != nil {
				t.Fatal(err)
			}
			return testnet.Tape(m, gorgonia.WithPrecompiled(prog, locMap))
		}, "BindDualValues"},
		{"Grad for the others only", func(m *testnet.Net) testnet.Machine {
			if _, err := gorgonia.Grad(m.Cost, m.Params[1:]...); err != nil {
				t.Fatal(err)
			}
			return testnet.Tape(m, gorgonia.BindDualValues(m.Params[1:]...))
		}, "Grad was not called for it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
			tr := &kfac.Trainer{Net: m, Run: c.run(m)}
			solver := kfac.NewSolverOf(t, m)
			if err := tr.Run(); err != nil {
				t.Fatal(err)
			}
			before := stateOf(m.Params, tr, solver)
			err := attempt(t, func() error { return solver.Step(tr.ValueGrads()) })
			refused(t, err, kfac.ErrNoGradient, "w0", c.words)
			before.unchanged(t, m.Params, tr, solver)
		})
	}
}

// A tape machine that is not Reset does nothing in its second RunAll, without an error.
func TestForgottenReset(t *testing.T) {
	m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
	m.Grad(t)
	vm := gorgonia.NewTapeMachine(m.Graph, gorgonia.BindDualValues(m.Params...))
	tr := &kfac.Trainer{Net: m, Run: vm.RunAll, Solver: kfac.NewSolverOf(t, m)}
	tr.Steps(t, 1)
	before := stateOf(m.Params, tr, tr.Solver)
	refused(t, attempt(t, tr.Try), kfac.ErrGradient, "w0", "Reset")
	before.unchanged(t, m.Params, tr, tr.Solver)
}

// The second LispMachine of a graph with a SoftMax computes wrong gradients.
func TestLispMachineThatGoesWrong(t *testing.T) {
	m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
	tr := &kfac.Trainer{Net: m, Run: testnet.Lisp(m), Solver: kfac.NewSolverOf(t, m)}
	tr.Steps(t, 1)
	before := testnet.Weights(m.Params)
	refused(t, attempt(t, tr.Try), kfac.ErrGradient, "WithoutGradientCheck")
	testnet.SameBits(t, "weights", testnet.Weights(m.Params), before)
}

// A batch that fails leaves NaN in gradients that add up. The message says what to do.
func TestGoingOnAfterNaN(t *testing.T) {
	tr := classifier(t)
	tr.Steps(t, 2)
	repair := setColumn(tr.X, 1, math.NaN())
	refused(t, attempt(t, tr.Try), kfac.ErrNotFinite, "zero the gradients")
	repair()
	refused(t, attempt(t, tr.Try), kfac.ErrNotFinite, "zero the gradients")
	testnet.ZeroGradients(tr.Params)
	tr.Steps(t, 2)
}

// Options out of their range, each with its name and the offending value in the message.
func TestBadOptions(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for name, bad := range map[string][]kfac.Option{
		"WithLearningRate": {kfac.WithLearningRate(0), kfac.WithLearningRate(-1), kfac.WithLearningRate(nan),
			kfac.WithLearningRate(inf)},
		"WithMomentum": {kfac.WithMomentum(-0.1), kfac.WithMomentum(1), kfac.WithMomentum(nan),
			kfac.WithMomentum(inf)},
		"WithDamping": {kfac.WithDamping(0), kfac.WithDamping(-1), kfac.WithDamping(nan),
			kfac.WithDamping(inf)},
		"WithNormConstraint": {kfac.WithNormConstraint(0), kfac.WithNormConstraint(-1),
			kfac.WithNormConstraint(nan)},
		"WithL2Reg":               {kfac.WithL2Reg(-1e-9), kfac.WithL2Reg(nan), kfac.WithL2Reg(inf)},
		"WithCurvatureEMA":        {kfac.WithCurvatureEMA(-0.1), kfac.WithCurvatureEMA(1), kfac.WithCurvatureEMA(nan)},
		"WithInverseUpdatePeriod": {kfac.WithInverseUpdatePeriod(0), kfac.WithInverseUpdatePeriod(-3)},
		"WithStatisticsFraction": {kfac.WithStatisticsFraction(0), kfac.WithStatisticsFraction(1.1),
			kfac.WithStatisticsFraction(nan)},
		"WithMinStatisticsCases": {kfac.WithMinStatisticsCases(0), kfac.WithMinStatisticsCases(-1)},
		"WithStats":              {kfac.WithStats(nil)},
		"WithRecorder":           {kfac.WithRecorder(nil)},
		"WithLayerStats":         {kfac.WithLayerStats(0), kfac.WithLayerStats(-2)},
		"option":                 {nil},
	} {
		for i, o := range bad {
			m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
			s, err := kfac.NewSolver(m.Cost, kfac.Categorical(m.Out), o)
			var ce *kfac.ConfigError
			if s != nil || !errors.As(err, &ce) || ce.Setting != name || ce.Got == "" || ce.Want == "" ||
				!strings.Contains(err.Error(), name) {
				t.Errorf("%s, value %d: solver %v, error %v", name, i, s, err)
			}
		}
	}
}

// untyped is a node that nobody has given a type.
func untyped(m *testnet.Net) *gorgonia.Node {
	return gorgonia.NewUniqueNode(gorgonia.WithName("untyped"), gorgonia.In(m.Graph))
}

func TestBadArguments(t *testing.T) {
	for _, c := range []struct {
		name  string
		solve func(m *testnet.Net) (*kfac.Solver, error)
		is    error
		words []string
	}{
		{"no cost", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(nil, kfac.Categorical(m.Out))
		}, nil, []string{"cost", "nil"}},
		{"cost is no scalar", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Out, kfac.Categorical(m.Out))
		}, nil, []string{"cost", "(24, 3)", "Mean or Sum"}},
		{"no distribution", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, nil)
		}, nil, []string{"distribution", "Categorical"}},
		{"empty Joint", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Joint())
		}, nil, []string{"distribution", "Categorical"}},
		{"nil in a Joint", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Joint(kfac.Categorical(m.Out), nil))
		}, nil, []string{"Joint", "part 1"}},
		{"nil output", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Categorical(nil))
		}, nil, []string{"Categorical", "nil"}},
		{"nil output of Bernoulli", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Bernoulli(nil))
		}, nil, []string{"Bernoulli", "nil"}},
		{"nil output of Gaussian", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Gaussian(nil, 1))
		}, nil, []string{"Gaussian", "nil"}},
		{"an embedded nil for a distribution", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, struct{ kfac.Distribution }{})
		}, nil, []string{"not made by this package", "predictive distribution"}},
		{"cost without a type", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(untyped(m), kfac.Categorical(m.Out))
		}, nil, []string{"cost", "no type", "float32 or float64"}},
		{"output without a type", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Gaussian(untyped(m), 1))
		}, nil, []string{"Gaussian(untyped)", "no type"}},
		{"part of a Joint without a type", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Joint(kfac.Categorical(m.Out), kfac.Bernoulli(untyped(m))))
		}, nil, []string{"Bernoulli(untyped)", "no type"}},
		{"output in no graph", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Gaussian(gorgonia.NewConstant(1.0), 1))
		}, nil, []string{"Gaussian", "no graph"}},
		{"variance -1", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Gaussian(m.Out, -1))
		}, nil, []string{"Gaussian", "variance"}},
		{"output twice", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Joint(kfac.Categorical(m.Out), kfac.Gaussian(m.Out, 1)))
		}, nil, []string{"Gaussian", "twice"}},
		{"output of another graph", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Categorical(testnet.NewMLP[float64](1, small, testnet.CrossEntropy).Out))
		}, nil, []string{"Categorical", "another graph"}},
		{"output is no ancestor of the cost", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Categorical(testnet.Mul(m.X, m.Params[0])), kfac.WithStrict())
		}, nil, nil},
		{"output beside the cost", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Categorical(gorgonia.Must(gorgonia.Cos(m.Out))))
		}, kfac.ErrLoss, []string{"does not depend on"}},
		{"the targets as output", func(m *testnet.Net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.Cost, kfac.Categorical(m.Y))
		}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
			m.Grad(t)
			var s *kfac.Solver
			err := attempt(t, func() (err error) { s, err = c.solve(m); return err })
			if s != nil && err == nil { // as far as NewSolver can see it is right
				run := testnet.DualTape(m)
				if err := run(); err != nil {
					t.Fatal(err)
				}
				err = attempt(t, func() error { return s.Step(m.ValueGrads()) })
			}
			refused(t, err, c.is, c.words...)
		})
	}
}

// Costs that are not the negative log-likelihood of what is declared: the first Step says so, every
// time, and changes nothing.
func TestWrongLoss(t *testing.T) {
	declare := map[string]func(out *gorgonia.Node) testnet.Loss{
		"Categorical": testnet.Categorical, "Bernoulli": testnet.Bernoulli, "Gaussian": testnet.Normal,
	}
	written := func(cost func(out, y *gorgonia.Node) *gorgonia.Node) testnet.Likelihood {
		return testnet.Written(cost, testnet.Normal) // what is declared is set below
	}
	negative := func(l testnet.Likelihood) testnet.Likelihood {
		return func(s *testnet.Sketch, out *gorgonia.Node) (*gorgonia.Node, testnet.Loss) {
			cost, loss := l(s, out)
			return testnet.Neg(cost), loss
		}
	}
	for _, c := range []struct {
		name     string
		loss     testnet.Likelihood
		declared string
		words    string // which slip it was
		spoil    func(m *testnet.Net)
	}{
		{"softmax declared as Bernoulli", testnet.CrossEntropy, "Bernoulli", "cross-entropy of a softmax", nil},
		{"softmax declared as Gaussian", testnet.CrossEntropy, "Gaussian", "declare kfac.Categorical", nil},
		{"sigmoid declared as Categorical", testnet.BinaryCrossEntropy, "Categorical", "declare kfac.Bernoulli", nil},
		{"sigmoid declared as Gaussian", testnet.BinaryCrossEntropy, "Gaussian", "declare kfac.Bernoulli", nil},
		{"squared error declared as Categorical", testnet.SquaredError, "Categorical", "kfac.SquaredError", nil},
		{"squared error declared as Bernoulli", testnet.SquaredError, "Bernoulli", "declare kfac.SquaredError", nil},
		{"sign forgotten, softmax", negative(testnet.CrossEntropy), "Categorical", "minus what it should be", nil},
		{"sign forgotten, sigmoid", negative(testnet.BinaryCrossEntropy), "Bernoulli", "minus what it should be", nil},
		{"sign forgotten, squared error", negative(testnet.SquaredError), "Gaussian", "minus what it should be", nil},
		{"no logarithm", written(func(out, y *gorgonia.Node) *gorgonia.Node {
			return testnet.Neg(testnet.Mean(testnet.Hadamard(gorgonia.Must(gorgonia.SoftMax(out)), y)))
		}), "Categorical", "a logarithm is missing", nil},
		{"no logarithm, of bits", written(func(out, y *gorgonia.Node) *gorgonia.Node {
			return testnet.Neg(testnet.Mean(testnet.Hadamard(testnet.Sigmoid(out), y)))
		}), "Bernoulli", "a logarithm is missing", nil},
		{"softmax over the cases", written(func(out, y *gorgonia.Node) *gorgonia.Node {
			logp := gorgonia.Must(gorgonia.LogSoftMax(out, 0))
			return testnet.Neg(testnet.Mean(testnet.Hadamard(logp, y)))
		}), "Categorical", "another axis", nil},
		{"an output that has to be positive", written(func(out, y *gorgonia.Node) *gorgonia.Node {
			return testnet.Neg(testnet.Mean(gorgonia.Must(gorgonia.Log(testnet.Add(out, testnet.Hadamard(y, out))))))
		}), "Gaussian", "has to be positive", nil},
		{"logarithm of the product", written(func(out, y *gorgonia.Node) *gorgonia.Node {
			p := testnet.Hadamard(gorgonia.Must(gorgonia.SoftMax(out)), y)
			return testnet.Neg(testnet.Mean(gorgonia.Must(gorgonia.Log(p))))
		}), "Categorical", "HadamardProd(Log(softmax), y) is meant", nil},
		{"squared error of probabilities", func(s *testnet.Sketch, out *gorgonia.Node) (*gorgonia.Node, testnet.Loss) {
			return testnet.SquaredError(s, gorgonia.Must(gorgonia.SoftMax(out)))
		}, "Categorical", "kfac.SquaredError of the node of the probabilities", nil},
		{"squared error of probabilities declared as Gaussian logits",
			func(s *testnet.Sketch, out *gorgonia.Node) (*gorgonia.Node, testnet.Loss) {
				return testnet.SquaredError(s, testnet.Sigmoid(out))
			}, "Gaussian", "", nil},
		{"absolute error", written(func(out, y *gorgonia.Node) *gorgonia.Node {
			return testnet.Mean(gorgonia.Must(gorgonia.Abs(testnet.Sub(out, y))))
		}), "Gaussian", "", nil},
		{"weights of either sign", func(s *testnet.Sketch, out *gorgonia.Node) (*gorgonia.Node, testnet.Loss) {
			scale := s.Leaf("class weights", []float64{1, -2, 5}, 3)
			weighted := gorgonia.Must(gorgonia.BroadcastHadamardProd(testnet.LogSoftMax(out), scale, nil, []byte{0}))
			return testnet.Neg(testnet.Mean(testnet.Hadamard(weighted, s.Y))), testnet.Categorical(out)
		}, "Categorical", "weights from", nil},
		{"targets not scaled to [0, 1]", testnet.BinaryCrossEntropy, "Bernoulli", "[0, 1]", func(m *testnet.Net) {
			set(m.Y, 5, 255)
		}},
		{"negative targets", testnet.BinaryCrossEntropy, "Bernoulli", "[0, 1]", func(m *testnet.Net) {
			set(m.Y, 5, -1)
		}},
		{"a cost that is constant", written(func(out, y *gorgonia.Node) *gorgonia.Node {
			return testnet.Mean(testnet.Sub(out, out))
		}), "Gaussian", "cancels it out", nil},
		{"a cost that is linear", written(func(out, y *gorgonia.Node) *gorgonia.Node {
			return testnet.Mean(testnet.Hadamard(out, y))
		}), "Gaussian", "linear in it", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := testnet.NewMLP[float64](1, small, c.loss)
			if c.spoil != nil {
				c.spoil(m)
			}
			m.Grad(t)
			tr := &kfac.Trainer{Net: m, Run: testnet.DualTape(m)}
			m.Loss = declare[c.declared](m.Out)
			solver := kfac.NewSolverOf(t, m)
			if err := tr.Run(); err != nil {
				t.Fatal(err)
			}
			before := stateOf(m.Params, tr, solver)
			for range 2 {
				err := attempt(t, func() error { return solver.Step(tr.ValueGrads()) })
				output := "(the sum of a matrix product and b1)"
				refused(t, err, kfac.ErrLoss, c.declared, c.words, output, "expected", "found")
				var le *kfac.LossError
				if !errors.As(err, &le) || le.Hint == "" {
					t.Errorf("no hint: %v", err)
				}
				before.unchanged(t, m.Params, tr, solver)
			}
		})
	}
}

// The first error is logged once, for programs that drop what Step returns.
func TestFirstErrorIsLogged(t *testing.T) {
	for _, c := range []struct {
		name string
		opts func(l *slog.Logger) []kfac.Option
		want int // lines
	}{
		{"a logger", func(l *slog.Logger) []kfac.Option { return []kfac.Option{kfac.WithLogger(l)} }, 1},
		{"none", func(*slog.Logger) []kfac.Option { return []kfac.Option{kfac.WithLogger(nil)} }, 0},
		{"the default", func(l *slog.Logger) []kfac.Option {
			before := slog.Default()
			slog.SetDefault(l)
			t.Cleanup(func() { slog.SetDefault(before) })
			return nil
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			tr := classifier(t, c.opts(slog.New(slog.NewTextHandler(&out, nil)))...)
			if err := tr.Solver.Step(nil); err == nil {
				t.Fatal("no error for an empty list")
			}
			if err := tr.Solver.Accumulate(nil); err == nil {
				t.Fatal("no error for an empty list")
			}
			tr.Steps(t, 1)
			lines := strings.Count(out.String(), "\n")
			if lines != c.want || c.want == 1 && !strings.Contains(out.String(), "level=ERROR") {
				t.Errorf("logged: %q", out.String())
			}
		})
	}
}
