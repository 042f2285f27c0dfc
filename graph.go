package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A graph holds what the solver knows about one of the user's graphs: its own programs of the cost
// and of the outputs, and the scale of the cost. Everything else in a Solver is kept from graph to
// graph.
type graph[T program.Float] struct {
	cost    *gorgonia.Node
	heads   []head
	whole   *program.Program // program of the cost, for the checks and the objective
	costRun *program.Run[T]  // run of whole; made when first needed
	models  []*model[T]      // made so far
	seed    uint64

	machine *machine[T] // the solver's own VM, if it has been asked for one

	used   bool            // a RunAll of this graph was used by a Step or Accumulate
	tail   *lossTail[T]    // tail of the cost; made at the first RunAll
	loaded *measurement[T] // with which a state was loaded into this graph, before the first RunAll
	units

	blockForm            // of the hessians
	hessians  []*hessian // of the chunks of an update

	saved []*program.Inputs[T] // inputs of the chunks of an update
	drawn program.Inputs[T]    // numbers of Dropout and random nodes, for the private runs
}

// units converts the user's cost to the solver's objective.
type units struct {
	scales  []float64 // c of each output, from the first RunAll; until then, those of the previous graph
	weights []float64 // of each output in the objective: its scale divided by the largest scale
	weighting
}

// scale returns the largest c, that of the outputs which count in full in the objective.
func (u units) scale() (largest float64) {
	for _, c := range u.scales {
		largest = max(largest, c)
	}
	return largest
}

// measured returns the units for the given scales. A scale that equals the previous graph's scale
// up to rounding is replaced by it. Then the steps agree to the last bit.
func (u units) measured(scales []float64, w weighting, rounding float64) units {
	new := units{make([]float64, len(scales)), make([]float64, len(scales)), w}
	for i, s := range scales {
		if i < len(u.scales) && math.Abs(s-u.scales[i]) <= rounding*s {
			s = u.scales[i]
		}
		new.scales[i] = s
	}
	for i, s := range new.scales {
		new.weights[i] = s / new.scale()
	}
	return new
}

// likeFirst returns the units with rank 0's scales where these are the same up to rounding, so that
// ranks that go on from rank 0's state go on with the same bits. The outputs have rank 0's weights.
func (u units) likeFirst(scales []float64, rounding float64) units {
	if len(scales) != len(u.scales) || slices.Equal(scales, u.scales) {
		return u
	}
	like := units{scales: scales}.measured(u.scales, u.weighting, rounding)
	for i, s := range scales {
		like.weights[i] = s / slices.Max(scales)
	}
	return like
}

// A model is the solver's own program of a graph's outputs. An output that is a vector can have two
// meanings; each has its own model.
type model[T program.Float] struct {
	*program.Program
	run     *program.Run[T] // that holds the last forward pass: whole, or part
	whole   *program.Run[T]
	part    *program.Run[T] // of cases that whole holds; made when first needed
	held    held
	outputs []*output
	hessian *hessian // at the last outputs; nil if none is declared by the cost
}

// held says that the whole run of a model holds the forward pass of the solver's own VM.
type held struct {
	on   bool
	seed uint64
}

// conditions are what a run of the user's graph depends on, beside the cases.
type conditions[T program.Float] struct {
	inputs *program.Inputs[T] // nil: the present inputs of the user's graph
	seed   uint64             // of Dropout and random nodes
	mode   program.Mode
	anew   bool // what is random draws by the seed, whatever inputs hold
}

// set gives the conditions to a run.
func (c conditions[T]) set(run *program.Run[T]) {
	run.Use(c.inputs)
	run.Reseed(c.seed)
	run.SetMode(c.mode)
	run.DrawAnew(c.anew)
}

// others returns conditions under which other random numbers are drawn.
func (c conditions[T]) others() conditions[T] {
	c.seed, c.anew = ^c.seed, true
	return c
}

// output is a head with its node in a program.
type output struct {
	head
	node *program.Node
	cols int // natural parameters of a row
	rows int // in a case: the positions of a Categorical, else 1

	// The mean diagonal element of the Fisher matrix where it is the same whatever the output is,
	// so that the targets are of one variance, whose inverse it is; else 0.
	precision float64

	z, y []float64 // scratch: natural parameters, targets or residuals
}

