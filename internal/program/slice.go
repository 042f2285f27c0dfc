package program

import (
	"fmt"

	"gorgonia.org/tensor"
)

// Slice is x[..., Start:End:Step, ...] along Axis. The slice is read from the user's op at each
// run, since gorgonia.UnsafeLet changes it in place.
type Slice struct {
	Axis  int
	Slice func() tensor.Slice
}

func (o Slice) String() string { return fmt.Sprintf("Slice%d", o.Axis) }

type sliceRule[T Float] struct{ Slice }

// each calls f with each run of elements of the slice: its positions in the result and in the
// operand, and its length.
func (r sliceRule[T]) each(c *call[T], f func(i, j, n int)) error {
	shape := c.in[0].Shape
	outer, all, inner := split(shape, r.Axis)
	start, end, step := 0, all, 1
	if s := r.Slice.Slice(); s != nil && s.End() > s.Start() {
		start, end, step = s.Start(), min(s.End(), all), max(s.Step(), 1)
	}
	count := (end - start + step - 1) / step
	if outer*count*inner != size(c.out.Shape) {
		return fmt.Errorf("slice %d:%d:%d of axis %d of %v does not have the graph's shape %v",
			start, end, step, r.Axis, shape, c.out.Shape)
	}
	for o := range outer {
		if step == 1 {
			f(o*count*inner, (o*all+start)*inner, count*inner)
			continue
		}
		for i := range count {
			f((o*count+i)*inner, (o*all+start+i*step)*inner, inner)
		}
	}
	return nil
}

func (r sliceRule[T]) forward(c *call[T]) error {
	if c.in[0].Ints != nil {
		return r.each(c, func(i, j, n int) { copy(c.out.Ints[i:i+n], c.in[0].Ints[j:j+n]) })
	}
	return r.each(c, func(i, j, n int) { copy(c.out.Data[i:i+n], c.in[0].Data[j:j+n]) })
}

func (r sliceRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	clear(dst)
	return r.each(c, func(i, j, n int) { copy(dst[j:j+n], grad[i:i+n]) })
}

func (r sliceRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	return r.each(c, func(i, j, n int) { copy(dst[i:i+n], tan[0][j:j+n]) })
}
