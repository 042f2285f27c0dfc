package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A loop trains a network on one of Gorgonia's machines.
type loop struct {
	*network
	solver *Solver
	run    func() error
	values map[key]gorgonia.Value // of the parameters of all graphs; see goOn
}

// newLoop is a loop with the machine that Gorgonia's own examples use with a solver.
func newLoop(t testing.TB, n *network, opts ...Option) *loop {
	t.Helper()
	return newLoopOn(t, machines["BindDualValues"], n, opts...)
}

func newLoopOn(t testing.TB, machine func(t testing.TB, n *network) func() error, n *network, opts ...Option) *loop {
	t.Helper()
	run := machine(t, n)
	solver, err := NewSolver(n.cost, n.dist, opts...)
	check(t, err)
	return &loop{network: n, solver: solver, run: run, values: map[key]gorgonia.Value{}}
}

// machines make what runs a network forward and backward once.
var machines = map[string]func(t testing.TB, n *network) func() error{
	"BindDualValues": func(t testing.TB, n *network) func() error {
		differentiate(t, n)
		return tapeOf(n, gorgonia.BindDualValues(n.params...))
	},
	"no BindDualValues": func(t testing.TB, n *network) func() error {
		differentiate(t, n)
		return tapeOf(n)
	},
	"CompileFunction": func(t testing.TB, n *network) func() error {
		inputs := slices.DeleteFunc(n.sketch.graph.Inputs(), func(in *gorgonia.Node) bool { return in.Op() != nil })
		outputs := append(gorgonia.Nodes{n.cost}, differentiate(t, n)...)
		prog, locMap, err := gorgonia.CompileFunction(n.sketch.graph, inputs, outputs)
		check(t, err)
		return tapeOf(n, gorgonia.WithPrecompiled(prog, locMap), gorgonia.BindDualValues(n.params...))
	},
	"LispMachine": func(_ testing.TB, n *network) func() error {
		return func() error { return gorgonia.NewLispMachine(n.sketch.graph).RunAll() } // a second RunAll of one does nothing
	},
}

func differentiate(t testing.TB, n *network) gorgonia.Nodes {
	t.Helper()
	grads, err := gorgonia.Grad(n.cost, n.params...)
	check(t, err)
	return grads
}

func tapeOf(n *network, opts ...gorgonia.VMOpt) func() error {
	vm := gorgonia.NewTapeMachine(n.sketch.graph, opts...)
	return func() error { vm.Reset(); return vm.RunAll() }
}

func (l *loop) conductor() *conductor[float64] { return l.solver.engine.(*conductor[float64]) }

func (l *loop) valueGrads() []gorgonia.ValueGrad { return gorgonia.NodesToValueGrads(l.params) }

// steps does n steps of a batch each.
func (l *loop) steps(t testing.TB, n int) {
	t.Helper()
	for range n {
		check(t, l.run())
		check(t, l.solver.Step(l.valueGrads()))
	}
}

// weights copies all parameters, one behind the other.
func (l *loop) weights() (all []float64) {
	for _, p := range l.params {
		all = append(all, data(p)...)
	}
	return all
}

// zeroGradients is what a user does who goes on after an error: with BindDualValues, gradients add up.
func (l *loop) zeroGradients() {
	for _, p := range l.params {
		zeroGradient(p)
	}
}

// stats are the figures of the last step, without the times.
func (l *loop) stats() Stats {
	st := l.solver.Stats()
	st.Time = PhaseTimes{}
	return st
}

// checkTwins demands that two loops are at the same weights, by the same step, in every bit.
func checkTwins(t *testing.T, got, want *loop) {
	t.Helper()
	if !slices.Equal(got.weights(), want.weights()) {
		t.Fatalf("weights off by %g of their norm", distance(got.weights(), want.weights()))
	}
	if a, b := got.stats(), want.stats(); a != b {
		t.Fatalf("step %+v, want %+v", a, b)
	}
}

// A world is all the cases that batches are made of, and how a model sees them.
type world struct {
	build func(cases int) *network
	cases []string // the names of the inputs that hold one row for each case
}

// A pair is a loop that sees the whole world at once, and one that sees it in chunks.
type pair struct {
	world          world
	whole, chunked *loop
	chunks         int
	update         int // of which targets are drawn
	first          int // case of the chunk that is being run
}

const worldCases = 24

