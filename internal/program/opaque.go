package program

import (
	"errors"
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// ErrNotDifferentiable is the cause of the errors about ops that have no derivative.
var ErrNotDifferentiable = errors.New("not differentiable")

// opaqueRule runs an op by its own Do and differentiates it by its own SymDiff. The gradients that SymDiff builds belong to a small
// graph of the rule's, and are run as programs themselves.
type opaqueRule[T Float] struct {
	op  gorgonia.Op
	in  []gorgonia.Value
	sym *symbolic
	vjp []*gradient[T] // by operand; nil if not built yet
}

// symbolic is what SymDiff made of stand-ins for a node and its operands.
type symbolic struct {
	in        []*gorgonia.Node
	out, grad *gorgonia.Node
	diffs     gorgonia.Nodes // gradient of each operand, nil if the op declares that it has none
}

// gradient is the program of the gradient of one operand.
type gradient[T Float] struct {
	run  *Run[T]
	out  *Node
	path Path // what depends on the gradient of the result
}

func (r *opaqueRule[T]) forward(c *call[T]) error {
	if err := r.values(c); err != nil {
		return err
	}
	return guard(func() error {
		v, err := r.op.Do(r.in...)
		if err != nil {
			return err
		}
		return c.store(v)
	})
}

// guard turns a panic of f into an error.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// store copies a value that an op has returned to the result of the call.
func (c *call[T]) store(v gorgonia.Value) error {
	if v == nil {
		return errors.New("the op's Do returned no value")
	}
	if c.node.Dtype != c.run.p.dtype {
		ints, err := integers(v, c.out.Shape, c.ints)
		c.ints, c.out.Ints = ints, ints
		return err
	}
	data, err := floats[T](v, c.out.Shape)
	copy(c.out.Data, data)
	return err
}

// values wraps the operands' data as a VM would pass them.
func (r *opaqueRule[T]) values(c *call[T]) error {
	r.in = r.in[:0]
	for k, kid := range c.node.Kids {
		v, err := wrap(c.in[k], kid.Dtype)
		if err != nil {
			return fmt.Errorf("operand %d: %w", k, err)
		}
		r.in = append(r.in, v)
	}
	return nil
}

// wrap makes a Gorgonia value of an array, without a copy if it holds floats.
func wrap[T Float](a Array[T], dt tensor.Dtype) (gorgonia.Value, error) {
	var backing any = a.Data
	if a.Ints != nil {
		switch dt {
		case tensor.Int:
			backing = a.Ints
		case tensor.Int64:
			backing = convertInts[int64](a.Ints)
		case tensor.Int32:
			backing = convertInts[int32](a.Ints)
		case tensor.Byte:
			backing = convertInts[byte](a.Ints)
		case tensor.Bool:
			bools := make([]bool, len(a.Ints))
			for i, v := range a.Ints {
				bools[i] = v != 0
			}
			backing = bools
		default:
			return nil, fmt.Errorf("values of dtype %v are not supported", dt)
		}
	}
	if len(a.Shape) > 0 {
		return tensor.New(tensor.WithShape(a.Shape...), tensor.WithBacking(backing)), nil
	}
	switch d := backing.(type) {
	case []float64:
		return gorgonia.NewF64(d[0]), nil
	case []float32:
		return gorgonia.NewF32(d[0]), nil
	case []int:
		return gorgonia.NewI(d[0]), nil
	case []int64:
		return gorgonia.NewI64(d[0]), nil
	case []int32:
		return gorgonia.NewI32(d[0]), nil
	case []byte:
		return gorgonia.NewU8(d[0]), nil
	default:
		return gorgonia.NewB(d.([]bool)[0]), nil
	}
}

func convertInts[E int64 | int32 | byte](src []int) []E {
	dst := make([]E, len(src))
	for i, v := range src {
		dst[i] = E(v)
	}
	return dst
}

func (r *opaqueRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	d, err := r.prepare(c, k, grad)
	if err != nil || d == nil {
		clear(dst)
		return err
	}
	copy(dst, d.run.Value(d.out).Data)
	return nil
}

// tangent uses that the gradient J^T g of an operand is linear in g: J t is the gradient of <t, J^T g> with respect to g, at any g.
func (r *opaqueRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	clear(dst)
	zero := c.buf(0, len(dst))
	for k, t := range tan {
		if t == nil {
			continue
		}
		d, err := r.prepare(c, k, zero)
		if err != nil {
			return err
		}
		g := d.leaf(r.sym, r.sym.grad)
		if g == nil {
			continue
		}
		if err := d.run.Reverse([]Seed[T]{{d.out, t}}, d.path); err != nil {
			return fmt.Errorf("gradient built by its SymDiff: %w", err)
		}
		for i, v := range d.run.Gradient(g) {
			dst[i] += v
		}
	}
	return nil
}

// leaf is the copy of an input of the private graph, or nil if the gradient does not depend on it.
func (d *gradient[T]) leaf(s *symbolic, n *gorgonia.Node) *Node {
	if d == nil {
		return nil
	}
	return d.run.p.Node(n)
}

// prepare runs the program of operand k's gradient for the gradient grad of the result. It returns nil if that gradient is zero.
func (r *opaqueRule[T]) prepare(c *call[T], k int, grad []T) (*gradient[T], error) {
	d, err := r.gradient(c, k)
	if err != nil || d == nil {
		return nil, err
	}
	if err := r.values(c); err != nil {
		return nil, err
	}
	for i, kid := range c.node.Kids {
		leaf := d.leaf(r.sym, r.sym.in[i])
		switch {
		case leaf == nil:
		case kid.Dtype == c.run.p.dtype:
			err = d.run.Bind(leaf, c.in[i].Data)
		default:
			err = gorgonia.Let(r.sym.in[i], r.in[i])
		}
		if err != nil {
			return nil, err
		}
	}
	if leaf := d.leaf(r.sym, r.sym.out); leaf != nil {
		err = d.run.Bind(leaf, c.out.Data)
	}
	if leaf := d.leaf(r.sym, r.sym.grad); leaf != nil && err == nil {
		err = d.run.Bind(leaf, grad)
	}
	if err == nil {
		err = d.run.Forward(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("gradient built by its SymDiff: %w", err)
	}
	return d, nil
}

// gradient is the program of operand k's gradient, or nil if the op declares that there is none.
func (r *opaqueRule[T]) gradient(c *call[T], k int) (*gradient[T], error) {
	if r.sym == nil {
		sym, err := differentiate(r.op, c.node)
		if err != nil {
			return nil, err
		}
		r.sym, r.vjp = sym, make([]*gradient[T], len(sym.in))
	}
	n := r.sym.diffs[k]
	if r.vjp[k] != nil || n == nil {
		return r.vjp[k], nil
	}
	if size(n.Shape()) != c.node.Kids[k].Size() {
		return nil, fmt.Errorf("%w: its SymDiff gives operand %d of shape %v a gradient of shape %v", ErrNotDifferentiable, k, c.node.Kids[k].Shape, n.Shape())
	}
	p, err := New([]*gorgonia.Node{n})
	if err != nil {
		return nil, err
	}
	run, err := NewRun[T](p, 0)
	if err != nil {
		return nil, err
	}
	d := &gradient[T]{run: run, out: p.Outputs[0]}
	if g := p.Node(r.sym.grad); g != nil {
		d.path = p.Path(g)
	}
	r.vjp[k] = d
	return d, nil
}

// differentiate calls the op's SymDiff on stand-ins for n and its operands, in a graph of their own.
func differentiate(op gorgonia.Op, n *Node) (*symbolic, error) {
	wrt, err := differentiable(op, len(n.Kids))
	if err != nil {
		return nil, err
	}
	s := &symbolic{}
	err = guard(func() error {
		g := gorgonia.NewGraph()
		input := func(name string, like *Node) *gorgonia.Node {
			return gorgonia.NewUniqueNode(gorgonia.WithType(like.Src.Type()), gorgonia.WithShape(like.Shape...), gorgonia.WithName(name), gorgonia.In(g))
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
		return nil, fmt.Errorf("%w: SymDiff failed: %v", ErrNotDifferentiable, err)
	}
	return s, nil
}

// differentiable tells which of its operands an op declares to be differentiable in.
func differentiable(op gorgonia.Op, operands int) (wrt []bool, err error) {
	sd, ok := op.(gorgonia.SDOp)
	if !ok {
		return nil, fmt.Errorf("%w: op type %T has no rule here and no SymDiff (gorgonia.SDOp) of its own", ErrNotDifferentiable, op)
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

// CheckDifferentiable reports the first node on the path whose op can't be differentiated along it, as an [*OpError] that wraps
// [ErrNotDifferentiable]: an op without a rule here that has no SymDiff, or that declares to have no derivative with respect to any
// of its operands on the path. Ops whose derivative is zero, such as comparisons, are in order, and so is an operand that an op
// declares to have no derivative with respect to if it has one with respect to another.
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
			err = fmt.Errorf("%w: DiffWRT declares no derivative with respect to the operands that depend on the parameters", ErrNotDifferentiable)
		}
		if on && err != nil {
			return &OpError{op.String(), n.Name(), "differentiation", err}
		}
	}
	return nil
}
