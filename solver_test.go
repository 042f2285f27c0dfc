package kfac_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// small is the net that most tests here train.
var small = testnet.Shape{Cases: 24, Widths: []int{4, 5, 3}}

// classifier is a trainer of a small float64 net with a softmax cross-entropy.
func classifier(t testing.TB, opts ...kfac.Option) *kfac.Trainer {
	t.Helper()
	m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
	return kfac.NewTrainer(t, m, opts...)
}

// trained is the weights of a classifier after n iterations.
func trained(t testing.TB, n int, opts ...kfac.Option) []float64 {
	t.Helper()
	tr := classifier(t, opts...)
	tr.Steps(t, n)
	return testnet.Weights(tr.Params)
}

// Every machine computes the same gradients by the same kernels, in nets without branches in the
// same order, so the solver, which runs the model by itself, must end at the same weights in every
// bit. A LispMachine is given the costs that it differentiates rightly in its second run of a
// graph, which those with a SoftMax are not.
func TestMachinesAgree(t *testing.T) {
	const steps = 6
	for _, c := range []struct {
		name string
		loss testnet.Likelihood
		lisp bool
	}{
		{"categorical", testnet.CrossEntropy, false},
		{"bernoulli", testnet.BinaryCrossEntropy, true},
		{"gaussian", testnet.SquaredError, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			train := func(machine string) []float64 {
				m := testnet.NewMLP[float64](1, small, c.loss)
				tr := kfac.NewTrainerOn(t, testnet.Machines[machine], m)
				before := testnet.Weights(m.Params)
				tr.Steps(t, steps)
				testnet.Moved(t, m.Params, before)
				return testnet.Weights(m.Params)
			}
			want := train("BindDualValues")
			others := []string{"no BindDualValues", "CompileFunction"}
			if c.lisp {
				others = append(others, "LispMachine")
			}
			for _, machine := range others {
				testnet.SameBits(t, machine, train(machine), want)
			}
		})
	}
}

func TestTensorsAndScalars(t *testing.T) {
	t.Run("float64", testTensorsAndScalars[float64])
	t.Run("float32", testTensorsAndScalars[float32])
}

func testTensorsAndScalars[T testnet.Float](t *testing.T) {
	for _, dual := range []bool{true, false} {
		m := testnet.ScaledOutputs[T]()
		m.Grad(t)
		run := testnet.Tape(m)
		if dual {
			run = testnet.DualTape(m)
		}
		tr := &kfac.Trainer{Net: m, Run: run, Solver: kfac.NewSolverOf(t, m)}
		before := testnet.Weights(m.Params)
		tr.Steps(t, 1)
		testnet.Moved(t, m.Params, before)
		first := testnet.Numbers(m.Cost.Value())[0]
		tr.Steps(t, 60)
		if last := testnet.Numbers(m.Cost.Value())[0]; !(last < 0.9*first) {
			t.Errorf("with BindDualValues %v the cost went from %g to %g", dual, first, last)
		}
		for _, n := range m.Params {
			if n.Value().Dtype() != testnet.Dtype[T]() {
				t.Errorf("%s has become %v", n.Name(), n.Value().Dtype())
			}
		}
	}
}

func TestFloat32FollowsFloat64(t *testing.T) {
	m := testnet.NewMLP[float32](1, small, testnet.CrossEntropy)
	tr := kfac.NewTrainer(t, m)
	tr.Steps(t, 5)
	testnet.Near(t, "weights after 5 steps", testnet.Weights(m.Params), trained(t, 5), 1e-4)
}

func TestOrderOfTheList(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	shuffled := func(from int) []float64 { // shuffles the list from that step on
		tr := classifier(t)
		all := append(gorgonia.Nodes(nil), tr.Params...)
		for i := range 6 {
			if i >= from {
				rng.Shuffle(len(tr.Params), func(i, j int) { tr.Params[i], tr.Params[j] = tr.Params[j], tr.Params[i] })
			}
			tr.Steps(t, 1)
		}
		return testnet.Weights(all)
	}
	want := trained(t, 6)
	// squared norms are summed in the first list's order
	testnet.Near(t, "shuffled from the first step on", shuffled(0), want, 1e-12)
	testnet.SameBits(t, "shuffled from the second step on", shuffled(1), want)
}

