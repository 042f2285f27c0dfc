package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// minGap is the lower bound for 1 - s_A s_G. The damping keeps s_A and s_G, which come from the
// canonical correlations of neighbouring layers, below 1. They are accurate to about n 2^-53, which
// is 1e-13 for n = 1000. So a gap below minGap is a rounding error.
const minGap = 1e-12

// A tridiagonal is F^^-1, the block-tridiagonal inverse of the Fisher matrix of a chain of layers
// 0..l-1, where layer i feeds layer i+1 (Martens & Grosse 2015, section 4.3). On the diagonal and
// next to it, F^ equals the Kronecker products A_ij (x) G_ij. The inverse of F^ is zero everywhere
// else.
//
// A_i = A_ii and G_i = G_ii are damped. V_i is abar_i x out_i, the transpose of the paper's. Then U
// = F^^-1 V is
//
//	X_i = V_i - PsiA_i V_{i+1} PsiG_i^T
//	Y_i = Sigma_i^-1 X_i
//	U_i = Y_i - PsiA_{i-1}^T Y_{i-1} PsiG_{i-1}
//
//	Sigma_i = A_i (x) G_i - C_i (x) D_i
//	PsiA_i = A_{i,i+1} A_{i+1}^-1,    PsiG_i = G_{i,i+1} G_{i+1}^-1
//	C_i = PsiA_i A_{i+1} PsiA_i^T,    D_i = PsiG_i G_{i+1} PsiG_i^T
//
// Terms of layers that do not exist are left out. Two generalised eigenproblems invert Sigma_i
// (appendix B):
//
//	Y = K_A [(K_A^T X K_G) / (1 - s_A s_G^T)] K_G^T
//	K_A^T A K_A = I,   K_A^T C K_A = diag(s_A),   K_G and s_G alike.
//
// The inverse is computed in float64 and applied in the model's dtype. It is positive definite if
// the damping is positive and all moments were estimated from the same cases with the same weights.
// Without damping it may be singular, for example where a layer's units are linear.
type tridiagonal[T Float] struct {
	a, g    []link[T]
	damping []float64 // of each layer's A and G
	tmp     []T
}

// newTridiagonal allocates the inverse of a chain of layers with weights of abar[i] x out[i].
func newTridiagonal[T Float](abar, out []int) *tridiagonal[T] {
	t := &tridiagonal[T]{damping: make([]float64, 2*len(abar))}
	var most int
	for i := range abar {
		t.a = append(t.a, newLink[T](abar[i], nextSize(abar, i)))
		t.g = append(t.g, newLink[T](out[i], nextSize(out, i)))
		most = max(most, abar[i]*out[i])
		if i > 0 {
			most = max(most, abar[i-1]*out[i], abar[i]*out[i-1])
		}
	}
	t.tmp = make([]T, most)
	return t
}

// nextSize returns the size of factor i+1, or 0 if there is none.
func nextSize(sizes []int, i int) int {
	if i+1 < len(sizes) {
		return sizes[i+1]
	}
	return 0
}

// apply computes U = F^^-1 V. v[i] and u[i] are abar_i x out_i. No u[i] may share memory with a
// v[j].
func (t *tridiagonal[T]) apply(u, v [][]T) {
	last := len(t.a) - 1
	for i := range t.a {
		copy(u[i], v[i])
		if i < last {
			t.subtract(u[i], t.a[i].psi, t.g[i].psi, v[i+1], i, i+1)
		}
	}
	for i := range t.a {
		t.solve(u[i], i)
	}
	for i := last; i > 0; i-- { // from last to first, because u[i-1] must still hold Y
		t.subtract(u[i], t.a[i-1].psiT, t.g[i-1].psiT, u[i-1], i, i-1)
	}
}

// subtract computes U -= P V Q^T. U belongs to layer i and V to layer j. P is abar_i x abar_j and Q
// is out_i x out_j. All products here have the second operand transposed, the form that gonum's
// GEMM computes fastest.
func (t *tridiagonal[T]) subtract(u, p, q, v []T, i, j int) {
	linalg.Gemm(false, true, t.g[i].n, t.a[j].n, t.g[j].n, 1, q, v, 0, t.tmp)
	linalg.Gemm(false, true, t.a[i].n, t.g[i].n, t.a[j].n, -1, p, t.tmp, 1, u)
}

// solve replaces X by Y = Sigma_i^-1 X.
func (t *tridiagonal[T]) solve(x []T, i int) {
	a, g := &t.a[i], &t.g[i]
	t.solveWith(x, i, func(x []T) {
		for r, s := range a.s {
			row := x[r*g.n : (r+1)*g.n]
			for c := range row {
				row[c] = T(float64(row[c]) / max(1-s*g.s[c], minGap))
			}
		}
	})
}

// solveWith replaces X by K_A f(K_A^T X K_G) K_G^T of layer i, where f works in place.
func (t *tridiagonal[T]) solveWith(x []T, i int, f func(x []T)) {
	a, g := &t.a[i], &t.g[i]
	linalg.Gemm(false, true, g.n, a.n, g.n, 1, g.kT, x, 0, t.tmp)
	linalg.Gemm(false, true, a.n, g.n, a.n, 1, a.kT, t.tmp, 0, x)
	f(x)
	linalg.Gemm(false, true, g.n, a.n, g.n, 1, g.k, x, 0, t.tmp)
	linalg.Gemm(false, true, a.n, g.n, a.n, 1, a.k, t.tmp, 0, x)
}
