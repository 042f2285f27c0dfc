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

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// goOn attaches the loop's solver to another graph, on the same weights.
func (l *loop) goOn(t testing.TB, n *network) {
	t.Helper()
	l.share(t, l.network)
	l.share(t, n)
	run := machines["BindDualValues"](t, n)
	check(t, l.solver.Attach(n.cost, n.dist))
	l.network, l.run = n, run
}

// share puts parameters on the tensors that those with the same names and shapes have had so far.
func (l *loop) share(t testing.TB, n *network) {
	t.Helper()
	for _, p := range n.params {
		if v := l.values[keyOf(p)]; v != nil {
			check(t, gorgonia.Let(p, v))
		} else {
			l.values[keyOf(p)] = p.Value()
		}
	}
}

// takeFrom lets the chunk of cases that begins with first come from a graph of its own.
func (p *pair) takeFrom(t *testing.T, n *network, chunk, first, cases int) {
	t.Helper()
	p.first = first
	for _, name := range p.world.cases {
		from, to := data(input(p.whole.network, name)), data(input(n, name))
		one := len(from) / worldCases
		copy(to, from[first*one:(first+cases)*one])
	}
	p.chunked.goOn(t, n)
	check(t, p.chunked.run())
	check(t, p.give(chunk))
}

// An update of chunks from graphs of different sizes is that of one RunAll of all their cases.
func TestChunksFromDifferentGraphs(t *testing.T) {
	vectors := mlp{widths: []int{3, 5, 4, 2}, cases: worldCases, unit: gorgonia.Tanh, outByIn: true, loss: squares(0.5)}
	for _, test := range []struct {
		name  string
		world world
		sizes []int
		build func(cases int) *network // of the chunks, if not that of the world
		opts  []Option
	}{
		{"sizes", plainWorld(binary), []int{7, 1, 12, 4}, nil, damped(WithL2Reg(1e-3))},
		{"sum of the cases", plainWorld(asSum(classes)), []int{7, 9, 8}, nil, damped()},
		{"means and sums", plainWorld(classes), []int{7, 9, 8}, func(cases int) *network {
			loss := lossFunc(classes)
			if cases == 9 {
				loss = asSum(classes)
			}
			return plainWorld(loss).build(cases)
		}, damped(WithStepRejection())},
		{"block-tridiagonal", plainWorld(binary), []int{12, 12}, nil, damped(WithBlockTridiagonal())},
		{"learning rate", plainWorld(binary), []int{12, 5, 7}, nil, []Option{WithLearningRate(0.1)}},
		{"two outputs", headsWorld(), []int{20, 4}, nil, damped()},
		{"vectors of one case", world{func(int) *network { return vectors.build(1) }, []string{"x", "y"}}, slices.Repeat([]int{1}, worldCases),
			func(int) *network { return vectorNet(vectors) }, damped()},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.build == nil {
				test.build = test.world.build
			}
			opts := append(test.opts, WithStatisticsFraction(1))
			p := &pair{world: test.world, chunks: len(test.sizes), whole: newLoop(t, test.world.build(worldCases), opts...)}
			n := test.build(test.sizes[0])
			copyParams(n, p.whole.network)
			p.chunked = newLoop(t, n, opts...)
			p.drawAlike()
			for range 26 {
				p.update++
				p.first = 0
				p.whole.steps(t, 1)
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
func vectorNet(m mlp) *network {
	s := newSketch(1)
	n := &network{sketch: s, x: s.random("x", m.widths[0])}
	h := n.x
	for i, out := range m.widths[1:] {
		if i > 0 {
			h = must(m.unit(h))
		}
		w, b := s.random(fmt.Sprint("w", i), out, m.widths[i]), s.random(fmt.Sprint("b", i), out)
		n.params = append(n.params, w, b)
		h = must(gorgonia.Add(must(gorgonia.Mul(w, h)), b))
	}
	n.out = h
	n.cost, n.dist = m.loss(s, h)
	return n
}

// Batches of different sizes by graphs of their size make the updates that chunks of one small graph make.
func TestGraphsOfTheBatchSize(t *testing.T) {
	const chunk = 4
	w := plainWorld(binary)
	opts := damped(WithStatisticsFraction(1), WithL2Reg(1e-3))
	small, fit := newLoop(t, w.build(chunk), opts...), newLoop(t, w.build(chunk), opts...)
	for update, cases := range []int{4, 12, 8, 8, 16, 4, 20, 12, 12, 4, 16, 8, 12, 4} {
		whole := w.build(cases)
		rng := rand.New(rand.NewPCG(uint64(update), 9))
		for i := range data(whole.x) {
			data(whole.x)[i] = rng.NormFloat64()
		}
		first := 0
		for _, l := range []*loop{small, fit} {
			l.conductor().sampler.draw = func(o *output, _ *rand.Rand) {
				for i := 0; i < len(o.z); i += o.cols {
					o.head.Sample(o.y[i:i+o.cols], o.z[i:i+o.cols], o.cols, rand.New(rand.NewPCG(uint64(update), uint64(first+i/o.cols))))
				}
			}
		}
		fit.goOn(t, whole)
		fit.steps(t, 1)
		for ; first < cases; first += chunk {
			for _, name := range w.cases {
				to := data(input(small.network, name))
				copy(to, data(input(whole, name))[first/chunk*len(to):])
			}
			check(t, small.run())
			if first+chunk < cases {
				check(t, small.solver.Accumulate(small.valueGrads()))
			} else {
				check(t, small.solver.Step(small.valueGrads()))
			}
		}
		checkNear(t, fmt.Sprint("weights after update ", update), fit.weights(), small.weights(), 1e-9)
	}
}

// task is a network whose tasks have a trunk in common and a head each.
func task(name string, cases, hidden int) *network {
	s := newSketch(uint64(len(name)))
	n := &network{sketch: s, x: s.random("x", cases, 3)}
	h := must(gorgonia.Tanh(n.layer(n.x, 0, 3, 4, true, false)))
	h = must(gorgonia.Tanh(n.layer(h, 1, 4, hidden, true, false)))
	w := s.random("head "+name, hidden, 2)
	n.params = append(n.params, w)
	n.out = mul(h, w)
	n.cost, n.dist = squares(1)(s, n.out)
	return n
}

// parameterOf is what the solver knows of a parameter, of the present graph or of one before.
func parameterOf(t testing.TB, c *conductor[float64], name, shape string) *parameter[float64] {
	t.Helper()
	for _, p := range slices.Concat(c.order, c.absent) {
		if p.key == (key{name, shape}) {
			return p
		}
	}
	t.Fatalf("no parameter %q of shape %s", name, shape)
	return nil
}

// State goes by name and shape: what has both is the same, what a graph lacks waits, and what has another shape begins afresh.
func TestStateGoesByNameAndShape(t *testing.T) {
	for name, opts := range map[string][]Option{"block-diagonal": nil, "block-tridiagonal": {WithBlockTridiagonal()}} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, task("a", 6, 5), append(opts, WithIterateAveraging(0.9, 1))...)
			c := l.conductor()
			l.steps(t, 3)
			trunk, head := parameterOf(t, c, "w0", "(3, 4)"), parameterOf(t, c, "head a", "(5, 2)")
			control, block, headBlock := c.control, trunk.block, head.block
			velocity, mean := slices.Clone(head.velocity), slices.Clone(head.mean)

			l.goOn(t, task("b", 9, 5))
			if c.steps != 3 || c.runs != 3 || c.control != control {
				t.Error("counters or damping have changed")
			}
			if parameterOf(t, c, "w0", "(3, 4)") != trunk || trunk.src != l.params[0] || head.src != nil {
				t.Error("the trunk is not what it was, or the head of the other task has stayed")
			}
			if len(opts) == 0 && trunk.block != block {
				t.Error("the trunk has another block")
			}
			l.steps(t, 2)
			if len(c.order) != 5 || len(c.absent) != 1 || trunk.averages != 5 || head.averages != 3 {
				t.Errorf("%d and %d parameters, %d and %d averages", len(c.order), len(c.absent), trunk.averages, head.averages)
			}

			l.goOn(t, task("a", 2, 5))
			if !slices.Equal(head.velocity, velocity) || !slices.Equal(head.mean, mean) || head.block != headBlock {
				t.Error("the head has lost its state while it was away")
			}
			l.steps(t, 2)
			if head.averages != 5 || len(c.absent) != 1 {
				t.Errorf("%d averages, %d absent", head.averages, len(c.absent))
			}

			l.goOn(t, task("a", 6, 7)) // another shape of w1, b1 and the head
			l.steps(t, 1)
			wide := parameterOf(t, c, "head a", "(7, 2)")
			if wide == head || wide.averages != 1 || trunk.averages != 8 || len(c.absent) != 4 {
				t.Errorf("%d averages of the wide head, %d of the trunk, %d absent", wide.averages, trunk.averages, len(c.absent))
			}
			l.goOn(t, task("a", 6, 5))
			if head.src == nil || !slices.Contains(c.order, head) {
				t.Error("the narrow head has not come back")
			}
			l.steps(t, 2)
		})
	}
}

