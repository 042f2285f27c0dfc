package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// control is what the rules for damping and noise go by from step to step.
type control struct {
	lambda, gamma float64
	noise         noise
	// mismatch is the most that the VM's objective has differed from our own by, relative to it; 0
	// if they have not been compared.
	mismatch float64
}

// An attempt is a step in the making: what it starts from. It proposes steps and changes nothing.
type attempt[T program.Float] struct {
	cfg      *config
	k        int // number of the step, from 1
	plan     *planned[T]
	batch    batch[T]
	averages averages[T]
	low      *lowRanks[T]
	before   control

	background *background[T]
	quadratic  *quadratic[T]
	objective  objective

	refresh   bool // all inverses are computed
	past      bool // there is a previous update
	cases     int
	variables float64 // of a case
	discrete  bool    // all targets are
	vm        float64 // the objective as the user's VM has it, or NaN
	watch     *stopwatch
	time      *PhaseTimes
}

// A proposed step is the best for one gamma, with what it was chosen from.
type proposed[T program.Float] struct {
	step
	lambda, gamma float64 // that it was made with
	span          span
	factor        float64 // in (0, 1], that the step was shortened by
	norm          float64 // of the gradient in the metric of the damped curvature, (V.U)^1/2
	inverses      *inverses[T]
	updates       [][]T // by parameter; nil for one that was not given
}

// release lets go of a proposal that is not kept. It must have been made from these parameters.
func (p *proposed[T]) release(params []*parameter[T]) {
	if p.inverses != nil {
		p.inverses.release()
	}
	for i, u := range p.updates {
		params[i].giveBack(u)
	}
	p.updates = nil
}

// direct computes the directions: with new inverses of all blocks if anew, or else of those that
// take no work or have one from the background.
func (a *attempt[T]) direct(gamma float64, anew bool) (*inverses[T], error) {
	var made *inverses[T]
	if anew {
		var err error
		if made, err = invert(a.plan.blocks, a.averages, gamma); err != nil {
			return nil, err
		}
	} else {
		made = immediate(a.plan.blocks, a.averages, gamma)
		a.background.takeUp(made, a.plan.blocks, a.k)
	}
	a.watch.lap(&a.time.Inverses)
	if err := made.direct(a.plan.blocks, a.plan.order, a.low); err != nil {
		made.release()
		return nil, err
	}
	a.watch.lap(&a.time.Precondition)
	return made, nil
}

// fixed goes as far as learning rate, momentum and norm constraint say.
func (a *attempt[T]) fixed() (proposed[T], error) {
	p := proposed[T]{}
	var err error
	if p.inverses, err = a.direct(a.before.gamma, a.refresh); err != nil {
		return p, err
	}
	m, err := spanOf(a.plan.order, false)
	if err != nil {
		p.release(a.plan.order)
		return p, err
	}
	vu := -m.slope[0]
	p.norm = math.Sqrt(vu)
	p.factor = normConstraint(normLimit(a.cfg, a.cases, a.variables), a.cfg.learningRate, vu)
	p.alpha, p.mu = p.factor*a.cfg.learningRate, a.cfg.momentum
	nan := math.NaN()
	p.change, p.curvature = nan, nan // nobody has looked
	return p, a.update(&p)
}

// update computes the updates of a proposal, and lets go of it where they leave the range of the
// weights.
func (a *attempt[T]) update(p *proposed[T]) error {
	p.updates = make([][]T, len(a.plan.order))
	for i, q := range a.plan.order {
		if !q.given {
			continue
		}
		p.updates[i] = q.borrow()
		if !q.updateBy(p.updates[i], T(p.alpha), T(p.mu)) {
			p.release(a.plan.order)
			return &ParamError{Param: q.name, Op: "updating", Err: ErrNotFinite,
				Hint: "lower WithLearningRate or raise WithDamping"}
		}
	}
	return nil
}

