package layers

import (
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// biasOf is the bias that every use of the layer adds, or nil.
func biasOf(l *Layer, p *program.Program, isParam map[*program.Node]bool) *program.Node {
	var bias *program.Node
	for i, s := range l.Sites {
		b := addedBias(s, l.Out, p, isParam)
		if b == nil || s.isEmbedding() || i > 0 && b != bias {
			return nil
		}
		bias = b
	}
	if bias == nil || len(distinct(usersBehindReshapes(bias))) != len(l.Sites) {
		return nil // it is added elsewhere too
	}
	return bias
}

// usersBehindReshapes are the users of a parameter, seen through reshapes.
func usersBehindReshapes(n *program.Node) (users []*program.Node) {
	for _, u := range n.Users {
		if _, ok := u.Op.(program.Reshape); ok {
			users = append(users, usersBehindReshapes(u)...)
		} else {
			users = append(users, u)
		}
	}
	return users
}

// addedBias is the parameter of one element per output that a product is added to.
// It has to be added at every position alike.
// Other things may be added too, and the axes be moved in between.
// But nothing beside the sum may depend on the product: then both have the same gradient.
func addedBias(s Site, out int, p *program.Program, isParam map[*program.Node]bool) *program.Node {
	n, features := s.Output, s.features()
	for len(n.Users) == 1 && !slices.Contains(p.Outputs, n) {
		user := n.Users[0]
		switch op := user.Op.(type) {
		case program.Reshape:
			features = reshaped(n.Shape, features, user.Shape)
		case program.Transpose:
			features = slices.Index(op.Perm, features)
		case program.Binary:
			other := user.Kids[0]
			if other == n {
				other = user.Kids[1]
			}
			if op.Kind != "+" || other == n || user.Size() != n.Size() {
				return nil
			}
			b := summand(other, isParam)
			if b != nil && other.Size() == out && (s.Rows == 1 || onAxis(other, features, user)) {
				return b
			}
		default:
			return nil
		}
		if features < 0 {
			return nil
		}
		n = user
	}
	return nil
}

// summand is the parameter that is added, perhaps reshaped, or nil.
func summand(n *program.Node, isParam map[*program.Node]bool) *program.Node {
	for !isParam[n] {
		if _, ok := n.Op.(program.Reshape); !ok {
			return nil
		}
		n = n.Kids[0]
	}
	return n
}

// onAxis reports whether the summand's elements lie along the given axis of the sum.
func onAxis(summand *program.Node, axis int, sum *program.Node) bool {
	if summand.Size() == 1 {
		return true
	}
	return len(summand.Shape) == len(sum.Shape) && summand.Shape[axis] == summand.Size()
}
