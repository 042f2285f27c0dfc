package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A sharded net is one that can be built for some of the cases of a batch.
type sharded struct {
	build func(cases int) *testnet.Net
	cases int
	opts  []Option
}

// perceptron is a net of two hidden layers.
func perceptron(loss testnet.Likelihood) func(cases int) *testnet.Net {
	return func(cases int) *testnet.Net {
		return testnet.MLP{Widths: []int{5, 4, 6, 3}, Cases: cases, Loss: loss, Unit: gorgonia.Tanh}.Build(3)
	}
}

// recurrent is a network of three time steps.
func recurrent(cases int) *testnet.Net {
	s := testnet.NewSketch(5)
	w, u, b, v := s.Random("w", 2, 3), s.Random("u", 3, 3), s.Random("b", 1, 3), s.Random("v", 3, 2)
	h := s.Random("h", cases, 3)
	for i := range 3 {
		h = testnet.Tanh(testnet.AddRow(testnet.Add(testnet.Mul(s.Random(fmt.Sprint("x", i), cases, 2), w),
			testnet.Mul(h, u)), b))
	}
	n := &testnet.Net{Sketch: s, Params: gorgonia.Nodes{w, u, b, v}}
	return n.Ends(testnet.Mul(h, v), testnet.Squares(1))
}

// dropping is a net with Dropout.
func dropping(cases int) *testnet.Net {
	n := testnet.NewNet(4)
	n.X = n.Random("x", cases, 3)
	h := gorgonia.Must(gorgonia.Dropout(testnet.Tanh(n.Dense("0", n.X, 6)), 0.4))
	return n.Ends(n.Dense("1", h, 2), testnet.Squares(1))
}

// masked is a net whose last cases have the weight 0.
func masked(cases int) *testnet.Net {
	n := testnet.NewNet(4)
	n.X = n.Random("x", cases, 3)
	n.Out = n.Dense("1", testnet.Tanh(n.Dense("0", n.X, 4)), 1)
	mask := make([]float64, cases)
	for i := range mask[:cases-cases/4] {
		mask[i] = 1
	}
	squares := testnet.Square(testnet.Sub(n.Out, n.Random("y", cases, 1)))
	n.Cost = testnet.Mean(testnet.Hadamard(n.Leaf("mask", mask, cases, 1), squares))
	n.Loss = testnet.Gaussian(n.Out, 1)
	return n
}

// gains scales and shifts the outputs of a layer, and multiplies the output.
func gains(cases int) *testnet.Net {
	n := testnet.NewNet(4)
	n.X = n.Random("x", cases, 3)
	h := testnet.Tanh(n.Dense("0", n.X, 4))
	h = testnet.AddRow(testnet.TimesRow(h, n.Param("scale", 1, 4)), n.Param("shift", 1, 4))
	out := n.Dense("1", testnet.Tanh(h), 2)
	return n.Ends(testnet.TimesRow(out, testnet.Tanh(n.Param("slope", 1, 2))), testnet.Squares(1))
}

// part has a part of the cases in the statistics and in the quadratic model; few has so few that
// some ranks have none, and so has byRate.
var (
	part = []Option{WithMinStatisticsCases(9), WithMinModelCases(20)}
	few  = []Option{WithMinStatisticsCases(5), WithMinModelCases(5), WithStatisticsFraction(0.1),
		WithModelFraction(0.1)}
	byRate = []Option{WithMinStatisticsCases(5), WithStatisticsFraction(0.1), WithLearningRate(0.02)}
)

