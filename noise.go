package kfac

import "math"

// The rules of Martens & Grosse (2015) judge a step by the batch that it was made from. That is
// right for the large batches that they recommend. On a small batch, a step that fits the batch's
// noise looks perfect: the paper's steps grow, and training gets worse again or diverges. The
// additional rules of this file also use the batches before and after. With large batches they
// change almost nothing. WithPaperRules turns them off. CONTRIBUTING.md says how much each rule
// contributes.
//
//	share   shortens a step to what the batches after the previous steps confirmed of those, and
//	        takes back what they did not confirm
//	steady  raises a curvature that is far below the curvature of the previous steps
//	bounds  limit the change of the predictions by a step from few cases, and the promised gain of
//	        any step; keep lambda large enough to make a difference, and gamma near it

// noise is what these rules remember of the previous steps.
type noise struct {
	evidence evidence
	// factor is what the previous step was multiplied by. It is 0 if there is none, and if the
	// step took back another: such a step tells nothing about the next ones.
	factor float64

	curvature float64 // delta^T F delta of the previous step
	// stretch is the fading geometric mean of Delta^T F Delta / Delta^T F0 Delta: the exact
	// curvature along Delta divided by the approximate curvature.
	stretch float64
	// approximate is delta^T F0 delta of the previous step: the curvature along it by the damped
	// Kronecker approximation.
	approximate float64
	// fresh is the fading geometric mean of delta0^T F delta0 / delta0^T F0 delta0, with F by the
	// batch after the step. It is about 1 where the approximation is good.
	fresh float64
}

const (
	fade       = 0.8       // factor on the logarithm of the mean stretch from step to step
	leastPast  = 1.0 / 2   // lower bound: fraction of the previous update's curvature
	leastMean  = 1.0 / 8   // lower bound: fraction of the fading mean stretch, times the approximate curvature
	takesBack  = 1.0 / 2   // a step of which less than this part is confirmed is taken back to that part
	mostNats   = 1.0       // largest change of a target variable's distribution, in nats, by a step from a large batch
	policyNats = 1.0 / 100 // largest divergence of a policy from that before the step, in nats per case
	mostGain   = 2.0       // largest promised gain, in objectives, if the objective can't fall below zero
)

// seen returns the evidence, including that of the present batch about the previous step. unit is
// the variance of the residuals, where F has 1. restart says that the heading begins anew with the
// previous update.
func (n *noise) seen(m *span, limit, unit float64, cases int) (e evidence, restart bool) {
	if !m.past || n.factor == 0 {
		return n.evidence, false
	}
	bend := m.f[1][1] + m.ridge[1][1]
	if math.IsInf(bend, 0) || math.IsNaN(bend) {
		return n.evidence, false
	}
	e = n.evidence.turned(bend, n.factor)
	gain, whole := (e.fit-m.heading)/e.weight, bend/(n.factor*n.factor)
	if restart = gain < -tooWrong(whole, unit, cases); restart {
		e.fit, e.weight = bend, n.factor
		gain = (bend - m.slope[1]) / n.factor
	}
	return e.with(gain, whole, limit), restart
}

// bounds are the upper bounds of a step.
type bounds struct {
	curvature float64 // delta^T F delta
	gain      float64 // reduction of the objective that the model promises
	unit      float64 // variance of the residuals, where F has 1
	whole     bool    // the curvature is that of each step, since the objective has no unit
	part      float64 // that clipping leaves of the step
}

// limited minimises the quadratic model over the span and shortens the step where it is not to be
// trusted. It returns the step and the factor by which it was shortened. It raises the curvatures
// of m that are far too small.
func (n *noise) limited(m *span, lambda float64, cfg *config, cases int, most bounds) (s step, factor float64) {
	factor = 1
	if most.whole && !cfg.paperRules {
		n.steady(m)
		return m.minimiseTo(most.curvature, lambda, m.past && !cfg.noMomentum), factor
	}
	if !cfg.paperRules {
		m.evidence, m.restart = n.seen(m, most.curvature/trustedPart(cases), most.unit, cases)
		factor = m.evidence.share(cases, most.unit)
		m.curvature = m.f[1][1]
		n.steady(m)
	}
	s = m.minimise(lambda, m.past && !cfg.noMomentum)
	if factor < 1 {
		s = s.scaled(factor, 0, m, lambda)
	}
	if m.past && !cfg.paperRules && !cfg.noMomentum && factor < takesBack*n.factor {
		m.back = m.takesBack(factor/n.factor-1, lambda)
		s = s.scaled(1, m.back, m, lambda)
	}
	part := most.part
	if s.curvature > most.curvature {
		part = min(part, math.Sqrt(most.curvature/s.curvature))
	}
	slope := s.alpha*m.slope[0] + s.mu*m.slope[1]
	bend := 2 * (s.change - slope)
	if -part*(slope+part*bend/2) > most.gain { // with which part of the step it is the most
		part = 2 * most.gain / (math.Sqrt(slope*slope-2*bend*most.gain) - slope)
	}
	if part < 1 {
		s = s.scaled(part, 0, m, lambda)
	}
	return s, part * factor
}

