package program

import (
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// An Output is what a distribution takes for an output of a model: a node as it is, with another of
// its axes last, or several nodes of one shape side by side along the last axis. Vectors and
// scalars that stand side by side have a case in each element.
type Output struct {
	Nodes []*gorgonia.Node
	Last  int // the axis of the only node that comes last; 0: the node as it is
}

// plain are outputs that are nodes as they are.
func plain(nodes []*gorgonia.Node) []Output {
	outputs := make([]Output, len(nodes))
	for i := range nodes {
		outputs[i].Nodes = nodes[i : i+1 : i+1]
	}
	return outputs
}

// isPlain reports whether the output is a node as it is.
func (o Output) isPlain() bool { return len(o.Nodes) == 1 && o.Last == 0 }

// Shape is the output's.
func (o Output) Shape() []int {
	shape := []int(o.Nodes[0].Shape())
	switch {
	case o.Last > 0:
		return permuted(shape, o.perm())
	case len(o.Nodes) > 1:
		shape = side(shape)
		shape[len(shape)-1] *= len(o.Nodes)
	}
	return shape
}

// side is the shape in which nodes stand side by side.
func side(shape []int) []int {
	if len(shape) < 2 {
		return []int{size(shape), 1}
	}
	return slices.Clone(shape)
}

// perm has the axis that comes last at the end.
func (o Output) perm() []int {
	var perm []int
	for axis := range o.Nodes[0].Dims() {
		if axis != o.Last {
			perm = append(perm, axis)
		}
	}
	return append(perm, o.Last)
}

// join is the node of the output, made of the copies of its nodes.
func (o Output) join(bySrc map[*gorgonia.Node]*Node) *Node {
	if o.isPlain() {
		return bySrc[o.Nodes[0]]
	}
	joined := o.made(bySrc[o.Nodes[0]])
	if o.Last > 0 {
		joined.Op, joined.Kids = Transpose{o.perm()}, []*Node{bySrc[o.Nodes[0]]}
		return joined
	}
	joined.Op = Concat{len(joined.Shape) - 1}
	for _, src := range o.Nodes {
		part := bySrc[src]
		if len(part.Shape) < 2 {
			part = &Node{Src: new(gorgonia.Node), Op: Reshape{}, Kids: []*Node{part}, Shape: side(part.Shape),
				Dtype: part.Dtype, CaseAxis: -1}
		}
		joined.Kids = append(joined.Kids, part)
	}
	return joined
}

// made is a node of the output's that stands for none of the user's.
func (o Output) made(like *Node) *Node {
	return &Node{Src: new(gorgonia.Node), Op: Leaf{}, Shape: o.Shape(), Dtype: like.Dtype, CaseAxis: -1}
}

// cut is the input in the place of the output: its nodes, where they are there, are made of it. It
// is nil if none is there.
func (o Output) cut(bySrc map[*gorgonia.Node]*Node) (leaf *Node) {
	if o.isPlain() {
		return bySrc[o.Nodes[0]]
	}
	for i, src := range o.Nodes {
		n := bySrc[src]
		if n == nil {
			continue
		}
		if leaf == nil {
			leaf = o.made(n)
		}
		n.Kids = []*Node{leaf}
		if o.Last > 0 {
			n.Op = Transpose{inverse(o.perm())}
			continue
		}
		last := len(leaf.Shape) - 1
		width := leaf.Shape[last] / len(o.Nodes)
		n.Op = Slice{last, func() tensor.Slice { return gorgonia.S(i*width, (i+1)*width) }}
	}
	return leaf
}

// Joined lays out as an output what its nodes have, by their order.
func Joined[T Float](o Output, parts [][]T) []T {
	switch {
	case o.isPlain():
		return parts[0]
	case o.Last > 0:
		joined := make([]T, len(parts[0]))
		permute(joined, parts[0], o.Nodes[0].Shape(), o.perm())
		return joined
	}
	joined := make([]T, 0, len(o.Nodes)*len(parts[0]))
	shape := side(o.Nodes[0].Shape())
	for width, at := shape[len(shape)-1], 0; at < len(parts[0]); at += width {
		for _, part := range parts {
			joined = append(joined, part[at:at+width]...)
		}
	}
	return joined
}

// Parted is the inverse of Joined.
func Parted[T Float](o Output, joined []T) [][]T {
	switch {
	case o.isPlain():
		return [][]T{joined}
	case o.Last > 0:
		part := make([]T, len(joined))
		permuteBack(part, joined, o.Nodes[0].Shape(), o.perm())
		return [][]T{part}
	}
	parts := make([][]T, len(o.Nodes))
	shape := side(o.Nodes[0].Shape())
	for width, at := shape[len(shape)-1], 0; at < len(joined); {
		for i := range parts {
			parts[i] = append(parts[i], joined[at:at+width]...)
			at += width
		}
	}
	return parts
}
