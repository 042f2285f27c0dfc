package kfac_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// small is the net that most tests here train.
var small = shape{batch: 24, widths: []int{4, 5, 3}}

// classifier is a trainer of a small float64 net with a softmax cross-entropy.
func classifier(t testing.TB, opts ...kfac.Option) *trainer {
	t.Helper()
	m := newMLP[float64](1, small, crossEntropy)
	return newTrainer(t, m, kfac.Categorical(m.out), opts...)
}

// trained is the weights of a classifier after n iterations.
func trained(t testing.TB, n int, opts ...kfac.Option) []float64 {
	t.Helper()
	tr := classifier(t, opts...)
	tr.steps(t, n)
	return weights(tr.params)
}

// Every machine computes the same gradients by the same kernels, in nets without branches in the same order, so the solver, which
// runs the model by itself, must end at the same weights in every bit. A LispMachine is given the costs that it differentiates
// rightly in its second run of a graph, which those with a SoftMax are not.
func TestMachinesAgree(t *testing.T) {
	const steps = 6
	for _, c := range []struct {
		name string
		loss loss
		dist func(out *gorgonia.Node) kfac.Distribution
		lisp bool
	}{
		{"categorical", crossEntropy, kfac.Categorical, false},
		{"bernoulli", binaryCrossEntropy, kfac.Bernoulli, true},
		{"gaussian", squaredError, func(out *gorgonia.Node) kfac.Distribution { return kfac.Gaussian(out, 1) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			train := func(prepare func(m *net) machine) []float64 {
				m := newMLP[float64](1, small, c.loss)
				tr := &trainer{net: m, run: prepare(m), solver: newSolver(t, m, c.dist(m.out))}
				before := weights(m.params)
				tr.steps(t, steps)
				moved(t, m.params, before)
				return weights(m.params)
			}
			differentiated := func(use func(m *net) machine) func(m *net) machine {
				return func(m *net) machine { m.grad(t); return use(m) }
			}
			want := train(differentiated(dualTape))
			sameBits(t, "tape machine without BindDualValues", train(differentiated(func(m *net) machine { return tape(m) })), want)
			sameBits(t, "CompileFunction", train(differentiated(func(m *net) machine { return compiled(t, m) })), want)
			if c.lisp {
				sameBits(t, "LispMachine", train(lisp), want)
			}
		})
	}
}

// newScaled is the model y = (X theta + beta) gain: a vector of parameters and two scalars.
func newScaled[T float]() *net {
	const cases, inputs = 20, 3
	rng := rand.New(rand.NewPCG(3, 3))
	g := gorgonia.NewGraph()
	scalar := func(name string, v float64) *gorgonia.Node {
		return gorgonia.NewScalar(g, dtype[T](), gorgonia.WithName(name), gorgonia.WithValue(T(v)))
	}
	vector := func(name string, n int) *gorgonia.Node {
		data := make([]T, n)
		for i := range data {
			data[i] = T(rng.NormFloat64())
		}
		return gorgonia.NewVector(g, dtype[T](), gorgonia.WithName(name), gorgonia.WithShape(n),
			gorgonia.WithValue(tensor.New(tensor.WithShape(n), tensor.WithBacking(data))))
	}
	m := &net{graph: g}
	m.x = input[T](g, "x", cases, inputs, normal(rng, cases*inputs, 1))
	m.y = vector("y", cases)
	theta, beta, gain := vector("theta", inputs), scalar("beta", 0.5), scalar("gain", 2)
	m.params = gorgonia.Nodes{theta, beta, gain}
	m.out = must(gorgonia.HadamardProd(must(gorgonia.Add(must(gorgonia.Mul(m.x, theta)), beta)), gain))
	m.cost = must(gorgonia.Mean(must(gorgonia.Square(must(gorgonia.Sub(m.out, m.y))))))
	return m
}

func TestTensorsAndScalars(t *testing.T) {
	t.Run("float64", testTensorsAndScalars[float64])
	t.Run("float32", testTensorsAndScalars[float32])
}

func testTensorsAndScalars[T float](t *testing.T) {
	for _, dual := range []bool{true, false} {
		m := newScaled[T]()
		m.grad(t)
		run := tape(m)
		if dual {
			run = dualTape(m)
		}
		tr := &trainer{net: m, run: run, solver: newSolver(t, m, kfac.Gaussian(m.out, 1))}
		before := weights(m.params)
		tr.steps(t, 1)
		moved(t, m.params, before)
		first := numbers(m.cost.Value())[0]
		tr.steps(t, 60)
		if last := numbers(m.cost.Value())[0]; !(last < 0.9*first) {
			t.Errorf("with BindDualValues %v the cost went from %g to %g", dual, first, last)
		}
		for _, n := range m.params {
			if n.Value().Dtype() != dtype[T]() {
				t.Errorf("%s has become %v", n.Name(), n.Value().Dtype())
			}
		}
	}
}

func TestFloat32FollowsFloat64(t *testing.T) {
	m := newMLP[float32](1, small, crossEntropy)
	tr := newTrainer(t, m, kfac.Categorical(m.out))
	tr.steps(t, 5)
	near(t, "weights after 5 steps", weights(m.params), trained(t, 5), 1e-4)
}

func TestOrderOfTheList(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	shuffled := func(from int) []float64 { // shuffles the list from that step on
		tr := classifier(t)
		all := append(gorgonia.Nodes(nil), tr.params...)
		for i := range 6 {
			if i >= from {
				rng.Shuffle(len(tr.params), func(i, j int) { tr.params[i], tr.params[j] = tr.params[j], tr.params[i] })
			}
			tr.steps(t, 1)
		}
		return weights(all)
	}
	want := trained(t, 6)
	near(t, "shuffled from the first step on", shuffled(0), want, 1e-12) // squared norms are summed in the first list's order
	sameBits(t, "shuffled from the second step on", shuffled(1), want)
}

func TestDuplicatesInTheList(t *testing.T) {
	tr := classifier(t)
	tr.params = append(tr.params, tr.params...)
	tr.steps(t, 5)
	sameBits(t, "every parameter listed twice", weights(tr.params[:len(tr.params)/2]), trained(t, 5))
}

func TestSubsetLeavesTheOthersAlone(t *testing.T) {
	tr := classifier(t)
	all := tr.params
	for i, list := range []gorgonia.Nodes{all, {all[0]}, {all[3], all[2]}, {all[1]}, all} {
		tr.params = list
		others := without(all, list)
		before, listed := weights(others), weights(list)
		for range 3 {
			tr.steps(t, 1)
		}
		moved(t, list, listed)
		if len(others) > 0 {
			sameBits(t, fmt.Sprintf("list %d: parameters that are not in it", i), weights(others), before)
		}
	}
}

// A parameter may be given for the first time at a step that would not refresh the inverses.
func TestLateParameter(t *testing.T) {
	tr := classifier(t, kfac.WithInverseUpdatePeriod(1000))
	all := tr.params
	tr.params = all[2:]
	tr.steps(t, 5)
	before := weights(all)
	tr.params = all
	tr.steps(t, 1)
	moved(t, all, before)
	if n := len(tr.solver.(*kfac.Solver).Plan().Params); n != len(all) {
		t.Errorf("the plan has %d parameters, want %d", n, len(all))
	}
}

// A bias that is frozen at first must not cost the layer its statistics when it joins: they are those of the weight alone until then.
func TestLateBias(t *testing.T) {
	tr := classifier(t, kfac.WithInverseUpdatePeriod(1000))
	all := tr.params
	tr.params = gorgonia.Nodes{all[0], all[2]}
	tr.steps(t, 5)
	before := weights(all)
	tr.params = all
	tr.steps(t, 1)
	moved(t, all, before)
}

func without(all, list gorgonia.Nodes) (rest gorgonia.Nodes) {
	for _, n := range all {
		if !list.Contains(n) {
			rest = append(rest, n)
		}
	}
	return rest
}