func (w world) newPair(t *testing.T, chunks int, opts ...Option) *pair {
	t.Helper()
	return w.newPairOn(t, "BindDualValues", chunks, opts...)
}

// newPairOn makes a pair whose chunks are run by the given machine.
func (w world) newPairOn(t *testing.T, machine string, chunks int, opts ...Option) *pair {
	t.Helper()
	p := &pair{world: w, chunks: chunks}
	p.whole = newLoop(t, w.build(worldCases), opts...)
	p.chunked = newLoopOn(t, machines[machine], w.build(worldCases/chunks), opts...)
	copyParams(p.chunked.network, p.whole.network)
	return p
}

// drawAlike lets the targets that are sampled for a case in an update be the same in both.
func (p *pair) drawAlike() {
	for _, l := range []*loop{p.whole, p.chunked} {
		l.conductor().sampler.draw = func(o *output, _ *rand.Rand) {
			for i := 0; i < len(o.z); i += o.cols {
				rng := rand.New(rand.NewPCG(uint64(p.update), uint64(p.first+i/o.cols)))
				o.head.Sample(o.y[i:i+o.cols], o.z[i:i+o.cols], o.cols, rng)
			}
		}
	}
}

// load fills the inputs of the loop in chunks with chunk i.
func (p *pair) load(i int) {
	size := worldCases / p.chunks
	for _, name := range p.world.cases {
		from, to := input(p.whole.network, name), input(p.chunked.network, name)
		switch all := from.Value().Data().(type) {
		case []float64:
			one := len(all) / worldCases
			copy(data(to), all[i*size*one:(i+1)*size*one])
		case []int:
			one := len(all) / worldCases
			copy(to.Value().Data().([]int), all[i*size*one:(i+1)*size*one])
		}
	}
}