func TestDuplicatesInTheList(t *testing.T) {
	tr := classifier(t)
	tr.Params = append(tr.Params, tr.Params...)
	tr.Steps(t, 5)
	testnet.SameBits(t, "every parameter listed twice", testnet.Weights(tr.Params[:len(tr.Params)/2]), trained(t, 5))
}

func TestSubsetLeavesTheOthersAlone(t *testing.T) {
	tr := classifier(t)
	all := tr.Params
	for i, list := range []gorgonia.Nodes{all, {all[0]}, {all[3], all[2]}, {all[1]}, all} {
		tr.Params = list
		others := without(all, list)
		before, listed := testnet.Weights(others), testnet.Weights(list)
		for range 3 {
			tr.Steps(t, 1)
		}
		testnet.Moved(t, list, listed)
		if len(others) > 0 {
			testnet.SameBits(t, fmt.Sprintf("list %d: parameters that are not in it",
				i), testnet.Weights(others), before)
		}
	}
}

// A parameter may be given for the first time at a step that would not refresh the inverses.
func TestLateParameter(t *testing.T) {
	tr := classifier(t, kfac.WithInverseUpdatePeriod(1000))
	all := tr.Params
	tr.Params = all[2:]
	tr.Steps(t, 5)
	before := testnet.Weights(all)
	tr.Params = all
	tr.Steps(t, 1)
	testnet.Moved(t, all, before)
	if n := len(tr.Solver.Plan().Params); n != len(all) {
		t.Errorf("the plan has %d parameters, want %d", n, len(all))
	}
}

// A bias that is frozen at first must not cost the layer its statistics when it joins: they are
// those of the weight alone until then.
func TestLateBias(t *testing.T) {
	tr := classifier(t, kfac.WithInverseUpdatePeriod(1000))
	all := tr.Params
	tr.Params = gorgonia.Nodes{all[0], all[2]}
	tr.Steps(t, 5)
	before := testnet.Weights(all)
	tr.Params = all
	tr.Steps(t, 1)
	testnet.Moved(t, all, before)
}

func without(all, list gorgonia.Nodes) (rest gorgonia.Nodes) {
	for _, n := range all {
		if !list.Contains(n) {
			rest = append(rest, n)
		}
	}
	return rest
}

// Gorgonia's solvers keep their state by position in the list; exchanging two parameters of one
// shape exchanges it.
func TestStateBelongsToTheParameter(t *testing.T) {
	train := func(solver func(m *testnet.Net) gorgonia.Solver, swap bool) []float64 {
		m := testnet.NewMLP[float64](1, testnet.Shape{Cases: 24, Widths: []int{4, 4, 4}}, testnet.SquaredError)
		m.Grad(t)
		tr := &testnet.Trainer[gorgonia.Solver]{Net: m, Run: testnet.DualTape(m), Solver: solver(m)}
		all := append(gorgonia.Nodes(nil), m.Params...)
		tr.Steps(t, 4)
		if swap {
			m.Params[0], m.Params[2] = m.Params[2], m.Params[0]
		}
		tr.Steps(t, 4)
		return testnet.Weights(all)
	}
	ours := func(m *testnet.Net) gorgonia.Solver { return kfac.NewSolverOf(t, m) }
	testnet.SameBits(t, "w0 and w1 exchanged in the list", train(ours, true), train(ours, false))

	theirs := func(*testnet.Net) gorgonia.Solver { return gorgonia.NewMomentum() }
	if testnet.Distance(train(theirs, true), train(theirs, false)) == 0 {
		t.Error("gorgonia.Momentum passes too, so this test does not test anything")
	}
}

func TestGradientsAreZeroed(t *testing.T) {
	t.Run("matrices", func(t *testing.T) {
		tr := classifier(t)
		testZeroed(t, tr)
	})
	t.Run("scalars", func(t *testing.T) {
		m := testnet.ScaledOutputs[float64]()
		testZeroed(t, kfac.NewTrainer(t, m))
	})
}

func testZeroed(t *testing.T, tr *kfac.Trainer) {
	for range 3 {
		if err := tr.Run(); err != nil {
			t.Fatal(err)
		}
		if all := testnet.Gradients(t, tr.Params); testnet.Distance(all, make([]float64, len(all))) == 0 {
			t.Fatal("the gradients were zero before Step")
		}
		if err := tr.Solver.Step(tr.ValueGrads()); err != nil {
			t.Fatal(err)
		}
		for i, g := range testnet.Gradients(t, tr.Params) {
			if g != 0 {
				t.Fatalf("gradient element %d is %g after Step, want 0", i, g)
			}
		}
	}
}

