package kfac

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

var _ gorgonia.Solver = (*Solver)(nil)

// A Solver trains the parameters of a Gorgonia model by K-FAC. It takes the place of
// gorgonia.NewAdamSolver and its like:
//
//	solver, err := kfac.NewSolver(cost, kfac.Categorical(logits))
//	...
//	err = vm.RunAll()
//	err = solver.Step(gorgonia.NodesToValueGrads(params))
//	vm.Reset()
//
// A Solver is not for concurrent use: a call during another one is an error. A recorder, and the
// function of WithStats, may call what makes no update: Save, Load, Inspect, Set and so on.
type Solver struct {
	cfg    config
	plan   Plan
	stats  Stats
	engine engine

	infers  bool     // attaches by itself; see New
	invalid error    // an option of New
	calling calling  // by what makes an update or a graph; recorders are told within it
	state   calling  // by what reads or writes the state; a recorder may make such calls
	pending *pending // a state for the first graph
	unload  func()   // gives that graph the weights that it had

	hasLogged atomic.Bool

	warnings []Warning
	untold   []Warning // that came after the recorders were told about the last step
	failed   []bool    // by recorder
}

// engine is a training of either dtype.
type engine interface {
	attach(cost *gorgonia.Node, heads []head) error
	accumulate(model []gorgonia.ValueGrad) error
	step(model []gorgonia.ValueGrad, leave bool) (Stats, error)
	useAverage() (restore func(), err error)
	save(a *archive, o stateOptions) error
	load(a *archive, o stateOptions, late bool) (undo func(), err error)
	done() int
	vm(nodes []*gorgonia.Node) (vmEngine, error)
	set(k Knob, v float64) error
	describe() Plan
	inspect() ([]Inspection, error)
	graphOf() *gorgonia.ExprGraph
	mark() (back func())
}

// NewSolver attaches to the graph of cost, a scalar node whose ancestors hold the model. dist
// declares the predictive distribution of the model's output, of which the cost must be the
// negative log-likelihood, up to a positive factor and to terms that do not depend on the output (a
// weight decay, say). It reads the graph and adds nothing to it, before or after Grad was called
// and the VM was made.
//
// The errors are *ConfigError for an argument, *GraphError for a graph that can't be run privately,
// and ErrStrict.
func NewSolver(cost *gorgonia.Node, dist Distribution, opts ...Option) (_ *Solver, err error) {
	defer recovered("NewSolver", &err)
	cfg, err := configured(opts)
	if err != nil {
		return nil, err
	}
	s := &Solver{cfg: cfg}
	if err := s.attach(cost, dist, false); err != nil {
		return nil, err
	}
	return s, nil
}

// configured are the settings that some options make.
func configured(opts []Option) (config, error) {
	cfg := defaults()
	for _, o := range opts {
		if o == nil {
			return cfg, &ConfigError{"option", "nil", "an option of this package"}
		}
		if err := o(&cfg); err != nil {
			return cfg, err
		}
	}
	return cfg, cfg.validate()
}

// attach goes on with the graph of cost. The first one decides about the dtype, and gets the state
// that is pending. late says that it has been run.
func (s *Solver) attach(cost *gorgonia.Node, dist Distribution, late bool) error {
	heads, err := headsOf(dist, cost)
	if err != nil {
		return err
	}
	if s.cfg.estimate == ExactFisher && slices.ContainsFunc(heads, func(h head) bool { return h.byCost }) {
		return &ConfigError{"WithFisherEstimate", "ExactFisher with GaussNewton",
			"another estimate: the columns of several outputs are not swept back together"}
	}
	if err := s.cfg.estimates(heads); err != nil {
		return err
	}
	if s.engine != nil {
		return s.described(s.engine.attach(cost, heads))
	}
	if cost.Dtype() == tensor.Float32 {
		s.engine, err = newEngine[float32](cost, heads, s.cfg)
	} else {
		s.engine, err = newEngine[float64](cost, heads, s.cfg)
	}
	if err == nil {
		if err = s.loadPending(late); err != nil {
			s.engine = nil
		}
	}
	return s.described(err)
}

// pending is a state for a solver of New, that waits for its first graph.
type pending struct {
	file []byte
	*archive
	stateOptions
}

// loadPending puts the solver in the state that is pending, now that it has a graph. late says that
// this was run before.
func (s *Solver) loadPending(late bool) (err error) {
	if s.pending == nil {
		return nil
	}
	if s.unload, err = s.engine.load(s.pending.archive, s.pending.stateOptions, late); err == nil {
		s.pending = nil
	}
	return stateError("Load", err)
}

// described keeps the plan of a graph that it was attached to, unless that has failed.
func (s *Solver) described(err error) error {
	if err == nil {
		s.plan = s.engine.describe()
	}
	return err
}

// headsOf are the declared outputs of a cost, checked by themselves, as is the cost.
func headsOf(dist Distribution, cost *gorgonia.Node) ([]head, error) {
	if cost == nil {
		return nil, &ConfigError{"cost", "nil", "the scalar node that is minimised"}
	}
	if err := checkType(cost); err != nil {
		return nil, &ConfigError{"cost", err.Error(), "a scalar of type float32 or float64"}
	}
	if len(cost.Shape()) != 0 && cost.Shape().TotalSize() != 1 {
		return nil, &ConfigError{"cost", fmt.Sprintf("node %q of shape %v", program.NameOf(cost), cost.Shape()),
			"a scalar (take its Mean or Sum)"}
	}
	if dist == nil || len(partsOf(dist)) == 0 {
		return nil, &ConfigError{"distribution", "none",
			"what the model predicts, such as kfac.Categorical(logits); kfac.New finds it by itself"}
	}
	heads := slices.Clone(partsOf(dist))
	for i, h := range heads {
		if err := h.err(); err != nil {
			return nil, &ConfigError{h.name(), err.Error(), "a predictive distribution of one of the model's outputs"}
		}
		if h.output().Graph() != cost.Graph() {
			return nil, &ConfigError{h.name(), "a node of another graph", "an ancestor of the cost"}
		}
		if dt := h.output().Dtype(); dt != tensor.Float32 && dt != tensor.Float64 {
			return nil, &ConfigError{h.name(), fmt.Sprintf("an output of %v", dt), "float32 or float64"}
		} else if dt != cost.Dtype() {
			got := fmt.Sprintf("an output of %v and a cost of %v", dt, cost.Dtype())
			return nil, &ConfigError{h.name(), got, "the same dtype"}
		}
		for _, other := range heads[:i] {
			declared := func(n *gorgonia.Node) bool { return slices.Contains(other.as().Nodes, n) }
			if slices.ContainsFunc(h.as().Nodes, declared) {
				return nil, &ConfigError{h.name(), "an output declared twice", "each output once"}
			}
		}
	}
	// In the order in which the graph has them, so that their order in a Joint does not matter.
	slices.SortFunc(heads, func(a, b head) int { return cmp.Compare(a.output().ID(), b.output().ID()) })
	return heads, nil
}

