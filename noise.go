package kfac

import "math"

// The rules of Martens & Grosse (2015) judge a step by the batch that it was made from. That is
// right for the large batches that they recommend. On a small one a step that fits the batch's
// noise looks perfect: lambda and gamma vanish, the steps grow, and training rots or blows up. The
// provisions of this file look at what the batches before and after say. Where the batch is large
// they change next to nothing, and WithPaperRules leaves them out. CONTRIBUTING.md says what each
// of them is worth.
//
//	trust   a step is shortened to the part of its slope that another batch confirms
//	steady  a curvature far below what the batches before have shown is not believed
//	trend   where the objective no longer falls from batch to batch, lambda goes up whatever they
//	        say themselves
//	bounds  lambda stays where it makes a difference, and gamma near it; a step from few cases
//	        changes little, and none promises more than there is to gain
//	trial   a step that is much longer than those before, or from a handful of cases, is tried on
//	        its own batch

// noise is what the provisions know of the steps before.
type noise struct {
	// Fading sums of the slope along Delta, as the step's own gradient has it and as the gradient
	// of the batch before does.
	own, confirmed float64

	curvature float64 // delta^T F delta of the previous step
	reach     float64 // fading maximum of |delta|
	// stretch is the fading geometric mean of Delta^T F Delta / -grad^T Delta: the curvature along
	// Delta over its approximation.
	stretch float64
	trend   trend
}

const (
	halfTrusted = 16.0     // cases of which a batch is trusted half, whatever the batch before says
	fade        = 0.8      // what the sums keep from step to step
	leastPast   = 1.0 / 2  // of the previous update's curvature
	leastMean   = 1.0 / 8  // of the usual stretch
	reachFade   = 0.95     // what the longest step's length keeps from step to step
	longerBy    = 3.0      // times that length, a step is not taken untried
	mostNats    = 1.0      // that a step from a large batch may change each target variable's distribution by
	mostGain    = 2.0      // times the objective: a step's largest promise, where that can't fall below zero
	leastShare  = 1.0 / 20 // of the step's curvature: what lambda makes of it at least
	mostShare   = 10.0     // and at most, where the trend is to blame
)

// limited is the minimum of the span as far as it is to be trusted, and the part of it that this
// is. limit is what delta^T F delta may be, and gain what the step may promise.
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
	if -s.change*factor*(2-factor) > gain { // M is s.change f (2 - f) after the part f of the step
		factor = 1 - math.Sqrt(1+gain/s.change)
	}
	if factor < 1 {
		s = s.shrunk(factor, m, damp)
	}
	return s, factor
}

// normLimit is kappa for a batch of so many cases and target variables; see WithNormConstraint.
func normLimit(cfg *config, cases int, variables float64) float64 {
	switch {
	case cfg.normLimit > 0:
		return cfg.normLimit
	case cfg.learningRate > 0:
		return 1e-3 * math.Sqrt(variables)
	case cfg.paperRules:
		return math.Inf(1)
	}
	return 2 * mostNats * variables * trustedPart(cases)
}

// normConstraint is the factor nu = min(1, sqrt(kappa / (lr^2 V.U))) on the learning rate.
func normConstraint(kappa, rate, vu float64) float64 {
	if nu := math.Sqrt(kappa/vu) / rate; nu < 1 { // this way round lr^2 can't overflow
		return nu
	}
	return 1
}

// largestGain is what M may promise to lower the objective by. The negative log-likelihood of
// discrete targets can't fall below zero.
func largestGain(cfg *config, discrete bool, objective float64) float64 {
	if cfg.paperRules || !discrete || !(objective > 0) { // also NaN, where the VM did not keep it
		return math.Inf(1)
	}
	return mostGain * objective
}

// trust is the factor in (0, 1] on a step from a batch of so many cases.
//
// The gradient of the step's own batch is signal and noise, and Delta is made from both, so that
// the slope grad^T Delta owes something to the noise. The noise of the batch before is another one:
// grad' = grad(theta - delta0) + F delta0, the gradient that it has at theta by the quadratic
// model, gives the same slope without. The ratio of the two is the part of the step that is no
// noise.
func (n *noise) trust(cases int, m *span) float64 {
	least := trustedPart(cases)
	own, confirmed := n.slopes(m)
	part := confirmed / own
	if !(part > least) { // also NaN
		return least
	}
	return math.Min(part, 1)
}

// trustedPart of a batch of so many cases is trusted, whatever the batch before says.
func trustedPart(cases int) float64 { return float64(cases) / (float64(cases) + halfTrusted) }

// slopes are the fading sums with the present step's.
func (n *noise) slopes(m *span) (own, confirmed float64) {
	if !m.past {
		return n.own, n.confirmed
	}
	return fade*n.own + m.slope[0], fade*n.confirmed + m.confirmed
}

// steady raises curvatures that are far below those of the steps before. A batch of few cases may
// know next to nothing of a direction.
func (n *noise) steady(m *span) {
	m.f[1][1] = math.Max(m.f[1][1], leastPast*n.curvature)
	m.f[0][0] = math.Max(m.f[0][0], -leastMean*n.stretch*m.slope[0])
}

// leastRho says whether a step is tried on its own batch first, and the reduction ratio that it has
// to have there. One that is much longer than those before has to keep a good part of what it
// promises; one from a handful of cases just must not raise the objective.
func (n *noise) leastRho(s step, cases int) (least float64, tried bool) {
	if n.reach > 0 && math.Sqrt(s.squares) > longerBy*n.reach {
		return lowRho, true
	}
	return 0, cases <= halfTrusted
}

// remember takes in the step that is made.
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

// trend follows the objective on each batch before the step that is made from it.
type trend struct {
	count                int
	mean, variance, best float64
}

const (
	trendFade    = 0.9   // what mean and variance keep: some twenty steps count
	trendFrom    = 10    // steps, before which there is no trend
	trendErrors  = 4     // standard errors above the best mean are a rise
	trendForgets = 200.0 // steps in which the best mean is forgotten
)

// see takes in the objective on another batch.
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

// rising reports whether the objective has gone up by more than the noise of batches explains.
func (t *trend) rising() bool {
	const steps = (1 + trendFade) / (1 - trendFade) // that the mean is worth
	return t.count > trendFrom && t.mean > t.best+trendErrors*math.Sqrt(t.variance/steps)
}

// adapt is the rule for lambda with the provisions: where the objective rises it goes up, faster
// than by the paper's rule, until the steps are short; it does not fall to where it no longer makes
// a difference, from where it would take long to come back.
func (n *noise) adapt(lambda, rho, omega float64, s step) float64 {
	share := lambda * s.squares / s.curvature // of lambda in the step's curvature
	switch {
	case n.trend.rising() && share < mostShare:
		return lambda * math.Max(1, leastShare/share) / (omega * omega)
	case n.trend.rising(), rho > highRho && share < leastShare:
		return lambda
	}
	return adaptLambda(lambda, rho, omega)
}
