package curvature

// Identity is the block of a parameter without curvature. It leaves the gradient unchanged and has
// no moments.
type Identity[T Float] struct{ moments[T] }

var _ Block[float64] = (*Identity[float64])(nil)

// NewIdentity makes the block.
func NewIdentity[T Float]() *Identity[T] {
	b := &Identity[T]{}
	b.ready()
	return b
}

func (b *Identity[T]) Observe([]Rows[T]) error    { return nil }
func (b *Identity[T]) Trace(*Averages[T]) float64 { return 0 }
func (b *Identity[T]) Immediate() bool            { return true }
func (b *Identity[T]) NewInverse() Inverse[T]     { return nil }

func (b *Identity[T]) Invert(*Averages[T], Damping) *Inversion[T] {
	return done[T](identity[T]{})
}

type identity[T Float] struct{}

func (identity[T]) Apply(u, v [][]T) {
	for i := range v {
		copy(u[i], v[i])
	}
}
func (identity[T]) Raised() int      { return 0 }
func (identity[T]) State(Visitor[T]) {}
func (identity[T]) Release()         {}