// perCase returns the number of natural parameters of a case.
func (o *output) perCase() int { return o.rows * o.cols }

func newGraph[T program.Float](cost *gorgonia.Node, heads []head, seed uint64) (*graph[T], error) {
	g := &graph[T]{cost: cost, heads: heads, seed: seed}
	var err error
	if g.whole, err = program.New([]*gorgonia.Node{cost}); err != nil {
		return nil, graphError(err)
	}
	p, err := program.NewOf(outputsOf(heads))
	if err != nil {
		return nil, graphError(err)
	}
	for _, h := range heads {
		for _, n := range h.as().Nodes {
			if g.whole.Node(n) == nil {
				return nil, notInCost(h, n)
			}
		}
	}
	if err := nothingEmpty(g.whole); err != nil {
		return nil, err
	}
	_, err = g.model(p)
	return g, err
}

// nothingEmpty returns an error if a node of the cost's program has no elements. Gorgonia builds
// such graphs, and its VM panics in a goroutine of its own when it runs them.
func nothingEmpty(whole *program.Program) error {
	for _, n := range whole.Nodes {
		if n.Size() == 0 {
			what := "reading its shape, " + program.FormatShape(n.Shape)
			return &GraphError{Node: n.Name(), What: what, Err: ErrEmpty,
				Hint: "a parameter needs elements, a layer units, and a batch at least one case"}
		}
	}
	return nil
}

// model returns the model of a program of the outputs, and makes it if necessary.
func (g *graph[T]) model(p *program.Program) (*model[T], error) {
	for _, m := range g.models {
		if m.Program == p {
			return m, nil
		}
	}
	m := &model[T]{Program: p}
	for i, h := range g.heads {
		o := &output{head: h, node: p.Outputs[i], cols: columns(p, p.Outputs[i]), rows: 1}
		if n := h.together(); n > 0 {
			o.rows, o.cols = o.cols/n, n
		}
		o.precision = precisionOf(h, o.cols)
		m.outputs = append(m.outputs, o)
	}
	var err error
	if m.whole, err = program.NewRun[T](p, g.seed); err != nil {
		return nil, graphError(err)
	}
	m.run = m.whole
	g.models = append(g.models, m)
	return m, nil
}

// precisionOf returns the precision of an output whose likelihood has so many columns. It is exact
// where targets are independent, and else an estimate of the mean.
func precisionOf(l likelihood.Likelihood, cols int) (precision float64) {
	const signs = 8
	rng := rand.New(rand.NewPCG(1, 1))
	v, at := make([]float64, cols), [2][]float64{make([]float64, cols), make([]float64, cols)}
	z := [2][]float64{make([]float64, cols), make([]float64, cols)}
	for range signs {
		for j := range v {
			v[j] = float64(1 - 2*rng.IntN(2))
			z[0][j], z[1][j] = rng.NormFloat64(), rng.NormFloat64()
		}
		for i := range z {
			l.FisherProduct(at[i], v, z[i], cols)
		}
		if !slices.Equal(at[0], at[1]) {
			return 0
		}
		precision += floats.Dot(v, at[0]) / float64(signs*cols)
	}
	return precision
}

// columns returns the number of natural parameters per case of an output n of p.
func columns(p *program.Program, n *program.Node) int {
	if dims := len(n.Shape); dims == 0 || dims == 1 && !p.VectorCases {
		return n.Size()
	}
	cols := 1
	for _, d := range n.Shape[1:] {
		cols *= d
	}
	return cols
}

// modelFor returns the model with the right meaning of outputs that are vectors, given the
// parameters. A vector holds one number for each case, as in Mul(X, theta), or all numbers of a
// single case, as in Mul(w, x). modelFor takes the first meaning if no parameter then has separate
// elements for each case. The classes of a Categorical always have the second meaning.
func (g *graph[T]) modelFor(params []*gorgonia.Node) (*model[T], error) {
	vectors := false
	for _, h := range g.heads {
		vectors = vectors || len(h.as().Shape()) == 1 && h.together() == 0
	}
	m, err := g.with(vectors)
	if err != nil || !vectors {
		return m, err
	}
	for _, n := range params {
		if leaf := m.Node(n); leaf != nil && (m.Whole != "" || leaf.CaseAxis >= 0) {
			return g.with(false)
		}
	}
	return m, nil
}

