package curvature

// Kronecker is the block A (x) G of a layer by itself. Its moments are A and G.
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

// LowRankSavings is how many multiplications the low-rank form saves where what was observed last
// is the whole batch, and the number of its positions. It saves nothing where the factors are not
// those of Abar as it is, for which the caller has to answer where rows were reduced.
func (b *Kronecker[T]) LowRankSavings() (saved, positions int) {
	f, n, m := b.factors, b.factors.a.n, b.factors.g.n
	if f.shape.DiagonalA || f.shape.DiagonalG || len(f.at) != n*f.rows {
		return 0, f.rows
	}
	return n*m*(n+m) - f.rows*(n*n+m*m+n*m), f.rows
}

// LowRank makes v the form of a gradient with the inputs observed last and errors E. It lasts until
// the next Observe.
func (b *Kronecker[T]) LowRank(v *LowRank[T], errors []T) {
	v.shape, v.inputs, v.errors = b.factors.shape, b.factors.at, errors
}
