package program

import (
	"errors"
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
)

// opaqueRule runs an op by its own Do and differentiates it by its own SymDiff. The gradients that
// SymDiff builds belong to a small graph of the rule's. They are run as programs themselves.
type opaqueRule[T Float] struct {
	op  gorgonia.Op
	in  []gorgonia.Value // copies, since an op may write to what it is given: some do so by mistake
	sym *symbolic
	vjp []*gradient[T] // by operand; nil if not built yet
}

// gradient is the program of the gradient of one operand.
type gradient[T Float] struct {
	run  *Run[T]
	out  *Node
	path Path // what depends on the gradient of the result
}

// leaf is the copy of an input of the private graph, or nil if the gradient does not depend on it.
func (d *gradient[T]) leaf(n *gorgonia.Node) *Node {
	if d == nil {
		return nil
	}
	return d.run.p.Node(n)
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
		return store(c, v)
	})
}

// store copies a value that an op has returned to the result of the call.
func store[T Float](c *call[T], v gorgonia.Value) error {
	if v == nil {
		return errors.New("the op's Do returned no value")
	}
	if !c.holdsFloats() {
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
		a := c.in[k]
		a.Data, a.Ints = slices.Clone(a.Data), slices.Clone(a.Ints)
		v, err := wrap(a, kid.Dtype)
		if err != nil {
			return fmt.Errorf("operand %d: %w", k, err)
		}
		r.in = append(r.in, v)
	}
	return nil
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

// tangent uses that the gradient J^T g of an operand is linear in g. So J t is the gradient of
// <t, J^T g> with respect to g, at any g.
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
		g := d.leaf(r.sym.grad)
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

// prepare runs the program of operand k's gradient for the gradient grad of the result. It returns
// nil if the op declares that there is none.
func (r *opaqueRule[T]) prepare(c *call[T], k int, grad []T) (*gradient[T], error) {
	d, err := r.gradient(c, k)
	if err != nil || d == nil {
		return nil, err
	}
	if err := r.values(c); err != nil {
		return nil, err
	}
	for i, kid := range c.node.Kids {
		leaf := d.leaf(r.sym.in[i])
		switch {
		case leaf == nil:
		case kid.Dtype == c.batch.dtype:
			err = d.run.Bind(leaf, c.in[i].Data)
		default:
			err = gorgonia.Let(r.sym.in[i], r.in[i])
		}
		if err != nil {
			return nil, err
		}
	}
	if leaf := d.leaf(r.sym.out); leaf != nil {
		err = d.run.Bind(leaf, c.out.Data)
	}
	if leaf := d.leaf(r.sym.grad); leaf != nil && err == nil {
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
		return nil, fmt.Errorf("%w: its SymDiff gives operand %d of shape %v a gradient of shape %v",
			ErrNotDifferentiable, k, c.node.Kids[k].Shape, n.Shape())
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
