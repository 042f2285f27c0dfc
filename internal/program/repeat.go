package program

import "fmt"

// Repeat repeats each element along Axis as often as the second operand says.
type Repeat struct{ Axis int }

func (o Repeat) String() string { return fmt.Sprintf("Repeat%d", o.Axis) }

// repeatRule repeats each element along an axis: position i of the result is position i/times of
// the operand.
type repeatRule[T Float] struct{ Repeat }

// sizes gives the result as outer x (n x times) x inner.
func (r repeatRule[T]) sizes(c *call[T]) (outer, n, times, inner int) {
	if len(c.in[0].Data) == 0 {
		return 0, 0, 0, 0
	}
	times = len(c.out.Data) / len(c.in[0].Data)
	shape, axis := c.out.Shape, min(r.Axis, max(len(c.out.Shape)-1, 0))
	if len(shape) == 0 {
		return 1, 1, times, 1
	}
	outer, all, inner := split(shape, axis)
	return outer, all / times, times, inner
}

func (r repeatRule[T]) spread(c *call[T], src, dst []T) {
	outer, n, times, inner := r.sizes(c)
	for o := range outer * n {
		from := src[o*inner : (o+1)*inner]
		for t := range times {
			copy(dst[(o*times+t)*inner:], from)
		}
	}
}

func (r repeatRule[T]) forward(c *call[T]) error {
	r.spread(c, c.in[0].Data, c.out.Data)
	return nil
}

func (r repeatRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	clear(dst)
	if k != 0 {
		return nil
	}
	outer, n, times, inner := r.sizes(c)
	for o := range outer * n {
		to := dst[o*inner : (o+1)*inner]
		for t := range times {
			for i, g := range grad[(o*times+t)*inner:][:inner] {
				to[i] += g
			}
		}
	}
	return nil
}

func (r repeatRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	if tan[0] == nil {
		clear(dst)
		return nil
	}
	r.spread(c, tan[0], dst)
	return nil
}
