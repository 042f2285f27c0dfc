package linalg

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"
)

// An Inverter inverts symmetric positive definite matrices in place, in their own type. It keeps
// its scratch from one matrix to the next.
type Inverter[T Float] struct {
	columns, tmp []T       // n x b: columns K of M, and what becomes of them
	w, wt        []T       // b x b: L^-1 and L^-T
	chol         []float64 // b x b
}

// sweepWidth is b, the number of rows and columns that are swept at once.
const sweepWidth = 64

// Invert replaces the symmetric n x n matrix M by its inverse. It reads the upper triangle only. If
// M is numerically not positive definite, it reports false and leaves M undefined.
//
// It sweeps block after block K of rows and columns (Goodnight 1979, "A tutorial on the SWEEP
// operator"): with P = M_KK^-1
//
//	M_KK <- -P,  M_iK <- M_iK P,  M_ij <- M_ij - M_iK P M_Kj,
//
// after which M is the inverse with its sign changed. That takes n^3 operations, as many as
// Cholesky's factorisation with the inverse from it, but nearly all of them are in products. What
// is subtracted is R R^T with R = M_iK L^-T and M_KK = L L^T, where L is computed in float64. So
// the rows below K are those of Cholesky's factorisation.
//
// In float64 with another LAPACK than gonum's that computes Cholesky's factorisation and the
// inverse from it.
func (v *Inverter[T]) Invert(m []T, n int) (ok bool) {
	if wide, ok := any(m).([]float64); ok && !pure[float64]() {
		return cholesky(wide, n)
	}
	b := min(sweepWidth, n)
	v.columns, v.tmp = Resized(v.columns, n*b), Resized(v.tmp, n*b)
	v.w, v.wt, v.chol = Resized(v.w, b*b), Resized(v.wt, b*b), Resized(v.chol, b*b)
	for k := 0; k < n; k += b {
		if !v.sweep(m, n, k, min(b, n-k)) {
			return false
		}
	}
	Scale(-1, m)
	MirrorUpper(m, n)
	return true
}

// cholesky replaces the symmetric positive definite matrix M by its inverse, by LAPACK.
func cholesky(m []float64, n int) (ok bool) {
	MirrorUpper(m, n)
	l, ok := lapack64.Potrf(blas64.Symmetric{N: n, Stride: n, Data: m, Uplo: blas.Lower})
	if !ok {
		return false
	}
	if _, ok := lapack64.Potri(l); !ok {
		return false
	}
	MirrorLower(m, n)
	return true
}

// sweep sweeps the b rows and columns from k on.
func (v *Inverter[T]) sweep(m []T, n, k, b int) (ok bool) {
	if !v.factorise(m, n, k, b) {
		return false
	}
	if b < n {
		v.sweepOthers(m, n, k, b)
	}
	wt := v.wt[:b*b]
	GemmLD(false, true, b, b, b, -1, wt, b, wt, b, 0, m[k*n+k:], n)
	return true
}

// sweepOthers does what sweep does outside of M_KK.
func (v *Inverter[T]) sweepOthers(m []T, n, k, b int) {
	columns, tmp, w, wt := v.columns[:n*b], v.tmp[:n*b], v.w[:b*b], v.wt[:b*b]
	above, right, behind := m[k:], m[k*n+k+b:], k+b // of K, in M
	if behind == n {
		right = nil
	}
	for i := range k {
		copy(columns[i*b:(i+1)*b], above[i*n:])
	}
	clear(columns[k*b : behind*b])
	TransposeLD(columns[behind*b:], b, right, n, b, n-behind)
	Gemm(false, true, n, b, b, 1, columns, w, 0, tmp) // R
	UpperGramT(b, n, -1, tmp, 1, m)
	Gemm(false, true, n, b, b, 1, tmp, wt, 0, columns) // R L^-1 = M_iK P
	for i := range k {
		copy(above[i*n:i*n+b], columns[i*b:])
	}
	TransposeLD(right, n, columns[behind*b:], b, n-behind, b)
}

// factorise computes w and wt from M_KK.
func (v *Inverter[T]) factorise(m []T, n, k, b int) (ok bool) {
	chol := v.chol[:b*b]
	for i := range b {
		for j := range i + 1 {
			chol[i*b+j] = float64(m[(k+j)*n+k+i])
		}
	}
	l, ok := lapack64.Potrf(blas64.Symmetric{N: b, Stride: b, Data: chol, Uplo: blas.Lower})
	if !ok || !lapack64.Trtri(l) {
		return false
	}
	clear(v.w)
	clear(v.wt)
	for i := range b {
		for j := range i + 1 {
			x := T(chol[i*b+j])
			v.w[i*b+j], v.wt[j*b+i] = x, x
		}
	}
	return true
}