// redraw puts other data into the world: all inputs but the targets.
func (p *pair) redraw() {
	s := p.whole.sketch
	for _, name := range p.world.cases {
		switch all := input(p.whole.network, name).Value().Data().(type) {
		case []float64:
			if !strings.HasPrefix(name, "y") {
				copy(all, s.normals(len(all)))
			}
		case []int:
			s.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
	}
}

// step does one update of both.
func (p *pair) step(t *testing.T) {
	t.Helper()
	p.update++
	p.first = 0
	p.whole.steps(t, 1)
	p.update--
	p.stepInChunks(t)
}

// stepInChunks does one update of the loop in chunks.
func (p *pair) stepInChunks(t *testing.T) {
	t.Helper()
	p.update++
	for i := range p.chunks {
		check(t, p.take(t, i))
	}
}

// take runs chunk i, and gives it to Accumulate or, if it is the last, to Step.
func (p *pair) take(t *testing.T, i int) error {
	t.Helper()
	p.first = i * worldCases / p.chunks
	p.load(i)
	check(t, p.chunked.run())
	return p.give(i)
}

func (p *pair) give(i int) error {
	if i < p.chunks-1 {
		return p.chunked.solver.Accumulate(p.chunked.valueGrads())
	}
	return p.chunked.solver.Step(p.chunked.valueGrads())
}

// compare demands the same weights and the same figures.
func (p *pair) compare(t *testing.T) {
	t.Helper()
	checkNear(t, fmt.Sprint("weights after update ", p.update), p.chunked.weights(), p.whole.weights(), 1e-9)
	figures := func(l *loop) []float64 {
		st, c := l.solver.Stats(), l.conductor().control
		trend := c.noise.trend
		return []float64{st.Momentum, st.LearningRate, st.Shrink, st.QuadModelChange, st.Rho, st.GradNorm, st.UpdateNorm, st.KL,
			st.Damping, st.Gamma, c.lambda, c.gamma, trend.mean, trend.best}
	}
	got, want := figures(p.chunked), figures(p.whole)
	for i := range want {
		scale := math.Abs(want[i])
		if i == 0 {
			scale = max(scale, 1) // mu may be next to nothing
		}
		if got[i] != want[i] && !(math.Abs(got[i]-want[i]) <= 1e-9*scale) {
			t.Errorf("update %d: figures %.12g, want %.12g", p.update, got, want)
			break
		}
	}
	a, b := p.chunked.solver.Stats(), p.whole.solver.Stats()
	if a.Rejected != b.Rejected || a.InverseUpdated != b.InverseUpdated || a.DampingRaised != b.DampingRaised || a.Step != b.Step {
		t.Errorf("update %d: %+v, want %+v", p.update, a, b)
	}
	if got, want := []int{a.Chunks, a.Cases, a.StatisticsCases}, []int{p.chunks, worldCases, worldCases}; !slices.Equal(got, want) {
		t.Errorf("update %d: chunks, cases and those of the statistics are %d, want %d", p.update, got, want)
	}
	if got, want := []int{b.Chunks, b.Cases, b.StatisticsCases}, []int{1, worldCases, worldCases}; !slices.Equal(got, want) {
		t.Errorf("update %d in one RunAll: chunks, cases and those of the statistics are %d, want %d", p.update, got, want)
	}
}

// plainWorld is a perceptron.
func plainWorld(loss lossFunc) world {
	return world{func(cases int) *network {
		return mlp{widths: []int{3, 5, 4, 2}, cases: cases, unit: gorgonia.Tanh, loss: loss}.build(1)
	}, []string{"x", "y"}}
}

// headsWorld has two outputs.
func headsWorld() world {
	w := plainWorld(twoHeads)
	w.cases = append(w.cases, "y1")
	return w
}

// wordWorld looks up words, has a weight that is not being trained and an input that all cases share, scales its outputs, and adds a term of the
// user's own to the cost. Table and scale are trained if others is true.
func wordWorld(others bool) world {
	return world{func(cases int) *network { return wordNet(cases, others) }, []string{"words", "y"}}
}

func wordNet(cases int, others bool) *network {
	s := newSketch(2)
	table, frozen, shared, scale := s.random("table", 5, 3), s.random("frozen", 4, 4), s.random("shared", 1, 3), s.random("scale", 1, 2)
	ids := make([]int, 2*cases)
	for i := range ids {
		ids[i] = s.rng.IntN(5)
	}
	words := gorgonia.NewVector(s.graph, tensor.Int, gorgonia.WithName("words"), gorgonia.WithShape(2*cases),
		gorgonia.WithValue(tensor.New(tensor.WithShape(2*cases), tensor.WithBacking(ids))))
	n := &network{sketch: s}
	if others {
		n.params = gorgonia.Nodes{table, scale}
	}
	h := must(gorgonia.BroadcastAdd(must(gorgonia.ByIndices(table, words, 0)), shared, nil, []byte{0}))
	h = tanh(n.layer(reshape(h, cases, 6), 0, 6, 4, true, false))
	h = n.layer(tanh(mul(h, frozen)), 1, 4, 2, true, true)
	n.out = must(gorgonia.BroadcastHadamardProd(h, tanh(scale), nil, []byte{0}))
	n.cost, n.dist = squares(1)(s, n.out)
	w0 := n.params[len(n.params)-4]
	n.cost = add(n.cost, must(gorgonia.Mul(must(gorgonia.Sum(must(gorgonia.Square(w0)))), gorgonia.NewConstant(0.05))))
	return n
}

// asSum is a lossFunc whose cost is the sum over cases, not the mean.
func asSum(loss lossFunc) lossFunc {
	return func(s *sketch, out *gorgonia.Node) (*gorgonia.Node, Distribution) {
		cost, dist := loss(s, out)
		return must(gorgonia.Mul(cost, gorgonia.NewConstant(float64(casesOf(out))))), dist
	}
}

// A batch in chunks and the same batch in one RunAll make the same updates, through adaptations of lambda and a search for gamma, if the same targets
// are sampled, where all blocks are Kronecker's.
func TestChunksMakeTheSameUpdates(t *testing.T) {
	for _, test := range []struct {
		name    string
		world   world
		chunks  int
		redraw  bool // another batch for each update
		updates int
		opts    []Option
	}{
		{"lambda that is found", plainWorld(binary), 3, true, 8, []Option{WithL2Reg(1e-3)}},
		{"given lambda", plainWorld(binary), 3, false, 26, damped()},
		{"batches", plainWorld(binary), 3, true, 41, damped()},
		{"batches in two chunks", plainWorld(classes), 2, true, 26, damped()},
		{"two cases each", plainWorld(squares(0.5)), worldCases / 2, false, 26, damped()},
		{"a case each", plainWorld(squares(0.5)), worldCases, true, 26, damped()},
		{"block-tridiagonal", plainWorld(binary), 3, true, 26, damped(WithBlockTridiagonal())},
		{"without momentum", plainWorld(binary), 4, false, 26, damped(WithoutMomentum())},
		{"L2", plainWorld(classes), 3, false, 26, damped(WithL2Reg(0.01))},
		{"paper's rules", plainWorld(binary), 3, true, 26, damped(WithPaperRules(), WithL2Reg(1e-3))},
		{"step rejection", plainWorld(binary), 3, true, 26, damped(WithStepRejection())},
		{"sum of the cases", plainWorld(asSum(binary)), 3, false, 26, damped(WithL2Reg(1e-3))},
		{"learning rate", plainWorld(binary), 3, true, 26, []Option{WithLearningRate(0.1), WithL2Reg(1e-3)}},
		{"learning rate, block-tridiagonal", plainWorld(classes), 3, false, 26, []Option{WithLearningRate(0.1), WithBlockTridiagonal()}},
		{"two outputs", headsWorld(), 3, true, 26, damped()},
		{"words, weights that are frozen, inputs that do not change", wordWorld(false), 3, true, 26, damped()},
		{"the same, block-tridiagonal", wordWorld(false), 4, false, 26, damped(WithBlockTridiagonal(), WithL2Reg(1e-3))},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := test.world.newPair(t, test.chunks, append(test.opts, WithStatisticsFraction(1))...)
			p.drawAlike()
			start := p.whole.weights()
			for range test.updates {
				p.step(t)
				p.compare(t)
				if t.Failed() {
					return
				}
				if test.redraw {
					p.redraw()
				}
			}
			if d := distance(p.whole.weights(), start); d < 0.05 {
				t.Errorf("training has moved the weights by no more than %g", d)
			}
		})
	}
}

