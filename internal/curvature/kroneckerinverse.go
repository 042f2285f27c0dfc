package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// kroneckers inverts Kronecker products of two factors. All its products have the same shape.
type kroneckers[T Float] struct {
	inverses pool[KroneckerInverse[T]]
	work     pool[[2]inverter[T]]
	tmp      []T   // scratch as large as V
	rows     []int // scratch of applyToRows
}

// ready sets up the pools.
func (b *kroneckers[T]) ready(s Shape) {
	b.inverses.make = func() *KroneckerInverse[T] {
		return &KroneckerInverse[T]{
			owner: b, outByIn: s.OutByIn,
			a: newFactorInverse[T](s.Abar(), s.DiagonalA), g: newFactorInverse[T](s.Out, s.DiagonalG),
		}
	}
	b.work.make = func() *[2]inverter[T] { return new([2]inverter[T]) }
}

// invert begins the inverse of the product of the factors a and g. If release is not nil, it is
// called when the factors are no longer needed.
func (b *kroneckers[T]) invert(a, g []T, dampA, dampG float64, release func()) *Inversion[T] {
	v, w := b.inverses.get(), b.work.get()
	return &Inversion[T]{
		First: []func(){
			func() { v.a.compute(&w[0], a, dampA) },
			func() { v.g.compute(&w[1], g, dampG) },
		},
		result: func() (Inverse[T], error) {
			b.work.put(w)
			if release != nil {
				release()
			}
			for i, f := range []*factorInverse[T]{&v.a, &v.g} {
				if err := f.failure(0, "Cholesky factorisation of "+"AG"[i:i+1], f.n); err != nil {
					v.Release()
					return nil, err
				}
			}
			return v, nil
		},
	}
}

// KroneckerInverse is (F + damping)^-1 of one layer: (A + pi gamma I)^-1 (x) (G + gamma/pi I)^-1
// (Martens & Grosse 2015, section 4.2). It is applied in the model's dtype. It is computed in that
// dtype where that is safe, and otherwise in float64.
type KroneckerInverse[T Float] struct {
	owner   *kroneckers[T] // holds the scratch for Apply
	outByIn bool
	a, g    factorInverse[T]
}

func (v *KroneckerInverse[T]) Raised() int { return count(v.a.raised, v.g.raised) }

func (v *KroneckerInverse[T]) State(to Visitor[T]) {
	v.a.state(to, "A^-1")
	v.g.state(to, "G^-1")
}

func (v *KroneckerInverse[T]) Release() { v.owner.inverses.put(v) }

// Apply computes U = A^-1 V G^-1 for V of size abar x out. If OutByIn, V is out x abar and U = G^-1
// V A^-1.
func (v *KroneckerInverse[T]) Apply(u, grad [][]T) {
	v.owner.tmp = linalg.Resized(v.owner.tmp, len(grad[0]))
	v.apply(u[0], grad[0], v.owner.tmp)
}

// ApplyLowRank does the work of Apply for a gradient in low-rank form.
func (v *KroneckerInverse[T]) ApplyLowRank(u []T, low *LowRank[T]) { low.apply(u, v.a.data, v.g.data) }

func (v *KroneckerInverse[T]) apply(u, grad, tmp []T) {
	left, right := &v.a, &v.g
	if v.outByIn {
		left, right = right, left
	}
	l, r := left.data, right.data
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
		// l and r are symmetric, so U = L (R V^T)^T. This is two products with the second operand
		// transposed, the form that gonum's GEMM computes fastest.
		linalg.Gemm(false, true, cols, rows, cols, 1, r, grad, 0, tmp)
		linalg.Gemm(false, true, rows, cols, rows, 1, l, tmp, 0, u)
	}
}

// applyToRows computes U = diag(l) V R. It skips rows of V that are zero, such as those of words
// that do not occur.
func (v *KroneckerInverse[T]) applyToRows(u, grad, tmp, l, r []T) {
	clear(u)
	cols := len(grad) / len(l)
	b := v.owner
	b.rows = b.rows[:0]
	for i := range l {
		if row := grad[i*cols : (i+1)*cols]; !allZero(row) {
			copy(tmp[len(b.rows)*cols:], row)
			b.rows = append(b.rows, i)
		}
	}
	n := len(b.rows)
	if n == 0 {
		return
	}
	products := u[:n*cols]
	linalg.Gemm(false, true, n, cols, cols, 1, tmp, r, 0, products)
	copy(tmp, products)
	clear(products)
	for k, i := range b.rows {
		row := u[i*cols : (i+1)*cols]
		copy(row, tmp[k*cols:])
		linalg.Scale(l[i], row)
	}
}

func allZero[T Float](x []T) bool {
	for _, v := range x {
		if v != 0 {
			return false
		}
	}
	return true
}

// scaleRows multiplies row i of m by d[i].
func scaleRows[T Float](m, d []T) {
	cols := len(m) / len(d)
	for i, s := range d {
		linalg.Scale(s, m[i*cols:(i+1)*cols])
	}
}

// scaleColumns multiplies column j of m by d[j].
func scaleColumns[T Float](m, d []T) {
	for at := 0; at < len(m); at += len(d) {
		for j, s := range d {
			m[at+j] *= s
		}
	}
}
