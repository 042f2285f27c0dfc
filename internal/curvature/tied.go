package curvature

import "strconv"

// Tied is the block of a weight that is used both as W and as W^T. Each use has Kronecker factors
// of its own. The moments are A_1, G_1, A_2, G_2. The sum
//
//	F = A_1 (x) G_1 + G_2 (x) A_2
//
// is approximated by one Kronecker product, L (x) R / s with
//
//	L = tr(G_1) A_1 + tr(A_2) G_2,   R = tr(A_1) G_1 + tr(G_2) A_2,   s = tr(F).
//
// L (x) R / s has the same partial traces as F.
//
// Observe takes the rows of the use as W and then the rows of the use as W^T. For the use as W^T, A
// has Out columns and G has In columns, and there is no bias.
type Tied[T Float] struct {
	moments[T]
	ways     [2]*factors[T]
	products kroneckers[T]
	sums     pool[tiedSum[T]]
}

// tiedSum holds L and R. The divisor s is split between them.
type tiedSum[T Float] struct{ l, r []T }

var _ Block[float64] = (*Tied[float64])(nil)

// NewTied makes the block of a layer with a tied weight.
func NewTied[T Float](s Shape) *Tied[T] {
	b := &Tied[T]{}
	turned := Shape{In: s.Out, Out: s.In, DiagonalA: s.DiagonalG, DiagonalG: s.DiagonalA}
	for i, s := range []Shape{s, turned} {
		b.ways[i] = newFactors(&b.moments, s, 0, strconv.Itoa(i+1))
	}
	b.moments.ready()
	b.products.ready(s)
	b.sums.make = func() *tiedSum[T] {
		return &tiedSum[T]{make([]T, b.ways[0].a.size()), make([]T, b.ways[0].g.size())}
	}
	return b
}

func (b *Tied[T]) Observe(rows []Rows[T]) error {
	for i, f := range b.ways {
		if err := f.observe(rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func (b *Tied[T]) Trace(avg *Averages[T]) float64 {
	m := avg.Moments
	return b.ways[0].trace(m[0], m[1]) + b.ways[1].trace(m[2], m[3])
}

func (b *Tied[T]) Immediate() bool { return false }

func (b *Tied[T]) NewInverse() Inverse[T] { return b.products.inverses.get() }

func (b *Tied[T]) Invert(avg *Averages[T], d Damping) *Inversion[T] {
	sum := b.sums.get()
	b.sum(sum, avg)
	dampA, dampG := b.ways[0].dampings(sum.l, sum.r, d)
	return b.products.invert(sum.l, sum.r, dampA, dampG, func() { b.sums.put(sum) })
}

// sum computes L and R, the factors of the Kronecker product that approximates F. The split of the
// scale between them does not affect the inverse, because factored Tikhonov damping balances their
// traces. Here to.l is the weighted mean of A_1 and G_2 with the weights tr(G_1) and tr(A_2). to.r
// gets the rest of the scale.
func (b *Tied[T]) sum(to *tiedSum[T], avg *Averages[T]) {
	first, second := b.ways[0], b.ways[1]
	a1, g1, a2, g2 := avg.Moments[0], avg.Moments[1], avg.Moments[2], avg.Moments[3]
	trA1, trG1, trA2, trG2 := first.a.trace(a1), first.g.trace(g1), second.a.trace(a2), second.g.trace(g2)
	trace := trA1*trG1 + trA2*trG2
	clear(to.l)
	clear(to.r)
	if trace == 0 {
		return
	}
	w := trG1 + trA2
	first.a.addLeading(to.l, trG1/w, a1, first.a.n)
	first.a.addLeading(to.l, trA2/w, g2, second.g.n) // the transposed use has no homogeneous coordinate
	first.g.addLeading(to.r, trA1*w/trace, g1, first.g.n)
	first.g.addLeading(to.r, trG2*w/trace, a2, second.a.n)
}