// damped are options with a lambda that keeps the steps so short that rounding errors do not grow.
func damped(opts ...Option) []Option { return append(opts, WithDamping(1)) }

// Whatever machine runs the chunks, the solver reads the same gradients.
func TestChunksOnAllMachines(t *testing.T) {
	course := func(machine string) []float64 {
		p := plainWorld(binary).newPairOn(t, machine, 3)
		for range 7 {
			p.stepInChunks(t)
			p.redraw()
		}
		return p.chunked.weights()
	}
	want := course("BindDualValues")
	for name := range machines {
		if got := course(name); !slices.Equal(got, want) {
			t.Errorf("%s: weights off by %g", name, distance(got, want))
		}
	}
}

// The chunks may come in tensors of their own, which the user gives to the graph and fills with other data afterwards.
func TestChunksInTheirOwnTensors(t *testing.T) {
	p, inPlace := wordWorld(true).newPair(t, 3), wordWorld(true).newPair(t, 3)
	for range 7 {
		inPlace.stepInChunks(t)
		var before []*tensor.Dense
		for i := range p.chunks {
			p.load(i)
			var now []*tensor.Dense
			for _, name := range p.world.cases {
				in := input(p.chunked.network, name)
				value := in.Value().(*tensor.Dense).Clone().(*tensor.Dense)
				check(t, gorgonia.Let(in, value))
				now = append(now, value)
			}
			check(t, p.chunked.run())
			if i == p.chunks-1 {
				for _, value := range before {
					value.Zero()
				}
			}
			before = append(before, now...)
			check(t, p.give(i))
		}
		checkTwins(t, p.chunked, inPlace.chunked)
	}
}

// Accumulate moves no weight, and zeroes the gradients, to which the next RunAll adds.
func TestAccumulateLeavesTheWeights(t *testing.T) {
	p := wordWorld(true).newPair(t, 4)
	for range 3 {
		before := p.chunked.weights()
		for i := range p.chunks - 1 {
			step := p.chunked.solver.Stats()
			check(t, p.take(t, i))
			if !slices.Equal(p.chunked.weights(), before) || p.chunked.solver.Stats() != step {
				t.Error("weights or figures have changed")
			}
			for _, n := range p.chunked.params {
				g, err := n.Grad()
				check(t, err)
				if slices.ContainsFunc(g.Data().([]float64), func(v float64) bool { return v != 0 }) {
					t.Errorf("%s has a gradient left", n.Name())
				}
			}
		}
		check(t, p.take(t, p.chunks-1))
		if slices.Equal(p.chunked.weights(), before) {
			t.Error("Step has moved nothing")
		}
	}
}