// shardedNets are nets with all kinds of blocks, losses and rules.
var shardedNets = map[string]sharded{
	"default":     {perceptron(testnet.CrossEntropy), 12, nil},
	"gaussian":    {perceptron(testnet.Squares(0.3)), 20, nil},
	"two outputs": {perceptron(testnet.TwoHeads), 12, nil},
	"paper":       {perceptron(testnet.SquaredError), 12, []Option{WithPaperRules()}},
	"rate":        {perceptron(testnet.Binary), 12, []Option{WithLearningRate(0.05)}},
	"inner": {perceptron(testnet.Binary), 12, []Option{WithLearningRate(0.05),
		WithInner(gorgonia.NewVanillaSolver(gorgonia.WithLearnRate(0.05)))}},
	"L2":         {perceptron(testnet.Binary), 12, []Option{WithL2Reg(1e-3), WithDamping(1)}},
	"averaging":  {perceptron(testnet.Binary), 12, []Option{WithIterateAveraging(0.9, 3), WithStepRejection()}},
	"rare":       {perceptron(testnet.Binary), 12, []Option{WithInverseUpdatePeriod(7)}},
	"background": {perceptron(testnet.Binary), 12, []Option{WithInverseUpdatePeriod(5), WithBackgroundInverses(4)}},
	"tridiagonal": {perceptron(testnet.Binary), 12, []Option{WithBlockTridiagonal(), WithInverseUpdatePeriod(6),
		WithBackgroundInverses(5)}},
	"diagonal factors": {perceptron(testnet.Binary), 12, []Option{WithMaxDim(2)}},
	"convolution":      {testnet.Convolution, 10, nil},
	"uncorrelated":     {testnet.Convolution, 10, []Option{WithSpatiallyUncorrelated()}},
	"positions":        {func(cases int) *testnet.Net { return testnet.Sequence(cases, gorgonia.Tanh) }, 10, nil},
	"reduce": {func(cases int) *testnet.Net { return testnet.Sequence(cases, nil) }, 10,
		[]Option{WithWeightSharing(Reduce)}},
	"tied": {testnet.TiedLayers, 10, nil},
	"words": {func(cases int) *testnet.Net {
		return testnet.Lookup(30, false, testnet.WordsOf(10, 30)[:cases])
	}, 10, nil},
	"independent": {recurrent, 10, nil},
	"symmetric":   {recurrent, 10, []Option{WithTimeCorrelation(TimeSymmetric)}},
	"stationary":  {recurrent, 10, []Option{WithTimeCorrelation(TimeStationary)}},
	"elementwise": {gains, 10, nil},
	"diagonals":   {gains, 10, []Option{WithFullBlocks(1)}},
	"terms":       {func(cases int) *testnet.Net { return testnet.WordsAndOthers(cases, true) }, 10, nil},
	"columns":     {testnet.Columns, 10, nil},
	"parts":       {testnet.Parts, 10, nil},
	"wide scales": {testnet.WideScales, 10, nil},
	"empirical":   {gains, 10, []Option{WithFisherEstimate(EmpiricalFisher)}},
	"exact":       {perceptron(testnet.TwoHeads), 10, []Option{WithFisherEstimate(ExactFisher)}},
	"propagation": {perceptron(testnet.CrossEntropy), 10, []Option{WithFisherEstimate(CurvaturePropagation),
		WithFisherSamples(2)}},
	"EKFAC": {perceptron(testnet.CrossEntropy), 12, []Option{WithEKFAC(), WithInverseUpdatePeriod(4)}},
	"EKFAC in the background": {testnet.Convolution, 60, []Option{WithEKFAC(), WithInverseUpdatePeriod(6),
		WithBackgroundInverses(5)}},
	"exact damping": {perceptron(testnet.CrossEntropy), 12, []Option{WithExactDamping(), WithLearningRate(0.05)}},
	"groups": {perceptron(testnet.Binary), 16, []Option{WithGroup("?0", GroupLambda(3), GroupRate(2), GroupL2(0)),
		WithL2Reg(1e-3), WithGroup("w1", GroupTreatment(Diagonal)), WithIterateAveraging(0.9, 3),
		WithGroup("?2", GroupSolver(gorgonia.NewVanillaSolver(gorgonia.WithLearnRate(0.05))))}},
	"frozen": {perceptron(testnet.Squares(0.3)), 20, []Option{WithGroup("?1", GroupFrozen()), WithWeightDecay(1e-3),
		WithGroup("?2", GroupDecay(0.01))}},
	"a part":         {perceptron(testnet.CrossEntropy), 40, part},
	"masked":         {masked, 12, nil},
	"masked, a part": {masked, 12, part[:1]},
	"few":            {perceptron(testnet.TwoHeads), 12, few},
	"few images":     {testnet.Convolution, 10, few},
	"few words": {func(cases int) *testnet.Net {
		return testnet.Lookup(30, false, testnet.WordsOf(10, 30)[:cases])
	}, 10, few},
	"few times":       {recurrent, 10, append([]Option{WithTimeCorrelation(TimeStationary)}, byRate...)},
	"few elementwise": {gains, 10, byRate},
	"samples":         {perceptron(testnet.CrossEntropy), 10, []Option{WithFisherSamples(3)}},
}

