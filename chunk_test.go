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

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// checkTwins demands that two loops are at the same weights, by the same step, in every bit.
func checkTwins(t *testing.T, got, want *Trainer) {
	t.Helper()
	if !slices.Equal(testnet.Weights(got.Params), testnet.Weights(want.Params)) {
		t.Fatalf("weights off by %g of their norm",
			testnet.Distance(testnet.Weights(got.Params), testnet.Weights(want.Params)))
	}
	if a, b := statsOf(got), statsOf(want); !SameStats(a, b) {
		t.Fatalf("step %+v, want %+v", a, b)
	}
}

// A world is all the cases that batches are made of, and how a model sees them.
type world struct {
	build func(cases int) *testnet.Net
	cases []string // the names of the inputs that hold one row for each case
}

// A pair is a loop that sees the whole world at once, and one that sees it in chunks.
type pair struct {
	world          world
	whole, chunked *Trainer
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
	p.whole = NewTrainer(t, w.build(worldCases), opts...)
	p.chunked = NewTrainerOn(t, testnet.Machines[machine], w.build(worldCases/chunks), opts...)
	p.chunked.Net.CopyParams(p.whole.Net)
	return p
}

// drawAlike lets the targets that are sampled for a case in an update be the same in both.
func (p *pair) drawAlike() {
	for _, l := range []*Trainer{p.whole, p.chunked} {
		trainingOf(l).sampler.draw = func(o *output, _ *rand.Rand) {
			for i := 0; i < len(o.z); i += o.cols {
				rng := rand.New(rand.NewPCG(uint64(p.update), uint64(p.first+i/o.cols)))
				o.Sample(o.y[i:i+o.cols], o.z[i:i+o.cols], o.cols, rng)
			}
		}
	}
}

// load fills the inputs of the loop in chunks with chunk i.
func (p *pair) load(i int) {
	size := worldCases / p.chunks
	for _, name := range p.world.cases {
		from, to := p.whole.Net.Input(name), p.chunked.Net.Input(name)
		switch all := from.Value().Data().(type) {
		case []float64:
			one := len(all) / worldCases
			copy(testnet.Data(to), all[i*size*one:(i+1)*size*one])
		case []int:
			one := len(all) / worldCases
			copy(to.Value().Data().([]int), all[i*size*one:(i+1)*size*one])
		}
	}
}