func minus(a, b []float64) []float64 {
	d := make([]float64, len(a))
	for i := range a {
		d[i] = a[i] - b[i]
	}
	return d
}

func TestLet(t *testing.T) {
	tr := classifier(t)
	tr.Steps(t, 3)
	w := tr.Input("w1")
	old := w.Value().(*tensor.Dense)
	kept := testnet.Numbers(old)
	if err := gorgonia.Let(w, old.Clone().(*tensor.Dense)); err != nil {
		t.Fatal(err)
	}
	tr.Steps(t, 3)
	testnet.SameBits(t, "the tensor that was replaced", testnet.Numbers(old), kept)
	testnet.SameBits(t, "all weights", testnet.Weights(tr.Params), trained(t, 6))
}

// Without BindDualValues a gradient is the value of a node of the graph, here of one node for two
// parameters. A solver that scales or zeroes it for the first takes it from the second.
func TestSharedGradientTensor(t *testing.T) {
	m := testnet.Offsets()
	a, b := m.Input("a"), m.Input("b")
	m.Grad(t)
	tr := &kfac.Trainer{Net: m, Run: testnet.Tape(m), Solver: kfac.NewSolverOf(t, m)}
	for range 3 {
		if err := tr.Run(); err != nil {
			t.Fatal(err)
		}
		if a.Deriv() != b.Deriv() {
			t.Fatal("a and b do not share a gradient, so this test does not test anything")
		}
		beforeA, beforeB := testnet.Numbers(a.Value()), testnet.Numbers(b.Value())
		if err := tr.Solver.Step(tr.ValueGrads()); err != nil {
			t.Fatal(err)
		}
		testnet.Near(t, "update of b, that of a expected", minus(testnet.Numbers(b.Value()), beforeB),
			minus(testnet.Numbers(a.Value()), beforeA), 1e-12)
	}
}

// The gradient of a parameter that is added to the cost is the constant 1 from which all gradients
// of the graph are computed. Without BindDualValues it must not be zeroed.
func TestConstantGradient(t *testing.T) {
	train := func(use func(m *testnet.Net) testnet.Machine) []float64 {
		m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
		added := gorgonia.NewScalar(m.Graph, tensor.Float64, gorgonia.WithName("added"), gorgonia.WithValue(1.0))
		m.Params = append(m.Params, added)
		m.Cost = testnet.Add(m.Cost, added)
		m.Grad(t)
		tr := &kfac.Trainer{Net: m, Run: use(m), Solver: kfac.NewSolverOf(t, m)}
		for range 3 {
			before := testnet.Weights(m.Params)
			tr.Steps(t, 1)
			testnet.Moved(t, m.Params, before)
		}
		return testnet.Weights(m.Params)
	}
	testnet.SameBits(t, "without BindDualValues, weights", train(func(m *testnet.Net) testnet.Machine {
		return testnet.Tape(m)
	}), train(testnet.DualTape))
}

// A parameter may be a view into a larger tensor, where Gorgonia's op can compute with one, or
// column-major. What lies beside the view is not ours.
func TestUnusualStorage(t *testing.T) {
	const cases, out, wide = 12, 2, 5
	surroundings := tensor.New(tensor.WithShape(cases, wide),
		tensor.WithBacking(tensor.Range(tensor.Float64, 0, cases*wide)))
	view, err := surroundings.Slice(nil, gorgonia.S(1, 1+out))
	if err != nil {
		t.Fatal(err)
	}
	train := func(name string, storage *tensor.Dense) []float64 {
		m := testnet.Offsets()
		if storage != nil {
			p := m.Input(name)
			contents := testnet.Numbers(p.Value())
			testnet.EachElement(storage, func(at, i int) { storage.Set(at, contents[i]) })
			if err := gorgonia.Let(p, storage); err != nil {
				t.Fatal(err)
			}
		}
		before := testnet.Weights(m.Params)
		kfac.NewTrainer(t, m).Steps(t, 4)
		testnet.Moved(t, m.Params, before)
		return testnet.Weights(m.Params)
	}
	want := train("", nil)
	testnet.Near(t, "a is a view", train("a", view.(*tensor.Dense)), want, 1e-12)
	testnet.Near(t, "b is column-major", train("b",
		tensor.New(tensor.WithShape(cases, out), tensor.Of(tensor.Float64), tensor.AsFortran(nil))), want, 1e-12)
	for i, v := range testnet.Numbers(surroundings) {
		if col := i % wide; (col < 1 || col >= 1+out) && v != float64(i) {
			t.Errorf("element %d beside the view is %g, was %d", i, v, i)
		}
	}
}

