package kfac

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// Genes are the bytes of a fuzzer, read as choices. Behind the last they are all 0.
type genes struct{ left []byte }

// pick is one of n.
func (g *genes) pick(n int) int {
	if len(g.left) == 0 {
		return 0
	}
	b := g.left[0]
	g.left = g.left[1:]
	return int(b) % n
}

func oneOf[E any](g *genes, list []E) E { return list[g.pick(len(list))] }

// A wildNet is a net in the making. h is its last layer, of shape (cases, width).
type wildNet struct {
	*testnet.Net
	*genes
	h      *gorgonia.Node
	layers int
}

func (w *wildNet) cases() int { return w.h.Shape()[0] }
func (w *wildNet) width() int { return w.h.Shape()[1] }

// param is a new parameter.
func (w *wildNet) param(shape ...int) *gorgonia.Node {
	w.layers++
	return w.Param(fmt.Sprint("p", w.layers), shape...)
}

// earlier is a parameter of that shape that is there already, or a new one.
func (w *wildNet) earlier(shape ...int) *gorgonia.Node {
	for _, p := range w.Params {
		if slices.Equal(p.Shape(), shape) {
			return p
		}
	}
	return w.param(shape...)
}

func (w *wildNet) newWidth() int { return 1 + w.pick(4) }

func must1(n *gorgonia.Node, err error) *gorgonia.Node { return gorgonia.Must(n, err) }

// wildLayers are what can happen to h.
var wildLayers = []func(w *wildNet, h *gorgonia.Node) *gorgonia.Node{
	// Dense, in all wirings, with and without a bias.
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		out := w.newWidth()
		return addRow(mul(h, w.param(w.width(), out)), w.param(1, out))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return mul(h, testnet.Transpose(w.param(w.newWidth(), w.width())))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		out := w.newWidth()
		s := mul(w.param(out, w.width()), testnet.Transpose(h))
		return testnet.Transpose(testnet.AddColumn(s, w.param(out, 1)))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return testnet.Transpose(mul(testnet.Transpose(w.param(w.width(), w.newWidth())), testnet.Transpose(h)))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return must1(gorgonia.Tensordot([]int{1}, []int{0}, h, w.param(w.width(), w.newWidth())))
	},
	// Weights that are used before, or in other ways.
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node { return mul(h, w.earlier(w.width(), w.width())) },
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return mul(h, testnet.Transpose(w.earlier(w.width(), w.width())))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node { return mul(h, tanh(w.param(w.width(), 3))) },
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		part := must1(gorgonia.Slice(w.earlier(w.width(), 4), nil, gorgonia.S(1, 3)))
		return mul(h, part)
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return mul(mul(h, w.param(w.width(), 2)), testnet.Reshape(w.earlier(3, 2), 2, 3))
	},
	// Convolutions.
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		n, width, out := w.cases(), w.width(), 1+w.pick(2)
		image := testnet.Reshape(h, n, 1, 1, width)
		kernel, pad := tensor.Shape{1, min(2, width)}, []int{0, w.pick(2)}
		s := testnet.Conv2d(image, w.param(out, 1, kernel[0], kernel[1]), kernel, pad, []int{1, 1}, []int{1, 1})
		s = testnet.AddChannel(s, w.param(1, out, 1, 1))
		return testnet.Reshape(s, n, s.Shape().TotalSize()/n)
	},
	// Lookups.
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		rows := 2 + w.pick(5) // Gorgonia's VM dies of a table of one element
		words := w.Words(fmt.Sprint("ids", w.layers), w.SomeWords(w.cases(), rows)...)
		return testnet.Add(h, testnet.Rows(w.param(rows, w.width()), words))
	},
	// Elementwise.
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return addRow(timesRow(h, w.param(1, w.width())), w.param(1, w.width()))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		w.layers++
		p := w.Scalar(fmt.Sprint("p", w.layers), 0.7)
		w.Params = append(w.Params, p)
		return testnet.Hadamard(h, p)
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return testnet.Add(h, w.param(w.cases(), w.width()))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return testnet.Rectify(addRow(h, w.param(1, w.width())))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		scale, shift := w.param(w.cases(), w.width()), w.param(w.cases(), w.width())
		s, _, _, _, err := gorgonia.BatchNorm(h, scale, shift, 0.9, 1e-5)
		return must1(s, err)
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		centred := must1(gorgonia.BroadcastSub(h, testnet.Reshape(testnet.Mean(h, 0), 1, w.width()), nil, []byte{0}))
		return timesRow(centred, w.param(1, w.width()))
	},
	func(_ *wildNet, h *gorgonia.Node) *gorgonia.Node { return tanh(h) },
	func(_ *wildNet, h *gorgonia.Node) *gorgonia.Node { return testnet.Softplus(h) },
	func(_ *wildNet, h *gorgonia.Node) *gorgonia.Node { return testnet.Square(h) },
	func(_ *wildNet, h *gorgonia.Node) *gorgonia.Node { return must1(gorgonia.Exp(h)) },
	func(_ *wildNet, h *gorgonia.Node) *gorgonia.Node { return testnet.SoftMax(h, 1) },
	// What moves elements.
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		n, width := w.cases(), w.width()
		s := mul(testnet.Reshape(h, n*width, 1), w.param(1, 2))
		return testnet.Reshape(s, n, 2*width)
	},
	func(_ *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return testnet.Transpose(tanh(testnet.Transpose(h)))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return must1(gorgonia.Slice(h, nil, gorgonia.S(0, max(w.width()-1, 1))))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return testnet.Concat(1, h, mul(h, w.param(w.width(), 2)))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return testnet.Concat(1, h, w.param(w.cases(), 1))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node {
		return testnet.Add(h, tanh(mul(h, w.param(w.width(), w.width()))))
	},
	func(w *wildNet, h *gorgonia.Node) *gorgonia.Node { // mixes the cases
		return mul(w.Random(fmt.Sprint("mix", w.layers), w.cases(), w.cases()), mul(h, w.param(w.width(), 2)))
	},
}

