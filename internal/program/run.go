package program

import (
	"fmt"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// A Run executes a program and keeps its buffers from sweep to sweep. It must not be used
// concurrently.
type Run[T Float] struct {
	p      *Program
	calls  []call[T] // by node
	batch  batch     // of the calls: what the last Forward ran
	inputs *Inputs[T]
	adopts bool    // Adopt is running
	anew   bool    // see DrawAnew
	source *Run[T] // of the whole batch, whose values the next Forward may pick

	spare       spare[T]
	evaluates   bool // the last forward pass was Evaluate
	outputsOnly bool // the last Tangent was TangentOfOutputs

	grads   []buffer[T] // by node: gradient of the last Reverse
	tans    []buffer[T] // by node: tangent of the last Tangent
	bends   []buffer[T] // by node: change of the gradient of the last Bend
	scratch buffer[T]
	tanIn   [][]T
}

// NewRun prepares to run p. T must be the program's dtype. The seed decides what Dropout and random
// nodes draw.
func NewRun[T Float](p *Program, seed uint64) (*Run[T], error) {
	if want := dtypeOf[T](); want != p.dtype {
		return nil, fmt.Errorf("program: a program of %v can't be run in %v", p.dtype, want)
	}
	r := &Run[T]{
		p:     p,
		calls: make([]call[T], len(p.Nodes)),
		grads: make([]buffer[T], len(p.Nodes)),
		tans:  make([]buffer[T], len(p.Nodes)),
		batch: batch{dtype: p.dtype, all: p.Cases},
	}
	r.Reseed(seed)
	for i, n := range p.Nodes {
		r.calls[i] = call[T]{node: n, batch: &r.batch, rule: ruleFor[T](n.Op), in: make([]Array[T], len(n.Kids))}
	}
	return r, nil
}

// Program returns the program that it runs.
func (r *Run[T]) Program() *Program { return r.p }

// Reseed sets the seed of what Dropout and random nodes draw. With one seed every Forward draws the
// same, for the whole batch as for some of its cases, and in all programs that share the node.
func (r *Run[T]) Reseed(seed uint64) { r.batch.seed = seed }

// SetMode says how Dropout and BatchNorm run from the next Forward on.
func (r *Run[T]) SetMode(m Mode) { r.batch.mode = m }

// Cases is the number of cases that the last Forward ran.
func (r *Run[T]) Cases() int { return r.batch.cases }

// Bind gives a leaf its value for the following runs, in place of the user's tensor. nil takes it
// back. The data are those of the whole batch, and are not copied.
func (r *Run[T]) Bind(leaf *Node, data []T) error {
	c := &r.calls[leaf.index]
	if !leaf.IsLeaf() || leaf.Dtype != r.p.dtype {
		return c.fail("bind", fmt.Errorf("only %v inputs can be given a value", r.p.dtype))
	}
	if data != nil && len(data) != leaf.Size() {
		return c.fail("bind", fmt.Errorf("%d elements for shape %v", len(data), leaf.Shape))
	}
	c.bound = data
	return nil
}

// Use lets the following runs take the values of inputs from in where it has them. What a leaf is
// bound to comes first. nil lets them take the values from the user's tensors again.
func (r *Run[T]) Use(in *Inputs[T]) { r.inputs = in }

// Forward computes the values of all nodes for the listed cases, in that order, or for the whole
// batch if rows is nil.
func (r *Run[T]) Forward(rows []int) error {
	r.evaluates = false
	return r.forward(rows)
}

func (r *Run[T]) forward(rows []int) error {
	r.batch.cases, r.batch.rows = r.p.Cases, rows
	if rows != nil {
		if r.p.Whole != "" {
			return fmt.Errorf("program: can't be run on a part of the batch: %s", r.p.Whole)
		}
		for _, row := range rows {
			if row < 0 || row >= r.p.Cases {
				return fmt.Errorf("program: case %d is not in the batch of %d", row, r.p.Cases)
			}
		}
		r.batch.cases = len(rows)
	}
	for i := range r.calls {
		if err := r.compute(&r.calls[i], rows); err != nil {
			return err
		}
		if r.evaluates {
			eachDead(r.p.Nodes[i], func(n *Node) {
				r.spare.give(&r.calls[n.index].value)
				r.calls[n.index].out.Data = nil
			})
		}
	}
	return nil
}

// compute computes the value of a call.
func (r *Run[T]) compute(c *call[T], rows []int) error {
	c.resize()
	if c.node.IsLeaf() {
		if err := r.inputs.read(c, rows); err != nil {
			return c.fail("read", err)
		}
		return nil
	}
	for k, kid := range c.node.Kids {
		c.in[k] = r.calls[kid.index].out
	}
	if v, ok := c.rule.(viewer[T]); ok {
		c.out.Data, c.out.Ints = v.view(c), c.in[0].Ints
		return nil
	}
	if c.holdsFloats() {
		r.spare.take(&c.value, size(c.out.Shape))
	}
	c.allocate()
	if r.source != nil && picks(c.node) {
		r.pickFrom(c)
		return nil
	}
	var err error
	if Draws(c.node.Op) {
		err = r.draw(c, rows)
	} else {
		err = c.rule.forward(c)
	}
	if err != nil {
		return c.fail("forward", err)
	}
	return nil
}

// ForwardFrom is Forward for some of the cases of a run of the same program, which holds the whole
// batch and has the same inputs, seed and mode. Most values are picked from it, not computed.
func (r *Run[T]) ForwardFrom(source *Run[T], rows []int) error {
	r.Use(nil)
	r.batch.seed, r.batch.mode = source.batch.seed, source.batch.mode
	for _, n := range r.p.Nodes {
		if b, ok := n.Op.(BatchNorm); ok && r.batch.mode.training(b.Training()) {
			source = nil // the statistics are those of the cases that are run
			break
		}
	}
	r.source = source
	defer func() { r.source = nil }()
	return r.Forward(rows)
}

// picks reports whether the value of a node is all that the rule of its op leaves of a forward
// pass.
func picks(n *Node) bool {
	switch n.Op.(type) {
	case Unary, Binary, MatMul, BatchedMatMul, MatVec, Im2Col:
		return true
	}
	return false
}

// pickFrom gives a call the value that it has in the source.
func (r *Run[T]) pickFrom(c *call[T]) {
	from := r.source.calls[c.node.index].out.Data
	if c.node.CaseAxis < 0 {
		c.out.Data = from
		return
	}
	pickCases(c.out.Data, from, c.node, r.p.Cases, r.batch.rows)
}

// MoveStatistics moves the running statistics of the user's BatchNorm ops that were training in the
// last Forward towards those of its cases, as Gorgonia's VM does.
func (r *Run[T]) MoveStatistics() error {
	for i := range r.calls {
		c := &r.calls[i]
		if b, ok := c.rule.(batchNormRule[T]); ok {
			if err := b.move(c); err != nil {
				return c.fail("forward", err)
			}
		}
	}
	return nil
}

// Pick returns the part of data that belongs to the cases of the last Forward. data is laid out as
// the whole value of n. The result is data itself if it is all of it, and else lasts until the next
// Pick for n.
func (r *Run[T]) Pick(n *Node, data []T) []T {
	if r.batch.rows == nil || n.CaseAxis < 0 {
		return data
	}
	picked := r.calls[n.index].picked.sized(size(r.calls[n.index].out.Shape))
	pickCases(picked, data, n, r.p.Cases, r.batch.rows)
	return picked
}

// Value is the value of n of the last Forward.
func (r *Run[T]) Value(n *Node) Array[T] {
	r.mustKeep(r.evaluates, n)
	return r.calls[n.index].out
}

// A Seed is a gradient, or a direction, given at a node.
type Seed[T Float] struct {
	Node *Node
	Data []T
}

// Reverse sweeps backwards from the gradients given by seeds, along the path of the nodes whose
// gradients are wanted, and adds up what reaches each. A seed has the size of its node's value in
// the last Forward.
func (r *Run[T]) Reverse(seeds []Seed[T], path Path) error {
	if r.evaluates {
		return errEvaluated
	}
	for i := range r.grads {
		r.grads[i].begin()
	}
	for _, s := range seeds {
		if want := size(r.calls[s.Node.index].out.Shape); len(s.Data) != want {
			return fmt.Errorf("program: seed of %d elements for node %q of %d", len(s.Data), s.Node.Name(), want)
		}
		r.addGrad(s.Node, s.Data)
	}
	for i := len(r.calls) - 1; i >= 0; i-- {
		c := &r.calls[i]
		if !path.on[i] || !r.grads[i].set || c.node.IsLeaf() {
			continue
		}
		for k, kid := range c.node.Kids {
			if !path.on[kid.index] || kid.Dtype != r.p.dtype {
				continue
			}
			if err := r.reverseInto(c, k, kid); err != nil {
				return c.fail("reverse", err)
			}
		}
	}
	return nil
}

// ReverseInto is Reverse, and writes the gradients of the nodes of into to their Data. The run does
// not keep these.
func (r *Run[T]) ReverseInto(seeds []Seed[T], path Path, into []Seed[T]) error {
	for _, s := range into {
		r.grads[s.Node.index].lend(s.Data)
	}
	err := r.Reverse(seeds, path)
	for _, s := range into {
		r.Gradient(s.Node) // zero if nothing has reached it
		r.grads[s.Node.index].release()
	}
	return err
}

// reverseInto adds to the gradient of operand k of c. The first contribution is written in place.
func (r *Run[T]) reverseInto(c *call[T], k int, kid *Node) error {
	grad, n := r.grads[c.node.index].data, len(c.in[k].Data)
	g := &r.grads[kid.index]
	if c.passes(k) && !g.set && !g.lent && len(kid.Users) == 1 {
		g.share(grad) // nothing else will be added
		return nil
	}
	if !g.set {
		g.set = true
		return c.rule.reverse(c, k, grad, g.sized(n))
	}
	part := r.scratch.sized(n)
	if err := c.rule.reverse(c, k, grad, part); err != nil {
		return err
	}
	linalg.Axpy(1, part, g.data)
	return nil
}

func (r *Run[T]) addGrad(n *Node, data []T) {
	g := &r.grads[n.index]
	if g.set {
		linalg.Axpy(1, data, g.data)
		return
	}
	g.set = true
	copy(g.sized(len(data)), data)
}

// Gradient is the gradient that the last Reverse found for n, in the shape of n's value. It is zero
// if nothing reached n.
func (r *Run[T]) Gradient(n *Node) []T {
	return settled(&r.grads[n.index], size(r.calls[n.index].out.Shape))
}

// Tangent sweeps forwards along the directions given at some nodes, each of the size of its node's
// value in the last Forward. path is the path of these nodes. The directions are not copied.
func (r *Run[T]) Tangent(directions []Seed[T], path Path) error {
	return r.sweepTangents(directions, path, false)
}

func (r *Run[T]) sweepTangents(directions []Seed[T], path Path, outputsOnly bool) error {
	if r.evaluates {
		return errEvaluated
	}
	r.outputsOnly = outputsOnly
	for i := range r.tans {
		r.tans[i].release()
	}
	for _, d := range directions {
		if want := size(r.calls[d.Node.index].out.Shape); len(d.Data) != want {
			return fmt.Errorf("program: direction of %d elements for node %q of %d", len(d.Data), d.Node.Name(), want)
		}
		r.tans[d.Node.index].lend(d.Data)
	}
	for i := range r.calls {
		if err := r.tangent(&r.calls[i], path); err != nil {
			return err
		}
		if outputsOnly {
			eachDead(r.p.Nodes[i], func(n *Node) {
				if t := &r.tans[n.index]; !t.lent {
					r.spare.give(t)
				}
			})
		}
	}
	return nil
}

// tangent computes the tangent of a call, if it is on the path and not given.
func (r *Run[T]) tangent(c *call[T], path Path) error {
	i := c.node.index
	t := &r.tans[i]
	if !path.on[i] || t.set || c.node.IsLeaf() || c.node.Dtype != r.p.dtype {
		return nil
	}
	in := r.tangentsOf(c)
	if in == nil {
		return nil
	}
	if _, ok := c.rule.(viewer[T]); ok {
		t.lend(in[0])
		return nil
	}
	r.spare.take(t, len(c.out.Data))
	if err := c.rule.tangent(c, in, t.sized(len(c.out.Data))); err != nil {
		return c.fail("tangent", err)
	}
	t.set = true
	return nil
}

// Directional is the derivative of n along the directions of the last Tangent. It is zero if n does
// not depend on their nodes.
func (r *Run[T]) Directional(n *Node) []T {
	r.mustKeep(r.outputsOnly, n)
	return settled(&r.tans[n.index], size(r.calls[n.index].out.Shape))
}

// settled is what b holds, or n zeros if that is nothing.
func settled[T Float](b *buffer[T], n int) []T {
	if !b.set {
		clear(b.sized(n))
		b.set = true
	}
	return b.data
}