// Attach goes on with another graph of the same model, of which cost and dist are as in NewSolver.
// It is for graphs that are built again for each batch, each sequence or each step:
//
//	for _, sequence := range data {
//		... build its graph, with the parameters' nodes on the same tensors ...
//		err = solver.Attach(cost, dist)
//		err = gorgonia.NewLispMachine(graph).RunAll()
//		err = solver.Step(params)
//	}
//
// A parameter is the same if name and shape are, so names must tell the parameters of a graph
// apart. It goes on with its previous update, its iterate average and, where its layer has the same
// form, the factors and inverses, however often the layer is used and whatever the number of cases;
// damping, counters and seeds go on too. A parameter that the graph lacks keeps its state for a
// graph that has it; one that is new starts afresh.
//
// The weights are those of the user's nodes, which should have the same tensor in every graph:
// WithValue(old.Value()). A copy of the same numbers does as well, but only those in the graph
// attached last are written to. Other numbers are ErrOtherWeights at the next Step or Accumulate.
//
// The first RunAll of each graph finds the scale of its cost anew, with the loss check. So the
// objective is the mean over cases of the negative log-likelihood, whether the cost is a sum or a
// mean over them. The output of a graph without a batch dimension is one case; so is a sequence
// with an output at each time, in a Joint, and its negative log-likelihood is the sum over these,
// though the cost may be their mean. The scale is measured again, for each output, where an input
// has changed that it may depend on, such as the weight of a term.
//
// Between the calls of Accumulate and Step for one update, Attach lets the chunks come from
// different graphs, which are let go of when the update is done.
//
// If Attach returns an error nothing has changed, and the solver is attached to the graph that it
// had. The errors are those of NewSolver, *GraphError too where the graph has none of the
// parameters, and *ParamError with ErrSameName.
func (s *Solver) Attach(cost *gorgonia.Node, dist Distribution) (err error) {
	defer recovered("Attach", &err)
	return s.alone("Attach", func() error { return s.attach(cost, dist, false) })
}

// followList is follow for the parameters that Step or Accumulate is given.
func (s *Solver) followList(call string, model []gorgonia.ValueGrad) (back func(), err error) {
	if !s.infers || len(model) > 0 && s.isAttachedTo(model[0]) {
		return func() {}, nil
	}
	nodes, err := listed(model)
	if err != nil {
		return nil, err
	}
	return s.follow(call, nodes)
}

func (s *Solver) isAttachedTo(param gorgonia.ValueGrad) bool {
	n, ok := param.(*gorgonia.Node)
	return ok && n != nil && s.engine != nil && s.engine.graphOf() == n.Graph()
}

// follow attaches a solver of New to the graph of some nodes, parameters or what depends on them,
// if it is not attached to it. back undoes that.
func (s *Solver) follow(call string, nodes []*gorgonia.Node) (back func(), err error) {
	if s.isAttachedTo(nodes[0]) {
		return func() {}, nil
	}
	defer recovered(call, &err)
	cost, err := inferCost(nodes)
	if err != nil {
		return nil, err
	}
	dist, err := inferDistribution(cost, nodes)
	if err != nil {
		return nil, err
	}
	engine, plan, pending := s.engine, s.plan, s.pending
	detach := func() {}
	if engine != nil {
		detach = engine.mark()
	}
	if err := s.attach(cost, dist, call != "VM"); err != nil {
		return nil, err
	}
	unload := func() {}
	if pending != nil {
		unload = s.unload
	}
	return func() {
		detach()
		unload()
		s.engine, s.plan, s.pending = engine, plan, pending
	}, nil
}

// calling is held by the call in progress, of which there may be but one.
type calling struct{ on atomic.Bool }

// begin reports a call during another one. Otherwise end has to follow.
func (c *calling) begin(call string) error {
	if !c.on.CompareAndSwap(false, true) {
		return &ConfigError{call, "a call during another one of the same Solver",
			"one call at a time: not from an op of the graph, and not from several goroutines"}
	}
	return nil
}

func (c *calling) end() { c.on.Store(false) }

// Plan says what is done with every parameter. Before the first Step it covers the parameters that
// Grad was called for, or, if it was called for none, those that look like parameters; the first
// Step settles it.
func (s *Solver) Plan() Plan {
	if s == nil {
		return Plan{}
	}
	return s.plan.clone()
}

// Stats tells what the last successful Step did.
func (s *Solver) Stats() Stats {
	if s == nil {
		return Stats{}
	}
	return s.stats
}

// logged logs the first error of the solver, and returns it.
func (s *Solver) logged(call string, err error) error {
	if l := s.cfg.logger(); l != nil && !s.hasLogged.Swap(true) {
		l.Error("kfac: "+call+" has failed and has changed nothing; later errors are not logged", "error", err)
	}
	return err
}

// alone makes a call that may attach the solver to a graph, and that may be made only by itself.
func (s *Solver) alone(call string, f func() error) error {
	return s.during(call, func() error { return s.onState(call, f) })
}

// during makes a call during which no other update can begin.
func (s *Solver) during(call string, f func() error) error {
	if s == nil {
		return s.usable(call)
	}
	if err := s.calling.begin(call); err != nil {
		return s.logged(call, err)
	}
	defer s.calling.end()
	return f()
}

// onState makes a call that reads or writes the state, which no other one does meanwhile.
func (s *Solver) onState(call string, f func() error) error {
	if s == nil {
		return s.usable(call)
	}
	if err := s.state.begin(call); err != nil {
		return s.logged(call, err)
	}
	defer s.state.end()
	if err := s.usable(call); err != nil {
		return err
	}
	return f()
}

// usable reports a solver that neither NewSolver nor New has made, or New with a wrong option.
func (s *Solver) usable(call string) error {
	if s == nil || s.engine == nil && !s.infers {
		return &ConfigError{call, "a nil or zero Solver",
			"one of New, or one that NewSolver has returned without an error"}
	}
	if s.invalid != nil {
		return s.logged(call, s.invalid)
	}
	return nil
}

// attached reports a solver that is not usable, or has no graph yet.
func (s *Solver) attached(call string) error {
	if err := s.usable(call); err != nil {
		return err
	}
	if s.engine == nil {
		return &ConfigError{call, "a Solver of New that has no graph yet",
			"solver.VM(cost), an Attach, a Step or an Accumulate before it"}
	}
	return nil
}

// Step updates the parameters in model, in place, from the gradients that the last RunAll left with
// them, and zeroes these gradients. The elements are the *gorgonia.Node of parameters of the cost,
// in any order. Gradients are computed again, in place of the VM's, where Gorgonia's Dropout has
// them wrong, that is for a p other than 0.5, and where the numbers that the VM has drawn for
// Dropout or random nodes can't be read from the graph. State belongs to the parameter, so that a
// subset may be given; the others stay as they are.
//
// If it returns an error no weight, no gradient and no state of the solver has changed. To go on
// with another batch, call [ZeroGradients]: with BindDualValues the next RunAll adds to them. The
// errors are *ParamError, *GraphError, *LayerError, *LossError, *GradientError, *ConfigError for
// groups and schedules and, where an op or this package panics, *PanicError; errors.Is finds the
// sentinels ErrNotFinite and so on in them.
func (s *Solver) Step(model []gorgonia.ValueGrad) error {
	return s.updating("Step", model, func() error { return nil })
}

// updating makes an update, and then tells all who watch.
func (s *Solver) updating(call string, model []gorgonia.ValueGrad, check func() error) error {
	return s.during(call, func() error {
		var stats Stats
		err := s.onState(call, func() error {
			if err := check(); err != nil {
				return s.logged(call, err)
			}
			err := s.cfg.ranks.together(call, func() error { return s.update(call, model) })
			stats = s.stats
			return err
		})
		if err == nil {
			s.tell(stats)
		}
		return err
	})
}

