package kfac

import (
	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// patchSums is the scratch of observePatches.
type patchSums[T program.Float] struct {
	xt          []T // X^T, sorted by rows of the kernel
	first, last []T // the columns of its positions y < shift, and y >= height-shift
	sum         []T // X^T X
	sums        []T // of the rows of X^T
}

// observePatches is moment.observe for the patches x, rows x n, with a homogeneous coordinate behind them if the moment has one.
func (f *moment[T]) observePatches(g *layers.Grid, s *patchSums[T], x []T) (ok bool) {
	n := len(g.Place)
	rows, m := len(x)/n, n/g.KernelRows // m: elements of a patch in one row of the kernel
	border := rows / g.Height * g.Shift
	s.xt, s.first, s.last = linalg.Resized(s.xt, n*rows), linalg.Resized(s.first, n*border), linalg.Resized(s.last, n*border)
	s.sum, s.sums = linalg.Resized(s.sum, n*n), linalg.Resized(s.sums, n)
	linalg.TransposeTo(s.xt, x, rows, g.Place)
	borders(g, s.first, s.xt, rows, 0)
	borders(g, s.last, s.xt, rows, g.Height-g.Shift)
	linalg.Gemm(false, true, m, n, rows, 1, s.xt[:m*rows], s.xt, 0, s.sum[:m*n])
	for i := 0; i+m < n; i += m { // the blocks (i+m, j+m) from (i, j), for j >= i
		for r := i; r < i+m; r++ {
			copy(s.sum[(r+m)*n+i+m:(r+m+1)*n], s.sum[r*n+i:(r+1)*n-m])
		}
		to := s.sum[(i+m)*n+i+m:]
		linalg.GemmLD(false, true, m, n-m-i, border, -1, s.first[i*border:], border, s.first[i*border:], border, 1, to, n)
		linalg.GemmLD(false, true, m, n-m-i, border, 1, s.last[(i+m)*border:], border, s.last[(i+m)*border:], border, 1, to, n)
	}
	for r := range n {
		if r < m {
			s.sums[r] = total(s.xt[r*rows : (r+1)*rows])
		} else {
			s.sums[r] = s.sums[r-m] - total(s.first[(r-m)*border:(r-m+1)*border]) + total(s.last[r*border:(r+1)*border])
		}
	}
	run := f.sums(rows)
	s.scatter(g, run, f.n)
	return linalg.Finite(run)
}

// borders gathers the columns of shift rows of positions from y on, of all cases.
func borders[T program.Float](g *layers.Grid, dst, xt []T, rows, y int) {
	one, some := g.Height*g.Width, g.Shift*g.Width
	for r := range g.Place {
		row := xt[r*rows : (r+1)*rows]
		for at := y * g.Width; at < rows; at += one {
			dst = dst[copy(dst, row[at:at+some]):]
		}
	}
}

// scatter writes X^T X to run (size x size) in the order of the patches' elements and, if there is room, the sums of the elements behind it.
func (s *patchSums[T]) scatter(g *layers.Grid, run []T, size int) {
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

func total[T program.Float](x []T) (sum T) {
	for _, v := range x {
		sum += v
	}
	return sum
}
