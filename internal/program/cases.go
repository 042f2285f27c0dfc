package program

import (
	"fmt"

	"gorgonia.org/tensor"
)

// findCases finds the axis along which the cases lie in every node, from the outputs, whose first axis it is, back to the
// inputs. A node that its users want both with and without cases, or along different axes, can't be run on a part of the
// batch, and neither can a program that has one.
func (p *Program) findCases() {
	p.Cases, p.Whole = 1, ""
	for i, o := range p.Outputs {
		rows := 1
		if len(o.Shape) > 1 || len(o.Shape) == 1 && p.VectorCases {
			rows = o.Shape[0]
		}
		if i > 0 && rows != p.Cases {
			p.keepWhole("outputs %q and %q have %d and %d rows", p.Outputs[0].Name(), o.Name(), p.Cases, rows)
			return
		}
		p.Cases = rows
	}
	if p.Cases <= 1 {
		p.keepWhole("the batch holds one case")
		return
	}
	wanted := make([]demand, len(p.Nodes))
	for _, o := range p.Outputs {
		if !wanted[o.index].merge(0) {
			p.keepWhole("output %q is used without its cases", o.Name())
			return
		}
	}
	for i := len(p.Nodes) - 1; i >= 0; i-- {
		n := p.Nodes[i]
		axis := -1
		if wanted[i].set {
			axis = wanted[i].axis
		}
		n.CaseAxis = axis
		kids := make([]int, len(n.Kids))
		for k := range kids {
			kids[k] = -1
		}
		if axis >= 0 && n.Shape[axis]%p.Cases != 0 {
			p.keepWhole("%v (%q) of shape %v does not hold %d cases along axis %d", n.Op, n.Name(), n.Shape, p.Cases, axis)
			return
		}
		if axis >= 0 && !n.IsLeaf() {
			if err := caseAxes(n, axis, p.Cases, kids); err != nil {
				p.keepWhole("%v (%q): %v", n.Op, n.Name(), err)
				return
			}
		}
		for k, kid := range n.Kids {
			if _, isSize := n.Op.(SizeOf); isSize {
				continue // looks at the shape only
			}
			if !wanted[kid.index].merge(kids[k]) {
				p.keepWhole("%q mixes cases: it is used along axis %d and along %d of %v (-1: all cases at once)", kid.Name(), wanted[kid.index].axis, kids[k], kid.Op)
				return
			}
		}
	}
}

// SetVectorCases says whether an output that is a vector holds one number for each case (true) or the numbers of a single case
// (false, as New leaves it), and finds the cases anew.
func (p *Program) SetVectorCases(on bool) {
	p.VectorCases = on
	p.findCases()
}

func (p *Program) keepWhole(format string, args ...any) {
	p.Whole = fmt.Sprintf(format, args...)
	for _, n := range p.Nodes {
		n.CaseAxis = -1
	}
}

// demand is what the users of a node agree on so far.
type demand struct {
	set  bool
	axis int
}

func (d *demand) merge(axis int) bool {
	if d.set {
		return d.axis == axis
	}
	*d = demand{true, axis}
	return true
}

// caseAxes finds the case axis of each operand of n, given that of n. kids is filled with -1 before.
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

func normalisedAxis(op Op) (int, bool) {
	switch op := op.(type) {
	case SoftMax:
		return op.Axis, true
	case Sparsemax:
		return op.Axis, true
	}
	return 0, false
}

func flip(axis int, trans bool) int {
	if trans {
		return 1 - axis
	}
	return axis
}

// reshapeCases: the case axis goes where the same number of elements lies before it, as long as whole cases lie behind.
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