// Gorgonia's solvers keep their state by position in the list; exchanging two parameters of one shape exchanges it.
func TestStateBelongsToTheParameter(t *testing.T) {
	train := func(solver func(m *net) gorgonia.Solver, swap bool) []float64 {
		m := newMLP[float64](1, shape{24, []int{4, 4, 4}}, squaredError)
		m.grad(t)
		tr := &trainer{net: m, run: dualTape(m), solver: solver(m)}
		all := append(gorgonia.Nodes(nil), m.params...)
		tr.steps(t, 4)
		if swap {
			m.params[0], m.params[2] = m.params[2], m.params[0]
		}
		tr.steps(t, 4)
		return weights(all)
	}
	ours := func(m *net) gorgonia.Solver { return newSolver(t, m, kfac.Gaussian(m.out, 1)) }
	sameBits(t, "w0 and w1 exchanged in the list", train(ours, true), train(ours, false))

	theirs := func(*net) gorgonia.Solver { return gorgonia.NewMomentum() }
	if distance(train(theirs, true), train(theirs, false)) == 0 {
		t.Error("gorgonia.Momentum passes too, so this test does not test anything")
	}
}

func TestGradientsAreZeroed(t *testing.T) {
	t.Run("matrices", func(t *testing.T) {
		tr := classifier(t)
		testZeroed(t, tr)
	})
	t.Run("scalars", func(t *testing.T) {
		m := newScaled[float64]()
		testZeroed(t, newTrainer(t, m, kfac.Gaussian(m.out, 1)))
	})
}

