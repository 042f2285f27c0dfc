package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// ownMachine is the solver's VM as a machine of a test's training loop.
func ownMachine(t testing.TB, s *Solver) testnet.Machine {
	t.Helper()
	vm, err := s.VM()
	testnet.Check(t, err)
	return func() error { vm.Reset(); return vm.RunAll() }
}

// onOwnVM trains a net on the solver's VM.
func onOwnVM(t testing.TB, n *testnet.Net, opts ...Option) *Trainer {
	t.Helper()
	n.Grad(t)
	s := NewSolverOf(t, n, opts...)
	return &Trainer{Net: n, Run: ownMachine(t, s), Solver: s}
}

// gradientsOf are copies of the gradients of all parameters.
func gradientsOf(t testing.TB, n *testnet.Net) (all [][]float64) {
	t.Helper()
	for _, p := range n.Params {
		g, err := p.Grad()
		testnet.Check(t, err)
		if g == nil {
			t.Fatalf("%s has no gradient", p.Name())
		}
		all = append(all, slices.Clone(testnet.Numbers(g)))
	}
	return all
}

// sameGradients compares two sets of gradients of a net's parameters.
func sameGradients(t testing.TB, n *testnet.Net, got, want [][]float64, tolerance float64) {
	t.Helper()
	for i, p := range n.Params {
		if d := testnet.Distance(got[i], want[i]); !(d <= tolerance) {
			t.Errorf("the gradient of %s is off by %.3g of its norm", p.Name(), d)
		}
	}
}

// Cost and gradients are those of Gorgonia's tape machine, and K-FAC trains on them to the same
// costs, on all models.
func TestVMOnModels(t *testing.T) {
	for _, m := range architectures {
		if m.untrained { // Gorgonia has no gradient, or a wrong one
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			theirs, own := NewTrainer(t, m.network()), onOwnVM(t, m.network())
			for step := range 4 {
				testnet.Check(t, theirs.Run())
				testnet.Check(t, own.Run())
				want, got := testnet.Numbers(theirs.Cost.Value())[0], testnet.Numbers(own.Cost.Value())[0]
				if d := math.Abs(got/want - 1); !(d < 1e-8) {
					t.Fatalf("step %d: cost %v, want %v", step+1, got, want)
				}
				if step == 0 {
					sameGradients(t, own.Net, gradientsOf(t, own.Net), gradientsOf(t, theirs.Net), 1e-10)
				}
				testnet.Check(t, theirs.Solver.Step(theirs.ValueGrads()))
				testnet.Check(t, own.Solver.Step(own.ValueGrads()))
			}
		})
	}
}

// What a step takes from the run of the solver's VM is what it would compute itself: the steps are
// the same as on a VM without a solver, whose gradients the solver takes for those of any machine.
func TestStepSharesTheRun(t *testing.T) {
	for name, opts := range map[string][]Option{
		"whole batch":    nil,
		"parts":          {WithMinStatisticsCases(3), WithStatisticsFraction(0.2), WithMinModelCases(4)},
		"part and whole": {WithMinStatisticsCases(3), WithStatisticsFraction(0.2), WithModelFraction(1)},
		"rate":           {WithLearningRate(0.01)},
		"decay":          {WithL2Reg(0.01)},
		"rejection":      {WithStepRejection()},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range architectures {
				free, own := &Trainer{Net: m.network()}, &Trainer{Net: m.network()}
				vm, err := NewVM(append(gorgonia.Nodes{free.Cost}, free.Params...)...) // Grad panics for one of them
				testnet.Check(t, err)
				free.Run, free.Solver = vm.RunAll, NewSolverOf(t, free.Net, append(opts, WithoutGradientCheck())...)
				own.Solver = NewSolverOf(t, own.Net, opts...)
				vm, err = own.Solver.VM(own.Params...)
				testnet.Check(t, err)
				own.Run = vm.RunAll
				for step := range 4 { // before the search for gamma, which rounding decides where candidates are equal
					if want, got := free.Step(t), own.Step(t); math.Abs(got-want) > 1e-8*math.Abs(want) {
						t.Fatalf("%s, step %d: cost %v, want %v", m.name, step+1, got, want)
					}
				}
			}
		})
	}
}

