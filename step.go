package kfac

import (
	"errors"
	"math"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// control holds the state of the rules for damping and noise, from step to step.
type control struct {
	lambda, gamma float64
	noise         noise
	// mismatch is the largest relative difference seen between the VM's objective and the solver's
	// own value. It is 0 if they have not been compared.
	mismatch float64
	// doubt is the fading largest difference that other masks of Dropout made to the objective.
	doubt float64
	// trace is the largest sum of the curvature's eigenvalues that was seen.
	trace float64
}

// An attempt is a step in progress: it holds what the step starts from. It proposes steps. It does
// not change the solver's state.
type attempt[T program.Float] struct {
	cfg      *config
	k        int // number of the step, counted from 1
	plan     *planned[T]
	batch    batch[T]
	tally    tally // of the batch
	averages averages[T]
	shares   averages[T] // of this rank in them; nil where there are no ranks
	ranks    *distributed[T]
	low      *lowRanks[T]
	before   control

	background *background[T]
	inner      *inner[T] // makes the step; nil if there is none
	quadratic  *quadratic[T]

	refresh     bool // the step computes all inverses
	bounds      lambdaBounds
	leave       bool    // what is proposed are directions, from which the caller makes the step
	past        bool    // there is a previous update
	heading     float64 // the gradient's slope along the heading
	cases       int
	gradNorm    float64
	predicted   predicted
	bounded     bool          // the likelihood of all outputs is bounded
	vmObjective float64       // the objective by the VM's cost, or NaN
	started     []proposed[T] // the last trials for the first lambda, two at most
	watch       *stopwatch
	time        *PhaseTimes
}

// A proposed step is the best step for one gamma, with the values that it was computed from.
type proposed[T program.Float] struct {
	step
	lambda, gamma float64 // damping of the step
	span          span
	fisher        [2][2]float64 // F over the two directions, exact: without the provisions of noise.go
	factor        float64       // in (0, 1]: the step was shortened by it
	norm          float64       // norm of the gradient in the metric of the damped curvature, (V.U)^1/2
	directionNorm float64       // Euclidean norm of the direction
	inverses      *inverses[T]
	updates       [][]T // by parameter; nil for one that was not given
	tried         *trial
}

// A trial is the objective before and after a step, with the draws that the step was made from.
type trial struct{ before, after float64 }

// release gives back the memory of a proposal that is not kept. params are the parameters that it
// was made from.
func (p *proposed[T]) release(params []*parameter[T]) {
	if p.inverses != nil {
		p.inverses.release()
	}
	for i, u := range p.updates {
		params[i].giveBack(u)
	}
	p.updates = nil
}

// shorten multiplies the proposal by a factor.
func (p *proposed[T]) shorten(by, lambda float64) {
	p.step, p.factor = p.scaled(by, 0, &p.span, lambda), by*p.factor
	for _, u := range p.updates {
		linalg.Scale(T(by), u)
	}
}

// direct computes the directions. If anew, it computes the inverses of all blocks. Otherwise it
// computes those of the Immediate blocks and uses those that are due from the background.
func (a *attempt[T]) direct(gamma float64, anew bool) (*inverses[T], error) {
	var made *inverses[T]
	if anew {
		var err error
		if made, err = a.invert(gamma); err != nil {
			return nil, err
		}
	} else {
		made = immediate(a.plan.blocks, a.averages, gamma, a.cfg.l2)
		a.background.collectDue(made, a.plan.blocks, a.k)
	}
	a.watch.lap(&a.time.Inverses)
	if err := a.ranks.direct(made, a.plan.blocks, a.plan.order, a.low); err != nil {
		made.release()
		return nil, err
	}
	a.watch.lap(&a.time.Precondition)
	return made, nil
}

// invert computes the inverses of all blocks.
func (a *attempt[T]) invert(gamma float64) (*inverses[T], error) {
	if a.shares == nil {
		return invert(a.plan.blocks, a.averages, gamma, a.cfg.l2)
	}
	return a.ranks.invert(a.plan.blocks, a.averages, a.shares, gamma, a.cfg.l2)
}

// share replaces the averages by those of all ranks, of which this one has a share.
func (a *attempt[T]) share() (err error) {
	if a.ranks.ranks == nil {
		return nil
	}
	a.shares = a.averages
	if a.averages, err = a.ranks.whole(a.plan.blocks, a.shares, nil); err != nil {
		a.shares.release(a.plan.blocks)
	}
	return err
}

// keep makes the averages current. It returns the number of blocks whose averages have restarted.
func (a *attempt[T]) keep(blocks []*block[T]) (restarted int) {
	if a.shares == nil {
		return a.averages.keep(blocks, a.cfg.ema)
	}
	a.averages.release(blocks)
	return a.shares.keep(blocks, a.cfg.ema)
}

// fixed makes the step that the learning rate, the momentum and the norm constraint determine.
func (a *attempt[T]) fixed() (proposed[T], error) {
	p := proposed[T]{}
	var err error
	if p.inverses, err = a.direct(a.before.gamma, a.refresh); err != nil {
		return p, err
	}
	m, err := spanOf(a.plan.blocks, a.cfg.l2, false)
	if err != nil {
		p.release(a.plan.order)
		return p, err
	}
	vu := -m.slope[0]
	p.norm, p.directionNorm = math.Sqrt(vu), normOf(a.plan.order, theDirection[T])
	p.factor = normConstraint(normLimit(a.cfg, a.cases, a.predicted), a.cfg.learningRate, m.metric)
	p.factor = min(p.factor, clipped(a.cfg.clipNorm, a.gradNorm))
	p.alpha, p.mu = p.factor*a.cfg.learningRate, a.cfg.momentum
	nan := math.NaN()
	p.change, p.fisher[0][0] = nan, nan // not computed
	if !a.leave && a.inner == nil {
		return p, a.update(&p)
	}
	p.alpha, p.mu = nan, nan
	return p, a.precondition(&p)
}

// precondition makes the directions, shortened by the norm constraint, the updates of a proposal,
// or what the inner solver makes of them. If that fails, it releases the proposal.
func (a *attempt[T]) precondition(p *proposed[T]) error {
	p.updates = make([][]T, len(a.plan.order))
	var given []*parameter[T]
	var directions, updates [][]T
	for i, q := range a.plan.order {
		if !q.given {
			continue
		}
		u := q.borrow()
		clear(u)
		linalg.Axpy(T(p.factor), q.direction, u)
		p.updates[i] = u
		given, directions, updates = append(given, q), append(directions, u), append(updates, u)
	}
	if a.leave {
		return nil
	}
	err := a.inner.step(given, directions, updates)
	if err != nil {
		p.release(a.plan.order)
	}
	return err
}

// update computes the updates of a proposal. If the updated weights overflow, it releases the
// proposal and returns an error.
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

// byModel finds the step by the quadratic model with the exact Fisher matrix (Martens & Grosse
// 2015, algorithm 2). It also returns the next state of the rules for damping and noise.
func (a *attempt[T]) byModel() (proposed[T], control, error) {
	next := a.before
	var err error
	if a.past, err = a.sweepPrevious(); err != nil {
		return proposed[T]{}, next, err
	}
	a.vmObjective = a.objectiveOfVM()
	defer a.dropStarted(0)
	if next.lambda == 0 {
		if err := a.startDamping(&next); err != nil {
			return proposed[T]{}, next, err
		}
	}
	if a.past && !a.cfg.paperRules {
		a.heading = slopeOfHeading(a.plan.order)
	}
	best, err := a.search(&next)
	if err != nil {
		return best, next, err
	}
	if a.k == 1 && next.noise.evidence.steps == 0 && !a.cfg.paperRules && !a.predicted.policies {
		if err := a.halve(&best, next.lambda); err != nil {
			best.release(a.plan.order)
			return best, next, err
		}
	}
	if a.tally.terms && !a.cfg.paperRules { // which need not be quadratic
		if err := a.shorten(&best, lowRho, &next); err != nil {
			best.release(a.plan.order)
			return best, next, err
		}
	}
	return best, next, nil
}

// sweepPrevious computes the Fisher products of the previous update. It reports whether there is
// one.
func (a *attempt[T]) sweepPrevious() (past bool, err error) {
	a.quadratic.prepare(a.batch, a.tally.terms && !a.cfg.paperRules)
	for _, p := range a.plan.order {
		past = past || p.given && p.moved()
	}
	if past {
		along := a.given(thePrevious[T])
		err = a.quadratic.along(previous, 1, a.plan.order, along)
	}
	a.watch.lap(&a.time.Model)
	return past, err
}

// objectiveOfVM returns the objective by the VM's cost, or NaN.
func (a *attempt[T]) objectiveOfVM() float64 {
	h := a.tally.likelihood
	for _, p := range a.plan.order {
		if eta := p.own.eta(a.cfg.l2); p.given && eta > 0 {
			h += eta / 2 * linalg.Dot64(p.weights.data, p.weights.data)
		}
	}
	return h
}

// nats brings a divergence to nats, where the unit of the only output is that of its residuals.
func (a *attempt[T]) nats(divergence float64) float64 {
	if outputs := a.plan.model.outputs; len(outputs) > 1 || !outputs[0].ownUnit {
		return divergence
	}
	return divergence * a.predicted.weighted / a.predicted.spread
}

// given returns pick of each parameter that was given, and nil for the others.
func (a *attempt[T]) given(pick func(*parameter[T]) []T) [][]T {
	picked := make([][]T, len(a.plan.order))
	for i, p := range a.plan.order {
		if p.given {
			picked[i] = pick(p)
		}
	}
	return picked
}

// search finds the best step. Damping with which none can be computed is raised, where the averages
// are at hand for other inverses.
func (a *attempt[T]) search(next *control) (best proposed[T], err error) {
	if a.cfg.paperRules || !a.whole() {
		return a.searchGamma(next)
	}
	mean := a.averages.meanCurvature(a.plan.blocks, a.plan.order)
	least := leastOfMean * mean
	if a.cfg.damping == 0 && next.lambda < least { // the curvature has grown, by far
		next.lambda, next.gamma = least, max(next.gamma, startOfGamma(least, a.cfg.l2))
	}
	next.trace = max(next.trace, mean*weightsGiven(a.plan.order))
	most := mostOfTrace * next.trace
	if a.cfg.damping == 0 && next.lambda > most {
		next.lambda = min(next.lambda, max(most, a.byGradient(a.vmObjective)))
		next.gamma = min(next.gamma, startOfGamma(next.lambda, a.cfg.l2))
	}
	if a.cfg.damping == 0 {
		a.bounds = lambdaBounds{true, least, most}
	}
	if a.refresh && a.before.noise.lost() {
		next.gamma = math.Min(a.cfg.maxGamma, next.gamma*math.Sqrt(a.before.noise.fresh))
		next.noise.fresh = 1
	}
	best, err = a.searchGamma(next)
	canRaise := func() bool { return errors.Is(err, ErrNotPosDef) || errors.Is(err, ErrNotFinite) }
	for n := 0; n < lastResorts && canRaise() && !a.ranks.over(); n++ {
		next.lambda = max(lastResort*next.lambda, leastOfMean*mean)
		next.gamma = startOfGamma(next.lambda, a.cfg.l2)
		best, err = a.propose(next.gamma, next.lambda, true, a.past)
	}
	return best, err
}

// Where no step can be computed, lambda is raised by lastResort, lastResorts times at most, from
// leastOfMean of the mean eigenvalue of the curvature on.
const (
	lastResort  = 100
	lastResorts = 8
	leastOfMean = 1e-8
	// mostOfTrace times the largest sum of all eigenvalues is the largest lambda: beside it no
	// direction has a curvature that counts. Where there is next to none, a gradient step may
	// promise half of the objective.
	mostOfTrace = 1e4
)

// byGradient returns the lambda with which a gradient step promises half of the objective.
func (a *attempt[T]) byGradient(objective float64) float64 {
	var squares float64
	for _, b := range a.plan.blocks {
		b.weave(true)
		for _, v := range b.v {
			squares += linalg.Dot64(v, v) / b.own().lambda
		}
	}
	return squares / math.Abs(objective)
}

// whole reports whether the step has averages of all blocks.
func (a *attempt[T]) whole() bool {
	return !slices.Contains(a.averages, nil)
}

// searchGamma finds the best step for the present gamma. If the step searches for gamma, it finds
// the best step for all candidates (section 6.6) and stores the best gamma in next.
func (a *attempt[T]) searchGamma(next *control) (best proposed[T], err error) {
	if !searchesGamma(a.cfg, a.k) {
		best, err = a.propose(next.gamma, next.lambda, a.refresh, a.past)
		for n := 0; err == errUphill && n < uphillTries; n++ {
			next.gamma *= uphillFactor
			best, err = a.propose(next.gamma, next.lambda, true, a.past)
		}
		return best, err
	}
	found := false
	var failed error // a candidate may fail; the search fails only if all of them do
	for _, g := range gammas(next.gamma, a.cfg.gammaDecay, leastGamma(a.cfg, next.lambda), a.cfg.maxGamma) {
		p, err := a.propose(g, next.lambda, true, a.past)
		switch {
		case err != nil && a.ranks.over():
			best.release(a.plan.order)
			return best, err
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

// Where the direction is uphill, gamma is multiplied by uphillFactor, at most uphillTries times.
const uphillTries, uphillFactor = 6, 10

// propose finds the best step for one gamma.
func (a *attempt[T]) propose(gamma, lambda float64, anew, past bool) (p proposed[T], err error) {
	if anew && !past {
		if p, ok := a.takeStarted(gamma, lambda); ok {
			return p, nil
		}
	}
	p.lambda, p.gamma = lambda, gamma
	if p.inverses, err = a.direct(gamma, anew); err != nil {
		return p, err
	}
	defer func() {
		if err != nil {
			p.release(a.plan.order)
		}
	}()
	m, err := spanOf(a.plan.blocks, a.cfg.l2, past)
	if err != nil {
		return p, err
	}
	p.norm, p.directionNorm = math.Sqrt(-m.slope[0]), normOf(a.plan.order, theDirection[T])
	err = a.quadratic.along(proposal, -1, a.plan.order, a.given(theDirection[T])) // Delta = -U
	if err = a.quadratic.products(&m, a.ranks.ranks, err); err != nil {
		return p, err
	}
	m.heading = a.heading
	p.fisher = m.f
	most := bounds{normLimit(a.cfg, a.cases, a.predicted), largestGain(a.cfg, a.bounded, a.vmObjective),
		a.predicted.noise / a.predicted.weighted, a.predicted.policies,
		clipped(a.cfg.clipNorm, a.gradNorm)}
	p.step, p.factor = a.before.noise.limited(&m, lambda, a.cfg, a.cases, most)
	p.span = m
	if !p.finite() {
		cost := a.batch[len(a.batch)-1].graph.cost
		return p, &GraphError{Node: program.NameOf(cost), What: "minimising the quadratic model",
			Err: ErrNotFinite, Hint: "raise WithDamping"}
	}
	err = a.update(&p)
	a.watch.lap(&a.time.Model)
	return p, err
}

// startDamping finds the first lambda by trial steps, and sets gamma from it.
func (a *attempt[T]) startDamping(next *control) error {
	h := objective{a.cfg.l2, true, a.ranks.ranks}
	before, err := a.objectiveBefore(h, 0, next)
	if err != nil {
		return err
	}
	try := func(lambda float64) float64 {
		a.dropStarted(1) // the search goes on from the last one, or has no use for any
		p, err := a.propose(startOfGamma(lambda, a.cfg.l2), lambda, true, false)
		if err != nil {
			return math.Inf(1) // the damping is too small to compute with
		}
		a.started = append(a.started, p)
		if p.span.fit(lambda) < leastRate {
			return math.Inf(1)
		}
		after, err := after(h, a.batch, a.plan.order, p.updates)
		if err != nil || math.IsNaN(after) {
			return math.Inf(1)
		}
		return after
	}
	start, ok := startOfLambda(a.averages.meanCurvature(a.plan.blocks, a.plan.order), before, try)
	if !ok { // there is next to no curvature: from where a gradient step promises half of the objective
		if byGradient := a.byGradient(before); byGradient > start && !math.IsInf(byGradient, 1) {
			start, _ = startOfLambda(byGradient, before, try)
		}
	}
	next.lambda = start
	next.gamma = startOfGamma(next.lambda, a.cfg.l2)
	a.watch.lap(&a.time.Rho)
	return nil
}

// takeStarted takes the trial for the first lambda that was made with this damping, if it is there.
func (a *attempt[T]) takeStarted(gamma, lambda float64) (p proposed[T], ok bool) {
	i := slices.IndexFunc(a.started, func(p proposed[T]) bool { return p.gamma == gamma && p.lambda == lambda })
	if i < 0 {
		return p, false
	}
	p = a.started[i]
	a.started = slices.Delete(a.started, i, i+1)
	return p, true
}

// dropStarted releases the trials for the first lambda but the last few.
func (a *attempt[T]) dropStarted(but int) {
	for len(a.started) > but {
		a.started[0].release(a.plan.order)
		a.started = slices.Delete(a.started, 0, 1)
	}
}

// shorten halves a step until its reduction ratio on its own batch, with its own masks of Dropout,
// is at least least, at most 12 times. With other masks the slope is another, and no step may be
// short enough.
func (a *attempt[T]) shorten(p *proposed[T], least float64, next *control) error {
	const halvings = 12
	h := objective{a.cfg.l2, false, a.ranks.ranks}
	before, err := a.objectiveBefore(h, p.change, next)
	if err != nil {
		return err
	}
	for range halvings {
		after, err := after(h, a.batch, a.plan.order, p.updates)
		if err != nil {
			return err
		}
		if reductionRatio(before, after, p.step, next.lambda, false) >= least {
			p.tried = &trial{before, after}
			break
		}
		p.shorten(0.5, next.lambda)
	}
	a.watch.lap(&a.time.Rho)
	return nil
}

// halve shortens the first step to the part that the halves of its batch have in common, and makes
// it the first evidence.
func (a *attempt[T]) halve(p *proposed[T], lambda float64) error {
	noise, ok, err := noiseOfHalves(a.plan, a.batch, p.inverses, a.ranks)
	if err != nil || !ok {
		return err
	}
	vu, alpha := -p.span.slope[0], p.alpha/p.factor
	if !(vu > 0) || !(alpha > 0) {
		return nil
	}
	signal := math.Min(1-noise/vu, alpha*p.span.unit()) // more than the whole step is no evidence
	limit := normLimit(a.cfg, a.cases, a.predicted) / trustedPart(a.cases)
	p.span.evidence = evidence{}.with(signal*alpha*vu, alpha*alpha*vu*p.span.unit(), limit)
	by := p.span.evidence.share(a.cases, a.predicted.noise/a.predicted.weighted) / p.factor
	if by < 1 {
		p.shorten(by, lambda)
	}
	return nil
}

// A verdict is the outcome of a step on its own batch.
type verdict struct {
	rho      float64 // the reduction ratio
	rejected bool
}

// judge evaluates the objective on the whole batch before and after the step. If adapt, it adapts
// lambda. It rejects the step if WithStepRejection is set and the objective rises or is NaN.
func (a *attempt[T]) judge(p *proposed[T], next *control, adapt bool) (verdict, error) {
	t, err := a.try(p, next)
	if err != nil {
		return verdict{}, err
	}
	before, after := t.before, t.after
	v := verdict{rho: reductionRatio(before, after, p.step, next.lambda, a.cfg.undampedRho)}
	v.rejected = a.cfg.reject && !(after <= before)
	doubt := math.Abs(before) * rounding[T]() / 1000
	if off := math.Abs(before - a.vmObjective); off > doubt { // rounding, or other masks of Dropout
		doubt = off
	}
	if a.tally.random {
		doubt = math.Max(doubt, doubtFade*a.before.doubt)
		next.doubt = doubt
	}
	switch {
	case !adapt && !v.rejected:
	case !a.cfg.paperRules && !(-p.change > trustworthy*doubt): // what it has changed is no evidence
	case a.cfg.paperRules || v.rejected:
		next.lambda = adaptLambda(next.lambda, v.rho, a.cfg.lambdaDecay)
	default:
		next.lambda = adaptLambdaByShare(next.lambda, v.rho, a.cfg.lambdaDecay, p.step)
		next.gamma = math.Max(next.gamma, leastGamma(a.cfg, next.lambda))
	}
	a.watch.lap(&a.time.Rho)
	return v, nil
}

// try evaluates the objective before and after the step, unless shorten has done so.
func (a *attempt[T]) try(p *proposed[T], next *control) (t trial, err error) {
	if p.tried != nil && !a.batch.draws() {
		return *p.tried, nil
	}
	h := objective{a.cfg.l2, true, a.ranks.ranks}
	if t.before, err = a.objectiveBefore(h, p.change, next); err != nil {
		return t, err
	}
	t.after, err = after(h, a.batch, a.plan.order, p.updates)
	return t, err
}

// trustworthy is how many times the doubt about the objective a promised change has to be, so that
// its reduction ratio counts for lambda.
const trustworthy = 3

// doubtFade is the factor on the doubt about a random objective from one judgement to the next: by
// chance a single difference may be far too small.
const doubtFade = 0.95

// objectiveBefore returns the objective before the step. change is the change that the step
// promises. objectiveBefore trusts the VM's value if that draws the same and the promised change is
// more than trustRatio = 100 times the largest difference seen between the two values. Otherwise it
// recomputes the objective.
func (a *attempt[T]) objectiveBefore(h objective, change float64, next *control) (float64, error) {
	same := !a.tally.random && !(h.others && a.tally.draws)
	if same && next.mismatch > 0 && -change > trustRatio*next.mismatch*math.Abs(a.vmObjective) {
		return a.vmObjective, nil
	}
	own, err := present(h, a.batch, a.plan.order)
	if off := math.Abs(a.vmObjective/own - 1); err == nil && same && !math.IsNaN(off) {
		next.mismatch = max(next.mismatch, off, rounding[T]()/1000) // not 0, because they may agree by chance
	}
	return own, err
}

// trustRatio: the VM's objective is trusted if the promised change is more than this many times its
// error. rho is then accurate to a hundredth.
const trustRatio = 100
