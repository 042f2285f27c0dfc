package linalg

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/lapack/gonum"
)

// Sentinels that EigenSym returns, wrapped with the size of the matrix.
var (
	// ErrNotFinite: the matrix has a NaN or an infinity.
	ErrNotFinite = errors.New("not finite")
	// ErrNoConvergence: an eigenvalue of the tridiagonal form was not found. Not known to happen.
	ErrNoConvergence = errors.New("no convergence")
)

// eigenSym does what EigenSym promises, for checked arguments and n > 0.
var eigenSym = divideAndConquer

// UseEigenSym makes EigenSym call f, for instance a binding of LAPACK's dsyevd. f gets n > 0, n*n
// finite elements and n values, and must keep the promises of EigenSym. nil brings back the
// function of this package. Call it at the start of a program, like blas64.Use: it must not run at
// the same time as EigenSym.
func UseEigenSym(f func(n int, a, values []float64) error) {
	if f == nil {
		f = divideAndConquer
	}
	eigenSym = f
}

// EigenSym computes the eigenvalues and eigenvectors of the symmetric n x n matrix a, row-major
// with both triangles filled. On return values holds the n eigenvalues in ascending order, and
// column j of a holds the eigenvector of values[j], of length 1. The same input gives the same
// bits.
//
// The residual |A V - V diag(values)| is a small multiple of the rounding error times |A|, and V is
// orthogonal to working precision. So an eigenvalue that is smaller than |A| by sixteen decimal
// orders is noise.
//
// The error wraps ErrNotFinite or ErrNoConvergence. After ErrNotFinite a and values are as they
// were; after ErrNoConvergence their contents are lost.
func EigenSym(n int, a, values []float64) error {
	if n < 0 || len(a) != n*n || len(values) != n {
		return fmt.Errorf("eigenvectors of a %d x %d matrix: got %d elements, and room for %d values",
			n, n, len(a), len(values))
	}
	if n == 0 {
		return nil
	}
	if !Finite(a) {
		return fmt.Errorf("eigenvectors of a %d x %d matrix: %w", n, n, ErrNotFinite)
	}
	if err := eigenSym(n, a, values); err != nil {
		return fmt.Errorf("eigenvectors of a %d x %d matrix: %w", n, n, err)
	}
	return nil
}

// divideAndConquer works in three steps. Householder reflections make A tridiagonal, A = Q T Q^T
// (Golub & Van Loan, Matrix Computations, 4th edition, section 8.3.1). Divide and conquer (type
// conquest) finds T = Z diag(values) Z^T. The eigenvectors are Q Z.
func divideAndConquer(n int, a, values []float64) error {
	scale := scaleToOne(a)
	var lapack gonum.Implementation
	c := newConquest(n)
	tau, work := make([]float64, n-1), make([]float64, panelRows*n)
	lapack.Dsytrd(blas.Lower, n, a, n, c.d, c.e, tau, work, len(work))
	for i, e := range c.e {
		// Such an element is nothing beside one of 1/2. But it might underflow, or make gonum's
		// Dsteqr scale and panic.
		if math.Abs(e) < smallest {
			c.e[i] = 0
		}
	}
	if !c.solve(0, n) {
		return ErrNoConvergence
	}

	// The eigenvectors of T are the rows of c.v, in no order. Multiplied by Q they become the
	// columns of a.
	applyReflections(n, a, tau, c.v, c.p, c.u)
	for j, row := range ascending(c.d) {
		values[j] = c.d[row] * scale
		for i, v := range c.v[row*n : (row+1)*n] {
			a[i*n+j] = v
		}
	}
	return nil
}

// scaleToOne multiplies a by a power of two, so that its largest element lies in [1/2, 1), and
// returns the inverse of that power. Then no square overflows or underflows. Only elements that are
// negligible beside the largest are rounded.
func scaleToOne(a []float64) float64 {
	var largest float64
	for _, v := range a {
		largest = max(largest, math.Abs(v))
	}
	_, exp := math.Frexp(largest)
	for i, v := range a {
		a[i] = math.Ldexp(v, -exp)
	}
	return math.Ldexp(1, exp)
}
