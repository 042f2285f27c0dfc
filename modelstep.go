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
	moved := c.moved()
	momentum := moved && !c.cfg.noMomentum
	if momentum {
		if err := c.quadratic.along(previous, c.order, func(p *parameter[T]) []T { return p.velocity }); err != nil {
			return err
		}
	}
	w.lap(&st.Time.Model)
	if !c.cfg.sameBatchRho && c.movedLast() && (k-1)%c.cfg.lambdaPeriod == 0 {
		if err := c.judge(st, next, chunks); err != nil {
			return err
		}
		w.lap(&st.Time.Rho)
	}
	if next.lambda == 0 {
		if err := c.startDamping(st, next, chunks, w); err != nil {
			return err
		}
	}
	damp := next.lambda + c.cfg.l2
	candidates := []float64{next.gamma}
	if k%c.cfg.gammaPeriod == 0 {
		candidates, refresh = gammas(next.gamma, c.cfg.gammaDecay, math.Sqrt(c.cfg.l2), c.cfg.gammaMax), true
	}
	var best step
	var found bool
	var raised int
	var failed error // a gamma that can't be computed with is out of the search, which fails only if all of them are
	for _, g := range candidates {
		s, err := c.candidate(st, g, damp, refresh, momentum, w)
		switch {
		case err != nil:
			failed = err
		case !found || s.change < best.change:
			best, next.gamma, found, raised = s, g, true, st.DampingRaised
			if len(candidates) > 1 {
				c.setAside()
			}
		}
	}
	if !found {
		return failed
	}
	if len(candidates) > 1 {
		c.setAside() // back again
	}
	st.Damping, st.Gamma, st.DampingRaised = next.lambda, next.gamma, raised
	st.LearningRate, st.Momentum, st.Shrink = best.alpha, best.mu, 1
	st.QuadModelChange, st.KL = best.change, best.curvature/2
	w.lap(&st.Time.Update)
	next.heldOut.predicted = best.change
	if adapt := c.cfg.sameBatchRho && k%c.cfg.lambdaPeriod == 0; adapt || c.cfg.reject {
		if err := c.compare(st, next, chunks, best, adapt); err != nil {
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

// movedLast reports whether the previous step has moved anything.
func (c *conductor[T]) movedLast() bool {
	return slices.ContainsFunc(c.order, func(p *parameter[T]) bool { return p.movedLast })
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
		if math.IsInf(m.slope[0], 0) || math.IsNaN(m.slope[0]) {
			return step{}, gradientOverflow(p.name())
		}
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
func (c *conductor[T]) compare(st *Stats, next *control, chunks []chunk[T], s step, adapt bool) error {
	before, err := c.evaluate(chunks, (*parameter[T]).present)
	if err != nil {
		return err
	}
	after, err := c.evaluate(chunks, (*parameter[T]).trial)
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

// evaluate is the objective on all cases of the update, with the parameters as pick gives them.
func (c *conductor[T]) evaluate(chunks []chunk[T], pick func(*parameter[T]) []T) (float64, error) {
	return c.objective.at(chunks, c.order, c.scale, c.cfg.l2, pick)
}

// judge computes the reduction ratio of the previous step on the present batch and adapts lambda by it; see heldOut.
func (c *conductor[T]) judge(st *Stats, next *control, chunks []chunk[T]) error {
	for _, p := range c.order {
		if p.movedLast && !p.given {
			if err := p.readWeights(); err != nil {
				return err
			}
		}
	}
	after, err := c.evaluate(chunks, (*parameter[T]).moved)
	if err != nil {
		return err
	}
	before, err := c.evaluate(chunks, (*parameter[T]).earlier)
	if err != nil {
		return err
	}
	st.Rho = next.heldOut.ratio(after - before)
	next.lambda = adaptHeldOut(next.lambda, st.Rho, c.cfg.lambdaDecay)
	return nil
}

// startDamping chooses lambda, and gamma with it, before the first step, which the paper leaves to the user (150 for its autoencoders, section
// 6.5). It tries the step that a lambda would make on the first batch, from the mean eigenvalue of the curvature on down by factors of ten for as
// long as the objective gets lower, or up if the first makes it worse. So the choice does not depend on the scale of loss or inputs.
func (c *conductor[T]) startDamping(st *Stats, next *control, chunks []chunk[T], w *stopwatch) error {
	before, err := c.evaluate(chunks, (*parameter[T]).present)
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