// update does the work of Step and Precondition.
func (s *Solver) update(call string, model []gorgonia.ValueGrad) error {
	start := time.Now()
	back, err := s.followList(call, model)
	if err != nil {
		return s.logged(call, err)
	}
	stats, err := s.engine.step(model, call == "Precondition")
	if err != nil {
		back()
		return s.logged(call, err)
	}
	stats.Time.Total = time.Since(start)
	s.plan = s.engine.describe()
	s.warnings = append(s.warnings, stats.Warnings...)
	stats.Warnings = append(s.untold, stats.Warnings...)
	s.untold = nil
	s.stats = stats
	return nil
}

// tell gives the statistics of a step to all who watch.
func (s *Solver) tell(stats Stats) {
	if s.cfg.onStats != nil {
		s.cfg.onStats(stats)
	}
	for i, r := range s.cfg.recorders {
		err := record(r, stats)
		if len(s.failed) == i {
			s.failed = append(s.failed, false)
		}
		if err != nil && !s.failed[i] {
			s.failed[i] = true
			w := Warning{Kind: RecorderFailed, Step: stats.Step,
				What: fmt.Sprintf("a recorder, a %T, has failed: %v; later failures are not told", r, err)}
			s.warnings, s.untold = append(s.warnings, w), append(s.untold, w)
		}
	}
}

// Warnings returns what was noticed so far that is legal and likely wrong, each once, in the order
// of the steps. Nothing of it is printed; recorders are told by Stats.Warnings. A state that is
// saved does not have them.
func (s *Solver) Warnings() []Warning {
	if s == nil {
		return nil
	}
	return slices.Clone(s.warnings)
}

// Inspect shows the curvature of each layer as it is after the last step, in the order of Plan's
// blocks. It solves an eigenproblem for each factor, which takes some ten times as long as its
// inverse, and changes nothing. The error is a *ConfigError before the first step, and a
// *LayerError where eigenvalues can't be found. With WithCommunicator all ranks call it.
func (s *Solver) Inspect() (all []Inspection, err error) {
	err = s.onState("Inspect", func() error {
		if err := s.attached("Inspect"); err != nil {
			return err
		}
		return s.cfg.ranks.together("Inspect", func() (err error) {
			all, err = s.engine.inspect()
			return err
		})
	})
	return all, err
}

// Accumulate takes in the gradients that the last RunAll left with the parameters, and what the
// solver wants to know of its cases, as a part of a larger batch, and zeroes these gradients. The
// weights stay. So a batch of any size runs through a graph of a fixed one, in chunks:
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
// The update is that of the mean over all chunks' cases. What changes from chunk to chunk must be
// the graph's inputs, of which a copy is kept until Step, or the graph (see Attach). The list must
// be the same in all calls for one update. The errors are those of Step; a chunk that makes one
// does not count, and those before it do.
func (s *Solver) Accumulate(model []gorgonia.ValueGrad) error {
	return s.alone("Accumulate", func() error {
		return s.cfg.ranks.together("Accumulate", func() error { return s.takeIn(model) })
	})
}

// takeIn does the work of Accumulate.
func (s *Solver) takeIn(model []gorgonia.ValueGrad) error {
	back, err := s.followList("Accumulate", model)
	if err != nil {
		return s.logged("Accumulate", err)
	}
	if err := s.engine.accumulate(model); err != nil {
		back()
		return s.logged("Accumulate", err)
	}
	s.plan = s.engine.describe()
	return nil
}

// UseAverage puts the averaged weights of WithIterateAveraging into the parameters, to evaluate the
// model with them, and returns a function that puts back those being trained. Until that is called,
// Step and Accumulate return an error. The error is a *ConfigError without WithIterateAveraging or
// before the average has begun.
func (s *Solver) UseAverage() (restore func(), err error) {
	defer recovered("UseAverage", &err)
	err = s.onState("UseAverage", func() (err error) {
		if err := s.attached("UseAverage"); err != nil {
			return err
		}
		restore, err = s.engine.useAverage()
		return err
	})
	return restore, err
}

// training is what a Solver has in one dtype. Its methods tell the story of a step; the work is
// done by the types of the other files.
type training[T program.Float] struct {
	cfg   config // as it is at this step
	start config // as it was given

	graph      *graph[T] // that it is attached to
	plan       *planned[T]
	sampler    *sampler[T]
	low        *lowRanks[T]
	quadratic  *quadratic[T]
	background background[T]
	inner      *inner[T]   // makes the steps; nil if there is none
	aside      []*inner[T] // by group: makes the steps of its parameters; nil if there is none
	ranks      distributed[T]

	progress        // state, with that of the parameters and their blocks
	averaged   bool // the parameters hold the average, until it is restored
	loadedLate bool // a state was loaded after the last RunAll

	calling   calling
	watcher   watcher
	probes    []probe[T]       // memory of those of the loss check
	chunks    batch[T]         // that were accumulated for the update in progress
	unreached []*gorgonia.Node // in the list given last, but not on the way to the cost
}

// progress is the state of a training beside that of its parameters, blocks and graph.
type progress struct {
	control control
	steps   int  // done
	runs    int  // RunAlls that were taken in
	rebuilt bool // there has been another graph
	odd     odd  // what was odd and had an innocent reason
	skipped skipped
	turned  [knobs]turned
}

func newTraining[T program.Float](cost *gorgonia.Node, heads []head, cfg config) (*training[T], error) {
	g, err := newGraph[T](cost, heads, cfg.seed)
	if err != nil {
		return nil, err
	}
	t := &training[T]{cfg: cfg, start: cfg, graph: g, plan: &planned[T]{}, sampler: newSampler[T](&cfg),
		low: newLowRanks[T](), quadratic: &quadratic[T]{}}
	t.ranks.ranks = cfg.ranks
	if cfg.inner != nil {
		t.inner = &inner[T]{solver: cfg.inner}
	}
	t.aside = asideOf[T](cfg.groups)
	t.control = control{lambda: cfg.damping, gamma: startOfGamma(cfg.damping, cfg.l2)}
	plan, err := t.planFor(g, t.plan, g.guessParameters(), true)
	if err != nil {
		return nil, err
	}
	t.adopt(g, plan)
	return t, nil
}

