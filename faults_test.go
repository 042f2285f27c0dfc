package kfac

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"math"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A fuse is an op that returns its operand, and fails at the given call from now on, if that is not
// zero. It is in the way of gradients too if it is twofold.
type fuse struct {
	testnet.Cube
	*fuseState
}

type fuseState struct {
	left, calls int
	panics      any  // what it panics with in place of returning an error
	symbolic    bool // SymDiff panics
	twofold     bool
}

var errFuse = errors.New("the fuse has blown")

func (f fuse) DiffWRT(int) []bool { return []bool{true} }
func (f fuse) SymDiff(_ gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	if f.symbolic {
		panic(f.panics)
	}
	if f.twofold {
		grad = gorgonia.Must(gorgonia.ApplyOp(f, grad))
	}
	return gorgonia.Nodes{grad}, nil
}
func (f fuse) String() string        { return "fuse" }
func (f fuse) WriteHash(h hash.Hash) { fmt.Fprint(h, f) }
func (f fuse) Hashcode() uint32      { h := fnv.New32a(); f.WriteHash(h); return h.Sum32() }

func (f fuse) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	f.calls++
	if f.left > 0 {
		if f.left--; f.left == 0 {
			if f.panics != nil {
				panic(f.panics)
			}
			return nil, errFuse
		}
	}
	return in[0].(*tensor.Dense).Clone().(*tensor.Dense), nil
}

// A faultCourse is a training in which every update has a batch of its own, in so many chunks.
type faultCourse struct {
	*Trainer
	fuse    *fuseState
	twofold bool // the fuse is
	chunks  int
}

func newFaultCourse(t *testing.T, chunks int, fused bool, opts ...Option) *faultCourse {
	t.Helper()
	return (&faultCourse{chunks: chunks}).begun(t, fused, opts...)
}

// begun makes the course's net and solver.
func (c *faultCourse) begun(t *testing.T, fused bool, opts ...Option) *faultCourse {
	t.Helper()
	n := c.net(fused)
	c.Trainer = NewTrainer(t, n, append(opts, WithMinStatisticsCases(5))...)
	return c
}

// net is three layers and a scale. The cost is in a unit that is an input. The fuses are beside the
// layers, at the input and at the output.
func (c *faultCourse) net(fused bool) *testnet.Net {
	through := func(x *gorgonia.Node) *gorgonia.Node { return x }
	if fused {
		c.fuse = &fuseState{twofold: c.twofold}
		through = func(x *gorgonia.Node) *gorgonia.Node {
			return gorgonia.Must(gorgonia.ApplyOp(fuse{fuseState: c.fuse}, x))
		}
	}
	s := testnet.NewSketch(6)
	n := &testnet.Net{Sketch: s, X: s.Random("x", 8, 3)}
	h := tanh(n.Layer(through(n.X), 0, 3, 5, true, false))
	h = tanh(n.Layer(h, 1, 5, 4, true, true))
	h = through(n.Layer(h, 2, 4, 2, true, false))
	n.Out = timesRow(h, tanh(n.Param("scale", 1, 2)))
	cost, loss := testnet.Binary(s, n.Out)
	n.Cost, n.Loss = mul(cost, s.Scalar("unit", 1)), loss
	return n
}

// load fills the inputs with a batch, whose cost is in that unit.
func (c *faultCourse) load(t *testing.T, seed int, unit float64) {
	t.Helper()
	s := testnet.NewSketch(uint64(seed))
	copy(testnet.Data(c.X), s.Normals(len(testnet.Data(c.X))))
	copy(testnet.Data(c.Input("y")), testnet.Data(s.Uniform("y", 8, 2)))
	testnet.Check(t, gorgonia.Let(c.Input("unit"), unit))
}

// give gives chunk i of an update to the solver.
func (c *faultCourse) give(i int) error {
	if i < c.chunks-1 {
		return c.Solver.Accumulate(c.ValueGrads())
	}
	return c.Solver.Step(c.ValueGrads())
}

// chunk does chunk i of update k.
func (c *faultCourse) chunk(t *testing.T, k, i int) {
	t.Helper()
	c.load(t, 100*k+i, 1)
	testnet.Check(t, c.Run())
	if err := c.give(i); err != nil {
		t.Fatalf("update %d, chunk %d: %v", k, i, err)
	}
}

