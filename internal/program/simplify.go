package program

import "slices"

// simplify lets nodes do by themselves what other nodes do for them:
//
//   - an elementwise op broadcasts, so no Repeat along an axis of length 1 is needed before it;
//   - a matrix product transposes its operands;
//   - a rectifier, which Gorgonia makes of a comparison and a product, is one node.
//
// The nodes may come in any order. What the first pass does to a node depends on the Repeats or
// Transposes before it, which it does not change. What the second pass does depends on the
// comparison before it, which it does not change either.
func simplify(nodes []*Node) {
	for _, n := range nodes {
		switch op := n.Op.(type) {
		case Binary:
			for i, k := range n.Kids {
				n.Kids[i] = beforeRepeats(k, len(n.Shape))
			}
		case MatMul:
			a, flipA := beforeTranspose(n.Kids[0])
			b, flipB := beforeTranspose(n.Kids[1])
			n.Kids = []*Node{a, b}
			n.Op = MatMul{op.TransA != flipA, op.TransB != flipB}
		}
	}
	for _, n := range nodes {
		if x := rectified(n); x != nil {
			n.Op, n.Kids = Unary{"rectify"}, []*Node{x}
		}
	}
}

// beforeRepeats is what n repeats along axes of length 1, or n itself. It has dims axes.
func beforeRepeats(n *Node, dims int) *Node {
	for {
		r, ok := n.Op.(Repeat)
		if !ok || len(n.Kids[0].Shape) != dims || len(n.Shape) != dims || n.Kids[0].Shape[r.Axis] != 1 {
			return n
		}
		n = n.Kids[0]
	}
}

// beforeTranspose is the matrix that n transposes, if it does, and whether n is its transpose.
func beforeTranspose(n *Node) (*Node, bool) {
	if t, ok := n.Op.(Transpose); ok && slices.Equal(t.Perm, []int{1, 0}) {
		k, flip := beforeTranspose(n.Kids[0])
		return k, !flip
	}
	return n, false
}

// rectified is x where n is x ⊙ (x >= 0), as gorgonia.Rectify has it, and else nil. Where x is
// broadcast the two ops remain: a rectifier does not broadcast.
func rectified(n *Node) *Node {
	if n.Op != (Binary{"⊙"}) || n.Kids[1].Op != (Binary{">="}) {
		return nil
	}
	x, least := n.Kids[0], n.Kids[1].Kids
	if least[0] != x || !slices.Equal(x.Shape, n.Shape) {
		return nil
	}
	if least[1].Src.Op() == nil || least[1].Size() != 1 || len(least[1].Kids) > 0 {
		return nil
	}
	zero, err := least[1].Src.Op().Do()
	if err != nil || zero == nil {
		return nil
	}
	if zero.Data() == any(float32(0)) || zero.Data() == any(float64(0)) {
		return x
	}
	return nil
}
