package program

import "math/rand/v2"

// Random draws new values at each run.
type Random struct {
	Kind string // uniform, gaussian or binomial
	A, B float64
}

func (o Random) String() string { return "Random " + o.Kind }

// randomRule draws from the run's seed. It has no operands, so no derivative is ever asked of it.
type randomRule[T Float] struct{ Random }

func (r randomRule[T]) forward(c *call[T]) error {
	var s stream
	key, gaussian := streamOf(c), rand.New(&s).NormFloat64
	c.pieces(func(from, to, at int) {
		for i := range c.out.Data[from:to] {
			s.start(key, at+i)
			c.out.Data[from+i] = T(r.draw(s.uniform, gaussian))
		}
	})
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
