package curvature

import (
	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// factorInverse is (F + damping I)^-1 of one factor F.
type factorInverse[T Float] struct {
	n        int
	diagonal bool
	data     []T // n x n, or n elements if diagonal
	attempt
}

func newFactorInverse[T Float](n int, diagonal bool) factorInverse[T] {
	if diagonal {
		return factorInverse[T]{n: n, diagonal: true, data: make([]T, n)}
	}
	return factorInverse[T]{n: n, data: make([]T, n*n)}
}

// inverter is the scratch for inverting a factor.
type inverter[T Float] struct {
	work   []float64 // n x n: a factor in float64, of a model in float32
	wide   linalg.Inverter[float64]
	narrow linalg.Inverter[T]
}

// compute makes v the inverse of F + damping I. If that is numerically not positive definite,
// compute raises the damping and tries again. If all tries fail, it sets err.
func (v *factorInverse[T]) compute(w *inverter[T], f []T, damping float64) {
	v.attempt = retry(damping, func(damping float64) bool {
		if v.diagonal {
			return v.reciprocals(f, damping)
		}
		return v.invertNarrow(w, f, damping) || v.invertWide(w, f, damping)
	})
}

// reciprocals inverts a diagonal factor.
func (v *factorInverse[T]) reciprocals(f []T, damping float64) bool {
	for i, d := range f {
		v.data[i] = T(1 / (float64(d) + damping))
	}
	return linalg.Finite(v.data)
}

// safeCondition is the largest condition number of a matrix that is inverted in float32. The
// relative error of the inverse is about the condition number times the rounding of float32, 6e-8:
// about a thousandth. In practice almost all factors are below this bound.
const safeCondition = 1e4

// invertNarrow inverts in float32. It reports false if the model's dtype is not float32 or if that
// is not safe. F + damping I has no eigenvalue below damping and none above tr(F) + damping, which
// bounds the condition number.
func (v *factorInverse[T]) invertNarrow(w *inverter[T], f []T, damping float64) bool {
	if _, single := any(f).([]float32); !single {
		return false
	}
	if !(diagonalSum(f, v.n, v.n+1) <= (safeCondition-1)*damping) {
		return false
	}
	copy(v.data, f)
	for i := range v.n {
		v.data[i*v.n+i] += T(damping)
	}
	return w.narrow.Invert(v.data, v.n) && linalg.Finite(v.data)
}

// invertWide inverts in float64. It reports false if F + damping I is not positive definite or if
// the inverse overflows.
func (v *factorInverse[T]) invertWide(w *inverter[T], f []T, damping float64) bool {
	work, double := any(v.data).([]float64)
	if !double {
		w.work = linalg.Resized(w.work, v.n*v.n)
		work = w.work
	}
	damped(work, f, v.n, damping)
	if !w.wide.Invert(work, v.n) || !linalg.Finite(work) {
		return false
	}
	if data, single := any(v.data).([]float32); single {
		linalg.Convert(data, work)
		return linalg.Finite(data)
	}
	return true
}

// damped writes F + damping I to work, where F is n x n.
func damped[T Float](work []float64, f []T, n int, damping float64) {
	for i, v := range f { // not linalg.Convert, whose closure is slow for blocks of a few rows
		work[i] = float64(v)
	}
	for i := range n {
		work[i*n+i] += damping
	}
}

// cholesky factorises F + damping I = L L^T, where F is n x n. It writes L to the lower triangle of
// work. The upper triangle is not meaningful. ok says that F + damping I is numerically positive
// definite.
func cholesky[T Float](work []float64, f []T, n int, damping float64) (ok bool) {
	damped(work, f, n, damping)
	return linalg.Cholesky(n, work)
}
