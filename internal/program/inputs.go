package program

import (
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Inputs are copies of the values that some inputs of a graph held at one moment, to be run later
// ([Run.Use]). The zero value holds none.
type Inputs[T Float] struct {
	floats map[*gorgonia.Node][]T // own memory, or another's
	ints   map[*gorgonia.Node][]int
	own    map[*gorgonia.Node][]T
}

// Save copies the values of all inputs of p but constants and those that skip reports. Memory is
// kept from one Save to the next.
//
// What equals the copy in like, which may be nil, shares its memory. So like must not be saved to
// while in is in use.
func (in *Inputs[T]) Save(p *Program, skip func(*gorgonia.Node) bool, like *Inputs[T]) error {
	in.prepare()
	for _, n := range p.Nodes {
		if !n.IsLeaf() || n.Src.Op() != nil {
			continue
		}
		if skip(n.Src) { // also if it was not, the last time
			delete(in.floats, n.Src)
			delete(in.ints, n.Src)
			continue
		}
		if err := in.save(n, p.dtype, like); err != nil {
			return &OpError{n.Op.String(), n.Name(), "read", err}
		}
	}
	return nil
}

func (in *Inputs[T]) prepare() {
	if in.own == nil {
		in.floats = map[*gorgonia.Node][]T{}
		in.own = map[*gorgonia.Node][]T{}
		in.ints = map[*gorgonia.Node][]int{}
	}
}

func (in *Inputs[T]) save(n *Node, dt tensor.Dtype, like *Inputs[T]) error {
	v, err := valueOf(n)
	if err != nil {
		return err
	}
	if n.Dtype != dt {
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

// read gives a leaf its value: what it is bound to, or else what in has of it, or else the user's.
// in may be nil.
func (in *Inputs[T]) read(c *call[T], rows []int) error {
	if !c.holdsFloats() {
		return in.readIntegers(c, rows)
	}
	data := c.bound
	if data == nil && in != nil {
		data = in.floats[c.node.Src]
	}
	if data == nil {
		v, err := valueOf(c.node)
		if err != nil {
			return err
		}
		if data, err = floats[T](v, c.node.Shape); err != nil {
			return err
		}
	}
	if rows == nil || c.node.CaseAxis < 0 {
		c.out.Data = data
		return nil
	}
	c.out.Data = c.value.sized(size(c.out.Shape))
	pickCases(c.out.Data, data, c.node, c.batch.all, rows)
	return nil
}

// readIntegers is read for an integer leaf, such as the indices of a lookup.
func (in *Inputs[T]) readIntegers(c *call[T], rows []int) error {
	ints, err := in.integers(c)
	if err != nil {
		return err
	}
	c.out.Ints = ints
	if rows != nil && c.node.CaseAxis >= 0 {
		c.out.Ints = c.intBuf(0, size(c.out.Shape))
		pickCases(c.out.Ints, ints, c.node, c.batch.all, rows)
	}
	return nil
}

// integers is the value of an integer leaf for the whole batch.
func (in *Inputs[T]) integers(c *call[T]) ([]int, error) {
	if in != nil {
		if ints, ok := in.ints[c.node.Src]; ok {
			return ints, nil
		}
	}
	v, err := valueOf(c.node)
	if err != nil {
		return nil, err
	}
	c.ints, err = integers(v, c.node.Shape, c.ints)
	return c.ints, err
}
