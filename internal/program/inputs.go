package program

import (
	"slices"

	"gorgonia.org/gorgonia"
)

// Inputs are copies of the values that some inputs of a graph held at one moment, to be run later ([Run.Use]). The zero value holds none.
type Inputs[T Float] struct {
	floats map[*gorgonia.Node][]T // own memory, or another's
	ints   map[*gorgonia.Node][]int
	own    map[*gorgonia.Node][]T
}

// Save copies the values of all inputs of p but constants and those that skip reports. What equals the copy in like, which may be nil, shares its
// memory, so that like must not be saved to while in is in use. Memory is kept from one Save to the next.
func (in *Inputs[T]) Save(p *Program, skip func(*gorgonia.Node) bool, like *Inputs[T]) error {
	if in.own == nil {
		in.floats, in.own, in.ints = map[*gorgonia.Node][]T{}, map[*gorgonia.Node][]T{}, map[*gorgonia.Node][]int{}
	}
	for _, n := range p.Nodes {
		if !n.IsLeaf() || n.Src.Op() != nil {
			continue
		}
		if skip(n.Src) { // also if it was not, the last time
			delete(in.floats, n.Src)
			delete(in.ints, n.Src)
			continue
		}
		if err := in.save(n, p, like); err != nil {
			return &OpError{n.Op.String(), n.Name(), "read", err}
		}
	}
	return nil
}

func (in *Inputs[T]) save(n *Node, p *Program, like *Inputs[T]) error {
	v, err := valueOf(n)
	if err != nil {
		return err
	}
	if n.Dtype != p.dtype {
		in.ints[n.Src], err = integers(v, n.Shape, in.ints[n.Src])
		return err
	}
	data, err := floats[T](v, n.Shape)
	if err != nil {
		return err
	}
	if like != nil && slices.Equal(like.floats[n.Src], data) {
		in.floats[n.Src] = like.floats[n.Src]
		return nil
	}
	in.own[n.Src] = append(in.own[n.Src][:0], data...)
	in.floats[n.Src] = in.own[n.Src]
	return nil
}

// Use lets the following runs take the values of inputs from in where it has them, and from the user's tensors again if in is nil. What a leaf
// is bound to comes first.
func (r *Run[T]) Use(in *Inputs[T]) { r.inputs = in }
