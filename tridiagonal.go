package kfac

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// minGap is the least that 1 - s_A s_G is taken for. The canonical correlations s_A and s_G of neighbouring layers are below 1 by
// margins that the damping sets, and known to about n 2^-53, which is 1e-13 for n = 1000: a smaller gap is a rounding error.
const minGap = 1e-12

// A tridiagonal is F^^-1, the block-tridiagonal inverse of the Fisher matrix of a chain of layers 0..l-1, where layer i feeds layer
// i+1: F^ agrees with the Kronecker products A_ij (x) G_ij on the diagonal and beside it, and its inverse is zero elsewhere
// (Martens & Grosse 2015, section 4.3).
//
// With A_i = A_ii and G_i = G_ii damped, and V_i of size abar_i x out_i, which is the transpose of the paper's, U = F^^-1 V is
//
//	X_i = V_i - PsiA_i V_{i+1} PsiG_i^T,             PsiA_i = A_{i,i+1} A_{i+1}^-1,   PsiG_i = G_{i,i+1} G_{i+1}^-1
//	Y_i = Sigma_i^-1 X_i,                            Sigma_i = A_i (x) G_i - C_i (x) D_i
//	U_i = Y_i - PsiA_{i-1}^T Y_{i-1} PsiG_{i-1},     C_i = PsiA_i A_{i+1} PsiA_i^T,   D_i = PsiG_i G_{i+1} PsiG_i^T
//
// without the terms of layers that do not exist. Sigma_i is inverted by two generalised eigenproblems (appendix B):
//
//	Y = K_A [(K_A^T X K_G) / (1 - s_A s_G^T)] K_G^T,   K_A^T A K_A = I,   K_A^T C K_A = diag(s_A),   K_G and s_G alike.
//
// It is computed in float64 and applied in the model's dtype. It is positive definite if all moments were estimated from the same
// cases with the same weights, and the damping is positive: without damping it may be singular, as where a layer's units are linear.
type tridiagonal[T program.Float] struct {
	a, g []link[T]
	tmp  []T
}

// newTridiagonal makes room for the inverse of a chain of layers with weights of abar[i] x out[i].
func newTridiagonal[T program.Float](abar, out []int) *tridiagonal[T] {
	t := &tridiagonal[T]{a: newLinks[T](abar), g: newLinks[T](out)}
	var most int
	for i := range abar {
		most = max(most, abar[i]*out[i])
		if i > 0 {
			most = max(most, abar[i-1]*out[i], abar[i]*out[i-1])
		}
	}
	t.tmp = make([]T, most)
	return t
}

// apply computes U = F^^-1 V, where v[i] and u[i] are abar_i x out_i. No u may share memory with a v.
func (t *tridiagonal[T]) apply(u, v [][]T) {
	last := len(t.a) - 1
	for i := range t.a {
		copy(u[i], v[i])
		if i < last {
			t.subtract(u[i], t.a[i].psi, t.g[i].psi, v[i+1], i, i+1)
		}
	}
	for i := range t.a {
		t.solve(u[i], i)
	}
	for i := last; i > 0; i-- { // downwards, so that u[i-1] is still Y
		t.subtract(u[i], t.a[i-1].psiT, t.g[i-1].psiT, u[i-1], i, i-1)
	}
}

// subtract computes U -= P V Q^T for U of layer i, V of layer j, P of abar_i x abar_j and Q of out_i x out_j. As everywhere here
// the products are arranged so that the second operand is transposed, the form that gonum's GEMM computes fastest.
func (t *tridiagonal[T]) subtract(u, p, q, v []T, i, j int) {
	linalg.Gemm(false, true, t.g[i].n, t.a[j].n, t.g[j].n, 1, q, v, 0, t.tmp)
	linalg.Gemm(false, true, t.a[i].n, t.g[i].n, t.a[j].n, -1, p, t.tmp, 1, u)
}

// solve replaces X by Y = Sigma_i^-1 X.
func (t *tridiagonal[T]) solve(x []T, i int) {
	a, g := &t.a[i], &t.g[i]
	t.solveWith(x, i, func(x []T) {
		for r, s := range a.s {
			row := x[r*g.n : (r+1)*g.n]
			for c := range row {
				row[c] = T(float64(row[c]) / max(1-s*g.s[c], minGap))
			}
		}
	})
}

// solveWith replaces X by K_A f(K_A^T X K_G) K_G^T of layer i, where f works in place.
func (t *tridiagonal[T]) solveWith(x []T, i int, f func(x []T)) {
	a, g := &t.a[i], &t.g[i]
	linalg.Gemm(false, true, g.n, a.n, g.n, 1, g.kT, x, 0, t.tmp)
	linalg.Gemm(false, true, a.n, g.n, a.n, 1, a.kT, t.tmp, 0, x)
	f(x)
	linalg.Gemm(false, true, g.n, a.n, g.n, 1, g.k, x, 0, t.tmp)
	linalg.Gemm(false, true, a.n, g.n, a.n, 1, a.k, t.tmp, 0, x)
}

// A link is what one factor F (n x n) of a layer contributes to the inverse, with the next layer's factor N (m x m) and their cross moment. Of the
// last layer, m is 0.
type link[T program.Float] struct {
	n, m      int
	k, kT     []T       // K^T F K = I and K^T (Psi N Psi^T) K = diag(s)
	s         []float64 // ascending, in [0, 1] but for rounding below 0
	psi, psiT []T       // Psi = E[f n^T] N^-1
}

