package program

// Random draws new values at each run.
type Random struct {
	Kind string // uniform, gaussian or binomial
	A, B float64
}

func (o Random) String() string { return "Random " + o.Kind }

// randomRule draws at each Forward. It has no operands, so no derivative is ever asked of it.
type randomRule[T Float] struct{ Random }

func (r randomRule[T]) forward(c *call[T]) error {
	for i := range c.out.Data {
		c.out.Data[i] = T(r.draw(c.batch.rng.Float64, c.batch.rng.NormFloat64))
	}
	return nil
}

// draw is one number: uniform in [A,B), gaussian of mean A and standard deviation B, or binomial of
// A trials of probability B.
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