// with returns the model in which a vector output has one number for each case (vectors), or all
// numbers of one case.
func (g *graph[T]) with(vectors bool) (*model[T], error) {
	for _, m := range g.models {
		if m.VectorCases == vectors {
			return m, nil
		}
	}
	p, err := g.models[0].WithVectorCases(vectors)
	if err != nil {
		return nil, graphError(err)
	}
	return g.model(p)
}

// random reports whether the cost draws random numbers.
func (g *graph[T]) random() bool {
	return slices.ContainsFunc(g.whole.Nodes, func(n *program.Node) bool { return program.Draws(n.Op) })
}

// trainable returns an error if a node given to Step is not a parameter of the cost.
func (g *graph[T]) trainable(n *gorgonia.Node) error {
	hint := ""
	leaf := g.models[0].Node(n)
	if leaf == nil {
		leaf = g.whole.Node(n)
	}
	switch {
	case n.Graph() != g.cost.Graph():
		hint = "it belongs to another graph than the cost; Attach goes on with another graph"
	case leaf == nil:
		hint = "the cost does not depend on it; leave it out of the list, or let WithoutReachCheck do so"
	case !leaf.IsLeaf() || n.Op() != nil:
		hint = "it is computed or constant, not an input of the graph"
	default:
		return nil
	}
	return &ParamError{Param: program.NameOf(n), Op: "looking it up in the graph", Hint: hint, Err: ErrForeign}
}

// guessParameters lists the parameters before the first Step names them.
func (g *graph[T]) guessParameters() []*gorgonia.Node {
	var out []*gorgonia.Node
	m := g.models[0]
	for _, n := range layers.Parameters(m.Program) {
		out = append(out, n.Src)
	}
	for _, n := range g.whole.Nodes { // parameters that only other terms of the cost depend on
		if n.IsLeaf() && n.Src.Op() == nil && n.Src.Deriv() != nil && m.Node(n.Src) == nil {
			out = append(out, n.Src)
		}
	}
	return out
}

// byCost reports whether an output is declared by the cost.
func (m *model[T]) byCost() bool {
	return slices.ContainsFunc(m.outputs, func(o *output) bool { return o.byCost })
}

// bounded reports whether the likelihood of all outputs is bounded.
func (m *model[T]) bounded() bool {
	for _, o := range m.outputs {
		if !o.bounded() {
			return false
		}
	}
	return true
}

// forward runs the model on the cases in rows, or on all cases if rows is nil, and reads its
// outputs. It takes from the run of the solver's own VM what that has computed.
func (m *model[T]) forward(c conditions[T], rows []int) (err error) {
	m.run = m.whole
	switch own := m.held.on && m.held.seed == c.seed && c.inputs == nil; {
	case own && rows == nil:
	case own:
		if m.part == nil {
			if m.part, err = program.NewRun[T](m.Program, c.seed); err != nil {
				return graphError(err)
			}
		}
		m.run = m.part
		err = m.part.ForwardFrom(m.whole, rows)
	default:
		m.held.on = false
		c.set(m.run)
		err = m.run.Forward(rows)
	}
	if err != nil {
		return graphError(err)
	}
	for _, o := range m.outputs {
		if err := readOutput(o, m.run.Value(o.node).Data); err != nil {
			return err
		}
	}
	return nil
}

// readOutput reads the natural parameters z.
func readOutput[T program.Float](o *output, z []T) error {
	o.z, o.y = linalg.Resized(o.z, len(z)), linalg.Resized(o.y, len(z))
	linalg.Convert(o.z, z)
	if linalg.Finite(z) {
		return nil
	}
	return &GraphError{Node: program.NameOf(o.output()), What: "reading the model's output", Err: ErrNotFinite,
		Hint: "a NaN or an infinity in the input or in the weights, or an overflow in between"}
}

