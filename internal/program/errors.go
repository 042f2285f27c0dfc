package program

import (
	"errors"
	"fmt"
)

// An OpError tells which op of which node could not be run or differentiated, and why.
type OpError struct {
	Op   string // e.g. "Sparsemax"
	Node string // name of the user's node
	// What was being done: "forward", "reverse", "tangent", "read", "bind" or "differentiation".
	What string
	Err  error
}

func (e *OpError) Error() string {
	return fmt.Sprintf("program: %s of %s (node %q): %v", e.What, e.Op, e.Node, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }

// ErrNotDifferentiable is the cause of the errors about ops that have no derivative.
var ErrNotDifferentiable = errors.New("not differentiable")
