package program

// Reshape keeps the elements and their order.
type Reshape struct{}

func (Reshape) String() string { return "Reshape" }

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
