package program

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// The private runs must be invisible to the user's own training. Here a training loop runs with and
// without them, and the weights must have the same bits afterwards.

// A trainer is one way to run a graph and its gradients. It returns a function that does so once.
type trainer func(t *testing.T, g *gorgonia.ExprGraph, cost *gorgonia.Node, params gorgonia.Nodes) func() error

func onTape(t *testing.T, g *gorgonia.ExprGraph, cost *gorgonia.Node, params gorgonia.Nodes) func() error {
	if _, err := gorgonia.Grad(cost, params...); err != nil {
		t.Fatal(err)
	}
	return runner(t, gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(params...)))
}

func precompiled(t *testing.T, g *gorgonia.ExprGraph, cost *gorgonia.Node, params gorgonia.Nodes) func() error {
	grads, err := gorgonia.Grad(cost, params...)
	if err != nil {
		t.Fatal(err)
	}
	prog, locMap, err := gorgonia.CompileFunction(g, params, append(gorgonia.Nodes{cost}, grads...))
	if err != nil {
		t.Fatal(err)
	}
	compiled := gorgonia.WithPrecompiled(prog, locMap)
	return runner(t, gorgonia.NewTapeMachine(g, compiled, gorgonia.BindDualValues(params...)))
}

func runner(t *testing.T, vm gorgonia.VM) func() error {
	t.Cleanup(func() { vm.Close() })
	return func() error {
		vm.Reset()
		return vm.RunAll()
	}
}

// onLisp makes a new machine for each step, since a LispMachine does nothing when it is run again.
func onLisp(t *testing.T, g *gorgonia.ExprGraph, cost *gorgonia.Node, params gorgonia.Nodes) func() error {
	return func() error {
		vm := gorgonia.NewLispMachine(g)
		defer vm.Close()
		return vm.RunAll()
	}
}

func plainMLP(b *builder) *gorgonia.Node {
	h := must(gorgonia.Tanh(must(gorgonia.Mul(b.x(4, 5), b.x(5, 6)))))
	return must(gorgonia.Mul(h, b.x(6, 3)))
}

func plainRNN(b *builder) *gorgonia.Node {
	wx, wh, bias := b.x(3, 2), b.x(3, 3), b.x(3)
	h := b.x(3)
	for range 3 {
		z := must(gorgonia.Add(must(gorgonia.Mul(wx, b.x(2))), must(gorgonia.Mul(wh, h))))
		h = must(gorgonia.Tanh(must(gorgonia.Add(z, bias))))
	}
	return h
}

func TestTrainingIsUntouched(t *testing.T) {
	for _, c := range []struct {
		name  string
		train trainer
		graph func(b *builder) *gorgonia.Node
	}{
		{"tape machine/MLP", onTape, mlp},
		{"tape machine/convnet", onTape, convnet},
		{"tape machine/BatchNorm convnet", onTape, batchNormNet(true)},
		{"tape machine/LSTM", onTape, lstm},
		{"CompileFunction/MLP", precompiled, mlp},
		{"CompileFunction/convnet", precompiled, convnet},
		{"LispMachine/MLP", onLisp, plainMLP},
		{"LispMachine/RNN", onLisp, plainRNN},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Run("float64", func(t *testing.T) { checkUntouched[float64](t, c.train, c.graph) })
			t.Run("float32", func(t *testing.T) { checkUntouched[float32](t, c.train, c.graph) })
		})
	}
}

func checkUntouched[T Float](t *testing.T, train trainer, graph func(b *builder) *gorgonia.Node) {
	alone := trainSixSteps[T](t, train, graph, false)
	accompanied := trainSixSteps[T](t, train, graph, true)
	for i, want := range alone {
		sameBits := func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) }
		if !slices.EqualFunc(accompanied[i], want, sameBits) {
			t.Errorf("array %d differs: %v with private runs, %v without", i, accompanied[i], want)
		}
	}
}

// trainSixSteps returns the weights, and the running statistics of BatchNorm ops, after six steps
// of Adam.
func trainSixSteps[T Float](
	t *testing.T, train trainer, graph func(b *builder) *gorgonia.Node, private bool,
) [][]float64 {
	b := newBuilder(dtypeOf[T](), 5)
	out := graph(b)
	cost := must(gorgonia.Sum(must(gorgonia.Square(out))))
	params := gorgonia.Nodes(b.nodes())
	runPrivately := func() {}
	if private {
		runPrivately = prepare[T](t, b, out).everything(b.rng)
	}
	run := train(t, b.g, cost, params)
	nodes, start := len(b.g.AllNodes()), stateOf(b)
	solver := gorgonia.NewAdamSolver(gorgonia.WithLearnRate(0.05))
	for range 6 {
		if err := run(); err != nil {
			t.Fatal(err)
		}
		runPrivately()
		if err := solver.Step(gorgonia.NodesToValueGrads(params)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(b.g.AllNodes()); n != nodes {
		t.Errorf("the graph has %d nodes, had %d", n, nodes)
	}
	end := stateOf(b)
	for i := range start {
		if slices.Equal(start[i], end[i]) {
			t.Errorf("array %d has not been trained", i)
		}
	}
	return end
}

// stateOf copies all inputs and the running statistics of BatchNorm ops.
func stateOf(b *builder) (state [][]float64) {
	keep := func(v gorgonia.Value) { state = append(state, slices.Clone(float64s(v.Data()))) }
	for _, v := range b.vars {
		keep(v.node.Value())
	}
	for _, n := range b.g.AllNodes() {
		if op, ok := n.Op().(*gorgonia.BatchNormOp); ok {
			mean, variance := op.Stats()
			keep(mean)
			keep(variance)
		}
	}
	return state
}

// everything returns a function that does all kinds of sweeps, on all cases and on some.
func (s *prepared[T]) everything(rng *rand.Rand) func() {
	return func() {
		for _, rows := range [][]int{nil, {1}} {
			if rows != nil && s.p.Whole != "" {
				continue
			}
			f := s.forward(rows)
			s.reverse(random[T](rng, len(f)))
			dirs := make([][]T, len(s.vars))
			for i, v := range s.vars {
				dirs[i] = random[T](rng, len(s.r.Value(v).Data))
			}
			s.tangent(dirs)
		}
	}
}

// TestEvaluationIsUntouched: private runs leave the statistics and the mode of a BatchNorm op
// alone, in either mode.
func TestEvaluationIsUntouched(t *testing.T) {
	for _, training := range []bool{true, false} {
		b := newBuilder(tensor.Float64, 2)
		out := batchNormNet(training)(b)
		before := stateOf(b)
		s := prepare[float64](t, b, out)
		s.everything(b.rng)()
		for i, v := range stateOf(b) {
			if !slices.Equal(v, before[i]) {
				t.Errorf("training %v: array %d has changed", training, i)
			}
		}
		for _, n := range s.p.Nodes {
			if op, ok := n.Op.(BatchNorm); ok && op.Training() != training {
				t.Errorf("the mode has changed from %v", training)
			}
		}
	}
}