// A run of some cases that picks values from one of the whole batch is one of these cases alone:
// values, gradients and tangents.
func TestForwardFromWholeBatch(t *testing.T) {
	for _, m := range architectures {
		c := attach(t, m.network())
		p := c.plan.model.Program
		if p.Whole != "" {
			continue
		}
		rng := rand.New(rand.NewPCG(1, 1))
		var runs [3]*program.Run[float64] // of the whole batch, of some cases, of the same from the first
		for i := range runs {
			var err error
			runs[i], err = program.NewRun[float64](p, 1)
			testnet.Check(t, err)
		}
		testnet.Check(t, runs[0].Forward(nil))
		for _, rows := range [][]int{{3, 0, 1}, {2}} {
			testnet.Check(t, runs[1].Forward(rows))
			testnet.Check(t, runs[2].ForwardFrom(runs[0], rows))
			var directions, seeds []program.Seed[float64]
			var leaves []*program.Node
			for _, q := range c.plan.order {
				leaves = append(leaves, q.leaf)
				d := testnet.Normals(rng, len(runs[1].Value(q.leaf).Data), 1)
				directions = append(directions, program.Seed[float64]{Node: q.leaf, Data: d})
			}
			for _, o := range p.Outputs {
				d := testnet.Normals(rng, len(runs[1].Value(o).Data), 1)
				seeds = append(seeds, program.Seed[float64]{Node: o, Data: d})
			}
			for _, r := range runs[1:] {
				testnet.Check(t, r.Reverse(seeds, p.Path(leaves...)))
				testnet.Check(t, r.Tangent(directions, p.Path(leaves...)))
			}
			for _, n := range p.Nodes {
				if n.Dtype != p.Dtype() {
					continue
				}
				for what, of := range map[string]func(r *program.Run[float64]) []float64{
					"value":    func(r *program.Run[float64]) []float64 { return r.Value(n).Data },
					"gradient": func(r *program.Run[float64]) []float64 { return r.Gradient(n) },
					"tangent":  func(r *program.Run[float64]) []float64 { return r.Directional(n) },
				} {
					got, want := of(runs[2]), of(runs[1])
					// Some gradients are zero but for rounding.
					if d := floats.Distance(got, want, 2); !(d <= 1e-12*(1+floats.Norm(want, 2))) {
						t.Errorf("%s: %s of %v %q is off by %.3g", m.name, what, n.Op, n.Name(), d)
					}
				}
			}
		}
	}
}

// broadNet has layers that are wide beside the batch, so that gradients are taken in low rank.
func broadNet(seed uint64) *testnet.Net {
	return testnet.MLP{Widths: []int{40, 60, 50, 4}, Cases: 6, Unit: gorgonia.Tanh, Loss: testnet.Classes}.Build(seed)
}

// The errors of the low-rank form are those of the VM's own sweep.
func TestLowRankFromOwnRun(t *testing.T) {
	theirs, own := NewTrainer(t, broadNet(3)), onOwnVM(t, broadNet(3))
	for step := range 8 {
		if want, got := theirs.Step(t), own.Step(t); math.Abs(got-want) > 1e-8*math.Abs(want) {
			t.Fatalf("step %d: cost %v, want %v", step+1, got, want)
		}
		c := trainingOf(own)
		if step > 0 && len(c.low.of) != 2 {
			t.Fatalf("step %d: %d gradients in low rank, want 2", step+1, len(c.low.of))
		}
		if w, g := trainingOf(theirs).low, c.low; len(w.of) != len(g.of) {
			t.Fatalf("step %d: %d gradients in low rank, want %d", step+1, len(g.of), len(w.of))
		}
	}
}

// Gorgonia's Adam on a VM without a solver trains to the costs that it trains to on a tape machine.
func TestAdamOnVM(t *testing.T) {
	t.Run("float64", testAdamOnVM[float64])
	t.Run("float32", testAdamOnVM[float32])
}

