package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// An eigenbasis holds the eigenvectors of both factors of a layer: A = Q_A diag(a) Q_A^T and G
// alike. Q_A (x) Q_G is the Kronecker-factored eigenbasis (George et al. 2018). It does not depend
// on the damping, so that all inverses from the same averages share it.
type eigenbasis[T Float] struct {
	users int // see share
	a, g  eigenvectors[T]
	s     []T // abar x out: second moments of the gradient in the basis
}

// eigenvectors are those of one factor. A diagonal factor has unit vectors, for which there is no
// q.
type eigenvectors[T Float] struct {
	n      int
	q, qT  []T // one vector in each column of q
	values []float64
	err    error
}

func newEigenvectors[T Float](n int, diagonal bool) eigenvectors[T] {
	e := eigenvectors[T]{n: n, values: make([]float64, n)}
	if !diagonal {
		e.q, e.qT = make([]T, n*n), make([]T, n*n)
	}
	return e
}

// compute finds the eigenvectors of a factor. It computes in float64.
func (e *eigenvectors[T]) compute(work *[]float64, factor []T) {
	e.err = nil
	if e.q == nil {
		linalg.Convert(e.values, factor)
		return
	}
	*work = linalg.Resized(*work, len(factor))
	linalg.Convert(*work, factor)
	if e.err = linalg.EigenSym(e.n, *work, e.values); e.err != nil {
		return
	}
	for i, v := range e.values {
		e.values[i] = max(v, 0) // slightly negative values are rounding
	}
	linalg.Convert(e.q, *work)
	linalg.Transpose(e.qT, e.q, e.n, e.n)
}

// failure returns nil, or the error of a basis that could not be computed.
func (b *eigenbasis[T]) failure() error {
	for i, e := range []*eigenvectors[T]{&b.a, &b.g} {
		if e.err != nil {
			return &Error{Op: "eigenproblem of " + "AG"[i:i+1], Dim: e.n, Err: e.err}
		}
	}
	return nil
}

// into writes Q_A^T X Q_G, and out of writes Q_A X Q_G^T. X is abar x out, and may be dst.
func (b *eigenbasis[T]) into(dst, x, tmp []T)  { sandwich(dst, x, tmp, b.a.n, b.g.n, b.a.qT, b.g.qT) }
func (b *eigenbasis[T]) outOf(dst, x, tmp []T) { sandwich(dst, x, tmp, b.a.n, b.g.n, b.a.q, b.g.q) }

// sandwich computes dst = L X R^T for X of n x m, which may be dst. nil stands for an identity. The
// products have the second operand transposed, the form that gonum's GEMM computes fastest.
func sandwich[T Float](dst, x, tmp []T, n, m int, l, r []T) {
	if r == nil {
		linalg.Transpose(tmp, x, n, m)
	} else {
		linalg.Gemm(false, true, m, n, m, 1, r, x, 0, tmp)
	}
	if l == nil {
		linalg.Transpose(dst, tmp, m, n)
	} else {
		linalg.Gemm(false, true, n, m, n, 1, l, tmp, 0, dst)
	}
}

// products makes s the products of the eigenvalues: the second moments if A and G are independent.
func (b *eigenbasis[T]) products() {
	m := b.g.n
	for i, x := range b.a.values {
		for j, y := range b.g.values {
			b.s[i*m+j] = T(x * y)
		}
	}
}

// rotated writes second moments s that are known in another basis as they are in this one: the
// diagonal of the matrix that is diagonal there. dst may be s.
func (b *eigenbasis[T]) rotated(dst, s []T, from *eigenbasis[T], w *eigenwork[T]) {
	w.tmp = linalg.Resized(w.tmp, len(s))
	a, g := squaredCosines(&w.a, &b.a, &from.a), squaredCosines(&w.g, &b.g, &from.g)
	sandwich(dst, s, w.tmp, b.a.n, b.g.n, a, g)
}

// squaredCosines returns the squares of the elements of Q^T Q_from, or nil for an identity.
func squaredCosines[T Float](to *[]T, e, from *eigenvectors[T]) []T {
	if e.q == nil {
		return nil
	}
	*to = linalg.Resized(*to, e.n*e.n)
	linalg.Gemm(false, true, e.n, e.n, e.n, 1, e.qT, from.qT, 0, *to)
	square(*to)
	return *to
}

func square[T Float](x []T) {
	for i, v := range x {
		x[i] = v * v
	}
}

// eigenwork is scratch.
type eigenwork[T Float] struct {
	wideA, wideG []float64
	a, g, tmp    []T
}
