package program

import (
	"fmt"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/kernels"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// Sum adds up along the axes Along.
type Sum struct{ Along []int }

func (o Sum) String() string { return fmt.Sprintf("Sum%v", o.Along) }

// Max is the maximum along the axes Along.
type Max struct{ Along []int }

func (o Max) String() string { return fmt.Sprintf("Max%v", o.Along) }

// reduction walks over the elements of an operand and the positions that they are reduced to.
type reduction struct {
	shape  []int // of the operand
	stride []int // in the result, 0 along reduced axes
}

func reductionOf[T Float](c *call[T], along []int) reduction {
	shape := c.in[0].Shape
	r := reduction{shape, c.intBuf(0, len(shape))}
	for i, d := len(shape)-1, 1; i >= 0; i-- {
		r.stride[i] = 0
		if !slices.Contains(along, i) {
			r.stride[i] = d
			d *= shape[i]
		}
	}
	return r
}

// each calls f for each row of the operand, along its last axis: where it starts, its length, the
// position in the result of its first element, and the step there from one element to the next. The
// step is 0 if the last axis is reduced.
func (r reduction) each(f func(at, n, to, step int)) {
	last := len(r.shape) - 1
	if last < 0 {
		f(0, 1, 0, 0)
		return
	}
	n := r.shape[last]
	for row := range size(r.shape[:last]) {
		to := 0
		for axis, rest := last-1, row; axis >= 0; axis-- {
			to += rest % r.shape[axis] * r.stride[axis]
			rest /= r.shape[axis]
		}
		f(row*n, n, to, r.stride[last])
	}
}

type sumRule[T Float] struct{ Sum }

// add sums in float64. A cost is often the float32 sum of very many terms, of which small
// differences matter.
func (r sumRule[T]) add(c *call[T], src, dst []T) {
	sums := c.sums(len(dst))
	clear(sums)
	reductionOf(c, r.Along).each(func(at, n, to, step int) {
		if step == 0 {
			sums[to] += kernels.Sum(src[at : at+n])
			return
		}
		for _, v := range src[at : at+n] {
			sums[to] += float64(v)
			to += step
		}
	})
	linalg.Convert(dst, sums)
}

func (r sumRule[T]) forward(c *call[T]) error {
	r.add(c, c.in[0].Data, c.out.Data)
	return nil
}

func (r sumRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	reductionOf(c, r.Along).each(func(at, n, to, step int) {
		for i := range dst[at : at+n] {
			dst[at+i] = grad[to]
			to += step
		}
	})
	return nil
}

func (r sumRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	r.add(c, tan[0], dst)
	return nil
}

// maxRule finds maxima. Where several elements are the largest, each has the derivative 1, as in
// Gorgonia.
type maxRule[T Float] struct{ Max }

func (r maxRule[T]) forward(c *call[T]) error {
	out, seen := c.out.Data, c.intBuf(1, len(c.out.Data))
	clear(seen)
	reductionOf(c, r.Along).each(func(at, n, to, step int) {
		for _, v := range c.in[0].Data[at : at+n] {
			if seen[to] == 0 || v > out[to] || v != v {
				out[to], seen[to] = v, 1
			}
			to += step
		}
	})
	return nil
}

func (r maxRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	reductionOf(c, r.Along).each(func(at, n, to, step int) {
		for i, v := range c.in[0].Data[at : at+n] {
			dst[at+i] = 0
			if v == c.out.Data[to] {
				dst[at+i] = grad[to]
			}
			to += step
		}
	})
	return nil
}

func (r maxRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	clear(dst)
	reductionOf(c, r.Along).each(func(at, n, to, step int) {
		for i, v := range c.in[0].Data[at : at+n] {
			if v == c.out.Data[to] {
				dst[to] += tan[0][at+i]
			}
			to += step
		}
	})
	return nil
}