func testZeroed(t *testing.T, tr *trainer) {
	for range 3 {
		if err := tr.run(); err != nil {
			t.Fatal(err)
		}
		if all := gradients(t, tr.params); distance(all, make([]float64, len(all))) == 0 {
			t.Fatal("the gradients were zero before Step")
		}
		if err := tr.solver.Step(tr.valueGrads()); err != nil {
			t.Fatal(err)
		}
		for i, g := range gradients(t, tr.params) {
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
	tr.steps(t, 3)
	w := tr.param(t, "w1")
	old := w.Value().(*tensor.Dense)
	kept := numbers(old)
	if err := gorgonia.Let(w, old.Clone().(*tensor.Dense)); err != nil {
		t.Fatal(err)
	}
	tr.steps(t, 3)
	sameBits(t, "the tensor that was replaced", numbers(old), kept)
	sameBits(t, "all weights", weights(tr.params), trained(t, 6))
}

// newOffsets is the model out = x w + a + b with a and b of an entry for each case and output.
func newOffsets() *net {
	const cases, in, out = 12, 3, 2
	rng := rand.New(rand.NewPCG(8, 8))
	m := &net{graph: gorgonia.NewGraph()}
	m.x = input[float64](m.graph, "x", cases, in, normal(rng, cases*in, 1))
	m.y = input[float64](m.graph, "y", cases, out, normal(rng, cases*out, 1))
	w := input[float64](m.graph, "w", in, out, normal(rng, in*out, 1))
	a := input[float64](m.graph, "a", cases, out, normal(rng, cases*out, 1))
	b := input[float64](m.graph, "b", cases, out, normal(rng, cases*out, 1))
	m.params = gorgonia.Nodes{w, a, b}
	m.out = must(gorgonia.Add(must(gorgonia.Add(must(gorgonia.Mul(m.x, w)), a)), b))
	m.cost = squaredError(m.out, m.y)
	return m
}

// Without BindDualValues a gradient is the value of a node of the graph, here of one node for two parameters. A solver that scales
// or zeroes it for the first takes it from the second.
func TestSharedGradientTensor(t *testing.T) {
	m := newOffsets()
	a, b := m.param(t, "a"), m.param(t, "b")
	m.grad(t)
	tr := &trainer{net: m, run: tape(m), solver: newSolver(t, m, kfac.Gaussian(m.out, 1))}
	for range 3 {
		if err := tr.run(); err != nil {
			t.Fatal(err)
		}
		if a.Deriv() != b.Deriv() {
			t.Fatal("a and b do not share a gradient, so this test does not test anything")
		}
		beforeA, beforeB := numbers(a.Value()), numbers(b.Value())
		if err := tr.solver.Step(tr.valueGrads()); err != nil {
			t.Fatal(err)
		}
		near(t, "update of b, that of a expected", minus(numbers(b.Value()), beforeB), minus(numbers(a.Value()), beforeA), 1e-12)
	}
}

// The gradient of a parameter that is added to the cost is the constant 1 from which all gradients of the graph are computed. Without
// BindDualValues it must not be zeroed.
func TestConstantGradient(t *testing.T) {
	train := func(use func(m *net) machine) []float64 {
		m := newMLP[float64](1, small, crossEntropy)
		added := gorgonia.NewScalar(m.graph, tensor.Float64, gorgonia.WithName("added"), gorgonia.WithValue(1.0))
		m.params = append(m.params, added)
		m.cost = must(gorgonia.Add(m.cost, added))
		m.grad(t)
		tr := &trainer{net: m, run: use(m), solver: newSolver(t, m, kfac.Categorical(m.out))}
		for range 3 {
			before := weights(m.params)
			tr.steps(t, 1)
			moved(t, m.params, before)
		}
		return weights(m.params)
	}
	sameBits(t, "without BindDualValues, weights", train(func(m *net) machine { return tape(m) }), train(dualTape))
}

// A parameter may be a view into a larger tensor, where Gorgonia's op can compute with one, or column-major. What lies beside the
// view is not ours.
func TestUnusualStorage(t *testing.T) {
	const cases, out, wide = 12, 2, 5
	surroundings := tensor.New(tensor.WithShape(cases, wide), tensor.WithBacking(tensor.Range(tensor.Float64, 0, cases*wide)))
	view, err := surroundings.Slice(nil, gorgonia.S(1, 1+out))
	if err != nil {
		t.Fatal(err)
	}
	train := func(name string, storage *tensor.Dense) []float64 {
		m := newOffsets()
		if storage != nil {
			p := m.param(t, name)
			contents := numbers(p.Value())
			eachElement(storage, func(at, i int) { storage.Set(at, contents[i]) })
			if err := gorgonia.Let(p, storage); err != nil {
				t.Fatal(err)
			}
		}
		before := weights(m.params)
		newTrainer(t, m, kfac.Gaussian(m.out, 1)).steps(t, 4)
		moved(t, m.params, before)
		return weights(m.params)
	}
	want := train("", nil)
	near(t, "a is a view", train("a", view.(*tensor.Dense)), want, 1e-12)
	near(t, "b is column-major", train("b", tensor.New(tensor.WithShape(cases, out), tensor.Of(tensor.Float64), tensor.AsFortran(nil))), want, 1e-12)
	for i, v := range numbers(surroundings) {
		if col := i % wide; (col < 1 || col >= 1+out) && v != float64(i) {
			t.Errorf("element %d beside the view is %g, was %d", i, v, i)
		}
	}
}

func TestWhenNewSolverIsCalled(t *testing.T) {
	const steps = 5
	for _, when := range []string{"before Grad", "before the machine is made", "after the first RunAll"} {
		m := newMLP[float64](1, small, crossEntropy)
		tr := &trainer{net: m}
		at := func(now string) {
			if now == when {
				tr.solver = newSolver(t, m, kfac.Categorical(m.out))
			}
		}
		at("before Grad")
		m.grad(t)
		at("before the machine is made")
		tr.run = dualTape(m)
		if when == "after the first RunAll" {
			if err := tr.run(); err != nil {
				t.Fatal(err)
			}
			at(when)
			if err := tr.solver.Step(tr.valueGrads()); err != nil {
				t.Fatal(err)
			}
			tr.steps(t, steps-1)
		} else {
			tr.steps(t, steps)
		}
		sameBits(t, when, weights(m.params), trained(t, steps))
	}
}

func TestSeeds(t *testing.T) {
	few := kfac.WithMinStatisticsCases(4)
	train := func(opts ...kfac.Option) []float64 { return trained(t, 6, append(opts, few)...) }
	want := train()
	sameBits(t, "the same seed again", train(), want)
	sameBits(t, "the default seed, given", train(kfac.WithSeed(1)), want)
	if d := distance(train(kfac.WithSeed(2)), want); d < 1e-6 {
		t.Errorf("another seed changes the weights by %g of their norm only", d)
	}
}

// The net is large enough for the parallel parts of the matrix product, with more inverses than threads.
func TestThreadsDoNotMatter(t *testing.T) {
	train := func(threads int) []float64 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(threads))
		m := newMLP[float32](2, shape{200, []int{150, 140, 130}}, binaryCrossEntropy)
		tr := newTrainer(t, m, kfac.Bernoulli(m.out))
		tr.steps(t, 4)
		return weights(m.params)
	}
	one := train(1)
	sameBits(t, "2 threads", train(2), one)
	sameBits(t, "5 threads", train(5), one)
}

