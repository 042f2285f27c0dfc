package program

// Dropout zeroes elements with the probability prob and scales the others by 1/(1-prob), if it is
// training. Its settings are read at each run.
type Dropout struct {
	Settings func() (prob float64, training bool)
}

func (Dropout) String() string { return "Dropout" }

// dropoutRule multiplies by a mask. While training, each Forward draws it anew: 0 with the op's
// probability p, else 1/(1-p). The user's op and its random generator are not touched.
type dropoutRule[T Float] struct{ Dropout }

func (r dropoutRule[T]) forward(c *call[T]) error {
	mask := c.buf(0, len(c.out.Data))
	p, training := r.Settings()
	for i := range mask {
		switch {
		case !training || p == 0:
			mask[i] = 1
		case c.batch.rng.Float64() < 1-p:
			mask[i] = T(1 / (1 - p))
		default:
			mask[i] = 0
		}
	}
	return r.reverse(c, 0, c.in[0].Data, c.out.Data)
}

func (r dropoutRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	for i, m := range c.buf(0, len(grad)) {
		dst[i] = 0
		if m != 0 { // a dropped infinity is dropped
			dst[i] = m * grad[i]
		}
	}
	return nil
}

func (r dropoutRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	return r.reverse(c, 0, tan[0], dst) // the Jacobian is diagonal
}