// The figures of an update are those of all its chunks.
func TestStatsOfChunks(t *testing.T) {
	p := plainWorld(binary).newPair(t, 3, WithMinStatisticsCases(5))
	for k := 1; k <= 4; k++ {
		var costs []float64
		for i := range p.chunks {
			check(t, p.take(t, i))
			costs = append(costs, p.chunked.cost.Value().Data().(float64))
		}
		p.whole.steps(t, 1)
		st := p.chunked.solver.Stats()
		checkNear(t, "cost", []float64{st.Cost}, []float64{sumOf(costs) / 3}, identity)
		if st.Step != k || st.Chunks != 3 || st.Cases != worldCases || st.StatisticsCases != 15 {
			t.Errorf("update %d: %+v", k, st)
		}
		if k == 1 {
			whole := p.whole.solver.Stats()
			checkNear(t, "cost and gradient", []float64{st.Cost, st.GradNorm}, []float64{whole.Cost, whole.GradNorm}, identity)
		}
	}
	p.chunked.steps(t, 1)
	if st := p.chunked.solver.Stats(); st.Chunks != 1 || st.Cases != 8 || st.StatisticsCases != 5 {
		t.Errorf("after the chunks, a Step by itself: %+v", st)
	}
}

// The diagonal of chunks is the mean of the chunks' own. It is not that of the batch in one RunAll, whose gradients are squared after they have been
// added up, and has the same expectation.
func TestDiagonalOfChunks(t *testing.T) {
	p := wordWorld(true).newPair(t, 3, WithStatisticsFraction(1))
	p.drawAlike()
	want := make([]float64, 2)
	for i := range p.chunks {
		alone := wordWorld(true).newPair(t, 3, WithStatisticsFraction(1))
		alone.drawAlike()
		alone.update, alone.first = 1, i*worldCases/3
		alone.load(i)
		alone.chunked.steps(t, 1)
		for k, v := range diagonalOf(t, alone.chunked.conductor(), "scale").mean.now {
			want[k] += v / 3
		}
	}
	p.stepInChunks(t)
	checkNear(t, "scale", diagonalOf(t, p.chunked.conductor(), "scale").mean.now, want, identity)
}

// A list that is not that of the chunks before is refused, and the update can go on with the right one as if nothing had been.
func TestListOfChunks(t *testing.T) {
	p, twin := wordWorld(true).newPair(t, 3), wordWorld(true).newPair(t, 3)
	all := p.chunked.params
	idle := p.chunked.sketch.random("idle", 2, 2)
	frozen := input(p.chunked.network, "frozen")
	for update := range 3 {
		twin.stepInChunks(t)
		for i := range p.chunks {
			p.load(i)
			check(t, p.chunked.run())
			if i > 0 {
				for _, wrong := range []gorgonia.Nodes{all[1:], all[:2], append(slices.Clone(all), frozen), append(slices.Clone(all), idle), nil} {
					for name, give := range map[string]func([]gorgonia.ValueGrad) error{"Accumulate": p.chunked.solver.Accumulate, "Step": p.chunked.solver.Step} {
						before := p.chunked.weights()
						err := give(gorgonia.NodesToValueGrads(wrong))
						var param *ParamError
						if !errors.As(err, &param) {
							t.Errorf("%s with %d of %d parameters: %v", name, len(wrong), len(all), err)
						}
						if !slices.Equal(before, p.chunked.weights()) {
							t.Fatal("the weights have changed")
						}
					}
				}
			}
			check(t, p.give(i))
		}
		checkTwins(t, p.chunked, twin.chunked)
		if update == 1 {
			all = slices.Clone(all)
			slices.Reverse(all) // the order does not matter
			p.chunked.params, twin.chunked.params = all, slices.Clone(twin.chunked.params)
			slices.Reverse(twin.chunked.params)
		}
	}
}

