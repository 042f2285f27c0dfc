package kfac

import "math"

// startOfGamma is the damping of the factors' product at the start: gamma^2 = lambda + eta (Martens
// & Grosse 2015, section 6.6).
func startOfGamma(lambda, eta float64) float64 { return math.Sqrt(lambda + eta) }

// tikhonov is factored Tikhonov damping with a gamma (Martens & Grosse 2015, sections 6.3 and 6.6).
type tikhonov float64

// Split splits gamma between the two factors of a layer: it returns what to add to the diagonals of
// A (n x n) and G (m x m),
//
//	pi gamma  and  gamma / pi,   pi = sqrt( (tr A / n) / (tr G / m) ),
//
// the trace-norm form of pi, which minimises a bound on the error of damping the factors in place
// of their product. Where a trace is zero (all inputs zero, a dead layer) or so small that pi would
// not be finite, pi is 1.
func (gamma tikhonov) Split(traceA float64, n int, traceG float64, m int) (dampA, dampG float64) {
	pi := math.Sqrt(traceA / float64(n) / (traceG / float64(m)))
	if traceA <= 0 || traceG <= 0 || pi == 0 || math.IsInf(pi, 0) || math.IsNaN(pi) {
		pi = 1
	}
	return pi * float64(gamma), float64(gamma) / pi
}

// Whole is the damping of a block without factors, gamma^2.
func (gamma tikhonov) Whole() float64 { return float64(gamma * gamma) }

// adaptLambda is the Levenberg-Marquardt rule (Martens & Grosse 2015, section 6.5): where the
// quadratic model predicts well, lambda falls by omega, where it does not, it rises. A ratio that
// is NaN, as of an objective that overflowed, counts as bad.
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

// reductionRatio is rho = (h(theta+delta) - h(theta)) / (M(delta) - M(0)) (section 6.5). The
// denominator includes the damping term of M, as the paper's does, or leaves lambda out of it, as
// the authors' later implementations do.
func reductionRatio(before, after float64, s step, lambda float64, undamped bool) float64 {
	change := s.change
	if undamped {
		change -= lambda / 2 * s.squares
	}
	if !(after <= before) { // also NaN
		return math.Inf(-1)
	}
	if change == 0 {
		return math.NaN()
	}
	return (after - before) / change
}

// gammas are the candidates for gamma when it is searched for: the present one, and one a factor
// omega below and above, within the limits. The lower comes first, and stays on a tie, as in the
// authors' code.
func gammas(gamma, omega, lowest, highest float64) []float64 {
	list := []float64{math.Max(gamma*omega, lowest), gamma, math.Min(gamma/omega, highest)}
	if list[0] >= gamma {
		list = list[1:]
	}
	return list
}

// leastGamma is the lower bound of gamma.
func leastGamma(cfg *config, lambda float64) float64 {
	if cfg.paperRules {
		return math.Sqrt(cfg.l2)
	}
	return math.Sqrt(cfg.l2 + belowGamma*lambda)
}

// belowGamma is the part of lambda that gamma^2 is at least, beside eta.
const belowGamma = 1.0 / 10

// searchesGamma reports whether gamma is searched for at step k: by the paper's rules at every
// T2-th. Otherwise, as its start is a guess, it is at T2/4, T2/2 and T2, and then at every doubling
// of the number of steps, unless every T2-th was asked for.
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

// afterStart is the part of the lambda that suits the first step best that the next begin with.
// They start from a better place, where the model holds further: the best starts of a grid are
// lower than what the first step wants, on every problem tried.
const afterStart = 1.0 / 5

// startOfLambda chooses lambda before the first step, which the paper leaves to the user (150 for
// its autoencoders, section 6.5). It tries the step that a lambda would make on the first batch:
// try returns the objective after it. It walks from lambda by factors of ten, down for as long as
// the objective falls worth mentioning, or up until it is below what it was before. It returns the
// lambda that it was given where none gets it lower, as at a minimum. Started from the mean
// eigenvalue of the curvature, the choice does not depend on the scale of loss or inputs.
func startOfLambda(lambda, before float64, try func(lambda float64) float64) float64 {
	const factor, tries, worth = 10, 12, 1.0 / 200
	after := try(lambda)
	if !(after < before) {
		for higher, n := lambda, 0; n < tries; n++ {
			higher *= factor
			if try(higher) < before {
				return higher // what is less damped made it worse
			}
		}
		return lambda
	}
	for range tries {
		lower := try(lambda / factor)
		if !(lower < after-worth*(before-after)) {
			break
		}
		lambda, after = lambda/factor, lower
	}
	return lambda
}
