package program

// dropoutRule multiplies by a mask that each Forward draws anew while training: 0 with the op's probability p, else 1/(1-p). The
// user's op and its random generator are not touched.
type dropoutRule[T Float] struct{ Dropout }

func (r dropoutRule[T]) forward(c *call[T]) error {
	mask := c.buf(0, len(c.out.Data))
	p, training := r.Settings()
	for i := range mask {
		switch {
		case !training || p == 0:
			mask[i] = 1
		case c.run.rng.Float64() < 1-p:
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

// randomRule draws at each Forward. It has no operands, so that no derivative is ever asked of it.
type randomRule[T Float] struct{ Random }

func (r randomRule[T]) forward(c *call[T]) error {
	for i := range c.out.Data {
		c.out.Data[i] = T(r.draw(c.run.rng.Float64, c.run.rng.NormFloat64))
	}
	return nil
}

// draw is one number: uniform in [A,B), gaussian of mean A and standard deviation B, or binomial of A trials of probability B.
func (r randomRule[T]) draw(uniform, gaussian func() float64) float64 {
	switch r.Kind {
	case "uniform":
		return r.A + (r.B-r.A)*uniform()
	case "gaussian":
		return r.A + r.B*gaussian()
	}
	hits := 0.0
	for range int(r.A) {
		if uniform() < r.B {
			hits++
		}
	}
	return hits
}

func (r randomRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	clear(dst)
	return nil
}

func (r randomRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	clear(dst)
	return nil
}