// byModel goes as far as the exact-Fisher quadratic model says (Martens & Grosse 2015, algorithm
// 2), and returns what the rules go by from here.
func (a *attempt[T]) byModel() (proposed[T], control, error) {
	next := a.before
	if err := a.begin(); err != nil {
		return proposed[T]{}, next, err
	}
	next.noise.trend.see(a.vm)
	if next.lambda == 0 {
		if err := a.startDamping(&next); err != nil {
			return proposed[T]{}, next, err
		}
	}
	best, err := a.search(&next)
	if err != nil {
		return best, next, err
	}
	if least, tried := next.noise.leastRho(best.step, a.cases); tried && !a.cfg.paperRules {
		if err := a.shorten(&best, least, &next); err != nil {
			best.release(a.plan.order)
			return best, next, err
		}
	}
	return best, next, nil
}

// begin sweeps along the previous update, and takes the objective from the VM.
func (a *attempt[T]) begin() error {
	a.quadratic.prepare(a.batch)
	for _, p := range a.plan.order {
		a.past = a.past || p.given && p.moved()
	}
	if a.past {
		along := a.given(func(p *parameter[T]) []T { return p.previous })
		if err := a.quadratic.along(previous, 1, a.plan.order, along); err != nil {
			return err
		}
	}
	a.watch.lap(&a.time.Model)
	a.vm = a.batch.likelihood()
	if a.cfg.l2 > 0 {
		for _, p := range a.plan.order {
			if p.given {
				a.vm += a.cfg.l2 / 2 * linalg.Dot64(p.weights.data, p.weights.data)
			}
		}
	}
	return nil
}

// given picks something of each parameter that was given, and nil of the others.
func (a *attempt[T]) given(pick func(*parameter[T]) []T) [][]T {
	picked := make([][]T, len(a.plan.order))
	for i, p := range a.plan.order {
		if p.given {
			picked[i] = pick(p)
		}
	}
	return picked
}

// search finds the best step, for the present gamma or, where it is time to look for another, for
// the best of several (section 6.6). It leaves the best gamma in next.
func (a *attempt[T]) search(next *control) (best proposed[T], err error) {
	damp := next.lambda + a.cfg.l2
	if !searchesGamma(a.cfg, a.k) {
		return a.propose(next.gamma, damp, a.refresh, a.past)
	}
	found := false
	var failed error // a gamma that can't be computed with is out; the search fails only if all of them are
	for _, g := range gammas(next.gamma, a.cfg.gammaDecay, leastGamma(a.cfg, next.lambda), a.cfg.maxGamma) {
		p, err := a.propose(g, damp, true, a.past)
		switch {
		case err != nil:
			failed = err
		case !found || p.change < best.change:
			best.release(a.plan.order)
			best, next.gamma, found = p, g, true
		default:
			p.release(a.plan.order)
		}
	}
	a.watch.lap(&a.time.Update)
	if !found {
		return best, failed
	}
	return best, nil
}

// propose finds the best step for one gamma.
func (a *attempt[T]) propose(gamma, damp float64, anew, past bool) (p proposed[T], err error) {
	if p.inverses, err = a.direct(gamma, anew); err != nil {
		return p, err
	}
	defer func() {
		if err != nil {
			p.release(a.plan.order)
		}
	}()
	m, err := spanOf(a.plan.order, past)
	if err != nil {
		return p, err
	}
	p.norm = math.Sqrt(-m.slope[0])
	along := a.given(func(p *parameter[T]) []T { return p.direction })
	if err := a.quadratic.along(proposal, -1, a.plan.order, along); err != nil { // Delta = -U
		return p, err
	}
	m.f = a.quadratic.products(past)
	m.confirmed += m.f[0][1] + a.cfg.l2*m.dots[0][1]
	limit := normLimit(a.cfg, a.cases, a.variables)
	gain := largestGain(a.cfg, a.discrete, a.vm)
	p.step, p.factor = a.before.noise.limited(&m, damp, a.cfg, a.cases, limit, gain)
	p.span = m
	if !p.finite() {
		return p, &GraphError{Node: a.batch[len(a.batch)-1].graph.cost.Name(), What: "minimising the quadratic model",
			Err: ErrNotFinite, Hint: "raise WithDamping"}
	}
	err = a.update(&p)
	a.watch.lap(&a.time.Model)
	return p, err
}

