package kfac

import "math"

// The rules of Martens & Grosse (2015) judge a step by the batch that it was made from. That is
// right for the large batches that they recommend. On a small batch, a step that fits the batch's
// noise looks perfect. lambda and gamma then vanish, the steps grow, and training gets worse again
// or diverges. The additional rules of this file also use the batches before and after. With large
// batches they change almost nothing. WithPaperRules turns them off. CONTRIBUTING.md says how much
// each rule contributes.
//
//	trust   shortens a step to the part of its slope that another batch confirms
//	steady  raises a curvature that is far below the curvature of the previous steps
//	trend   raises lambda where the objective no longer falls from batch to batch, whatever rho
//	        is on each of them
//	bounds  keep lambda large enough to make a difference, and gamma near it; limit the change of
//	        the predictions by a step from few cases, and the promised gain of any step
//	trial   tries a step on its own batch if it is much longer than the previous steps, or comes
//	        from a handful of cases

// noise is what these rules remember of the previous steps.
type noise struct {
	// Fading sums of the slope along Delta: own is the slope by the gradient of the step's own
	// batch, confirmed is the slope by the gradient of the previous batch.
	own, confirmed float64

	curvature float64 // delta^T F delta of the previous step
	reach     float64 // fading maximum of |delta|
	// stretch is the fading geometric mean of Delta^T F Delta / -grad^T Delta: the exact curvature
	// along Delta divided by the approximate curvature.
	stretch float64
	trend   trend
}

const (
	halfTrusted = 16.0    // a batch of this many cases is trusted at least half
	fade        = 0.8     // factor on the fading sums from step to step
	leastPast   = 1.0 / 2 // lower bound: fraction of the previous update's curvature
	leastMean   = 1.0 / 8 // lower bound: fraction of the fading mean stretch
	reachFade   = 0.95    // factor on reach from step to step
	keeps       = 1.0 / 4 // of what it promises, that such a step keeps at least
	longerBy    = 3.0     // a step longer than this many times reach is tried first
	mostNats    = 1.0     // largest change of a target variable's distribution, in nats, by a step from a large batch
	mostGain    = 2.0     // largest promised gain, in objectives, if the objective can't fall below zero
)

// limited minimises the quadratic model over the span and shortens the step where it is not to be
// trusted. It returns the step and the factor by which it was shortened. limit is the upper bound
// of delta^T F delta. gain is the upper bound of the reduction of the objective that the model
// promises.
func (n *noise) limited(m *span, damp float64, cfg *config, cases int, limit, gain float64) (step, float64) {
	factor := 1.0
	if !cfg.paperRules {
		n.steady(m)
		factor = n.trust(cases, m)
	}
	s := m.minimise(damp, m.past && !cfg.noMomentum)
	if s.curvature*factor*factor > limit {
		factor = math.Sqrt(limit / s.curvature)
	}
	if -s.change*factor*(2-factor) > gain { // with factor f on the step, M(delta) - M(0) is s.change f (2 - f)
		part := -gain / s.change
		factor = part / (1 + math.Sqrt(1-part)) // 1 - sqrt(1 - part), also where part is tiny
	}
	if factor < 1 {
		s = s.shrunk(factor, m, damp)
	}
	return s, factor
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
	}
	limit := 2 * mostNats * u.known
	if u.unknown {
		// With an estimated variance 2 h / d of d variables, 2 nats for each are 4 h.
		limit += 4 * mostNats * u.objective
	}
	return limit * trustedPart(cases)
}

// normConstraint returns nu = min(1, sqrt(kappa / (lr^2 V.U))), the factor on the learning rate lr.
func normConstraint(kappa, rate, vu float64) float64 {
	if nu := math.Sqrt(kappa/vu) / rate; nu < 1 { // in this order lr^2 can't overflow
		return nu
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

// trust returns the factor in (0, 1] on a step from a batch with this number of cases.
//
// The gradient of the step's own batch is signal plus noise. Delta is made from this gradient, so
// the noise adds to the slope grad^T Delta. The noise of the previous batch is independent. By the
// quadratic model, the gradient of the previous batch at the present theta is grad' = grad(theta -
// delta0) + F delta0. Its slope along Delta does not contain the noise of the step's own batch. The
// ratio of the two slopes is the part of the step that is not noise.
func (n *noise) trust(cases int, m *span) float64 {
	least := trustedPart(cases)
	own, confirmed := n.slopes(m)
	part := confirmed / own
	if !(part > least) { // true for NaN too
		return least
	}
	return math.Min(part, 1)
}

// trustedPart returns the least factor of trust for a batch with this number of cases.
func trustedPart(cases int) float64 { return float64(cases) / (float64(cases) + halfTrusted) }

// slopes returns the fading sums, including the present step.
func (n *noise) slopes(m *span) (own, confirmed float64) {
	if !m.past {
		return n.own, n.confirmed
	}
	return fade*n.own + m.slope[0], fade*n.confirmed + m.confirmed
}

// steady raises curvatures that are far below those of the previous steps. A batch of few cases may
// contain almost no information about a direction.
func (n *noise) steady(m *span) {
	m.f[1][1] = math.Max(m.f[1][1], leastPast*n.curvature)
	m.f[0][0] = math.Max(m.f[0][0], -leastMean*n.stretch*m.slope[0])
}

// leastRho reports whether a step is tried on its own batch first, and the least reduction ratio
// for the trial. A step that is much longer than the previous ones must keep a good part of its
// promise. A step from a handful of cases must only not raise the objective.
func (n *noise) leastRho(s step, cases int) (least float64, tried bool) {
	if n.reach > 0 && math.Sqrt(s.squares) > longerBy*n.reach {
		return keeps, true
	}
	return 0, cases <= halfTrusted
}

// remember records the step that is made.
func (n *noise) remember(m *span, s step) {
	n.own, n.confirmed = n.slopes(m)
	n.curvature = s.curvature
	n.reach = math.Max(reachFade*n.reach, math.Sqrt(s.squares))
	switch stretch := -m.f[0][0] / m.slope[0]; {
	case !(stretch > 0) || math.IsInf(stretch, 0):
	case n.stretch == 0:
		n.stretch = stretch
	default:
		n.stretch = math.Pow(n.stretch, fade) * math.Pow(stretch, 1-fade)
	}
}

// trend follows the objective on each batch before that batch's step.
type trend struct {
	count                int
	mean, variance, best float64
}

const (
	trendFade    = 0.9   // factor on mean and variance from step to step: about twenty steps count
	trendFrom    = 10    // number of steps without a trend at the start
	trendErrors  = 4     // a mean this many standard errors above the best mean is a rise
	trendForgets = 200.0 // number of steps in which the best mean is forgotten
)

// see records the objective on the next batch.
func (t *trend) see(h float64) {
	if math.IsNaN(h) || math.IsInf(h, 0) {
		return
	}
	t.count++
	keep := math.Min(1-1/float64(t.count), trendFade)
	d := h - t.mean
	t.mean += (1 - keep) * d
	t.variance = keep * (t.variance + (1-keep)*d*d)
	if t.count <= trendFrom {
		t.best = t.mean
	}
	t.best = math.Min(t.best+(t.mean-t.best)/trendForgets, t.mean)
}

// rising reports whether the objective has risen by more than the noise of the batches explains.
func (t *trend) rising() bool {
	const steps = (1 + trendFade) / (1 - trendFade) // number of steps with independent values that the mean is worth
	return t.count > trendFrom && t.mean > t.best+trendErrors*math.Sqrt(t.variance/steps)
}
