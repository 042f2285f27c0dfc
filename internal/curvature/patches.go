package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// patchSums computes the second moment of a convolution's patches with less work than the full
// product X^T X (see Grid). It holds the scratch.
type patchSums[T Float] struct {
	xt          []T // X^T, sorted by row of the kernel
	first, last []T // the columns of xt at positions y < Shift, and at y >= Height-Shift
	sum         []T // X^T X
	sums        []T // sums of the rows of X^T
	squares     []T // of losesPrecision: sums of squares of the rows of X^T
	largest     []T // scratch of losesPrecision
}

// observe computes the second moment of the patches x (rows x n) and stores it in f. If f has a
// homogeneous coordinate, it is the last one. observe does nothing and returns done == false if the
// subtraction would lose too much precision. ok says that the result is finite.
func (s *patchSums[T]) observe(f *moment[T], g *Grid, x []T) (ok, done bool) {
	n := len(g.Place)
	rows, m := len(x)/n, n/g.KernelRows // m is the number of a patch's elements in one row of the kernel
	border := rows / g.Height * g.Shift
	s.xt, s.first = linalg.Resized(s.xt, n*rows), linalg.Resized(s.first, n*border)
	s.last, s.sum = linalg.Resized(s.last, n*border), linalg.Resized(s.sum, n*n)
	s.sums = linalg.Resized(s.sums, n)
	linalg.TransposeTo(s.xt, x, rows, g.Place)
	bordersOf(g, s.first, s.xt, rows, 0)
	bordersOf(g, s.last, s.xt, rows, g.Height-g.Shift)
	linalg.Gemm(false, true, m, n, rows, 1, s.xt[:m*rows], s.xt, 0, s.sum[:m*n])
	if s.losesPrecision(n, m, border) {
		return false, false
	}
	for i := 0; i+m < n; i += m { // compute the blocks (i+m, j+m) from the blocks (i, j), for j >= i
		for r := i; r < i+m; r++ {
			copy(s.sum[(r+m)*n+i+m:(r+m+1)*n], s.sum[r*n+i:(r+1)*n-m])
		}
		to := s.sum[(i+m)*n+i+m:]
		first, last := s.first[i*border:], s.last[(i+m)*border:]
		linalg.GemmLD(false, true, m, n-m-i, border, -1, first, border, first, border, 1, to, n)
		linalg.GemmLD(false, true, m, n-m-i, border, 1, last, border, last, border, 1, to, n)
	}
	for r := range n {
		if r < m {
			s.sums[r] = total(s.xt[r*rows : (r+1)*rows])
			continue
		}
		first, last := s.first[(r-m)*border:(r-m+1)*border], s.last[r*border:(r+1)*border]
		s.sums[r] = s.sums[r-m] - total(first) + total(last)
	}
	run := f.sums(rows)
	s.scatter(g, run, f.n)
	return linalg.Finite(run), true
}

// maxCancellation is the largest ratio of a sum of squares before the subtraction to the sum that
// is left after it. At this ratio, a float32 result is still accurate to 1e-5.
const maxCancellation = 100

// losesPrecision reports whether the subtraction would leave too little of the sum of squares of
// some element. This happens where the border of an image holds much larger numbers than the rest.
// The first m of the n elements have complete sums, without subtraction.
func (s *patchSums[T]) losesPrecision(n, m, border int) bool {
	s.squares = linalg.Resized(s.squares, n)
	squares := s.squares
	s.largest = linalg.Resized(s.largest, m)
	clear(s.largest)
	largest := s.largest
	for r := range n {
		if r < m {
			squares[r] = s.sum[r*n+r]
		} else {
			first, last := s.first[(r-m)*border:(r-m+1)*border], s.last[r*border:(r+1)*border]
			squares[r] = squares[r-m] - linalg.Dot(first, first) + linalg.Dot(last, last)
		}
		largest[r%m] = max(largest[r%m], squares[r])
		if !(largest[r%m] <= maxCancellation*squares[r]) { // true for NaN too
			return true
		}
	}
	return false
}

// bordersOf copies the columns of xt for the Shift rows of positions from y on, for all cases, into
// dst.
func bordersOf[T Float](g *Grid, dst, xt []T, rows, y int) {
	one, some := g.Height*g.Width, g.Shift*g.Width
	for r := range g.Place {
		row := xt[r*rows : (r+1)*rows]
		for at := y * g.Width; at < rows; at += one {
			dst = dst[copy(dst, row[at:at+some]):]
		}
	}
}

// scatter writes X^T X into run (size x size), with the elements in their order within a patch. If
// size is n+1, it also writes the sums of the elements and the number of rows, for the homogeneous
// coordinate.
func (s *patchSums[T]) scatter(g *Grid, run []T, size int) {
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
	rows := len(s.xt) / n
	for r, pr := range g.Place {
		run[r*size+n], run[n*size+r] = s.sums[pr], s.sums[pr]
	}
	run[n*size+n] = T(rows)
}

func total[T Float](x []T) (sum T) {
	for _, v := range x {
		sum += v
	}
	return sum
}