func TestStats(t *testing.T) {
	var told []kfac.Stats
	tr := classifier(t, kfac.WithStats(func(s kfac.Stats) { told = append(told, s) }), kfac.WithMinStatisticsCases(10), kfac.WithInverseUpdatePeriod(5))
	solver := tr.solver.(*kfac.Solver)
	if s := solver.Stats(); s != (kfac.Stats{}) {
		t.Errorf("before the first step: %+v", s)
	}
	for k := 1; k <= 10; k++ {
		before := weights(tr.params)
		tr.steps(t, 1)
		s := solver.Stats()
		if len(told) != k || told[k-1] != s {
			t.Fatalf("step %d: the callback was called %d times, or with other figures than Stats()", k, len(told))
		}
		if s.Step != k || s.Cases != small.batch || s.StatisticsCases != 10 {
			t.Errorf("step %d: Step %d, Cases %d, StatisticsCases %d", k, s.Step, s.Cases, s.StatisticsCases)
		}
		if cost := numbers(tr.cost.Value())[0]; s.Cost != cost {
			t.Errorf("step %d: Cost %g, want %g", k, s.Cost, cost)
		}
		if d := math.Abs(s.Scale*float64(small.batch) - 1); d > 1e-9 {
			t.Errorf("step %d: Scale %g, want 1/%d", k, s.Scale, small.batch)
		}
		if want := k <= 3 || k%5 == 0; s.InverseUpdated != want {
			t.Errorf("step %d: InverseUpdated %v, want %v", k, s.InverseUpdated, want)
		}
		update := minus(weights(tr.params), before)
		if d := math.Abs(s.UpdateNorm/norm(update) - 1); d > 1e-9 {
			t.Errorf("step %d: UpdateNorm %g, the weights moved by %g", k, s.UpdateNorm, norm(update))
		}
		if !(s.GradNorm > 0 && s.KL > 0 && s.Damping > 0 && s.Gamma > 0 && s.LearningRate > 0 && s.Shrink > 0 && s.Shrink <= 1) {
			t.Errorf("step %d: something that must be positive is not, or Shrink is above 1: %+v", k, s)
		}
		tm := s.Time
		if parts := tm.Checks + tm.Gradients + tm.Capture + tm.Factors + tm.Inverses + tm.Precondition + tm.Update; parts > tm.Total || parts < time.Nanosecond {
			t.Errorf("step %d: the phases add up to %v of %v", k, parts, tm.Total)
		}
		if (tm.Checks > 0) != (k <= 2) {
			t.Errorf("step %d: the checks took %v; they belong to the first two steps", k, tm.Checks)
		}
		if text := s.String(); !strings.Contains(text, fmt.Sprintf("step %d:", k)) {
			t.Errorf("Stats.String() is %q", text)
		}
	}
}

// With a learning rate that moves nothing, V.U changes when the inverse does and not otherwise: at the first three steps and at every
// fifth, with other cases and other targets each time.
func TestInversesChangeWhenTheyAreDue(t *testing.T) {
	const rate = 1e-100
	tr := classifier(t, kfac.WithLearningRate(rate), kfac.WithMinStatisticsCases(6), kfac.WithInverseUpdatePeriod(5))
	before := weights(tr.params)
	var last kfac.Stats
	for k := 1; k <= 16; k++ {
		tr.steps(t, 1)
		s := tr.solver.(*kfac.Solver).Stats()
		if due := k <= 3 || k%5 == 0; s.InverseUpdated != due || (s.KL != last.KL) != due {
			t.Errorf("step %d: InverseUpdated %v, KL %g after %g", k, s.InverseUpdated, s.KL, last.KL)
		}
		last = s
	}
	sameBits(t, "weights", weights(tr.params), before)
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
	if err := tr.run(); err != nil {
		t.Fatal(err)
	}
	want := norm(gradients(t, tr.params)) // the cost is the mean over cases already
	if err := tr.solver.Step(tr.valueGrads()); err != nil {
		t.Fatal(err)
	}
	if got := tr.solver.(*kfac.Solver).Stats().GradNorm; math.Abs(got/want-1) > 1e-9 {
		t.Errorf("GradNorm %g, want %g", got, want)
	}
}

