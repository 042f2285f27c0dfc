package program

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// Float is the set of element types of a program.
type Float = linalg.Float

// An OpError tells which op of which node could not be run or differentiated, and why.
type OpError struct {
	Op   string // e.g. "Sparsemax"
	Node string // name of the user's node
	What string // what was being done: "forward", "reverse", "tangent", "read", "bind", "differentiation"
	Err  error
}

func (e *OpError) Error() string {
	return fmt.Sprintf("program: %s of %s (node %q): %v", e.What, e.Op, e.Node, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }

// An Array is a dense row-major array. It belongs to the run, and holds until its next sweep.
type Array[T Float] struct {
	Shape []int
	Data  []T
	Ints  []int // instead of Data if the node is not of the program's dtype: integers, or truth values as 0 and 1
}

// A Run executes a program and keeps its buffers from sweep to sweep. It must not be used concurrently.
type Run[T Float] struct {
	p     *Program
	calls []call[T]
	rng   *rand.Rand
	cases int   // run by the last Forward
	rows  []int // that it was given

	inputs *Inputs[T] // of Use

	grads   []buffer[T] // by node: gradient of the last Reverse
	tans    []buffer[T] // by node: tangent of the last Tangent
	scratch buffer[T]
	tanIn   [][]T
}

// buffer is memory kept from run to run; set tells whether it holds something now.
type buffer[T Float] struct {
	data []T
	set  bool
	lent bool // data is the caller's
}

// lend makes data the buffer's until release.
func (b *buffer[T]) lend(data []T) { b.data, b.set, b.lent = data, true, true }

func (b *buffer[T]) release() {
	if b.set = false; b.lent {
		b.data, b.lent = nil, false
	}
}

func (b *buffer[T]) sized(n int) []T {
	if cap(b.data) < n {
		b.data = make([]T, n)
	}
	b.data = b.data[:n]
	return b.data
}

// NewRun prepares to run p. T must be the program's dtype. The seed decides what Dropout and random nodes draw.
func NewRun[T Float](p *Program, seed uint64) (*Run[T], error) {
	if want := dtypeOf[T](); want != p.dtype {
		return nil, fmt.Errorf("program: a program of %v can't be run in %v", p.dtype, want)
	}
	r := &Run[T]{
		p:     p,
		calls: make([]call[T], len(p.Nodes)),
		grads: make([]buffer[T], len(p.Nodes)),
		tans:  make([]buffer[T], len(p.Nodes)),
	}
	r.Reseed(seed)
	for i, n := range p.Nodes {
		r.calls[i] = call[T]{node: n, run: r, rule: ruleFor[T](n.Op), in: make([]Array[T], len(n.Kids))}
	}
	return r, nil
}

// Reseed restarts what Dropout and random nodes draw.
func (r *Run[T]) Reseed(seed uint64) { r.rng = rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)) }

// Cases is the number of cases that the last Forward ran.
func (r *Run[T]) Cases() int { return r.cases }

// Bind gives a leaf its value for the following runs in place of the user's tensor, and nil takes it back. The data are those of
// the whole batch; they are not copied.
func (r *Run[T]) Bind(leaf *Node, data []T) error {
	if !leaf.IsLeaf() || leaf.Dtype != r.p.dtype {
		return &OpError{leaf.Op.String(), leaf.Name(), "bind", fmt.Errorf("only %v inputs can be given a value", r.p.dtype)}
	}
	if data != nil && len(data) != leaf.Size() {
		return &OpError{leaf.Op.String(), leaf.Name(), "bind", fmt.Errorf("%d elements for shape %v", len(data), leaf.Shape)}
	}
	r.calls[leaf.index].bound = data
	return nil
}

// Forward computes the values of all nodes for the listed cases, in that order, or for the whole batch if rows is nil.
func (r *Run[T]) Forward(rows []int) error {
	r.cases, r.rows = r.p.Cases, rows
	if rows != nil {
		if r.p.Whole != "" {
			return fmt.Errorf("program: can't be run on a part of the batch: %s", r.p.Whole)
		}
		for _, row := range rows {
			if row < 0 || row >= r.p.Cases {
				return fmt.Errorf("program: case %d is not in the batch of %d", row, r.p.Cases)
			}
		}
		r.cases = len(rows)
	}
	for i := range r.calls {
		c := &r.calls[i]
		c.resize()
		if c.node.IsLeaf() {
			if err := c.read(rows); err != nil {
				return &OpError{c.node.Op.String(), c.node.Name(), "read", err}
			}
			continue
		}
		for k, kid := range c.node.Kids {
			c.in[k] = r.calls[kid.index].out
		}
		if v, ok := c.rule.(viewer[T]); ok {
			c.out.Data, c.out.Ints = v.view(c), c.in[0].Ints
			continue
		}
		c.allocate()
		if err := c.rule.forward(c); err != nil {
			return c.fail("forward", err)
		}
	}
	return nil
}