// wildEnds are outputs and costs.
var wildEnds = []func(w *wildNet, h *gorgonia.Node){
	func(w *wildNet, h *gorgonia.Node) { w.Ends(h, testnet.Squares(1)) },
	func(w *wildNet, h *gorgonia.Node) { w.Ends(h, testnet.BinaryCrossEntropy) },
	func(w *wildNet, h *gorgonia.Node) { w.Ends(mul(h, w.param(w.width(), 3)), testnet.Classes) },
	func(w *wildNet, h *gorgonia.Node) { w.Ends(mul(h, w.param(w.width(), 3)), testnet.CrossEntropy) },
	func(w *wildNet, h *gorgonia.Node) { w.Ends(h, testnet.AsSum(testnet.Binary)) },
	func(w *wildNet, h *gorgonia.Node) { w.Ends(h, testnet.Times(testnet.SquaredError, 1e-3)) },
	func(w *wildNet, h *gorgonia.Node) { // a vector of the cases
		w.Ends(mul(h, w.param(w.width())), testnet.Squares(2))
	},
	func(w *wildNet, h *gorgonia.Node) { // a vector of a single case
		w.Ends(must1(gorgonia.Slice(mul(h, w.param(w.width(), 3)), gorgonia.S(0))), testnet.Squares(1))
	},
	func(w *wildNet, h *gorgonia.Node) {
		cost1, loss1 := testnet.Squares(1)(w.Sketch, mul(h, w.param(w.width(), 2)))
		z := mul(h, w.param(w.width(), 3))
		logp := testnet.LogSoftMax(z)
		hot := w.Leaf("y2", testnet.OneHots(w.Rng, w.cases(), 3), w.cases(), 3)
		cost2 := testnet.Neg(testnet.Mean(testnet.Sum(testnet.Hadamard(logp, hot), 1)))
		w.Cost, w.Loss = testnet.Add(cost1, cost2), testnet.Joint(loss1, testnet.Categorical(z))
	},
}

