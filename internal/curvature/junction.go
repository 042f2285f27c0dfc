package curvature

import (
	"gonum.org/v1/gonum/blas"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// A link holds what the factor F (n x n) of a layer contributes to an inverse. It is computed from
// F, from the next layer's factor N (m x m) and from the cross moment E[f n^T] of the two. For the
// last layer, m is 0.
type link[T Float] struct {
	n, m      int
	k, kT     []T       // K^T F K = I and K^T (Psi N Psi^T) K = diag(s)
	s         []float64 // ascending, in [0, 1]; rounding may put some slightly below 0
	psi, psiT []T       // Psi = E[f n^T] N^-1
}

func newLink[T Float](n, m int) link[T] {
	return link[T]{
		n: n, m: m, k: make([]T, n*n), kT: make([]T, n*n), s: make([]float64, n),
		psi: make([]T, n*m), psiT: make([]T, m*n),
	}
}

// A junction computes a link. It holds the scratch and the outcome.
type junction[T Float] struct {
	n, m    int
	chol    []float64 // lower triangle: L with L L^T = F + damping I; the upper triangle is not used
	eigen   []float64 // n x n
	whiten  []float64 // n x m
	regress []float64 // n x m

	// attempt.err is ErrNotPosDef, ErrNotFinite or a wrapped linalg.ErrNoConvergence. If it is not
	// nil, the link is unspecified.
	attempt
	failed bool   // F + damping I could not be factorised
	op     string // the operation in progress, e.g. "Cholesky factorisation"
}

func newJunction[T Float](n, m int) junction[T] {
	return junction[T]{
		n: n, m: m, chol: make([]float64, n*n), eigen: make([]float64, n*n),
		whiten: make([]float64, n*m), regress: make([]float64, n*m),
	}
}

// decompose computes L. It raises the damping if necessary.
func (j *junction[T]) decompose(factor []T, damping float64) {
	j.op = "Cholesky factorisation"
	j.attempt = retry(damping, func(damping float64) bool {
		return cholesky(j.chol, factor, j.n, damping)
	})
	j.failed = j.err != nil
}

// join computes K, s and Psi from the next layer's L and the cross moment X.
//
// With B = L^-1 X L_next^-T,
//
//	Psi = X L_next^-T L_next^-1
//	L^-1 (Psi N Psi^T) L^-T = B B^T = E diag(s) E^T
//	K = L^-T E
//
// So s holds the squared canonical correlations of the two layers. Except for rounding, they lie in
// [0, 1].
func (j *junction[T]) join(l *link[T], next *junction[T], cross []T) {
	if j.failed || next.failed {
		return
	}
	j.op = "generalised eigenproblem"
	linalg.Convert(j.whiten, cross)
	linalg.SolveLower(blas.Right, true, j.m, next.chol, j.n, j.m, j.whiten)
	copy(j.regress, j.whiten)
	linalg.SolveLower(blas.Right, false, j.m, next.chol, j.n, j.m, j.regress)
	linalg.SolveLower(blas.Left, false, j.n, j.chol, j.n, j.m, j.whiten)
	linalg.GramT(j.m, j.n, 1, j.whiten, 0, j.eigen)
	if !linalg.Finite(j.eigen) || !linalg.Finite(j.regress) {
		j.err = ErrNotFinite
		return
	}
	if j.err = linalg.EigenSym(j.n, j.eigen, l.s); j.err != nil {
		return
	}
	for i, s := range l.s {
		l.s[i] = min(s, 1) // slightly negative values from rounding do no harm
	}
	j.finish(l)
}

// joinSymmetric computes K and s for a time series. lag is the moment X of the rows of F with the
// rows one step before them. The result satisfies K^T F K = I and K^T ((X + X^T)/2) K = diag(s).
func (j *junction[T]) joinSymmetric(l *link[T], lag []T) {
	if j.failed {
		return
	}
	j.op = "eigenproblem of the lag"
	for r := range j.n {
		for c := range j.n {
			j.eigen[r*j.n+c] = (float64(lag[r*j.n+c]) + float64(lag[c*j.n+r])) / 2
		}
	}
	linalg.SolveLower(blas.Left, false, j.n, j.chol, j.n, j.n, j.eigen)
	linalg.SolveLower(blas.Right, true, j.n, j.chol, j.n, j.n, j.eigen)
	linalg.MirrorLower(j.eigen, j.n)
	if !linalg.Finite(j.eigen) {
		j.err = ErrNotFinite
		return
	}
	if j.err = linalg.EigenSym(j.n, j.eigen, l.s); j.err == nil {
		j.finish(l)
	}
}

// end computes K of the last layer. Its s is zero.
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

// finish computes K = L^-T E and converts the results to the model's dtype.
func (j *junction[T]) finish(l *link[T]) {
	linalg.SolveLower(blas.Left, true, j.n, j.chol, j.n, j.n, j.eigen)
	linalg.Convert(l.k, j.eigen)
	linalg.Convert(l.psi, j.regress)
	if !linalg.Finite(l.k) || !linalg.Finite(l.psi) {
		j.err = ErrNotPosDef // F is so nearly singular that its inverse overflows
		return
	}
	linalg.Transpose(l.kT, l.k, l.n, l.n)
	linalg.Transpose(l.psiT, l.psi, l.n, l.m)
}

// failures returns the number of junctions of A and G whose damping was raised, and the first
// error. A layer's A comes before its G.
func failures[T Float](a, g []junction[T]) (raised int, err error) {
	for i := range a {
		for side, j := range []*junction[T]{&a[i], &g[i]} {
			if err := j.failure(i, j.op+" of "+"AG"[side:side+1], j.n); err != nil {
				return 0, err
			}
			raised += count(j.raised)
		}
	}
	return raised, nil
}
