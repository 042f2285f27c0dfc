package kfac

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// raises is how often the damping of a factor that can't be factorised is raised, by the factor raise each time.
const (
	raises = 6
	raise  = 10
)

// inverse is (F + E[damping])^-1 of one layer: (A + pi gamma I)^-1 (x) (G + gamma/pi I)^-1 (Martens & Grosse 2015, section 4.2). It is
// computed in float64 and applied in the model's dtype. next is that of the step in progress.
type inverse[T program.Float] struct {
	a, g inverseFactor[T]
}

// inverseFactor is the inverse of one damped factor.
type inverseFactor[T program.Float] struct {
	n         int
	now, next []T
	aside     []T // of stash; made when first needed
	work      []float64
	damping   float64 // that was added at last
	raised    bool
	err       error
}

func newInverse[T program.Float](abar, out int) *inverse[T] {
	return &inverse[T]{a: newInverseFactor[T](abar), g: newInverseFactor[T](out)}
}

func newInverseFactor[T program.Float](n int) inverseFactor[T] {
	return inverseFactor[T]{n: n, now: make([]T, n*n), next: make([]T, n*n), work: make([]float64, n*n)}
}

// factorise computes next = (f.next + damping I)^-1 by Cholesky. If that fails it raises the damping and tries again, and gives up
// in the end, with err set.
func (v *inverseFactor[T]) factorise(f *factor, damping float64) {
	v.raised, v.err = false, nil
	for try := range raises + 1 {
		if try > 0 {
			damping, v.raised = damping*raise, true
		}
		v.damping = damping
		copy(v.work, f.next)
		for i := range v.n {
			v.work[i*v.n+i] += damping
		}
		if v.invert() {
			return
		}
	}
	v.err = ErrNotPosDef
}

// invert replaces work by its inverse and copies it to next. It reports false if work is not numerically positive definite.
func (v *inverseFactor[T]) invert() bool {
	chol, ok := lapack64.Potrf(blas64.Symmetric{N: v.n, Stride: v.n, Data: v.work, Uplo: blas.Upper})
	if !ok {
		return false
	}
	if _, ok = lapack64.Potri(chol); !ok {
		return false
	}
	if !linalg.Finite(v.work) {
		return false
	}
	linalg.MirrorUpper(v.work, v.n)
	linalg.Convert(v.next, v.work)
	return linalg.Finite(v.next)
}

// stash exchanges next with what lies aside.
func (v *inverseFactor[T]) stash() {
	if v.aside == nil {
		v.aside = make([]T, len(v.next))
	}
	v.next, v.aside = v.aside, v.next
}

// keep makes next the current inverse.
func (v *inverseFactor[T]) keep() { v.now, v.next = v.next, v.now }

// apply computes U = A^-1 V G^-1 for V of size abar x out, or U = G^-1 V A^-1 for V of size out x abar if outByIn: the
// preconditioned gradient. tmp has V's size; fresh says that next is to be applied, not now.
//
// With R the right and L the left inverse, both symmetric, it is U = L (R V^T)^T: two products with the second operand transposed, the
// form that gonum's GEMM computes fastest.
func (v *inverse[T]) apply(u, grad, tmp []T, outByIn, fresh bool) {
	left, right := &v.a, &v.g
	if outByIn {
		left, right = right, left
	}
	l, r := left.now, right.now
	if fresh {
		l, r = left.next, right.next
	}
	rows, cols := left.n, right.n
	linalg.Gemm(false, true, cols, rows, cols, 1, r, grad, 0, tmp)
	linalg.Gemm(false, true, rows, cols, rows, 1, l, tmp, 0, u)
}