func testAdamOnVM[T testnet.Float](t *testing.T) {
	tolerance := 1e-9
	if _, single := any(T(0)).(float32); single {
		tolerance = 1e-4
	}
	for _, cases := range []int{3, 8} {
		costs := func(machine func(n *testnet.Net) testnet.Machine) (all []float64) {
			n := testnet.NewMLP[T](5, testnet.Shape{Cases: cases, Widths: []int{4, 6, 5, 3}}, testnet.CrossEntropy)
			n.Grad(t)
			tr := &testnet.Trainer[*gorgonia.AdamSolver]{Net: n, Run: machine(n),
				Solver: gorgonia.NewAdamSolver(gorgonia.WithLearnRate(0.01))}
			for range 30 {
				all = append(all, tr.Step(t))
			}
			return all
		}
		want := costs(testnet.DualTape)
		got := costs(func(n *testnet.Net) testnet.Machine {
			vm, err := NewVM(n.Cost)
			testnet.Check(t, err)
			return vm.RunAll
		})
		for i := range want {
			if math.Abs(got[i]-want[i]) > tolerance*math.Abs(want[i]) {
				t.Fatalf("%d cases, step %d: cost %v, want %v", cases, i+1, got[i], want[i])
			}
		}
	}
}

// sharedGradient is a net of two parameters for whose gradients Grad makes one node, and one for
// which it makes a constant.
func sharedGradient(t testing.TB) *testnet.Net {
	t.Helper()
	n := testnet.NewNet(1)
	a, b := n.Random("a", 3), n.Random("b", 3)
	n.Params = gorgonia.Nodes{a, b}
	n.Cost = testnet.Sum(testnet.Square(testnet.Add(a, b)))
	n.Grad(t)
	return n
}

// Every parameter has a gradient of its own, also where Gorgonia has one node for two, and
// gradients are not added up.
func TestVMGradientsAreOwn(t *testing.T) {
	n := sharedGradient(t)
	if n.Params[0].Deriv() != n.Params[1].Deriv() {
		t.Fatal("the case is none: the gradients are different nodes")
	}
	vm, err := NewVM(n.Cost)
	testnet.Check(t, err)
	for range 2 {
		testnet.Check(t, vm.RunAll())
		for i, g := range gradientsOf(t, n) {
			for k, v := range g {
				want := 2 * (testnet.Data(n.Params[0])[k] + testnet.Data(n.Params[1])[k])
				if math.Abs(v-want) > 1e-14 {
					t.Errorf("parameter %d, entry %d: %v, want %v", i, k, v, want)
				}
			}
		}
	}
	a, err := n.Params[0].Grad()
	testnet.Check(t, err)
	b, err := n.Params[1].Grad()
	testnet.Check(t, err)
	if a == b {
		t.Error("two parameters have one tensor of gradients")
	}
}

// Gradients can be had without Grad, and where a machine has bound dual values before or comes
// after.
func TestVMBesideOtherMachines(t *testing.T) {
	build := func() *testnet.Net {
		return testnet.MLP{Widths: []int{3, 4, 2}, Cases: 5, Unit: gorgonia.Tanh, Loss: testnet.Binary}.Build(2)
	}
	n := build()
	n.Grad(t)
	testnet.Check(t, testnet.DualTape(n)())
	want := gradientsOf(t, n)

	vm, err := NewVM(n.Cost) // after a machine that has bound dual values
	testnet.Check(t, err)
	testnet.Check(t, vm.RunAll())
	sameGradients(t, n, gradientsOf(t, n), want, 1e-12)

	n = build() // without Grad
	vm, err = NewVM(append(gorgonia.Nodes{n.Cost}, n.Params...)...)
	testnet.Check(t, err)
	testnet.Check(t, vm.RunAll())
	sameGradients(t, n, gradientsOf(t, n), want, 1e-12)

	n = build() // before a tape machine without dual values
	n.Grad(t)
	vm, err = NewVM(n.Cost)
	testnet.Check(t, err)
	testnet.Check(t, vm.RunAll())
	testnet.Data(n.X)[0]++
	testnet.Check(t, testnet.Tape(n)())
	moved := gradientsOf(t, n)
	if testnet.Distance(moved[0], want[0]) < 1e-6 {
		t.Error("the gradient is still the VM's after a tape machine has run")
	}
	testnet.Check(t, vm.RunAll())
	sameGradients(t, n, gradientsOf(t, n), moved, 1e-12)

	n = build() // without Grad, on the solver's VM
	s := NewSolverOf(t, n)
	own, err := s.VM(n.Params...)
	testnet.Check(t, err)
	testnet.Check(t, own.RunAll())
	sameGradients(t, n, gradientsOf(t, n), want, 1e-12)
	testnet.Check(t, s.Step(n.ValueGrads()))
}

