package program

import (
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A Node of a program stands for one node of the user's graph.
type Node struct {
	Src   *gorgonia.Node // the user's node
	Op    Op
	Kids  []*Node // operands, in order
	Users []*Node // the nodes that have this one as operand; a node that uses it twice is listed twice
	Shape []int   // of the whole batch
	Dtype tensor.Dtype

	// CaseAxis is the axis along which the cases of the batch lie, case after case, or -1 if the value does not depend on
	// which cases are run. Its length is a multiple of the program's number of cases.
	CaseAxis int

	index int // position in Program.Nodes
}

// IsLeaf reports whether the node is an input of the program.
func (n *Node) IsLeaf() bool { _, ok := n.Op.(Leaf); return ok }

// Name is the name of the user's node.
func (n *Node) Name() string { return n.Src.Name() }

// Size is the number of elements.
func (n *Node) Size() int { return size(n.Shape) }

func size(shape []int) int {
	s := 1
	for _, d := range shape {
		s *= d
	}
	return s
}

// A Program is the private copy of the ancestors of some outputs. It is immutable once built, and holds no values.
type Program struct {
	Nodes   []*Node // operands before their users
	Outputs []*Node // in the order given to New

	// Cases is the number of cases in the batch: the length of the outputs' first axis, or 1 if they have none.
	Cases int
	// VectorCases says that outputs with one axis hold one number for each case.
	VectorCases bool
	// Whole says why the program can't be run on a part of the batch; it is empty if it can.
	Whole string

	bySrc map[*gorgonia.Node]*Node
	dtype tensor.Dtype
}

// New copies the ancestors of the outputs, which belong to one graph. The nodes in cuts become inputs: their operands are
// left out, and their values have to be given to each run ([Run.Bind]).
func New(outputs []*gorgonia.Node, cuts ...*gorgonia.Node) (*Program, error) {
	if len(outputs) == 0 || outputs[0] == nil {
		return nil, fmt.Errorf("program: no output node given")
	}
	g := outputs[0].Graph()
	if g == nil {
		return nil, fmt.Errorf("program: output %q is in no graph", outputs[0].Name())
	}
	for _, n := range outputs {
		if n == nil || n.Graph() != g {
			return nil, fmt.Errorf("program: the outputs are not all nodes of one graph")
		}
	}
	dt := outputs[0].Dtype()
	if dt != tensor.Float32 && dt != tensor.Float64 {
		return nil, fmt.Errorf("program: output %q has dtype %v, float32 or float64 expected", outputs[0].Name(), dt)
	}
	p := &Program{bySrc: make(map[*gorgonia.Node]*Node), dtype: dt}
	// A fresh subgraph: the user's graph may answer From with the operands of another node after a node was removed.
	c := copier{p: p, operands: g.ExactSubgraphRoots(outputs...), cut: cuts}
	for _, n := range outputs {
		p.Outputs = append(p.Outputs, c.copy(n))
	}
	if c.err != nil {
		return nil, c.err
	}
	p.simplify()
	p.order()
	p.findCases()
	return p, nil
}

// Dtype is the element type of the program's floats.
func (p *Program) Dtype() tensor.Dtype { return p.dtype }

// Node is the program's copy of a user's node, or nil if it is no ancestor of the outputs or has been merged into its users.
func (p *Program) Node(src *gorgonia.Node) *Node { return p.bySrc[src] }

// copier copies nodes depth first.
type copier struct {
	p        *Program
	operands *gorgonia.ExprGraph
	cut      []*gorgonia.Node
	err      error
}

func (c *copier) copy(src *gorgonia.Node) *Node {
	if n, ok := c.p.bySrc[src]; ok {
		return n
	}
	n := &Node{Src: src, Op: Leaf{}, Shape: slices.Clone([]int(src.Shape())), CaseAxis: -1}
	c.p.bySrc[src] = n
	if dt, err := nodeDtype(src); err != nil {
		c.fail(err)
	} else {
		n.Dtype = dt
	}
	if slices.Contains(c.cut, src) {
		return n
	}
	if n.Op = decode(src); n.IsLeaf() {
		return n
	}
	if n.Dtype != c.p.dtype && !movesElements(n.Op) {
		n.Op = Opaque{src.Op()}
	}
	for it := c.operands.From(src.ID()); it.Next(); {
		kid, ok := it.Node().(*gorgonia.Node)
		if !ok {
			c.fail(fmt.Errorf("program: operand of %q is a %T, not a *gorgonia.Node", src.Name(), it.Node()))
			return n
		}
		n.Kids = append(n.Kids, c.copy(kid))
	}
	return n
}

// movesElements reports whether an op has a rule that serves elements of any type.
func movesElements(op Op) bool {
	switch op.(type) {
	case Reshape, Transpose, Slice, Concat:
		return true
	}
	return false
}

func (c *copier) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// nodeDtype is Node.Dtype without its panic.
func nodeDtype(n *gorgonia.Node) (dt tensor.Dtype, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("program: node %q has no element type: %v", n.Name(), r)
		}
	}()
	return n.Dtype(), nil
}