// newEngine is newTraining, or nil where that fails.
func newEngine[T program.Float](cost *gorgonia.Node, heads []head, cfg config) (engine, error) {
	t, err := newTraining[T](cost, heads, cfg)
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (t *training[T]) graphOf() *gorgonia.ExprGraph { return t.graph.cost.Graph() }

// mark returns what goes back to the graph that the training has now.
func (t *training[T]) mark() (back func()) {
	graph, plan, rebuilt := t.graph, t.plan, t.rebuilt
	return func() {
		t.adopt(graph, plan)
		t.rebuilt = rebuilt
	}
}

func (t *training[T]) describe() Plan { return t.plan.describe(t.unreached) }

// step does one step; see Solver.Step. Everything up to commit can fail and changes nothing. leave
// says that the weights are left to the caller; see Solver.Precondition.
func (t *training[T]) step(model []gorgonia.ValueGrad, leave bool) (st Stats, err error) {
	if err := t.calling.begin("Step"); err != nil {
		return st, err
	}
	defer t.calling.end()
	defer func() {
		if t.skip(model, &err) {
			st = t.skippedStats()
		}
	}()
	defer t.restore(t.snapshot(), &err)
	defer recovered("Step", &err)
	watch := stopwatch{last: time.Now()}
	if err := t.turn(t.steps + 1); err != nil {
		return st, err
	}

	// Gradients in; a private run; rows of a and g; second moments.
	last, err := t.take(model, &st.Time, &watch)
	if err != nil {
		return st, err
	}
	if leave && !last.own {
		if err := ownGradients(t.plan.order); err != nil {
			return st, err
		}
	}
	update := append(t.chunks, last)
	tally := update.tally()
	if err := t.ranks.sumGradients(t.plan, &tally, t.graph.scale(), len(update)); err != nil {
		return st, err
	}
	gradNorm, err := t.objectiveGradient(update, tally.cases)
	if err != nil {
		return st, err
	}
	watch.lap(&st.Time.Gradients)

	// Running averages; gradients that are known in low rank.
	k := t.steps + 1
	refresh, err := t.refreshes(k)
	if err != nil {
		return st, err
	}
	all := refresh || searchesGamma(&t.cfg, k) || len(update) > 1
	averages, err := newAverages(t.plan.blocks, t.cfg.ema, all)
	if err != nil {
		return st, err
	}
	watch.lap(&st.Time.Factors)
	if err := t.findLowRank(last, &st.Time, &watch); err != nil {
		averages.release(t.plan.blocks)
		return st, err
	}

	// Which way, how far, and was it right?
	a := t.attempt(k, update, tally, averages, refresh, &st.Time, &watch)
	a.leave, a.gradNorm = leave, gradNorm
	if err := a.share(); err != nil {
		return st, err
	}
	best, next, judged, err := t.decide(a)
	if err == nil {
		if !judged.rejected {
			err = t.stepAside(best.updates)
		}
		if err = t.ranks.meet(atCommit, err); err != nil {
			best.release(t.plan.order)
		}
	}
	if err != nil {
		a.averages.release(t.plan.blocks)
		a.shares.release(t.plan.blocks)
		return st, err
	}

	// Weights out.
	t.report(&st, a, &best, judged)
	st.GradNorm = gradNorm
	st.UpdateNorm, st.AveragesRestarted = t.commit(a, &best, next, judged.rejected)
	st.ParamNorm = normOf(t.plan.order, theWeights[T])
	t.watcher.step(st.Shrink, st.Rejected, st.Damping, a.bounds)
	t.watcher.count(k)
	st.Warnings = t.watcher.take()
	if every := t.cfg.layerStats; every > 0 && k%every == 0 {
		// If that fails, so does the next step; this one is done.
		_ = t.ranks.withWhole(t.plan.blocks, func() { st.Layers = layerStats(t.plan, leave) })
		watch.lap(&st.Time.Layers)
	}
	t.zeroFrozen(model)
	return st, nil
}

// inspect shows the curvature; see Solver.Inspect.
func (t *training[T]) inspect() ([]Inspection, error) {
	if err := t.calling.begin("Inspect"); err != nil {
		return nil, err
	}
	defer t.calling.end()
	if t.steps == 0 {
		return nil, &ConfigError{"Inspect", "a solver before its first step", "a Step before it"}
	}
	var all []Inspection
	var failed error
	err := t.ranks.withWhole(t.plan.blocks, func() { all, failed = inspections(t.plan.blocks) })
	return all, firstOf(err, failed)
}

// take reads the gradients of one RunAll and observes the statistics of its cases. It changes
// nothing that a later call could see.
func (t *training[T]) take(model []gorgonia.ValueGrad, time *PhaseTimes, watch *stopwatch) (chunk[T], error) {
	k := chunk[T]{graph: t.graph, cost: costValue(t.graph.cost)}
	t.watcher.begin()
	given, err := t.readModel(model)
	if k.own = err == nil && t.graph.machine.left(given); k.own {
		k.mode, k.shared = program.Training, true
		err = t.graph.machine.fresh()
	}
	of := standing[T]{t.plan, &t.cfg, &t.start, t.steps, len(t.chunks), &t.progress}
	if k.shard, err = t.ranks.join(of, err); err != nil {
		return k, err
	}
	k.plan = t.plan
	k.cases = t.plan.model.Cases // now that the list has settled what a vector output means
	watch.lap(&time.Gradients)
	k.seed = chunkRandom(&t.cfg, len(t.chunks), t.steps).Uint64()
	if len(t.ranks.back) > 0 || t.loadedLate {
		t.loadedLate = false
		k.own, k.outdated, t.plan.model.held = false, true, held{}
	}
	if checked, err := t.check(&k); err != nil {
		return k, err
	} else if checked {
		watch.lap(&time.Checks)
	}
	if err := k.share(t.ranks.ranks); err != nil {
		return k, err
	}
	if err := t.observe(&k, time, watch); err != nil {
		return k, err
	}
	checked, err := t.compareCosts(&k)
	if checked {
		watch.lap(&time.Checks)
	}
	return k, err
}

// readModel reads the weights and gradients of the parameters that Step was given.
func (t *training[T]) readModel(model []gorgonia.ValueGrad) ([]*parameter[T], error) {
	if t.averaged {
		return nil, &ParamError{Param: "(all)", Op: "reading the weights", Err: ErrAveraged,
			Hint: "call the function that UseAverage returned"}
	}
	given, err := t.list(model)
	if err != nil {
		return nil, err
	}
	if err := readAll(t.plan.order, given, !t.graph.used && t.settled()); err != nil {
		return nil, causeOf(t.graph, err)
	}
	for _, p := range t.plan.absent {
		p.given, p.aside = false, false
	}
	return given, nil
}

// list finds the parameters that Step was given, and plans anew for them where that is needed: the
// first Step says which there are, and has the inputs that show which are one-hot; later ones may
// add some, and so may other graphs add uses.
func (t *training[T]) list(model []gorgonia.ValueGrad) ([]*parameter[T], error) {
	nodes, err := listed(model)
	if err != nil {
		return nil, err
	}
	g := t.graph
	var unreached []*gorgonia.Node
	if t.cfg.unreached {
		outside := func(n *gorgonia.Node) bool { return n.Graph() == g.cost.Graph() && g.whole.Node(n) == nil }
		for _, n := range nodes {
			if outside(n) {
				unreached = append(unreached, n)
			}
		}
		nodes = slices.DeleteFunc(nodes, outside)
		if len(nodes) == 0 {
			return nil, g.trainable(unreached[0])
		}
	}
	listed := nodes
	if len(t.cfg.groups) > 0 {
		nodes = slices.DeleteFunc(slices.Clone(nodes), t.cfg.groups.frozen)
	}
	known := t.settled() && !t.plan.undecided && !t.plan.moved()
	for _, n := range listed {
		if t.plan.params[n] == nil && !slices.Contains(t.plan.frozen, n) || !t.settled() {
			known = false
			if err := g.trainable(n); err != nil {
				return nil, err
			}
		}
	}
	if len(t.chunks) > 0 {
		if err := sameList(nodes, slices.Concat(t.plan.order, t.plan.absent)); err != nil {
			return nil, err
		}
	}
	if !known {
		if err := t.replan(listed); err != nil {
			return nil, err
		}
	}
	if len(nodes) == 0 {
		return nil, &ParamError{Param: "(all)", Op: "reading the list given to Step", Err: ErrNoGradient,
			Hint: "every parameter in it is frozen by GroupFrozen"}
	}
	t.unreached = unreached
	given := make([]*parameter[T], len(nodes))
	for i, n := range nodes {
		given[i] = t.plan.params[n]
	}
	return given, nil
}

// replan plans for the listed parameters, and those of the steps before.
func (t *training[T]) replan(nodes []*gorgonia.Node) error {
	all := slices.Clone(nodes)
	if t.settled() {
		for _, n := range slices.Concat(nodesOf(t.plan.order), t.plan.frozen) {
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	if t.rebuilt {
		if err := distinctNames(all); err != nil {
			return err
		}
	}
	plan, err := t.planFor(t.graph, t.plan, all, false)
	if err != nil {
		return err
	}
	t.adopt(t.graph, plan)
	return nil
}

// settled reports whether the user has said which the parameters are.
func (t *training[T]) settled() bool { return t.runs > 0 }

// planFor plans for parameters of a graph. What an earlier plan has of them goes on. early is that
// of the planner.
func (t *training[T]) planFor(g *graph[T], before *planned[T], nodes []*gorgonia.Node, early bool) (
	*planned[T], error) {
	pl := planner[T]{cfg: &t.cfg, graph: g, before: before, settled: t.settled(), early: early}
	plan, err := pl.plan(nodes)
	if err != nil {
		return nil, err
	}
	return plan, plan.revive(before.stored, t.cfg.ranks)
}

// adopt goes on with a graph and a plan, and lets go of those before.
func (t *training[T]) adopt(g *graph[T], plan *planned[T]) {
	t.graph, t.plan = g, plan
	plan.setPlaces()
	t.background.take(plan.jobs)
	plan.jobs = nil
	t.sampler.forget()
	t.low.forget()
	t.quadratic.forget()
}

// A snapshot is what a call that fails goes back to.
type snapshot[T program.Float] struct {
	graph     *graph[T]
	plan      *planned[T]
	units     units
	odd       odd
	unreached []*gorgonia.Node
	cfg       config
	control   control
	blocks    blockForm
}

func (t *training[T]) snapshot() snapshot[T] {
	for _, p := range t.plan.order {
		p.before = p.weights
	}
	return snapshot[T]{t.graph, t.plan, t.graph.units, t.odd, t.unreached, t.cfg, t.control, t.graph.blockForm}
}

// restore goes back if err is an error.
func (t *training[T]) restore(before snapshot[T], err *error) {
	t.ranks.takeBack(*err == nil)
	if *err == nil {
		return
	}
	for _, p := range before.plan.order {
		p.weights = p.before // not those of a graph that may be given up
	}
	if before.graph.tail != nil {
		before.graph.tail.forget()
	}
	before.graph.units, t.odd, t.unreached = before.units, before.odd, before.unreached
	before.graph.blockForm = before.blocks
	t.cfg, t.control = before.cfg, before.control
	if t.graph != before.graph || t.plan != before.plan {
		t.adopt(before.graph, before.plan)
	}
}

// check compares the cost with the declared distribution, and so finds its scale, at the first
// RunAll of each graph. It compares the gradients with the cost at some of the RunAlls, and where
// something is odd, unless they are the solver's own.
func (t *training[T]) check(k *chunk[T]) (checked bool, err error) {
	g := t.graph
	if !g.used {
		if !slices.ContainsFunc(t.plan.order, func(p *parameter[T]) bool { return p.leaf != nil }) {
			return true, notTrained(g.heads[0])
		}
		if g.tail, err = newLossTail[T](g.cost, g.heads, t.cfg.seed); err != nil {
			return true, err
		}
		g.tail.resume(g.loaded)
		if g.resumes() {
			g.blockForm = g.loaded.blocks
		}
	}
	often := checksGradients(t.runs)
	measured := !g.used || often || g.tail.moved() || slices.Contains(g.tail.weighs, true)
	if measured {
		if err := t.measure(k.conditions, !g.used, often); err != nil {
			return true, err
		}
	}
	k.units = g.units
	k.cases = g.count(k.cases)
	if k.outdated {
		return true, t.regrade(k)
	}
	if err := finiteCost(g); err != nil {
		return true, err
	}
	if k.own {
		return true, nil
	}
	if err := t.draw(k); err != nil {
		return true, err
	}
	isOdd := !gradientsThere(t.plan.order) || k.shared && otherCost[T](k.cost, g.costOf(g.costRun))
	if t.cfg.gradientCheck && (often || t.odd.at(t.runs, isOdd)) {
		return true, checkGradients(g, t.plan, k.inputs, t.cfg.seed)
	}
	return measured, nil
}

// measure finds the scale of the cost, by the loss check. first says that it is the graph's first
// RunAll, and atOutputs that the factors are also to be compared with those at the model's outputs.
func (t *training[T]) measure(of conditions[T], first, atOutputs bool) error {
	g, m := t.graph, t.plan.model
	scales, weights, probes, err := checkLoss(g.tail, m.outputs, t.cfg.seed, !t.cfg.lossCheck,
		t.ranks.others(), &t.probes)
	if err != nil {
		var loss *LossError
		if hint := logarithmOfLogarithm(g.tail.run.Program()); hint != "" && errors.As(err, &loss) {
			loss.Hint = hint
		}
		return err
	}
	weights.findCases(m.outputs, m.Cases)
	if atOutputs && !g.random() && t.cfg.lossCheck {
		if err := m.forward(of, nil); err != nil {
			return err
		}
		if err := g.tail.checkFactors(m.run, m.outputs, probes, scales, &weights); err != nil {
			return err
		}
	}
	if (!first || atOutputs && g.resumes()) && !g.tail.moved() {
		for i, c := range scales {
			g.tail.varies = g.tail.varies || math.Abs(c-g.scales[i]) > lossTolerance*c
		}
	}
	g.units = g.units.measured(scales, weights, t.sameScale(first, atOutputs))
	g.tail.remember()
	return nil
}

// sameScale returns the relative difference up to which a measured scale is taken to be that of
// before. After Load a training that was not interrupted would not have measured.
func (t *training[T]) sameScale(first, often bool) float64 {
	tail := t.graph.tail
	if first && !often && t.graph.resumes() && !tail.moved() && !slices.Contains(tail.weighs, true) {
		return lossTolerance
	}
	if t.ranks.others() && slices.Contains(tail.weighs, true) {
		return 0 // they agree anew at each step
	}
	return rounding[T]()
}

// compareCosts checks the gradients where the VM's cost is not that of what the graph holds now. It
// looks at the steps that adapt lambda, where the run of the statistics holds the model's outputs,
// so that it costs next to nothing.
func (t *training[T]) compareCosts(k *chunk[T]) (checked bool, err error) {
	g := t.graph
	if k.own || k.outdated || !t.cfg.gradientCheck || !k.all || g.random() || (t.steps+1)%t.cfg.lambdaPeriod != 0 {
		return false, nil
	}
	own, err := g.tail.value(t.plan.model.run, t.plan.model.outputs)
	if err != nil {
		return true, graphError(err)
	}
	if !t.odd.at(t.runs, otherCost[T](k.cost, own)) {
		return false, nil
	}
	return true, checkGradients(g, t.plan, k.inputs, t.cfg.seed)
}

// observe samples targets, and takes the rows of the blocks out of the run.
func (t *training[T]) observe(k *chunk[T], time *PhaseTimes, watch *stopwatch) error {
	m := t.plan.model
	rng := chunkRandom(&t.cfg, len(t.chunks), t.steps)
	rng.Uint64() // the chunk's seed
	least := leastStatistics(&t.cfg, k.shard.of(k.cases))
	rows := t.sampler.some(k, t.cfg.statsFraction, least, forStatistics, rng)
	if m.byCost() {
		rows = nil
	}
	k.all = rows == nil
	if err := m.forward(k.conditions, rows); err != nil {
		return err
	}
	t.low.kept = t.low.kept[:0] // of a step that has failed
	if vm := t.graph.machine; k.own && k.all && vm.errors && vm.of == m.whole {
		t.low.keep(t.plan, lowRankScale(t.graph, m))
	}
	if k.own {
		t.graph.machine.errors = false // the next sweep writes over them
	}
	err := t.graph.findHessian(m, len(t.chunks), k.seed)
	if err != nil {
		return err
	}
	k.hessian = m.hessian
	variances, err := t.graph.variances(m, rows)
	squares, curved := m.squares(), m.meanCurvature()
	if k.statisticsCases, err = t.ranks.means(m.run.Cases(), err, variances, squares, curved); err != nil {
		return err
	}
	m.keepPrecision(curved)
	k.variances = values(variances)
	t.plan.settle(k.errorUnits(t.graph.weights, squares), t.ranks.ranks)
	for i := range t.sampler.sweeps(m) {
		by := draws{rng, k.shard, i, rows}
		err := t.sampler.sweep(i, t.graph, m, t.plan.path, &k.units, rows, by)
		if err := t.ranks.swept(t.plan, k.statisticsCases, err); err != nil {
			return err
		}
		watch.lap(&time.Capture)
		if err := observe(t.plan, i > 0); err != nil {
			return err
		}
		watchLayers(&t.watcher, t.plan, t.runs+1, i > 0)
		watch.lap(&time.Factors)
	}
	if k.rows = nil; !m.byCost() {
		k.rows = t.sampler.some(k, t.cfg.modelFraction, t.cfg.minModelCases, forModel, rng)
	}
	k.held = k.all && k.rows == nil
	return nil
}

// chunkRandom is a generator for a chunk of the step after so many. It is one of its own, so that a
// chunk that fails leaves no trace. Its first number is the seed of Dropout and random nodes.
func chunkRandom(cfg *config, chunk, steps int) *rand.Rand {
	return rand.New(rand.NewPCG(cfg.seed+uint64(chunk)<<32+cfg.ranks.seed(), uint64(steps+1)))
}

// objectiveGradient makes the parameters' gradients those of the solver's objective, the mean over
// so many cases, and returns the norm.
func (t *training[T]) objectiveGradient(update batch[T], cases int) (norm float64, err error) {
	var squares float64
	scale, chunked := t.graph.scale(), len(update) > 1
	if t.ranks.ranks != nil { // they are sums already
		scale, chunked = 1, false
	}
	for _, p := range t.plan.order {
		if !p.listed() {
			continue
		}
		own := p.objectiveGradient(scale, cases, p.own.eta(t.cfg.l2), chunked)
		if p.given {
			squares += own
		}
		if sum := squares + own; math.IsInf(sum, 0) || math.IsNaN(sum) {
			return 0, gradientOverflow(p.name)
		}
	}
	return math.Sqrt(squares), nil
}

// refreshes reports whether step k computes all inverses.
func (t *training[T]) refreshes(k int) (bool, error) {
	blocks := t.plan.blocks
	if k <= firstInverses || needsInverses(blocks) || !t.cfg.paperRules && t.control.noise.lost() {
		return true, nil
	}
	if t.cfg.backgroundLag > 0 {
		return t.background.failed(blocks, k, t.ranks.exchangeJobs)
	}
	return k%inversePeriod(&t.cfg, t.plan) == 0, nil
}

// findLowRank finds the blocks whose gradient is known as a product in low rank, where that pays.
// That takes a run of the whole batch that draws what the user's VM has drawn, and an update of a
// single chunk.
func (t *training[T]) findLowRank(last chunk[T], time *PhaseTimes, watch *stopwatch) error {
	t.low.reset()
	if last.all && len(t.chunks) == 0 && t.ranks.ranks == nil && !t.cfg.hasL2() && (last.own || !t.graph.random()) {
		t.low.choose(t.plan)
	}
	if err := t.low.sweep(t.graph, t.plan); err != nil {
		return err
	}
	watch.lap(&time.Capture)
	t.low.match(t.cfg.seed, t.steps)
	watch.lap(&time.Precondition)
	return nil
}

func (t *training[T]) attempt(k int, update batch[T], of tally, avg averages[T], refresh bool, time *PhaseTimes,
	watch *stopwatch) *attempt[T] {
	return &attempt[T]{
		cfg: &t.cfg, k: k, plan: t.plan, batch: update, tally: of, averages: avg, low: t.low, before: t.control,
		background: &t.background, inner: t.inner, quadratic: t.quadratic,
		ranks: &t.ranks, refresh: refresh, cases: of.cases, predicted: of.predicted,
		bounded: t.cfg.lossCheck && t.plan.model.bounded(),
		watch:   watch, time: time,
	}
}

// decide finds the step, and what the rules for damping and noise make of it.
func (t *training[T]) decide(a *attempt[T]) (best proposed[T], next control, judged verdict, err error) {
	judged.rho = math.NaN()
	if t.cfg.learningRate > 0 {
		best, err = a.fixed()
		best.lambda, best.gamma = t.control.lambda, t.control.gamma
		return best, t.control, judged, err
	}
	best, next, err = a.byModel()
	if err != nil {
		return best, next, judged, err
	}
	best.lambda, best.gamma = next.lambda, next.gamma
	next.noise.remember(&best.span, best.step, best.factor)
	if a.k == 1 && t.cfg.damping == 0 {
		next.lambda *= afterStart
		next.gamma = startOfGamma(next.lambda, t.cfg.l2)
	}
	if adapt := a.k%t.cfg.lambdaPeriod == 0; adapt || t.cfg.reject {
		if judged, err = a.judge(&best, &next, adapt); err != nil {
			best.release(t.plan.order)
		}
	}
	if judged.rejected {
		next.noise.evidence.stop()
	}
	return best, next, judged, err
}

// report tells what the step is.
func (t *training[T]) report(st *Stats, a *attempt[T], best *proposed[T], judged verdict) {
	st.Step, st.Scale, st.Cases, st.Chunks = a.k, t.graph.scale(), a.cases, len(a.batch)
	st.Cost, st.StatisticsCases = a.tally.cost, a.tally.statistics
	st.Damping, st.Gamma = best.lambda, best.gamma
	st.LearningRate, st.Momentum, st.Shrink = best.alpha, best.mu, best.factor
	st.QuadModelChange, st.KL = best.change, a.nats(best.form(&best.fisher)/2)
	st.Rho, st.Rejected = judged.rho, judged.rejected
	st.PreconGradNorm, st.DirectionNorm = best.norm, best.directionNorm
	st.SkippedBatches = t.skipped.all
	st.InverseUpdated, st.DampingRaised = best.inverses.renewed, best.inverses.raised
}

// commit makes what the step has found current, and writes the weights, unless the step was
// rejected. It returns the norm of the change, and the number of blocks whose averages have started
// anew.
func (t *training[T]) commit(a *attempt[T], best *proposed[T], next control, rejected bool) (
	norm float64, restarted int) {
	blocks := t.plan.blocks
	if a.leave {
		defer func() { norm = math.NaN() }()
	}
	restarted = a.keep(blocks)
	best.inverses.keep(blocks)
	t.background.finish(blocks, a.k, best.inverses.anew)
	t.ranks.rebase(blocks)
	for _, p := range t.plan.absent {
		for _, b := range t.plan.blocksOf[p] { // not where it is stored until a graph brings it
			b.Discard()
		}
	}
	a.watch.lap(&a.time.Factors)
	var squares float64
	factor := 1.0
	if t.cfg.learningRate == 0 && !t.cfg.paperRules {
		factor = next.noise.factor
	}
	for i, p := range t.plan.order {
		if best.span.restart {
			p.heading.apart = false
		}
		switch update := best.updates[i]; {
		case update == nil && rejected && p.aside:
			zeroGradient(p.src)
		case update == nil:
		case rejected:
			p.reject(update)
		case a.leave:
			p.leave(update)
		default:
			squares += p.write(update, factor, T(p.own.decayOr(t.cfg.decay)))
		}
	}
	if t.cfg.averaging > 0 && !a.leave && a.k >= t.cfg.averageFrom {
		averageIterates(t.plan.order, t.cfg.averaging)
	}
	t.control = next
	if t.cfg.backgroundLag > 0 {
		period := inversePeriod(&t.cfg, t.plan)
		t.background.launch(blocks, a.k, period, t.cfg.backgroundLag, next.gamma, t.cfg.l2, t.ranks.ranks,
			t.ranks.copied)
	}
	t.plan.keepCoordinates()
	t.steps++
	t.runs++
	t.skipped.inRow = 0
	t.graph.used = true
	t.graph.machine.spend()
	t.plan.model.held = held{}
	if math.IsInf(squares, 1) { // the squares only
		squares, norm = 0, normOf(t.plan.order, thePrevious[T])
	}
	clear(a.batch) // lets go of their graphs
	t.chunks = a.batch[:0]
	t.quadratic.forget()
	a.watch.lap(&a.time.Update)
	return min(max(norm, math.Sqrt(squares)), math.MaxFloat64), restarted
}

// accumulate takes in a chunk that is not the update's last; see Solver.Accumulate.
func (t *training[T]) accumulate(model []gorgonia.ValueGrad) (err error) {
	if err := t.calling.begin("Accumulate"); err != nil {
		return err
	}
	defer t.calling.end()
	defer func() { t.skip(model, &err) }()
	defer t.restore(t.snapshot(), &err)
	defer recovered("Accumulate", &err)
	var time PhaseTimes
	var watch stopwatch
	k, err := t.take(model, &time, &watch)
	if err != nil {
		return err
	}
	drawn := k.inputs != nil
	if k.inputs, err = t.graph.save(t.chunks, t.plan.params); err != nil {
		return err
	}
	if drawn {
		k.inputs.KeepDrawn(t.graph.costRun)
	}
	k.rows, k.held = slices.Clone(k.rows), false // the run goes on to other chunks
	for _, b := range t.plan.blocks {
		b.Accumulate()
	}
	t.watcher.count(t.steps + 1)
	for _, p := range t.plan.order {
		if p.listed() {
			p.accumulate(t.graph.scale(), len(t.chunks) == 0)
		}
	}
	t.zeroFrozen(model)
	t.chunks = append(t.chunks, k)
	t.plan.keepCoordinates()
	t.runs++
	t.skipped.inRow = 0
	t.graph.used = true
	t.graph.machine.spend()
	t.plan.model.held = held{}
	return nil
}

// attach goes on with another graph; see Solver.Attach.
func (t *training[T]) attach(cost *gorgonia.Node, heads []head) (err error) {
	if err := t.calling.begin("Attach"); err != nil {
		return err
	}
	defer t.calling.end()
	if got, want := heads[0].output().Dtype(), t.plan.model.Dtype(); got != want {
		return &ConfigError{heads[0].name(), fmt.Sprintf("an output of %v", got),
			fmt.Sprintf("%v, as in the graph before", want)}
	}
	g, err := newGraph[T](cost, heads, t.cfg.seed)
	if err != nil {
		return err
	}
	g.units.scales = t.graph.units.scales
	before, nodes := *t.plan, g.guessParameters()
	if t.settled() {
		if before.params, nodes, err = carryOver(t.plan, g); err != nil {
			return err
		}
	}
	plan, err := t.planFor(g, &before, nodes, true)
	if err != nil {
		return err
	}
	t.adopt(g, plan)
	t.rebuilt = true
	return nil
}

// useAverage exchanges the weights with their averages; see Solver.UseAverage.
func (t *training[T]) useAverage() (restore func(), err error) {
	if err := t.calling.begin("UseAverage"); err != nil {
		return nil, err
	}
	defer t.calling.end()
	params := t.plan.order
	if err := averaging(params, t.cfg.averaging, t.averaged); err != nil {
		return nil, err
	}
	back, err := exchangeAverages(params)
	if err != nil {
		return nil, err
	}
	t.averaged = true
	done := false
	return func() {
		if !done {
			done, t.averaged = true, false
			back()
		}
	}, nil
}

// skip leaves out the RunAll that a call has failed with, where that is asked for: then there is no
// error any more.
func (t *training[T]) skip(model []gorgonia.ValueGrad, err *error) (left bool) {
	if t.cfg.skipInRow == 0 || !errors.Is(*err, errGradientNotFinite) {
		return false
	}
	if t.skipped.inRow >= t.cfg.skipInRow {
		var p *ParamError
		if !errors.As(*err, &p) { // it is that of another rank
			return false
		}
		p.Op += fmt.Sprintf(" after %d batches in a row that were left out for it", t.skipped.inRow)
		p.Hint = noNumber + afterNaN
		return false
	}
	t.skipped.all++
	t.skipped.inRow++
	ZeroGradients(model)
	t.graph.machine.spend()
	*err = nil
	return true
}

// skippedStats are those of a step that was not made.
func (t *training[T]) skippedStats() Stats {
	nan := math.NaN()
	return Stats{Step: t.steps + 1, Skipped: true, SkippedBatches: t.skipped.all,
		Cost: costValue(t.graph.cost), Scale: nan, Damping: nan, Gamma: nan, LearningRate: nan, Momentum: nan,
		Shrink: nan, QuadModelChange: nan, Rho: nan, ParamNorm: nan, GradNorm: nan, DirectionNorm: nan,
		PreconGradNorm: nan, KL: nan}
}

// draw finds the numbers that the private runs of the chunk draw, and replaces gradients that are
// not those of the cost with these numbers.
func (t *training[T]) draw(k *chunk[T]) (err error) {
	g := t.graph
	if !g.random() {
		return nil
	}
	if k.shared, err = g.draw(t.cfg.seed + uint64(t.runs) + t.cfg.ranks.seed()); err != nil {
		return err
	}
	k.inputs = &g.drawn
	wrong := wrongDropout(g.whole)
	if k.shared && wrong == nil {
		return nil
	}
	none := !gradientsThere(t.plan.order)
	if err := g.ownGradients(t.plan, wrong); err != nil {
		return err
	}
	if none && !k.shared && gradientsThere(t.plan.order) {
		name := t.plan.order[slices.IndexFunc(t.plan.order, func(p *parameter[T]) bool { return p.listed() })].name
		return &GradientError{Param: name, Relative: 1, Hint: noRun}
	}
	return nil
}

// regrade computes the gradients and the cost of a chunk again, at the weights that there are now.
func (t *training[T]) regrade(k *chunk[T]) error {
	if !k.shared { // not those of the solver's own VM, which are in the seed
		if err := t.draw(k); err != nil {
			return err
		}
	}
	g := t.graph
	run, err := g.costs()
	if err != nil {
		return graphError(err)
	}
	k.conditions.set(run)
	if err := run.Forward(nil); err != nil {
		return graphError(err)
	}
	if err := g.whole.CheckDifferentiable(newComparison(g, t.plan).path); err != nil {
		return &ParamError{Param: "(all)", Op: "computing gradients at the weights of rank 0", Err: ErrOtherWeights,
			Hint: fmt.Sprintf("initialise all ranks with the same weights: the solver can't differentiate (%v)", err)}
	}
	k.cost = g.costOf(run)
	return g.ownGradients(t.plan, nil)
}

// Precondition replaces the gradients that the last RunAll left with the parameters by the
// preconditioned gradients, and leaves the weights to the caller, who makes the step with any
// solver:
//
//	err = vm.RunAll()
//	err = solver.Precondition(params)
//	err = gorgonia.NewVanillaSolver(gorgonia.WithLearnRate(rate)).Step(params)
//	vm.Reset()
//
// It does all that Step does but for the step itself, and takes its place: it is for the last chunk
// of an update, and the next call is for the next update. The preconditioned gradient is nu U, with
// U = F0^-1 grad, in the solver's units, and nu of WithNormConstraint. It needs WithLearningRate,
// which should be that of the caller's solver, for the norm constraint. WithMomentum and
// WithIterateAveraging play no part in it, and of Stats LearningRate, Momentum and UpdateNorm are
// NaN.
//
// The gradients have to be the parameters' own: by BindDualValues, a LispMachine or [Solver.VM].
// Without BindDualValues a tape machine's gradients may be values that other nodes need, and they
// are a *ParamError with ErrSharedMemory. The other errors are those of Step, and a *ConfigError
// without WithLearningRate. A batch that WithSkipNotFinite leaves out has gradients of zero.
func (s *Solver) Precondition(model []gorgonia.ValueGrad) error {
	return s.updating("Precondition", model, s.preconditions)
}

// preconditions reports settings with which Precondition can't be called.
func (s *Solver) preconditions() error {
	if s.cfg.learningRate == 0 {
		return &ConfigError{"Precondition", "a solver without WithLearningRate",
			"that option, with the rate of the solver that makes the step: it is for the norm constraint"}
	}
	if slices.ContainsFunc(s.cfg.groups, func(g paramGroup) bool { return g.solver != nil }) {
		return &ConfigError{"Precondition", "a solver with GroupSolver",
			"to leave these parameters out of the list: the caller makes all steps"}
	}
	return nil
}

// turned is a knob that Set has turned.
type turned struct {
	is    bool
	value float64
}

// Set turns a knob, from the next Step on. Save writes it down. The value is one that the knob's
// option takes; see [Knob] for when it can be turned. The error is a *ConfigError, also for a knob
// that has a schedule.
func (s *Solver) Set(k Knob, v float64) error {
	return s.onState("Set", func() error {
		if err := s.attached("Set"); err != nil {
			return err
		}
		return s.engine.set(k, v)
	})
}

func (t *training[T]) set(k Knob, v float64) error {
	if err := t.calling.begin("Set"); err != nil {
		return err
	}
	defer t.calling.end()
	call := fmt.Sprintf("Set of %s", k)
	i := dialOf(k)
	if i < 0 {
		return &ConfigError{call, "no such knob",
			"LearningRate, Momentum, Damping, NormConstraint, L2Reg or WeightDecay"}
	}
	if err := dials[i].valid(call, v); err != nil {
		return err
	}
	byRate := t.cfg.learningRate > 0
	switch {
	case t.cfg.schedules[i] != nil:
		return &ConfigError{call, "a knob with a schedule", "one or the other"}
	case k == Momentum && t.inner != nil:
		return &ConfigError{call, "a solver with WithInner", "the inner solver's own momentum"}
	case k == Damping && !byRate && t.control.lambda == 0:
		return &ConfigError{call, "a solver before its first step", "WithDamping"}
	case k == Damping && !byRate:
		t.control.lambda, t.control.gamma = v, startOfGamma(v, t.cfg.l2)
		return nil
	case dials[i].byRate && !byRate:
		return &ConfigError{call, "a solver without WithLearningRate", "that option from the start"}
	case k == L2Reg && t.cfg.standardises:
		return &ConfigError{call, "a solver without WithL2Reg, WithDamping and WithLearningRate",
			"one of these from the start"}
	}
	t.turned[i] = turned{true, v}
	return nil
}

// turn puts the knobs where they are to be at step k.
func (t *training[T]) turn(k int) error {
	for i := range dials {
		d := &dials[i]
		at := d.of(&t.cfg)
		switch s := t.cfg.schedules[i]; {
		case s != nil:
			v := s(k)
			if err := d.valid(fmt.Sprintf("WithSchedule of %s at step %d", d.Knob, k), v); err != nil {
				return err
			}
			*at = v
		case t.turned[i].is:
			*at = t.turned[i].value
		default:
			*at = *d.of(&t.start)
		}
	}
	if t.cfg.learningRate > 0 {
		t.control.lambda, t.control.gamma = t.cfg.damping, startOfGamma(t.cfg.damping, t.cfg.l2)
	}
	return nil
}

// stepAside has the solvers of groups step these, from the same gradients. The updates are by
// parameter of the plan.
func (t *training[T]) stepAside(updates [][]T) error {
	for g, in := range t.aside {
		var params []*parameter[T]
		var gradients, changes [][]T
		for i, p := range t.plan.order {
			if p.aside && p.own.solver == t.cfg.groups[g].solver {
				updates[i] = p.borrow()
				params, gradients, changes = append(params, p), append(gradients, p.grad), append(changes, updates[i])
			}
		}
		if in == nil || params == nil && in.params == nil {
			continue
		}
		if err := in.step(params, gradients, changes); err != nil {
			return err
		}
	}
	return nil
}

// zeroFrozen zeroes the gradients of the listed parameters that stay as they are.
func (t *training[T]) zeroFrozen(model []gorgonia.ValueGrad) {
	if len(t.plan.frozen) == 0 {
		return
	}
	for _, p := range model {
		if n, ok := p.(*gorgonia.Node); ok && slices.Contains(t.plan.frozen, n) {
			zeroGradient(n)
		}
	}
}

// asideOf makes the solvers of groups, by group.
func asideOf[T program.Float](groups paramGroups) (all []*inner[T]) {
	for i := range groups {
		var in *inner[T]
		if s := groups[i].solver; s != nil {
			in = &inner[T]{solver: *s}
		}
		all = append(all, in)
	}
	return all
}