// costs returns the run of the cost, which is made when it is first needed.
func (g *graph[T]) costs() (_ *program.Run[T], err error) {
	if g.costRun == nil {
		g.costRun, err = program.NewRun[T](g.whole, g.seed)
	}
	return g.costRun, err
}

// ownCost returns the cost by the solver's own program, in the user's units, of what the graph
// holds now. What inputs have comes first.
func (g *graph[T]) ownCost(inputs *program.Inputs[T]) (float64, error) {
	run, err := g.costs()
	if err != nil {
		return 0, graphError(err)
	}
	conditions[T]{inputs: inputs, seed: g.seed}.set(run)
	if err := run.Forward(nil); err != nil {
		return 0, graphError(err)
	}
	return g.costOf(run), nil
}

// costOf returns the cost in a run of its program.
func (g *graph[T]) costOf(run *program.Run[T]) float64 {
	return float64(run.Value(g.whole.Outputs[0]).Data[0])
}

// A lossTail is the solver's own program from the outputs to the cost. The outputs are its inputs.
type lossTail[T program.Float] struct {
	run    *program.Run[T]
	cost   *program.Node
	leaves []*program.Node  // inputs of the program that replace the outputs
	inputs []*gorgonia.Node // other inputs of it: targets, and what other terms of the cost depend on
	path   program.Path
	seeds  []program.Seed[T]
	movers []mover[T]
	varies bool   // the factors have changed, though no mover has
	masked bool   // an input with a row for each case is multiplied with what depends on the outputs
	weighs []bool // by output: its weights are measured
	whole  [][]T  // by output: scratch of spreadOut

	directions []program.Seed[T] // scratch of curve
	slope, far []T               // scratch of meanDistance

	terms struct { // of pathOfTerms
		leaves      []*program.Node
		path, inner program.Path
	}
}

// sweep runs the tail forward from the values bound to the leaves, and backward.
func (t *lossTail[T]) sweep(seed T) error {
	if err := t.run.Forward(nil); err != nil {
		return err
	}
	return t.run.Reverse([]program.Seed[T]{{Node: t.cost, Data: []T{seed}}}, t.path)
}

// put gives the leaves the values of the outputs in run.
func (t *lossTail[T]) put(run *program.Run[T], outputs []*output) error {
	for i, leaf := range t.leaves {
		if err := t.run.Bind(leaf, run.Value(outputs[i].node).Data); err != nil {
			return err
		}
	}
	return nil
}

// value returns the cost at the values of the outputs in run.
func (t *lossTail[T]) value(run *program.Run[T], outputs []*output) (float64, error) {
	if err := t.put(run, outputs); err != nil {
		return 0, err
	}
	err := t.run.Forward(nil)
	return t.swept(), err
}

// value0 returns the cost of the last sweep.
func (t *lossTail[T]) swept() float64 { return float64(t.run.Value(t.cost).Data[0]) }

// gradients returns the gradients of scale times the cost with respect to the outputs, at the
// values of the outputs in run.
func (t *lossTail[T]) gradients(run *program.Run[T], outputs []*output, scale T) ([]program.Seed[T], error) {
	if err := t.put(run, outputs); err != nil {
		return nil, err
	}
	if err := t.sweep(scale); err != nil {
		return nil, err
	}
	t.seeds = t.seeds[:0]
	for i, leaf := range t.leaves {
		t.seeds = append(t.seeds, program.Seed[T]{Node: outputs[i].node, Data: t.run.Gradient(leaf)})
	}
	return t.seeds, nil
}

