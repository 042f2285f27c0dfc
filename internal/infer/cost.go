package infer

import (
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
)

// Costs are the scalars that may be the cost of some parameters: those that gorgonia.Grad was
// called for, whose derivative is the constant 1; where it was called for none, as with a
// LispMachine, those that nothing else is computed from. A graph that is trained has one.
func Costs(params []*gorgonia.Node) []*gorgonia.Node {
	g := params[0].Graph()
	var marked, scalars []*gorgonia.Node
	for _, n := range g.AllNodes() {
		if n.Op() == nil || isStatement(n) || !n.IsScalar() {
			continue
		}
		scalars = append(scalars, n)
		if isOne(n.Deriv()) {
			marked = append(marked, n)
		}
	}
	if len(marked) > 0 {
		return last(g, marked, marked, params)
	}
	// What a scalar is an operand of may be no scalar.
	return last(g, scalars, g.AllNodes(), params)
}

// last are those of the nodes that depend on parameters, and that none of the users is computed
// from.
func last(g *gorgonia.ExprGraph, nodes, users, params []*gorgonia.Node) (out []*gorgonia.Node) {
	// A graph of its own, since the user's may answer From with the operands of another node.
	operands := g.ExactSubgraphRoots(users...)
	below := map[*gorgonia.Node]bool{} // what a user is computed from
	trained := map[*gorgonia.Node]bool{}
	var visit func(n *gorgonia.Node) bool
	visit = func(n *gorgonia.Node) bool {
		if on, ok := trained[n]; ok {
			return on
		}
		on := slices.Contains(params, n)
		for it := operands.From(n.ID()); it.Next(); {
			if kid, ok := it.Node().(*gorgonia.Node); ok {
				if !isStatement(n) {
					below[kid] = true
				}
				on = visit(kid) || on
			}
		}
		trained[n] = on
		return on
	}
	for _, n := range users {
		visit(n)
	}
	for _, n := range nodes {
		if trained[n] && !below[n] {
			out = append(out, n)
		}
	}
	return out
}

// isStatement reports whether a node is there for what it does, such as a Read.
func isStatement(n *gorgonia.Node) bool {
	switch fmt.Sprintf("%T", n.Op()) {
	case "gorgonia.readOp", "gorgonia.letOp":
		return true
	}
	return false
}

// isOne reports whether a node is the constant 1, which Grad gives its cost.
func isOne(n *gorgonia.Node) bool {
	if n == nil || fmt.Sprintf("%T", n.Op()) != "gorgonia.constantScalar" || n.Value() == nil {
		return false
	}
	one := n.Value().Data()
	return one == any(float64(1)) || one == any(float32(1))
}
