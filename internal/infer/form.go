package infer

import (
	"slices"

	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// summands are the operands of a node that it is a weighted sum of; none if it is no such. weighs
// tells of an operand whether it may be a weight.
func summands(n *program.Node, weighs func(*program.Node) bool) []*program.Node {
	switch op := n.Op.(type) {
	case program.Sum:
		return n.Kids
	case program.VecDot, program.MatMul:
		if n.Size() == 1 && slices.ContainsFunc(n.Kids, weighs) {
			return n.Kids
		}
	case program.Unary:
		if op.Kind == "neg" {
			return n.Kids
		}
	case program.Binary:
		switch {
		case op.Kind == "+" || op.Kind == "-", op.Kind == "⊙" && slices.ContainsFunc(n.Kids, weighs):
			return n.Kids
		case op.Kind == "÷" && weighs(n.Kids[1]):
			return n.Kids[:1]
		}
	}
	return movedFrom(n)
}

// movedFrom are the operands of a node whose elements it only moves, or picks from; none if it
// computes others.
func movedFrom(n *program.Node) []*program.Node {
	switch n.Op.(type) {
	case program.ByIndices:
		return n.Kids[:1]
	case program.Reshape, program.Repeat, program.Transpose, program.Slice, program.Concat, program.At:
		return n.Kids
	}
	return nil
}

// squared is d where n is the square of d, by whatever op, and else nil.
func squared(n *program.Node) *program.Node {
	switch op := n.Op.(type) {
	case program.Unary:
		if op.Kind == "square" {
			return n.Kids[0]
		}
	case program.VecDot:
		if same(n.Kids[0], n.Kids[1]) {
			return n.Kids[0]
		}
	case program.MatMul: // of a row and a column
		if a, b := beforeMoves(n.Kids[0]), beforeMoves(n.Kids[1]); n.Size() == 1 && same(a, b) {
			return a
		}
	case program.Binary:
		if op.Kind == "⊙" && same(n.Kids[0], n.Kids[1]) || op.Kind == "^" && isTwo(n.Kids[1]) {
			return n.Kids[0]
		}
	}
	return nil
}

// beforeMoves is what n transposes or reshapes.
func beforeMoves(n *program.Node) *program.Node {
	for {
		switch n.Op.(type) {
		case program.Reshape, program.Transpose:
			n = n.Kids[0]
		default:
			return n
		}
	}
}

// countsOnly reports whether a node is a number of elements, such as a mean is divided by.
func countsOnly(n *program.Node) bool {
	if _, ok := n.Op.(program.SizeOf); ok {
		return true
	}
	return len(n.Kids) > 0 && !slices.ContainsFunc(n.Kids, func(k *program.Node) bool { return !countsOnly(k) })
}

// same reports whether two nodes compute the same of the same operands.
func same(a, b *program.Node) bool {
	if a == b {
		return true
	}
	return len(a.Kids) > 0 && len(a.Kids) == len(b.Kids) && !program.Draws(a.Op) && a.Op.String() == b.Op.String() &&
		slices.Equal(a.Shape, b.Shape) && slices.EqualFunc(a.Kids, b.Kids, same)
}

// isTwo reports whether a node is the constant 2.
func isTwo(n *program.Node) bool {
	for len(movedFrom(n)) == 1 {
		n = n.Kids[0]
	}
	if n.Src.Op() == nil || !n.IsLeaf() || n.Src.Value() == nil {
		return false
	}
	switch v := n.Src.Value().Data().(type) {
	case float64:
		return v == 2
	case float32:
		return v == 2
	case []float64:
		return !slices.ContainsFunc(v, func(x float64) bool { return x != 2 })
	case []float32:
		return !slices.ContainsFunc(v, func(x float32) bool { return x != 2 })
	}
	return false
}

// unsigned is x where n is -x or its absolute value, and else n.
func unsigned(n *program.Node) *program.Node {
	for is(n, "neg") || is(n, "abs") {
		n = n.Kids[0]
	}
	return n
}

// beforeShift is z where n is z less the largest of its classes, and else n.
func beforeShift(n *program.Node) *program.Node {
	if isBinary(n, "-") {
		if top, ok := beforeShaping(n.Kids[1]).Op.(program.Max); ok && len(top.Along) > 0 &&
			beforeShaping(n.Kids[1]).Kids[0] == n.Kids[0] {
			return n.Kids[0]
		}
	}
	return n
}

// beforeShaping is what n reshapes or repeats.
func beforeShaping(n *program.Node) *program.Node {
	for {
		switch n.Op.(type) {
		case program.Reshape, program.Repeat:
			n = n.Kids[0]
		default:
			return n
		}
	}
}

// isLayer reports whether a node mixes features, as a layer does.
func isLayer(n *program.Node) bool {
	switch n.Op.(type) {
	case program.MatMul, program.MatVec, program.BatchedMatMul, program.Tensordot, program.OuterProd:
		return n.Dtype == tensor.Float32 || n.Dtype == tensor.Float64
	}
	return false
}

func is(n *program.Node, kind string) bool {
	op, ok := n.Op.(program.Unary)
	return ok && op.Kind == kind
}

func isBinary(n *program.Node, kind string) bool {
	op, ok := n.Op.(program.Binary)
	return ok && op.Kind == kind
}