// wildTerms are further terms of the cost.
var wildTerms = []func(w *wildNet){
	func(*wildNet) {},
	func(w *wildNet) { w.Cost = testnet.Add(w.Cost, testnet.Mean(testnet.Square(w.Params[0]))) },
	func(w *wildNet) { w.Cost = testnet.Add(w.Cost, testnet.Sum(testnet.Square(w.param(2, 2)))) },
	func(w *wildNet) { w.Cost = must1(gorgonia.Div(w.Cost, testnet.Sum(w.Ones("unit", 1, 2)))) },
	func(w *wildNet) { w.Cost = testnet.Hadamard(w.Cost, w.Scalar("unit", 3)) },
}

// newWildNet builds the graph that the bytes say. It is nil where Gorgonia refuses it.
func newWildNet(code []byte) (n *testnet.Net) {
	defer func() {
		if recover() != nil {
			n = nil
		}
	}()
	w := &wildNet{Net: testnet.NewNet(9), genes: &genes{code}}
	if w.pick(2) == 1 {
		w.Net = &testnet.Net{Sketch: testnet.NewSketchOf[float32](9, 3)}
	}
	cases, end, term := oneOf(w.genes, []int{6, 1, 2, 9}), oneOf(w.genes, wildEnds), oneOf(w.genes, wildTerms)
	w.X = w.Random("x", cases, 1+w.pick(4))
	w.h = w.X
	for range min(len(w.left), 6) {
		if len(w.left) == 0 {
			break
		}
		w.h = oneOf(w.genes, wildLayers)(w, w.h)
	}
	if len(w.Params) == 0 {
		w.h = mul(w.h, w.param(w.width(), 2))
	}
	end(w, w.h)
	term(w)
	if _, err := gorgonia.Grad(w.Cost, w.Params...); err != nil {
		return nil
	}
	return w.Net
}

// A wild trainer is a net of those in training, with what a course needs.
type wildTrainer struct {
	*testnet.Net
	run    func() error
	solver *Solver
}

func (w *wildTrainer) use(n *testnet.Net) {
	w.Net = n
	vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
	w.run = func() (err error) {
		defer func() {
			if r := recover(); r != nil { // Gorgonia's own
				err = fmt.Errorf("%v", r)
			}
		}()
		vm.Reset()
		return vm.RunAll()
	}
}

// A spoiler is what the data of a batch are, besides ordinary.
type spoiler func(i int, x float64) float64

var spoilers = []spoiler{
	func(int, float64) float64 { return 0 },
	func(_ int, x float64) float64 { return 1e25 * x },
	func(_ int, x float64) float64 { return 1e-25 * x },
	func(int, float64) float64 { return math.NaN() },
	func(i int, x float64) float64 { return x / float64(i%3) }, // some infinite
	func(i int, _ float64) float64 { return float64(i % 2) },   // repeated
	func(i int, x float64) float64 { return map[bool]float64{true: 1e25, false: x}[i == 3] },
	func(i int, x float64) float64 { return map[bool]float64{true: math.NaN(), false: x}[i == 1] },
	func(_ int, x float64) float64 { return x + 1e4 },
	func(_ int, x float64) float64 { return 1e300 * x },
}

// load fills inputs and targets with batch k. A spoiler is for those of the name, if that is not
// "".
func (w *wildTrainer) load(k int, bad spoiler, name string) {
	s := testnet.NewSketch(uint64(k))
	for _, in := range w.Graph.Inputs() {
		if in.Op() != nil || slices.Contains(w.Params, in) || in.Name() == "unit" {
			continue
		}
		t, ok := in.Value().(*tensor.Dense)
		if !ok || in.Dtype() == tensor.Int {
			continue
		}
		x := s.Normals(t.Shape().TotalSize())
		if in.Name() != "x" {
			shape := t.Shape()
			x = testnet.OneHots(s.Rng, len(x)/shape[len(shape)-1], shape[len(shape)-1])
		}
		for i, v := range x {
			if bad != nil && in.Name() == name {
				v = bad(i, v)
			}
			if t.Dtype() == tensor.Float32 {
				t.Set(i, float32(v))
			} else {
				t.Set(i, v)
			}
		}
	}
}