// newLinks makes the links of one side of a chain, given the sizes of the layers' factors.
func newLinks[T program.Float](sizes []int) []link[T] {
	links := make([]link[T], len(sizes))
	for i, n := range sizes {
		m := nextSize(sizes, i)
		links[i] = link[T]{n: n, m: m, k: make([]T, n*n), kT: make([]T, n*n), s: make([]float64, n), psi: make([]T, n*m), psiT: make([]T, m*n)}
	}
	return links
}

// nextSize is the size of the factor behind factor i, or 0.
func nextSize(sizes []int, i int) int {
	if i+1 < len(sizes) {
		return sizes[i+1]
	}
	return 0
}

// A junction computes a link. It holds the scratch, which several inverses of a chain may share, and what came of it.
type junction[T program.Float] struct {
	n, m    int
	chol    []float64 // lower triangle: L with L L^T = F + damping I; what is above is not used
	eigen   []float64 // n x n
	whiten  []float64 // n x m
	regress []float64 // n x m

	damping float64 // that was added at last
	raised  bool
	failed  bool   // there is no L
	op      string // what was being done, e.g. "Cholesky factorisation"
	err     error  // ErrNotPosDef, ErrNotFinite, or linalg.ErrNoConvergence wrapped; the link is then unspecified
}

func newJunctions[T program.Float](sizes []int) []junction[T] {
	js := make([]junction[T], len(sizes))
	for i, n := range sizes {
		m := nextSize(sizes, i)
		js[i] = junction[T]{n: n, m: m, chol: make([]float64, n*n), eigen: make([]float64, n*n), whiten: make([]float64, n*m), regress: make([]float64, n*m)}
	}
	return js
}

// joinAll returns the computations of the links of one side: those of the first list may run concurrently, then those of the second. factors
// are not damped yet, and cross are the moments E[f_i f_{i+1}^T], which are not damped at all (section 4.3).
func joinAll[T program.Float](links []link[T], js []junction[T], factors, cross [][]T, damping []float64) (first, then []func()) {
	for i := range js {
		j, l := &js[i], &links[i]
		first = append(first, func() { j.decompose(factors[i], damping[i]) })
		if i+1 < len(js) {
			then = append(then, func() { j.join(l, &js[i+1], cross[i]) })
		} else {
			then = append(then, func() { j.end(l) })
		}
	}
	return first, then
}

// decompose computes L, and raises the damping if it has to.
func (j *junction[T]) decompose(factor []T, damping float64) {
	j.op = "Cholesky factorisation"
	j.damping, j.raised, j.err = raising(damping, func(damping float64) bool {
		_, ok := cholesky(j.chol, factor, j.n, damping)
		return ok
	})
	j.failed = j.err != nil
}

// lower is L.
func (j *junction[T]) lower() blas64.Triangular {
	return blas64.Triangular{N: j.n, Stride: j.n, Data: j.chol, Uplo: blas.Lower, Diag: blas.NonUnit}
}

// join computes K, s and Psi, given the next layer's L and the cross moment X.
//
// With B = L^-1 X L_next^-T it is Psi = X L_next^-T L_next^-1, and L^-1 (Psi N Psi^T) L^-T = B B^T = E diag(s) E^T with K = L^-T E. So
// s are the squared canonical correlations of the two layers, which lie in [0, 1] but for rounding.
func (j *junction[T]) join(l *link[T], next *junction[T], cross []T) {
	if j.failed || next.failed {
		return
	}
	j.op = "generalised eigenproblem"
	b, psi := general(j.whiten, j.n, j.m), general(j.regress, j.n, j.m)
	linalg.Convert(j.whiten, cross)
	blas64.Trsm(blas.Right, blas.Trans, 1, next.lower(), b)
	copy(j.regress, j.whiten)
	blas64.Trsm(blas.Right, blas.NoTrans, 1, next.lower(), psi)
	blas64.Trsm(blas.Left, blas.NoTrans, 1, j.lower(), b)
	linalg.GramT(j.m, j.n, 1, j.whiten, 0, j.eigen)
	if !linalg.Finite(j.eigen) || !linalg.Finite(j.regress) {
		j.err = ErrNotFinite
		return
	}
	if j.err = linalg.EigenSym(j.n, j.eigen, l.s); j.err != nil {
		return
	}
	for i, s := range l.s {
		l.s[i] = min(s, 1) // what rounding puts below 0 does no harm
	}
	j.finish(l)
}

// end computes K of the last layer, where s is zero.
func (j *junction[T]) end(l *link[T]) {
	if j.failed {
		return
	}
	j.op = "inversion"
	clear(j.eigen)
	for i := range j.n {
		j.eigen[i*j.n+i] = 1
	}
	j.finish(l)
}

// finish computes K = L^-T E and puts the results into the model's dtype.
func (j *junction[T]) finish(l *link[T]) {
	blas64.Trsm(blas.Left, blas.Trans, 1, j.lower(), general(j.eigen, j.n, j.n))
	linalg.Convert(l.k, j.eigen)
	linalg.Convert(l.psi, j.regress)
	if !linalg.Finite(l.k) || !linalg.Finite(l.psi) {
		j.err = ErrNotPosDef // F is so nearly singular that its inverse overflows
		return
	}
	linalg.Transpose(l.kT, l.k, l.n, l.n)
	linalg.Transpose(l.psiT, l.psi, l.n, l.m)
}

func general(data []float64, rows, cols int) blas64.General {
	return blas64.General{Rows: rows, Cols: cols, Stride: max(1, cols), Data: data}
}
