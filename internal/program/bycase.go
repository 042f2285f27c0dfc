package program

import "slices"

// A Use is an operand's place.
type Use struct {
	Node    *Node
	Operand int
}

// ElementwiseUses lists the uses of a parameter, seen through reshapes: the nodes that it is an
// operand of, and as which. ok says that all of them are elementwise functions of two operands, and
// depend on the case. Then GradientByCase can tell what each case contributes to its gradient.
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

// CasesApart is the number of cases that GradientByCase tells apart. It is one if the program can't
// be run on a part of the batch.
func (r *Run[T]) CasesApart() int {
	if r.p.Whole != "" {
		return 1
	}
	return r.batch.cases
}

// GradientByCase adds to dst (CasesApart x n) what each case contributes to the gradient of an
// operand of n elements that does not depend on the case. uses are of the kind that ElementwiseUses
// finds. The last Reverse must have found the gradients of their nodes.
func (r *Run[T]) GradientByCase(uses []Use, dst []T) {
	for _, u := range uses {
		c := &r.calls[u.Node.index]
		c.rule.(binaryRule[T]).reverseByCase(c, u.Operand, r.CasesApart(), r.Gradient(u.Node), dst)
	}
}