// Pick returns the part of data, laid out as the whole value of n, that belongs to the cases of the last Forward. It is data itself if that
// is all, and otherwise lasts until the next Pick for n.
func (r *Run[T]) Pick(n *Node, data []T) []T {
	if r.rows == nil || n.CaseAxis < 0 {
		return data
	}
	picked := r.calls[n.index].picked.sized(size(r.calls[n.index].out.Shape))
	pickCases(picked, data, n, r.p.Cases, r.rows)
	return picked
}

// Value is the value of n of the last Forward.
func (r *Run[T]) Value(n *Node) Array[T] { return r.calls[n.index].out }

// Reverse sweeps backwards from the gradients given at the nodes of seeds (of the size that these had in the last Forward) along
// the path of the nodes whose gradients are wanted, and adds up what reaches each.
func (r *Run[T]) Reverse(seeds []Seed[T], path Path) error {
	for i := range r.grads {
		r.grads[i].set = false
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

// A Seed is a gradient given at a node.
type Seed[T Float] struct {
	Node *Node
	Data []T
}

// reverseInto adds to the gradient of operand k of c. The first contribution is written in place.
func (r *Run[T]) reverseInto(c *call[T], k int, kid *Node) error {
	grad, n := r.grads[c.node.index].data, len(c.in[k].Data)
	g := &r.grads[kid.index]
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

// Gradient is the gradient that the last Reverse found for n, in the shape of n's value. It is zero if nothing reached n.
func (r *Run[T]) Gradient(n *Node) []T {
	return settled(&r.grads[n.index], size(r.calls[n.index].out.Shape))
}

// ElementwiseUses lists the uses of a parameter, seen through reshapes: the nodes that it is an operand of, and as which. ok says that all of them are elementwise
// functions of two operands that depend on the case, so that GradientByCase can tell what each case contributes to its gradient.
func (p *Program) ElementwiseUses(n *Node) (uses []Use, ok bool) {
	for i, u := range n.Users {
		if slices.Contains(n.Users[:i], u) {
			continue // met before
		}
		switch u.Op.(type) {
		case Reshape:
			inner, ok := p.ElementwiseUses(u)
			if !ok {
				return nil, false
			}
			uses = append(uses, inner...)
		case Binary:
			if p.Whole == "" && u.CaseAxis < 0 {
				return nil, false
			}
			for k, kid := range u.Kids {
				if kid == n {
					uses = append(uses, Use{u, k})
				}
			}
		case SizeOf:
		default:
			return nil, false
		}
	}
	return uses, len(uses) > 0
}

// A Use is an operand's place.
type Use struct {
	Node    *Node
	Operand int
}

// CasesApart is the number of cases that GradientByCase tells apart: one if the program can't be run on a part of the batch.
func (r *Run[T]) CasesApart() int {
	if r.p.Whole != "" {
		return 1
	}
	return r.cases
}

// GradientByCase adds what each case contributes, by uses of the kind that ElementwiseUses finds, to the gradient of an operand of n elements that does not
// depend on the case, to dst (CasesApart x n). The last Reverse must have found the gradients of the uses' nodes.
func (r *Run[T]) GradientByCase(uses []Use, dst []T) {
	for _, u := range uses {
		c := &r.calls[u.Node.index]
		c.rule.(binaryRule[T]).reverseByCase(c, u.Operand, r.Gradient(u.Node), dst)
	}
}

// Tangent sweeps forwards along the directions given at some nodes, in the shape of their values of the last Forward.
// path is the path of these nodes. The directions are not copied.
func (r *Run[T]) Tangent(directions []Seed[T], path Path) error {
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
		c := &r.calls[i]
		if !path.on[i] || r.tans[i].set || c.node.IsLeaf() || c.node.Dtype != r.p.dtype {
			continue
		}
		in, any := r.tanIn[:0], false
		for _, kid := range c.node.Kids {
			var t []T
			if b := &r.tans[kid.index]; b.set {
				t, any = b.data, true
			}
			in = append(in, t)
		}
		r.tanIn = in
		if !any {
			continue
		}
		t := &r.tans[i]
		if err := c.rule.tangent(c, in, t.sized(len(c.out.Data))); err != nil {
			return c.fail("tangent", err)
		}
		t.set = true
	}
	return nil
}

// Directional is the derivative of n along the directions of the last Tangent. It is zero if n does not depend on them.
func (r *Run[T]) Directional(n *Node) []T {
	return settled(&r.tans[n.index], size(r.calls[n.index].out.Shape))
}

func settled[T Float](b *buffer[T], n int) []T {
	if !b.set {
		clear(b.sized(n))
		b.set = true
	}
	return b.data
}

// read takes the value of a leaf from what it is bound to or from the user's node.
func (c *call[T]) read(rows []int) error {
	if c.node.Dtype != c.run.p.dtype {
		return c.readOther(rows)
	}
	data := c.bound
	if data == nil && c.run.inputs != nil {
		data = c.run.inputs.floats[c.node.Src]
	}
	if data == nil {
		v, err := valueOf(c.node)
		if err != nil {
			return err
		}
		if data, err = floats[T](v, c.node.Shape); err != nil {
			return err
		}
	}
	if rows == nil || c.node.CaseAxis < 0 {
		c.out.Data = data
		return nil
	}
	c.out.Data = c.value.sized(size(c.out.Shape))
	pickCases(c.out.Data, data, c.node, c.run.p.Cases, rows)
	return nil
}

// readOther reads the value of an integer leaf, such as the indices of a lookup.
func (c *call[T]) readOther(rows []int) error {
	ints, err := c.integers()
	if err != nil {
		return err
	}
	c.out.Ints = ints
	if rows != nil && c.node.CaseAxis >= 0 {
		c.out.Ints = c.intBuf(0, size(c.out.Shape))
		pickCases(c.out.Ints, ints, c.node, c.run.p.Cases, rows)
	}
	return nil
}

// integers is the value of an integer leaf for the whole batch.
func (c *call[T]) integers() ([]int, error) {
	if c.run.inputs != nil {
		if ints, ok := c.run.inputs.ints[c.node.Src]; ok {
			return ints, nil
		}
	}
	v, err := valueOf(c.node)
	if err != nil {
		return nil, err
	}
	c.ints, err = integers(v, c.node.Shape, c.ints)
	return c.ints, err
}

// pickCases copies the listed cases of src, laid out as n's whole value, to dst.
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

// valueOf is the user's current value of an input.
func valueOf(n *Node) (gorgonia.Value, error) {
	if v := n.Src.Value(); v != nil {
		return v, nil
	}
	if op := n.Src.Op(); op != nil && len(n.Kids) == 0 {
		if v, err := op.Do(); err == nil && v != nil { // a constant that no VM has bound yet
			return v, nil
		}
	}
	return nil, fmt.Errorf("it has no value yet (give it one with gorgonia.Let or WithValue, and run the VM before the solver)")
}

// floats is the data of a float value of the given shape, without a copy where the tensor is contiguous.
func floats[T Float](v gorgonia.Value, shape []int) ([]T, error) {
	if n := v.Shape().TotalSize(); n != size(shape) {
		return nil, fmt.Errorf("its value has shape %v, the graph says %v", v.Shape(), shape)
	}
	if want := dtypeOf[T](); v.Dtype() != want {
		return nil, fmt.Errorf("its value has dtype %v, the model %v", v.Dtype(), want)
	}
	t, ok := v.(*tensor.Dense)
	switch {
	case !ok:
		return []T{v.Data().(T)}, nil
	case !t.IsScalar() && (t.RequiresIterator() || t.DataOrder().IsColMajor()):
		t = contiguous(t)
	}
	if t.Dtype() == tensor.Float32 { // these do not allocate, as Data does
		return any(t.Float32s()).([]T)[:size(shape)], nil
	}
	return any(t.Float64s()).([]T)[:size(shape)], nil
}

// dtypeOf is the dtype of T.
func dtypeOf[T Float]() tensor.Dtype {
	if _, ok := any(T(0)).(float64); ok {
		return tensor.Float64
	}
	return tensor.Float32
}

// contiguous copies a view into row-major order.
func contiguous(t *tensor.Dense) *tensor.Dense {
	out := tensor.New(tensor.Of(t.Dtype()), tensor.WithShape(t.Shape().Clone()...))
	it, i := t.Iterator(), 0
	for at, err := it.Start(); err == nil; at, err = it.Next() {
		out.Set(i, t.Get(at))
		i++
	}
	return out
}

// integers is the data of an integer value of the given shape, in buf if that is large enough.
func integers(v gorgonia.Value, shape []int, buf []int) ([]int, error) {
	if n := v.Shape().TotalSize(); n != size(shape) {
		return nil, fmt.Errorf("its value has shape %v, the graph says %v", v.Shape(), shape)
	}
	if t, ok := v.(*tensor.Dense); ok && !t.IsScalar() && (t.RequiresIterator() || t.DataOrder().IsColMajor()) {
		v = contiguous(t)
	}
	buf = buf[:0]
	switch d := v.Data().(type) {
	case []int:
		return append(buf, d...), nil
	case []int64:
		return appendInts(buf, d), nil
	case []int32:
		return appendInts(buf, d), nil
	case []byte:
		return appendInts(buf, d), nil
	case int:
		return append(buf, d), nil
	case int64:
		return append(buf, int(d)), nil
	case int32:
		return append(buf, int(d)), nil
	case byte:
		return append(buf, int(d)), nil
	case []bool:
		for _, b := range d {
			buf = appendBool(buf, b)
		}
		return buf, nil
	case bool:
		return appendBool(buf, d), nil
	}
	return nil, fmt.Errorf("its value has dtype %v, which no op here reads", v.Dtype())
}

func appendBool(dst []int, b bool) []int {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendInts[E int64 | int32 | byte](dst []int, src []E) []int {
	for _, v := range src {
		dst = append(dst, int(v))
	}
	return dst
}
