package kfac

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// goOn attaches the trainer's solver to another graph, on the same weights.
func goOn(t testing.TB, tr *Trainer, n *testnet.Net) {
	t.Helper()
	tr.Share(t, n)
	run := testnet.Machines["BindDualValues"](t, n)
	testnet.Check(t, tr.Solver.Attach(n.Cost, Declared(n)))
	tr.Net, tr.Run = n, run
}

// takeFrom lets the chunk of cases that begins with first come from a graph of its own.
func (p *pair) takeFrom(t *testing.T, n *testnet.Net, chunk, first, cases int) {
	t.Helper()
	p.first = first
	for _, name := range p.world.cases {
		from, to := testnet.Data(p.whole.Net.Input(name)), testnet.Data(n.Input(name))
		one := len(from) / worldCases
		copy(to, from[first*one:(first+cases)*one])
	}
	goOn(t, p.chunked, n)
	testnet.Check(t, p.chunked.Run())
	testnet.Check(t, p.give(chunk))
}

// An update of chunks from graphs of different sizes is that of one RunAll of all their cases.
func TestChunksFromDifferentGraphs(t *testing.T) {
	vectors := testnet.MLP{Widths: []int{3, 5, 4, 2}, Cases: worldCases, Unit: gorgonia.Tanh, OutByIn: true,
		Loss: testnet.Squares(0.5)}
	for _, test := range []struct {
		name  string
		world world
		sizes []int
		build func(cases int) *testnet.Net // of the chunks, if not that of the world
		opts  []Option
	}{
		{"sizes", plainWorld(testnet.Binary), []int{7, 1, 12, 4}, nil, damped(WithL2Reg(1e-3))},
		{"sum of the cases", plainWorld(testnet.AsSum(testnet.Classes)), []int{7, 9, 8}, nil, damped()},
		{"means and sums", plainWorld(testnet.Classes), []int{7, 9, 8}, func(cases int) *testnet.Net {
			loss := testnet.Likelihood(testnet.Classes)
			if cases == 9 {
				loss = testnet.AsSum(testnet.Classes)
			}
			return plainWorld(loss).build(cases)
		}, damped(WithStepRejection())},
		{"block-tridiagonal", plainWorld(testnet.Binary), []int{12, 12}, nil, damped(WithBlockTridiagonal())},
		{"EKFAC", plainWorld(testnet.Binary), []int{12, 5, 7}, nil, damped(WithEKFAC())},
		{"learning rate", plainWorld(testnet.Binary), []int{12, 5, 7}, nil, []Option{WithLearningRate(0.1)}},
		{"two outputs", headsWorld(), []int{20, 4}, nil, damped()},
		{"vectors of one case", world{func(int) *testnet.Net {
			return vectors.Build(1)
		}, []string{"x", "y"}}, slices.Repeat([]int{1}, worldCases),
			func(int) *testnet.Net { return vectorNet(vectors) }, damped()},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.build == nil {
				test.build = test.world.build
			}
			opts := append(test.opts, WithStatisticsFraction(1))
			p := &pair{world: test.world, chunks: len(test.sizes),
				whole: NewTrainer(t, test.world.build(worldCases), opts...)}
			n := test.build(test.sizes[0])
			n.CopyParams(p.whole.Net)
			p.chunked = NewTrainer(t, n, opts...)
			p.drawAlike()
			for range 26 {
				p.update++
				p.first = 0
				p.whole.Steps(t, 1)
				for i, first := 0, 0; i < len(test.sizes); i++ {
					p.takeFrom(t, test.build(test.sizes[i]), i, first, test.sizes[i])
					first += test.sizes[i]
				}
				p.compare(t)
				if t.Failed() {
					return
				}
				p.redraw()
			}
		})
	}
}

// vectorNet is a perceptron for one case, without a batch dimension: Mul(w, x) with vectors.
func vectorNet(m testnet.MLP) *testnet.Net {
	s := testnet.NewSketch(1)
	n := &testnet.Net{Sketch: s, X: s.Random("x", m.Widths[0])}
	h := n.X
	for i, out := range m.Widths[1:] {
		if i > 0 {
			h = gorgonia.Must(m.Unit(h))
		}
		w, b := s.Random(fmt.Sprint("w", i), out, m.Widths[i]), s.Random(fmt.Sprint("b", i), out)
		n.Params = append(n.Params, w, b)
		h = add(mul(w, h), b)
	}
	n.Out = h
	n.Cost, n.Loss = m.Loss(s, h)
	return n
}

