package linalg

import (
	"math"
	"sync/atomic"

	"gonum.org/v1/gonum/blas/blas64"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// joint is a block of a tridiagonal matrix whose two halves are solved: V^T (diag(d) +
// rho z z^T) V. The rows of V, which are orthonormal, are the eigenvectors of the halves.
type joint struct {
	n, mid int       // size of the block, and of its first half
	rho    float64   // > 0, or 0 if the halves are not connected
	d, z   []float64 // n; |z| = 1
	v      []float64 // n x n: eigenvectors in rows, before and after
	stride int       // of v

	p, u []float64 // n x n: workspace
}

// support says in which half of the columns a row of V has elements that are not zero.
type support int

const (
	first support = iota
	both
	second
)

// smallest is the least rounding error that deflation assumes, for a matrix whose elements are
// about 1. Its products with squares of rounding errors are still far from underflow.
const smallest = 1e-100

// roundoff is the distance from 1 to the next larger float64.
const roundoff = 0x1p-52

// solve replaces d and v by the eigenvalues and eigenvectors of the block. It reports false if the
// secular equation is not solved.
func (b *joint) solve() bool {
	kept, kind := b.deflate()
	k := len(kept)
	if k == 0 {
		return true
	}
	s := secular{d: make([]float64, k), z2: make([]float64, k), rhoInv: 1 / b.rho}
	z := make([]float64, k)
	for r, i := range kept {
		s.d[r], z[r] = b.d[i], b.z[i]
		s.z2[r] = z[r] * z[r]
	}
	place, ends := b.gather(kept, kind)
	if !b.roots(&s) {
		return false
	}
	b.nearbyZ(s.d, z)
	b.vectors(z, place)
	b.multiply(k, ends)
	return true
}

// deflate sets apart the eigenvectors of the halves that are, up to rounding, eigenvectors of the
// block (Golub & Van Loan, Matrix Computations, 4th edition, section 8.5.4; Gu & Eisenstat 1995,
// section 4). These have z = 0. Of two with equal d a combination has z = 0. It returns the rows of
// V that are left, in ascending order of d, and the support of all rows.
func (b *joint) deflate() (kept []int, kind []support) {
	order := ascending(b.d)
	norm := max(math.Abs(b.d[order[0]]), math.Abs(b.d[order[b.n-1]]), b.rho)
	tol := max(8*roundoff*norm, smallest)
	kind = make([]support, b.n)
	for i := b.mid; i < b.n; i++ {
		kind[i] = second
	}
	last := -1 // the last row that is left
	for _, i := range order {
		if b.rho*math.Abs(b.z[i]) <= tol {
			continue
		}
		if last >= 0 && b.combine(last, i, tol) {
			if kind[last] != kind[i] {
				kind[i] = both
			}
			kept = kept[:len(kept)-1]
		}
		kept = append(kept, i)
		last = i
	}
	return kept, kind
}

// combine rotates rows i and j of V, where d_i <= d_j, so that z_i becomes zero. It does so only if
// the element that this brings to row i, column j of diag(d) is below tol.
func (b *joint) combine(i, j int, tol float64) bool {
	norm := math.Hypot(b.z[i], b.z[j])
	cos, sin := b.z[j]/norm, b.z[i]/norm
	if (b.d[j]-b.d[i])*math.Abs(cos*sin) > tol {
		return false
	}
	b.z[i], b.z[j] = 0, norm
	di, dj := b.d[i], b.d[j]
	b.d[i], b.d[j] = cos*cos*di+sin*sin*dj, cos*cos*dj+sin*sin*di
	blas64.Implementation().Drot(b.n, b.row(j), 1, b.row(i), 1, cos, sin)
	return true
}

func (b *joint) row(i int) []float64 { return b.v[i*b.stride:][:b.n] }

// gather copies V to p, the kept rows first and ordered by their support, and d likewise. It
// returns the place of each kept row and the ends of the three groups of rows.
func (b *joint) gather(kept []int, kind []support) (place []int, ends [3]int) {
	place = make([]int, len(kept))
	n := 0
	for group := first; group <= second; group++ {
		for r, i := range kept {
			if kind[i] == group {
				place[r] = n
				copy(b.p[n*b.n:], b.row(i))
				n++
			}
		}
		ends[group] = n
	}
	isKept := make([]bool, b.n)
	for _, i := range kept {
		isKept[i] = true
	}
	d := make([]float64, n, b.n) // the kept ones come from the secular equation
	for i := range b.n {
		if !isKept[i] {
			copy(b.p[n*b.n:], b.row(i))
			d = append(d, b.d[i])
			n++
		}
	}
	copy(b.d, d)
	return place, ends
}

// roots writes the roots of the secular equation to d, and their distances from the poles to u, a
// row per root.
func (b *joint) roots(s *secular) bool {
	k := len(s.d)
	var failed atomic.Bool
	parallel.For(k, grain(k), func(from, to int) {
		for j := from; j < to; j++ {
			r, ok := s.root(j)
			if !ok {
				failed.Store(true)
				return
			}
			b.d[j] = s.d[r.pole] + r.offset
			row := b.u[j*k:][:k]
			for i := range row {
				row[i] = s.distance(i, r)
			}
		}
	})
	return !failed.Load()
}

// nearbyZ replaces z by a vector that equals it up to rounding. For that vector the computed
// roots x are exact:
//
//	z_i^2 is proportional to (x_i - d_i) prod_{j != i} (x_j - d_i) / (d_j - d_i).
//
// The eigenvectors that follow from it are orthogonal to working precision, however close the roots
// are (Gu & Eisenstat 1995, section 3.2).
func (b *joint) nearbyZ(d, z []float64) {
	k := len(d)
	parallel.For(k, grain(k), func(from, to int) {
		square := make([]float64, to-from)
		for i := range square {
			square[i] = -b.u[(from+i)*k+from+i]
		}
		for j := range k {
			row := b.u[j*k:][from:to]
			for i := range row {
				if from+i != j {
					square[i] *= row[i] / (d[from+i] - d[j])
				}
			}
		}
		for i, v := range square {
			z[from+i] = math.Copysign(math.Sqrt(math.Abs(v)), z[from+i])
		}
	})
}

// vectors replaces the distances in u by the eigenvectors of diag(d) + rho z z^T, whose elements
// z_i / (d_i - x) go to their places in p.
func (b *joint) vectors(z []float64, place []int) {
	k := len(z)
	parallel.For(k, grain(k), func(from, to int) {
		x := make([]float64, k)
		for j := from; j < to; j++ {
			row := b.u[j*k:][:k]
			var square float64
			for i, distance := range row {
				x[i] = z[i] / distance
				square += x[i] * x[i]
			}
			inv := 1 / math.Sqrt(square)
			for i, v := range x {
				row[place[i]] = v * inv
			}
		}
	})
}

// multiply writes the eigenvectors of the block to v. The first k are the rows of u times the rows
// of p. The others are those of p.
func (b *joint) multiply(k int, ends [3]int) {
	n, left, right := b.n, b.mid, b.n-b.mid
	GemmLD(false, false, k, left, ends[both], 1, b.u, k, b.p, n, 0, b.v, b.stride)
	GemmLD(false, false, k, right, k-ends[first],
		1, b.u[ends[first]:], k, b.p[ends[first]*n+left:], n, 0, b.v[left:], b.stride)
	for i := k; i < n; i++ {
		copy(b.row(i), b.p[i*n:])
	}
}
