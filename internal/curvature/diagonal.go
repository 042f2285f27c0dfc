package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// Diagonal is the diagonal of the Fisher matrix for a parameter outside layers: E[(dL/dtheta_i)^2].
//
// The sampled gradients of different cases are independent and have mean zero. So the square of
// their sum and the sum of their squares have the same expectation (Martens & Grosse 2015, lemma
// 4). One backward sweep over all cases is therefore enough. The moment is the mean of the squares,
// n x 1. Rows are gradients of n elements. A parameter with separate elements for each case has
// several rows.
type Diagonal[T Float] struct {
	moments[T]
	squares *moment[T]
	size    int // elements of the parameter: a multiple of n
}

var _ Block[float64] = (*Diagonal[float64])(nil)

// NewDiagonal makes the block of a parameter with size elements. The diagonal has n entries, which
// repeat along the parameter.
func NewDiagonal[T Float](n, size int) *Diagonal[T] {
	b := &Diagonal[T]{size: size}
	b.squares = b.add("squares", newCross[T](n, 1), Error{Op: opSquares})
	b.ready()
	return b
}

// Observe sums the squares of the rows of G, in float64.
func (b *Diagonal[T]) Observe(rows []Rows[T]) error {
	grad, n := rows[0].G, b.squares.n
	if !linalg.Finite(grad) {
		return &Error{Op: "sampled gradient", Err: ErrNotFinite}
	}
	sums := b.squares.run
	if !rows[0].Again {
		sums = b.squares.sums(rows[0].Cases)
		clear(sums)
	}
	for i := range sums {
		var s float64
		for j := i; j < len(grad); j += n {
			s += float64(grad[j]) * float64(grad[j])
		}
		sums[i] += T(s)
	}
	if !linalg.Finite(sums) {
		return &Error{Op: "squared sampled gradients", Err: ErrNotFinite}
	}
	return nil
}

// Entries returns the number of entries of the diagonal.
func (b *Diagonal[T]) Entries() int { return b.squares.n }

func (b *Diagonal[T]) Trace(avg *Averages[T]) float64 {
	return diagonalSum(avg.Moments[0], b.squares.n, 1) * float64(b.size/b.squares.n)
}

func (b *Diagonal[T]) Immediate() bool { return true }

func (b *Diagonal[T]) Invert(avg *Averages[T], d Damping) *Inversion[T] {
	return done[T](diagonalInverse[T]{avg.Moments[0], d.Whole()})
}

// diagonalInverse divides by the diagonal.
type diagonalInverse[T Float] struct {
	squares []T
	damping float64
}

func (v diagonalInverse[T]) Apply(u, grad [][]T) {
	n := len(v.squares)
	for i, g := range grad[0] {
		u[0][i] = T(float64(g) / (float64(v.squares[i%n]) + v.damping))
	}
}

func (b *Diagonal[T]) NewInverse() Inverse[T] { return nil }

func (v diagonalInverse[T]) Raised() int      { return 0 }
func (v diagonalInverse[T]) State(Visitor[T]) {}
func (v diagonalInverse[T]) Release()         {}
