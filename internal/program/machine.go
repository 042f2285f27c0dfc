package program

import (
	"errors"
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// A Machine runs programs as a Gorgonia VM runs a graph: it leaves values and gradients with the
// user's nodes. The values are its own memory, which its next Run writes over.
//
// It runs one program and, behind it, the rest: what is wanted and is not in the first.
type Machine[T Float] struct {
	first, rest *stage[T] // rest is nil if nothing is left for it
	cost        *Node     // nil: no gradients are wanted
	values      []*published[T]
	gradients   []*gradientOf[T]
	reads       []read
	inputs      []input[T]
}

// A stage is a program of a machine.
type stage[T Float] struct {
	run    *Run[T]
	leaves []*Node   // inputs that are computed by the first stage
	path   Path      // from the parameters, or from leaves that depend on them, to the cost
	seeds  []Seed[T] // for the sweep back
	into   []Seed[T] // where it leaves the gradients of parameters
}

// Wanted is what a machine is made for.
type Wanted struct {
	Cost   *gorgonia.Node   // whose gradients are wanted, with respect to what Grad was called for; nil: none
	Params []*gorgonia.Node // other inputs whose gradients are wanted
	Values []*gorgonia.Node // nodes whose values are wanted, beside the cost
	Reads  bool             // gorgonia.Read is obeyed in the whole graph, not only before the outputs
}

// NewMachine makes a machine of the program of a run. The errors are those of [New], and
// [ErrNotDifferentiable].
func NewMachine[T Float](first *Run[T], want Wanted) (*Machine[T], error) {
	m := &Machine[T]{first: &stage[T]{run: first}}
	statements, err := statementsOf(first.p, want.Reads)
	if err != nil {
		return nil, err
	}
	nodes := slices.Clone(want.Values)
	for _, s := range statements {
		nodes = append(nodes, s.from)
	}
	if want.Cost != nil {
		nodes = append(nodes, want.Cost)
	}
	lacking := nodes
	if want.Cost != nil {
		lacking = slices.DeleteFunc(slices.Clone(nodes), isGradient) // the sweep back finds them
	}
	if err := m.addRest(lacking); err != nil {
		return nil, err
	}
	if want.Cost != nil {
		m.cost = m.node(want.Cost)
		if err := m.differentiate(want); err != nil {
			return nil, err
		}
	}
	for _, n := range nodes {
		if err := m.publish(n); err != nil {
			return nil, err
		}
	}
	for _, s := range statements {
		m.reads = append(m.reads, read{s.into, s.from})
	}
	m.watch()
	return m, nil
}

// isInput reports whether the user gives a node its value, or it is a constant.
func isInput(n *gorgonia.Node) bool { return decode(n) == (Leaf{}) }

// isGradient reports whether Grad has made a node, as the gradient of one of the graph's inputs.
func isGradient(n *gorgonia.Node) bool {
	for _, of := range n.DerivOf() {
		if of.Op() == nil {
			return true
		}
	}
	return false
}

// addRest makes the second stage, if the first lacks some of the nodes.
func (m *Machine[T]) addRest(nodes []*gorgonia.Node) error {
	p := m.first.run.p
	var lacking []*gorgonia.Node
	for _, n := range nodes {
		if p.Node(n) == nil && !isInput(n) && !slices.Contains(lacking, n) {
			lacking = append(lacking, n)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	var cuts []*gorgonia.Node
	for _, n := range p.Nodes {
		if !n.IsLeaf() && n.Dtype == p.dtype {
			cuts = append(cuts, n.Src)
		}
	}
	rest, err := New(lacking, cuts...)
	if err != nil {
		return err
	}
	run, err := NewRun[T](rest, 0)
	if err != nil {
		return err
	}
	m.rest = &stage[T]{run: run}
	for _, n := range rest.Nodes {
		if n.IsLeaf() && !isInput(n.Src) {
			m.rest.leaves = append(m.rest.leaves, n)
		}
	}
	return nil
}

// node is a node of either stage.
func (m *Machine[T]) node(src *gorgonia.Node) *Node {
	n := m.first.run.p.Node(src)
	if n == nil && m.rest != nil {
		n = m.rest.run.p.Node(src)
	}
	return n
}

// of is the value of a node in the last Run.
func (m *Machine[T]) of(src *gorgonia.Node) Array[T] {
	if n := m.first.run.p.Node(src); n != nil || m.rest == nil {
		return m.first.run.Value(n)
	}
	return m.rest.run.Value(m.rest.run.p.Node(src))
}

// differentiate prepares the sweeps back from the cost to the parameters: the inputs that Grad was
// called for, and those named.
func (m *Machine[T]) differentiate(want Wanted) error {
	params := slices.Clone(want.Params)
	for _, s := range m.stages() {
		for _, n := range s.run.p.Nodes {
			graded := n.Src.Op() == nil && n.Src.Deriv() != nil && n.Dtype == s.run.p.dtype
			if graded && !slices.Contains(params, n.Src) {
				params = append(params, n.Src)
			}
		}
	}
	for _, p := range params {
		m.gradients = append(m.gradients, newGradientOf[T](p, m))
	}
	first, to := m.first, []*Node{m.cost}
	first.path = first.run.p.Path(first.params(m.gradients)...)
	if m.rest != nil && first.run.p.Node(want.Cost) == nil {
		from := m.rest.params(m.gradients)
		for _, leaf := range m.rest.leaves {
			if first.path.Has(first.run.p.Node(leaf.Src)) {
				from = append(from, leaf)
			}
		}
		m.rest.path = m.rest.run.p.Path(from...).toward(m.rest.run.p, m.cost)
		if err := m.rest.run.p.CheckDifferentiable(m.rest.path); err != nil {
			return err
		}
		m.rest.seeds = []Seed[T]{{m.cost, []T{1}}}
		to = nil
		for _, leaf := range m.rest.leaves {
			if m.rest.path.Has(leaf) {
				n := first.run.p.Node(leaf.Src)
				to = append(to, n)
				first.seeds = append(first.seeds, Seed[T]{Node: n})
			}
		}
	} else {
		first.seeds = []Seed[T]{{m.cost, []T{1}}}
	}
	first.path = first.path.toward(first.run.p, to...)
	if err := first.run.p.CheckDifferentiable(first.path); err != nil {
		return err
	}
	for _, g := range m.gradients {
		if g.first != nil {
			first.into = append(first.into, Seed[T]{g.first, g.data})
		}
	}
	return nil
}

func (m *Machine[T]) stages() []*stage[T] {
	if m.rest == nil {
		return []*stage[T]{m.first}
	}
	return []*stage[T]{m.first, m.rest}
}

// params are the nodes of the parameters in a stage.
func (s *stage[T]) params(gradients []*gradientOf[T]) (nodes []*Node) {
	for _, g := range gradients {
		if n := s.run.p.Node(g.src); n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// publish makes room for the value of a node, unless it is an input or a gradient.
func (m *Machine[T]) publish(src *gorgonia.Node) error {
	n := m.node(src)
	known := func(p *published[T]) bool { return p.node.Src == src }
	swept := func(g *gradientOf[T]) bool { return g.deriv == src }
	switch {
	case n == nil && !isInput(src) && !slices.ContainsFunc(m.gradients, swept):
		return &OpError{"gradient", NameOf(src), "bind", errors.New("it is of an input that has none here")}
	case n != nil && !n.IsLeaf() && !slices.ContainsFunc(m.values, known):
		m.values = append(m.values, &published[T]{node: n, holder: newHolder[T](n)})
	}
	return nil
}

// Run computes the values, and the gradients, of what the graph's inputs hold, and leaves them with
// the nodes. If it returns an error it has changed nothing.
func (m *Machine[T]) Run(seed uint64, mode Mode) error {
	if err := m.forward(seed, mode); err != nil {
		return err
	}
	sweeps := m.cost != nil && mode != Evaluation
	if sweeps {
		if err := m.backward(); err != nil {
			return err
		}
	}
	if err := m.leave(sweeps); err != nil || mode != Training {
		return err
	}
	for _, s := range [...]*stage[T]{m.first, m.rest} {
		if s == nil {
			continue
		}
		if err := s.run.MoveStatistics(); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine[T]) forward(seed uint64, mode Mode) error {
	m.first.run.Use(nil)
	for _, s := range [...]*stage[T]{m.first, m.rest} {
		if s == nil {
			continue
		}
		s.run.Reseed(seed)
		s.run.SetMode(mode)
		for _, leaf := range s.leaves {
			if err := s.run.Bind(leaf, m.of(leaf.Src).Data); err != nil {
				return err
			}
		}
		if err := s.run.Forward(nil); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine[T]) backward() error {
	first, rest := m.first, m.rest
	if rest != nil && rest.seeds != nil {
		if err := rest.run.Reverse(rest.seeds, rest.path); err != nil {
			return err
		}
		for i := range first.seeds {
			s := &first.seeds[i]
			s.Data = rest.run.Gradient(rest.run.p.Node(s.Node.Src))
		}
	}
	if err := first.run.ReverseInto(first.seeds, first.path, first.into); err != nil {
		return err
	}
	for _, g := range m.gradients {
		switch {
		case g.rest == nil:
		case g.first == nil:
			copy(g.data, rest.run.Gradient(g.rest))
		default:
			linalg.Axpy(1, rest.run.Gradient(g.rest), g.data)
		}
	}
	return nil
}

// leave gives the values, and the gradients if they were swept back, to the user's nodes.
func (m *Machine[T]) leave(gradients bool) error {
	for _, v := range m.values {
		if err := v.set(m.of(v.node.Src), v.node); err != nil {
			return v.fail(err)
		}
		if v.node.Src.Value() != v.value {
			if err := gorgonia.UnsafeLet(v.node.Src, v.value); err != nil {
				return v.fail(err)
			}
		}
	}
	for _, g := range m.gradients {
		if !gradients {
			break
		}
		g.settle()
		if err := g.bind(); err != nil {
			return err
		}
	}
	for _, r := range m.reads {
		if err := r.exec(); err != nil {
			return err
		}
	}
	return nil
}

// Left reports whether the value of a node, or the gradient of an input, is still what the machine
// has left there.
func (m *Machine[T]) Left(src *gorgonia.Node) bool {
	for _, g := range m.gradients {
		if g.src == src {
			v, err := src.Grad()
			return err == nil && v == g.value
		}
	}
	for _, v := range m.values {
		if v.node.Src == src {
			return src.Value() == v.value
		}
	}
	return false
}

// published is a node whose value is left with it.
type published[T Float] struct {
	node *Node
	holder[T]
}

func (p *published[T]) fail(err error) error {
	return &OpError{p.node.Op.String(), p.node.Name(), "bind", err}
}

// A holder is a value for the user, with memory of its own.
type holder[T Float] struct {
	value gorgonia.Value
	data  []T
}

// newHolder makes the value of a node.
func newHolder[T Float](n *Node) (h holder[T]) {
	if n.Dtype == dtypeOf[T]() {
		h.data = make([]T, n.Size())
		h.value, _ = wrap(Array[T]{Shape: n.Shape, Data: h.data}, n.Dtype)
	}
	return h
}

// set copies the value of a node. That of another dtype is made anew each time.
func (h *holder[T]) set(a Array[T], n *Node) (err error) {
	if h.data == nil {
		a.Ints = slices.Clone(a.Ints)
		h.value, err = wrap(a, n.Dtype)
		return err
	}
	copy(h.data, a.Data)
	h.settle()
	return nil
}

// settle brings data to the value, where that is a scalar.
func (h *holder[T]) settle() {
	switch v := h.value.(type) {
	case *gorgonia.F64:
		*v = gorgonia.F64(h.data[0])
	case *gorgonia.F32:
		*v = gorgonia.F32(h.data[0])
	}
}

// gradientOf is the gradient of an input, which is left with it.
type gradientOf[T Float] struct {
	holder[T]
	src         *gorgonia.Node
	first, rest *Node // in the stages; nil if it is not there
	// deriv is the node that Grad has made for the gradient. It is nil if it can't be given a
	// value: it is an input or a constant, of another shape, the gradient of another parameter too,
	// or a part of the model itself.
	deriv *gorgonia.Node
}

func newGradientOf[T Float](src *gorgonia.Node, m *Machine[T]) *gradientOf[T] {
	g := &gradientOf[T]{holder: newHolder[T](m.node(src)), src: src, first: m.first.run.p.Node(src)}
	if m.rest != nil {
		g.rest = m.rest.run.p.Node(src)
	}
	d := src.Deriv()
	taken := func(other *gradientOf[T]) bool { return other.deriv == d }
	if d != nil && !isInput(d) && m.node(d) == nil && d.Dtype() == dtypeOf[T]() && d.Shape().Eq(g.value.Shape()) &&
		!slices.ContainsFunc(m.gradients, taken) {
		g.deriv = d
	}
	return g
}

// bind makes the gradient that of the node. Where Grad was called it is the value of the node that
// Grad has made, as with a tape machine without BindDualValues, which may run later. Else, and
// where a machine has bound a dual value, it is that of the dual value.
func (g *gradientOf[T]) bind() error {
	fail := func(err error) error { return &OpError{"input", NameOf(g.src), "bind", err} }
	if g.deriv != nil && g.deriv.Value() != g.value {
		if err := gorgonia.UnsafeLet(g.deriv, g.value); err != nil {
			return fail(err)
		}
	}
	if v, err := g.src.Grad(); err == nil && v == g.value {
		return nil
	}
	err := guard(func() error { gorgonia.WithGrad(g.value)(g.src); return nil })
	if err != nil {
		return fail(fmt.Errorf("its gradient can't be left with it: %w", err))
	}
	return nil
}

// A read is a gorgonia.Read.
type read struct {
	into *gorgonia.Value
	from *gorgonia.Node
}

// exec writes the value to its target, as Gorgonia's VM does: the first time a copy, later into
// what is there.
func (r read) exec() error {
	v := r.from.Value()
	if v == nil {
		return &OpError{"Read", NameOf(r.from), "read", errors.New("it has no value")}
	}
	var err error
	if *r.into == nil {
		*r.into, err = gorgonia.CloneValue(v)
	} else {
		_, err = gorgonia.Copy(*r.into, v)
	}
	if err != nil {
		return &OpError{"Read", NameOf(r.from), "read", err}
	}
	return nil
}
