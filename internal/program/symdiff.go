package program

import (
	"fmt"

	"gorgonia.org/gorgonia"
)

// symbolic is what SymDiff made of stand-ins for a node and its operands.
type symbolic struct {
	in        []*gorgonia.Node
	out, grad *gorgonia.Node
	diffs     gorgonia.Nodes // gradient of each operand, nil if the op declares that it has none
}

// differentiate calls the op's SymDiff on stand-ins for n and its operands, in a graph of their
// own.
func differentiate(op gorgonia.Op, n *Node) (*symbolic, error) {
	wrt, err := differentiable(op, len(n.Kids))
	if err != nil {
		return nil, err
	}
	s := &symbolic{}
	err = guard(func() error {
		g := gorgonia.NewGraph()
		input := func(name string, like *Node) *gorgonia.Node {
			return gorgonia.NewUniqueNode(gorgonia.WithType(like.Src.Type()), gorgonia.WithShape(like.Shape...),
				gorgonia.WithName(name), gorgonia.In(g))
		}
		for i, kid := range n.Kids {
			s.in = append(s.in, input(fmt.Sprintf("operand %d", i), kid))
		}
		s.out, s.grad = input("result", n), input("gradient", n)
		diffs, err := op.(gorgonia.SDOp).SymDiff(s.in, s.out, s.grad)
		if err != nil {
			return err
		}
		s.diffs = make(gorgonia.Nodes, len(n.Kids))
		for k, d := range diffs[:min(len(diffs), len(n.Kids))] {
			if d != nil && d.Graph() == nil { // a constant that is part of no expression
				d = g.AddNode(d)
			}
			if wrt[k] {
				s.diffs[k] = d
			}
		}
		for k, d := range s.diffs {
			if wrt[k] && d == nil {
				return fmt.Errorf("it gives no gradient of operand %d, but DiffWRT says that there is one", k)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: SymDiff failed: %w", ErrNotDifferentiable, err)
	}
	return s, nil
}

// differentiable tells which of its operands an op declares to be differentiable in.
func differentiable(op gorgonia.Op, operands int) (wrt []bool, err error) {
	sd, ok := op.(gorgonia.SDOp)
	if !ok {
		return nil, fmt.Errorf("%w: op type %T has no rule here and no SymDiff (gorgonia.SDOp) of its own",
			ErrNotDifferentiable, op)
	}
	err = guard(func() error { wrt = sd.DiffWRT(operands); return nil })
	if err == nil && len(wrt) != operands {
		err = fmt.Errorf("it lists %d of %d operands", len(wrt), operands)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: DiffWRT of op type %T failed: %v", ErrNotDifferentiable, op, err)
	}
	return wrt, nil
}

// CheckDifferentiable reports the first node on the path whose op can't be differentiated along it,
// as an [*OpError] that wraps [ErrNotDifferentiable]. That is an op without a rule here that has no
// SymDiff, or that declares no derivative with respect to any of its operands on the path.
//
// Ops whose derivative is zero, such as comparisons, pass. An op with a derivative with respect to
// only some of these operands passes as well.
func (p *Program) CheckDifferentiable(path Path) error {
	for _, n := range p.Nodes {
		op, opaque := n.Op.(Opaque)
		if !opaque || !path.Has(n) || n.Dtype != p.dtype {
			continue
		}
		var on, smooth bool
		wrt, err := differentiable(op.Op, len(n.Kids))
		for k, kid := range n.Kids {
			if path.Has(kid) && kid.Dtype == p.dtype {
				on = true
				smooth = smooth || err == nil && wrt[k]
			}
		}
		if on && err == nil && !smooth {
			const what = "DiffWRT declares no derivative with respect to the operands that depend on the parameters"
			err = fmt.Errorf("%w: %s", ErrNotDifferentiable, what)
		}
		if on && err != nil {
			return &OpError{op.String(), n.Name(), "differentiation", err}
		}
	}
	return nil
}

// guard turns a panic of f into an error.
func guard(f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			err = fmt.Errorf("panic: %w", p)
		default:
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}
