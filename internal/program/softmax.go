package program

import "math"

// SoftMax normalises over Axis. Log gives log-probabilities.
type SoftMax struct {
	Axis int
	Log  bool
}

func (o SoftMax) String() string { return map[bool]string{false: "SoftMax", true: "LogSoftMax"}[o.Log] }

// softMaxRule computes p = exp(x)/sum exp(x) over an axis, or its logarithm.
type softMaxRule[T Float] struct{ SoftMax }

func (r softMaxRule[T]) forward(c *call[T]) error {
	x, y := c.in[0].Data, c.out.Data
	eachAlong(c.out.Shape, r.Axis, func(start, step, n int) {
		top := math.Inf(-1)
		for i := range n {
			top = math.Max(top, float64(x[start+i*step]))
		}
		var sum float64
		for i := range n {
			e := math.Exp(float64(x[start+i*step]) - top)
			sum += e
			y[start+i*step] = T(e)
		}
		logSum := math.Log(sum)
		for i := range n {
			at := start + i*step
			if r.Log {
				y[at] = T(float64(x[at]) - top - logSum)
			} else {
				y[at] /= T(sum)
			}
		}
	})
	return nil
}

// reverse is p (g - <p, g>) for p, and g - p sum(g) for log p.
func (r softMaxRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	y := c.out.Data
	eachAlong(c.out.Shape, r.Axis, func(start, step, n int) {
		var s T
		for i := range n {
			at := start + i*step
			if r.Log {
				s += grad[at]
			} else {
				s += y[at] * grad[at]
			}
		}
		for i := range n {
			at := start + i*step
			if r.Log {
				dst[at] = grad[at] - s*T(math.Exp(float64(y[at])))
			} else {
				dst[at] = y[at] * (grad[at] - s)
			}
		}
	})
	return nil
}

// tangent is reverse for p, whose Jacobian is symmetric, and t - <p, t> for log p.
func (r softMaxRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	if !r.Log {
		return r.reverse(c, 0, tan[0], dst)
	}
	y, t := c.out.Data, tan[0]
	eachAlong(c.out.Shape, r.Axis, func(start, step, n int) {
		var s T
		for i := range n {
			s += T(math.Exp(float64(y[start+i*step]))) * t[start+i*step]
		}
		for i := range n {
			dst[start+i*step] = t[start+i*step] - s
		}
	})
	return nil
}