// Values are left with the nodes asked for and with those that have a Read.
func TestVMValues(t *testing.T) {
	n := testnet.MLP{Widths: []int{3, 4, 2}, Cases: 5, Unit: gorgonia.Tanh, Loss: testnet.Binary}.Build(2)
	hidden := testnet.Tanh(testnet.Mul(n.X, n.Params[0])) // beside the cost
	correct := testnet.Sum(gorgonia.Must(gorgonia.Gt(n.Out, testnet.Sub(n.Out, n.Out), true)))
	var logits, cost gorgonia.Value
	gorgonia.Read(n.Out, &logits)
	gorgonia.Read(n.Cost, &cost)
	grads := n.Grad(t)
	var slope gorgonia.Value
	gorgonia.Read(grads[0], &slope)
	s := NewSolverOf(t, n)
	vm, err := s.VM(hidden, correct, grads[1])
	testnet.Check(t, err)
	values := func() (all [][]float64) {
		for _, v := range []gorgonia.Value{n.Cost.Value(), cost, n.Out.Value(), logits, hidden.Value(), correct.Value(),
			grads[1].Value(), slope} {
			all = append(all, slices.Clone(testnet.Numbers(v)))
		}
		return all
	}
	for range 3 {
		testnet.Check(t, vm.RunAll())
		got := values()
		testnet.Check(t, testnet.Tape(n)())
		for i, want := range values() {
			if d := testnet.Distance(got[i], want); !(d < 1e-12) {
				t.Errorf("value %d is off by %.3g of its norm", i, d)
			}
		}
		testnet.Data(n.X)[0]++
	}
	testnet.Check(t, gorgonia.UnsafeLet(n.X, testnet.Tensor(tensor.Float64, make([]float64, 15), 5, 3)))
	testnet.Check(t, vm.RunAll())
	for i := range 5 {
		for k := range 4 {
			if hidden.Value().Data().([]float64)[4*i+k] != 0 {
				t.Fatal("the value of UnsafeLet is not taken")
			}
		}
	}
}

// A stale run is noticed, and a step that fails has changed nothing.
func TestStaleRuns(t *testing.T) {
	build := func() *Trainer {
		n := testnet.MLP{Widths: []int{3, 4, 2}, Cases: 5, Unit: gorgonia.Tanh, Loss: testnet.Binary}.Build(2)
		return onOwnVM(t, n)
	}
	for name, spoil := range map[string]func(tr *Trainer){
		"next batch put in": func(tr *Trainer) { testnet.Data(tr.X)[4]++ },
		"next batch bound": func(tr *Trainer) {
			testnet.Check(t, gorgonia.Let(tr.X, testnet.Tensor(tensor.Float64, make([]float64, 15), 5, 3)))
		},
		"entries exchanged":     func(tr *Trainer) { x := testnet.Data(tr.X); x[0], x[1] = x[1], x[0] },
		"weights changed":       func(tr *Trainer) { testnet.Data(tr.Params[0])[1]++ },
		"step without a RunAll": func(tr *Trainer) { testnet.Check(t, tr.Solver.Step(tr.ValueGrads())) },
		"chunk without a RunAll": func(tr *Trainer) {
			testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, before := range []int{0, 3} { // steps
				tr := build()
				tr.Steps(t, before)
				testnet.Check(t, tr.Run())
				spoil(tr)
				weights := testnet.Weights(tr.Params)
				if err := tr.Solver.Step(tr.ValueGrads()); !errors.Is(err, ErrStale) {
					t.Fatalf("error %v, want ErrStale", err)
				}
				testnet.SameBits(t, "weights", testnet.Weights(tr.Params), weights)
				tr.Steps(t, 2)
			}
		})
	}
	t.Run("two runs", func(t *testing.T) { // are those of the last
		once, twice := build(), build()
		for range 3 {
			testnet.Check(t, twice.Run())
			if want, got := once.Step(t), twice.Step(t); want != got {
				t.Fatalf("cost %v, want %v", got, want)
			}
		}
	})
	t.Run("another graph", func(t *testing.T) {
		tr := build()
		tr.Steps(t, 2)
		other := build().Net
		tr.Share(t, other)
		testnet.Check(t, tr.Solver.Attach(other.Cost, Declared(other)))
		var config *ConfigError
		if err := tr.Run(); !errors.As(err, &config) {
			t.Fatalf("error %v, want a ConfigError", err)
		}
		if err := tr.Solver.Step(other.ValueGrads()); !errors.Is(err, ErrNoGradient) {
			t.Fatalf("error %v, want ErrNoGradient", err)
		}
		again := &Trainer{Net: other, Run: ownMachine(t, tr.Solver), Solver: tr.Solver}
		again.Steps(t, 2)
	})
	t.Run("another machine", func(t *testing.T) {
		tr := build()
		tr.Steps(t, 2)
		testnet.Check(t, testnet.Tape(tr.Net)())
		testnet.Check(t, tr.Solver.Step(tr.ValueGrads()))
		tr.Steps(t, 2)
	})
}