func TestPlan(t *testing.T) {
	m := newScaled[float64]()
	s := newTrainer(t, m, kfac.Gaussian(m.out, 1)).solver.(*kfac.Solver)
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
	if plan := classifier(t).solver.(*kfac.Solver).Plan(); len(plan.Params) != 4 {
		t.Errorf("%d parameters planned, want 4:\n%s", len(plan.Params), plan)
	} else {
		for _, p := range plan.Params {
			if p.Treatment != kfac.Kronecker || p.Reason == "" || p.Block == "" {
				t.Errorf("%s: %+v", p.Name, p)
			}
		}
	}
}

// The user's own weight decay, and the option with its share of the curvature taken out of the damping, are the same thing.
func TestL2RegIsATermOfTheCost(t *testing.T) {
	const eta, lambda, steps = 0.02, 0.05, 6
	withTerm := newMLP[float64](1, small, crossEntropy)
	for _, p := range withTerm.params {
		term := must(gorgonia.Sum(must(gorgonia.Square(p))))
		withTerm.cost = must(gorgonia.Add(withTerm.cost, must(gorgonia.HadamardProd(term, gorgonia.NewConstant(eta/2)))))
	}
	tr := newTrainer(t, withTerm, kfac.Categorical(withTerm.out), byRate(kfac.WithDamping(lambda+eta))...)
	tr.steps(t, steps)
	near(t, "weights", weights(withTerm.params), trained(t, steps, byRate(kfac.WithL2Reg(eta), kfac.WithDamping(lambda))...), 1e-9)
	if d := distance(trained(t, steps, byRate(kfac.WithDamping(lambda))...), weights(withTerm.params)); d < 1e-3 {
		t.Errorf("without the term the weights differ by %g of their norm only: this test does not test much", d)
	}
}

// Users write the cost as a mean over cases, a sum, or a mean over cases and outputs. The training is the same.
func TestScaleOfTheCost(t *testing.T) {
	const steps = 8
	train := func(factor float64) []float64 {
		m := newMLP[float64](1, small, func(out, y *gorgonia.Node) *gorgonia.Node {
			return must(gorgonia.HadamardProd(crossEntropy(out, y), gorgonia.NewConstant(factor)))
		})
		newTrainer(t, m, kfac.Categorical(m.out)).steps(t, steps)
		return weights(m.params)
	}
	want := train(1)
	for name, factor := range map[string]float64{"sum": float64(small.batch), "mean over cases and outputs": 1.0 / 3, "thousandth": 1e-3, "million": 1e6} {
		near(t, name, train(factor), want, 1e-9)
		single := newMLP[float32](1, small, func(out, y *gorgonia.Node) *gorgonia.Node {
			return must(gorgonia.HadamardProd(crossEntropy(out, y), gorgonia.NewConstant(float32(factor))))
		})
		newTrainer(t, single, kfac.Categorical(single.out)).steps(t, steps)
		near(t, name+" in float32", weights(single.params), want, 1e-4)
	}

	gaussian := func(l loss) []float64 {
		m := newMLP[float64](1, small, l)
		newTrainer(t, m, kfac.Gaussian(m.out, 1)).steps(t, steps)
		return weights(m.params)
	}
	// The mean of squares over cases and outputs is 2/3 of half the squared distance per case, in scale; nothing else differs.
	meanOfSquares := func(out, y *gorgonia.Node) *gorgonia.Node {
		return must(gorgonia.Mean(must(gorgonia.Square(must(gorgonia.Sub(out, y))))))
	}
	near(t, "mean of squares", gaussian(meanOfSquares), gaussian(squaredError), 1e-9)
}

