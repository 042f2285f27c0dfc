package program

import (
	"fmt"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

type reshapeRule[T Float] struct{}

func (reshapeRule[T]) view(c *call[T]) []T { return c.in[0].Data }

func (reshapeRule[T]) forward(c *call[T]) error {
	copy(c.out.Data, c.in[0].Data)
	return nil
}

func (reshapeRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	copy(dst, grad)
	return nil
}

func (reshapeRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	copy(dst, tan[0])
	return nil
}

// permute writes src of the given shape to dst with axis i of dst being axis perm[i] of src.
func permute[E any](dst, src []E, shape, perm []int) {
	var axes jointAxes
	switch shape, perm := axes.join(shape, perm); {
	case len(perm) < 2:
		copy(dst, src)
	case len(perm) == 2:
		linalg.Transpose(dst, src, shape[0], shape[1])
	case len(perm) == 3 && perm[0] == 0: // as from (B,H,W,C) to (B,C,H,W)
		transposeStack(dst, src, shape[0], shape[1], shape[2])
	default:
		permuteRows(dst, src, shape, perm)
	}
}

// permuteBack undoes permute: dst has the given shape, src is permuted.
func permuteBack[T Float](dst, src []T, shape, perm []int) {
	permuted, inverse := make([]int, len(perm)), make([]int, len(perm))
	for i, axis := range perm {
		permuted[i], inverse[axis] = shape[axis], i
	}
	permute(dst, src, permuted, inverse)
}

// transposeStack transposes n matrices of rows x cols.
func transposeStack[E any](dst, src []E, n, rows, cols int) {
	one := rows * cols
	parallel.Rows(n, one, func(from, to int) {
		for at := from * one; at < to*one; at += one {
			linalg.Transpose(dst[at:at+one], src[at:at+one], rows, cols)
		}
	})
}

// jointAxes makes one axis of those that stay together in a permutation. It has room for the results, up to eight axes.
type jointAxes struct{ first, sizes, shape, order [8]int }

func (a *jointAxes) join(shape, perm []int) (fewer, order []int) {
	first, sizes := a.first[:0], a.sizes[:0] // of each new axis, in the order of the result
	for i, axis := range perm {
		if i > 0 && axis == perm[i-1]+1 {
			sizes[len(sizes)-1] *= shape[axis]
			continue
		}
		first, sizes = append(first, axis), append(sizes, shape[axis])
	}
	fewer, order = append(a.shape[:0], sizes...), a.order[:0]
	for i, f := range first {
		place := 0
		for _, other := range first {
			if other < f {
				place++
			}
		}
		order = append(order, place)
		fewer[place] = sizes[i]
	}
	return fewer, order
}

// permuteRows is permute, row by row of the result.
func permuteRows[E any](dst, src []E, shape, perm []int) {
	st := strides(shape)
	last := len(perm) - 1
	at := make([]int, len(perm))
	n, cols, step := size(shape), shape[perm[last]], st[perm[last]]
	for i := 0; i < n; i += cols {
		j := 0
		for a := range last {
			j += at[a] * st[perm[a]]
		}
		if step == 1 {
			copy(dst[i:i+cols], src[j:])
		} else {
			for k := range cols {
				dst[i+k] = src[j+k*step]
			}
		}
		for a := last - 1; a >= 0; a-- {
			if at[a]++; at[a] < shape[perm[a]] {
				break
			}
			at[a] = 0
		}
	}
}

type transposeRule[T Float] struct{ Transpose }

func (r transposeRule[T]) forward(c *call[T]) error {
	if c.in[0].Ints != nil {
		permute(c.out.Ints, c.in[0].Ints, c.in[0].Shape, r.Perm)
		return nil
	}
	permute(c.out.Data, c.in[0].Data, c.in[0].Shape, r.Perm)
	return nil
}

func (r transposeRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	permuteBack(dst, grad, c.in[0].Shape, r.Perm)
	return nil
}

func (r transposeRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	permute(dst, tan[0], c.in[0].Shape, r.Perm)
	return nil
}

// repeatRule repeats each element along an axis, so that position i of the result is position i/times of the operand.
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

// sizeOfRule gives the length of an axis. It does not depend on the operand's elements.
type sizeOfRule[T Float] struct{ SizeOf }

func (r sizeOfRule[T]) forward(c *call[T]) error {
	c.out.Data[0] = 1
	if s := c.in[0].Shape; r.Axis < len(s) {
		c.out.Data[0] = T(s[r.Axis])
	}
	return nil
}

func (r sizeOfRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	clear(dst)
	return nil
}

func (r sizeOfRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	clear(dst)
	return nil
}

type sliceRule[T Float] struct{ Slice }

// each calls f with each run of elements of the slice: its position in the result, in the operand, and its length.
func (r sliceRule[T]) each(c *call[T], f func(i, j, n int)) error {
	shape := c.in[0].Shape
	outer, all, inner := split(shape, r.Axis)
	start, end, step := 0, all, 1
	if s := r.Slice.Slice(); s != nil && s.End() > s.Start() {
		start, end, step = s.Start(), min(s.End(), all), max(s.Step(), 1)
	}
	count := (end - start + step - 1) / step
	if outer*count*inner != size(c.out.Shape) {
		return fmt.Errorf("slice %d:%d:%d of axis %d of %v does not have the graph's shape %v", start, end, step, r.Axis, shape, c.out.Shape)
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

type concatRule[T Float] struct{ Concat }

// each calls f with each run of elements: the operand it is from, its positions in the result and in the operand, its length.
func (r concatRule[T]) each(c *call[T], f func(k, i, j, n int)) {
	outer, all, inner := split(c.out.Shape, r.Axis)
	at := 0
	for k, in := range c.in {
		n := in.Shape[r.Axis] * inner
		for o := range outer {
			f(k, (o*all+at)*inner, o*n, n)
		}
		at += in.Shape[r.Axis]
	}
}

func (r concatRule[T]) forward(c *call[T]) error {
	r.each(c, func(k, i, j, n int) {
		if c.in[k].Ints != nil {
			copy(c.out.Ints[i:i+n], c.in[k].Ints[j:j+n])
		} else {
			copy(c.out.Data[i:i+n], c.in[k].Data[j:j+n])
		}
	})
	return nil
}

func (r concatRule[T]) reverse(c *call[T], operand int, grad, dst []T) error {
	r.each(c, func(k, i, j, n int) {
		if k == operand {
			copy(dst[j:j+n], grad[i:i+n])
		}
	})
	return nil
}

func (r concatRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	r.each(c, func(k, i, j, n int) {
		if tan[k] == nil {
			clear(dst[i : i+n])
		} else {
			copy(dst[i:i+n], tan[k][j:j+n])
		}
	})
	return nil
}

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