// startDamping finds lambda, and gamma with it, by trial steps.
func (a *attempt[T]) startDamping(next *control) error {
	before, err := a.objectiveBefore(0, next)
	if err != nil {
		return err
	}
	try := func(lambda float64) float64 {
		p, err := a.propose(startOfGamma(lambda, a.cfg.l2), lambda+a.cfg.l2, true, false)
		if err != nil {
			return math.Inf(1) // too little damping to compute with
		}
		defer p.release(a.plan.order)
		after, err := after(a.objective, a.batch, a.plan.order, p.updates)
		if err != nil || math.IsNaN(after) {
			return math.Inf(1)
		}
		return after
	}
	mean := a.averages.meanCurvature(a.plan.blocks, a.plan.order)
	next.lambda = startOfLambda(mean, before, try)
	next.gamma = startOfGamma(next.lambda, a.cfg.l2)
	a.watch.lap(&a.time.Rho)
	return nil
}

// shorten halves a step until it keeps at least the part least of what the model promises on its
// own batch.
func (a *attempt[T]) shorten(p *proposed[T], least float64, next *control) error {
	const halvings = 12
	before, err := a.objectiveBefore(p.change, next)
	if err != nil {
		return err
	}
	for range halvings {
		after, err := after(a.objective, a.batch, a.plan.order, p.updates)
		if err != nil {
			return err
		}
		if reductionRatio(before, after, p.step, next.lambda, false) >= least {
			break
		}
		p.step, p.factor = p.shrunk(0.5, &p.span, next.lambda+a.cfg.l2), p.factor/2
		for _, u := range p.updates {
			linalg.Scale(0.5, u)
		}
	}
	a.watch.lap(&a.time.Rho)
	return nil
}

// A verdict is how a step turned out on its own batch.
type verdict struct {
	rho      float64 // the reduction ratio
	rejected bool
}

// judge evaluates the objective before and after the step on the whole batch, adapts lambda if that
// is due, and rejects the step if it is worse and that was asked for.
func (a *attempt[T]) judge(p *proposed[T], next *control, adapt bool) (verdict, error) {
	before, err := a.objectiveBefore(p.change, next)
	if err != nil {
		return verdict{}, err
	}
	after, err := after(a.objective, a.batch, a.plan.order, p.updates)
	if err != nil {
		return verdict{}, err
	}
	if math.IsNaN(a.batch.cost()) {
		next.noise.trend.see(before)
	}
	v := verdict{rho: reductionRatio(before, after, p.step, next.lambda, a.cfg.undampedRho)}
	v.rejected = a.cfg.reject && !(after <= before)
	switch {
	case !adapt && !v.rejected:
	case a.cfg.paperRules || v.rejected:
		next.lambda = adaptLambda(next.lambda, v.rho, a.cfg.lambdaDecay)
	default:
		next.lambda = next.noise.adapt(next.lambda, v.rho, a.cfg.lambdaDecay, p.step)
		next.gamma = math.Max(next.gamma, leastGamma(a.cfg, next.lambda))
	}
	a.watch.lap(&a.time.Rho)
	return v, nil
}

// objectiveBefore is the objective before a step that promises a change. It trusts the VM's value
// if the promise is readable times the largest difference seen between the two, and nothing is
// random, and computes it anew otherwise.
func (a *attempt[T]) objectiveBefore(change float64, next *control) (float64, error) {
	random := a.batch.random()
	if !random && next.mismatch > 0 && -change > readable*next.mismatch*math.Abs(a.vm) {
		return a.vm, nil
	}
	own, err := present(a.objective, a.batch, a.plan.order)
	if off := math.Abs(a.vm/own - 1); err == nil && !random && !math.IsNaN(off) {
		next.mismatch = max(next.mismatch, off, rounding[T]()/1000) // they may agree by chance
	}
	return own, err
}

// readable is how many times what the VM's objective may be off by a promised change has to be: rho
// is right to a hundredth then.
const readable = 100