func TestWhenNewSolverIsCalled(t *testing.T) {
	const steps = 5
	for _, when := range []string{"before Grad", "before the machine is made", "after the first RunAll"} {
		m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
		tr := &kfac.Trainer{Net: m}
		at := func(now string) {
			if now == when {
				tr.Solver = kfac.NewSolverOf(t, m)
			}
		}
		at("before Grad")
		m.Grad(t)
		at("before the machine is made")
		tr.Run = testnet.DualTape(m)
		if when == "after the first RunAll" {
			if err := tr.Run(); err != nil {
				t.Fatal(err)
			}
			at(when)
			if err := tr.Solver.Step(tr.ValueGrads()); err != nil {
				t.Fatal(err)
			}
			tr.Steps(t, steps-1)
		} else {
			tr.Steps(t, steps)
		}
		testnet.SameBits(t, when, testnet.Weights(m.Params), trained(t, steps))
	}
}

func TestSeeds(t *testing.T) {
	few := kfac.WithMinStatisticsCases(4)
	train := func(opts ...kfac.Option) []float64 { return trained(t, 6, append(opts, few)...) }
	want := train()
	testnet.SameBits(t, "the same seed again", train(), want)
	testnet.SameBits(t, "the default seed, given", train(kfac.WithSeed(1)), want)
	if d := testnet.Distance(train(kfac.WithSeed(2)), want); d < 1e-6 {
		t.Errorf("another seed changes the weights by %g of their norm only", d)
	}
}

// The net is large enough for the parallel parts of the matrix product, with more inverses than
// threads.
func TestThreadsDoNotMatter(t *testing.T) {
	train := func(threads int) []float64 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(threads))
		m := testnet.NewMLP[float32](2, testnet.Shape{Cases: 200, Widths: []int{150, 140, 130}},
			testnet.BinaryCrossEntropy)
		tr := kfac.NewTrainer(t, m)
		tr.Steps(t, 4)
		return testnet.Weights(m.Params)
	}
	one := train(1)
	testnet.SameBits(t, "2 threads", train(2), one)
	testnet.SameBits(t, "5 threads", train(5), one)
}

func TestStats(t *testing.T) {
	var told []kfac.Stats
	tr := classifier(t, kfac.WithStats(func(s kfac.Stats) {
		told = append(told, s)
	}), kfac.WithMinStatisticsCases(10), kfac.WithInverseUpdatePeriod(5))
	solver := tr.Solver
	if s := solver.Stats(); !reflect.DeepEqual(s, kfac.Stats{}) {
		t.Errorf("before the first step: %+v", s)
	}
	for k := 1; k <= 10; k++ {
		before := testnet.Weights(tr.Params)
		tr.Steps(t, 1)
		s := solver.Stats()
		if len(told) != k || !kfac.SameStats(told[k-1], s) || told[k-1].Time != s.Time {
			t.Fatalf("step %d: the callback was called %d times, or with other figures than Stats()", k, len(told))
		}
		if s.Step != k || s.Cases != small.Cases || s.StatisticsCases != 10 {
			t.Errorf("step %d: Step %d, Cases %d, StatisticsCases %d", k, s.Step, s.Cases, s.StatisticsCases)
		}
		if cost := testnet.Numbers(tr.Cost.Value())[0]; s.Cost != cost {
			t.Errorf("step %d: Cost %g, want %g", k, s.Cost, cost)
		}
		if d := math.Abs(s.Scale*float64(small.Cases) - 1); d > 1e-9 {
			t.Errorf("step %d: Scale %g, want 1/%d", k, s.Scale, small.Cases)
		}
		if want := k <= 3 || k%5 == 0; s.InverseUpdated != want {
			t.Errorf("step %d: InverseUpdated %v, want %v", k, s.InverseUpdated, want)
		}
		update := minus(testnet.Weights(tr.Params), before)
		if d := math.Abs(s.UpdateNorm/norm(update) - 1); d > 1e-9 {
			t.Errorf("step %d: UpdateNorm %g, the weights moved by %g", k, s.UpdateNorm, norm(update))
		}
		if !(s.GradNorm > 0 && s.KL > 0 && s.Damping > 0 && s.Gamma > 0 && s.LearningRate > 0 && s.Shrink > 0 &&
			s.Shrink <= 1) {
			t.Errorf("step %d: something that must be positive is not, or Shrink is above 1: %+v", k, s)
		}
		tm := s.Time
		if parts := tm.Checks + tm.Gradients + tm.Capture + tm.Factors + tm.Inverses + tm.Precondition +
			tm.Update; parts > tm.Total || parts < time.Nanosecond {
			t.Errorf("step %d: the phases add up to %v of %v", k, parts, tm.Total)
		}
		if (tm.Checks > 0) != slices.Contains([]int{1, 2, 3, 4, 5, 8, 9}, k) {
			t.Errorf("step %d: the checks took %v", k, tm.Checks)
		}
		if text := s.String(); !strings.Contains(text, fmt.Sprintf("step %d:", k)) {
			t.Errorf("Stats.String() is %q", text)
		}
	}
}