// The output may be declared by the node of its probabilities, in all the ways in which people write the cost.
func TestDeclaredByProbabilities(t *testing.T) {
	const steps = 5
	mean := func(n *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Mean(must(gorgonia.Sum(n, 1)))) }
	for _, c := range []struct {
		name string
		cost func(out, y *gorgonia.Node) (p, cost *gorgonia.Node)
		dist func(p *gorgonia.Node) kfac.Distribution
		loss loss // the same, from the logits
	}{
		{"LogSoftMax", func(out, y *gorgonia.Node) (p, cost *gorgonia.Node) {
			p = must(gorgonia.LogSoftMax(out))
			return p, must(gorgonia.Neg(mean(must(gorgonia.HadamardProd(p, y)))))
		}, kfac.Categorical, crossEntropy},
		{"Log of SoftMax", func(out, y *gorgonia.Node) (p, cost *gorgonia.Node) {
			p = must(gorgonia.SoftMax(out))
			return p, must(gorgonia.Neg(mean(must(gorgonia.HadamardProd(must(gorgonia.Log(p)), y)))))
		}, kfac.Categorical, crossEntropy},
		{"BinaryXent of Sigmoid", func(out, y *gorgonia.Node) (p, cost *gorgonia.Node) {
			p = must(gorgonia.Sigmoid(out))
			return p, mean(must(gorgonia.BinaryXent(p, y)))
		}, kfac.Bernoulli, binaryCrossEntropy},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := newMLP[float64](1, small, c.loss)
			newTrainer(t, want, c.dist(want.out)).steps(t, steps)

			var p *gorgonia.Node
			m := newMLP[float64](1, small, func(out, y *gorgonia.Node) (cost *gorgonia.Node) {
				p, cost = c.cost(out, y)
				return cost
			})
			newTrainer(t, m, c.dist(p)).steps(t, steps)
			near(t, "weights", weights(m.params), weights(want.params), 1e-9)
		})
	}
}

// twoHeads is a net with one hidden layer and two outputs of two columns each: cost = E|out1 - y|^2/2 + weight E|out2 - y|^2/2.
func twoHeads(t *testing.T, weight float64) (m *net, first, second *gorgonia.Node) {
	t.Helper()
	m = newMLP[float64](1, shape{20, []int{3, 4, 2}}, squaredError)
	hidden := must(gorgonia.Tanh(must(gorgonia.Mul(m.x, m.params[0]))))
	w2 := input[float64](m.graph, "v", 4, 2, normal(rand.New(rand.NewPCG(4, 4)), 8, 1))
	m.params = append(m.params, w2)
	second = must(gorgonia.Mul(hidden, w2))
	m.cost = must(gorgonia.Add(m.cost, must(gorgonia.HadamardProd(squaredError(second, m.y), gorgonia.NewConstant(weight)))))
	return m, m.out, second
}

// A head with half the weight and one with twice the variance are the same model.
func TestHeadsOfDifferentWeights(t *testing.T) {
	train := func(variance float64) (*net, []float64) {
		m, first, second := twoHeads(t, 0.5)
		newTrainer(t, m, kfac.Joint(kfac.Gaussian(first, 1), kfac.Gaussian(second, variance))).steps(t, 6)
		return m, weights(m.params)
	}
	_, want := train(1)
	m, got := train(2)
	near(t, "weights", got, want, 1e-9)
	initial, _, _ := twoHeads(t, 0.5)
	moved(t, m.params, weights(initial.params))
}

// A head that the cost has and the declaration has not is a term like any other: its parameters are trained too.
func TestUndeclaredHead(t *testing.T) {
	m, first, _ := twoHeads(t, 0.5)
	before := weights(m.params)
	tr := newTrainer(t, m, kfac.Gaussian(first, 1))
	tr.steps(t, 3)
	moved(t, m.params, before)
	for _, p := range tr.solver.(*kfac.Solver).Plan().Params {
		if want := p.Name == "v"; (p.Treatment == kfac.Identity) != want || p.Reason == "" {
			t.Errorf("%s: %s, %q", p.Name, p.Treatment, p.Reason)
		}
	}
}

func TestGraphIsLeftAlone(t *testing.T) {
	m := newMLP[float64](1, small, crossEntropy)
	m.grad(t)
	run := dualTape(m)
	describe := func() []string {
		var s []string
		for _, n := range m.graph.AllNodes() {
			s = append(s, fmt.Sprintf("%p %d %v %v %p", n, n.ID(), n, n.Shape(), n.Deriv()))
		}
		return s
	}
	before := describe()
	tr := &trainer{net: m, run: run, solver: newSolver(t, m, kfac.Categorical(m.out))}
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
	x, y := numbers(m.x.Value()), numbers(m.y.Value())
	tr.steps(t, 4)
	compare("after Step")
	sameBits(t, "x", numbers(m.x.Value()), x)
	sameBits(t, "y", numbers(m.y.Value()), y)
}
