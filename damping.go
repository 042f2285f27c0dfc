package kfac

import "math"

// startOfGamma returns the first gamma: gamma^2 = lambda + eta (Martens & Grosse 2015, section
// 6.6).
func startOfGamma(lambda, eta float64) float64 { return math.Sqrt(lambda + eta) }

// tikhonov is a gamma, used as factored Tikhonov damping (Martens & Grosse 2015, sections 6.3 and
// 6.6).
type tikhonov float64

// Split splits gamma between the two factors of a layer. It returns what to add to the diagonals of
// A (n x n) and G (m x m):
//
//	pi gamma  and  gamma / pi,   pi = sqrt( (tr A / n) / (tr G / m) ).
//
// This is the trace-norm form of pi. It minimises a bound on the error of damping the factors
// instead of their product. pi is 1 if a trace is zero (all inputs zero, a dead layer) or so small
// that pi would be zero or not finite.
func (gamma tikhonov) Split(traceA float64, n int, traceG float64, m int) (dampA, dampG float64) {
	pi := math.Sqrt(traceA / float64(n) / (traceG / float64(m)))
	if traceA <= 0 || traceG <= 0 || pi == 0 || math.IsInf(pi, 0) || math.IsNaN(pi) {
		pi = 1
	}
	return pi * float64(gamma), float64(gamma) / pi
}

// Whole returns the damping of a block without factors, gamma^2.
func (gamma tikhonov) Whole() float64 { return float64(gamma * gamma) }

// adaptLambda is the Levenberg-Marquardt rule (Martens & Grosse 2015, section 6.5). lambda is
// multiplied by omega if rho is above highRho (the quadratic model predicts well), and divided by
// omega if rho is below lowRho. A rho of NaN, for example after an overflow of the objective,
// counts as low.
func adaptLambda(lambda, rho, omega float64) float64 {
	switch {
	case rho > highRho:
		return lambda * omega
	case rho >= lowRho:
		return lambda
	}
	return lambda / omega
}

const lowRho, highRho = 1.0 / 4, 3.0 / 4

// adaptLambdaByShare is the rule for lambda with the additional rules of noise.go. lambda does not
// fall to values that make no difference, because it would take long to rise again from there. From
// where it outweighs the curvature by far it falls at once.
func adaptLambdaByShare(lambda, rho, omega float64, s step) float64 {
	share := lambda * s.squares / s.curvature // lambda's part relative to the step's curvature
	switch {
	case rho > highRho && share < leastShare:
		return lambda
	case rho > highRho && share > mostShare: // back to where the curvature counts
		return lambda * math.Min(omega, math.Max(mostShare/share, fastestFall))
	}
	return adaptLambda(lambda, rho, omega)
}

const (
	leastShare  = 1.0 / 20 // smallest ratio lambda |delta|^2 / delta^T F delta
	mostShare   = 10.0     // largest such ratio from which lambda falls by omega
	fastestFall = 1e-3     // least part of lambda that is left after one adaptation
)

// reductionRatio returns rho = (h(theta+delta) - h(theta)) / (M(delta) - M(0)) (section 6.5). The
// denominator includes the damping term of M, as in the paper. If undamped, it leaves out the part
// with lambda, as in the authors' later implementations. rho is -Inf if the objective rose or is
// NaN. It is NaN if the predicted change is 0.
func reductionRatio(before, after float64, s step, lambda float64, undamped bool) float64 {
	change := s.change
	if undamped {
		change -= lambda / 2 * s.squares
	}
	if !(after <= before) { // true for NaN too
		return math.Inf(-1)
	}
	if change == 0 {
		return math.NaN()
	}
	return (after - before) / change
}

// gammas returns the candidates of a search for gamma: the present gamma, gamma times omega and
// gamma divided by omega, within the limits. The lowest comes first and wins a tie, as in the
// authors' code.
func gammas(gamma, omega, lowest, highest float64) []float64 {
	list := []float64{math.Max(gamma*omega, lowest), gamma, math.Min(gamma/omega, highest)}
	if list[0] >= gamma {
		list = list[1:]
	}
	return list
}

// leastGamma returns the lower limit of gamma.
func leastGamma(cfg *config, lambda float64) float64 {
	if cfg.paperRules {
		return math.Sqrt(cfg.l2)
	}
	return math.Sqrt(cfg.l2 + belowGamma*lambda)
}

// belowGamma: gamma^2 is at least eta plus this fraction of lambda.
const belowGamma = 1.0 / 10

// searchesGamma reports whether step k searches for gamma. By the paper's rules, every T2-th step
// does. Otherwise the first gamma is only a guess, so steps T2/4, T2/2 and T2 search. After that,
// every T2-th step searches if WithGammaAdaptation was given. If not, a step searches if it is T2
// times a power of two and there are no background inverses.
func searchesGamma(cfg *config, k int) bool {
	period := cfg.gammaPeriod
	switch {
	case cfg.learningRate > 0:
		return false
	case cfg.paperRules:
		return k%period == 0
	case k <= period:
		return k == period/4 || k == period/2 || k == period
	case cfg.gammaAgain:
		return k%period == 0
	}
	double := k / period
	return k%period == 0 && double&(double-1) == 0 && cfg.backgroundLag == 0
}

// afterStart: after the first step, lambda is multiplied by this factor. The next steps start from
// a better point, where the quadratic model is valid over a longer distance. On every problem
// tried, the best first lambda of a grid was lower than the best lambda for the first step alone.
const afterStart = 1.0 / 5

// leastRate is the least alpha with which a step counts for the start of lambda. With too little
// damping, Delta lies where the approximation of the Fisher matrix is worst: the step lowers the
// objective only because alpha is tiny, and rho does not see it.
const leastRate = 1.0 / 4

// startOfLambda chooses lambda before the first step. The paper leaves this choice to the user (150
// for its autoencoders, section 6.5). try returns the objective on the first batch after a step
// with the given lambda. before is the objective without a step.
//
// startOfLambda starts from the given lambda. If its step lowers the objective, lambda is divided
// by ten for as long as the objective falls further by at least 1/200 of the reduction so far.
// Otherwise lambda is multiplied by ten until a step lowers the objective. Both stop after 12
// tries. If no step lowers the objective, as at a minimum, startOfLambda returns the given lambda,
// and false. If the given lambda is the mean eigenvalue of the curvature, the choice does not
// depend on the scale of the loss or the inputs.
func startOfLambda(lambda, before float64, try func(lambda float64) float64) (start float64, ok bool) {
	const factor, tries, worth = 10, 12, 1.0 / 200
	after := try(lambda)
	if !(after < before) {
		for higher, n := lambda, 0; n < tries; n++ {
			higher *= factor
			if try(higher) < before {
				return higher, true // steps with less damping did not lower the objective
			}
		}
		return lambda, false
	}
	for range tries {
		lower := try(lambda / factor)
		if !(lower < after-worth*(before-after)) {
			break
		}
		lambda, after = lambda/factor, lower
	}
	return lambda, true
}