// With a learning rate that moves nothing, the norm of the gradient in the metric of the curvature
// changes when the inverse does and not otherwise: at the first three steps and at every fifth,
// with other cases and other targets each time.
func TestInversesChangeWhenTheyAreDue(t *testing.T) {
	const rate = 1e-100
	tr := classifier(t, kfac.WithLearningRate(rate), kfac.WithMinStatisticsCases(6), kfac.WithInverseUpdatePeriod(5))
	before := testnet.Weights(tr.Params)
	var last kfac.Stats
	for k := 1; k <= 16; k++ {
		tr.Steps(t, 1)
		s := tr.Solver.Stats()
		if due := k <= 3 || k%5 == 0; s.InverseUpdated != due ||
			(s.PreconGradNorm != last.PreconGradNorm) != due {
			t.Errorf("step %d: InverseUpdated %v, PreconGradNorm %g after %g", k, s.InverseUpdated, s.PreconGradNorm,
				last.PreconGradNorm)
		}
		last = s
	}
	testnet.SameBits(t, "weights", testnet.Weights(tr.Params), before)
}

func norm(v []float64) float64 {
	var s float64
	for _, x := range v {
		s += x * x
	}
	return math.Sqrt(s)
}

func TestGradNormIsPerCase(t *testing.T) {
	tr := classifier(t)
	if err := tr.Run(); err != nil {
		t.Fatal(err)
	}
	want := norm(testnet.Gradients(t, tr.Params)) // the cost is the mean over cases already
	if err := tr.Solver.Step(tr.ValueGrads()); err != nil {
		t.Fatal(err)
	}
	if got := tr.Solver.Stats().GradNorm; math.Abs(got/want-1) > 1e-9 {
		t.Errorf("GradNorm %g, want %g", got, want)
	}
}

func TestPlan(t *testing.T) {
	m := testnet.ScaledOutputs[float64]()
	s := kfac.NewTrainer(t, m).Solver
	lines := strings.Split(strings.TrimSpace(s.Plan().String()), "\n")
	if len(lines) < 4 || !strings.HasPrefix(lines[0], "PARAMETER") {
		t.Fatalf("no table:\n%s", s.Plan())
	}
	for i, want := range []string{"theta", "beta", "gain"} {
		found := false
		for _, l := range lines[1:] {
			found = found || strings.HasPrefix(l, want)
		}
		if !found {
			t.Errorf("parameter %d, %s, is not in the table:\n%s", i, want, s.Plan())
		}
	}
	if plan := classifier(t).Solver.Plan(); len(plan.Params) != 4 {
		t.Errorf("%d parameters planned, want 4:\n%s", len(plan.Params), plan)
	} else {
		for _, p := range plan.Params {
			if p.Treatment != kfac.Kronecker || p.Reason == "" || p.Block == "" {
				t.Errorf("%s: %+v", p.Name, p)
			}
		}
	}
}