// shardOf builds the net for the cases from, to of a batch, with the numbers that these have in the
// net of all cases.
func (s sharded) shardOf(t testing.TB, from, to int) *testnet.Net {
	whole, part := s.build(s.cases), s.build(to-from)
	part.CopyParams(whole)
	for _, n := range part.Graph.Inputs() {
		in := whole.Input(n.Name())
		d, ok := in.Value().(*tensor.Dense)
		if n.Op() != nil || slices.Contains(part.Params, n) || !ok {
			continue
		}
		var at []tensor.Slice
		for axis, size := range in.Shape() {
			if size == n.Shape()[axis] {
				at = append(at, nil)
			} else {
				per := size / s.cases
				at = append(at, gorgonia.S(from*per, to*per))
			}
		}
		v, err := d.Slice(at...)
		testnet.Check(t, err)
		own := v.Materialize().(*tensor.Dense)
		testnet.Check(t, own.Reshape(n.Shape()...))
		testnet.Check(t, gorgonia.Let(n, own))
	}
	return part
}

// A member is a rank of a test: its trainer, and what it is a part of.
type member struct {
	Communicator
	*Trainer
}

// run runs a program on so many ranks, each with its part of the cases.
func (s sharded) run(t *testing.T, ranks int, program func(r member) error) {
	t.Helper()
	err := InProcess(ranks, func(c Communicator) error { return program(s.member(t, c)) })
	if err != nil {
		t.Fatal(err)
	}
}

// member makes a rank, with further options.
func (s sharded) member(t *testing.T, c Communicator, opts ...Option) member {
	t.Helper()
	from, to := c.Rank()*s.cases/c.Size(), (c.Rank()+1)*s.cases/c.Size()
	opts = slices.Concat([]Option{WithCommunicator(c)}, s.opts, opts)
	return member{c, NewTrainer(t, s.shardOf(t, from, to), opts...)}
}

// steps does n iterations.
func (r member) steps(n int) error {
	for range n {
		if err := r.Try(); err != nil {
			return err
		}
	}
	return nil
}

// train trains so many ranks, and returns the weights of each.
func (s sharded) train(t *testing.T, ranks, steps int) [][]float64 {
	t.Helper()
	all := make([][]float64, ranks)
	s.run(t, ranks, func(r member) error {
		err := r.steps(steps)
		all[r.Rank()] = weightsOf(r.Net)
		return err
	})
	return all
}

// Ranks with parts of a batch make the steps of one process with the whole batch, and have the same
// bits among themselves.
func TestRanksAreOneSolver(t *testing.T) {
	for name, net := range shardedNets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := net.train(t, 1, 30)[0]
			for _, ranks := range []int{2, 3} {
				got := net.train(t, ranks, 30)
				for rank, w := range got {
					testnet.SameBits(t, fmt.Sprintf("rank %d of %d", rank, ranks), w, got[0])
				}
				testnet.Near(t, fmt.Sprintf("%d ranks", ranks), got[0], want, 1e-9)
			}
		})
	}
}

