package layers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A view is what a user of a parameter sees of it: some of its elements, in some order.
// Views of the same elements by the same way are equal where their keys are.
type view struct {
	param *program.Node
	path  []*program.Node // reshapes, slices and transposes, from the parameter on

	// Of a stack of so many matrices or biases the view is one. 0: it is no stack.
	pieces, piece int
}

// behind is the view behind a node that only moves elements of this one.
func (v view) behind(n *program.Node) view {
	v.path = append(slices.Clip(v.path), n)
	return v
}

// movesOnly reports whether a node holds elements of its first operand in other places.
func movesOnly(n *program.Node) bool {
	switch n.Op.(type) {
	case program.Reshape, program.Slice, program.Transpose:
		return true
	}
	return false
}

// viewAt is the view of a parameter that a node holds, or ok is false if it holds none.
func viewAt(n *program.Node, isParam map[*program.Node]bool) (v view, ok bool) {
	for !isParam[n] {
		if !movesOnly(n) {
			return v, false
		}
		v.path = append(v.path, n)
		n = n.Kids[0]
	}
	slices.Reverse(v.path)
	v.param = n
	return v, true
}

// A fringe is a view, and a user of it that computes something.
type fringe struct {
	view view
	user *program.Node
}

// fringesOf lists the users of a view, seen through all that only moves elements.
func fringesOf(v view, n *program.Node) (all []fringe) {
	for _, u := range distinct(n.Users) {
		if movesOnly(u) {
			all = append(all, fringesOf(v.behind(u), u)...)
		} else if _, isSize := u.Op.(program.SizeOf); !isSize {
			all = append(all, fringe{v, u})
		}
	}
	return all
}

// of is one of the pieces of a stack.
func (v view) of(pieces, piece int) view {
	v.pieces, v.piece = pieces, piece
	return v
}

// key says which elements the view holds. It is empty for all, as they lie.
func (v view) key() string {
	var b strings.Builder
	for _, n := range v.path {
		switch op := n.Op.(type) {
		case program.Slice:
			if c := cutOf(n, op); !c.all() {
				fmt.Fprintf(&b, "%d of %v from %d to %d by %d, ", op.Axis, n.Kids[0].Shape, c.start, c.end, c.step)
			}
		case program.Transpose:
			if longAxes(n.Shape) > 1 {
				fmt.Fprintf(&b, "%v of %v, ", op.Perm, n.Kids[0].Shape)
			}
		}
	}
	if v.pieces > 0 {
		fmt.Fprintf(&b, "%d of %d", v.piece, v.pieces)
	}
	return b.String()
}

// name is how the view is called behind the parameter's name.
func (v view) name() (s string) {
	var cuts []string // of the axes
	flush := func() {
		for len(cuts) > 0 && cuts[len(cuts)-1] == ":" {
			cuts = cuts[:len(cuts)-1]
		}
		if len(cuts) > 0 {
			s += "[" + strings.Join(cuts, ", ") + "]"
		}
		cuts = nil
	}
	var left []int // axes of cuts that there still are
	for _, n := range v.path {
		op, isSlice := n.Op.(program.Slice)
		if !isSlice {
			flush()
			continue
		}
		if cuts == nil {
			left = nil
			for i := range n.Kids[0].Shape {
				cuts, left = append(cuts, ":"), append(left, i)
			}
		}
		c := cutOf(n, op)
		if dropped := len(n.Shape) < len(n.Kids[0].Shape); dropped {
			cuts[left[op.Axis]] = fmt.Sprint(c.start)
			left = slices.Delete(left, op.Axis, op.Axis+1)
		} else if !c.all() {
			cuts[left[op.Axis]] = c.String()
		}
	}
	flush()
	if v.pieces > 0 {
		s += fmt.Sprintf("[%d]", v.piece)
	}
	return s
}

// elements lists the places in the parameter of what the view holds.
func (v view) elements() []int {
	at := make([]int, v.param.Size())
	for i := range at {
		at[i] = i
	}
	for _, n := range v.path {
		switch op := n.Op.(type) {
		case program.Slice:
			at = cutOf(n, op).of(at, size(n.Kids[0].Shape[op.Axis+1:]))
		case program.Transpose:
			at = permuted(at, n.Kids[0].Shape, op.Perm)
		}
	}
	return v.pieceOf(at)
}

// pieceOf is the view's piece of a stack, or all if it is no stack.
func (v view) pieceOf(at []int) []int {
	if v.pieces == 0 {
		return at
	}
	n := len(at) / v.pieces
	return at[v.piece*n : (v.piece+1)*n]
}

// A cut is what a slice takes of an axis of the given length.
type cut struct{ start, end, step, length int }

func cutOf(n *program.Node, op program.Slice) cut {
	c := cut{0, n.Kids[0].Shape[op.Axis], 1, n.Kids[0].Shape[op.Axis]}
	if s := op.Slice(); s != nil && s.End() > s.Start() {
		c.start, c.end, c.step = s.Start(), min(s.End(), c.length), max(s.Step(), 1)
	}
	return c
}

func (c cut) all() bool { return c.start == 0 && c.end == c.length && c.step == 1 }

func (c cut) String() string {
	if c.step == 1 {
		return fmt.Sprintf("%d:%d", c.start, c.end)
	}
	return fmt.Sprintf("%d:%d:%d", c.start, c.end, c.step)
}

// of takes the cut of an axis behind which an index has the given number of elements.
func (c cut) of(at []int, inner int) (taken []int) {
	for ; len(at) > 0; at = at[c.length*inner:] {
		for i := c.start; i < c.end; i += c.step {
			taken = append(taken, at[i*inner:(i+1)*inner]...)
		}
	}
	return taken
}

// permuted moves the axes of an array of the given shape.
func permuted(at, shape, perm []int) (moved []int) {
	var visit func(axis, from int)
	visit = func(axis, from int) {
		if axis == len(perm) {
			moved = append(moved, at[from])
			return
		}
		for i := range shape[perm[axis]] {
			visit(axis+1, from+i*size(shape[perm[axis]+1:]))
		}
	}
	visit(0, 0)
	return moved
}

// A seen is a slice as it was when a view was taken through it.
// The user may move it (gorgonia.UnsafeLet).
type seen struct {
	node *program.Node
	cut  cut
}

// slices are those on the view's way, as they are now.
func (v view) slices() (all []seen) {
	for _, n := range v.path {
		if op, ok := n.Op.(program.Slice); ok {
			all = append(all, seen{n, cutOf(n, op)})
		}
	}
	return all
}

func (s seen) moved() bool { return cutOf(s.node, s.node.Op.(program.Slice)) != s.cut }
