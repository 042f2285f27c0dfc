package curvature

// Kronecker is the block A (x) G of a single layer. Its moments are A and G.
type Kronecker[T Float] struct {
	layer[T]
	products kroneckers[T]
}

var _ Block[float64] = (*Kronecker[float64])(nil)

// NewKronecker makes the block of a layer.
func NewKronecker[T Float](s Shape) *Kronecker[T] {
	b := &Kronecker[T]{}
	b.init(s)
	b.moments.ready()
	b.products.ready(s)
	return b
}

func (b *Kronecker[T]) Invert(avg *Averages[T], d Damping) *Inversion[T] {
	a, g := avg.Moments[0], avg.Moments[1]
	dampA, dampG := b.factors.dampings(a, g, d)
	return b.products.invert(a, g, dampA, dampG, nil)
}

func (b *Kronecker[T]) NewInverse() Inverse[T] { return b.products.inverses.get() }

// LowRankSavings returns the number of multiplications that the low-rank form of a gradient saves
// and the number of positions R, if the run observed last was the whole batch. The saving is 0 if a
// factor is diagonal, or if A was not computed from Abar itself. It does not detect rows that were
// reduced over positions: the caller must exclude those.
func (b *Kronecker[T]) LowRankSavings() (saved, positions int) {
	f := b.factors
	if len(f.at) != f.a.n*f.rows {
		return 0, f.rows
	}
	return b.LowRankGain(f.rows), f.rows
}

// LowRankGain returns LowRankSavings for a number of positions whose A is computed from Abar.
func (b *Kronecker[T]) LowRankGain(positions int) int {
	f, n, m := b.factors, b.factors.a.n, b.factors.g.n
	if f.shape.DiagonalA || f.shape.DiagonalG {
		return 0
	}
	return n*m*(n+m) - positions*(n*n+m*m+n*m)
}

// LowRank makes v the low-rank form of a gradient, from the inputs observed last and the errors E.
// The form is valid until the next Observe.
func (b *Kronecker[T]) LowRank(v *LowRank[T], errors []T) {
	v.shape, v.inputs, v.errors = b.factors.shape, b.factors.at, errors
}