// A wildState is all that an error may not change.
type wildState struct {
	weights, grads []float64
	stats          Stats
	plan           string
}

func (w *wildTrainer) state() wildState {
	var grads []float64
	for _, p := range w.Params {
		if g, err := p.Grad(); err == nil && g != nil {
			grads = append(grads, testnet.Numbers(g)...)
		}
	}
	return wildState{testnet.Weights(w.Params), grads, w.solver.Stats(), w.solver.Plan().String()}
}

func (s wildState) same(o wildState) bool {
	return sameBits(s.weights, o.weights) && sameBits(s.grads, o.grads) && SameStats(s.stats, o.stats) &&
		s.plan == o.plan
}

func sameBits(a, b []float64) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) })
}

// saysEnough demands a typed error that says what to do.
func saysEnough(t *testing.T, err error) {
	t.Helper()
	hint := ""
	switch e := err.(type) {
	case *ConfigError:
		hint = e.Want
	case *ParamError:
		hint = e.Hint
	case *LayerError:
		hint = e.Hint
	case *LossError:
		hint = e.Hint
	case *GradientError:
		hint = e.Hint
	case *GraphError:
		hint = e.Hint
	}
	if hint == "" {
		t.Fatalf("%T: %v", err, err)
	}
}

// sound demands finite weights and figures.
func (w *wildTrainer) sound(t *testing.T) {
	t.Helper()
	for _, x := range testnet.Weights(w.Params) {
		if x-x != 0 {
			t.Fatalf("weights %v", testnet.Weights(w.Params))
		}
	}
	st := w.solver.Stats()
	for _, x := range []float64{st.Cost, st.Scale, st.Damping, st.Gamma, st.LearningRate, st.Momentum, st.Shrink,
		st.GradNorm, st.PreconGradNorm, st.UpdateNorm} {
		if x-x != 0 {
			t.Fatalf("figures %+v", st)
		}
	}
	for _, x := range []float64{st.QuadModelChange, st.KL, st.Rho} {
		if math.IsInf(x, 1) {
			t.Fatalf("figures %+v", st)
		}
	}
}

// wildModes are options of the solvers.
var wildModes = [][]Option{
	{},
	{WithLearningRate(0.1)},
	{WithPaperRules(), WithL2Reg(1e-3)},
	{WithBlockTridiagonal(), WithStepRejection()},
	{WithEKFAC(), WithInverseUpdatePeriod(2)},
	{WithEKFAC(), WithBackgroundInverses(1), WithFisherSamples(2), WithMaxDim(3)},
	{WithExactDamping(), WithFisherEstimate(ExactFisher)},
	{WithFisherEstimate(EmpiricalFisher), WithLearningRate(0.1)},
	{WithFisherEstimate(CurvaturePropagation), WithBlockTridiagonal()},
	{WithBackgroundInverses(1), WithInverseUpdatePeriod(3), WithSpatiallyUncorrelated()},
	{WithIterateAveraging(0.9, 1), WithMaxDim(2), WithFullBlocks(1)},
	{WithTimeCorrelation(TimeStationary), WithWeightSharing(Reduce), WithIterateAveraging(0.5, 2)},
	{WithTimeCorrelation(TimeSymmetric), WithMinStatisticsCases(2), WithMinModelCases(3)},
	{WithoutGradientCheck(), WithInverseUpdatePeriod(1), WithGammaAdaptation(2, 0.9)},
}