// dropped is a net with Dropout and random noise.
func dropped(p float64) *testnet.Net {
	n := testnet.NewNet(4)
	n.X = n.Random("x", 12, 3)
	h := testnet.Tanh(n.Layer(n.X, 0, 3, 8, true, false))
	h = gorgonia.Must(gorgonia.Dropout(h, p))
	h = testnet.Add(h, gorgonia.GaussianRandomNode(n.Graph, tensor.Float64, 0, 0.1, 12, 8))
	return n.Ends(n.Layer(h, 1, 8, 2, true, false), testnet.Binary)
}

// Training with Dropout is reproducible; seeds draw other masks. Gradient, statistics and model
// see the same ones: the gradient is that of the cost at the step's seed.
func TestVMWithDropout(t *testing.T) {
	train := func(seed uint64) (costs []float64) {
		tr := onOwnVM(t, dropped(0.3), WithSeed(seed), WithStepRejection())
		for range 6 {
			costs = append(costs, tr.Step(t))
		}
		return costs
	}
	if a, b := train(1), train(1); !slices.Equal(a, b) {
		t.Errorf("one seed trains to %v and to %v", a, b)
	}
	if a, b := train(1), train(2); a[0] == b[0] {
		t.Error("two seeds draw the same masks")
	}
	for _, p := range []float64{0, 0.2, 0.5, 0.8} {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			tr := onOwnVM(t, dropped(p))
			tr.Steps(t, 2)
			testnet.Check(t, tr.Run())
			c := trainingOf(tr)
			of := chunk[float64]{graph: c.graph, plan: c.plan,
				conditions: conditions[float64]{seed: c.graph.machine.seed, mode: program.Training}}
			cost := func() float64 {
				v, err := costAt(&of, of.conditions, nil, nil)
				testnet.Check(t, err)
				return v
			}
			if got, want := testnet.Numbers(tr.Cost.Value())[0], cost(); math.Abs(got-want) > 1e-12*math.Abs(want) {
				t.Errorf("the cost is %v, with the step's masks %v", got, want)
			}
			for i, grad := range gradientsOf(t, tr.Net) {
				w := testnet.Data(tr.Params[i])
				for k := range w {
					const h = 1e-5
					at := w[k]
					w[k] = at + h
					up := cost()
					w[k] = at - h
					down := cost()
					w[k] = at
					if slope := (up - down) / (2 * h); math.Abs(slope-grad[k]) > 1e-8 {
						t.Fatalf("%s: gradient %v, by differences %v", tr.Params[i].Name(), grad[k], slope)
					}
				}
			}
		})
	}
}

// BatchNorm's running statistics move as on Gorgonia's tape machine in training, once for a step
// whatever the step runs, and not in an evaluation, which takes them.
func TestVMMovesRunningStatistics(t *testing.T) {
	var ops []*gorgonia.BatchNormOp
	build := func() *testnet.Net {
		n := testnet.NewNet(7)
		n.X = n.Random("x", 6, 3)
		h, _, _, op, err := gorgonia.BatchNorm(n.Layer(n.X, 0, 3, 4, true, false), n.Random("scale", 1, 4),
			n.Random("shift", 1, 4), 0.3, 1e-3)
		ops = append(ops, op)
		n.Params = append(n.Params, n.Input("scale"), n.Input("shift"))
		n.Ends(n.Layer(testnet.Tanh(gorgonia.Must(h, err)), 1, 4, 2, true, false), testnet.Binary)
		n.Grad(t)
		return n
	}
	stats := func(op *gorgonia.BatchNormOp) []float64 {
		mean, variance := op.Stats()
		return append(slices.Clone(mean.Data().([]float64)), variance.Data().([]float64)...)
	}
	theirs, own := build(), build()
	a := &Trainer{Net: theirs, Run: testnet.DualTape(theirs), Solver: NewSolverOf(t, theirs)}
	solver := NewSolverOf(t, own)
	b := &Trainer{Net: own, Run: ownMachine(t, solver), Solver: solver}
	vm, err := NewVM(own.Cost, own.Out)
	testnet.Check(t, err)
	vm.EvalMode()
	for step := range 3 {
		a.Step(t)
		b.Step(t)
		want, got := stats(ops[0]), stats(ops[1])
		if d := testnet.Distance(got, want); !(d < 1e-9) {
			t.Errorf("step %d: running statistics %v, want %v", step+1, got, want)
		}
		before := gradientsOf(t, own)
		testnet.Check(t, vm.RunAll())
		if !slices.Equal(stats(ops[1]), got) {
			t.Error("an evaluation moves the running statistics")
		}
		sameGradients(t, own, gradientsOf(t, own), before, 0)
	}
	got := testnet.Numbers(own.Out.Value())
	testnet.Check(t, ops[1].SetTraining(false)) // which keeps them
	again, err := NewVM(own.Out)
	testnet.Check(t, err)
	testnet.Check(t, again.RunAll())
	if d := testnet.Distance(got, testnet.Numbers(own.Out.Value())); d != 0 {
		t.Errorf("two evaluations differ by %v", d)
	}
}