// A solver that steps a group on each rank has the same gradients on all, and so goes the same way.
// If it fails on one rank, the step fails on all.
func TestRanksWithASolverOfAGroup(t *testing.T) {
	net := shardedNets["default"]
	train := func(ranks int) [][]float64 {
		all := make([][]float64, ranks)
		testnet.Check(t, InProcess(ranks, func(c Communicator) error {
			adam := &faulty{Solver: gorgonia.NewAdamSolver(gorgonia.WithLearnRate(0.03))}
			r := net.member(t, c, WithGroup("?1", GroupSolver(adam)))
			if err := r.steps(10); err != nil {
				return err
			}
			before := weightsOf(r.Net)
			if r.Rank() == ranks-1 {
				adam.err = ErrStale
			}
			var at *RankError
			if err := r.Try(); !errors.As(err, &at) || at.Rank != ranks-1 || !errors.Is(err, ErrStale) {
				t.Errorf("rank %d: %v", r.Rank(), err)
			}
			testnet.SameBits(t, "after a failure", weightsOf(r.Net), before)
			all[c.Rank()] = before
			return nil
		}))
		return all
	}
	want := train(1)[0]
	for rank, got := range train(3) {
		testnet.Near(t, fmt.Sprintf("rank %d", rank), got, want, 1e-9)
	}
}

// faulty is a solver that may fail.
type faulty struct {
	gorgonia.Solver
	err error
}

func (f *faulty) Step(model []gorgonia.ValueGrad) error {
	if f.err != nil {
		return f.err
	}
	return f.Solver.Step(model)
}

// Outputs that are declared by the cost have the same curvature on any number of ranks.
func TestRanksByTheCost(t *testing.T) {
	root := func(x *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.Sqrt(testnet.Add(x, gorgonia.NewConstant(1.0))))
	}
	sum := func(x *gorgonia.Node) *gorgonia.Node { return gorgonia.Must(gorgonia.Sum(x, 1)) }
	losses := map[string]func(squares *gorgonia.Node) *gorgonia.Node{
		"by entry": func(squares *gorgonia.Node) *gorgonia.Node { return sum(root(squares)) },
		"by case":  func(squares *gorgonia.Node) *gorgonia.Node { return root(sum(squares)) },
	}
	for name, loss := range losses {
		build := func(cases int) *testnet.Net {
			n := testnet.NewNet(4)
			n.X = n.Random("x", cases, 3)
			n.Out = n.Dense("1", testnet.Tanh(n.Dense("0", n.X, 5)), 2)
			n.Cost = testnet.Mean(loss(testnet.Square(testnet.Sub(n.Out, n.Random("y", cases, 2)))))
			return n
		}
		for _, estimate := range []FisherEstimate{SampledFisher, CurvaturePropagation, EmpiricalFisher} {
			train := func(ranks int) [][]float64 {
				all := make([][]float64, ranks)
				testnet.Check(t, InProcess(ranks, func(c Communicator) error {
					from, to := c.Rank()*14/ranks, (c.Rank()+1)*14/ranks
					n := sharded{build, 14, nil}.shardOf(t, from, to)
					run := testnet.Machines["BindDualValues"](t, n)
					s, err := NewSolver(n.Cost, GaussNewton(n.Out), WithCommunicator(c), WithFisherEstimate(estimate))
					testnet.Check(t, err)
					err = member{c, &Trainer{Net: n, Run: run, Solver: s}}.steps(30)
					all[c.Rank()] = weightsOf(n)
					return err
				}))
				return all
			}
			want := train(1)[0]
			for _, ranks := range []int{2, 3} {
				got := train(ranks)
				for _, w := range got {
					testnet.SameBits(t, name, w, got[0])
				}
				testnet.Near(t, fmt.Sprintf("%s, %d ranks", name, ranks), got[0], want, 1e-9)
			}
		}
	}
}