// wildCalls are calls of a course, after RunAll of a batch. A panic here is one of the solver.
var wildCalls = []func(w *wildTrainer) error{
	func(w *wildTrainer) error { return w.solver.Step(w.ValueGrads()) },
	func(w *wildTrainer) error { return w.solver.Accumulate(w.ValueGrads()) },
	func(w *wildTrainer) error {
		list := slices.Clone(w.ValueGrads())
		slices.Reverse(list)
		return w.solver.Step(list)
	},
	func(w *wildTrainer) error { return w.solver.Step(w.ValueGrads()[:1]) },
	func(w *wildTrainer) error { return w.solver.Accumulate(w.ValueGrads()[:1]) },
	func(w *wildTrainer) error { return w.solver.Step(append(w.ValueGrads(), w.Params[0], w.X)) },
	func(w *wildTrainer) error { return w.solver.Step(nil) },
	func(w *wildTrainer) error {
		restore, err := w.solver.UseAverage()
		if err != nil {
			return err
		}
		defer restore()
		return w.solver.Step(w.ValueGrads())
	},
	func(w *wildTrainer) error {
		restore, err := w.solver.UseAverage()
		if err != nil {
			return err
		}
		if err := w.run(); err != nil {
			panic(err)
		}
		restore()
		restore()
		testnet.ZeroGradients(w.Params)
		return nil
	},
	func(w *wildTrainer) error { // a rebuilt graph, on the same tensors
		return w.solver.Attach(w.Cost, Joint(Declared(w.Net), Declared(w.Net)))
	},
}

// FuzzGraphs builds a graph from graph, and trains it by the calls of course. Nothing panics; what
// fails says why, in a type, and leaves everything as it was: a twin that has never seen it has the
// same bits at every step; what succeeds leaves finite numbers.
func FuzzGraphs(f *testing.F) {
	for _, s := range graphSeeds {
		f.Add(s.graph, s.course)
	}
	f.Fuzz(wildCourse)
}

func wildCourse(t *testing.T, graph, course []byte) {
	newNet := func() *testnet.Net { return newWildNet(graph) }
	if newNet() == nil {
		t.Skip()
	}
	g := &genes{course}
	mode := oneOf(g, wildModes)
	var pair [2]*wildTrainer // the second is the twin
	for i := range pair {
		w := &wildTrainer{}
		w.use(newNet())
		s, err := NewSolver(w.Cost, Declared(w.Net), mode...)
		if err != nil {
			saysEnough(t, err)
			return
		}
		w.solver = s
		pair[i] = w
	}
	if a, b := pair[0].solver.Plan().String(), pair[1].solver.Plan().String(); a != b {
		t.Fatalf("plans\n%s\n%s", a, b)
	}
	batch := 0
	turn := func(call func(w *wildTrainer) error, bad spoiler, name string) {
		batch++
		var before, after [2]wildState
		for i, w := range pair {
			w.load(batch, bad, name)
			testnet.ZeroGradients(w.Params)
			if w.run() != nil {
				return // Gorgonia's own trouble, and the twin's too
			}
			before[i] = w.state()
			if i > 0 && !before[0].same(before[1]) {
				t.Skip("Gorgonia's own products depend on where in memory short vectors lie")
			}
			err := call(w)
			after[i] = w.state()
			switch {
			case err != nil && i > 0:
				t.Fatalf("the twin: %v", err)
			case err != nil:
				saysEnough(t, err)
				if !before[i].same(after[i]) {
					t.Fatalf("%v has changed %+v to %+v", err, before[i], after[i])
				}
				return
			}
			w.sound(t)
		}
		if !after[0].same(after[1]) {
			t.Fatalf("course %+v, twin %+v", after[0], after[1])
		}
	}
	for range min(len(g.left), 8) {
		what := g.pick(256)
		call := wildCalls[what%len(wildCalls)]
		switch what / len(wildCalls) % 4 {
		case 1:
			turn(call, oneOf(g, spoilers), "x")
		case 2:
			turn(call, oneOf(g, spoilers), "y")
		case 3:
			attachAll(t, pair[:], newNet)
			fallthrough
		default:
			turn(call, nil, "")
		}
	}
	for range 3 {
		turn(wildCalls[0], nil, "")
	}
}