// A parameter that is known from updates before, but was not given for the first chunk, is none of the list either.
func TestLongerListOfChunks(t *testing.T) {
	p := plainWorld(binary).newPair(t, 3)
	p.stepInChunks(t)
	all := p.chunked.params
	p.chunked.params = all[2:]
	check(t, p.take(t, 0))
	for _, list := range []gorgonia.Nodes{all, all[1:]} {
		p.load(1)
		check(t, p.chunked.run())
		p.chunked.params = list
		var param *ParamError
		if err := p.give(1); !errors.As(err, &param) || param.Param != list[0].Name() {
			t.Errorf("error %v, want a ParamError of %s", err, list[0].Name())
		}
		p.chunked.zeroGradients()
	}
	p.chunked.params = all[2:]
	before := slices.Concat(data(all[0]), data(all[1]))
	check(t, p.take(t, 1))
	check(t, p.take(t, 2))
	if st := p.chunked.stats(); st.Step != 2 || st.Chunks != 3 {
		t.Errorf("%+v", st)
	}
	if !slices.Equal(before, slices.Concat(data(all[0]), data(all[1]))) {
		t.Error("weights that were not given have moved")
	}
}

// Every chunk has targets of its own, and cases of its own for the exact-Fisher products, that stay as they were chosen; another seed has others.
func TestChunksDrawForThemselves(t *testing.T) {
	draws := func(seed uint64) (targets [][]float64, rows [][]int) {
		p := plainWorld(binary).newPair(t, 3, WithSeed(seed), WithMinStatisticsCases(6), WithMinModelCases(3), WithModelFraction(0.1))
		c := p.chunked.conductor()
		draw := c.sampler.draw
		c.sampler.draw = func(o *output, rng *rand.Rand) {
			draw(o, rng)
			targets = append(targets, slices.Clone(o.y))
		}
		for range 2 {
			for i := range p.chunks {
				p.load(0) // the same cases in all of them
				check(t, p.chunked.run())
				check(t, p.give(i))
				if i < p.chunks-1 {
					rows = append(rows, slices.Clone(c.chunks[i].rows))
				}
				for k, chunk := range c.chunks {
					if chosen := rows[len(rows)-len(c.chunks)+k]; len(chosen) != 3 || !slices.Equal(chunk.rows, chosen) {
						t.Errorf("chunk %d has the cases %v, was given %v", k, chunk.rows, chosen)
					}
				}
			}
		}
		return targets, rows
	}
	targets, rows := draws(1)
	for i := range targets {
		for k := range i {
			if slices.Equal(targets[i], targets[k]) {
				t.Errorf("RunAlls %d and %d have the same targets", k+1, i+1)
			}
		}
	}
	if len(targets) != 6 || len(rows) != 4 {
		t.Fatalf("%d draws of targets, %d choices of cases", len(targets), len(rows))
	}
	sameTargets, sameRows := draws(1)
	otherTargets, _ := draws(2)
	for i := range targets {
		if !slices.Equal(targets[i], sameTargets[i]) || slices.Equal(targets[i], otherTargets[i]) {
			t.Errorf("RunAll %d: other targets with the same seed, or the same with another", i+1)
		}
	}
	for i := range rows {
		if !slices.Equal(rows[i], sameRows[i]) {
			t.Errorf("cases %v, with the same seed %v", rows[i], sameRows[i])
		}
	}
}

// The gradients of the first two RunAlls are checked, be they of one update or of two.
func TestGradientsOfChunksAreChecked(t *testing.T) {
	for _, bad := range []int{0, 1} {
		p := plainWorld(binary).newPair(t, 3)
		for i := range p.chunks {
			if i == bad {
				p.load(i)
				check(t, p.chunked.run())
				check(t, p.chunked.run()) // adds to the first
				if err := p.give(i); !errors.Is(err, ErrGradient) {
					t.Errorf("chunk %d, run twice: error %v, want %v", i, err, ErrGradient)
				}
				p.chunked.zeroGradients()
			}
			check(t, p.take(t, i))
		}
		if d := p.chunked.solver.Stats().Time.Checks; d > 0 {
			t.Errorf("the third RunAll has been checked, for %v", d)
		}
	}
}

// The list may be another one for each update.
func TestChunksOfOtherLists(t *testing.T) {
	for name, given := range map[string]func(update int) bool{ // whether all parameters are
		"a list that grows": func(update int) bool { return update > 3 }, "two lists in turn": func(update int) bool { return update%3 != 1 },
	} {
		t.Run(name, func(t *testing.T) {
			p := plainWorld(binary).newPair(t, 3, WithStatisticsFraction(1), WithDamping(0.5))
			p.drawAlike()
			whole, chunked := p.whole.params, p.chunked.params
			for update := range 9 {
				p.whole.params, p.chunked.params = whole, chunked
				if !given(update) {
					p.whole.params, p.chunked.params = whole[2:], chunked[2:]
				}
				p.step(t)
				p.whole.params, p.chunked.params = whole, chunked
				p.whole.zeroGradients()
				p.chunked.zeroGradients()
				p.compare(t)
			}
		})
	}
}

