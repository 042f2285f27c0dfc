package layers

import (
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// isAfterNormalisation reports whether a parameter comes behind a normalisation.
// It has to have one element for each channel.
func isAfterNormalisation(shape []int, uses []program.Use) bool {
	if longAxes(shape) != 1 {
		return false
	}
	for _, u := range uses {
		other := u.Node.Kids[1-u.Operand]
		switch {
		case isBinary(u.Node, "⊙") && isNormalised(other):
		case isBinary(u.Node, "+") && isScaled(other): // a shift by itself
		default:
			return false
		}
	}
	return true
}

// isScaled reports whether a node is the product of something normalised with an input.
func isScaled(n *program.Node) bool {
	n = beforeMoves(n)
	if !isBinary(n, "⊙") {
		return false
	}
	for i, k := range n.Kids {
		if beforeMoves(k).IsLeaf() && isNormalised(n.Kids[1-i]) {
			return true
		}
	}
	return false
}

// isNormalised reports whether a node has been normalised: by Gorgonia's BatchNorm or GroupNorm,
// or by a division by something computed.
func isNormalised(n *program.Node) bool {
	n = beforeMoves(n)
	switch op := n.Op.(type) {
	case program.BatchNorm, program.GroupNorm:
		return true
	case program.Binary:
		switch op.Kind {
		case "÷":
			return !beforeMoves(n.Kids[1]).IsLeaf()
		case "⊙":
			return isInverse(n.Kids[0]) || isInverse(n.Kids[1])
		}
	}
	return false
}

// isInverse reports whether a node is 1/x or 1/sqrt(x).
func isInverse(n *program.Node) bool {
	op, ok := beforeMoves(n).Op.(program.Unary)
	return ok && (op.Kind == "inv" || op.Kind == "invSqrt")
}

// beforeMoves is the node whose elements n holds in other places.
func beforeMoves(n *program.Node) *program.Node {
	for {
		switch n.Op.(type) {
		case program.Reshape, program.Transpose, program.Repeat:
			n = n.Kids[0]
		default:
			return n
		}
	}
}