// variances returns the mean squared residual of each output, in units of the declared variance, on
// the cases in rows, or on all if rows is nil: a sum over cases and what divides it. It is 1 for an
// output of discrete variables, and for absolute errors the square of their mean. The run of the
// model holds the forward pass of these cases.
//
// The residual follows from the cost's gradient with respect to the output, c (mean - target) in
// these units, which for a case does not depend on what the others predict.
func (g *graph[T]) variances(m *model[T], rows []int) ([]ratio, error) {
	made := make([]ratio, len(m.outputs))
	discrete := true
	for i, o := range m.outputs {
		made[i] = ratio{sum: 1, n: 1}
		discrete = discrete && o.Discrete()
	}
	if discrete {
		return made, nil
	}
	t := g.tail
	if err := t.sweepFrom(m, rows); err != nil {
		return nil, err
	}
	for i, o := range m.outputs {
		if o.ownScale() && g.scales[i] > 0 {
			distance, err := t.meanDistance(m, i, rows)
			if err != nil {
				return nil, err
			}
			n := float64(len(o.z))
			g.each(i, rows, o.perCase(), func(_ int, w float64) { n += w - 1 })
			made[i] = ratio{distance * n, n, true}
			if err := t.sweepFrom(m, rows); err != nil { // for the outputs that follow
				return nil, err
			}
		} else if o.byCost {
			made[i].sum, made[i].n = m.hessian.unit()
		} else if o.precision > 0 && g.scales[i] > 0 && !o.policy {
			grad, n := t.of(i, rows, o.perCase()), float64(len(o.z))
			g.each(i, rows, o.perCase(), func(j int, w float64) {
				if w > 0 {
					grad[j] /= T(math.Sqrt(w))
				}
				n += w - 1
			})
			residual := linalg.Norm(grad) / g.scales[i]
			made[i] = ratio{sum: residual * residual, n: o.precision * n}
		}
	}
	return made, nil
}

// meanDistance returns the mean of |z-y| at output i, each with its weight, where the cost is a sum
// of these. The tail holds the sweeps at z. With all entries moved beyond their targets, by t in
// the direction against their gradients, |z-y| has become t - |z-y|.
func (t *lossTail[T]) meanDistance(m *model[T], i int, rows []int) (float64, error) {
	o := m.outputs[i]
	t.slope = append(t.slope[:0], t.of(i, rows, o.perCase())...)
	grad := t.slope
	slopes, reach := 0.0, largestOf(o.z)
	for _, g := range grad {
		slopes += math.Abs(float64(g))
	}
	if slopes == 0 {
		return 0, nil
	}
	if reach == 0 {
		reach = 1
	}
	before := t.swept()
	t.far = linalg.Resized(t.far, len(o.z))
	moved := t.far
	for range distances {
		for j, g := range grad {
			moved[j] = T(o.z[j])
			if g != 0 {
				moved[j] -= T(math.Copysign(reach, float64(g)))
			}
		}
		if err := t.run.Bind(t.leaves[i], t.spreadOut(i, moved, o.perCase(), rows)); err != nil {
			return 0, graphError(err)
		}
		if err := t.sweep(1); err != nil {
			return 0, graphError(err)
		}
		value, beyond := t.swept(), true
		for j, g := range t.of(i, rows, o.perCase()) {
			beyond = beyond && float64(g)*float64(grad[j]) <= 0
		}
		if beyond {
			return math.Max(0, (before-value)/slopes+reach) / 2, nil
		}
		reach *= farther
	}
	return 0, nil
}

// meanDistance goes farther by this factor, and so many times at most.
const farther, distances = 20, 30

// sweepFrom sweeps from the outputs of the model's run of the cases in rows, or of all if rows is
// nil, to the cost and back.
func (t *lossTail[T]) sweepFrom(m *model[T], rows []int) error {
	if err := t.bindOutputs(m, rows); err != nil {
		return graphError(err)
	}
	return graphError(t.sweep(1))
}

// bindOutputs binds the outputs of the model's run, as sweepFrom has them, to the leaves.
func (t *lossTail[T]) bindOutputs(m *model[T], rows []int) error {
	for i, leaf := range t.leaves {
		o := m.outputs[i]
		if err := t.run.Bind(leaf, t.spreadOut(i, m.run.Value(o.node).Data, o.perCase(), rows)); err != nil {
			return err
		}
	}
	return nil
}

// A ratio is a mean whose parts are added up by themselves.
type ratio struct {
	sum, n  float64
	squared bool // what is meant is its square
}

// value is 1 where there is nothing to tell it by.
func (r ratio) value() float64 {
	v := r.sum / r.n
	switch {
	case r.n == 0:
		return 1
	case r.squared:
		return v * v
	}
	return v
}

// values are those of some ratios.
func values(list []ratio) []float64 {
	v := make([]float64, len(list))
	for i, r := range list {
		v[i] = r.value()
	}
	return v
}

