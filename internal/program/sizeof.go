package program

import "fmt"

// SizeOf is the length of Axis of its operand, as a float.
type SizeOf struct{ Axis int }

func (o SizeOf) String() string { return fmt.Sprintf("SizeOf%d", o.Axis) }

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
