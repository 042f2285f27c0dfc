//go:build cgo

package openblas

import (
	"runtime"
	"sync"

	gonum "gonum.org/v1/gonum/blas"
	"gonum.org/v1/netlib/blas/netlib"
)

// blas is OpenBLAS, with matrix products divided among goroutines if divide is set.
type blas struct {
	netlib.Implementation
	divide bool
}

func (b blas) Sgemm(
	tA, tB gonum.Transpose, m, n, k int,
	alpha float32, a []float32, lda int, x []float32, ldx int, beta float32, c []float32, ldc int,
) {
	product(b, sgemm, tA, tB, m, n, k, alpha, a, lda, x, ldx, beta, c, ldc)
}

func (b blas) Dgemm(
	tA, tB gonum.Transpose, m, n, k int,
	alpha float64, a []float64, lda int, x []float64, ldx int, beta float64, c []float64, ldc int,
) {
	product(b, dgemm, tA, tB, m, n, k, alpha, a, lda, x, ldx, beta, c, ldc)
}

// A gemm computes C = alpha op(A) op(B) + beta C, as BLAS does.
type gemm[T float32 | float64] func(
	tA, tB gonum.Transpose, m, n, k int,
	alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int,
)

// Function values made once: a method value made for each call would be allocated.
var (
	sgemm gemm[float32] = netlib.Implementation{}.Sgemm
	dgemm gemm[float64] = netlib.Implementation{}.Dgemm
)

// A piece has at least minWork multiplications, so that it is worth a goroutine. Its rows or
// columns are a multiple of grain, so that the kernels find whole tiles.
const (
	minWork = 1 << 20
	grain   = 16
)

// product divides the longer side of C into a piece for each processor, if there is enough to do.
func product[T float32 | float64](
	how blas, call gemm[T],
	tA, tB gonum.Transpose, m, n, k int,
	alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int,
) {
	pieces := 1
	if how.divide &&
		fits(len(a), lda, m, k, tA) && fits(len(b), ldb, k, n, tB) && fits(len(c), ldc, m, n, gonum.NoTrans) {
		pieces = min(runtime.GOMAXPROCS(0), m*n*k/minWork, max(m, n)/grain)
	}
	if pieces <= 1 {
		call(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	inPieces(pieces, call, tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
}

func inPieces[T float32 | float64](
	pieces int, call gemm[T],
	tA, tB gonum.Transpose, m, n, k int,
	alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int,
) {
	along := max(m, n)
	var done sync.WaitGroup
	for p := range pieces {
		from, to := cut(p, pieces, along), cut(p+1, pieces, along)
		piece := func() {
			if m >= n {
				call(tA, tB, to-from, n, k,
					alpha, after(a, from, lda, tA == gonum.NoTrans), lda, b, ldb, beta, c[from*ldc:], ldc)
			} else {
				call(tA, tB, m, to-from, k,
					alpha, a, lda, after(b, from, ldb, tB != gonum.NoTrans), ldb, beta, c[from:], ldc)
			}
		}
		if p == pieces-1 {
			piece()
		} else {
			done.Go(piece)
		}
	}
	done.Wait()
}

// fits reports whether a slice of that length holds op(X) of rows x cols. If it does not, product
// leaves the whole to call, which panics with the reason where its caller can recover from it.
func fits(length, stride, rows, cols int, t gonum.Transpose) bool {
	if t != gonum.NoTrans {
		rows, cols = cols, rows
	}
	return rows > 0 && cols > 0 && stride >= cols && length >= stride*(rows-1)+cols
}

// cut is where piece p of n elements begins.
func cut(p, pieces, n int) int {
	if p == pieces {
		return n
	}
	return p * n / pieces / grain * grain
}

// after is the matrix x without its first rows or columns.
func after[T float32 | float64](x []T, first, stride int, rows bool) []T {
	if rows {
		return x[first*stride:]
	}
	return x[first:]
}
