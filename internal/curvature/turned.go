package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// turned lets an inverse that is computed for V and U of one form be applied to the transposed.
type turned[T Float] struct {
	on         bool
	rows, cols int // of V as it comes
	v, u       []T // cols x rows
}

// enter returns V and U in the form that is computed with: if on, V^T, and where U^T is to go.
func (t *turned[T]) enter(u, v []T) (turnedU, turnedV []T) {
	if !t.on {
		return u, v
	}
	t.u, t.v = linalg.Resized(t.u, len(u)), linalg.Resized(t.v, len(v))
	linalg.Transpose(t.v, v, t.rows, t.cols)
	return t.u, t.v
}

// leave completes U.
func (t *turned[T]) leave(u []T) {
	if t.on {
		linalg.Transpose(u, t.u, t.cols, t.rows)
	}
}
