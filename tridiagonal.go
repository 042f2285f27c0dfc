package kfac

import (
	"fmt"
	"runtime"
	"sync"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack"
	"gonum.org/v1/gonum/lapack/lapack64"

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
// cases with the same weights, and the damping is positive: without damping F^ is singular, for all homogeneous coordinates are the
// same constant.
type tridiagonal[T program.Float] struct {
	a, g []link[T]
	tmp  []T
}

// A chainError tells which factor of a chain's layer could not be factorised.
type chainError struct {
	layer  int
	factor string // "A" or "G"
	op     string // what was being done, e.g. "Cholesky factorisation of A"
	dim    int
	err    error // ErrNotPosDef or ErrNotFinite
}

func (e *chainError) Error() string {
	return fmt.Sprintf("layer %d of the chain: %s (%d x %d): %v", e.layer, e.op, e.dim, e.dim, e.err)
}

func (e *chainError) Unwrap() error { return e.err }

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

// factorise computes the inverse for the damped factors A_i (abar_i x abar_i) and G_i (out_i x out_i) of each layer, and the
// undamped moments crossA_i = E[abar_i abar_{i+1}^T] and crossG_i = E[g_i g_{i+1}^T] of each layer but the last. If it fails, with
// a chainError, the inverse is unspecified.
func (t *tridiagonal[T]) factorise(dampedA, dampedG, crossA, crossG [][]float64) error {
	last := len(t.a) - 1
	var jobs []func()
	for i := range t.a {
		jobs = append(jobs,
			func() { t.a[i].decompose(dampedA[i]) },
			func() { t.g[i].decompose(dampedG[i]) })
	}
	concurrently(jobs)
	if err := t.failure(); err != nil {
		return err
	}
	jobs = append(jobs[:0], t.a[last].end, t.g[last].end)
	for i := range last {
		jobs = append(jobs,
			func() { t.a[i].join(&t.a[i+1], crossA[i]) },
			func() { t.g[i].join(&t.g[i+1], crossG[i]) })
	}
	concurrently(jobs)
	return t.failure()
}

// failure is the first error of the links, as a chainError.
func (t *tridiagonal[T]) failure() error {
	for i := range t.a {
		for side, l := range []*link[T]{&t.a[i], &t.g[i]} {
			if l.err != nil {
				factor := "AG"[side : side+1]
				return &chainError{layer: i, factor: factor, op: l.op + " of " + factor, dim: l.n, err: l.err}
			}
		}
	}
	return nil
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
	linalg.Gemm(false, true, g.n, a.n, g.n, 1, g.kT, x, 0, t.tmp)
	linalg.Gemm(false, true, a.n, g.n, a.n, 1, a.kT, t.tmp, 0, x)
	for r, s := range a.s {
		row := x[r*g.n : (r+1)*g.n]
		for c := range row {
			row[c] = T(float64(row[c]) / max(1-s*g.s[c], minGap))
		}
	}
	linalg.Gemm(false, true, g.n, a.n, g.n, 1, g.k, x, 0, t.tmp)
	linalg.Gemm(false, true, a.n, g.n, a.n, 1, a.k, t.tmp, 0, x)
}

// A link is what one factor of one layer, F of size n x n, contributes to the inverse, with the next layer's factor N of size m x m
// and their cross moment, n x m. Of the last layer, m is 0.
type link[T program.Float] struct {
	n, m      int
	k, kT     []T       // K^T F K = I and K^T (Psi N Psi^T) K = diag(s)
	s         []float64 // ascending, in [0, 1] but for rounding below 0
	psi, psiT []T

	chol    []float64 // lower triangular L with L L^T = F; what is above the diagonal is not used
	eigen   []float64 // n x n
	whiten  []float64 // n x m
	regress []float64 // n x m
	op      string
	err     error
}

// newLinks makes the links of one side of a chain, given the sizes of the layers' factors.
func newLinks[T program.Float](sizes []int) []link[T] {
	links := make([]link[T], len(sizes))
	for i, n := range sizes {
		var m int
		if i+1 < len(sizes) {
			m = sizes[i+1]
		}
		links[i] = link[T]{
			n: n, m: m, k: make([]T, n*n), kT: make([]T, n*n), s: make([]float64, n), psi: make([]T, n*m), psiT: make([]T, m*n),
			chol: make([]float64, n*n), eigen: make([]float64, n*n), whiten: make([]float64, n*m), regress: make([]float64, n*m),
		}
	}
	return links
}

// decompose computes L from the damped factor.
func (l *link[T]) decompose(damped []float64) {
	l.op, l.err = "Cholesky factorisation", nil
	copy(l.chol, damped)
	if _, ok := lapack64.Potrf(blas64.Symmetric{N: l.n, Stride: l.n, Data: l.chol, Uplo: blas.Lower}); !ok {
		l.err = ErrNotPosDef
	}
}

// lower is L.
func (l *link[T]) lower() blas64.Triangular {
	return blas64.Triangular{N: l.n, Stride: l.n, Data: l.chol, Uplo: blas.Lower, Diag: blas.NonUnit}
}

// join computes K, s and Psi, given the next layer's L and the cross moment X.
//
// With B = L^-1 X L_next^-T it is Psi = X L_next^-T L_next^-1, and L^-1 (Psi N Psi^T) L^-T = B B^T = E diag(s) E^T with K = L^-T E. So
// s are the squared canonical correlations of the two layers, which lie in [0, 1] but for rounding.
func (l *link[T]) join(next *link[T], cross []float64) {
	l.op = "generalised eigenproblem"
	b, psi := general(l.whiten, l.n, l.m), general(l.regress, l.n, l.m)
	copy(l.whiten, cross)
	blas64.Trsm(blas.Right, blas.Trans, 1, next.lower(), b)
	copy(l.regress, l.whiten)
	blas64.Trsm(blas.Right, blas.NoTrans, 1, next.lower(), psi)
	blas64.Trsm(blas.Left, blas.NoTrans, 1, l.lower(), b)
	linalg.GramT(l.m, l.n, 1, l.whiten, 0, l.eigen)
	if !linalg.Finite(l.eigen) || !linalg.Finite(l.regress) {
		l.err = ErrNotFinite
		return
	}
	if l.err = eigenSym(l.n, l.eigen, l.s); l.err != nil {
		return
	}
	for i, s := range l.s {
		l.s[i] = min(s, 1) // what rounding puts below 0 does no harm
	}
	l.finish()
}

// end computes K of the last layer, where s is zero.
func (l *link[T]) end() {
	l.op = "inversion"
	clear(l.eigen)
	for i := range l.n {
		l.eigen[i*l.n+i] = 1
	}
	l.finish()
}

// finish computes K = L^-T E and puts the results into the model's dtype.
func (l *link[T]) finish() {
	blas64.Trsm(blas.Left, blas.Trans, 1, l.lower(), general(l.eigen, l.n, l.n))
	linalg.Convert(l.k, l.eigen)
	linalg.Convert(l.psi, l.regress)
	if !linalg.Finite(l.k) || !linalg.Finite(l.psi) {
		l.err = ErrNotPosDef // F is so nearly singular that its inverse overflows
		return
	}
	linalg.Transpose(l.kT, l.k, l.n, l.n)
	linalg.Transpose(l.psiT, l.psi, l.n, l.m)
}

func general(data []float64, rows, cols int) blas64.General {
	return blas64.General{Rows: rows, Cols: cols, Stride: max(1, cols), Data: data}
}

// eigenSym replaces the symmetric n x n matrix a by its eigenvectors, in columns, and writes its eigenvalues in ascending order.
func eigenSym(n int, a, values []float64) error {
	sym := blas64.Symmetric{N: n, Stride: n, Data: a, Uplo: blas.Upper}
	size := make([]float64, 1)
	lapack64.Syev(lapack.EVCompute, sym, values, size, -1)
	work := make([]float64, int(size[0]))
	if !lapack64.Syev(lapack.EVCompute, sym, values, work, len(work)) {
		return fmt.Errorf("the eigenvalues do not converge: %w", ErrNotPosDef)
	}
	return nil
}

// concurrently runs the jobs, which must not depend on each other, in as many goroutines as there are processors.
func concurrently(jobs []func()) {
	queue := make(chan func())
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(jobs)) {
		workers.Go(func() {
			for job := range queue {
				job()
			}
		})
	}
	for _, job := range jobs {
		queue <- job
	}
	close(queue)
	workers.Wait()
}