// A layer that another graph uses in another way, here the other way round, has no use for the old factors.
func TestLayerOfAnotherForm(t *testing.T) {
	build := func(outByIn bool) *network {
		return mlp{widths: []int{3, 3, 2}, cases: 5, unit: gorgonia.Tanh, outByIn: outByIn, loss: squares(1)}.build(1)
	}
	l := newLoop(t, build(false))
	l.steps(t, 3)
	c := l.conductor()
	w0 := parameterOf(t, c, "w0", "(3, 3)")
	velocity, block := slices.Clone(w0.velocity), w0.block
	l.goOn(t, build(true))
	if !slices.Equal(w0.velocity, velocity) || w0.block == block || !w0.block.needsInverse() {
		t.Error("the previous update should stay, and the block be new")
	}
	l.steps(t, 2)
}

// The graphs that the solver was attached to before are let go of, also those of chunks, once their update is done, and also where some of their
// parameters wait.
func TestGraphsAreLetGo(t *testing.T) {
	const graphs = 1000
	var programs []weak.Pointer[program.Program]
	var nodes []weak.Pointer[gorgonia.Node]
	attached := func(l *loop) {
		programs = append(programs, weak.Make(l.conductor().whole), weak.Make(l.conductor().model))
		nodes = append(nodes, weak.Make(l.cost), weak.Make(l.params[0]))
	}
	l := newLoop(t, task("a", 3, 4), WithBlockTridiagonal(), WithIterateAveraging(0.9, 1))
	l.steps(t, 1)
	for i := range graphs {
		l.goOn(t, task([]string{"a", "b", "c"}[i%3], 3, 4))
		attached(l)
		if i%10 > 0 {
			continue
		}
		check(t, l.run())
		if i%30 == 0 { // two chunks of the same task, so that the list is the same
			check(t, l.solver.Accumulate(l.valueGrads()))
			l.goOn(t, task("a", 2, 4))
			attached(l)
			check(t, l.run())
		}
		check(t, l.solver.Step(l.valueGrads()))
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
		t.Errorf("%d programs and %d of the user's nodes are alive after %d graphs, want 2 of each", alive, ofUser, graphs)
	}
	runtime.KeepAlive(l)
}