// A milestone is what a course has come to after an update.
type milestone struct {
	weights []float64
	stats   Stats
}

func (c *faultCourse) milestone() milestone {
	return milestone{testnet.Weights(c.Params), statsOf(c.Trainer)}
}

// A twin is the course of so many updates in which nothing fails, by update from 1.
func twinOf(t *testing.T, updates, chunks int, fused bool, opts ...Option) (m []milestone, plan string) {
	t.Helper()
	c := newFaultCourse(t, chunks, fused, opts...)
	return c.milestones(t, updates), c.Solver.Plan().String()
}

// milestones are those of so many updates in which nothing fails, by update from 1.
func (c *faultCourse) milestones(t *testing.T, updates int) (m []milestone) {
	t.Helper()
	m = append(m, milestone{})
	for k := 1; k <= updates; k++ {
		for i := range c.chunks {
			c.chunk(t, k, i)
		}
		m = append(m, c.milestone())
	}
	return m
}

// A fault is made in a batch that the twin never sees. before is called before RunAll, and after
// between RunAll and Step or Accumulate; both return what repairs it.
type fault struct {
	name          string
	before, after func(c *faultCourse) (repair func())
	early         bool // only the first two RunAlls notice it
	is            error
	as            func(err error) bool // what else the error is to be
}

// faultSteps are the updates after the one that failed which are compared.
const faultSteps = 25

// test lets chunk bad of update k fail, in a bad batch, and compares with the twin. It reports
// whether it has failed.
func (f fault) test(t *testing.T, c *faultCourse, k, bad int, twin []milestone) (failed bool) {
	t.Helper()
	for u := 1; u < k; u++ {
		for i := range c.chunks {
			c.chunk(t, u, i)
		}
	}
	for i := range bad {
		c.chunk(t, k, i)
	}
	c.load(t, 1e6+100*k+bad, 7)
	var repairs []func()
	if f.before != nil {
		repairs = append(repairs, f.before(c))
	}
	testnet.Check(t, c.Run())
	before := c.milestone()
	if f.after != nil {
		repairs = append(repairs, f.after(c))
	}
	err := c.give(bad)
	for _, r := range repairs {
		r()
	}
	if err == nil {
		return false
	}
	if f.is != nil && !errors.Is(err, f.is) {
		t.Fatalf("error %v, want %v", err, f.is)
	}
	if f.as != nil && !f.as(err) {
		t.Fatalf("%T: %v", err, err)
	}
	if now := c.milestone(); !slices.Equal(now.weights, before.weights) || !SameStats(now.stats, before.stats) {
		t.Fatal("the failed call has changed weights or figures")
	}
	testnet.ZeroGradients(c.Params)
	c.follow(t, k, bad, twin)
	return true
}

// follow goes on from chunk i of update k, and demands that the course is the twin's in every bit.
func (c *faultCourse) follow(t *testing.T, k, i int, twin []milestone) {
	t.Helper()
	for u := k; u < k+faultSteps; u++ {
		for ; i < c.chunks; i++ {
			c.chunk(t, u, i)
		}
		i = 0
		now := c.milestone()
		if !slices.Equal(now.weights, twin[u].weights) {
			t.Fatalf("after update %d: weights off by %g", u, testnet.Distance(now.weights, twin[u].weights))
		}
		if !SameStats(now.stats, twin[u].stats) {
			t.Fatalf("after update %d: %+v, want %+v", u, now.stats, twin[u].stats)
		}
	}
}

// A faultyBlock fails where it is told to. It returns errors once what it wraps has done its work.
type faultyBlock struct {
	curvature.Block[float64]
	observe, average bool
}

var errFaulty = &curvature.Error{Op: "a test", Err: curvature.ErrNotFinite}

func (b faultyBlock) Observe(rows []curvature.Rows[float64]) error {
	if err := b.Block.Observe(rows); err != nil || !b.observe {
		return err
	}
	return errFaulty
}

func (b faultyBlock) Average(ema float64) (*curvature.Averages[float64], error) {
	avg, err := b.Block.Average(ema)
	if err != nil || !b.average {
		return avg, err
	}
	b.Release(avg)
	return nil, errFaulty
}

func setColumnOf(c *faultCourse, name string, v float64) func() {
	x := testnet.Data(c.Input(name))
	cols := c.Input(name).Shape()[1]
	for i := 1; i < len(x); i += cols {
		x[i] = v
	}
	return func() {} // the next batch does
}

func scaleGradient(by float64) func(c *faultCourse) func() {
	return func(c *faultCourse) func() {
		g := userGradient(c.Params[2])
		for i := range g {
			g[i] *= by
		}
		return func() {}
	}
}

var faults = []fault{
	{name: "NaN in the targets", before: func(c *faultCourse) func() {
		return setColumnOf(c, "y", math.NaN())
	}, is: ErrNotFinite},
	{name: "targets out of range", before: func(c *faultCourse) func() {
		return setColumnOf(c, "y", 3)
	}, early: true, is: ErrLoss},
	{name: "NaN in the input", before: func(c *faultCourse) func() {
		return setColumnOf(c, "x", math.NaN())
	}, is: ErrNotFinite},
	{name: "NaN in the input after RunAll", after: func(c *faultCourse) func() {
		return setColumnOf(c, "x", math.NaN())
	}, is: ErrNotFinite},
	{name: "another unit, next to nothing away", before: func(c *faultCourse) func() {
		if err := gorgonia.Let(c.Input("unit"), 1+1e-12); err != nil {
			panic(err)
		}
		return func() {}
	}, after: func(c *faultCourse) func() { return setColumnOf(c, "x", math.NaN()) }, is: ErrNotFinite},
	{name: "wrong gradient", after: scaleGradient(3), early: true, is: ErrGradient},
	{name: "NaN in a gradient", after: scaleGradient(math.NaN()), is: ErrNotFinite},
	{name: "NaN in a weight", after: func(c *faultCourse) func() {
		w := testnet.Data(c.Params[3])
		sound := slices.Clone(w)
		w[0] = math.NaN()
		return func() { copy(w, sound) }
	}, is: ErrNotFinite},
	{name: "the last parameter left out", after: func(c *faultCourse) func() {
		all := c.Params
		c.Params = append(slices.Clone(all[:len(all)-1]), c.X)
		return func() { c.Params = all }
	}},
}

// blockFaults are faults of one block, once the plan is settled.
func blockFaults(blocks int) (all []fault) {
	type blockOf = curvature.Block[float64]
	for k := range blocks {
		add := func(what string, is error, wrap func(b blockOf) blockOf) {
			spoil := func(c *faultCourse) (repair func()) {
				blocks := trainingOf(c.Trainer).plan.blocks
				b := blocks[min(k, len(blocks)-1)] // a chain is one
				sound := b.Block
				b.Block = wrap(sound)
				return func() { b.Block = sound }
			}
			all = append(all, fault{name: fmt.Sprint(what, " of block ", k), after: spoil, is: is})
		}
		add("rows", ErrNotFinite, func(b blockOf) blockOf { return faultyBlock{Block: b, observe: true} })
		add("averages", nil, func(b blockOf) blockOf { return faultyBlock{Block: b, average: true} })
		add("inverse", nil, func(b blockOf) blockOf { return wrongAverages{b, 0, -1e30} })
	}
	return all
}

// A faultMode is a way to train, with the updates that are to fail.
type faultMode struct {
	name    string
	opts    []Option
	updates []int
}

// shortly leaves out most of it where time is short: what stays is enough to find races.
func shortly(modes []faultMode) (few []faultMode) {
	if !testing.Short() {
		return modes
	}
	for _, m := range modes {
		if m.name == "default" || m.name == "background" {
			m.updates = []int{m.updates[0], m.updates[len(m.updates)-1]}
			few = append(few, m)
		}
	}
	return few
}

