package curvature

import (
	"errors"
	"fmt"
)

// Errors that an Error wraps.
var (
	ErrNotFinite = errors.New("not finite")
	ErrNotPosDef = errors.New("not positive definite")
)

// opSquares is the operation named in the error of a parameter outside layers whose averages
// overflow.
const opSquares = "averages of its squared sampled gradients"

// An Error is a failure in one layer of a block.
type Error struct {
	Layer   int     // index in the block, from 0
	Op      string  // the operation that failed, e.g. "Cholesky factorisation of A"
	Next    bool    // the operation involves the next layer of the chain too, e.g. "cross moments"
	Dim     int     // size of the factor, or 0
	Damping float64 // last value added to the factor's diagonal, or 0
	Err     error
}

func (e *Error) Error() string {
	return fmt.Sprintf("curvature: layer %d: %s: %v", e.Layer, e.Op, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }
