package linalg

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/blas/gonum"

	"github.com/gorgonia-kfac/kfac/internal/kernels"
)

func transpose(t bool) blas.Transpose {
	if t {
		return blas.Trans
	}
	return blas.NoTrans
}

// Gemm computes C = alpha op(A) op(B) + beta C, where op(A) is m x k, op(B) is k x n and C is
// m x n. A is stored k x m if tA, B is stored n x k if tB. With beta = 0 the old contents of C do
// not matter, even if they are NaN.
func Gemm[T Float](tA, tB bool, m, n, k int, alpha T, a, b []T, beta T, c []T) {
	lda, ldb := k, n
	if tA {
		lda = m
	}
	if tB {
		ldb = k
	}
	GemmLD(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, n)
}

// GemmLD is Gemm with the strides between rows given: lda, ldb and ldc elements.
func GemmLD[T Float](tA, tB bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int) {
	impl, pure := implementation[T]()
	switch {
	case m == 0 || n == 0:
	case k == 0: // BLAS refuses strides of 0
		for i := range m {
			if row := c[i*ldc : i*ldc+n]; beta == 0 {
				clear(row)
			} else {
				Scale(beta, row)
			}
		}
	case pure:
		begin(impl)
		kernels.Gemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		end(impl, m, n, k)
	default:
		gemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
	}
}

// implementation returns the registered BLAS, and reports whether that is gonum's own, by itself or
// within one that has an Unwrap. Then package kernels computes products in its place, at several
// times the rate.
func implementation[T Float]() (impl any, pure bool) {
	if single[T]() {
		impl = blas32.Implementation()
	} else {
		impl = blas64.Implementation()
	}
	within := impl
	if w, ok := impl.(interface{ Unwrap() any }); ok {
		within = w.Unwrap()
	}
	_, pure = within.(gonum.Implementation)
	return impl, pure
}

// pure reports whether package kernels computes products.
func pure[T Float]() bool {
	_, pure := implementation[T]()
	return pure
}

// An observer is a BLAS around gonum's that counts products, those that kernels computes too.
type observer interface {
	Begin()
	End(m, n, k int)
}

func begin(impl any) {
	if o, ok := impl.(observer); ok {
		o.Begin()
	}
}

func end(impl any, m, n, k int) {
	if o, ok := impl.(observer); ok {
		o.End(m, n, k)
	}
}

func gemm[T Float](tA, tB bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int) {
	switch c := any(c).(type) {
	case []float32:
		blas32.Implementation().Sgemm(transpose(tA), transpose(tB), m, n, k,
			float32(alpha), any(a).([]float32), lda, any(b).([]float32), ldb, float32(beta), c, ldc)
	case []float64:
		blas64.Implementation().Dgemm(transpose(tA), transpose(tB), m, n, k,
			float64(alpha), any(a).([]float64), lda, any(b).([]float64), ldb, float64(beta), c, ldc)
	}
}

func single[T Float]() bool {
	_, ok := any(T(0)).(float32)
	return ok
}