var faultModes = []faultMode{
	{"default", []Option{WithMinModelCases(5)}, []int{1, 2, 5, 8}},
	{"learning rate", []Option{WithLearningRate(0.05), WithMomentum(0.5)}, []int{1, 2, 6}},
	{"paper's rules", []Option{WithPaperRules(), WithL2Reg(1e-3)}, []int{1, 5, 20}},
	{"block-tridiagonal", []Option{WithBlockTridiagonal()}, []int{1, 3, 5}},
	{"EKFAC", []Option{WithEKFAC(), WithInverseUpdatePeriod(2)}, []int{1, 2, 4, 5}},
	{"average and rejection", []Option{WithIterateAveraging(0.9, 2), WithStepRejection()}, []int{1, 4}},
	// A turn for each block: at each of these steps one inverse is due, and one in progress.
	{"background", []Option{WithInverseUpdatePeriod(4), WithBackgroundInverses(2)}, []int{1, 22, 23, 24, 25}},
	{"background, learning rate", []Option{WithLearningRate(0.05), WithInverseUpdatePeriod(4),
		WithBackgroundInverses(2)}, []int{6, 7, 8, 9}},
}

// A step or a chunk that fails leaves no trace: what comes after is the course of a twin that has
// never seen the bad batch, whose cost is in another unit too.
func TestFailedStepsLeaveNoTrace(t *testing.T) {
	t.Parallel()
	for _, mode := range shortly(faultModes) {
		for _, chunks := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, %d chunks", mode.name, chunks), func(t *testing.T) {
				last := slices.Max(mode.updates)
				twin, plan := twinOf(t, last+faultSteps, chunks, false, mode.opts...)
				happened := map[string]int{}
				for _, k := range mode.updates {
					all := faults
					if k == last { // by now the plan is settled
						all = slices.Concat(faults, blockFaults(4))
					}
					for n, f := range all {
						bad := (n + k) % chunks
						early := (k-1)*chunks+bad < 2
						if f.early && !early || f.is == ErrLoss && (k > 1 || bad > 0) {
							continue
						}
						name := fmt.Sprintf("%s, update %d, chunk %d", f.name, k, bad)
						t.Run(name, func(t *testing.T) {
							c := newFaultCourse(t, chunks, false, mode.opts...)
							if !f.test(t, c, k, bad, twin) {
								return
							}
							happened[f.name]++
							if got := c.Solver.Plan().String(); got != plan {
								t.Errorf("plan\n%s, want\n%s", got, plan)
							}
						})
					}
				}
				for _, f := range faults {
					if happened[f.name] == 0 && !f.early {
						t.Errorf("%s: nothing has failed", f.name)
					}
				}
				if len(happened) < len(faults)+2 {
					t.Errorf("only these have happened: %v", happened)
				}
			})
		}
	}
}

// The same where the model's run fails at its first evaluation in the solver, at its second, and so
// on.
func TestFailureAtEveryEvaluation(t *testing.T) {
	t.Parallel()
	for _, mode := range shortly(faultModes) {
		for _, chunks := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, %d chunks", mode.name, chunks), func(t *testing.T) {
				k := mode.updates[len(mode.updates)-1]
				for _, k := range slices.Compact([]int{mode.updates[0], k}) {
					twin, _ := twinOf(t, k+faultSteps, chunks, true, mode.opts...)
					failed, calls := 0, 1
					for n := 1; n <= calls; n++ {
						c := newFaultCourse(t, chunks, true, mode.opts...)
						blow := fault{name: "fuse", is: errFuse, after: func(c *faultCourse) func() {
							c.fuse.left, c.fuse.calls = n, 0
							return func() { calls = max(calls, c.fuse.calls+1); c.fuse.left = 0 }
						}}
						if blow.test(t, c, k, chunks-1, twin) {
							failed++
						} else if c.fuse.calls < n {
							break
						}
					}
					if failed < 2 {
						t.Errorf("update %d: %d evaluations have failed", k, failed)
					}
				}
			})
		}
	}
}

