package program

import (
	"fmt"
	"strings"

	"gorgonia.org/gorgonia"
)

// NameOf is the name that the user gave to a node. Gorgonia makes one like "%!s(<nil>)()" where an
// input has none, of which its shape says more, and one like "+ false(%12, %16)" where a node is
// computed. That is put in words: "the sum of h and b1".
func NameOf(n *gorgonia.Node) string {
	name := n.Name()
	switch op := n.Op(); {
	case strings.HasPrefix(name, "%!s(<nil>)"):
		return "unnamed " + FormatShape(n.Shape())
	case op != nil && strings.HasPrefix(name, op.String()+"("):
		operands := operandsOf(n)
		if len(operands) == 0 {
			return fmt.Sprintf("a %s %s", nounOf(n), FormatShape(n.Shape()))
		}
		words := make([]string, len(operands))
		for i, k := range operands {
			words[i] = mention(k)
		}
		return fmt.Sprintf("the %s of %s", nounOf(n), strings.Join(words, " and "))
	}
	return name
}

// mention is the name of a node within that of another.
func mention(n *gorgonia.Node) string {
	for {
		switch decode(n).(type) {
		case Reshape, Repeat, Transpose:
			if operands := operandsOf(n); len(operands) > 0 {
				n = operands[0]
				continue
			}
		}
		break
	}
	if op := n.Op(); op == nil || !strings.HasPrefix(n.Name(), op.String()+"(") {
		return NameOf(n)
	}
	noun := nounOf(n)
	if strings.ContainsAny(noun[:1], "aeiou") {
		return "an " + noun
	}
	return "a " + noun
}

// operandsOf are the operands of a node that is in a graph.
func operandsOf(n *gorgonia.Node) (operands []*gorgonia.Node) {
	if n.Graph() == nil {
		return nil
	}
	// A subgraph of its own, as in copyAncestors.
	for it := n.Graph().ExactSubgraphRoots(n).From(n.ID()); it.Next(); {
		if k, ok := it.Node().(*gorgonia.Node); ok {
			operands = append(operands, k)
		}
	}
	return operands
}

// nounOf is what a node computes.
func nounOf(n *gorgonia.Node) string {
	switch op := decode(n).(type) {
	case Binary:
		nouns := map[string]string{"+": "sum", "-": "difference", "⊙": "product", "÷": "quotient", "^": "power",
			"max": "maximum", "min": "minimum"}
		if noun := nouns[op.Kind]; noun != "" {
			return noun
		}
		return "comparison"
	case Unary:
		nouns := map[string]string{"neg": "negative", "ln": "logarithm", "log2": "binary logarithm", "inv": "inverse",
			"abs": "absolute value", "sqrt": "square root", "invSqrt": "inverse square root"}
		if noun := nouns[op.Kind]; noun != "" {
			return noun
		}
		return op.Kind
	case MatMul, MatVec, BatchedMatMul, Tensordot:
		return "matrix product"
	case VecDot:
		return "inner product"
	case OuterProd:
		return "outer product"
	case SoftMax:
		return op.String()
	case Sum:
		return "total"
	case Max:
		return "maximum"
	}
	kind := strings.TrimSuffix(typeName(n.Op()), "Op")
	return strings.ToLower(kind[:1]) + kind[1:]
}
