package kfac

import (
	"math"

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

// inversePeriod is T3 for a model of these layers: so many steps that the inverses take a small part of what the user's VM has to compute, by counting. Fresh inverses
// are worth more than the paper's T3 = 20 gives where they cost next to nothing.
func inversePeriod[T program.Float](layers map[*layerBlock[T]]*layer, cfg config) int {
	if cfg.inversePeriod > 0 {
		return cfg.inversePeriod
	}
	cube := func(f *moment[T]) float64 {
		if f.diagonal {
			return 0
		}
		return float64(f.n) * float64(f.n) * float64(f.n)
	}
	var inverses, iteration float64 // operations
	for b, l := range layers {
		inverses += cube(&b.factors.a) + cube(&b.factors.g)
		for _, s := range l.Sites {
			if s.Lookup {
				continue
			}
			iteration += 6 * float64(s.Rows) * float64(l.In) * float64(l.Out) // forward and backward
		}
	}
	if cfg.tridiagonal || cfg.timing != TimeIndependent {
		inverses *= eigenWork
	}
	period := math.Ceil(inverses / (inverseShare * max(iteration, leastIteration)))
	return int(min(max(period, 1), longestPeriod))
}

const (
	longestPeriod  = 20       // T3 (Martens & Grosse 2015, section 8)
	inverseShare   = 1.0 / 25 // of an iteration's operations
	leastIteration = 2.5e6    // operations that the time of an iteration is worth where there is little to compute
	eigenWork      = 20       // times the operations of an inverse are those of the eigenproblems that there are besides
)

// inverse is (F + E[damping])^-1 of one layer: (A + pi gamma I)^-1 (x) (G + gamma/pi I)^-1 (Martens & Grosse 2015, section 4.2). It is
// applied in the model's dtype, and computed in it too where that is safe. next is that of the step in progress.
type inverse[T program.Float] struct {
	a, g inverseFactor[T]
	rows []int // of applyToRows
}

// inverseFactor is the inverse of one damped factor.
type inverseFactor[T program.Float] struct {
	n         int
	diagonal  bool // now, next and aside are n elements, not n x n
	now, next []T
	aside     []T       // of stash; made when first needed
	wide      []float64 // n x n: float64's part for a model in float32; made when first needed
	narrow    linalg.Inverter[T]
	damping   float64 // that was added at last
	raised    bool
	err       error
}

func newInverse[T program.Float](l *layer) *inverse[T] {
	return &inverse[T]{a: newInverseFactor[T](l.Abar(), l.DiagonalA), g: newInverseFactor[T](l.Out, l.DiagonalG)}
}

func newInverseFactor[T program.Float](n int, diagonal bool) inverseFactor[T] {
	if diagonal {
		return inverseFactor[T]{n: n, diagonal: true, now: make([]T, n), next: make([]T, n)}
	}
	return inverseFactor[T]{n: n, now: make([]T, n*n), next: make([]T, n*n)}
}

// factorise computes next = (F + damping I)^-1. If F + damping I is numerically not positive definite it raises the damping and tries again, and gives up in the
// end, with err set.
func (v *inverseFactor[T]) factorise(f []T, damping float64) {
	v.damping, v.raised, v.err = raising(damping, func(damping float64) bool {
		if v.diagonal {
			return v.reciprocals(f, damping)
		}
		return v.invertNarrow(f, damping) || v.invert(f, damping)
	})
}

// reciprocals computes next for a diagonal factor.
func (v *inverseFactor[T]) reciprocals(f []T, damping float64) bool {
	for i, d := range f {
		v.next[i] = T(1 / (float64(d) + damping))
	}
	return linalg.Finite(v.next)
}

// raising calls try with damping, and for as long as that fails with more of it.
func raising(damping float64, try func(damping float64) bool) (used float64, raised bool, err error) {
	for n := range raises + 1 {
		if n > 0 {
			damping *= raise
		}
		if try(damping) {
			return damping, n > 0, nil
		}
	}
	return damping, true, ErrNotPosDef
}

// safeCondition bounds the condition numbers of what is inverted in float32: there the inverse is known to about a thousandth, the product of the condition
// number and of float32's rounding, 6e-8. In practice almost all factors are below it.
const safeCondition = 1e4

// invertNarrow computes next in float32 if that is the model's dtype and it is safe: F + damping I has no eigenvalue below damping, and none above tr(F) + damping.
func (v *inverseFactor[T]) invertNarrow(f []T, damping float64) bool {
	if _, single := any(f).([]float32); !single {
		return false
	}
	if !(diagonalSum(f, v.n, v.n+1) <= (safeCondition-1)*damping) {
		return false
	}
	copy(v.next, f)
	for i := range v.n {
		v.next[i*v.n+i] += T(damping)
	}
	return v.narrow.Invert(v.next, v.n) && linalg.Finite(v.next)
}

// invert computes next in float64, by Cholesky. It reports false if F + damping I is not positive definite, or the inverse overflows.
func (v *inverseFactor[T]) invert(f []T, damping float64) bool {
	work, ok := any(v.next).([]float64)
	if !ok {
		v.wide = linalg.Resized(v.wide, v.n*v.n)
		work = v.wide
	}
	chol, ok := cholesky(work, f, v.n, damping)
	if !ok {
		return false
	}
	if _, ok := lapack64.Potri(chol); !ok || !linalg.Finite(work) {
		return false
	}
	linalg.MirrorLower(work, v.n)
	next, single := any(v.next).([]float32)
	if !single {
		return true
	}
	linalg.Convert(next, work)
	return linalg.Finite(next)
}

// cholesky factorises F + damping I = L L^T, where F is n x n. L is written to the lower triangle of work; what is above it is of no use. ok
// says that the sum is numerically positive definite.
func cholesky[T program.Float](work []float64, f []T, n int, damping float64) (l blas64.Triangular, ok bool) {
	linalg.Convert(work, f)
	for i := range n {
		work[i*n+i] += damping
	}
	return lapack64.Potrf(blas64.Symmetric{N: n, Stride: n, Data: work, Uplo: blas.Lower})
}

// stash exchanges next with what lies aside.
func (v *inverseFactor[T]) stash() {
	if v.aside == nil {
		v.aside = make([]T, len(v.next))
	}
	v.next, v.aside = v.aside, v.next
}

// at is the step's own inverse if fresh, or else the current one.
func (v *inverseFactor[T]) at(fresh bool) []T {
	if fresh {
		return v.next
	}
	return v.now
}

// keep makes next the current inverse.
func (v *inverseFactor[T]) keep() { v.now, v.next = v.next, v.now }

// apply computes U = A^-1 V G^-1 for V of size abar x out, or U = G^-1 V A^-1 for V of size out x abar if outByIn: the
// preconditioned gradient. tmp has V's size; fresh says that next is to be applied, not now.
func (v *inverse[T]) apply(u, grad, tmp []T, outByIn, fresh bool) {
	left, right := &v.a, &v.g
	if outByIn {
		left, right = right, left
	}
	l, r := left.at(fresh), right.at(fresh)
	rows, cols := left.n, right.n
	switch {
	case left.diagonal && right.diagonal:
		copy(u, grad)
		scaleColumns(u, r)
		scaleRows(u, l)
	case left.diagonal:
		v.applyToRows(u, grad, tmp, l, r)
	case right.diagonal:
		copy(tmp, grad)
		scaleColumns(tmp, r)
		linalg.Gemm(false, false, rows, cols, rows, 1, l, tmp, 0, u)
	default:
		// With both symmetric it is U = L (R V^T)^T: two products with the second operand transposed, the form that gonum's GEMM computes fastest.
		linalg.Gemm(false, true, cols, rows, cols, 1, r, grad, 0, tmp)
		linalg.Gemm(false, true, rows, cols, rows, 1, l, tmp, 0, u)
	}
}

// applyToRows computes U = diag(l) V R. Rows of V that are zero, as those of words that do not occur, cost nothing.
func (v *inverse[T]) applyToRows(u, grad, tmp, l, r []T) {
	clear(u)
	cols := len(grad) / len(l)
	v.rows = v.rows[:0]
	for i := range l {
		if row := grad[i*cols : (i+1)*cols]; !allZero(row) {
			copy(tmp[len(v.rows)*cols:], row)
			v.rows = append(v.rows, i)
		}
	}
	n := len(v.rows)
	if n == 0 {
		return
	}
	products := u[:n*cols]
	linalg.Gemm(false, true, n, cols, cols, 1, tmp, r, 0, products)
	copy(tmp, products)
	clear(products)
	for k, i := range v.rows {
		row := u[i*cols : (i+1)*cols]
		copy(row, tmp[k*cols:])
		linalg.Scale(l[i], row)
	}
}

func allZero[T program.Float](x []T) bool {
	for _, v := range x {
		if v != 0 {
			return false
		}
	}
	return true
}

// scaleRows multiplies the rows of m by the elements of d, and scaleColumns its columns.
func scaleRows[T program.Float](m, d []T) {
	cols := len(m) / len(d)
	for i, s := range d {
		linalg.Scale(s, m[i*cols:(i+1)*cols])
	}
}

func scaleColumns[T program.Float](m, d []T) {
	for at := 0; at < len(m); at += len(d) {
		for j, s := range d {
			m[at+j] *= s
		}
	}
}