// Batches of different sizes by graphs of their size make the updates that chunks of one small
// graph make.
func TestGraphsOfTheBatchSize(t *testing.T) {
	const chunk = 4
	w := plainWorld(testnet.Binary)
	opts := damped(WithStatisticsFraction(1), WithL2Reg(1e-3))
	small, fit := NewTrainer(t, w.build(chunk), opts...), NewTrainer(t, w.build(chunk), opts...)
	for update, cases := range []int{4, 12, 8, 8, 16, 4, 20, 12, 12, 4, 16, 8, 12, 4} {
		whole := w.build(cases)
		rng := rand.New(rand.NewPCG(uint64(update), 9))
		for i := range testnet.Data(whole.X) {
			testnet.Data(whole.X)[i] = rng.NormFloat64()
		}
		first := 0
		for _, l := range []*Trainer{small, fit} {
			trainingOf(l).sampler.draw = func(o *output, _ *rand.Rand) {
				for i := 0; i < len(o.z); i += o.cols {
					o.Sample(o.y[i:i+o.cols], o.z[i:i+o.cols], o.cols,
						rand.New(rand.NewPCG(uint64(update), uint64(first+i/o.cols))))
				}
			}
		}
		goOn(t, fit, whole)
		fit.Steps(t, 1)
		for ; first < cases; first += chunk {
			for _, name := range w.cases {
				to := testnet.Data(small.Net.Input(name))
				copy(to, testnet.Data(whole.Input(name))[first/chunk*len(to):])
			}
			testnet.Check(t, small.Run())
			if first+chunk < cases {
				testnet.Check(t, small.Solver.Accumulate(small.ValueGrads()))
			} else {
				testnet.Check(t, small.Solver.Step(small.ValueGrads()))
			}
		}
		testnet.Near(t, fmt.Sprint("weights after update ", update), testnet.Weights(fit.Params),
			testnet.Weights(small.Params), 1e-9)
	}
}

// taskNet is a network whose tasks have a trunk in common and a head each.
func taskNet(name string, cases, hidden int) *testnet.Net {
	s := testnet.NewSketch(uint64(len(name)))
	n := &testnet.Net{Sketch: s, X: s.Random("x", cases, 3)}
	h := tanh(n.Layer(n.X, 0, 3, 4, true, false))
	h = tanh(n.Layer(h, 1, 4, hidden, true, false))
	w := s.Random("head "+name, hidden, 2)
	n.Params = append(n.Params, w)
	n.Out = mul(h, w)
	n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
	return n
}

// parameterOf is what the solver knows of a parameter, of the present graph or of one before.
func parameterOf(t testing.TB, c *training[float64], name, shape string) *parameter[float64] {
	t.Helper()
	for _, p := range slices.Concat(c.plan.order, c.plan.absent) {
		if p.key == (key{name, shape}) {
			return p
		}
	}
	t.Fatalf("no parameter %q of shape %s", name, shape)
	return nil
}

// State goes by name and shape: what has both is the same, what a graph lacks waits, and what has
// another shape begins afresh.
func TestStateGoesByNameAndShape(t *testing.T) {
	for name, opts := range map[string][]Option{"block-diagonal": nil, "block-tridiagonal": {WithBlockTridiagonal()}} {
		t.Run(name, func(t *testing.T) {
			l := NewTrainer(t, taskNet("a", 6, 5), append(opts, WithIterateAveraging(0.9, 1))...)
			c := trainingOf(l)
			l.Steps(t, 3)
			trunk, head := parameterOf(t, c, "w0", "(3, 4)"), parameterOf(t, c, "head a", "(5, 2)")
			control, block, headBlock := c.control, c.plan.blocksOf[trunk][0], c.plan.blocksOf[head][0]
			previous, mean := slices.Clone(head.previous), slices.Clone(head.mean)

			goOn(t, l, taskNet("b", 9, 5))
			if c.steps != 3 || c.runs != 3 || c.control != control {
				t.Error("counters or damping have changed")
			}
			if parameterOf(t, c, "w0", "(3, 4)") != trunk || trunk.src != l.Params[0] || head.src != nil {
				t.Error("the trunk is not what it was, or the head of the other task has stayed")
			}
			if len(opts) == 0 && c.plan.blocksOf[trunk][0] != block {
				t.Error("the trunk has another block")
			}
			l.Steps(t, 2)
			if len(c.plan.order) != 5 || len(c.plan.absent) != 1 || trunk.averages != 5 || head.averages != 3 {
				t.Errorf("%d and %d parameters, %d and %d averages",
					len(c.plan.order), len(c.plan.absent), trunk.averages, head.averages)
			}

			goOn(t, l, taskNet("a", 2, 5))
			if !slices.Equal(head.previous, previous) || !slices.Equal(head.mean, mean) ||
				c.plan.blocksOf[head][0] != headBlock {
				t.Error("the head has lost its state while it was away")
			}
			l.Steps(t, 2)
			if head.averages != 5 || len(c.plan.absent) != 1 {
				t.Errorf("%d averages, %d absent", head.averages, len(c.plan.absent))
			}

			goOn(t, l, taskNet("a", 6, 7)) // another shape of w1, b1 and the head
			l.Steps(t, 1)
			wide := parameterOf(t, c, "head a", "(7, 2)")
			if wide == head || wide.averages != 1 || trunk.averages != 8 || len(c.plan.absent) != 4 {
				t.Errorf("%d averages of the wide head, %d of the trunk, %d absent",
					wide.averages, trunk.averages, len(c.plan.absent))
			}
			goOn(t, l, taskNet("a", 6, 5))
			if head.src == nil || !slices.Contains(c.plan.order, head) {
				t.Error("the narrow head has not come back")
			}
			l.Steps(t, 2)
		})
	}
}

