package program

import (
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A copier copies nodes of the user's graph depth first.
type copier struct {
	nodes []*Node // the copies, in the order in which they were met
	bySrc map[*gorgonia.Node]*Node

	operands *gorgonia.ExprGraph
	cuts     map[*gorgonia.Node]bool
	dtype    tensor.Dtype // of the program's floats
	err      error        // the first
}

// copyAncestors copies the outputs and their ancestors, with the cuts as inputs.
func copyAncestors(outputs, cuts []*gorgonia.Node, dt tensor.Dtype) (*copier, error) {
	c := &copier{
		bySrc: make(map[*gorgonia.Node]*Node),
		// A subgraph of its own, since after the removal of a node the user's graph may answer From
		// with the operands of another node.
		operands: outputs[0].Graph().ExactSubgraphRoots(outputs...),
		cuts:     map[*gorgonia.Node]bool{},
		dtype:    dt,
	}
	for _, n := range cuts {
		c.cuts[n] = true
	}
	for _, n := range outputs {
		c.copy(n)
	}
	return c, c.err
}

func (c *copier) copy(src *gorgonia.Node) *Node {
	if n, ok := c.bySrc[src]; ok {
		return n
	}
	n := &Node{Src: src, Op: Leaf{}, Shape: slices.Clone([]int(src.Shape())), CaseAxis: -1}
	c.bySrc[src] = n
	c.nodes = append(c.nodes, n)
	if dt, err := nodeDtype(src); err != nil {
		c.fail(err)
	} else {
		n.Dtype = dt
	}
	if c.cuts[src] {
		return n
	}
	if n.Op = decode(src); n.IsLeaf() {
		return n
	}
	if n.Dtype != c.dtype && !movesElements(n.Op) {
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
