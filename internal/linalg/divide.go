package linalg

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/lapack"
	"gonum.org/v1/gonum/lapack/gonum"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// conquest is the divide-and-conquer method for the eigenproblem of a symmetric tridiagonal matrix
// T (Cuppen 1981; Gu & Eisenstat 1995, "A divide-and-conquer algorithm for the symmetric
// tridiagonal eigenproblem"). T is two tridiagonal blocks plus a matrix of rank one. The
// eigenvectors of the blocks come first. Those of T follow from them by a secular equation and a
// matrix product.
type conquest struct {
	n int
	d []float64 // n: the diagonal of T, which turns into the eigenvalues, in no order
	e []float64 // n-1: the other diagonal, which is destroyed
	v []float64 // n x n: row i becomes the eigenvector of d[i]; zero outside the blocks that are solved already

	p, u []float64 // n x n: workspace, rows lo <= i < hi for the block lo, hi
}

func newConquest(n int) *conquest {
	square := func() []float64 { return make([]float64, n*n) }
	return &conquest{n: n, d: make([]float64, n), e: make([]float64, n-1), v: square(), p: square(), u: square()}
}

const (
	// leafSize is the size up to which a block is solved by QL iterations.
	leafSize = 32
	// forkSize is the size from which on it pays to work on a block in several goroutines.
	forkSize = 96
)

// grain is the least piece of the work on a block of n. A block that is too small to be divided is
// one piece.
func grain(n int) int {
	if n < forkSize {
		return n
	}
	return 1
}

// solve finds the eigenvalues and eigenvectors of the diagonal block lo <= i < hi of T. It reports
// false if an iteration does not converge.
func (c *conquest) solve(lo, hi int) bool {
	if hi-lo <= leafSize {
		return c.leaf(lo, hi)
	}
	mid := lo + (hi-lo)/2
	e := c.e[mid-1]
	c.d[mid-1] -= math.Abs(e)
	c.d[mid] -= math.Abs(e)
	ends := [3]int{lo, mid, hi}
	var ok [2]bool
	parallel.For(2, grain(hi-lo), func(from, to int) {
		for i := from; i < to; i++ {
			ok[i] = c.solve(ends[i], ends[i+1])
		}
	})
	return ok[0] && ok[1] && c.merge(lo, mid, hi, e)
}

// leaf solves a small block by QL iterations.
func (c *conquest) leaf(lo, hi int) bool {
	n := hi - lo
	z, work := c.p[lo*c.n:][:n*n], c.u[lo*c.n:][:n*n]
	var ql gonum.Implementation
	if !ql.Dsteqr(lapack.EVTridiag, n, c.d[lo:hi], c.e[lo:hi-1], z, n, work) {
		return false
	}
	for i := range n {
		for j := range n {
			c.v[(lo+i)*c.n+lo+j] = z[j*n+i]
		}
	}
	return true
}

// merge makes the eigenvectors of the block lo <= i < hi from those of its halves, which meet at
// mid. The block has the halves on its diagonal, plus |e| w w^T. There w has a one at mid-1, the
// sign of e at mid, and zeros elsewhere. z is V w / sqrt(2).
func (c *conquest) merge(lo, mid, hi int, e float64) bool {
	n := hi - lo
	b := joint{
		n: n, mid: mid - lo, rho: 2 * math.Abs(e),
		d: c.d[lo:hi], z: make([]float64, n), v: c.v[lo*c.n+lo:], stride: c.n,
		p: c.p[lo*c.n:][:n*n], u: c.u[lo*c.n:][:n*n],
	}
	for i := range b.mid {
		b.z[i] = b.row(i)[b.mid-1] / math.Sqrt2
	}
	for i := b.mid; i < n; i++ {
		b.z[i] = math.Copysign(1/math.Sqrt2, e) * b.row(i)[b.mid]
	}
	return b.solve()
}

// ascending returns the indices of x in ascending order of its elements.
func ascending(x []float64) []int {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(x[i], x[j]) })
	return order
}
