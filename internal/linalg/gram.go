package linalg

// gramPanel is the number of columns of a panel of GramT. Panels below the diagonal are skipped, so that about
// (1 + gramPanel/n)/2 of the full product is computed, each piece at the rate of GEMM.
const gramPanel = 256

// GramT computes C = alpha X^T X + beta C for X of size m x n given transposed, as xt of size n x m, and C of size n x n and
// symmetric: the symmetric rank-m product of the Kronecker factors.
//
// It multiplies panels as op(A) op(B)^T with GEMM: gonum's Syrk runs on one thread and its GEMM with a transposed first operand
// hardly scales to two, while this form does, transposing X first included.
func GramT[T Float](m, n int, alpha T, xt []T, beta T, c []T) {
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
