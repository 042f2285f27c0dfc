package kfac_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
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
	for _, target := range []any{new(*kfac.ConfigError), new(*kfac.ParamError), new(*kfac.LayerError), new(*kfac.LossError), new(*kfac.GradientError), new(*kfac.GraphError)} {
		if errors.As(err, target) {
			return true
		}
	}
	return false
}

// refused fails unless err is typed, has the sentinel is in it, and names all of words, culprit and remedy.
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
}

// A slip is made in a healthy training loop. spoil, before RunAll, and spoilAfter, between RunAll and Step, return what repairs it.
type slip struct {
	name       string
	spoil      func(t *testing.T, tr *trainer) (repair func())
	spoilAfter func(t *testing.T, tr *trainer) (repair func())
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
func setInput(v float64) func(*testing.T, *trainer) func() {
	return func(_ *testing.T, tr *trainer) func() { return setColumn(tr.x, 3, v) }
}

func setTarget(v float64) func(*testing.T, *trainer) func() {
	return func(_ *testing.T, tr *trainer) func() { return setColumn(tr.y, 2, v) }
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

func setWeight(v float64) func(*testing.T, *trainer) func() {
	return func(t *testing.T, tr *trainer) func() { return set(tr.param(t, "w1"), 4, v) }
}

func setGradient(v float64) func(*testing.T, *trainer) func() {
	return func(t *testing.T, tr *trainer) func() {
		g, err := tr.param(t, "w1").Grad()
		if err != nil {
			t.Fatal(err)
		}
		g.(*tensor.Dense).Set(2, v)
		return func() {} // the loop zeroes it
	}
}

// list gives Step another list of parameters.
func list(change func(t *testing.T, tr *trainer) gorgonia.Nodes) func(*testing.T, *trainer) func() {
	return func(t *testing.T, tr *trainer) func() {
		old := tr.params
		tr.params = change(t, tr)
		return func() { tr.params = old }
	}
}

func with(n *gorgonia.Node, tr *trainer) gorgonia.Nodes {
	return append(append(gorgonia.Nodes{}, tr.params...), n)
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

var slips = []slip{
	{name: "NaN in the input", spoil: setInput(math.NaN()), is: kfac.ErrNotFinite, words: []string{"w0", "gradient", "input"}},
	{name: "infinity in the input", spoil: setInput(math.Inf(1)), is: kfac.ErrNotFinite, words: []string{"gradient", "input"}},
	{name: "NaN in the input after RunAll", spoilAfter: setInput(math.NaN()), is: kfac.ErrNotFinite, words: []string{"input"}},
	{name: "infinity in the input after RunAll", spoilAfter: setInput(math.Inf(-1)), is: kfac.ErrNotFinite, words: []string{"input"}},
	{name: "NaN in the targets", spoil: setTarget(math.NaN()), is: kfac.ErrNotFinite, words: []string{"gradient"}},
	{name: "infinity in the targets", spoil: setTarget(math.Inf(1)), is: kfac.ErrNotFinite, words: []string{"gradient"}},
	{name: "NaN in the targets after RunAll", spoilAfter: setTarget(math.NaN()), firstOnly: true, is: kfac.ErrLoss, words: []string{"Categorical", "target"}},
	{name: "NaN in the weights", spoil: setWeight(math.NaN()), is: kfac.ErrNotFinite, words: []string{"w1", "weights"}},
	{name: "infinity in the weights", spoil: setWeight(math.Inf(1)), is: kfac.ErrNotFinite, words: []string{"w1", "weights"}},
	{name: "NaN in the weights after RunAll", spoilAfter: setWeight(math.NaN()), is: kfac.ErrNotFinite, words: []string{"w1", "weights"}},
	{name: "NaN in a gradient", spoilAfter: setGradient(math.NaN()), is: kfac.ErrNotFinite, words: []string{"w1", "gradient"}},
	{name: "infinity in a gradient", spoilAfter: setGradient(math.Inf(-1)), is: kfac.ErrNotFinite, words: []string{"w1", "gradient"}},
	{name: "huge gradient", spoilAfter: setGradient(1e300), firstOnly: true, is: kfac.ErrGradient, words: []string{"w1", "WithGradientCheck"}},
	{name: "gradient whose square overflows", spoilAfter: setGradient(1e300), laterOnly: true, is: kfac.ErrNotFinite, words: []string{"w1", "outliers"}},
	{name: "weights whose outputs overflow", spoil: setWeight(1e308), is: kfac.ErrNotFinite},

	{name: "empty list", spoil: list(func(*testing.T, *trainer) gorgonia.Nodes { return nil }), is: kfac.ErrNoGradient, words: []string{"NodesToValueGrads"}},
	{name: "nil in the list", spoil: list(func(_ *testing.T, tr *trainer) gorgonia.Nodes { return with(nil, tr) }), is: kfac.ErrForeign, words: []string{"element 4"}},
	{name: "node of another graph", spoil: list(func(_ *testing.T, tr *trainer) gorgonia.Nodes {
		return with(newMLP[float64](1, small, crossEntropy).params[0], tr)
	}), is: kfac.ErrForeign, words: []string{"w0", "another graph"}},
	{name: "input that has no gradient", spoil: list(func(_ *testing.T, tr *trainer) gorgonia.Nodes { return with(tr.x, tr) }), is: kfac.ErrNoGradient, words: []string{`"x"`, "Grad"}},
	{name: "targets", spoil: list(func(_ *testing.T, tr *trainer) gorgonia.Nodes { return with(tr.y, tr) }), is: kfac.ErrNoGradient, words: []string{`"y"`, "Grad"}},
	{name: "computed node", spoil: list(func(_ *testing.T, tr *trainer) gorgonia.Nodes { return with(tr.out, tr) }), is: kfac.ErrForeign, words: []string{"computed"}},
	{name: "the cost itself", spoil: list(func(_ *testing.T, tr *trainer) gorgonia.Nodes { return with(tr.cost, tr) }), is: kfac.ErrForeign},
	{name: "parameter that the cost does not use", spoil: list(func(_ *testing.T, tr *trainer) gorgonia.Nodes {
		return with(input[float64](tr.graph, "idle", 2, 2, make([]float64, 4)), tr)
	}), is: kfac.ErrForeign, words: []string{"idle", "leave it out"}},

	{name: "RunAll forgotten", noRun: true, firstOnly: true, is: kfac.ErrNoGradient, words: []string{"w0", "RunAll"}},
	{name: "RunAll twice", spoil: func(t *testing.T, tr *trainer) func() {
		if err := tr.run(); err != nil {
			t.Fatal(err)
		}
		return func() {}
	}, firstOnly: true, is: kfac.ErrGradient, words: []string{"w0", "2 RunAlls"}},
	{name: "weight of another shape", spoil: func(t *testing.T, tr *trainer) func() { return reshaped(t, tr.params[0].Value(), 5, 4) },
		noRun: true, is: kfac.ErrShape, words: []string{"w0", "(5, 4)", "(4, 5)"}},
	{name: "weight of another shape after RunAll", spoilAfter: func(t *testing.T, tr *trainer) func() { return reshaped(t, tr.params[0].Value(), 20) },
		is: kfac.ErrShape, words: []string{"w0", "(20)", "(4, 5)"}},
	{name: "gradient of another shape", spoilAfter: func(t *testing.T, tr *trainer) func() {
		g, err := tr.params[2].Grad()
		if err != nil {
			t.Fatal(err)
		}
		return reshaped(t, g, 3, 5)
	}, is: kfac.ErrShape, words: []string{"w1", "(3, 5)", "(5, 3)"}},
}

// Each slip is made at the first step and at a later one. The step must fail, change nothing, and after the repair the training must go
// on as that of a twin in which the slip was never made, in every bit.
func TestSlips(t *testing.T) {
	for _, s := range slips {
		for _, done := range []int{0, 3} {
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
	tr.steps(t, done)
	twin.steps(t, done)

	repairs := []func(){}
	if s.spoil != nil {
		repairs = append(repairs, s.spoil(t, tr))
	}
	if !s.noRun {
		if err := tr.run(); err != nil {
			t.Fatal(err)
		}
	}
	if s.spoilAfter != nil {
		repairs = append(repairs, s.spoilAfter(t, tr))
	}
	solver := tr.solver.(*kfac.Solver)
	before := stateOf(twin.params, tr, solver)
	err := attempt(t, func() error { return solver.Step(tr.valueGrads()) })
	refused(t, err, s.is, s.words...)
	before.unchanged(t, twin.params, tr, solver)
	if calls != done {
		t.Errorf("the callback was called %d times for %d steps", calls, done)
	}

	for _, repair := range repairs {
		repair()
	}
	zeroGradients(t, tr.params)
	for range 4 {
		tr.steps(t, 1)
		twin.steps(t, 1)
		sameBits(t, "after the repair, weights", weights(tr.params), weights(twin.params))
		a, b := solver.Stats(), twin.solver.(*kfac.Solver).Stats()
		a.Time, b.Time = kfac.PhaseTimes{}, kfac.PhaseTimes{}
		if a != b {
			t.Fatalf("after the repair: %+v, want %+v", a, b)
		}
	}
	if a, b := solver.Plan().String(), twin.solver.(*kfac.Solver).Plan().String(); a != b {
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
func stateOf(names gorgonia.Nodes, tr *trainer, s *kfac.Solver) state {
	st := state{stats: s.Stats(), plan: s.Plan().String()}
	for _, twin := range names {
		n := tr.graph.ByName(twin.Name())[0]
		st.weights = append(st.weights, numbers(n.Value())...)
		if g, err := n.Grad(); err == nil && g != nil {
			st.grads = append(st.grads, numbers(g)...)
		}
	}
	return st
}

func (before state) unchanged(t *testing.T, names gorgonia.Nodes, tr *trainer, s *kfac.Solver) {
	t.Helper()
	after := stateOf(names, tr, s)
	sameBits(t, "after the error, weights", after.weights, before.weights)
	if len(before.grads) > 0 {
		sameBits(t, "after the error, gradients", after.grads, before.grads)
	}
	if after.stats != before.stats || after.plan != before.plan {
		t.Errorf("after the error, Stats or Plan differ: %+v\n%s", after.stats, after.plan)
	}
}

// zeroGradients is what a user does who goes on after an error: with BindDualValues, gradients add up.
func zeroGradients(t *testing.T, params gorgonia.Nodes) {
	t.Helper()
	for _, n := range params {
		if g, err := n.Grad(); err == nil && g != nil {
			g.(*tensor.Dense).Zero()
		}
	}
}

// foreign is a ValueGrad of somebody else's.
type foreign struct{}

func (foreign) Value() gorgonia.Value         { return gorgonia.NewF64(1) }
func (foreign) Grad() (gorgonia.Value, error) { return gorgonia.NewF64(1), nil }

func TestForeignValueGrad(t *testing.T) {
	tr := classifier(t)
	if err := tr.run(); err != nil {
		t.Fatal(err)
	}
	solver := tr.solver.(*kfac.Solver)
	before := stateOf(tr.params, tr, solver)
	for _, vg := range []gorgonia.ValueGrad{foreign{}, nil, (*gorgonia.Node)(nil)} {
		err := attempt(t, func() error { return solver.Step(append(tr.valueGrads(), vg)) })
		refused(t, err, kfac.ErrForeign, "element 4", "NodesToValueGrads")
		before.unchanged(t, tr.params, tr, solver)
	}
}

// Grad was not called, or the machine does not compute the gradients.
func TestNoGradients(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(m *net) machine
	}{
		{"Grad forgotten", func(m *net) machine { return tape(m) }},
		{"Grad forgotten, with BindDualValues", dualTape},
		{"compiled without the gradients", func(m *net) machine {
			m.grad(t)
			prog, locMap, err := gorgonia.CompileFunction(m.graph, append(gorgonia.Nodes{m.x, m.y}, m.params...), gorgonia.Nodes{m.cost})
			if err != nil {
				t.Fatal(err)
			}
			return tape(m, gorgonia.WithPrecompiled(prog, locMap))
		}},
		{"Grad for the others only", func(m *net) machine {
			if _, err := gorgonia.Grad(m.cost, m.params[1:]...); err != nil {
				t.Fatal(err)
			}
			return tape(m, gorgonia.BindDualValues(m.params[1:]...))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMLP[float64](1, small, crossEntropy)
			tr := &trainer{net: m, run: c.run(m)}
			solver := newSolver(t, m, kfac.Categorical(m.out))
			if err := tr.run(); err != nil {
				t.Fatal(err)
			}
			before := stateOf(m.params, tr, solver)
			err := attempt(t, func() error { return solver.Step(tr.valueGrads()) })
			refused(t, err, kfac.ErrNoGradient, "w0", "Grad(", "BindDualValues")
			before.unchanged(t, m.params, tr, solver)
		})
	}
}

// A tape machine that is not Reset does nothing in its second RunAll, without an error.
func TestForgottenReset(t *testing.T) {
	m := newMLP[float64](1, small, crossEntropy)
	m.grad(t)
	vm := gorgonia.NewTapeMachine(m.graph, gorgonia.BindDualValues(m.params...))
	tr := &trainer{net: m, run: vm.RunAll, solver: newSolver(t, m, kfac.Categorical(m.out))}
	tr.steps(t, 1)
	before := stateOf(m.params, tr, tr.solver.(*kfac.Solver))
	refused(t, attempt(t, tr.step), kfac.ErrGradient, "w0", "Reset")
	before.unchanged(t, m.params, tr, tr.solver.(*kfac.Solver))
}

// The second LispMachine of a graph with a SoftMax computes wrong gradients.
func TestLispMachineThatGoesWrong(t *testing.T) {
	m := newMLP[float64](1, small, crossEntropy)
	tr := &trainer{net: m, run: lisp(m), solver: newSolver(t, m, kfac.Categorical(m.out))}
	tr.steps(t, 1)
	before := weights(m.params)
	refused(t, attempt(t, tr.step), kfac.ErrGradient, "WithGradientCheck")
	sameBits(t, "weights", weights(m.params), before)
}

// A batch that fails leaves NaN in gradients that add up. The message says what to do.
func TestGoingOnAfterNaN(t *testing.T) {
	tr := classifier(t)
	tr.steps(t, 2)
	repair := setColumn(tr.x, 1, math.NaN())
	refused(t, attempt(t, tr.step), kfac.ErrNotFinite, "zero the gradients")
	repair()
	refused(t, attempt(t, tr.step), kfac.ErrNotFinite, "zero the gradients")
	zeroGradients(t, tr.params)
	tr.steps(t, 2)
}

// Options out of their range, each with its name and the offending value in the message.
func TestBadOptions(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for name, bad := range map[string][]kfac.Option{
		"WithLearningRate":        {kfac.WithLearningRate(0), kfac.WithLearningRate(-1), kfac.WithLearningRate(nan), kfac.WithLearningRate(inf)},
		"WithMomentum":            {kfac.WithMomentum(-0.1), kfac.WithMomentum(1), kfac.WithMomentum(nan), kfac.WithMomentum(inf)},
		"WithDamping":             {kfac.WithDamping(0), kfac.WithDamping(-1), kfac.WithDamping(nan), kfac.WithDamping(inf)},
		"WithNormConstraint":      {kfac.WithNormConstraint(0), kfac.WithNormConstraint(-1), kfac.WithNormConstraint(nan)},
		"WithL2Reg":               {kfac.WithL2Reg(-1e-9), kfac.WithL2Reg(nan), kfac.WithL2Reg(inf)},
		"WithCurvatureEMA":        {kfac.WithCurvatureEMA(-0.1), kfac.WithCurvatureEMA(1), kfac.WithCurvatureEMA(nan)},
		"WithInverseUpdatePeriod": {kfac.WithInverseUpdatePeriod(0), kfac.WithInverseUpdatePeriod(-3)},
		"WithStatisticsFraction":  {kfac.WithStatisticsFraction(0), kfac.WithStatisticsFraction(1.1), kfac.WithStatisticsFraction(nan)},
		"WithMinStatisticsCases":  {kfac.WithMinStatisticsCases(0), kfac.WithMinStatisticsCases(-1)},
		"WithStats":               {kfac.WithStats(nil)},
		"option":                  {nil},
	} {
		for i, o := range bad {
			m := newMLP[float64](1, small, crossEntropy)
			s, err := kfac.NewSolver(m.cost, kfac.Categorical(m.out), o)
			var ce *kfac.ConfigError
			if s != nil || !errors.As(err, &ce) || ce.Setting != name || ce.Got == "" || ce.Want == "" || !strings.Contains(err.Error(), name) {
				t.Errorf("%s, value %d: solver %v, error %v", name, i, s, err)
			}
		}
	}
}

func TestBadArguments(t *testing.T) {
	for _, c := range []struct {
		name  string
		solve func(m *net) (*kfac.Solver, error)
		is    error
		words []string
	}{
		{"no cost", func(m *net) (*kfac.Solver, error) { return kfac.NewSolver(nil, kfac.Categorical(m.out)) }, nil, []string{"cost", "nil"}},
		{"cost is no scalar", func(m *net) (*kfac.Solver, error) { return kfac.NewSolver(m.out, kfac.Categorical(m.out)) }, nil, []string{"cost", "(24, 3)", "Mean or Sum"}},
		{"no distribution", func(m *net) (*kfac.Solver, error) { return kfac.NewSolver(m.cost, nil) }, nil, []string{"distribution", "Categorical"}},
		{"empty Joint", func(m *net) (*kfac.Solver, error) { return kfac.NewSolver(m.cost, kfac.Joint()) }, nil, []string{"distribution", "Categorical"}},
		{"nil in a Joint", func(m *net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.cost, kfac.Joint(kfac.Categorical(m.out), nil))
		}, nil, []string{"Joint", "part 1"}},
		{"nil output", func(m *net) (*kfac.Solver, error) { return kfac.NewSolver(m.cost, kfac.Categorical(nil)) }, nil, []string{"Categorical", "nil"}},
		{"nil output of Bernoulli", func(m *net) (*kfac.Solver, error) { return kfac.NewSolver(m.cost, kfac.Bernoulli(nil)) }, nil, []string{"Bernoulli", "nil"}},
		{"nil output of Gaussian", func(m *net) (*kfac.Solver, error) { return kfac.NewSolver(m.cost, kfac.Gaussian(nil, 1)) }, nil, []string{"Gaussian", "nil"}},
		{"variance 0", func(m *net) (*kfac.Solver, error) { return kfac.NewSolver(m.cost, kfac.Gaussian(m.out, 0)) }, nil, []string{"Gaussian", "variance"}},
		{"output twice", func(m *net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.cost, kfac.Joint(kfac.Categorical(m.out), kfac.Gaussian(m.out, 1)))
		}, nil, []string{"Gaussian", "twice"}},
		{"output of another graph", func(m *net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.cost, kfac.Categorical(newMLP[float64](1, small, crossEntropy).out))
		}, nil, []string{"Categorical", "another graph"}},
		{"output is no ancestor of the cost", func(m *net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.cost, kfac.Categorical(must(gorgonia.Mul(m.x, m.params[0]))), kfac.WithStrict())
		}, nil, nil},
		{"output beside the cost", func(m *net) (*kfac.Solver, error) {
			return kfac.NewSolver(m.cost, kfac.Categorical(must(gorgonia.Cos(m.out))))
		}, kfac.ErrLoss, []string{"does not depend on"}},
		{"the targets as output", func(m *net) (*kfac.Solver, error) { return kfac.NewSolver(m.cost, kfac.Categorical(m.y)) }, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMLP[float64](1, small, crossEntropy)
			m.grad(t)
			var s *kfac.Solver
			err := attempt(t, func() (err error) { s, err = c.solve(m); return err })
			if s != nil && err == nil { // as far as NewSolver can see it is right
				run := dualTape(m)
				if err := run(); err != nil {
					t.Fatal(err)
				}
				err = attempt(t, func() error { return s.Step(m.valueGrads()) })
			}
			refused(t, err, c.is, c.words...)
		})
	}
}

// Costs that are not the negative log-likelihood of what is declared: the first Step says so, every time, and changes nothing.
func TestWrongLoss(t *testing.T) {
	dist := map[string]func(out *gorgonia.Node) kfac.Distribution{
		"Categorical": kfac.Categorical, "Bernoulli": kfac.Bernoulli,
		"Gaussian": func(out *gorgonia.Node) kfac.Distribution { return kfac.Gaussian(out, 1) },
	}
	negative := func(l loss) loss {
		return func(out, y *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Neg(l(out, y))) }
	}
	for _, c := range []struct {
		name     string
		loss     loss
		declared string
		spoil    func(m *net)
	}{
		{"softmax declared as Bernoulli", crossEntropy, "Bernoulli", nil},
		{"softmax declared as Gaussian", crossEntropy, "Gaussian", nil},
		{"sigmoid declared as Categorical", binaryCrossEntropy, "Categorical", nil},
		{"sigmoid declared as Gaussian", binaryCrossEntropy, "Gaussian", nil},
		{"squared error declared as Categorical", squaredError, "Categorical", nil},
		{"squared error declared as Bernoulli", squaredError, "Bernoulli", nil},
		{"sign forgotten, softmax", negative(crossEntropy), "Categorical", nil},
		{"sign forgotten, sigmoid", negative(binaryCrossEntropy), "Bernoulli", nil},
		{"sign forgotten, squared error", negative(squaredError), "Gaussian", nil},
		{"no logarithm", func(out, y *gorgonia.Node) *gorgonia.Node {
			return must(gorgonia.Neg(must(gorgonia.Mean(must(gorgonia.HadamardProd(must(gorgonia.SoftMax(out)), y))))))
		}, "Categorical", nil},
		{"logarithm of the product", func(out, y *gorgonia.Node) *gorgonia.Node {
			return must(gorgonia.Neg(must(gorgonia.Mean(must(gorgonia.Log(must(gorgonia.HadamardProd(must(gorgonia.SoftMax(out)), y))))))))
		}, "Categorical", nil},
		{"squared error of probabilities", func(out, y *gorgonia.Node) *gorgonia.Node {
			return squaredError(must(gorgonia.SoftMax(out)), y)
		}, "Categorical", nil},
		{"squared error of probabilities declared as Gaussian logits", func(out, y *gorgonia.Node) *gorgonia.Node {
			return squaredError(must(gorgonia.Sigmoid(out)), y)
		}, "Gaussian", nil},
		{"absolute error", func(out, y *gorgonia.Node) *gorgonia.Node {
			return must(gorgonia.Mean(must(gorgonia.Abs(must(gorgonia.Sub(out, y))))))
		}, "Gaussian", nil},
		{"weights of the cases", func(out, y *gorgonia.Node) *gorgonia.Node {
			scale := input[float64](out.Graph(), "case weights", 24, 3, normal(rand.New(rand.NewPCG(1, 1)), 72, 1))
			return must(gorgonia.Mean(must(gorgonia.HadamardProd(must(gorgonia.Square(must(gorgonia.Sub(out, y)))), must(gorgonia.Square(scale))))))
		}, "Gaussian", nil},
		{"weights of the classes", func(out, y *gorgonia.Node) *gorgonia.Node {
			scale := gorgonia.NewVector(out.Graph(), tensor.Float64, gorgonia.WithShape(3), gorgonia.WithName("class weights"),
				gorgonia.WithValue(tensor.New(tensor.WithBacking([]float64{1, 2, 5}))))
			weighted := must(gorgonia.BroadcastHadamardProd(must(gorgonia.LogSoftMax(out)), scale, nil, []byte{0}))
			return must(gorgonia.Neg(must(gorgonia.Mean(must(gorgonia.HadamardProd(weighted, y))))))
		}, "Categorical", nil},
		{"two ones in a row of targets", crossEntropy, "Categorical", func(m *net) {
			for k := range 3 {
				set(m.y, 6+k, 1)
			}
		}},
		{"targets not scaled to [0, 1]", binaryCrossEntropy, "Bernoulli", func(m *net) { set(m.y, 5, 255) }},
		{"negative targets", binaryCrossEntropy, "Bernoulli", func(m *net) { set(m.y, 5, -1) }},
		{"a cost that is constant", func(out, y *gorgonia.Node) *gorgonia.Node {
			return must(gorgonia.Mean(must(gorgonia.Sub(out, out))))
		}, "Gaussian", nil},
		{"a cost that is linear", func(out, y *gorgonia.Node) *gorgonia.Node {
			return must(gorgonia.Mean(must(gorgonia.HadamardProd(out, y))))
		}, "Gaussian", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMLP[float64](1, small, c.loss)
			if c.spoil != nil {
				c.spoil(m)
			}
			m.grad(t)
			tr := &trainer{net: m, run: dualTape(m)}
			solver := newSolver(t, m, dist[c.declared](m.out))
			if err := tr.run(); err != nil {
				t.Fatal(err)
			}
			before := stateOf(m.params, tr, solver)
			for range 2 {
				err := attempt(t, func() error { return solver.Step(tr.valueGrads()) })
				refused(t, err, kfac.ErrLoss, c.declared, m.out.Name(), "expected", "found")
				var le *kfac.LossError
				if !errors.As(err, &le) || le.Hint == "" {
					t.Errorf("no hint: %v", err)
				}
				before.unchanged(t, m.params, tr, solver)
			}
		})
	}
}
