package curvature

import (
	"math"
	"math/rand/v2"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// LowRank is a gradient V = Abar^T E in the form of its two parts (Martens & Grosse 2015, section
// 8, task 6). Abar (R x abar) holds the layer's inputs at the R positions of the batch. E (R x out)
// holds the gradients of the objective with respect to the layer's outputs at these positions. Then
//
//	U = A^-1 V G^-1 = (A^-1 Abar^T) (E G^-1)
//
// takes R (n^2 + m^2 + n m) multiplications instead of n m (n + m), for n = abar and m = out. That
// is less if the batch is small compared with the layer.
type LowRank[T Float] struct {
	shape  Shape
	inputs []T // Abar^T: abar x R
	errors []T // E

	at, et                      []T // A^-1 Abar^T and G^-1 E^T: abar x R, out x R
	signs, rows, product, given []T // scratch of Matches
}

// Matches reports whether the gradient equals Abar^T E, up to tolerance times the gradient's norm.
// It multiplies both by the same vector of random signs and compares the products (Freivalds 1977).
// The mean squared difference of the products equals the squared difference of the matrices. So
// Matches detects a gradient that was clipped, and one with a contribution from another term of the
// cost.
func (v *LowRank[T]) Matches(grad []T, tolerance float64, rng *rand.Rand) bool {
	n, m := v.shape.Abar(), v.shape.Out
	rows := len(v.errors) / m
	v.signs, v.rows = linalg.Resized(v.signs, m), linalg.Resized(v.rows, rows)
	v.product, v.given = linalg.Resized(v.product, n), linalg.Resized(v.given, n)
	for i := range v.signs {
		v.signs[i] = T(2*rng.IntN(2) - 1)
	}
	linalg.Gemm(false, false, rows, 1, m, 1, v.errors, v.signs, 0, v.rows)
	linalg.Gemm(false, false, n, 1, rows, 1, v.inputs, v.rows, 0, v.product)
	if v.shape.OutByIn {
		linalg.Gemm(false, false, 1, n, m, 1, v.signs, grad, 0, v.given)
	} else {
		linalg.Gemm(false, false, n, 1, m, 1, grad, v.signs, 0, v.given)
	}
	linalg.Axpy(-1, v.given, v.product)
	miss, squares := linalg.Dot64(v.product, v.product), linalg.Dot64(grad, grad)
	return !math.IsInf(squares, 1) && math.Sqrt(miss) <= tolerance*math.Sqrt(squares)
}

// apply computes U from A^-1 and G^-1.
func (v *LowRank[T]) apply(u, a, g []T) {
	n, m := v.shape.Abar(), v.shape.Out
	rows := len(v.inputs) / n
	v.at, v.et = linalg.Resized(v.at, n*rows), linalg.Resized(v.et, m*rows)
	linalg.Gemm(false, false, n, rows, n, 1, a, v.inputs, 0, v.at)
	linalg.Gemm(false, true, m, rows, m, 1, g, v.errors, 0, v.et)
	if v.shape.OutByIn {
		linalg.Gemm(false, true, m, n, rows, 1, v.et, v.at, 0, u)
	} else {
		linalg.Gemm(false, true, n, m, rows, 1, v.at, v.et, 0, u)
	}
}