// An Attach that fails leaves no trace, nor does a graph whose first step has failed and that is
// given up for the one of before.
func TestFailedGraphsLeaveNoTrace(t *testing.T) {
	t.Parallel()
	other := func(t *testing.T, c *faultCourse) *faultCourse {
		t.Helper()
		twin := &faultCourse{chunks: 1}
		n := twin.net(false)
		n.CopyParams(c.Net) // other tensors with the same numbers
		twin.Trainer = &Trainer{Net: n, Run: testnet.Machines["BindDualValues"](t, n), Solver: c.Solver}
		return twin
	}
	for _, test := range []struct {
		name string
		fail func(t *testing.T, c *faultCourse) error
	}{
		{"an output that the cost does not depend on", func(t *testing.T, c *faultCourse) error {
			o := other(t, c)
			return c.Solver.Attach(o.Cost, Bernoulli(gorgonia.Must(gorgonia.Cos(o.Out))))
		}},
		{"none of the parameters", func(t *testing.T, c *faultCourse) error {
			n := testnet.Images(3, true, true)
			return c.Solver.Attach(n.Cost, Declared(n))
		}},
		{"another dtype", func(t *testing.T, c *faultCourse) error {
			n := testnet.ScaledOutputs[float32]()
			return c.Solver.Attach(n.Cost, Declared(n))
		}},
		{"NaN at the graph's first step", func(t *testing.T, c *faultCourse) error {
			return firstStepFails(t, c, other(t, c), func(o *faultCourse) { setColumnOf(o, "x", math.NaN()) })
		}},
		{"other weights at the graph's first step", func(t *testing.T, c *faultCourse) error {
			return firstStepFails(t, c, other(t, c), func(o *faultCourse) { testnet.Data(o.Params[4])[0]++ })
		}},
		{"a loss that is not the declared one", func(t *testing.T, c *faultCourse) error {
			return firstStepFails(t, c, other(t, c), func(o *faultCourse) { setColumnOf(o, "y", 3) })
		}},
	} {
		for _, mode := range shortly(faultModes) {
			t.Run(test.name+", "+mode.name, func(t *testing.T) {
				for _, done := range []int{0, mode.updates[len(mode.updates)-1]} {
					twin, plan := twinOf(t, done+faultSteps, 1, false, mode.opts...)
					c := newFaultCourse(t, 1, false, mode.opts...)
					for k := 1; k <= done; k++ {
						c.chunk(t, k, 0)
					}
					if err := test.fail(t, c); err == nil && done == 0 {
						continue // before the first step the weights may be any
					} else if err == nil {
						t.Fatal("it has not failed")
					}
					if err := c.Solver.Attach(c.Cost, Declared(c.Net)); err != nil {
						t.Fatal(err)
					}
					c.follow(t, done+1, 0, twin)
					if got := c.Solver.Plan().String(); got != plan {
						t.Errorf("plan\n%s, want\n%s", got, plan)
					}
				}
			})
		}
	}
}

// firstStepFails attaches to the graph of another course, whose first step fails. What is in its
// tensors does not matter any more then.
func firstStepFails(t *testing.T, c, o *faultCourse, spoil func(o *faultCourse)) error {
	t.Helper()
	testnet.Check(t, c.Solver.Attach(o.Cost, Declared(o.Net)))
	o.load(t, 1e6, 7)
	spoil(o)
	testnet.Check(t, o.Run())
	err := o.Solver.Step(o.ValueGrads())
	for _, p := range o.Params {
		clear(testnet.Data(p))
	}
	return err
}

// Averages that can't be inverted, where those of the batch at hand can, start anew and are
// counted. So no outlier stands in the way of all batches after it, whatever the step makes of its
// inverses.
func TestAveragesStartAnew(t *testing.T) {
	m := testnet.MLP{Widths: []int{3, 4, 4, 2}, Cases: 12, Unit: gorgonia.Tanh, Loss: testnet.Binary}
	for name, opts := range map[string][]Option{
		"default":            nil,
		"block-tridiagonal":  {WithBlockTridiagonal()},
		"learning rate":      {WithLearningRate(0.1)},
		"background":         {WithBackgroundInverses(1), WithInverseUpdatePeriod(3)},
		"at every 20th step": {WithInverseUpdatePeriod(20)},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewTrainer(t, m.Build(7), opts...)
			l.Steps(t, 5)
			b := trainingOf(l).plan.blocks[0]
			avg := b.Copy()
			for i := range avg.Moments[0] {
				avg.Moments[0][i] *= -1e20
			}
			b.Keep(avg)
			restarts := 0
			for range 25 {
				l.Steps(t, 1)
				restarts += l.Solver.Stats().AveragesRestarted
			}
			if restarts != 1 {
				t.Errorf("%d restarts, want 1", restarts)
			}
			l.Falls(t, 30, 1)
		})
	}
}