// takesBack returns a multiple of the previous update, wanted where the present batch agrees: not
// above the one with the smallest M, which is the part that the batch does not confirm, and not
// below twice that, where M is what it is without.
func (s *span) takesBack(wanted, lambda float64) float64 {
	lowest := math.Max(-1, math.Min(0, -s.slope[1]/s.bend(lambda)[1][1]))
	return math.Max(math.Min(lowest, wanted), 2*lowest)
}

// normLimit returns kappa for a batch with this number of cases; see WithNormConstraint. u says
// what a case predicts.
func normLimit(cfg *config, cases int, u predicted) float64 {
	switch {
	case cfg.normLimit > 0:
		return cfg.normLimit
	case cfg.learningRate > 0:
		return 1e-3 * u.weighted / math.Sqrt(u.variables)
	case cfg.paperRules:
		return math.Inf(1)
	case u.policy:
		return 2 * policyNats
	}
	return 2 * mostNats * u.spread * trustedPart(cases)
}

// normConstraint returns nu = min(1, sqrt(kappa / (lr^2 V.U))), the factor on the learning rate lr.
func normConstraint(kappa, rate, vu float64) float64 {
	if nu := math.Sqrt(kappa/vu) / rate; nu < 1 { // in this order lr^2 can't overflow
		return nu
	}
	return 1
}

// clipped returns the factor that limits the norm of a gradient; limit is 0 for none.
func clipped(limit, norm float64) float64 {
	if limit > 0 && norm > limit {
		return limit / norm
	}
	return 1
}

// largestGain returns the largest reduction of the objective that the quadratic model may promise.
// Where the negative log-likelihood can't fall below zero, the objective limits it. Otherwise there
// is no limit.
func largestGain(cfg *config, bounded bool, objective float64) float64 {
	if cfg.paperRules || !bounded || !(objective > 0) { // true for NaN too: the VM did not keep the cost
		return math.Inf(1)
	}
	return mostGain * objective
}

// steady raises curvatures that are far below those of the previous steps. A batch of few cases may
// contain almost no information about a direction, and none about one between the two, along which
// a step may go very far.
func (n *noise) steady(m *span) {
	m.f[1][1] = math.Max(m.f[1][1], leastPast*n.curvature)
	m.f = raised(m.f, m.approximation(n.approximate), leastMean*n.stretch)
}

// raised returns f with a curvature of at least least times that by g, along both directions and
// all between them. Where g tells the two not apart, that is the first direction.
func raised(f, g [2][2]float64, least float64) [2][2]float64 {
	f[0][0] = math.Max(f[0][0], least*g[0][0])
	// By g there are orthonormal e, e' with which Delta = x e and delta0 = t e + y e'.
	x := math.Sqrt(g[0][0])
	t := g[0][1] / x
	y := math.Sqrt(g[1][1] - t*t)
	if !(y*y > collinear*g[1][1]) { // true for NaN too
		return f
	}
	a := f[0][0] / (x * x)
	b := (f[0][1]/x - t*a) / y
	d := (f[1][1] - t*t*a - 2*t*y*b) / (y * y)
	lowest := (a+d)/2 - math.Hypot((a-d)/2, b)
	if !(lowest < least) {
		return f
	}
	sin, cos := math.Sincos(math.Atan2(2*b, a-d) / 2)
	u, v := -x*sin, y*cos-t*sin // of the direction with the lowest
	f[0][0] += (least - lowest) * u * u
	f[0][1] += (least - lowest) * u * v
	f[1][1] += (least - lowest) * v * v
	return f
}

// remember records the step that is made, and the factor on it.
func (n *noise) remember(m *span, s step, factor float64) {
	n.evidence, n.factor = m.evidence.stepped(s.alpha*m.unit(), m.back*m.f[1][1]), factor
	if m.back < 0 {
		n.factor = 0
	}
	n.curvature = s.curvature
	n.stretch = faded(n.stretch, m.f[0][0]/m.metric)
	if m.past {
		n.fresh = faded(n.fresh, m.curvature/n.approximate)
	}
	n.approximate = s.alpha*s.alpha*m.metric - 2*s.alpha*s.mu*m.unit()*m.slope[1] + s.mu*s.mu*n.approximate
}

// faded returns a fading geometric mean with one more number, unless that is not positive and
// finite. A mean of 0 has none yet.
func faded(mean, x float64) float64 {
	switch {
	case !(x > 0) || math.IsInf(x, 0):
		return mean
	case mean == 0:
		return x
	}
	return math.Pow(mean, fade) * math.Pow(x, 1-fade)
}

// lost reports whether steps turn out to have a far larger curvature than the approximation says,
// which happens where the damping is too small for what the approximation lacks.
func (n *noise) lost() bool { return n.fresh > tooFar }

// tooFar is how many times the approximate curvature the steps may have on fresh cases.
const tooFar = 100
