package kfac_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// A model is weights, and a graph that is built around them for each batch.
type model[T float] struct {
	values map[string]*tensor.Dense
	build  func(m *model[T], n *net, b batch)
}

// A batch is inputs, for a recurrent net those of each time, and targets.
type batch struct {
	cases int
	x     [][]float64
	y     []float64
}

// newBatch draws the k-th batch of a data set.
func newBatch(k uint64, cases, times int) batch {
	rng := rand.New(rand.NewPCG(k, 11))
	b := batch{cases: cases, y: oneHot(rng, cases, 3)}
	for range times {
		b.x = append(b.x, normal(rng, cases*4, 1))
	}
	return b
}

// perceptron has 4 inputs, 5 hidden units and 3 outputs.
func perceptron[T float]() *model[T] {
	return &model[T]{map[string]*tensor.Dense{}, func(m *model[T], n *net, b batch) {
		n.x = input[T](n.graph, "x", b.cases, 4, b.x[0])
		h := must(gorgonia.Tanh(m.dense(n, n.x, 0, 4, 5)))
		n.out = m.dense(n, h, 1, 5, 3)
	}}
}

// recurrent has 4 inputs at each time, 5 hidden units and 3 outputs at the end, of (cases, 3).
func recurrent[T float]() *model[T] {
	return &model[T]{map[string]*tensor.Dense{}, func(m *model[T], n *net, b batch) {
		h := input[T](n.graph, "h", b.cases, 5, make([]float64, b.cases*5))
		back := m.param(n, "back", 5, 5)
		for i, x := range b.x {
			n.x = input[T](n.graph, fmt.Sprint("x", i), b.cases, 4, x)
			h = must(gorgonia.Tanh(must(gorgonia.Add(m.dense(n, n.x, 0, 4, 5), must(gorgonia.Mul(h, back))))))
		}
		n.out = m.dense(n, h, 1, 5, 3)
	}}
}

// dense is a layer with the parameters w<i> and b<i>.
func (m *model[T]) dense(n *net, x *gorgonia.Node, i, in, out int) *gorgonia.Node {
	w, b := m.param(n, fmt.Sprint("w", i), in, out), m.param(n, fmt.Sprint("b", i), 1, out)
	return must(gorgonia.BroadcastAdd(must(gorgonia.Mul(x, w)), b, nil, []byte{0}))
}

// param is the node of a parameter, on the same tensor in every graph.
func (m *model[T]) param(n *net, name string, rows, cols int) *gorgonia.Node {
	for _, p := range n.params {
		if p.Name() == name {
			return p
		}
	}
	if m.values[name] == nil {
		rng := rand.New(rand.NewPCG(uint64(len(m.values)), 12))
		m.values[name] = matrix[T](rows, cols, normal(rng, rows*cols, 1/math.Sqrt(float64(rows))))
	}
	p := gorgonia.NewMatrix(n.graph, dtype[T](), gorgonia.WithName(name), gorgonia.WithShape(rows, cols), gorgonia.WithValue(m.values[name]))
	n.params = append(n.params, p)
	return p
}

// graph builds the graph of a batch.
func (m *model[T]) graph(b batch, l loss) *net {
	n := &net{graph: gorgonia.NewGraph()}
	m.build(m, n, b)
	n.y = input[T](n.graph, "y", b.cases, 3, b.y)
	n.cost = l(n.out, n.y)
	return n
}

// refill puts another batch into the inputs of a graph.
func refill[T float](n *net, b batch) {
	put := func(name string, data []float64) {
		for _, in := range n.graph.Inputs() {
			if in.Name() == name {
				copy(in.Value().Data().([]T), matrix[T](1, len(data), data).Data().([]T))
			}
		}
	}
	for i, x := range b.x {
		put("x", x)
		put(fmt.Sprint("x", i), x)
	}
	put("y", b.y)
}

// graphMachines run a graph once.
var graphMachines = map[string]func(t testing.TB, n *net) error{
	"TapeMachine": func(t testing.TB, n *net) error {
		n.grad(t)
		vm := gorgonia.NewTapeMachine(n.graph, gorgonia.BindDualValues(n.params...))
		defer vm.Close()
		return vm.RunAll()
	},
	"LispMachine": func(_ testing.TB, n *net) error { return gorgonia.NewLispMachine(n.graph).RunAll() },
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A graph that is built again for each step makes the steps that one graph makes, in every bit.
func TestGraphRebuiltForEachStep(t *testing.T) {
	t.Run("float64", testGraphRebuiltForEachStep[float64])
	t.Run("float32", testGraphRebuiltForEachStep[float32])
}

func testGraphRebuiltForEachStep[T float](t *testing.T) {
	const steps, cases = 23, 12
	losses := map[string]struct {
		loss loss
		dist func(*gorgonia.Node) kfac.Distribution
	}{
		"categorical": {crossEntropy, kfac.Categorical},
		"gaussian":    {squaredError, func(out *gorgonia.Node) kfac.Distribution { return kfac.Gaussian(out, 1) }},
	}
	models := map[string]struct {
		make  func() *model[T]
		times int
	}{"perceptron": {perceptron[T], 1}, "recurrent": {recurrent[T], 3}}
	options := map[string][]kfac.Option{
		"defaults":         nil,
		"tridiagonal":      {kfac.WithBlockTridiagonal(), kfac.WithIterateAveraging(0.9, 2)},
		"learning rate":    {kfac.WithLearningRate(0.1)},
		"parts of a batch": {kfac.WithMinStatisticsRows(4), kfac.WithMinModelRows(5), kfac.WithInverseUpdatePeriod(4)},
	}
	for lossName, l := range losses {
		for modelName, mod := range models {
			for optionName, opts := range options {
				one := mod.make()
				n := one.graph(newBatch(0, cases, mod.times), l.loss)
				solver := newSolver(t, n, l.dist(n.out), opts...)
				n.grad(t)
				run := dualTape(n)
				for k := range uint64(steps) {
					refill[T](n, newBatch(k, cases, mod.times))
					noError(t, run())
					noError(t, solver.Step(n.valueGrads()))
				}
				want, wantStats := weights(n.params), solver.Stats()
				for name, run := range graphMachines {
					t.Run(fmt.Sprint(lossName, "/", modelName, "/", optionName, "/", name), func(t *testing.T) {
						m := mod.make()
						var solver *kfac.Solver
						for k := range uint64(steps) {
							n = m.graph(newBatch(k, cases, mod.times), l.loss)
							if solver == nil {
								solver = newSolver(t, n, l.dist(n.out), opts...)
							} else {
								noError(t, solver.Attach(n.cost, l.dist(n.out)))
							}
							noError(t, run(t, n))
							noError(t, solver.Step(n.valueGrads()))
						}
						sameBits(t, "weights", weights(n.params), want)
						got := solver.Stats()
						got.Time, wantStats.Time = kfac.PhaseTimes{}, kfac.PhaseTimes{}
						if got != wantStats {
							t.Errorf("stats\n%+v, want\n%+v", got, wantStats)
						}
					})
				}
			}
		}
	}
}