// attachAll goes on with a graph that is built again, on the same tensors, or with copies of them.
func attachAll(t *testing.T, pair []*wildTrainer, newNet func() *testnet.Net) {
	t.Helper()
	failed := 0
	for _, w := range pair {
		n := newNet()
		for i, p := range n.Params {
			testnet.Check(t, gorgonia.Let(p, w.Params[i].Value()))
		}
		before := w.state()
		if err := w.solver.Attach(n.Cost, Declared(n)); err != nil {
			saysEnough(t, err)
			if !before.same(w.state()) {
				t.Fatal(err, " has changed something")
			}
			failed++
			continue
		}
		w.use(n)
	}
	if failed == 1 {
		t.Fatal("only one of the twins can be attached")
	}
}

type graphSeed struct{ graph, course []byte }

var graphSeeds = func() (all []graphSeed) {
	for i := range wildLayers { // dtypes, cases, ends, terms and layers
		all = append(all, graphSeed{
			[]byte{byte(i), byte(i), byte(i), byte(i / 2), 3, 0, 2, byte(i), 2, 18},
			[]byte{byte(i), 0, 0, byte(i), byte(10 + i%20), byte(i), byte(30 + i%10)},
		})
	}
	return append(all,
		graphSeed{[]byte("1"), []byte("0")},                                          // few elements in float32
		graphSeed{[]byte("\u0554~{\x126\xf8\x06\xeb\xcaT"), []byte("~")},             // softmax over axis 1 of a vector
		graphSeed{[]byte{191, 169, 219, 190, 6, 65}, []byte{20, 213, 238, 246, 175}}, // a direction uphill
	)
}()

// wildOptions make an option of a value that may be absurd.
var wildOptions = []func(x float64) Option{
	WithLearningRate, WithMomentum, WithDamping, WithNormConstraint, WithL2Reg, WithCurvatureEMA,
	WithStatisticsFraction, WithModelFraction, WithMaxGamma,
	func(x float64) Option { return WithInverseUpdatePeriod(whole(x)) },
	func(x float64) Option { return WithBackgroundInverses(whole(x)) },
	func(x float64) Option { return WithMinStatisticsCases(whole(x)) },
	func(x float64) Option { return WithMinModelCases(whole(x)) },
	func(x float64) Option { return WithMaxDim(whole(x)) },
	func(x float64) Option { return WithFullBlocks(whole(x)) },
	func(x float64) Option { return WithLayerStats(whole(x)) },
	func(x float64) Option { return WithDampingAdaptation(whole(x), 0.9) },
	func(x float64) Option { return WithDampingAdaptation(1, x) },
	func(x float64) Option { return WithGammaAdaptation(whole(x), 0.9) },
	func(x float64) Option { return WithGammaAdaptation(2, x) },
	func(x float64) Option { return WithIterateAveraging(x, 1) },
	func(x float64) Option { return WithIterateAveraging(0.5, whole(x)) },
	func(x float64) Option { return WithSeed(uint64(whole(x))) },
	func(x float64) Option {
		return WithWeightSharing([]WeightSharing{Expand, Reduce, AutoSharing, ""}[whole(x)&3])
	},
	func(x float64) Option {
		return WithTimeCorrelation([]TimeCorrelation{TimeSymmetric, TimeStationary, TimeIndependent, "x"}[whole(x)&3])
	},
	func(float64) Option { return WithSpatiallyUncorrelated() },
	func(float64) Option { return WithoutGradientCheck() },
	func(float64) Option { return WithStrict() },
	func(float64) Option { return WithoutReachCheck() },
	func(float64) Option { return WithStats(func(Stats) {}) },
	func(float64) Option { return WithStats(nil) },
	func(float64) Option { return WithBlockTridiagonal() },
	func(float64) Option { return WithEKFAC() },
	func(float64) Option { return WithExactDamping() },
	func(x float64) Option {
		return WithFisherEstimate([]FisherEstimate{SampledFisher, ExactFisher, EmpiricalFisher, "x"}[whole(x)&3])
	},
	func(x float64) Option { return WithFisherSamples(min(whole(x), 50)) },
	func(float64) Option { return WithoutMomentum() },
	func(float64) Option { return WithStepRejection() },
	func(float64) Option { return WithPaperRules() },
	func(float64) Option { return WithUndampedRho() },
	func(float64) Option { return nil },
}

