package program

import (
	"slices"

	"gorgonia.org/tensor"
)

// IsOneHot reports whether the rows of n, along its last axis, are one-hot now. n must be an input
// that has a value, or rows picked or reshaped from one.
func IsOneHot(n *Node) bool {
	for !n.IsLeaf() {
		switch op := n.Op.(type) {
		case Reshape:
			if len(n.Kids[0].Shape) == 0 || last(n.Kids[0].Shape) != last(n.Shape) {
				return false
			}
		case Slice:
			if op.Axis == len(n.Kids[0].Shape)-1 {
				return false
			}
		default:
			return false
		}
		n = n.Kids[0]
	}
	if n.Dtype == tensor.Float32 {
		return holdsOneHot[float32](n)
	}
	return n.Dtype == tensor.Float64 && holdsOneHot[float64](n)
}

func holdsOneHot[T Float](n *Node) bool {
	v, err := valueOf(n)
	if err != nil {
		return false
	}
	data, err := floats[T](v, n.Shape)
	return err == nil && len(data) > 0 && oneHotRows(data, last(n.Shape))
}

func oneHotRows[T Float](data []T, n int) bool {
	for row := range slices.Chunk(data, n) {
		ones := 0
		for _, x := range row {
			if x != 0 && x != 1 {
				return false
			}
			ones += int(x)
		}
		if ones != 1 {
			return false
		}
	}
	return true
}