// A layer that another graph uses in another way, here the other way round, has no use for the old
// factors.
func TestLayerOfAnotherForm(t *testing.T) {
	build := func(outByIn bool) *testnet.Net {
		return testnet.MLP{Widths: []int{3, 3, 2}, Cases: 5, Unit: gorgonia.Tanh, OutByIn: outByIn,
			Loss: testnet.Squares(1)}.Build(1)
	}
	l := NewTrainer(t, build(false))
	l.Steps(t, 3)
	c := trainingOf(l)
	w0 := parameterOf(t, c, "w0", "(3, 3)")
	previous, block := slices.Clone(w0.previous), c.plan.blocksOf[w0][0]
	goOn(t, l, build(true))
	now := c.plan.blocksOf[w0][0]
	if !slices.Equal(w0.previous, previous) || now == block || now.inverse != nil {
		t.Error("the previous update should stay, and the block be new")
	}
	l.Steps(t, 2)
}

// The graphs that the solver was attached to before are let go of, also those of chunks, once their
// update is done, and also where some of their parameters wait.
func TestGraphsAreLetGo(t *testing.T) {
	const graphs = 1000
	var programs []weak.Pointer[program.Program]
	var nodes []weak.Pointer[gorgonia.Node]
	attached := func(l *Trainer) {
		programs = append(programs, weak.Make(trainingOf(l).graph.whole), weak.Make(trainingOf(l).plan.model.Program))
		nodes = append(nodes, weak.Make(l.Cost), weak.Make(l.Params[0]))
	}
	l := NewTrainer(t, taskNet("a", 3, 4), WithBlockTridiagonal(), WithIterateAveraging(0.9, 1))
	l.Steps(t, 1)
	for i := range graphs {
		goOn(t, l, taskNet([]string{"a", "b", "c"}[i%3], 3, 4))
		attached(l)
		if i%10 > 0 {
			continue
		}
		testnet.Check(t, l.Run())
		if i%30 == 0 { // two chunks of the same task, so that the list is the same
			testnet.Check(t, l.Solver.Accumulate(l.ValueGrads()))
			goOn(t, l, taskNet("a", 2, 4))
			attached(l)
			testnet.Check(t, l.Run())
		}
		testnet.Check(t, l.Solver.Step(l.ValueGrads()))
	}
	runtime.GC()
	runtime.GC()
	alive := 0
	for _, p := range programs {
		if p.Value() != nil {
			alive++
		}
	}
	ofUser := 0
	for _, n := range nodes {
		if n.Value() != nil {
			ofUser++
		}
	}
	if alive > 2 || ofUser > 2 {
		t.Errorf("%d programs and %d of the user's nodes are alive after %d graphs, want 2 of each",
			alive, ofUser, graphs)
	}
	runtime.KeepAlive(l)
}

