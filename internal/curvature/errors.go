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

// opSquares is the operation in which the averages of parameters outside layers fail.
const opSquares = "averages of its squared sampled gradients"

// An Error is a failure in one layer of a block.
type Error struct {
	Layer   int     // of the block, from 0
	Op      string  // what was being done, e.g. "Cholesky factorisation of A"
	Next    bool    // what was being done concerns the next layer of the chain too, e.g. "cross moments"
	Dim     int     // size of the factor, or 0
	Damping float64 // that was added to the factor's diagonal last, or 0
	Err     error
}

func (e *Error) Error() string {
	return fmt.Sprintf("curvature: layer %d: %s: %v", e.Layer, e.Op, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }
