package kfac

import "math"

// gamma is the damping of the factors' product: gamma^2 = lambda + eta (Martens & Grosse 2015, section 6.6).
func gamma(lambda, eta float64) float64 { return math.Sqrt(lambda + eta) }

// factoredTikhonov splits gamma between the two factors of a layer (Martens & Grosse 2015, sections 6.3 and 6.6): it returns what to
// add to the diagonals of A (n x n) and G (m x m),
//
//	pi gamma  and  gamma / pi,   pi = sqrt( (tr A / n) / (tr G / m) ),
//
// the trace-norm form of pi, which minimises a bound on the error of damping the factors in place of their product. Where a
// trace is zero (all inputs zero, a dead layer) or so small that pi would not be finite, pi is 1.
func factoredTikhonov(traceA float64, n int, traceG float64, m int, gamma float64) (dampA, dampG float64) {
	pi := math.Sqrt(traceA / float64(n) / (traceG / float64(m)))
	if traceA <= 0 || traceG <= 0 || pi == 0 || math.IsInf(pi, 0) || math.IsNaN(pi) {
		pi = 1
	}
	return pi * gamma, gamma / pi
}