// With a scalar and a view among the weights, which a solver reads into memory of its own, other
// weights in another graph are noticed too.
func TestOtherWeightsOfScalarsAndViews(t *testing.T) {
	build := func(gain float64) *testnet.Net {
		s := testnet.NewSketch(4)
		n := &testnet.Net{Sketch: s, X: s.Random("x", 4, 3)}
		h := n.Layer(n.X, 0, 3, 2, false, false)
		g := gorgonia.NewScalar(s.Graph, tensor.Float64, gorgonia.WithName("gain"), gorgonia.WithValue(gain))
		n.Params = append(n.Params, g)
		n.Out = hadamard(h, g)
		n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
		return n
	}
	l := NewTrainer(t, build(1))
	l.Steps(t, 2)
	other := build(3)
	testnet.Check(t, gorgonia.Let(other.Params[0], l.Params[0].Value()))
	run := testnet.Machines["BindDualValues"](t, other)
	testnet.Check(t, l.Solver.Attach(other.Cost, Declared(other)))
	testnet.Check(t, run())
	err := l.Solver.Step(gorgonia.NodesToValueGrads(other.Params))
	if !errors.Is(err, ErrOtherWeights) || !strings.Contains(err.Error(), "gain") {
		t.Fatalf("error %v", err)
	}
	testnet.Check(t, l.Solver.Attach(l.Cost, Declared(l.Net)))
	testnet.ZeroGradients(l.Params)
	l.Steps(t, 1)
}

// Blocks of all kinds go on in a graph that is built again: its steps are those of one graph, in
// every bit.
func TestBlocksOfAllKindsGoOn(t *testing.T) {
	type kind struct {
		name  string
		build func() *testnet.Net
		opts  []Option
	}
	var kinds []kind
	for _, w := range wirings {
		if w.name == "operation without a derivative" {
			continue // Gorgonia's Grad panics
		}
		kinds = append(kinds, kind{w.name, w.network, nil})
	}
	for _, timing := range []TimeCorrelation{TimeSymmetric, TimeStationary} {
		kinds = append(kinds, kind{"recurrent, " + string(timing), func() *testnet.Net {
			return testnet.Recurrent(3, 3, true)
		}, []Option{WithTimeCorrelation(timing)}})
	}
	kinds = append(kinds,
		kind{"convolution", func() *testnet.Net {
			return testnet.Images(3, true, true)
		}, []Option{WithSpatiallyUncorrelated()}},
		kind{"scale", func() *testnet.Net { return testnet.ScaledCases(6, testnet.Squares(1)) }, nil},
		kind{"one-hot inputs", func() *testnet.Net { return testnet.Lookup(300, true, []int{3, 299, 7, 3, 0}) }, nil})
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			opts := append(k.opts, WithoutGradientCheck(), WithLearningRate(0.01))
			one, again := NewTrainer(t, k.build(), opts...), NewTrainer(t, k.build(), opts...)
			for step := range 6 {
				if step > 0 {
					goOn(t, again, k.build())
				}
				testnet.Check(t, one.Run())
				testnet.Check(t, again.Run())
				testnet.Check(t, one.Solver.Step(one.ValueGrads()))
				testnet.Check(t, again.Solver.Step(again.ValueGrads()))
				checkTwins(t, again, one)
				if a, b := again.Solver.Plan().String(), one.Solver.Plan().String(); a != b {
					t.Fatalf("plan\n%s, want\n%s", a, b)
				}
			}
			for i, b := range trainingOf(again).plan.blocks {
				if b.inverse == nil && !b.Immediate() {
					t.Errorf("block %d has begun afresh", i)
				}
			}
		})
	}
}

// The correlation of time steps is that of the graph's length, a single step included.
func TestRecurrentBlockAtAnyLength(t *testing.T) {
	for _, timing := range []TimeCorrelation{TimeSymmetric, TimeStationary} {
		l := NewTrainer(t, testnet.Recurrent(3, 3, false), WithTimeCorrelation(timing))
		l.Steps(t, 2)
		c := trainingOf(l)
		u := parameterOf(t, c, "u", "(3, 3)")
		block := c.plan.blocksOf[u][0]
		if _, ok := block.Block.(*curvature.Recurrent[float64]); !ok {
			t.Fatalf("%s: u has a %T", timing, block.Block)
		}
		for _, length := range []int{5, 1, 2, 7, 1, 1, 4} {
			goOn(t, l, testnet.Recurrent(3, length, false))
			l.Steps(t, 1)
			if sites := layerNamed(t, c, "u").Sites; c.plan.blocksOf[u][0] != block || len(sites) != length {
				t.Fatalf("%s: another block, or %d uses at length %d", timing, len(sites), length)
			}
		}
		if n := block.Copy().Updates; n != 9 {
			t.Errorf("%s: %d updates of the factors, want 9", timing, n)
		}
	}
}