// The user's own weight decay, and the option with its share of the curvature taken out of the
// damping, are the same thing.
func TestL2RegIsATermOfTheCost(t *testing.T) {
	const eta, lambda, steps = 0.02, 0.05, 6
	withTerm := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
	for _, p := range withTerm.Params {
		term := testnet.Sum(testnet.Square(p))
		withTerm.Cost = testnet.Add(withTerm.Cost, testnet.Hadamard(term, gorgonia.NewConstant(eta/2)))
	}
	tr := kfac.NewTrainer(t, withTerm, byRate(kfac.WithDamping(lambda+eta))...)
	tr.Steps(t, steps)
	testnet.Near(t, "weights", testnet.Weights(withTerm.Params),
		trained(t, steps, byRate(kfac.WithL2Reg(eta), kfac.WithDamping(lambda))...), 1e-9)
	if d := testnet.Distance(trained(t, steps, byRate(kfac.WithDamping(lambda))...),
		testnet.Weights(withTerm.Params)); d < 1e-3 {
		t.Errorf("without the term the weights differ by %g of their norm only: this test does not test much", d)
	}
}

// Users write the cost as a mean over cases, a sum, or a mean over cases and outputs. The training
// is the same.
func TestScaleOfTheCost(t *testing.T) {
	const steps = 8
	train := func(factor float64) []float64 {
		m := testnet.NewMLP[float64](1, small, testnet.Times(testnet.CrossEntropy, factor))
		kfac.NewTrainer(t, m).Steps(t, steps)
		return testnet.Weights(m.Params)
	}
	want := train(1)
	for name, factor := range map[string]float64{"sum": float64(small.Cases), "mean over cases and outputs": 1.0 / 3,
		"thousandth": 1e-3, "million": 1e6} {
		testnet.Near(t, name, train(factor), want, 1e-9)
		single := testnet.NewMLP[float32](1, small, testnet.Times(testnet.CrossEntropy, factor))
		kfac.NewTrainer(t, single).Steps(t, steps)
		testnet.Near(t, name+" in float32", testnet.Weights(single.Params), want, 1e-4)
	}

	gaussian := func(l testnet.Likelihood) []float64 {
		m := testnet.NewMLP[float64](1, small, l)
		kfac.NewTrainer(t, m).Steps(t, steps)
		return testnet.Weights(m.Params)
	}
	// The mean of squares over cases and outputs is 2/3 of half the squared distance per case, in
	// scale; nothing else differs.
	meanOfSquares := testnet.Written(func(out, y *gorgonia.Node) *gorgonia.Node {
		return testnet.Mean(testnet.Square(testnet.Sub(out, y)))
	}, testnet.Normal)
	testnet.Near(t, "mean of squares", gaussian(meanOfSquares), gaussian(testnet.SquaredError), 1e-9)
}

// The output may be declared by the node of its probabilities, in all the ways in which people
// write the cost.
func TestDeclaredByProbabilities(t *testing.T) {
	const steps = 5
	mean := func(n *gorgonia.Node) *gorgonia.Node { return testnet.Mean(testnet.Sum(n, 1)) }
	for _, c := range []struct {
		name string
		cost func(out, y *gorgonia.Node) (p, cost *gorgonia.Node)
		dist func(p *gorgonia.Node) testnet.Loss
		loss testnet.Likelihood // the same, from the logits
	}{
		{"LogSoftMax", func(out, y *gorgonia.Node) (p, cost *gorgonia.Node) {
			p = testnet.LogSoftMax(out)
			return p, testnet.Neg(mean(testnet.Hadamard(p, y)))
		}, testnet.Categorical, testnet.CrossEntropy},
		{"Log of SoftMax", func(out, y *gorgonia.Node) (p, cost *gorgonia.Node) {
			p = gorgonia.Must(gorgonia.SoftMax(out))
			return p, testnet.Neg(mean(testnet.Hadamard(gorgonia.Must(gorgonia.Log(p)), y)))
		}, testnet.Categorical, testnet.CrossEntropy},
		{"BinaryXent of Sigmoid", func(out, y *gorgonia.Node) (p, cost *gorgonia.Node) {
			p = testnet.Sigmoid(out)
			return p, mean(gorgonia.Must(gorgonia.BinaryXent(p, y)))
		}, testnet.Bernoulli, testnet.BinaryCrossEntropy},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := testnet.NewMLP[float64](1, small, c.loss)
			kfac.NewTrainer(t, want).Steps(t, steps)

			byProbabilities := func(s *testnet.Sketch, out *gorgonia.Node) (*gorgonia.Node, testnet.Loss) {
				p, cost := c.cost(out, s.Y)
				return cost, c.dist(p)
			}
			m := testnet.NewMLP[float64](1, small, byProbabilities)
			kfac.NewTrainer(t, m).Steps(t, steps)
			testnet.Near(t, "weights", testnet.Weights(m.Params), testnet.Weights(want.Params), 1e-9)
		})
	}
}