// redraw puts other data into the world: all inputs but the targets.
func (p *pair) redraw() {
	s := p.whole.Sketch
	for _, name := range p.world.cases {
		switch all := p.whole.Net.Input(name).Value().Data().(type) {
		case []float64:
			if !strings.HasPrefix(name, "y") {
				copy(all, s.Normals(len(all)))
			}
		case []int:
			s.Rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
	}
}

// step does one update of both.
func (p *pair) step(t *testing.T) {
	t.Helper()
	p.update++
	p.first = 0
	p.whole.Steps(t, 1)
	p.update--
	p.stepInChunks(t)
}

// stepInChunks does one update of the loop in chunks.
func (p *pair) stepInChunks(t *testing.T) {
	t.Helper()
	p.update++
	for i := range p.chunks {
		testnet.Check(t, p.take(t, i))
	}
}

// take runs chunk i, and gives it to Accumulate or, if it is the last, to Step.
func (p *pair) take(t *testing.T, i int) error {
	t.Helper()
	p.first = i * worldCases / p.chunks
	p.load(i)
	testnet.Check(t, p.chunked.Run())
	return p.give(i)
}

func (p *pair) give(i int) error {
	if i < p.chunks-1 {
		return p.chunked.Solver.Accumulate(p.chunked.ValueGrads())
	}
	return p.chunked.Solver.Step(p.chunked.ValueGrads())
}

// compare demands the same weights and the same figures.
func (p *pair) compare(t *testing.T) {
	t.Helper()
	testnet.Near(t, fmt.Sprint("weights after update ", p.update), testnet.Weights(p.chunked.Params),
		testnet.Weights(p.whole.Params), 1e-9)
	figures := func(l *Trainer) []float64 {
		st, c := l.Solver.Stats(), trainingOf(l).control
		e := c.noise.evidence
		return []float64{st.Momentum, st.LearningRate, st.Shrink, st.QuadModelChange, st.Rho, st.GradNorm,
			st.UpdateNorm, st.KL,
			st.Damping, st.Gamma, c.lambda, c.gamma, e.gain, e.bend}
	}
	got, want := figures(p.chunked), figures(p.whole)
	for i := range want {
		scale := math.Abs(want[i])
		if i == 0 {
			scale = max(scale, 1) // mu may be next to nothing
		}
		same := got[i] == want[i] || math.IsNaN(got[i]) && math.IsNaN(want[i])
		if !same && !(math.Abs(got[i]-want[i]) <= 1e-9*scale) {
			t.Errorf("update %d: figures %.12g, want %.12g", p.update, got, want)
			break
		}
	}
	a, b := p.chunked.Solver.Stats(), p.whole.Solver.Stats()
	if a.Rejected != b.Rejected || a.InverseUpdated != b.InverseUpdated || a.DampingRaised != b.DampingRaised ||
		a.Step != b.Step {
		t.Errorf("update %d: %+v, want %+v", p.update, a, b)
	}
	counts := func(st Stats) []int { return []int{st.Chunks, st.Cases, st.StatisticsCases} }
	if got, want := counts(a), []int{p.chunks, worldCases, worldCases}; !slices.Equal(got, want) {
		t.Errorf("update %d: chunks, cases and those of the statistics are %d, want %d", p.update, got, want)
	}
	if got, want := counts(b), []int{1, worldCases, worldCases}; !slices.Equal(got, want) {
		t.Errorf("update %d in one RunAll: chunks, cases and those of the statistics are %d, want %d",
			p.update, got, want)
	}
}

// plainWorld is a perceptron.
func plainWorld(loss testnet.Likelihood) world {
	return world{func(cases int) *testnet.Net {
		return testnet.MLP{Widths: []int{3, 5, 4, 2}, Cases: cases, Unit: gorgonia.Tanh, Loss: loss}.Build(1)
	}, []string{"x", "y"}}
}

// headsWorld has two outputs.
func headsWorld() world {
	w := plainWorld(testnet.TwoHeads)
	w.cases = append(w.cases, "y1")
	return w
}

// wordWorld looks up words, has a weight that is not being trained and an input that all cases
// share, scales its outputs, and adds a term of the user's own to the cost. Table and scale are
// trained if others is true.
func wordWorld(others bool) world {
	return world{func(cases int) *testnet.Net { return testnet.WordsAndOthers(cases, others) }, []string{"words", "y"}}
}

// A batch in chunks and the same batch in one RunAll make the same updates, through adaptations of
// lambda and a search for gamma, if the same targets are sampled, where all blocks are Kronecker's.
func TestChunksMakeTheSameUpdates(t *testing.T) {
	for _, test := range []struct {
		name    string
		world   world
		chunks  int
		redraw  bool // another batch for each update
		updates int
		opts    []Option
	}{
		{"lambda that is found", plainWorld(testnet.Binary), 3, true, 8, []Option{WithL2Reg(1e-3)}},
		{"given lambda", plainWorld(testnet.Binary), 3, false, 26, damped()},
		{"batches", plainWorld(testnet.Binary), 3, true, 41, damped()},
		{"batches in two chunks", plainWorld(testnet.Classes), 2, true, 26, damped()},
		{"two cases each", plainWorld(testnet.Squares(0.5)), worldCases / 2, false, 26, damped()},
		{"a case each", plainWorld(testnet.Squares(0.5)), worldCases, true, 26, damped()},
		{"block-tridiagonal", plainWorld(testnet.Binary), 3, true, 26, damped(WithBlockTridiagonal())},
		{"EKFAC", plainWorld(testnet.Binary), 3, true, 26, damped(WithEKFAC())},
		{"EKFAC at times", plainWorld(testnet.Classes), 3, true, 26, damped(WithEKFAC(), WithInverseUpdatePeriod(4))},
		{"exact damping", plainWorld(testnet.Binary), 3, false, 26, damped(WithExactDamping())},
		{"without momentum", plainWorld(testnet.Binary), 4, false, 26, damped(WithoutMomentum())},
		{"L2", plainWorld(testnet.Classes), 3, false, 26, damped(WithL2Reg(0.01))},
		{"paper's rules", plainWorld(testnet.Binary), 3, true, 26, damped(WithPaperRules(), WithL2Reg(1e-3))},
		{"step rejection", plainWorld(testnet.Binary), 3, true, 26, damped(WithStepRejection())},
		{"sum of the cases", plainWorld(testnet.AsSum(testnet.Binary)), 3, false, 26, damped(WithL2Reg(1e-3))},
		{"learning rate", plainWorld(testnet.Binary), 3, true, 26, []Option{WithLearningRate(0.1), WithL2Reg(1e-3)}},
		{"learning rate, block-tridiagonal", plainWorld(testnet.Classes), 3, false, 26,
			[]Option{WithLearningRate(0.1), WithBlockTridiagonal()}},
		{"two outputs", headsWorld(), 3, true, 26, damped()},
		{"words, weights that are frozen, inputs that do not change", wordWorld(false), 3, true, 26, damped()},
		{"the same, block-tridiagonal", wordWorld(false), 4, false, 26,
			damped(WithBlockTridiagonal(), WithL2Reg(1e-3))},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := test.world.newPair(t, test.chunks, append(test.opts, WithStatisticsFraction(1))...)
			p.drawAlike()
			start := testnet.Weights(p.whole.Params)
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
			if d := testnet.Distance(testnet.Weights(p.whole.Params), start); d < 0.05 {
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
		p := plainWorld(testnet.Binary).newPairOn(t, machine, 3)
		for range 7 {
			p.stepInChunks(t)
			p.redraw()
		}
		return testnet.Weights(p.chunked.Params)
	}
	want := course("BindDualValues")
	for name := range testnet.Machines {
		if got := course(name); !slices.Equal(got, want) {
			t.Errorf("%s: weights off by %g", name, testnet.Distance(got, want))
		}
	}
}

// The chunks may come in tensors of their own, which the user gives to the graph and fills with
// other data afterwards.
func TestChunksInTheirOwnTensors(t *testing.T) {
	p, inPlace := wordWorld(true).newPair(t, 3), wordWorld(true).newPair(t, 3)
	for range 7 {
		inPlace.stepInChunks(t)
		var before []*tensor.Dense
		for i := range p.chunks {
			p.load(i)
			var now []*tensor.Dense
			for _, name := range p.world.cases {
				in := p.chunked.Net.Input(name)
				value := in.Value().(*tensor.Dense).Clone().(*tensor.Dense)
				testnet.Check(t, gorgonia.Let(in, value))
				now = append(now, value)
			}
			testnet.Check(t, p.chunked.Run())
			if i == p.chunks-1 {
				for _, value := range before {
					value.Zero()
				}
			}
			before = append(before, now...)
			testnet.Check(t, p.give(i))
		}
		checkTwins(t, p.chunked, inPlace.chunked)
	}
}

// Accumulate moves no weight, and zeroes the gradients, to which the next RunAll adds.
func TestAccumulateLeavesTheWeights(t *testing.T) {
	p := wordWorld(true).newPair(t, 4)
	for range 3 {
		before := testnet.Weights(p.chunked.Params)
		for i := range p.chunks - 1 {
			step := p.chunked.Solver.Stats()
			testnet.Check(t, p.take(t, i))
			if !slices.Equal(testnet.Weights(p.chunked.Params), before) || !SameStats(p.chunked.Solver.Stats(), step) {
				t.Error("weights or figures have changed")
			}
			for _, n := range p.chunked.Params {
				g, err := n.Grad()
				testnet.Check(t, err)
				if slices.ContainsFunc(g.Data().([]float64), func(v float64) bool { return v != 0 }) {
					t.Errorf("%s has a gradient left", n.Name())
				}
			}
		}
		testnet.Check(t, p.take(t, p.chunks-1))
		if slices.Equal(testnet.Weights(p.chunked.Params), before) {
			t.Error("Step has moved nothing")
		}
	}
}

// The figures of an update are those of all its chunks.
func TestStatsOfChunks(t *testing.T) {
	p := plainWorld(testnet.Binary).newPair(t, 3, WithMinStatisticsCases(5))
	for k := 1; k <= 4; k++ {
		var costs []float64
		for i := range p.chunks {
			testnet.Check(t, p.take(t, i))
			costs = append(costs, p.chunked.Cost.Value().Data().(float64))
		}
		p.whole.Steps(t, 1)
		st := p.chunked.Solver.Stats()
		testnet.Near(t, "cost", []float64{st.Cost}, []float64{sumOf(costs) / 3}, identity)
		if st.Step != k || st.Chunks != 3 || st.Cases != worldCases || st.StatisticsCases != 15 {
			t.Errorf("update %d: %+v", k, st)
		}
		if k == 1 {
			whole := p.whole.Solver.Stats()
			testnet.Near(t, "cost and gradient", []float64{st.Cost, st.GradNorm},
				[]float64{whole.Cost, whole.GradNorm}, identity)
		}
	}
	p.chunked.Steps(t, 1)
	if st := p.chunked.Solver.Stats(); st.Chunks != 1 || st.Cases != 8 || st.StatisticsCases != 5 {
		t.Errorf("after the chunks, a Step by itself: %+v", st)
	}
}

// The diagonal of chunks is the mean of the chunks' own. It is not that of the batch in one RunAll,
// whose gradients are squared after they have been added up, and has the same expectation.
func TestDiagonalOfChunks(t *testing.T) {
	p := wordWorld(true).newPair(t, 3, WithStatisticsFraction(1))
	p.drawAlike()
	want := make([]float64, 2)
	for i := range p.chunks {
		alone := wordWorld(true).newPair(t, 3, WithStatisticsFraction(1))
		alone.drawAlike()
		alone.update, alone.first = 1, i*worldCases/3
		alone.load(i)
		alone.chunked.Steps(t, 1)
		for k, v := range scaleOf(t, alone) {
			want[k] += v / 3
		}
	}
	p.stepInChunks(t)
	testnet.Near(t, "scale", scaleOf(t, p), want, identity)
}

// scaleOf is the diagonal of the parameter "scale".
func scaleOf(t *testing.T, p *pair) []float64 {
	t.Helper()
	c := trainingOf(p.chunked)
	b := c.plan.blocksOf[parameterOf(t, c, "scale", "(1, 2)")][0]
	if _, ok := b.Block.(*curvature.Diagonal[float64]); !ok {
		t.Fatalf("the scale has a %T", b.Block)
	}
	return b.Copy().Moments[0]
}

// A list that is not that of the chunks before is refused, and the update can go on with the right
// one as if nothing had been.
func TestListOfChunks(t *testing.T) {
	p, twin := wordWorld(true).newPair(t, 3), wordWorld(true).newPair(t, 3)
	all := p.chunked.Params
	idle := p.chunked.Sketch.Random("idle", 2, 2)
	frozen := p.chunked.Net.Input("frozen")
	for update := range 3 {
		twin.stepInChunks(t)
		for i := range p.chunks {
			p.load(i)
			testnet.Check(t, p.chunked.Run())
			if i > 0 {
				with := func(n *gorgonia.Node) gorgonia.Nodes { return append(slices.Clone(all), n) }
				for _, wrong := range []gorgonia.Nodes{all[1:], all[:2], with(frozen), with(idle), nil} {
					for name, give := range map[string]func([]gorgonia.ValueGrad) error{
						"Accumulate": p.chunked.Solver.Accumulate, "Step": p.chunked.Solver.Step,
					} {
						before := testnet.Weights(p.chunked.Params)
						err := give(gorgonia.NodesToValueGrads(wrong))
						var param *ParamError
						if !errors.As(err, &param) {
							t.Errorf("%s with %d of %d parameters: %v", name, len(wrong), len(all), err)
						}
						if !slices.Equal(before, testnet.Weights(p.chunked.Params)) {
							t.Fatal("the weights have changed")
						}
					}
				}
			}
			testnet.Check(t, p.give(i))
		}
		checkTwins(t, p.chunked, twin.chunked)
		if update == 1 {
			all = slices.Clone(all)
			slices.Reverse(all) // the order does not matter
			p.chunked.Params, twin.chunked.Params = all, slices.Clone(twin.chunked.Params)
			slices.Reverse(twin.chunked.Params)
		}
	}
}

// A parameter that is known from updates before, but was not given for the first chunk, is none of
// the list either.
func TestLongerListOfChunks(t *testing.T) {
	p := plainWorld(testnet.Binary).newPair(t, 3)
	p.stepInChunks(t)
	all := p.chunked.Params
	p.chunked.Params = all[2:]
	testnet.Check(t, p.take(t, 0))
	for _, list := range []gorgonia.Nodes{all, all[1:]} {
		p.load(1)
		testnet.Check(t, p.chunked.Run())
		p.chunked.Params = list
		var param *ParamError
		if err := p.give(1); !errors.As(err, &param) || param.Param != list[0].Name() {
			t.Errorf("error %v, want a ParamError of %s", err, list[0].Name())
		}
		testnet.ZeroGradients(p.chunked.Params)
	}
	p.chunked.Params = all[2:]
	before := slices.Concat(testnet.Data(all[0]), testnet.Data(all[1]))
	testnet.Check(t, p.take(t, 1))
	testnet.Check(t, p.take(t, 2))
	if st := statsOf(p.chunked); st.Step != 2 || st.Chunks != 3 {
		t.Errorf("%+v", st)
	}
	if !slices.Equal(before, slices.Concat(testnet.Data(all[0]), testnet.Data(all[1]))) {
		t.Error("weights that were not given have moved")
	}
}

// Every chunk has targets of its own, and cases of its own for the exact-Fisher products, that stay
// as they were chosen; another seed has others.
func TestChunksDrawForThemselves(t *testing.T) {
	draws := func(seed uint64) (targets [][]float64, rows [][]int) {
		p := plainWorld(testnet.Binary).newPair(t, 3, WithSeed(seed), WithMinStatisticsCases(6), WithMinModelCases(3),
			WithModelFraction(0.1))
		c := trainingOf(p.chunked)
		draw := c.sampler.draw
		c.sampler.draw = func(o *output, rng *rand.Rand) {
			draw(o, rng)
			targets = append(targets, slices.Clone(o.y))
		}
		for range 2 {
			for i := range p.chunks {
				p.load(0) // the same cases in all of them
				testnet.Check(t, p.chunked.Run())
				testnet.Check(t, p.give(i))
				if i < p.chunks-1 {
					rows = append(rows, slices.Clone(c.chunks[i].rows))
				}
				for k, chunk := range c.chunks {
					if chosen := rows[len(rows)-len(c.chunks)+k]; len(chosen) != 3 ||
						!slices.Equal(chunk.rows, chosen) {
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

// The gradients of the first RunAlls are checked, be they of one update or of several.
func TestGradientsOfChunksAreChecked(t *testing.T) {
	for _, bad := range []int{0, 1, 2} {
		p := plainWorld(testnet.Binary).newPair(t, 3)
		for i := range p.chunks {
			if i == bad {
				p.load(i)
				testnet.Check(t, p.chunked.Run())
				testnet.Check(t, p.chunked.Run()) // adds to the first
				if err := p.give(i); !errors.Is(err, ErrGradient) {
					t.Errorf("chunk %d, run twice: error %v, want %v", i, err, ErrGradient)
				}
				testnet.ZeroGradients(p.chunked.Params)
			}
			testnet.Check(t, p.take(t, i))
		}
	}
}

// The list may be another one for each update.
func TestChunksOfOtherLists(t *testing.T) {
	for name, given := range map[string]func(update int) bool{ // whether all parameters are
		"a list that grows": func(update int) bool {
			return update > 3
		}, "two lists in turn": func(update int) bool { return update%3 != 1 },
	} {
		t.Run(name, func(t *testing.T) {
			p := plainWorld(testnet.Binary).newPair(t, 3, WithStatisticsFraction(1), WithDamping(0.5))
			p.drawAlike()
			whole, chunked := p.whole.Params, p.chunked.Params
			for update := range 9 {
				p.whole.Params, p.chunked.Params = whole, chunked
				if !given(update) {
					p.whole.Params, p.chunked.Params = whole[2:], chunked[2:]
				}
				p.step(t)
				p.whole.Params, p.chunked.Params = whole, chunked
				testnet.ZeroGradients(p.whole.Params)
				testnet.ZeroGradients(p.chunked.Params)
				p.compare(t)
			}
		})
	}
}

// A chunk that fails does not count, and those before it do: after the repair only it is run again,
// and the training goes on as that of a twin which has not seen it. Step 20 searches for gamma.
func TestChunkThatFails(t *testing.T) {
	nan := func(p *pair) {
		for i := range testnet.Data(p.chunked.X) {
			testnet.Data(p.chunked.X)[i] = math.NaN()
		}
	}
	for name, opts := range map[string][]Option{
		"default":           {WithMinStatisticsCases(4), WithMinModelCases(4)},
		"block-tridiagonal": {WithMinModelCases(4), WithBlockTridiagonal()},
		"learning rate":     {WithLearningRate(0.1)},
	} {
		for _, done := range []int{0, 1, 19} {
			for _, bad := range []int{0, 1, 2} {
				for _, when := range []string{"before RunAll", "after RunAll"} {
					t.Run(fmt.Sprintf("%s, update %d, chunk %d, %s", name, done+1, bad, when), func(t *testing.T) {
						w := plainWorld(testnet.Binary)
						p, twin := w.newPair(t, 3, opts...), w.newPair(t, 3, opts...)
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
								testnet.Check(t, p.chunked.Run())
								nan(p)
								for range 2 { // the second time is no better
									if err := p.give(i); !errors.Is(err, ErrNotFinite) {
										t.Fatalf("error %v, want %v", err, ErrNotFinite)
									}
								}
								testnet.ZeroGradients(p.chunked.Params)
							}
							testnet.Check(t, p.take(t, i))
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

// A wrongAverages block has a wrong number in all the averages that it computes.
type wrongAverages struct {
	curvature.Block[float64]
	moment int // whose first number it is
	value  float64
}

func (b wrongAverages) Average(ema float64) (*curvature.Averages[float64], error) {
	return b.spoil(b.Block.Average(ema))
}

func (b wrongAverages) Restart() (*curvature.Averages[float64], error) {
	return b.spoil(b.Block.Restart())
}

func (b wrongAverages) spoil(avg *curvature.Averages[float64], err error) (*curvature.Averages[float64], error) {
	if err == nil {
		avg.Moments[b.moment][0] = b.value
	}
	return avg, err
}

// Step keeps the chunks when it fails for all of them together. Here a factor can't be inverted.
func TestStepThatFailsKeepsTheChunks(t *testing.T) {
	for _, opt := range []Option{WithBlockTridiagonal(), WithL2Reg(0)} {
		w, damping := plainWorld(testnet.Binary), WithDamping(0.1)
		p, twin := w.newPair(t, 3, opt, damping), w.newPair(t, 3, opt, damping)
		for _, q := range []*pair{p, twin} {
			q.stepInChunks(t)
			q.stepInChunks(t)
		}
		testnet.Check(t, p.take(t, 0))
		testnet.Check(t, p.take(t, 1))
		layer := placedLayers(trainingOf(p.chunked))[1]
		sound, before := layer.block.Block, testnet.Weights(p.chunked.Params)
		layer.block.Block = wrongAverages{sound, 2 * layer.group, -1e30}
		p.load(2)
		testnet.Check(t, p.chunked.Run())
		for range 2 {
			if err := p.give(2); !errors.Is(err, ErrNotPosDef) {
				t.Fatalf("error %v, want %v", err, ErrNotPosDef)
			}
		}
		if !slices.Equal(testnet.Weights(p.chunked.Params), before) {
			t.Error("the weights have changed")
		}
		layer.block.Block = sound
		testnet.Check(t, p.give(2)) // its gradients are still there
		twin.stepInChunks(t)
		checkTwins(t, p.chunked, twin.chunked)
	}
}

// Chunks of the same update with random masks: every point is evaluated with the same ones, so that
// a course is the same when it is repeated.
func TestChunksWithDropout(t *testing.T) {
	w := world{func(cases int) *testnet.Net {
		s := testnet.NewSketch(3)
		n := &testnet.Net{Sketch: s, X: s.Random("x", cases, 3)}
		h := gorgonia.Must(gorgonia.Dropout(tanh(n.Layer(n.X, 0, 3, 6, true, false)), 0.5))
		n.Out = n.Layer(h, 1, 6, 2, true, false)
		n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
		return n
	}, []string{"x", "y"}}
	p := w.newPair(t, 3, WithStepRejection())
	for range 21 {
		p.stepInChunks(t)
		if st := statsOf(p.chunked); st.Chunks != 3 || math.IsNaN(st.UpdateNorm+st.QuadModelChange) {
			t.Fatalf("%+v", st)
		}
	}
}
