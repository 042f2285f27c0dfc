package program

import "fmt"

// Concat joins its operands along Axis.
type Concat struct{ Axis int }

func (o Concat) String() string { return fmt.Sprintf("Concat%d", o.Axis) }

type concatRule[T Float] struct{ Concat }

// each calls f with each run of elements: the operand that it is from, its positions in the result
// and in the operand, and its length.
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
