package program

import (
	"fmt"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// ByIndices picks the entries of Axis that the second operand lists.
type ByIndices struct{ Axis int }

func (o ByIndices) String() string { return fmt.Sprintf("ByIndices%d", o.Axis) }

// At picks one element.
type At struct{ Coord []int }

func (o At) String() string { return fmt.Sprintf("At%v", o.Coord) }

// byIndicesRule picks entries of an axis, such as the rows of an embedding.
type byIndicesRule[T Float] struct{ ByIndices }

func (r byIndicesRule[T]) each(c *call[T], f func(i, j, n int)) error {
	outer, all, inner := split(c.in[0].Shape, r.Axis)
	idx := c.in[1].Ints
	for _, v := range idx {
		if v < 0 || v >= all {
			return fmt.Errorf("index %d is outside axis %d of %v", v, r.Axis, c.in[0].Shape)
		}
	}
	for o := range outer {
		for i, v := range idx {
			f((o*len(idx)+i)*inner, (o*all+v)*inner, inner)
		}
	}
	return nil
}

func (r byIndicesRule[T]) forward(c *call[T]) error {
	return r.each(c, func(i, j, n int) { copy(c.out.Data[i:i+n], c.in[0].Data[j:j+n]) })
}

func (r byIndicesRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	clear(dst)
	return r.each(c, func(i, j, n int) { linalg.Axpy(1, grad[i:i+n], dst[j:j+n]) })
}

func (r byIndicesRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	return r.each(c, func(i, j, n int) { copy(dst[i:i+n], tan[0][j:j+n]) })
}

// atRule picks one element.
type atRule[T Float] struct{ At }

func (r atRule[T]) position(c *call[T]) (int, error) {
	pos := 0
	for axis, st := range strides(c.in[0].Shape) {
		if axis >= len(r.Coord) || r.Coord[axis] < 0 || r.Coord[axis] >= c.in[0].Shape[axis] {
			return 0, fmt.Errorf("coordinates %v are outside %v", r.Coord, c.in[0].Shape)
		}
		pos += r.Coord[axis] * st
	}
	return pos, nil
}

func (r atRule[T]) forward(c *call[T]) error { return r.tangent(c, [][]T{c.in[0].Data}, c.out.Data) }

func (r atRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	clear(dst)
	pos, err := r.position(c)
	if err == nil {
		dst[pos] = grad[0]
	}
	return err
}

func (r atRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	pos, err := r.position(c)
	if err == nil {
		dst[0] = tan[0][pos]
	}
	return err
}
