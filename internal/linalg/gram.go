package linalg

// gramPanel is the number of columns of a panel of Gram. Panels below the diagonal are skipped, so that about
// (1 + gramPanel/n)/2 of the full product is computed, each piece at the rate of GEMM.
const gramPanel = 256

// Gram computes C = alpha X^T X + beta C for X of size m x n, and C of size n x n and symmetric: the symmetric rank-m product of
// the Kronecker factors. xt is scratch of at least m n elements.
//
// It multiplies panels of X^T, transposed once, as op(A) op(B)^T with GEMM: gonum's Syrk runs on one thread and its GEMM with a
// transposed first operand hardly scales to two, while this form does.
func Gram[T Float](m, n int, alpha T, x []T, beta T, c, xt []T) {
	xt = xt[:m*n]
	Transpose(xt, x, m, n)
	for i := 0; i < n; i += gramPanel {
		p := min(gramPanel, n-i)
		GemmLD(false, true, p, n-i, m, alpha, xt[i*m:], m, xt[i*m:], m, beta, c[i*n+i:], n)
	}
	MirrorUpper(c, n)
}

// MirrorUpper copies the upper triangle of the n x n matrix c to its lower triangle.
func MirrorUpper[T Float](c []T, n int) {
	for i0 := 0; i0 < n; i0 += block {
		i1 := min(i0+block, n)
		for j0 := i0; j0 < n; j0 += block {
			j1 := min(j0+block, n)
			for i := i0; i < i1; i++ {
				for j := max(j0, i+1); j < j1; j++ {
					c[j*n+i] = c[i*n+j]
				}
			}
		}
	}
}
