package program

import (
	"fmt"

	"gorgonia.org/tensor"
)

// findCases finds the axis along which the cases lie in every node: from the outputs, whose first
// axis it is, back to the inputs. It returns the number of cases, and why the program can't be run
// on a part of the batch, if it can't.
//
// vectors says that an output with one axis holds one number for each case.
func findCases(nodes, outputs []*Node, vectors bool) (cases int, whole string) {
	cases, whole = countCases(outputs, vectors)
	if whole == "" {
		whole = findAxes(nodes, outputs, cases)
	}
	if whole != "" {
		for _, n := range nodes {
			n.CaseAxis = -1
		}
	}
	return cases, whole
}

// countCases is the number of rows of the outputs, which should have the same, and more than one.
func countCases(outputs []*Node, vectors bool) (cases int, whole string) {
	for i, o := range outputs {
		rows := 1
		if len(o.Shape) > 1 || len(o.Shape) == 1 && vectors {
			rows = o.Shape[0]
		}
		if i > 0 && rows != cases {
			return cases, fmt.Sprintf("outputs %q and %q have %d and %d rows", outputs[0].Name(), o.Name(), cases, rows)
		}
		cases = rows
	}
	if cases <= 1 {
		return cases, "the batch holds one case"
	}
	return cases, ""
}

// findAxes finds the case axis of every node from those of its users. It stops at a node that does
// not keep the cases apart, or that its users want along different axes, or both with cases and
// without, and returns what is wrong.
func findAxes(nodes, outputs []*Node, cases int) (whole string) {
	wanted := make([]demand, len(nodes))
	for _, o := range outputs {
		if !wanted[o.index].merge(0) {
			return fmt.Sprintf("output %q is used without its cases", o.Name())
		}
	}
	for i := len(nodes) - 1; i >= 0; i-- {
		n := nodes[i]
		n.CaseAxis = -1
		if wanted[i].set {
			n.CaseAxis = wanted[i].axis
		}
		axes, err := operandAxes(n, cases)
		if err != nil {
			return fmt.Sprintf("%v (%q)%v", n.Op, n.Name(), err)
		}
		for k, kid := range n.Kids {
			if _, isSize := n.Op.(SizeOf); isSize {
				continue // looks at the shape only
			}
			if w := &wanted[kid.index]; !w.merge(axes[k]) {
				const what = "%q mixes cases: it is used along axis %d and along %d of %v (-1: all cases at once)"
				return fmt.Sprintf(what, kid.Name(), w.axis, axes[k], kid.Op)
			}
		}
	}
	return ""
}

// operandAxes finds the case axis of each operand of n from n's own.
func operandAxes(n *Node, cases int) ([]int, error) {
	axes := make([]int, len(n.Kids))
	for k := range axes {
		axes[k] = -1
	}
	if n.CaseAxis < 0 {
		return axes, nil
	}
	if n.Shape[n.CaseAxis]%cases != 0 {
		return nil, fmt.Errorf(" of shape %v does not hold %d cases along axis %d", n.Shape, cases, n.CaseAxis)
	}
	if n.IsLeaf() {
		return axes, nil
	}
	if err := caseAxes(n, n.CaseAxis, cases, axes); err != nil {
		return nil, fmt.Errorf(": %w", err)
	}
	return axes, nil
}

// demand is what the users of a node agree on so far: the axis along which they want its cases, or
// -1 if they want all cases at once.
type demand struct {
	set  bool
	axis int
}

// merge adds what one more user wants. It reports false if that is something else.
func (d *demand) merge(axis int) bool {
	if d.set {
		return d.axis == axis
	}
	*d = demand{true, axis}
	return true
}

