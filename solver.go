package kfac

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

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
	step(model []gorgonia.ValueGrad) (Stats, error)
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
	if cost == nil {
		return nil, &ConfigError{"cost", "nil", "the scalar node that is minimised"}
	}
	if len(cost.Shape()) != 0 && cost.Shape().TotalSize() != 1 {
		return nil, &ConfigError{"cost", fmt.Sprintf("node %q of shape %v", cost.Name(), cost.Shape()), "a scalar (take its Mean or Sum)"}
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

// headsOf are the declared outputs, checked by themselves.
func headsOf(dist Distribution, cost *gorgonia.Node) ([]head, error) {
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

// Plan says what is done with every parameter. Before the first Step it covers the parameters that Grad was called for, or, if it was
// called for none, those that look like parameters; the first Step settles it.
func (s *Solver) Plan() Plan { return s.plan }

// Stats tells what the last successful Step did.
func (s *Solver) Stats() Stats { return s.stats }

// Step updates the parameters in model, in place, from the gradients that the last RunAll left with them, and zeroes these gradients.
// The elements are the *gorgonia.Node of parameters of the cost, in any order. State belongs to the parameter, so that
// a subset may be given; the others stay as they are.
//
// If it returns an error no weight, no gradient and no state of the solver has changed. The errors are *ParamError,
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

// conductor calls the parts of a step in order.
type conductor[T program.Float] struct {
	cfg  config
	cost *gorgonia.Node

	whole     *program.Program // of the cost, for the checks
	model     *program.Program // of the outputs
	outputs   []*output
	sampler   *sampler[T]
	quadratic *quadratic[T]
	objective *objective[T]

	// State.
	planned[T]
	control control
	steps   int     // done
	scale   float64 // c of the first output; settled by the first step
}

func newConductor[T program.Float](cost *gorgonia.Node, heads []head, cfg config) (*conductor[T], error) {
	c := &conductor[T]{cfg: cfg, cost: cost}
	var err error
	if c.whole, err = program.New([]*gorgonia.Node{cost}); err != nil {
		return nil, graphError(err)
	}
	nodes := make([]*gorgonia.Node, len(heads))
	for i, h := range heads {
		nodes[i] = h.output()
	}
	if c.model, err = program.New(nodes); err != nil {
		return nil, graphError(err)
	}
	for i, h := range heads {
		o := &output{head: h, node: c.model.Outputs[i], weight: 1}
		if c.whole.Node(nodes[i]) == nil {
			return nil, notInCost(o)
		}
		c.outputs = append(c.outputs, o)
	}
	run, err := program.NewRun[T](c.model, cfg.seed)
	if err != nil {
		return nil, graphError(err)
	}
	c.sampler = &sampler[T]{run: run, outputs: c.outputs, seeds: make([]program.Seed[T], len(heads))}
	c.quadratic = &quadratic[T]{run: run, outputs: c.outputs}
	c.objective = &objective[T]{program: c.whole, seed: cfg.seed}
	c.control = control{lambda: cfg.damping, gamma: cfg.gammaStart}
	if c.control.gamma == 0 {
		c.control.gamma = gamma(cfg.damping, cfg.l2)
	}
	return c, c.makePlan(c.guessParameters())
}

func (c *conductor[T]) describe() Plan { return c.plan }

// guessParameters lists the parameters before any Step says which they are.
func (c *conductor[T]) guessParameters() []*gorgonia.Node {
	var out []*gorgonia.Node
	for _, n := range parameters(c.model) {
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
	before := c.planned
	defer func() {
		if err != nil {
			c.adopt(before)
		}
	}()
	k := c.steps + 1
	st = Stats{Step: k, Cases: c.model.Cases, Cost: costValue(c.cost), Rho: math.NaN()}
	w := stopwatch{last: time.Now()}

	if err := c.readGradients(model); err != nil {
		return st, err
	}
	w.lap(&st.Time.Gradients)
	if c.steps == 0 {
		if err := c.check(); err != nil {
			return st, err
		}
		w.lap(&st.Time.Checks)
	}
	st.Scale = c.scale
	st.GradNorm = c.objectiveGradient()
	w.lap(&st.Time.Gradients)

	// A generator of its own for each step, so that a failed one leaves no trace.
	rng := rand.New(rand.NewPCG(c.cfg.seed, uint64(k)))
	if err := c.sampler.sample(c.model, c.cfg.statsFraction, c.cfg.minStatsCases, rng); err != nil {
		return st, err
	}
	st.StatisticsCases = c.sampler.run.Cases()
	w.lap(&st.Time.Capture)
	for _, b := range c.blocks {
		if err := b.observe(c.sampler.run, c.cfg.ema); err != nil {
			return st, err
		}
	}
	w.lap(&st.Time.Factors)

	refresh := k <= 3 || k%c.cfg.inversePeriod == 0 || c.needsInverses()
	next := c.control
	if c.cfg.fixed {
		err = c.fixedStep(&st, &next, refresh, &w)
	} else {
		err = c.modelStep(&st, &next, refresh, rng, &w)
	}
	if err != nil {
		return st, err
	}
	c.commit(&st, next)
	w.lap(&st.Time.Update)
	return st, nil
}

// control is the damping, as it goes from step to step.
type control struct {
	lambda, gamma float64

	last     step // the previous step
	lastNorm float64
	num, den float64
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
	next.lambda = c.cfg.damping
	next.gamma = gamma(next.lambda, c.cfg.l2)
	if err := c.direction(st, next.gamma, refresh, w); err != nil {
		return err
	}
	st.LearningRate, st.Momentum = c.cfg.learningRate, c.cfg.fixedMomentum
	return c.proposeFixed(st)
}

// direction computes the preconditioned gradient, with new inverses if refresh.
func (c *conductor[T]) direction(st *Stats, gamma float64, refresh bool, w *stopwatch) error {
	if refresh {
		raised, err := c.invert(gamma)
		if err != nil {
			return err
		}
		st.InverseUpdated, st.DampingRaised = true, raised
	}
	w.lap(&st.Time.Inverses)
	for _, b := range c.blocks {
		b.precondition(gamma, refresh)
	}
	for _, p := range c.order {
		if p.given && !linalg.Finite(p.dir) {
			return &ParamError{Param: p.name(), Op: "preconditioning", Err: ErrNotFinite, Hint: "raise WithDamping"}
		}
	}
	w.lap(&st.Time.Precondition)
	return nil
}

// modelStep goes as far as the exact-Fisher quadratic model says, and adapts the damping (Martens & Grosse 2015, algorithm 2).
func (c *conductor[T]) modelStep(st *Stats, next *control, refresh bool, rng *rand.Rand, w *stopwatch) error {
	k := st.Step
	if err := c.quadratic.prepare(c.sampler.choose(c.model, c.cfg.modelFraction, c.cfg.minModelCases, rng)); err != nil {
		return err
	}
	momentum := c.cfg.momentum && c.moved()
	if momentum {
		if err := c.quadratic.along(previous, c.order, func(p *parameter[T]) []T { return p.velocity }); err != nil {
			return err
		}
	}
	w.lap(&st.Time.Model)
	if c.cfg.judgeNext && momentum && (k-1)%c.cfg.lambdaPeriod == 0 {
		if err := c.judge(st, next); err != nil {
			return err
		}
	}
	if next.lambda == 0 {
		if err := c.startDamping(st, next, w); err != nil {
			return err
		}
	}
	damp := next.lambda + c.cfg.l2
	candidates := []float64{next.gamma}
	if k%c.cfg.gammaPeriod == 0 {
		candidates, refresh = gammas(next.gamma, c.cfg.gammaDecay, math.Sqrt(c.cfg.l2), c.cfg.gammaMax), true
	}
	var best step
	for i, g := range candidates {
		s, err := c.candidate(st, g, damp, refresh, momentum, w)
		if err != nil {
			return err
		}
		if i == 0 || s.change < best.change {
			best, next.gamma = s, g
			if len(candidates) > 1 {
				c.setAside()
			}
		}
	}
	if len(candidates) > 1 {
		c.setAside() // back again
	}
	st.Damping, st.Gamma = next.lambda, next.gamma
	st.LearningRate, st.Momentum, st.Shrink = best.alpha, best.mu, 1
	st.QuadModelChange, st.KL = best.change, best.curvature/2
	w.lap(&st.Time.Update)
	next.last, next.lastNorm = best, c.squaredUpdate()
	if c.cfg.reject || k%c.cfg.lambdaPeriod == 0 && !c.cfg.judgeNext {
		if err := c.compare(st, next, best, k%c.cfg.lambdaPeriod == 0); err != nil {
			return err
		}
		w.lap(&st.Time.Rho)
	}
	return nil
}

// moved reports whether there is a previous update.
func (c *conductor[T]) moved() bool {
	for _, p := range c.order {
		if p.given && linalg.Dot(p.velocity, p.velocity) > 0 {
			return true
		}
	}
	return false
}

// candidate finds the best step for one gamma, and writes its updates to next of the parameters.
func (c *conductor[T]) candidate(st *Stats, gamma, damp float64, refresh, momentum bool, w *stopwatch) (step, error) {
	if err := c.direction(st, gamma, refresh, w); err != nil {
		return step{}, err
	}
	var m span
	for _, p := range c.order {
		if !p.given {
			continue
		}
		linalg.Scale(-1, p.dir) // Delta = -F0^-1 grad
		m.dots[0][0] += linalg.Dot64(p.dir, p.dir)
		m.slope[0] += linalg.Dot64(p.grad, p.dir)
		if momentum {
			m.dots[0][1] += linalg.Dot64(p.dir, p.velocity)
			m.dots[1][1] += linalg.Dot64(p.velocity, p.velocity)
			m.slope[1] += linalg.Dot64(p.grad, p.velocity)
		}
	}
	if err := c.quadratic.along(proposal, c.order, func(p *parameter[T]) []T { return p.dir }); err != nil {
		return step{}, err
	}
	m.f[0][0] = c.quadratic.fisher(proposal, proposal)
	if momentum {
		m.f[0][1] = c.quadratic.fisher(proposal, previous)
		m.f[1][1] = c.quadratic.fisher(previous, previous)
	}
	s := m.minimise(damp, momentum)
	if momentum && c.control.last.change != 0 {
		st.Overshoot = m.slope[1] / (2 * c.control.last.change)
	}
	if limit := c.cfg.normLimit; limit > 0 && s.curvature > limit {
		s = s.shrunk(math.Sqrt(limit/s.curvature), &m, damp)
	}
	if !s.finite() {
		return s, &GraphError{Node: c.cost.Name(), What: "minimising the quadratic model", Err: ErrNotFinite, Hint: "raise WithDamping"}
	}
	for _, p := range c.order {
		if p.given && !p.advance(T(s.alpha), T(s.mu)) {
			return s, overflow(p.name())
		}
	}
	w.lap(&st.Time.Model)
	return s, nil
}

// setAside exchanges the updates and inverses of the step in progress with those that lie aside.
func (c *conductor[T]) setAside() {
	for _, b := range c.blocks {
		b.stash()
	}
	for _, p := range c.order {
		if p.best == nil {
			p.best = make([]T, len(p.next))
		}
		p.next, p.best = p.best, p.next
	}
}

// compare evaluates the objective before and after the proposed step on the whole batch, adapts lambda if due, and rejects the step if it is
// worse and that was asked for.
func (c *conductor[T]) compare(st *Stats, next *control, s step, adapt bool) error {
	before, err := c.objective.at(c.order, c.scaleOfMean(), c.cfg.l2, nil)
	if err != nil {
		return err
	}
	after, err := c.objective.at(c.order, c.scaleOfMean(), c.cfg.l2, (*parameter[T]).trial)
	if err != nil {
		return err
	}
	st.Rho = reductionRatio(before, after, s, next.lambda, c.squaredUpdate(), c.cfg.rhoWithoutLambda)
	st.Rejected = c.cfg.reject && !(after <= before)
	if adapt || st.Rejected {
		next.lambda = adaptLambda(next.lambda, st.Rho, c.cfg.lambdaDecay)
	}
	return nil
}

// judge computes the reduction ratio of the previous step on the present batch.
func (c *conductor[T]) judge(st *Stats, next *control) error {
	after, err := c.objective.at(c.order, c.scaleOfMean(), c.cfg.l2, nil)
	if err != nil {
		return err
	}
	before, err := c.objective.at(c.order, c.scaleOfMean(), c.cfg.l2, (*parameter[T]).earlier)
	if err != nil {
		return err
	}
	next.num = c.cfg.judgeDecay*next.num + after - before
	next.den = c.cfg.judgeDecay*next.den + next.last.change
	st.Rho = next.num / next.den
	switch {
	case st.Rho > c.cfg.judgeHi:
		next.lambda *= c.cfg.lambdaDecay
	case !(st.Rho >= c.cfg.judgeLo):
		next.lambda /= c.cfg.lambdaDecay
	}
	return nil
}

// scaleOfMean turns the user's cost into the mean over cases of the negative log-likelihood by division.
func (c *conductor[T]) scaleOfMean() float64 { return c.scale * float64(c.model.Cases) }

func (c *conductor[T]) squaredUpdate() (s float64) {
	for _, p := range c.order {
		if p.given {
			s += linalg.Dot64(p.next, p.next)
		}
	}
	return s
}

// startDamping chooses lambda, and gamma with it, before the first step, which the paper leaves to the user (150 for its autoencoders, section
// 6.5). It tries the step that a lambda would make on the first batch, from the mean eigenvalue of the curvature on down by factors of ten for as
// long as the objective gets lower, or up if the first makes it worse. So the choice does not depend on the scale of loss or inputs.
func (c *conductor[T]) startDamping(st *Stats, next *control, w *stopwatch) error {
	before, err := c.objective.at(c.order, c.scaleOfMean(), c.cfg.l2, nil)
	if err != nil {
		return err
	}
	try := func(lambda float64) float64 {
		if _, err := c.candidate(st, gamma(lambda, c.cfg.l2), lambda+c.cfg.l2, true, false, w); err != nil {
			return math.Inf(1) // too little damping to compute with
		}
		after, err := c.objective.at(c.order, c.scaleOfMean(), c.cfg.l2, (*parameter[T]).trial)
		if err != nil || math.IsNaN(after) {
			return math.Inf(1)
		}
		return after
	}
	next.lambda = lowestStart(c.meanCurvature(), before, try)
	next.gamma = gamma(next.lambda, c.cfg.l2)
	w.lap(&st.Time.Rho)
	return nil
}

// meanCurvature is the trace of the approximate Fisher matrix over the number of parameters: its mean eigenvalue. It is 1 if there is none.
func (c *conductor[T]) meanCurvature() float64 {
	var trace, n float64
	for _, p := range c.order {
		if p.given {
			n += float64(len(p.grad))
		}
	}
	for _, b := range c.blocks {
		trace += b.trace()
	}
	if mean := trace / n; mean > 0 && !math.IsInf(mean, 0) {
		return mean
	}
	return 1
}

// commit makes the step's statistics, inverses and updates current, and writes the weights, unless the step was rejected.
func (c *conductor[T]) commit(st *Stats, next control) {
	for _, b := range c.blocks {
		b.keep(st.InverseUpdated)
	}
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
	c.control = next
	c.steps++
}
