package kfac

import (
	"fmt"
	"math"
	"slices"
	"time"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

var _ gorgonia.Solver = (*Solver)(nil)

// A Solver trains the parameters of a Gorgonia model by K-FAC. It takes the place of gorgonia.NewAdamSolver and its like:
//
//	solver, err := kfac.NewSolver(cost, kfac.Categorical(logits))
//	...
//	err = vm.RunAll()
//	err = solver.Step(gorgonia.NodesToValueGrads(params))
//	vm.Reset()
//
// A Solver is not for concurrent use.
type Solver struct {
	cfg    config
	plan   Plan
	stats  Stats
	engine engine
}

// engine is a conductor of either dtype.
type engine interface {
	attach(cost *gorgonia.Node, heads []head) error
	accumulate(model []gorgonia.ValueGrad) error
	step(model []gorgonia.ValueGrad) (Stats, error)
	useAverage() (restore func(), err error)
	describe() Plan
}

// NewSolver attaches to the graph of cost, a scalar node whose ancestors hold the model. dist declares the predictive
// distribution of the model's output, of which the cost must be the negative log-likelihood, up to a positive factor and
// to terms that do not depend on the output (a weight decay, say). It reads the graph and adds nothing to it, before or
// after Grad was called and the VM was made.
//
// The errors are *ConfigError for an argument, *GraphError for a graph that can't be run privately, and ErrStrict.
func NewSolver(cost *gorgonia.Node, dist Distribution, opts ...Option) (*Solver, error) {
	cfg := defaults()
	for _, o := range opts {
		if o == nil {
			return nil, &ConfigError{"option", "nil", "an option of this package"}
		}
		if err := o(&cfg); err != nil {
			return nil, err
		}
	}
	if err := cfg.settle(); err != nil {
		return nil, err
	}
	heads, err := headsOf(dist, cost)
	if err != nil {
		return nil, err
	}
	s := &Solver{cfg: cfg}
	switch dt := heads[0].output().Dtype(); dt {
	case tensor.Float32:
		s.engine, err = newConductor[float32](cost, heads, cfg)
	case tensor.Float64:
		s.engine, err = newConductor[float64](cost, heads, cfg)
	default:
		err = &ConfigError{heads[0].name(), fmt.Sprintf("an output of %v", dt), "float32 or float64"}
	}
	if err != nil {
		return nil, err
	}
	s.plan = s.engine.describe()
	return s, nil
}

// headsOf are the declared outputs of a cost, checked by themselves, as is the cost.
func headsOf(dist Distribution, cost *gorgonia.Node) ([]head, error) {
	if cost == nil {
		return nil, &ConfigError{"cost", "nil", "the scalar node that is minimised"}
	}
	if len(cost.Shape()) != 0 && cost.Shape().TotalSize() != 1 {
		return nil, &ConfigError{"cost", fmt.Sprintf("node %q of shape %v", cost.Name(), cost.Shape()), "a scalar (take its Mean or Sum)"}
	}
	if dist == nil || len(dist.heads()) == 0 {
		return nil, &ConfigError{"distribution", "none", "Categorical, Bernoulli, Gaussian or a Joint of them"}
	}
	heads := dist.heads()
	for i, h := range heads {
		if err := h.err(); err != nil {
			return nil, &ConfigError{h.name(), err.Error(), "a predictive distribution of one of the model's outputs"}
		}
		if h.output().Graph() != cost.Graph() {
			return nil, &ConfigError{h.name(), "a node of another graph", "an ancestor of the cost"}
		}
		for _, other := range heads[:i] {
			if other.output() == h.output() {
				return nil, &ConfigError{h.name(), "an output declared twice", "each output once"}
			}
		}
	}
	return heads, nil
}

// Attach goes on with another graph of the same model, of which cost and dist are as in NewSolver. It is for graphs that are built again for each batch,
// each sequence or each step:
//
//	for _, sequence := range data {
//		... build its graph, with the parameters' nodes on the same tensors ...
//		err = solver.Attach(cost, dist)
//		err = gorgonia.NewLispMachine(graph).RunAll()
//		err = solver.Step(params)
//	}
//
// A parameter is the same if name and shape are, so names must tell the parameters of a graph apart. It goes on with its previous update, its iterate average
// and, where its layer has the same form, the factors and inverses, however often the layer is used and whatever the number of cases; damping, counters and
// seeds go on too. A parameter that the graph lacks keeps its state for a graph that has it; one that is new starts afresh.
//
// The weights are those of the user's nodes, which should have the same tensor in every graph: WithValue(old.Value()). A copy of the same numbers does as
// well, but only those in the graph attached last are written to. Other numbers are ErrOtherWeights at the next Step or Accumulate.
//
// The first RunAll of each graph finds the scale of its cost anew, with the loss check. So the objective is the mean over cases of the negative log-likelihood,
// whether the cost is a sum or a mean over them. The output of a graph without a batch dimension is one case; so is a sequence with an output at each time, in a
// Joint, and its negative log-likelihood is the sum over these, though the cost may be their mean. Gradients are checked at the first two RunAlls, and then at the
// fourth, the eighth and so on where that is a graph's first.
//
// Between the calls of Accumulate and Step for one update, Attach lets the chunks come from different graphs, which are let go of when the update is done.
//
// If Attach returns an error nothing has changed, and the solver is attached to the graph that it had. The errors are those of NewSolver, *GraphError too where the
// graph has none of the parameters, and *ParamError with ErrSameName.
func (s *Solver) Attach(cost *gorgonia.Node, dist Distribution) error {
	heads, err := headsOf(dist, cost)
	if err != nil {
		return err
	}
	if err := s.engine.attach(cost, heads); err != nil {
		return err
	}
	s.plan = s.engine.describe()
	return nil
}

// Plan says what is done with every parameter. Before the first Step it covers the parameters that Grad was called for, or, if it was
// called for none, those that look like parameters; the first Step settles it.
func (s *Solver) Plan() Plan { return s.plan }

// Stats tells what the last successful Step did.
func (s *Solver) Stats() Stats { return s.stats }

// Step updates the parameters in model, in place, from the gradients that the last RunAll left with them, and zeroes these gradients.
// The elements are the *gorgonia.Node of parameters of the cost, in any order. State belongs to the parameter, so that
// a subset may be given; the others stay as they are.
//
// If it returns an error no weight, no gradient and no state of the solver has changed. To go on with another batch, zero the
// gradients: with BindDualValues the next RunAll adds to them. The errors are *ParamError,
// *GraphError, *LayerError, *LossError and *GradientError; errors.Is finds the sentinels ErrNotFinite and so on in them.
func (s *Solver) Step(model []gorgonia.ValueGrad) error {
	start := time.Now()
	stats, err := s.engine.step(model)
	if err != nil {
		return err
	}
	stats.Time.Total = time.Since(start)
	s.stats = stats
	s.plan = s.engine.describe()
	if s.cfg.onStats != nil {
		s.cfg.onStats(stats)
	}
	return nil
}

// Accumulate takes in the gradients that the last RunAll left with the parameters, and what the solver wants to know of its cases, as a part of a
// larger batch, and zeroes these gradients. The weights stay. So a batch of any size runs through a graph of a fixed one, in chunks:
//
//	for i := range chunks {
//		... fill the graph's inputs with chunk i ...
//		err = vm.RunAll()
//		if i < chunks-1 {
//			err = solver.Accumulate(params)
//		} else {
//			err = solver.Step(params) // for all chunks together
//		}
//		vm.Reset()
//	}
//
// The update is that of the mean over all chunks' cases. What changes from chunk to chunk must be the graph's inputs, of which a copy is kept until Step, or the
// graph (see Attach). The list must be the same in all calls for one update. The errors are those of Step; a chunk that makes one does not count, and those before
// it do.
func (s *Solver) Accumulate(model []gorgonia.ValueGrad) error {
	if err := s.engine.accumulate(model); err != nil {
		return err
	}
	s.plan = s.engine.describe()
	return nil
}

// UseAverage puts the averaged weights of WithIterateAveraging into the parameters, to evaluate the model with them, and returns a function that
// puts back those being trained. Until that is called, Step and Accumulate return an error. The error is a *ConfigError without
// WithIterateAveraging or before the average has begun.
func (s *Solver) UseAverage() (restore func(), err error) { return s.engine.useAverage() }

// conductor calls the parts of a step in order.
type conductor[T program.Float] struct {
	cfg config

	*graph[T] // that it is attached to
	sampler   *sampler[T]
	quadratic *quadratic[T]
	objective *objective[T]

	// State, with that of the parameters and their blocks.
	control    control
	background background[T]
	steps      int             // done
	runs       int             // RunAlls that were taken in
	rebuilt    bool            // there has been another graph
	oneHot     map[string]bool // by weight: its inputs are one-hot rows; settled by the first RunAll
	averaged   bool            // the parameters hold the average, until it is restored

	// Of the update in progress.
	chunks    []chunk[T]           // that were accumulated
	variables float64              // of a case, in the mean
	fresh     float64              // the objective as the user's VM has it, or NaN
	lowRank   []*kroneckerBlock[T] // that have taken the gradients of their outputs
}

func newConductor[T program.Float](cost *gorgonia.Node, heads []head, cfg config) (*conductor[T], error) {
	g, err := newGraph[T](cost, heads, cfg.seed)
	if err != nil {
		return nil, err
	}
	c := &conductor[T]{cfg: cfg, graph: g, sampler: newSampler[T](), quadratic: &quadratic[T]{}, objective: &objective[T]{seed: cfg.seed}}
	c.control = control{lambda: cfg.damping, gamma: gamma(cfg.damping, cfg.l2)}
	return c, c.makePlan(c.guessParameters())
}

func (c *conductor[T]) describe() Plan {
	plan := c.plan
	for _, n := range c.unreached {
		row := ParamPlan{Name: n.Name(), Shape: n.Shape(), Treatment: Unreached, Reason: "the cost does not depend on it, so it stays as it is"}
		plan.Params = append(slices.Clip(plan.Params), row)
	}
	return plan
}

// guessParameters lists the parameters before any Step says which they are.
func (c *conductor[T]) guessParameters() []*gorgonia.Node {
	var out []*gorgonia.Node
	for _, n := range layers.Parameters(c.model) {
		out = append(out, n.Src)
	}
	for _, n := range c.whole.Nodes { // those that only other terms of the cost depend on
		if n.IsLeaf() && n.Src.Op() == nil && n.Src.Deriv() != nil && c.model.Node(n.Src) == nil {
			out = append(out, n.Src)
		}
	}
	return out
}

// step does one step; see Solver.Step. Everything up to commit can fail and changes nothing.
func (c *conductor[T]) step(model []gorgonia.ValueGrad) (st Stats, err error) {
	defer c.replanOnFailure(c.planned, &err)
	w := stopwatch{last: time.Now()}
	last, err := c.takeIn(&st, model, &w)
	if err != nil {
		return st, err
	}
	c.chooseLowRank()
	if err := c.takeErrors(); err != nil {
		return st, err
	}
	w.lap(&st.Time.Capture)
	chunks := append(c.chunks, last)
	st.Step, st.Scale = c.steps+1, c.scale
	c.variables = summarise(&st, chunks)
	st.GradNorm = c.objectiveGradient(st.Cases)
	w.lap(&st.Time.Gradients)
	refresh := c.refreshes(st.Step)
	settle := refresh || c.cfg.learningRate == 0 && c.searchesGamma(st.Step)
	for _, b := range c.blocks {
		if err := b.average(c.cfg.ema, settle); err != nil {
			return st, err
		}
	}
	w.lap(&st.Time.Factors)
	c.confirmErrors()
	w.lap(&st.Time.Precondition)

	next := c.control
	if c.cfg.learningRate == 0 {
		err = c.modelStep(&st, &next, chunks, refresh, &w)
	} else {
		err = c.fixedStep(&st, &next, refresh, &w)
	}
	if err != nil {
		return st, err
	}
	c.commit(&st, next, &w)
	clear(chunks) // lets go of their graphs
	c.chunks = chunks[:0]
	w.lap(&st.Time.Update)
	return st, nil
}

// control is what damping.go decides, as it goes from step to step.
type control struct {
	lambda, gamma float64
	noise         noise
	off           float64 // the most that the VM's objective has differed from our own by, relative to it; 0 if they have not been compared
}

// stopwatch adds the time since its last reading to a phase.
type stopwatch struct{ last time.Time }

func (w *stopwatch) lap(d *time.Duration) {
	now := time.Now()
	*d += now.Sub(w.last)
	w.last = now
}

// fixedStep goes as far as learning rate, momentum and norm constraint say.
func (c *conductor[T]) fixedStep(st *Stats, next *control, refresh bool, w *stopwatch) error {
	st.Damping, st.Gamma = next.lambda, next.gamma
	if err := c.direction(st, next.gamma, refresh, w); err != nil {
		return err
	}
	st.LearningRate, st.Momentum = c.cfg.learningRate, c.cfg.momentum
	return c.proposeFixed(st)
}

// direction computes the preconditioned gradient, with new inverses of all blocks if refresh, or else of those that have one from the background.
func (c *conductor[T]) direction(st *Stats, gamma float64, refresh bool, w *stopwatch) error {
	if refresh {
		raised, err := c.invert(gamma)
		if err != nil {
			return err
		}
		st.InverseUpdated, st.DampingRaised = true, raised
	} else {
		raised, found, err := c.takeUp(st.Step)
		if err != nil {
			return err
		}
		st.InverseUpdated, st.DampingRaised = found, raised
	}
	c.background.anew = refresh
	w.lap(&st.Time.Inverses)
	for _, b := range c.blocks {
		b.precondition(gamma, refresh || c.background.due(b, st.Step))
	}
	for _, p := range c.order {
		if p.given && !linalg.Finite(p.dir) {
			return &ParamError{Param: p.name(), Op: "preconditioning", Err: ErrNotFinite, Hint: "raise WithDamping"}
		}
	}
	w.lap(&st.Time.Precondition)
	return nil
}

// replanOnFailure puts the plan from before back if err is one.
func (c *conductor[T]) replanOnFailure(before planned[T], err *error) {
	if *err != nil {
		c.adopt(before)
	}
}

// commit makes the step's statistics, inverses and updates current, and writes the weights, unless the step was rejected.
func (c *conductor[T]) commit(st *Stats, next control, w *stopwatch) {
	for _, b := range c.blocks {
		fresh := c.background.anew || c.background.due(b, st.Step)
		b.keep(fresh)
		if fresh {
			c.background.drop(b)
		}
	}
	w.lap(&st.Time.Factors)
	st.UpdateNorm = math.Sqrt(c.squaredUpdate())
	for _, p := range c.order {
		switch {
		case p.given && st.Rejected:
			clear(p.velocity)
			zeroGradient(p.src)
		case p.given:
			p.write()
		}
	}
	if st.Rejected {
		st.UpdateNorm = 0
	}
	if c.cfg.averaging > 0 && st.Step >= c.cfg.averageFrom {
		c.average()
	}
	for _, p := range c.absent {
		p.block.drop()
	}
	c.control = next
	if c.cfg.backgroundLag > 0 {
		c.background.redo = c.background.redo && !c.background.anew
		c.background.launch(c.blocks, st.Step, c.period, c.cfg.backgroundLag, next.gamma)
	}
	c.steps++
	c.runs++
	c.used = true
}
