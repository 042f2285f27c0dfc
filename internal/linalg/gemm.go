package linalg

import (
	"sync"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/blas/gonum"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
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
	if m == 0 || n == 0 {
		return
	}
	if k == 0 { // BLAS refuses strides of 0
		for i := range m {
			if row := c[i*ldc : i*ldc+n]; beta == 0 {
				clear(row)
			} else {
				Scale(beta, row)
			}
		}
		return
	}
	if tB && !tA && min(m, n)*k < short {
		gemmShort(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	if k < worthRows || m*n*k < worthTiles || !isGonum[T]() {
		gemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	if tA && n >= worthRows {
		at := borrow[T](m * k)
		defer giveBack(at)
		TransposeLD(*at, k, a, lda, k, m)
		tA, a, lda = false, *at, k
	}
	if !tB && m >= worthRows {
		bt := borrow[T](n * k)
		defer giveBack(bt)
		TransposeLD(*bt, k, b, ldb, k, n)
		tB, b, ldb = true, *bt, k
	}
	if tA || !tB {
		gemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	tiled(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
}

// gemmShort computes C = alpha A B^T + beta C, where A or B has few elements. gonum takes inner
// products, whose order in float32 depends on where these lie; see dot64.
func gemmShort[T Float](m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int) {
	for i := range m {
		for j := range n {
			s := alpha * dotShort(a[i*lda:i*lda+k], b[j*ldb:])
			if beta != 0 {
				s += beta * c[i*ldc+j]
			}
			c[i*ldc+j] = s
		}
	}
}

// isGonum reports whether the registered BLAS is gonum's own, by itself or within one that has an
// Unwrap. gonum computes A B^T by inner products, two to eight times as fast as the other forms. So
// operands are worth transposing from worthRows rows of A or columns of B on, and for inner
// products as long. gonum also divides products into tiles of 64 along k, where longer inner
// products take two thirds of the time. Other implementations do best with whole products as they
// are.
func isGonum[T Float]() bool {
	impl := any(blas32.Implementation())
	if !single[T]() {
		impl = blas64.Implementation()
	}
	if w, ok := impl.(interface{ Unwrap() any }); ok {
		impl = w.Unwrap()
	}
	_, ok := impl.(gonum.Implementation)
	return ok
}

const (
	worthTiles = 1 << 14 // multiplications
	worthRows  = 16
	tile       = 64   // rows and columns of C; gonum's GEMM starts no goroutines for less than four of its tiles
	tileDepth  = 1024 // along k
)

// tiled computes C = alpha A B^T + beta C tile by tile. The tiles do not depend on the number of
// processors.
func tiled[T Float](m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int) {
	if m <= tile && n <= tile && k <= tileDepth { // without a closure
		gemm(false, true, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	across := (n + tile - 1) / tile
	grain := 1 + worthTiles*8/(tile*tile*k)
	parallel.For(across*((m+tile-1)/tile), grain, func(from, to int) {
		for t := from; t < to; t++ {
			i, j, beta := t/across*tile, t%across*tile, beta
			for p := 0; p < k; p += tileDepth {
				gemm(false, true, min(tile, m-i), min(tile, n-j), min(tileDepth, k-p),
					alpha, a[i*lda+p:], lda, b[j*ldb+p:], ldb, beta, c[i*ldc+j:], ldc)
				beta = 1
			}
		}
	})
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

// Scratch for transposed operands, which calls that run at the same time must not share.
var scratch32, scratch64 sync.Pool

func scratchOf[T Float]() *sync.Pool {
	if single[T]() {
		return &scratch32
	}
	return &scratch64
}

// borrow returns n elements, to be given back.
func borrow[T Float](n int) *[]T {
	x, _ := scratchOf[T]().Get().(*[]T)
	if x == nil {
		x = new([]T)
	}
	*x = Resized(*x, n)
	return x
}

func giveBack[T Float](x *[]T) { scratchOf[T]().Put(x) }