// twoHeads is a net with one hidden layer and two outputs of two columns each: cost = E|out1 -
// y|^2/2 + weight E|out2 - y|^2/2.
func twoHeads(weight float64) (m *testnet.Net, first, second *gorgonia.Node) {
	m = testnet.NewMLP[float64](1, testnet.Shape{Cases: 20, Widths: []int{3, 4, 2}}, testnet.SquaredError)
	hidden := testnet.Tanh(testnet.Mul(m.X, m.Params[0]))
	w2 := m.Leaf("v", testnet.Normals(rand.New(rand.NewPCG(4, 4)), 8, 1), 4, 2)
	m.Params = append(m.Params, w2)
	second = testnet.Mul(hidden, w2)
	cost, _ := testnet.Times(testnet.SquaredError, weight)(m.Sketch, second)
	m.Cost = testnet.Add(m.Cost, cost)
	return m, m.Out, second
}

// A head with half the weight and one with twice the variance are the same model.
func TestHeadsOfDifferentWeights(t *testing.T) {
	train := func(variance float64) (*testnet.Net, []float64) {
		m, first, second := twoHeads(0.5)
		m.Loss = testnet.Joint(testnet.Normal(first), testnet.Gaussian(second, variance))
		kfac.NewTrainer(t, m).Steps(t, 6)
		return m, testnet.Weights(m.Params)
	}
	_, want := train(1)
	m, got := train(2)
	testnet.Near(t, "weights", got, want, 1e-9)
	initial, _, _ := twoHeads(0.5)
	testnet.Moved(t, m.Params, testnet.Weights(initial.Params))
}

// A head that the cost has and the declaration has not is a term like any other: its parameters are
// trained too.
func TestUndeclaredHead(t *testing.T) {
	m, first, _ := twoHeads(0.5)
	before := testnet.Weights(m.Params)
	m.Loss = testnet.Normal(first)
	tr := kfac.NewTrainer(t, m)
	tr.Steps(t, 3)
	testnet.Moved(t, m.Params, before)
	for _, p := range tr.Solver.Plan().Params {
		if want := p.Name == "v"; (p.Treatment == kfac.Identity) != want || p.Reason == "" {
			t.Errorf("%s: %s, %q", p.Name, p.Treatment, p.Reason)
		}
	}
}

func TestGraphIsLeftAlone(t *testing.T) {
	m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
	m.Grad(t)
	run := testnet.DualTape(m)
	describe := func() []string {
		var s []string
		for _, n := range m.Graph.AllNodes() {
			s = append(s, fmt.Sprintf("%p %d %v %v %p", n, n.ID(), n, n.Shape(), n.Deriv()))
		}
		return s
	}
	before := describe()
	tr := &kfac.Trainer{Net: m, Run: run, Solver: kfac.NewSolverOf(t, m)}
	compare := func(when string) {
		t.Helper()
		after := describe()
		if len(after) != len(before) {
			t.Fatalf("%s the graph has %d nodes, before %d", when, len(after), len(before))
		}
		for i := range before {
			if after[i] != before[i] {
				t.Fatalf("%s node %d is %s, before %s", when, i, after[i], before[i])
			}
		}
	}
	compare("after NewSolver")
	x, y := testnet.Numbers(m.X.Value()), testnet.Numbers(m.Y.Value())
	tr.Steps(t, 4)
	compare("after Step")
	testnet.SameBits(t, "x", testnet.Numbers(m.X.Value()), x)
	testnet.SameBits(t, "y", testnet.Numbers(m.Y.Value()), y)
}
