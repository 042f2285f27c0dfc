package linalg

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
)

// panelRows is the number of reflections that are applied at a time.
const panelRows = 64

// applyReflections computes V Q^T for the n x n matrix v, where Q = H_0 H_1 ... H_n-2. The
// reflections H_i = I - tau_i w_i w_i^T are those that Dsytrd leaves in the lower triangle of a:
// w_i is zero up to i, one at i+1, and goes on below the subdiagonal in column i. panel and work
// hold at least n*min(n, panelRows) elements each.
//
// A product of reflections is I - W^T T W, with a w_i in each row of W and T upper triangular. The
// inverse of T is the upper triangle of W W^T with 1/tau on the diagonal (Joffrain et al. 2006,
// "Accumulating Householder transformations, revisited"). So all of it is matrix products and
// triangular solves. Dormqr of gonum v0.17.0 is no alternative: its Dlarft makes a wrong T if the
// second reflection of a block ends in zeros and the first does not.
func applyReflections(n int, a, tau, v, panel, work []float64) {
	for to := n - 1; to > 0; to -= panelRows { // the last ones come first, since Q^T = H_n-2 ... H_0
		applyPanel(n, max(0, to-panelRows), to, a, tau, v, panel, work)
	}
}

// applyPanel applies the reflections from <= i < to.
func applyPanel(n, from, to int, a, tau, v, panel, work []float64) {
	k, m := to-from, n-from-1 // the reflections change the last m elements of each row
	w := panel[:k*m]
	clear(w)
	for r := range k {
		if i := from + r; tau[i] != 0 {
			w[r*m+r] = 1
			for j := r + 1; j < m; j++ {
				w[r*m+j] = a[(from+1+j)*n+i]
			}
		}
	}
	tInv := make([]float64, k*k)
	Gemm(false, true, k, k, m, 1, w, w, 0, tInv)
	for r := range k {
		tInv[r*k+r] = 1 // for a reflection that does nothing, whose row of w is zero
		if t := tau[from+r]; t != 0 {
			tInv[r*k+r] = 1 / t
		}
	}
	x := work[:n*k] // V W^T T^T
	GemmLD(false, true, n, k, m, 1, v[from+1:], n, w, m, 0, x, k)
	blas64.Implementation().Dtrsm(blas.Right, blas.Upper, blas.Trans, blas.NonUnit, n, k, 1, tInv, k, x, k)
	GemmLD(false, false, n, m, k, -1, x, k, w, m, 1, v[from+1:], n)
}