// whole is a number as an int, also one that is out of range.
func whole(x float64) int {
	switch {
	case x >= math.MaxInt64:
		return math.MaxInt64
	case x > math.MinInt64:
		return int(x)
	}
	return math.MinInt64
}

var wildValues = []float64{
	0.5, 1, 2, 3, 0.9, 0, -1, 20, 1e-3, 1e-9, 0.999999, 1e6, 1e18, 1e30, 1e31, 1e300, 1e-30, 5e-324, math.Inf(1),
	math.Inf(-1), math.NaN(), math.MaxFloat64, 1 - 1e-16, math.Copysign(0, -1),
}

// FuzzOptions makes solvers with a set of options, and trains. NewSolver refuses what it refuses
// with a *ConfigError, or ErrStrict, and changes nothing. Any others train, or their steps fail
// with an error that says why and changes nothing.
func FuzzOptions(f *testing.F) {
	for i := range wildOptions {
		f.Add([]byte{byte(i), byte(i), byte(i), byte(i + 1), byte(i + 1), byte(i + 13), 2 * byte(i)})
		f.Add([]byte{byte(i + 1), byte(i), byte(i % 5)})
		f.Add([]byte{byte(i), 0, 15, 3, 18, byte(i), byte(i)}) // huge rates without a constraint
	}
	f.Fuzz(wildSettings)
}

func wildSettings(t *testing.T, code []byte) {
	newNet := func() *testnet.Net {
		return newWildNet([][]byte{
			{0, 0, 3, 0, 2, 0, 1, 18, 0, 2}, {1, 0, 0, 1, 3, 10, 0, 18, 12, 0}, {0, 3, 1, 0, 2, 5, 18, 5, 18, 5},
		}[(&genes{code}).pick(3)])
	}
	var pair [2]*wildTrainer
	for i := range pair {
		g := &genes{code}
		g.pick(3)
		var opts []Option
		for range min(len(g.left)/2, 4) {
			opts = append(opts, oneOf(g, wildOptions)(oneOf(g, wildValues)))
		}
		w := &wildTrainer{}
		w.use(newNet())
		nodes, weights := len(w.Graph.AllNodes()), testnet.Weights(w.Params)
		var err error
		w.solver, err = NewSolver(w.Cost, Declared(w.Net), opts...)
		if err != nil {
			saysEnough(t, err)
			var c *ConfigError
			if !errors.As(err, &c) && !errors.Is(err, ErrStrict) {
				t.Fatalf("%T: %v", err, err)
			}
			if len(w.Graph.AllNodes()) != nodes || !sameBits(weights, testnet.Weights(w.Params)) {
				t.Fatal("a refusal has changed something")
			}
			return
		}
		pair[i] = w
	}
	for k := range 6 {
		var after [2]wildState
		for i, w := range pair {
			w.load(k+1, nil, "")
			testnet.Check(t, w.run())
			before := w.state()
			err := wildCalls[min(k%3, 1)*(k%2)](w)
			after[i] = w.state()
			if err == nil {
				w.sound(t)
				continue
			}
			saysEnough(t, err)
			if !before.same(after[i]) {
				t.Fatalf("%v has changed %+v to %+v", err, before, after[i])
			}
			testnet.ZeroGradients(w.Params)
		}
		if !sameBits(after[0].weights, after[1].weights) || !SameStats(after[0].stats, after[1].stats) {
			t.Fatalf("%+v, twin %+v", after[0], after[1])
		}
	}
}