// A chunk that fails does not count, and those before it do: after the repair only it is run again, and the training goes on as that of a twin which
// has not seen it. Step 20 searches for gamma.
func TestChunkThatFails(t *testing.T) {
	nan := func(p *pair) {
		for i := range data(p.chunked.x) {
			data(p.chunked.x)[i] = math.NaN()
		}
	}
	for name, opts := range map[string][]Option{
		"default": {WithMinStatisticsCases(4), WithMinModelCases(4)}, "block-tridiagonal": {WithMinModelCases(4), WithBlockTridiagonal()},
		"learning rate": {WithLearningRate(0.1)},
	} {
		for _, done := range []int{0, 1, 19} {
			for _, bad := range []int{0, 1, 2} {
				for _, when := range []string{"before RunAll", "after RunAll"} {
					t.Run(fmt.Sprintf("%s, update %d, chunk %d, %s", name, done+1, bad, when), func(t *testing.T) {
						p, twin := plainWorld(binary).newPair(t, 3, opts...), plainWorld(binary).newPair(t, 3, opts...)
						for range done {
							p.stepInChunks(t)
							twin.stepInChunks(t)
						}
						for i := range p.chunks {
							if i == bad {
								p.load(i)
								if when == "before RunAll" {
									nan(p)
								}
								check(t, p.chunked.run())
								nan(p)
								for range 2 { // the second time is no better
									if err := p.give(i); !errors.Is(err, ErrNotFinite) {
										t.Fatalf("error %v, want %v", err, ErrNotFinite)
									}
								}
								p.chunked.zeroGradients()
							}
							check(t, p.take(t, i))
						}
						twin.stepInChunks(t)
						checkTwins(t, p.chunked, twin.chunked)
						for range 2 {
							p.stepInChunks(t)
							twin.stepInChunks(t)
							checkTwins(t, p.chunked, twin.chunked)
						}
					})
				}
			}
		}
	}
}

// Step keeps the chunks when it fails for all of them together. Here a factor can't be inverted.
func TestStepThatFailsKeepsTheChunks(t *testing.T) {
	for _, opt := range []Option{WithBlockTridiagonal(), WithL2Reg(0)} {
		p, twin := plainWorld(binary).newPair(t, 3, opt, WithDamping(0.1)), plainWorld(binary).newPair(t, 3, opt, WithDamping(0.1))
		for _, q := range []*pair{p, twin} {
			q.stepInChunks(t)
			q.stepInChunks(t)
		}
		check(t, p.take(t, 0))
		check(t, p.take(t, 1))
		bad := &layerBlocks(p.chunked.conductor())[1].factors.a.now[0]
		sound, before := *bad, p.chunked.weights()
		*bad = -1e30
		p.load(2)
		check(t, p.chunked.run())
		for range 2 {
			if err := p.give(2); !errors.Is(err, ErrNotPosDef) {
				t.Fatalf("error %v, want %v", err, ErrNotPosDef)
			}
		}
		if !slices.Equal(p.chunked.weights(), before) {
			t.Error("the weights have changed")
		}
		*bad = sound
		check(t, p.give(2)) // its gradients are still there
		twin.stepInChunks(t)
		checkTwins(t, p.chunked, twin.chunked)
	}
}

// Chunks of the same update with random masks: every point is evaluated with the same ones, so that a course is the same when it is repeated.
func TestChunksWithDropout(t *testing.T) {
	w := world{func(cases int) *network {
		s := newSketch(3)
		n := &network{sketch: s, x: s.random("x", cases, 3)}
		h := must(gorgonia.Dropout(tanh(n.layer(n.x, 0, 3, 6, true, false)), 0.5))
		n.out = n.layer(h, 1, 6, 2, true, false)
		n.cost, n.dist = squares(1)(s, n.out)
		return n
	}, []string{"x", "y"}}
	p := w.newPair(t, 3, WithStepRejection())
	for range 21 {
		p.stepInChunks(t)
		if st := p.chunked.stats(); st.Chunks != 3 || math.IsNaN(st.UpdateNorm+st.QuadModelChange) {
			t.Fatalf("%+v", st)
		}
	}
}