// simplify drops nodes that only prepare operands: a Repeat along an axis of length 1 before an elementwise op, which
// broadcasts by itself, a matrix transpose before a matrix product, which has a flag for it, and the comparison in a rectifier.
func (p *Program) simplify() {
	for _, n := range p.bySrc {
		switch op := n.Op.(type) {
		case Binary:
			for i, k := range n.Kids {
				n.Kids[i] = beforeRepeats(k, len(n.Shape))
			}
			if x := rectified(n); x != nil {
				n.Op, n.Kids = Unary{"rectify"}, []*Node{x}
			}
		case MatMul:
			a, flipA := beforeTranspose(n.Kids[0])
			b, flipB := beforeTranspose(n.Kids[1])
			n.Kids = []*Node{a, b}
			n.Op = MatMul{op.TransA != flipA, op.TransB != flipB}
		}
	}
}

// rectified is x where n is x (x >= 0), as gorgonia.Rectify has it, and else nil.
func rectified(n *Node) *Node {
	if n.Op != (Binary{"⊙"}) || n.Kids[1].Op != (Binary{">="}) {
		return nil
	}
	x, least := n.Kids[0], n.Kids[1].Kids
	if least[0] != x || least[1].Src.Op() == nil || least[1].Size() != 1 || len(least[1].Kids) > 0 {
		return nil
	}
	switch zero, err := least[1].Src.Op().Do(); {
	case err != nil || zero == nil:
		return nil
	case zero.Data() == any(float32(0)) || zero.Data() == any(float64(0)):
		return x
	}
	return nil
}

func beforeRepeats(n *Node, dims int) *Node {
	for {
		r, ok := n.Op.(Repeat)
		if !ok || len(n.Kids[0].Shape) != dims || len(n.Shape) != dims || n.Kids[0].Shape[r.Axis] != 1 {
			return n
		}
		n = n.Kids[0]
	}
}

func beforeTranspose(n *Node) (*Node, bool) {
	if t, ok := n.Op.(Transpose); ok && slices.Equal(t.Perm, []int{1, 0}) {
		k, flip := beforeTranspose(n.Kids[0])
		return k, !flip
	}
	return n, false
}

// order lists the nodes that the outputs still need, operands first, and finds the users of each.
func (p *Program) order() {
	clear(p.bySrc)
	var visit func(n *Node)
	visit = func(n *Node) {
		if p.bySrc[n.Src] != nil {
			return
		}
		p.bySrc[n.Src] = n
		for _, k := range n.Kids {
			visit(k)
			k.Users = append(k.Users, n)
		}
		n.index = len(p.Nodes)
		p.Nodes = append(p.Nodes, n)
	}
	for _, n := range p.Outputs {
		visit(n)
	}
}

// A Path is the set of nodes that depend on some given ones, these included.
type Path struct {
	on []bool // by Node.index
}

// Path finds the nodes of the program that depend on the nodes from.
func (p *Program) Path(from ...*Node) Path {
	path := Path{make([]bool, len(p.Nodes))}
	for _, n := range from {
		path.on[n.index] = true
	}
	for i, n := range p.Nodes {
		for _, k := range n.Kids {
			path.on[i] = path.on[i] || path.on[k.index]
		}
	}
	return path
}

// Has reports whether n lies on the path.
func (p Path) Has(n *Node) bool { return p.on[n.index] }
