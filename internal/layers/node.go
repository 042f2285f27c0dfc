package layers

import (
	"cmp"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// byAge orders nodes as the user made them, so that the order of a list does not matter.
func byAge(a, b *program.Node) int { return cmp.Compare(a.Src.ID(), b.Src.ID()) }

// distinct lists each node once, where it comes first.
func distinct(nodes []*program.Node) (out []*program.Node) {
	for _, n := range nodes {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func size(shape []int) int {
	s := 1
	for _, d := range shape {
		s *= d
	}
	return s
}

// longAxes counts the axes that are longer than 1.
func longAxes(shape []int) (long int) {
	for _, d := range shape {
		if d > 1 {
			long++
		}
	}
	return long
}

// reshaped is the axis of the shape to that an axis of the shape from has become, or -1.
func reshaped(from []int, axis int, to []int) int {
	inner := size(from[axis+1:])
	for i := range to {
		if to[i] == from[axis] && size(to[i+1:]) == inner {
			return i
		}
	}
	return -1
}

// beforeReshapes is the node that n is a reshaping of, or n.
func beforeReshapes(n *program.Node) *program.Node {
	for {
		if _, ok := n.Op.(program.Reshape); !ok {
			return n
		}
		n = n.Kids[0]
	}
}

func isBinary(n *program.Node, kind string) bool {
	op, ok := n.Op.(program.Binary)
	return ok && op.Kind == kind
}
