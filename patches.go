package kfac

import (
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// patchGrid is the geometry of a convolution's patches, where they repeat each other: what row ky+1 of the kernel sees at position y is what row ky sees at position
// y + shift. So of the blocks of A, by rows of the kernel, only those of the first row need the whole sum over positions,
//
//	A(ky+1, ky'+1) = A(ky, ky') - (positions y < shift, rows ky and ky') + (positions y >= height-shift, rows ky+1 and ky'+1)
//
// which takes 1 of kh (kh+1)/2 blocks' work for each of kh: about half for 3 x 3.
type patchGrid struct {
	kh            int
	height, width int // positions
	shift         int
	place         []int // of a patch's element: where it goes when the elements are sorted by rows of the kernel first
}

// patchGridOf is that of a layer, or nil if it is none or nothing is to be gained.
func patchGridOf(l *layer) *patchGrid {
	n := imagePatches(l)
	if n == nil || l.diagonalA {
		return nil
	}
	w := n.Op.(program.Im2Col).Window
	g := &patchGrid{kh: w.Kernel[0], height: n.Shape[1], width: n.Shape[2], shift: w.Dilation[0] / w.Stride[0]}
	if g.kh < 2 || w.Dilation[0]%w.Stride[0] != 0 || g.height < 4*g.shift {
		return nil
	}
	channels, kw := n.Kids[0].Shape[1], w.Kernel[1]
	for c := range channels {
		for ky := range g.kh {
			for kx := range kw {
				g.place = append(g.place, (ky*channels+c)*kw+kx)
			}
		}
	}
	return g
}

// imagePatches is the node that unfolds the patches whose rows a convolution multiplies with its weight, or nil.
func imagePatches(l *layer) *program.Node {
	if len(l.sites) != 1 || l.tied != nil || l.reduce || l.sites[0].inputColumns || l.sites[0].lookup {
		return nil
	}
	n := l.sites[0].input
	for {
		switch n.Op.(type) {
		case program.Reshape:
			n = n.Kids[0]
			continue
		case program.Im2Col:
			if n.Shape[len(n.Shape)-1] == l.in {
				return n
			}
		}
		return nil
	}
}

// patchSums is the scratch of observePatches.
type patchSums[T program.Float] struct {
	xt          []T // X^T, sorted by rows of the kernel
	first, last []T // the columns of its positions y < shift, and y >= height-shift
	sum         []T // X^T X
	sums        []T // of the rows of X^T
}

// observePatches is moment.observe for the patches x, rows x n, with a homogeneous coordinate behind them if the moment has one.
func (f *moment[T]) observePatches(g *patchGrid, s *patchSums[T], x []T) (ok bool) {
	n := len(g.place)
	rows, m := len(x)/n, n/g.kh // m: elements of a patch in one row of the kernel
	border := rows / g.height * g.shift
	s.xt, s.first, s.last = linalg.Resized(s.xt, n*rows), linalg.Resized(s.first, n*border), linalg.Resized(s.last, n*border)
	s.sum, s.sums = linalg.Resized(s.sum, n*n), linalg.Resized(s.sums, n)
	linalg.TransposeTo(s.xt, x, rows, g.place)
	borders(g, s.first, s.xt, rows, 0)
	borders(g, s.last, s.xt, rows, g.height-g.shift)
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
func borders[T program.Float](g *patchGrid, dst, xt []T, rows, y int) {
	one, some := g.height*g.width, g.shift*g.width
	for r := range g.place {
		row := xt[r*rows : (r+1)*rows]
		for at := y * g.width; at < rows; at += one {
			dst = dst[copy(dst, row[at:at+some]):]
		}
	}
}

// scatter writes X^T X to run (size x size) in the order of the patches' elements and, if there is room, the sums of the elements behind it.
func (s *patchSums[T]) scatter(g *patchGrid, run []T, size int) {
	n, m := len(g.place), len(g.place)/g.kh
	for r, pr := range g.place {
		for c, pc := range g.place {
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
	for r, pr := range g.place {
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