// outlierNet is a classifier of two layers, the first maybe normalised over the batch.
func outlierNet[T testnet.Float](t *testing.T, normalise bool) *testnet.Net {
	t.Helper()
	n := &testnet.Net{Sketch: testnet.NewSketchOf[T](4, 4)}
	n.X = n.Random("x", 16, 5)
	n.Targets(n.Leaf("y", testnet.OneHots(n.Rng, 16, 3), 16, 3))
	w0, w1 := n.Scaled("w0", 0.5, 5, 6), n.Scaled("w1", 0.5, 6, 3)
	h := mul(n.X, w0)
	n.Params = gorgonia.Nodes{w0, w1}
	if normalise {
		scale, shift := n.Ones("scale", 1, 6), n.Constant("shift", 0, 1, 6)
		var err error
		h, _, _, _, err = gorgonia.BatchNorm(h, scale, shift, 0.9, 1e-5)
		testnet.Check(t, err)
		n.Params = append(n.Params, scale, shift)
	}
	return n.Ends(mul(tanh(h), w1), testnet.CrossEntropy)
}

// fillOutlier draws batch k, of classes that can be told from the inputs. The third record of an
// outlier batch is of that size.
func fillOutlier(n *testnet.Net, k uint64, outlier float64) {
	s := testnet.NewSketch(1000 + k)
	x, y := n.X.Value().(*tensor.Dense), n.Y.Value().(*tensor.Dense)
	for i := range 16 {
		class := s.Rng.IntN(3)
		for j := range 5 {
			v := s.Rng.NormFloat64()
			if j == class {
				v += 2
			}
			if i == 3 && outlier > 0 {
				v *= outlier
			}
			setTo(x, 5*i+j, v)
		}
		for j := range 3 {
			setTo(y, 3*i+j, map[bool]float64{true: 1}[j == class])
		}
	}
}

func setTo(d *tensor.Dense, i int, v float64) {
	if d.Dtype() == tensor.Float32 {
		d.Set(i, float32(v))
	} else {
		d.Set(i, v)
	}
}

// A first batch with a record that is far off does not stand in the way of the healthy ones after
// it: its averages start anew, and behind a normalisation the training gets on.
func testOutlierFirst[T testnet.Float](t *testing.T, outlier float64) {
	for _, normalise := range []bool{true, false} {
		for name, opts := range map[string][]Option{
			"default": nil, "block-tridiagonal": {WithBlockTridiagonal()}, "rate": {WithLearningRate(0.1)},
			"background": {WithBackgroundInverses(1), WithInverseUpdatePeriod(4)},
		} {
			t.Run(fmt.Sprintf("%s, normalised %v", name, normalise), func(t *testing.T) {
				healthy := NewTrainer(t, outlierNet[T](t, normalise), opts...)
				fillOutlier(healthy.Net, 0, 0)
				start := healthy.Step(t)

				l := NewTrainer(t, outlierNet[T](t, normalise), opts...)
				fillOutlier(l.Net, 0, outlier)
				refused := l.Try()
				if refused != nil && (normalise || !errors.Is(refused, ErrNotPosDef)) {
					t.Fatal(refused)
				}
				testnet.ZeroGradients(l.Params)
				restarts, last := 0, 0.0
				for k := range uint64(60) {
					fillOutlier(l.Net, k+1, 0)
					testnet.Check(t, l.Run())
					if err := l.Solver.Step(l.ValueGrads()); err != nil {
						t.Fatalf("healthy batch %d: %v", k+1, err)
					}
					restarts += l.Solver.Stats().AveragesRestarted
					if k >= 50 {
						last += testnet.Numbers(l.Cost.Value())[0] / 10
					}
				}
				if restarts == 0 && refused == nil {
					t.Error("no averages have started anew")
				}
				if normalise && !(last < 0.9*start) {
					t.Errorf("the cost is %g, want less than 0.9 of %g", last, start)
				}
			})
		}
	}
}

func TestOutlierFirst(t *testing.T) {
	t.Run("float64", func(t *testing.T) { testOutlierFirst[float64](t, 1e25) })
	t.Run("float32", func(t *testing.T) { testOutlierFirst[float32](t, 1e12) })
}
