package layers

import (
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// biasOf is the view that every use of the layer adds, if there is one.
func biasOf(l *Layer, p *program.Program, isParam map[*program.Node]bool) (bias view, ok bool) {
	for i, s := range l.Sites {
		v, ok := addedBias(s, l.Out, p, isParam)
		if !ok || s.isEmbedding() || i > 0 && (v.param != bias.param || v.key() != bias.key()) {
			return view{}, false
		}
		bias = v
	}
	return bias, len(l.Sites) > 0 && bias.isOf(len(l.Sites))
}

// isOf reports whether so many users see the elements of the view, by this view, and no other.
func (v view) isOf(users int) bool {
	all := v.of(0, 0)
	key, mine := all.key(), []*program.Node{}
	others := map[string]view{}
	for _, f := range fringesOf(view{param: v.param}, v.param) {
		if k := f.view.key(); k == key {
			mine = append(mine, f.user)
		} else {
			others[k] = f.view
		}
	}
	if len(distinct(mine)) != users || key == "" && len(others) > 0 {
		return false
	}
	var t taken
	if len(others) > 0 {
		t.take(all.elements(), v.param.Size())
	}
	for _, o := range others {
		if t.overlaps(o.elements()) {
			return false
		}
	}
	return true
}

// addedBias is the view of one element per output that a product is added to.
// It has to be added at every position alike.
// Other things may be added too, and the axes be moved in between.
// But nothing beside the sum may depend on the product: then both have the same gradient.
func addedBias(s Site, out int, p *program.Program, isParam map[*program.Node]bool) (bias view, ok bool) {
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
				return bias, false
			}
			if v, ok := viewAt(other, isParam); ok && s.isBias(other, out, features, user) {
				return v.of(s.Stack, s.Place), true
			}
		default:
			return bias, false
		}
		if features < 0 || s.Stack > 0 && !isBinary(user, "+") {
			return bias, false
		}
		n = user
	}
	return bias, false
}

// isBias reports whether a summand has one element per output, for each product of a stack.
func (s Site) isBias(summand *program.Node, out, features int, sum *program.Node) bool {
	if s.Stack == 0 {
		return summand.Size() == out && (s.Rows == 1 || onAxis(summand, features, sum))
	}
	stack := len(sum.Shape) - 2 // axes of the stack
	return summand.Size() == out*s.Stack && len(summand.Shape) == len(sum.Shape) &&
		slices.Equal(summand.Shape[:stack], sum.Shape[:stack]) && summand.Shape[features] == out
}

// onAxis reports whether the summand's elements lie along the given axis of the sum.
func onAxis(summand *program.Node, axis int, sum *program.Node) bool {
	if summand.Size() == 1 {
		return true
	}
	return len(summand.Shape) == len(sum.Shape) && summand.Shape[axis] == summand.Size()
}
