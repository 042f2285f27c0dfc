package curvature

import (
	"github.com/gorgonia-kfac/kfac/internal/kernels"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// patchSums computes the second moment of a convolution's patches X (rows x n) with less work than
// the full product X^T X (see Grid). It holds the scratch. What is sorted has the elements of a
// patch in the order of the rows of the kernel, so that those of its first row are the first m.
type patchSums[T Float] struct {
	top         []T       // the first m columns of sorted X
	columns     []int     // their places in X
	products    []T       // top^T X
	first, last border[T] // positions y < Shift, and y >= Height-Shift
	sum         []T       // X^T X, sorted
	sums        []T       // sums of the columns of X, sorted
	squares     []T       // of losesPrecision: sums of their squares
	largest     []T       // scratch of losesPrecision
}

// A border is the patches at some positions.
type border[T Float] struct {
	x             []T // sorted
	sums, squares []T // of its columns
}

// observe computes the second moment of the patches x (rows x n) and stores it in f. If f has a
// homogeneous coordinate, it is the last one. observe does nothing and returns done == false if the
// subtraction would lose too much precision. ok says that the result is finite.
func (s *patchSums[T]) observe(f *moment[T], g *Grid, x []T) (ok, done bool) {
	n := len(g.Place)
	rows, m := len(x)/n, n/g.KernelRows // m is the number of a patch's elements in one row of the kernel
	s.sum, s.sums = linalg.Resized(s.sum, n*n), linalg.Resized(s.sums, n)
	s.multiplyTop(g, x, rows, m)
	s.first.take(g, x, 0)
	s.last.take(g, x, g.Height-g.Shift)
	if s.losesPrecision(n, m) {
		return false, false
	}
	border := len(s.first.x) / n
	for i := 0; i+m < n; i += m { // compute the blocks (i+m, j+m) from the blocks (i, j), for j >= i
		for r := i; r < i+m; r++ {
			copy(s.sum[(r+m)*n+i+m:(r+m+1)*n], s.sum[r*n+i:(r+1)*n-m])
		}
		to := s.sum[(i+m)*n+i+m:]
		first, last := s.first.x[i:], s.last.x[i+m:]
		linalg.GemmLD(true, false, m, n-m-i, border, -1, first, n, first, n, 1, to, n)
		linalg.GemmLD(true, false, m, n-m-i, border, 1, last, n, last, n, 1, to, n)
	}
	for r := m; r < n; r++ {
		s.sums[r] = s.sums[r-m] - s.first.sums[r-m] + s.last.sums[r]
	}
	run := f.sums(rows)
	s.scatter(g, run, f.n, rows)
	return linalg.Finite(run), true
}

// multiplyTop computes the first m rows of the sum, and the first m sums.
func (s *patchSums[T]) multiplyTop(g *Grid, x []T, rows, m int) {
	n := len(g.Place)
	s.top, s.products = linalg.Resized(s.top, rows*m), linalg.Resized(s.products, m*n)
	if len(s.columns) != m {
		s.columns = make([]int, m)
	}
	for j, p := range g.Place {
		if p < m {
			s.columns[p] = j
		}
	}
	parallel.Rows(rows, m, func(from, to int) {
		for i := from; i < to; i++ {
			row, top := x[i*n:(i+1)*n], s.top[i*m:(i+1)*m]
			for c, j := range s.columns {
				top[c] = row[j]
			}
		}
	})
	linalg.Gemm(true, false, m, n, rows, 1, s.top, x, 0, s.products)
	for r := range m {
		for j, p := range g.Place {
			s.sum[r*n+p] = s.products[r*n+j]
		}
	}
	addRows(s.sums[:m], s.top)
}

// take copies the Shift rows of positions from y on, for all cases.
func (b *border[T]) take(g *Grid, x []T, y int) {
	n := len(g.Place)
	one, some := g.Height*g.Width*n, g.Shift*g.Width*n
	b.x = linalg.Resized(b.x, len(x)/one*some)
	at := 0
	for from := y * g.Width * n; from < len(x); from += one {
		for i := from; i < from+some; i += n {
			row, sorted := x[i:i+n], b.x[at:at+n]
			for j, p := range g.Place {
				sorted[p] = row[j]
			}
			at += n
		}
	}
	b.sums, b.squares = linalg.Resized(b.sums, n), linalg.Resized(b.squares, n)
	addRows(b.sums, b.x)
	clear(b.squares)
	for i := 0; i < len(b.x); i += n {
		row := b.x[i : i+n]
		kernels.MulAdd(b.squares, row, row, b.squares)
	}
}

// addRows writes the sums of the columns of x to sums.
func addRows[T Float](sums, x []T) {
	clear(sums)
	for n := len(sums); len(x) > 0; x = x[n:] {
		kernels.Axpy(1, x[:n], sums)
	}
}

// maxCancellation is the largest ratio of a sum of squares before the subtraction to the sum that
// is left after it. At this ratio, a float32 result is still accurate to 1e-5.
const maxCancellation = 100

// losesPrecision reports whether the subtraction would leave too little of the sum of squares of
// some element. This happens where the border of an image holds much larger numbers than the rest.
// The first m of the n elements have complete sums, without subtraction.
func (s *patchSums[T]) losesPrecision(n, m int) bool {
	s.squares = linalg.Resized(s.squares, n)
	squares := s.squares
	s.largest = linalg.Resized(s.largest, m)
	clear(s.largest)
	largest := s.largest
	for r := range n {
		if r < m {
			squares[r] = s.sum[r*n+r]
		} else {
			squares[r] = squares[r-m] - s.first.squares[r-m] + s.last.squares[r]
		}
		largest[r%m] = max(largest[r%m], squares[r])
		if !(largest[r%m] <= maxCancellation*squares[r]) { // true for NaN too
			return true
		}
	}
	return false
}

// scatter writes X^T X into run (size x size), with the elements in their order within a patch. If
// size is n+1, it also writes the sums of the elements and the number of rows, for the homogeneous
// coordinate.
func (s *patchSums[T]) scatter(g *Grid, run []T, size, rows int) {
	n, m := len(g.Place), len(g.Place)/g.KernelRows
	for r, pr := range g.Place {
		for c, pc := range g.Place {
			if pr/m <= pc/m {
				run[r*size+c] = s.sum[pr*n+pc]
			} else {
				run[r*size+c] = s.sum[pc*n+pr]
			}
		}
	}
	if size == n {
		return
	}
	for r, pr := range g.Place {
		run[r*size+n], run[n*size+r] = s.sums[pr], s.sums[pr]
	}
	run[n*size+n] = T(rows)
}
