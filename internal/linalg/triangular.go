package linalg

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"
)

// panelWidth is the number of rows or columns that Cholesky and SolveLower give to LAPACK and BLAS
// at a time where package kernels computes products. The rest is in products.
const panelWidth = 64

// Cholesky factorises the symmetric n x n matrix A = L L^T. It reads the lower triangle and
// overwrites it by L. What is above the diagonal is lost. If A is numerically not positive
// definite, it reports false and leaves A undefined.
func Cholesky(n int, a []float64) (ok bool) {
	width := n
	if pure[float64]() {
		width = panelWidth
	}
	for k := 0; k < n; k += width {
		b := min(width, n-k)
		diagonal := blas64.Symmetric{N: b, Stride: n, Data: a[k*n+k:], Uplo: blas.Lower}
		l, ok := lapack64.Potrf(diagonal)
		if !ok {
			return false
		}
		if k+b == n {
			break
		}
		below := a[(k+b)*n+k:]
		blas64.Trsm(blas.Right, blas.Trans, 1, l, blas64.General{Rows: n - k - b, Cols: b, Stride: n, Data: below})
		for i := k + b; i < n; i += gramPanel { // the rest less the product of what is below with itself
			p := min(gramPanel, n-i)
			GemmLD(false, true, p, i+p-k-b, b, -1, a[i*n+k:], n, below, n, 1, a[i*n+k+b:], n)
		}
	}
	return true
}

// SolveLower computes B <- op(L)^-1 B, or from the right B <- B op(L)^-1, where op is the transpose
// if trans. L is n x n, and only its lower triangle is read. B is rows x cols.
func SolveLower(side blas.Side, trans bool, n int, l []float64, rows, cols int, b []float64) {
	if rows == 0 || cols == 0 {
		return
	}
	width := n
	if pure[float64]() {
		width = panelWidth
	}
	left := side == blas.Left
	panels := (n + width - 1) / width
	for i := range panels {
		k := i * width
		forward := left != trans // whether the first panel of X does not depend on the others
		if !forward {
			k = (panels - 1 - i) * width
		}
		w := min(width, n-k)
		x, rowsX, colsX := b[k:], rows, w
		if left {
			x, rowsX, colsX = b[k*cols:], w, cols
		}
		blas64.Trsm(side, transpose(trans), 1,
			blas64.Triangular{N: w, Stride: n, Data: l[k*n+k:], Uplo: blas.Lower, Diag: blas.NonUnit},
			blas64.General{Rows: rowsX, Cols: colsX, Stride: cols, Data: x})

		from, to, row, col := 0, k, k, 0 // the panels that depend on it, and where L has the coefficients
		if forward {
			from, to, row, col = k+w, n, k+w, k
		}
		switch {
		case from == to:
		case left:
			GemmLD(trans, false, to-from, cols, w, -1, l[row*n+col:], n, x, cols, 1, b[from*cols:], cols)
		default:
			GemmLD(false, trans, rows, to-from, w, -1, x, cols, l[row*n+col:], n, 1, b[from:], cols)
		}
	}
}
