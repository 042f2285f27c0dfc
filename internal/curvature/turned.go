package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// turned adapts V and U for an inverse that works on their transposes.
type turned[T Float] struct {
	on         bool // V and U are transposed
	rows, cols int  // of V before it is transposed
	v, u       []T  // cols x rows
}

// enter returns the V to compute with and the memory for the U to compute. If on, they are V^T and
// U^T. Otherwise they are v and u.
func (t *turned[T]) enter(u, v []T) (turnedU, turnedV []T) {
	if !t.on {
		return u, v
	}
	t.u, t.v = linalg.Resized(t.u, len(u)), linalg.Resized(t.v, len(v))
	linalg.Transpose(t.v, v, t.rows, t.cols)
	return t.u, t.v
}

// leave writes the computed U to u.
func (t *turned[T]) leave(u []T) {
	if t.on {
		linalg.Transpose(u, t.u, t.cols, t.rows)
	}
}