// In float32 too the ranks have the same bits, after many updates.
func TestRanksKeepTheSameBits(t *testing.T) {
	const ranks = 3
	var all [ranks][]float64
	err := InProcess(ranks, func(c Communicator) error {
		of := func(cases int) *testnet.Net {
			shape := testnet.Shape{Cases: cases, Widths: []int{5, 7, 6, 4}}
			return testnet.NewMLP[float32](1, shape, testnet.CrossEntropy)
		}
		net := of(5 + c.Rank()) // with numbers of its own
		for i, p := range of(5).Params {
			testnet.Check(t, gorgonia.Let(net.Params[i], p.Value()))
		}
		tr := NewTrainer(t, net, WithCommunicator(c))
		err := member{c, tr}.steps(200)
		all[c.Rank()] = weightsOf(tr.Net)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range all {
		testnet.SameBits(t, "weights", w, all[0])
	}
}

// spoiling are ways for one rank to fail in a step, and what that is on all ranks.
var spoiling = map[string]struct {
	spoil func(r member) (back func())
	is    error
}{
	"a NaN in its shard": {func(r member) func() {
		x := testnet.Data(r.X)
		v := x[1]
		x[1] = math.NaN()
		return func() { x[1] = v }
	}, ErrNotFinite},
	"weights that are not finite": {func(r member) func() {
		w := testnet.Data(r.Params[0])
		v := w[2]
		w[2] = math.Inf(1)
		return func() { w[2] = v }
	}, ErrNotFinite},
	"no gradient": {func(r member) func() {
		run := r.Run
		r.Trainer.Run = func() error {
			err := run()
			ZeroGradients(r.ValueGrads())
			return err
		}
		return func() { r.Trainer.Run = run }
	}, ErrGradient},
	"a panic": {func(r member) func() {
		draw := trainingOf(r.Trainer).sampler.draw
		trainingOf(r.Trainer).sampler.draw = func(*output, *rand.Rand) { panic(ErrShape) }
		return func() { trainingOf(r.Trainer).sampler.draw = draw }
	}, ErrShape},
}

// A step that fails on one rank fails on all, with an error that names it and its cause, and has
// changed nothing anywhere: the training goes on as if it had not been.
func TestRanksFailTogether(t *testing.T) {
	net := shardedNets["default"]
	const ranks = 3
	want := net.train(t, ranks, 12)
	for name, of := range spoiling {
		for failing := range ranks {
			net.run(t, ranks, func(r member) error {
				if err := r.steps(2); err != nil {
					return err
				}
				for range 5 {
					back := func() {}
					if r.Rank() == failing {
						back = of.spoil(r)
					}
					before := weightsOf(r.Net)
					err := r.Try()
					var at *RankError
					if !errors.As(err, &at) || at.Rank != failing || !errors.Is(err, of.is) ||
						!strings.Contains(err.Error(), of.is.Error()) {
						t.Errorf("%s on rank %d: rank %d has %v", name, failing, r.Rank(), err)
					}
					if math.IsInf(before[2], 0) {
						before[2] = weightsOf(r.Net)[2]
					}
					testnet.SameBits(t, name, weightsOf(r.Net), before)
					back()
					ZeroGradients(r.ValueGrads())
					if err := r.steps(2); err != nil {
						return err
					}
				}
				testnet.SameBits(t, name, weightsOf(r.Net), want[r.Rank()])
				return nil
			})
		}
	}
}

// A batch that one rank has to leave out is left out by all.
func TestRanksSkipTogether(t *testing.T) {
	net := shardedNets["default"]
	want := net.train(t, 2, 6)
	net.opts = append(net.opts, WithSkipNotFinite(1))
	net.run(t, 2, func(r member) error {
		if err := r.steps(3); err != nil {
			return err
		}
		x := testnet.Data(r.X)
		v := x[0]
		if r.Rank() == 1 {
			x[0] = math.NaN()
		}
		if err := r.Try(); err != nil {
			return err
		}
		if st := r.Solver.Stats(); !st.Skipped || st.SkippedBatches != 1 {
			t.Errorf("rank %d has not left the batch out", r.Rank())
		}
		if err := r.Try(); !errors.Is(err, ErrNotFinite) {
			t.Errorf("rank %d: %v for the second in a row", r.Rank(), err)
		}
		ZeroGradients(r.ValueGrads())
		x[0] = v
		err := r.steps(3)
		testnet.SameBits(t, "weights", weightsOf(r.Net), want[0])
		return err
	})
}

// What has to be the same on all ranks is compared at the first step, and the error lists what is
// not.
func TestRanksThatDiffer(t *testing.T) {
	build := func(widths ...int) *testnet.Net {
		return testnet.MLP{Widths: widths, Cases: 4, Loss: testnet.Binary}.Build(1)
	}
	type differing struct {
		net  *testnet.Net
		opts []Option
		is   error
		say  []string
	}
	for name, of := range map[string]func() differing{
		"settings": func() differing {
			return differing{build(3, 4, 2), []Option{WithMaxDim(3), WithSeed(7)}, ErrOtherRank,
				[]string{"WithMaxDim: 4096 there, 3 here", "WithSeed: 1 there, 7 here"}}
		},
		"shapes": func() differing {
			return differing{build(3, 5, 2), nil, ErrOtherRank, []string{`no parameter "w0" of shape (3, 4)`,
				`lacks parameter "w0" of shape (3, 5)`}}
		},
		"losses": func() differing {
			return differing{testnet.MLP{Widths: []int{3, 4, 2}, Cases: 4, Loss: testnet.Squares(1)}.Build(1), nil,
				ErrOtherRank, []string{"Bernoulli there, Gaussian here"}}
		},
		"dtype": func() differing {
			s := testnet.Shape{Cases: 4, Widths: []int{3, 4, 2}}
			return differing{testnet.NewMLP[float32](1, s, testnet.Binary), nil,
				ErrOtherRank, []string{"dtype: float64 there, float32 here"}}
		},
		"lists": func() differing {
			n := build(3, 4, 2)
			n.Freeze("b0")
			return differing{n, nil, ErrOtherRank, []string{`no parameter "b0"`}}
		},
		"weights": func() differing {
			n := build(3, 4, 2)
			testnet.Data(n.Params[2])[0]++
			return differing{n, []Option{WithSameWeights()}, ErrOtherWeights, []string{`"w1"`}}
		},
	} {
		err := InProcess(3, func(c Communicator) error {
			d := differing{build(3, 4, 2), nil, nil, nil}
			if name == "weights" {
				d.opts = []Option{WithSameWeights()}
			}
			if c.Rank() == 2 {
				d = of()
			}
			tr := NewTrainer(t, d.net, append(d.opts, WithCommunicator(c))...)
			before, err := weightsOf(tr.Net), tr.Try()
			testnet.SameBits(t, name, weightsOf(tr.Net), before)
			d = of()
			var at *RankError
			if !errors.As(err, &at) || at.Rank != 2 || !errors.Is(err, d.is) {
				t.Errorf("%s: rank %d has %v", name, c.Rank(), err)
				return nil
			}
			for _, s := range d.say {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%s: %v does not say %q", name, err, s)
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Ranks whose weights are others start with those of rank 0, on any VM and in chunks too, as if all
// had had them. Where the first step fails, they have their own again.
func TestRanksTakeOverWeights(t *testing.T) {
	nets := map[string]sharded{"default": shardedNets["default"], "frozen": shardedNets["frozen"],
		"dropout": {dropping, 12, nil}}
	for name, net := range nets {
		for _, vm := range []string{"BindDualValues", "solver's VM", "chunks"} {
			run := func(spoil bool) (all [2][]float64) {
				net.run(t, 2, func(r member) error {
					if vm == "solver's VM" {
						own, err := r.Solver.VM()
						testnet.Check(t, err)
						r.Run = own.RunAll
					}
					if r.Rank() == 1 && spoil {
						for i, p := range r.Params {
							testnet.Data(p)[0] += 1 + float64(i)
						}
					}
					before, back := weightsOf(r.Net), func() {}
					if r.Rank() == 0 {
						back = spoiling["a panic"].spoil(r)
					}
					if err := r.Try(); !errors.Is(err, ErrShape) {
						t.Errorf("%s, %s, rank %d: %v", name, vm, r.Rank(), err)
					}
					testnet.SameBits(t, name+", after a failure, "+vm, weightsOf(r.Net), before)
					back()
					ZeroGradients(r.ValueGrads())
					if vm == "chunks" {
						testnet.Check(t, r.Run())
						testnet.Check(t, r.Solver.Accumulate(r.ValueGrads()))
					}
					err := r.steps(5)
					all[r.Rank()] = weightsOf(r.Net)
					return err
				})
				return all
			}
			got, want := run(true), run(false)
			testnet.SameBits(t, name+", "+vm, got[1], got[0])
			if name != "dropout" || vm == "solver's VM" { // Gorgonia's masks are others each time
				testnet.Near(t, name+", "+vm, got[0], want[0], 1e-9)
			}
		}
	}
}

// Ranks that make different calls, or none any more, are told so. Nobody waits for ever.
func TestRanksOutOfStep(t *testing.T) {
	net := shardedNets["default"]
	net.run(t, 2, func(r member) error {
		if err := r.steps(2); err != nil {
			return err
		}
		testnet.Check(t, r.Run())
		call := r.Solver.Step
		if r.Rank() == 1 {
			call = r.Solver.Accumulate
		}
		err := call(r.ValueGrads())
		if !errors.Is(err, ErrOutOfStep) || !strings.Contains(err.Error(), "Accumulate") {
			t.Errorf("rank %d: %v", r.Rank(), err)
		}
		if r.Rank() == 1 {
			return nil // and leaves
		}
		for range 2 {
			var at *RankError
			err := r.Solver.Step(r.ValueGrads())
			if !errors.Is(err, ErrRankLeft) || !errors.As(err, &at) || at.Rank != 1 {
				t.Error(err)
			}
		}
		return nil
	})
}

// Chunks that all ranks accumulate are those of one process.
func TestRanksAccumulate(t *testing.T) {
	for name, net := range shardedNets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := net.inChunks(t, 1)
			got := net.inChunks(t, 3)
			for _, w := range got {
				testnet.SameBits(t, "weights", w, got[0])
			}
			testnet.Near(t, "weights", got[0], want[0], 1e-9)
		})
	}
}

// inChunks trains so many ranks by updates of three chunks, of inputs that differ.
func (s sharded) inChunks(t *testing.T, ranks int) [][]float64 {
	t.Helper()
	all := make([][]float64, ranks)
	s.run(t, ranks, func(r member) error {
		for range 8 {
			for chunk := range 3 {
				r.scaleInputs([]float64{-1.25, 0.8, -1}[chunk])
				if err := r.Run(); err != nil {
					return err
				}
				call := r.Solver.Accumulate
				if chunk == 2 {
					call = r.Solver.Step
				}
				if err := call(r.ValueGrads()); err != nil {
					return err
				}
			}
		}
		all[r.Rank()] = weightsOf(r.Net)
		return nil
	})
	return all
}

// scaleInputs multiplies the inputs x.
func (r member) scaleInputs(factor float64) {
	for _, n := range r.Graph.Inputs() {
		if x, ok := n.Value().Data().([]float64); ok && strings.HasPrefix(n.Name(), "x") {
			for i := range x {
				x[i] *= factor
			}
		}
	}
}

// What rank 0 saves, any number of ranks goes on from, and so does a solver that is alone.
func TestRanksSaveAndLoad(t *testing.T) {
	for name, net := range shardedNets {
		if name == "inner" || name == "two outputs" || name == "paper" { // to have a few less
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const before, after = 8, 9
			want := net.train(t, 1, before+after)[0]
			for _, ranks := range [][2]int{{2, 3}, {3, 1}, {1, 2}, {2, 2}} {
				path := filepath.Join(t.TempDir(), "state")
				all, straight := make([][]float64, ranks[1]), make([][]float64, ranks[0])
				net.run(t, ranks[0], func(r member) error {
					if err := errors.Join(r.steps(before), r.Solver.SaveFile(path), r.steps(after)); err != nil {
						return err
					}
					straight[r.Rank()] = weightsOf(r.Net)
					return nil
				})
				net.run(t, ranks[1], func(r member) error {
					if r.Rank() == 1 {
						spoilWeights(r.Params[0])
					}
					if err := errors.Join(r.Solver.LoadFile(path), r.steps(after)); err != nil {
						return err
					}
					all[r.Rank()] = weightsOf(r.Net)
					return nil
				})
				testnet.Near(t, fmt.Sprint(ranks), all[0], want, 1e-9)
				if ranks[0] == ranks[1] {
					testnet.SameBits(t, fmt.Sprint(ranks), all[0], straight[0])
				}
				for _, w := range all {
					testnet.SameBits(t, fmt.Sprint(ranks), w, all[0])
				}
			}
		})
	}
}

// A file that can't be written or read on rank 0 is an error on all ranks, and the training goes on
// without it.
func TestRanksSaveFails(t *testing.T) {
	net := shardedNets["default"]
	nowhere := filepath.Join(t.TempDir(), "no such folder", "state")
	want := net.train(t, 2, 6)
	net.run(t, 2, func(r member) error {
		if err := r.steps(3); err != nil {
			return err
		}
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0) // a disk with no room
		if err != nil {
			full, _ = os.Open(os.DevNull) // on other systems: a file that can't be written
		}
		defer full.Close()
		for _, call := range []func() error{
			func() error { return r.Solver.SaveFile(nowhere) },
			func() error { return r.Solver.Save(full) },
			func() error { return r.Solver.LoadFile(nowhere) },
			func() error { return r.Solver.Load(strings.NewReader("no state")) },
		} {
			var at *RankError
			if err := call(); !errors.As(err, &at) || at.Rank != 0 {
				t.Errorf("rank %d: %v", r.Rank(), err)
			}
		}
		err = r.steps(3)
		testnet.Near(t, "weights", weightsOf(r.Net), want[0], 1e-12)
		return err
	})
}

// Ranks go on with graphs that are built again, of other numbers of cases, and on the solver's VM.
func TestRanksAttach(t *testing.T) {
	net := shardedNets["gaussian"]
	train := func(ranks int, onVM bool) [][]float64 {
		all := make([][]float64, ranks)
		net.run(t, ranks, func(r member) error {
			for _, cases := range []int{20, 12, 20} {
				part := net
				part.cases = cases
				n := part.shardOf(t, r.Rank()*cases/ranks, (r.Rank()+1)*cases/ranks)
				r.Share(t, n)
				testnet.Check(t, r.Solver.Attach(n.Cost, Declared(n)))
				r.Net, r.Run = n, testnet.Machines["BindDualValues"](t, n)
				if onVM {
					vm, err := r.Solver.VM()
					testnet.Check(t, err)
					r.Run = vm.RunAll
				}
				if err := r.steps(8); err != nil {
					return err
				}
			}
			all[r.Rank()] = weightsOf(r.Net)
			return nil
		})
		return all
	}
	for _, onVM := range []bool{false, true} {
		want := train(1, onVM)[0]
		got := train(3, onVM)
		for _, w := range got {
			testnet.SameBits(t, "weights", w, got[0])
		}
		testnet.Near(t, fmt.Sprint("on the solver's VM: ", onVM), got[0], want, 1e-9)
	}
}