// lawless is an op of a user's without a derivative.
type lawless struct{ gorgonia.Op }

func (lawless) String() string { return "lawless" }

// What can't be made is refused when the VM is made, and what can't be called when it is called.
func TestVMErrors(t *testing.T) {
	n := testnet.MLP{Widths: []int{3, 2}, Cases: 4, Loss: testnet.Binary}.Build(1)
	n.Grad(t)
	var config *ConfigError
	for name, nodes := range map[string][]*gorgonia.Node{
		"nothing": nil, "nil": {n.Cost, nil}, "input": {n.X}, "input without cost": {n.Out, n.X},
	} {
		if _, err := NewVM(nodes...); !errors.As(err, &config) {
			t.Errorf("%s: error %v, want a ConfigError", name, err)
		}
	}
	vm, err := NewVM(n.Cost)
	testnet.Check(t, err)
	testnet.Check(t, vm.Close())
	if err := vm.RunAll(); !errors.As(err, &config) {
		t.Errorf("closed: error %v, want a ConfigError", err)
	}
	var none *Solver
	if _, err := none.VM(); !errors.As(err, &config) {
		t.Errorf("no solver: error %v, want a ConfigError", err)
	}
	var graph *GraphError
	gorgonia.Set(n.Params[0], n.Params[0])
	if _, err := NewVM(n.Cost); !errors.As(err, &graph) {
		t.Errorf("Set: error %v, want a GraphError", err)
	}
	m := testnet.NewNet(1)
	x := m.Random("x", 4, 3)
	x = gorgonia.Must(gorgonia.ApplyOp(lawless{testnet.Tanh(x).Op()}, testnet.Mul(x, m.Param("w", 3, 3))))
	cost := testnet.Sum(x)
	if _, err := NewVM(cost, m.Params[0]); !errors.As(err, &graph) || !errors.Is(err, program.ErrNotDifferentiable) {
		t.Errorf("op without a derivative: error %v, want a GraphError that wraps ErrNotDifferentiable", err)
	}
	if _, err := NewVM(cost); err != nil {
		t.Errorf("an evaluation of it: error %v", err)
	}
	empty := testnet.MLP{Widths: []int{3, 2}, Cases: 4, Loss: testnet.Binary}.Build(1)
	empty.Grad(t)
	s := NewSolverOf(t, empty)
	own, err := s.VM()
	testnet.Check(t, err)
	testnet.Check(t, gorgonia.UnsafeLet(empty.X, testnet.Tensor(tensor.Float64, make([]float64, 12), 4, 3)))
	testnet.Check(t, own.RunAll())
}

// In steady state RunAll allocates next to nothing, whatever the size of model and batch: a few
// scalars.
func TestVMAllocations(t *testing.T) {
	n := broadNet(1)
	n.Grad(t)
	vm, err := NewVM(n.Cost, n.Out)
	testnet.Check(t, err)
	var before, after runtime.MemStats
	for range 10 {
		runtime.ReadMemStats(&before)
		testnet.Check(t, vm.RunAll())
		runtime.ReadMemStats(&after)
	}
	if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 1<<11 { // the model has 45 kB of weights
		t.Errorf("RunAll allocates %d bytes", bytes)
	}
}
