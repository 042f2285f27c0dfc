package linalg

import (
	"github.com/gorgonia-kfac/kfac/internal/kernels"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// gramPanel is the number of columns of a panel of UpperGramT with another BLAS than gonum's.
// Panels below the diagonal are skipped, so that about (1 + gramPanel/n)/2 of the full product is
// computed, each piece at the rate of GEMM.
const gramPanel = 256

// GramT computes C = alpha X^T X + beta C, the symmetric rank-m product of the Kronecker factors. X
// is m x n and given transposed, as xt of n x m. C is n x n and symmetric.
func GramT[T Float](m, n int, alpha T, xt []T, beta T, c []T) {
	UpperGramT(m, n, alpha, xt, beta, c)
	MirrorUpper(c, n)
}

// UpperGramT is GramT for the upper triangle of C. What is below it is of no use.
func UpperGramT[T Float](m, n int, alpha T, xt []T, beta T, c []T) {
	if impl, pure := implementation[T](); pure && m > 0 && n > 0 {
		begin(impl)
		kernels.UpperGram(false, true, n, m, alpha, xt, m, xt, m, beta, c, n)
		end(impl, n, (n+1)/2, m)
		return
	}
	for i := 0; i < n; i += gramPanel {
		p := min(gramPanel, n-i)
		GemmLD(false, true, p, n-i, m, alpha, xt[i*m:], m, xt[i*m:], m, beta, c[i*n+i:], n)
	}
}

// MirrorUpper copies the upper triangle of the n x n matrix c to its lower triangle.
func MirrorUpper[T Float](c []T, n int) { mirror(c, n, true) }

// MirrorLower copies the lower triangle of the n x n matrix c to its upper triangle.
func MirrorLower[T Float](c []T, n int) { mirror(c, n, false) }

func mirror[T Float](c []T, n int, upper bool) {
	eachTileAbove(n, func(i0, i1, j0, j1 int) {
		above, below := c[i0*n+j0:], c[j0*n+i0:]
		switch {
		case i0 == j0: // on the diagonal
			for i := range i1 - i0 {
				for j := range i {
					if upper {
						c[(i0+i)*n+i0+j] = c[(i0+j)*n+i0+i]
					} else {
						c[(i0+j)*n+i0+i] = c[(i0+i)*n+i0+j]
					}
				}
			}
		case upper:
			kernels.Transpose(below, n, above, n, i1-i0, j1-j0)
		default:
			kernels.Transpose(above, n, below, n, j1-j0, i1-i0)
		}
	})
}

// eachTileAbove calls f for the tiles on and above the diagonal. A tile has the rows i0 to i1-1 and
// the columns j0 to j1-1. Calls may run at the same time.
func eachTileAbove(n int, f func(i0, i1, j0, j1 int)) {
	tiles := (n + block - 1) / block // along an edge
	row := func(t int) {
		for j := t * block; j < n; j += block {
			f(t*block, min((t+1)*block, n), j, min(j+block, n))
		}
	}
	parallel.Rows((tiles+1)/2, block*n, func(from, to int) { // a long row of tiles and a short one
		for t := from; t < to; t++ {
			row(t)
			if other := tiles - 1 - t; other != t {
				row(other)
			}
		}
	})
}