// With a scalar and a view among the weights, which a solver reads into memory of its own, other weights in another graph are noticed too.
func TestOtherWeightsOfScalarsAndViews(t *testing.T) {
	build := func(gain float64) *network {
		s := newSketch(4)
		n := &network{sketch: s, x: s.random("x", 4, 3)}
		h := n.layer(n.x, 0, 3, 2, false, false)
		g := gorgonia.NewScalar(s.graph, tensor.Float64, gorgonia.WithName("gain"), gorgonia.WithValue(gain))
		n.params = append(n.params, g)
		n.out = must(gorgonia.HadamardProd(h, g))
		n.cost, n.dist = squares(1)(s, n.out)
		return n
	}
	l := newLoop(t, build(1))
	l.steps(t, 2)
	other := build(3)
	check(t, gorgonia.Let(other.params[0], l.params[0].Value()))
	run := machines["BindDualValues"](t, other)
	check(t, l.solver.Attach(other.cost, other.dist))
	check(t, run())
	err := l.solver.Step(gorgonia.NodesToValueGrads(other.params))
	if !errors.Is(err, ErrOtherWeights) || !strings.Contains(err.Error(), "gain") {
		t.Fatalf("error %v", err)
	}
	check(t, l.solver.Attach(l.cost, l.dist))
	l.zeroGradients()
	l.steps(t, 1)
}

// Blocks of all kinds go on in a graph that is built again: its steps are those of one graph, in every bit.
func TestBlocksOfAllKindsGoOn(t *testing.T) {
	type kind struct {
		name  string
		build func() *network
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
		kinds = append(kinds, kind{"recurrent, " + string(timing), func() *network { return recurrentNet(3, 3, true) }, []Option{WithTimeCorrelation(timing)}})
	}
	kinds = append(kinds,
		kind{"convolution", func() *network { return imageNet(3, true, true) }, []Option{WithSpatiallyUncorrelated()}},
		kind{"scale", func() *network { return scaledNet(6, squares(1)) }, nil},
		kind{"one-hot inputs", func() *network { return lookupNet(300, true, []int{3, 299, 7, 3, 0}) }, nil})
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			opts := append(k.opts, WithoutGradientCheck(), WithLearningRate(0.01))
			one, again := newLoop(t, k.build(), opts...), newLoop(t, k.build(), opts...)
			for step := range 6 {
				if step > 0 {
					again.goOn(t, k.build())
				}
				check(t, one.run())
				check(t, again.run())
				check(t, one.solver.Step(one.valueGrads()))
				check(t, again.solver.Step(again.valueGrads()))
				checkTwins(t, again, one)
				if a, b := again.solver.Plan().String(), one.solver.Plan().String(); a != b {
					t.Fatalf("plan\n%s, want\n%s", a, b)
				}
			}
			for i, b := range again.conductor().blocks {
				if b.needsInverse() {
					t.Errorf("block %d has begun afresh", i)
				}
			}
		})
	}
}

// The correlation of time steps is that of the graph's length, a single step included.
func TestRecurrentBlockAtAnyLength(t *testing.T) {
	for _, timing := range []TimeCorrelation{TimeSymmetric, TimeStationary} {
		l := newLoop(t, recurrentNet(3, 3, false), WithTimeCorrelation(timing))
		l.steps(t, 2)
		u := parameterOf(t, l.conductor(), "u", "(3, 3)")
		block := u.block.(*recurrentBlock[float64])
		for _, length := range []int{5, 1, 2, 7, 1, 1, 4} {
			l.goOn(t, recurrentNet(3, length, false))
			l.steps(t, 1)
			if u.block != block || len(block.layer.Sites) != length {
				t.Fatalf("%s: another block, or %d uses at length %d", timing, len(block.layer.Sites), length)
			}
		}
		if block.factors.updates != 9 {
			t.Errorf("%s: %d updates of the factors, want 9", timing, block.factors.updates)
		}
	}
}