// caseAxes writes the case axis of each operand of n that has one to kids, given that of n.
func caseAxes(n *Node, axis, cases int, kids []int) error {
	switch op := n.Op.(type) {
	case Random: // has no operands
	case BatchNorm, GroupNorm, Im2Col, MaxPool, AvgPool, GlobalAvgPool, Upsample:
		if axis != 0 {
			return fmt.Errorf("wants the cases along axis 0, not %d", axis)
		}
		kids[0] = 0
	case Unary, SoftMax, Sparsemax, Dropout:
		if normalised, ok := normalisedAxis(op); ok && normalised == axis {
			return fmt.Errorf("normalises over the cases")
		}
		kids[0] = axis
	case Binary:
		for i, k := range n.Kids {
			if len(k.Shape) == len(n.Shape) && k.Shape[axis] == n.Shape[axis] {
				kids[i] = axis
			}
		}
	case MatMul:
		if axis == 0 {
			kids[0] = flip(0, op.TransA)
		} else {
			kids[1] = flip(1, op.TransB)
		}
	case BatchedMatMul:
		nd := len(n.Shape)
		switch axis {
		case nd - 2:
			kids[0] = nd - 2 + flip(0, op.TransA)
		case nd - 1:
			kids[1] = nd - 2 + flip(1, op.TransB)
		default:
			kids[0], kids[1] = axis, axis
		}
	case MatVec:
		kids[0] = flip(0, op.TransA)
	case OuterProd:
		kids[axis] = 0
	case Tensordot:
		a, b := freeAxes(op.A, len(n.Kids[0].Shape)), freeAxes(op.B, len(n.Kids[1].Shape))
		if axis < len(a) {
			kids[0] = a[axis]
		} else {
			kids[1] = b[axis-len(a)]
		}
	case Reshape:
		return reshapeCases(n, axis, cases, kids)
	case Transpose:
		kids[0] = op.Perm[axis]
	case Repeat:
		if op.Axis != axis {
			kids[0] = axis
		} else if k := n.Kids[0].Shape; len(k) > axis && k[axis] != 1 {
			return fmt.Errorf("repeats along the cases")
		}
	case Sum:
		kids[0] = beforeReduction(op.Along, axis, n)
	case Max:
		kids[0] = beforeReduction(op.Along, axis, n)
	case Slice:
		if len(n.Kids[0].Shape) > len(n.Shape) && axis >= op.Axis {
			axis++ // the sliced axis is gone
		}
		if axis == op.Axis && !takesAll(op.Slice(), n.Kids[0].Shape[axis]) {
			return fmt.Errorf("slices along the cases")
		}
		kids[0] = axis
	case Concat:
		if axis == op.Axis {
			return fmt.Errorf("joins along the cases")
		}
		for i := range kids {
			kids[i] = axis
		}
	case ByIndices:
		if axis == op.Axis {
			kids[1] = 0
		} else {
			kids[0] = axis
		}
	default:
		return fmt.Errorf("no rule says how it treats the cases")
	}
	return nil
}

// takesAll reports whether a slice of an axis of length n leaves nothing out.
func takesAll(s tensor.Slice, n int) bool {
	return s == nil || s.Start() == 0 && s.End() == n && s.Step() <= 1
}

// normalisedAxis is the axis that an op mixes, if it does.
func normalisedAxis(op Op) (int, bool) {
	switch op := op.(type) {
	case SoftMax:
		return op.Axis, true
	case Sparsemax:
		return op.Axis, true
	}
	return 0, false
}

// flip is the axis of a matrix that is axis of its transpose, if it is transposed.
func flip(axis int, trans bool) int {
	if trans {
		return 1 - axis
	}
	return axis
}

// reshapeCases finds the case axis of a reshaped operand: the one with as many elements before it,
// if it holds whole cases.
func reshapeCases(n *Node, axis, cases int, kids []int) error {
	from := n.Kids[0].Shape
	before := size(n.Shape[:axis])
	for i, b := 0, 1; i < len(from); i++ {
		if b == before && from[i]%cases == 0 {
			kids[0] = i
			return nil
		}
		b *= from[i]
	}
	return fmt.Errorf("takes the cases apart: shape %v from %v", n.Shape, from)
}

// beforeReduction is the operand's axis that has become axis of the result.
func beforeReduction(along []int, axis int, n *Node) int {
	from := len(n.Kids[0].Shape)
	if len(n.Shape) == from {
		return axis // reduced axes kept with length 1
	}
	reduced := make([]bool, from)
	for _, a := range along {
		reduced[a] = true
	}
	for i := range from {
		if reduced[i] {
			continue
		}
		if axis == 0 {
			return i
		}
		axis--
	}
	return -1
}

// pickCases copies the listed cases of src to dst. src is laid out as n's whole value.
func pickCases[E any](dst, src []E, n *Node, cases int, rows []int) {
	outer := size(n.Shape[:n.CaseAxis])
	all := len(src) / max(outer, 1) // elements of all cases within one index of the axes before
	one := all / cases
	for o := range outer {
		for i, row := range rows {
			copy(dst[(o*len(rows)+i)*one:][:one], src[o*all+row*one:][:one])
		}
	}
}
