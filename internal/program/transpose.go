package program

import "fmt"

// Transpose permutes the axes: axis i of the result is axis Perm[i] of the operand.
type Transpose struct{ Perm []int }

func (o Transpose) String() string { return fmt.Sprintf("Transpose%v", o.Perm) }

type transposeRule[T Float] struct{ Transpose }

func (r transposeRule[T]) forward(c *call[T]) error {
	if c.in[0].Ints != nil {
		permuteRows(c.out.Ints, c.in[0].Ints, c.in[0].Shape, r.Perm)
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