// spreadOut returns the values of an output for the cases in rows as those of the whole batch, with
// zeros for the other cases.
func (t *lossTail[T]) spreadOut(output int, z []T, cols int, rows []int) []T {
	if rows == nil {
		return z
	}
	for len(t.whole) < len(t.leaves) {
		t.whole = append(t.whole, make([]T, t.leaves[len(t.whole)].Size()))
	}
	whole := t.whole[output]
	clear(whole)
	for i, r := range rows {
		copy(whole[r*cols:(r+1)*cols], z[i*cols:(i+1)*cols])
	}
	return whole
}

// of returns the gradients with respect to an output for the cases in rows, or for all if rows is
// nil.
func (t *lossTail[T]) of(output int, rows []int, cols int) []T {
	grad := t.run.Gradient(t.leaves[output])
	if rows == nil {
		return grad
	}
	for i, r := range rows { // into what spreadOut has bound, which is not needed any more
		copy(t.whole[output][i*cols:(i+1)*cols], grad[r*cols:(r+1)*cols])
	}
	return t.whole[output][:len(rows)*cols]
}

// costValue returns the value that the VM left in the cost node, or NaN.
func costValue(cost *gorgonia.Node) float64 {
	v := cost.Value()
	if v == nil || v.Shape().TotalSize() != 1 {
		return math.NaN()
	}
	switch x := v.Data().(type) {
	case float64:
		return x
	case float32:
		return float64(x)
	case []float64:
		return x[0]
	case []float32:
		return float64(x[0])
	}
	return math.NaN()
}

// rounding returns the relative rounding error to expect of a gradient computed in T.
func rounding[T program.Float]() float64 {
	if _, ok := any(T(0)).(float32); ok {
		return 1e-4
	}
	return 1e-10
}

// graphError converts an error of package program to a *GraphError.
func graphError(err error) error {
	if err == nil {
		return nil
	}
	var op *program.OpError
	if errors.As(err, &op) {
		hint := "call RunAll before Step, and give every input a value of the graph's shape and dtype"
		if op.What != "read" && op.What != "bind" {
			hint = "the solver runs the ops of the graph privately, besides the VM: does this one keep state from " +
				"call to call, or fail for some of the values, or for a part of the batch?"
		}
		return &GraphError{Node: op.Node, What: fmt.Sprintf("%s of %s", op.What, op.Op), Err: op.Err, Hint: hint}
	}
	return &GraphError{Node: "?", What: "running the model privately", Err: err,
		Hint: "does the graph hold nodes of another graph, or of another dtype than its cost?"}
}

// notTrained reports outputs that depend on no parameter, such as the targets of a squared error.
func notTrained(h head) error {
	return &LossError{Output: h.name(), Expected: "an output that depends on parameters",
		Found: "one that depends on none of those given to Step",
		Hint:  "give the node that the model predicts, not the targets, and the model's parameters to Step"}
}

func notInCost(h head, n *gorgonia.Node) error {
	return &GraphError{Node: program.NameOf(n), What: "looking for the output among the ancestors of the cost",
		Err: ErrLoss, Hint: h.name() + " declares an output that the cost does not depend on; " +
			"give the node that the cost is computed from"}
}

// wrongDropout returns a Dropout whose gradient Gorgonia v0.9.18 gets wrong, or nil. It divides
// what was kept by p, where 1-p is right, while training or not.
func wrongDropout(p *program.Program) *program.Node {
	for _, n := range p.Nodes {
		if d, ok := n.Op.(program.Dropout); ok {
			if p, training := d.Settings(); p != 0.5 || !training {
				return n
			}
		}
	}
	return nil
}

// A mover is an input that may change a factor, with the value at which it was measured.
type mover[T program.Float] struct {
	leaf *program.Node
	last []T
}

// A measurement is that of a cost's scales, and what they were measured at, so that the graph of a
// loaded state goes on with the same ones as long as they are right.
type measurement[T program.Float] struct {
	scales []float64
	there  bool // the scales are those of this graph, not of the one before
	cases  int
	movers [][]T // their values
	varies bool
	weighs []bool
	blocks blockForm // of the hessians
}
