package kfac

import (
	"math"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// modelStep goes as far as the exact-Fisher quadratic model says, and adapts the damping (Martens & Grosse 2015, algorithm 2).
func (c *conductor[T]) modelStep(st *Stats, next *control, chunks []chunk[T], refresh bool, w *stopwatch) error {
	k := st.Step
	c.quadratic.prepare(chunks)
	past := c.moved()
	if past {
		if err := c.quadratic.along(previous, c.order, func(p *parameter[T]) []T { return p.velocity }); err != nil {
			return err
		}
	}
	w.lap(&st.Time.Model)
	c.fresh = c.freshObjective(chunks)
	next.noise.trend.see(c.fresh)
	if next.lambda == 0 {
		if err := c.startDamping(st, next, chunks, w); err != nil {
			return err
		}
	}
	best, err := c.search(st, next, refresh, past, w)
	if err != nil {
		return err
	}
	if least, tried := next.noise.leastRho(best.step, st.Cases); tried && !c.cfg.paperRules {
		if err := c.shorten(&best, least, next, chunks); err != nil {
			return err
		}
		w.lap(&st.Time.Rho)
	}
	st.Damping, st.Gamma, st.DampingRaised = next.lambda, next.gamma, best.raised
	st.LearningRate, st.Momentum, st.Shrink = best.alpha, best.mu, best.factor
	st.QuadModelChange, st.KL = best.change, best.curvature/2
	next.noise.remember(&best.span, best.step)
	if k == 1 && c.cfg.damping == 0 {
		next.lambda *= afterStart
		next.gamma = gamma(next.lambda, c.cfg.l2)
	}
	if adapt := k%c.cfg.lambdaPeriod == 0; adapt || c.cfg.reject {
		if err := c.compare(st, next, chunks, best.step, adapt); err != nil {
			return err
		}
		w.lap(&st.Time.Rho)
	}
	return nil
}

// search finds the best step, for the present gamma or, where it is time to look for another, for the best of several (section 6.6).
func (c *conductor[T]) search(st *Stats, next *control, refresh, past bool, w *stopwatch) (best proposed, err error) {
	damp := next.lambda + c.cfg.l2
	if !c.searchesGamma(st.Step) {
		return c.candidate(st, next.gamma, damp, refresh, past, w)
	}
	var found bool
	var failed error // a gamma that can't be computed with is out of the search, which fails only if all of them are
	for _, g := range gammas(next.gamma, c.cfg.gammaDecay, c.leastGamma(next.lambda), c.cfg.gammaMax) {
		s, err := c.candidate(st, g, damp, true, past, w)
		switch {
		case err != nil:
			failed = err
		case !found || s.change < best.change:
			best, next.gamma, found = s, g, true
			c.setAside()
		}
	}
	if !found {
		return best, failed
	}
	c.setAside() // back again
	w.lap(&st.Time.Update)
	return best, nil
}

// searchesGamma reports whether gamma is searched for at step k: by the paper's rules at every T2-th. Otherwise, as its start is a guess, it is at T2/4, T2/2
// and T2, and then at every doubling of the number of steps, unless every T2-th was asked for.
func (c *conductor[T]) searchesGamma(k int) bool {
	period := c.cfg.gammaPeriod
	switch {
	case c.cfg.paperRules:
		return k%period == 0
	case k <= period:
		return k == period/4 || k == period/2 || k == period
	case c.cfg.gammaAgain:
		return k%period == 0
	}
	double := k / period
	return k%period == 0 && double&(double-1) == 0 && c.cfg.backgroundLag == 0
}

// freshObjective is the objective on the present batch as the user's VM has computed it, or NaN if the VM did not keep it.
func (c *conductor[T]) freshObjective(chunks []chunk[T]) float64 {
	var h float64
	var cases int
	for _, k := range chunks {
		h += k.cost / k.graph.scale
		cases += k.cases
	}
	h /= float64(cases)
	if c.cfg.l2 > 0 {
		for _, p := range c.order {
			if p.given {
				h += c.cfg.l2 / 2 * linalg.Dot64(p.store.data, p.store.data)
			}
		}
	}
	return h
}

// leastGamma is the lower bound of gamma.
func (c *conductor[T]) leastGamma(lambda float64) float64 {
	if c.cfg.paperRules {
		return math.Sqrt(c.cfg.l2)
	}
	return math.Sqrt(c.cfg.l2 + belowGamma*lambda)
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

// A proposed is the best step for one gamma, and what it was chosen from.
type proposed struct {
	step
	span   span
	factor float64 // that the step was shortened by
	raised int     // factors whose damping had to be raised
}

// mostPromise is what M may promise to lower the objective by. The negative log-likelihood of discrete targets can't fall below zero.
func (c *conductor[T]) mostPromise() float64 {
	continuous := slices.ContainsFunc(c.outputs, func(o *output) bool { return !o.head.Discrete() })
	if c.cfg.paperRules || continuous || !(c.fresh > 0) { // also NaN, where the VM did not keep it
		return math.Inf(1)
	}
	return boastful * c.fresh
}

// candidate finds the best step for one gamma, and writes its updates to next of the parameters. past says that there is a previous update.
func (c *conductor[T]) candidate(st *Stats, gamma, damp float64, refresh, past bool, w *stopwatch) (proposed, error) {
	if err := c.direction(st, gamma, refresh, w); err != nil {
		return proposed{}, err
	}
	m, err := c.spanOf(past)
	if err != nil {
		return proposed{}, err
	}
	c.quadratic.products(&m)
	m.confirmed += m.f[0][1] + c.cfg.l2*m.dots[0][1]
	s := c.minimum(m, damp, st.Cases)
	if !s.finite() {
		return s, &GraphError{Node: c.cost.Name(), What: "minimising the quadratic model", Err: ErrNotFinite, Hint: "raise WithDamping"}
	}
	for _, p := range c.order {
		if p.given && !p.advance(T(s.alpha), T(s.mu)) {
			return s, overflow(p.name())
		}
	}
	s.raised = st.DampingRaised
	w.lap(&st.Time.Model)
	return s, nil
}

// spanOf computes the inner products of proposal, previous update and gradients, and the sweeps along the proposal.
func (c *conductor[T]) spanOf(past bool) (m span, err error) {
	m.past = past
	for _, p := range c.order {
		if !p.given {
			continue
		}
		s := p.innerProducts(past)
		m.dots[0][0] += s[0]
		m.slope[0] += s[1]
		if math.IsInf(m.slope[0], 0) || math.IsNaN(m.slope[0]) {
			return m, gradientOverflow(p.name())
		}
		m.dots[0][1] += s[2]
		m.dots[1][1] += s[3]
		m.slope[1] += s[4]
		m.confirmed += s[5]
	}
	return m, c.quadratic.along(proposal, c.order, func(p *parameter[T]) []T { return p.dir })
}

// innerProducts makes dir the proposal Delta = -F0^-1 grad, and returns Delta.Delta, grad.Delta and, if past, Delta.delta0, delta0.delta0, grad.delta0
// and the inner product of Delta with the gradient before, all in one pass over memory.
func (p *parameter[T]) innerProducts(past bool) (s [6]float64) {
	linalg.Sums(len(p.dir), s[:], func(from, to int, s []float64) {
		dir, grad := p.dir[from:to], p.grad[from:to]
		linalg.Scale(-1, dir)
		s[0], s[1] = linalg.Dot64(dir, dir), linalg.Dot64(grad, dir)
		if past {
			v := p.velocity[from:to]
			s[2], s[3], s[4], s[5] = linalg.Dot64(dir, v), linalg.Dot64(v, v), linalg.Dot64(grad, v), linalg.Dot64(p.gradBefore[from:to], dir)
		}
	})
	return s
}

// minimum is the best step of the span, as far as it is to be trusted.
func (c *conductor[T]) minimum(m span, damp float64, cases int) proposed {
	factor := 1.0
	if n := &c.control.noise; !c.cfg.paperRules {
		n.steady(&m)
		factor = n.trust(cases, &m)
	}
	s := m.minimise(damp, m.past && !c.cfg.noMomentum)
	if limit := c.normLimit(cases); s.curvature*factor*factor > limit {
		factor = math.Sqrt(limit / s.curvature)
	}
	if most := c.mostPromise(); -s.change*factor*(2-factor) > most { // M is s.change f (2 - f) after the part f of the step
		factor = 1 - math.Sqrt(1+most/s.change)
	}
	if factor < 1 {
		s = s.shrunk(factor, &m, damp)
	}
	return proposed{step: s, span: m, factor: factor}
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
func (c *conductor[T]) compare(st *Stats, next *control, chunks []chunk[T], s step, adapt bool) error {
	before, err := c.before(chunks, s, next)
	if err != nil {
		return err
	}
	after, err := c.evaluate(chunks, (*parameter[T]).trial)
	if err != nil {
		return err
	}
	if math.IsNaN(st.Cost) {
		next.noise.trend.see(before)
	}
	st.Rho = reductionRatio(before, after, s, next.lambda, c.cfg.rhoWithoutLambda)
	st.Rejected = c.cfg.reject && !(after <= before)
	switch {
	case !adapt && !st.Rejected:
	case c.cfg.paperRules || st.Rejected:
		next.lambda = adaptLambda(next.lambda, st.Rho, c.cfg.lambdaDecay)
	default:
		next.lambda = next.noise.adapt(next.lambda, st.Rho, c.cfg.lambdaDecay, s)
		next.gamma = math.Max(next.gamma, c.leastGamma(next.lambda))
	}
	return nil
}

// shorten halves a step until it keeps at least the part least of what the model promises on its own batch.
func (c *conductor[T]) shorten(s *proposed, least float64, next *control, chunks []chunk[T]) error {
	const halvings = 12
	before, err := c.before(chunks, s.step, next)
	if err != nil {
		return err
	}
	for range halvings {
		after, err := c.evaluate(chunks, (*parameter[T]).trial)
		if err != nil {
			return err
		}
		if reductionRatio(before, after, s.step, next.lambda, false) >= least {
			break
		}
		s.step, s.factor = s.shrunk(0.5, &s.span, next.lambda+c.cfg.l2), s.factor/2
		for _, p := range c.order {
			if p.given {
				linalg.Scale(0.5, p.next)
			}
		}
	}
	return nil
}

// before is the objective before a step: as the user's VM has it, if what the step promises is far above what that has differed by from our own value so far, and if
// nothing random is in it.
func (c *conductor[T]) before(chunks []chunk[T], s step, next *control) (float64, error) {
	random := slices.ContainsFunc(chunks, func(k chunk[T]) bool { return draws(k.graph.whole) != nil })
	if !random && next.off > 0 && -s.change > readable*next.off*math.Abs(c.fresh) {
		return c.fresh, nil
	}
	own, err := c.evaluate(chunks, (*parameter[T]).present)
	if off := math.Abs(c.fresh/own - 1); err == nil && !random && !math.IsNaN(off) {
		next.off = max(next.off, off, rounding[T]()/1000) // they may agree by chance
	}
	return own, err
}

// readable is how many times the change of the objective that a step promises has to be what the VM's objective may be off by: rho is right to a hundredth then.
const readable = 100

// evaluate is the objective on all cases of the update, with the parameters as pick gives them.
func (c *conductor[T]) evaluate(chunks []chunk[T], pick func(*parameter[T]) []T) (float64, error) {
	return c.objective.at(chunks, c.order, c.cfg.l2, pick)
}

// afterStart is the part of the lambda that suits the first step best that the next begin with. They start from a better place, where the model holds
// further: the best starts of a grid are lower than what the first step wants, on every problem tried.
const afterStart = 1.0 / 5

// startDamping chooses lambda, and gamma with it, before the first step, which the paper leaves to the user (150 for its autoencoders, section
// 6.5). It tries the step that a lambda would make on the first batch, from the mean eigenvalue of the curvature on down by factors of ten for as
// long as the objective gets lower, or up if the first makes it worse. So the choice does not depend on the scale of loss or inputs.
func (c *conductor[T]) startDamping(st *Stats, next *control, chunks []chunk[T], w *stopwatch) error {
	before, err := c.before(chunks, step{}, next)
	if err != nil {
		return err
	}
	try := func(lambda float64) float64 {
		if _, err := c.candidate(st, gamma(lambda, c.cfg.l2), lambda+c.cfg.l2, true, false, w); err != nil {
			return math.Inf(1) // too little damping to compute with
		}
		after, err := c.evaluate(chunks, (*parameter[T]).trial)
		if err != nil || math.IsNaN(after) {
			return math.Inf(1)
		}
		return after
	}
	next.lambda = startOfLambda(c.meanCurvature(), before, try)
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
