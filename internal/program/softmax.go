package program

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/kernels"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

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
		top := T(math.Inf(-1))
		for i := range n {
			top = max(top, x[start+i*step])
		}
		for i := range n {
			y[start+i*step] = x[start+i*step] - top
		}
	})
	if r.Log {
		r.subtractLogs(c)
		return nil
	}
	exps(y, y)
	eachAlong(c.out.Shape, r.Axis, func(start, step, n int) {
		var sum float64
		for i := range n {
			sum += float64(y[start+i*step])
		}
		for i := range n {
			y[start+i*step] /= T(sum)
		}
	})
	return nil
}

// subtractLogs subtracts from y, along the axis, the logarithm of the sum of exp(y).
func (r softMaxRule[T]) subtractLogs(c *call[T]) {
	y, e := c.out.Data, c.buf(0, len(c.out.Data))
	exps(e, y)
	eachAlong(c.out.Shape, r.Axis, func(start, step, n int) {
		var sum float64
		for i := range n {
			sum += float64(e[start+i*step])
		}
		logSum := math.Log(sum)
		for i := range n {
			y[start+i*step] = T(float64(y[start+i*step]) - logSum)
		}
	})
}

// exps writes exp(x) to y.
func exps[T Float](y, x []T) {
	if len(x) < 2*unaryGrain { // without a closure
		kernels.Exp(y, x)
		return
	}
	parallel.For(len(x), unaryGrain, func(from, to int) { kernels.Exp(y[from:to], x[from:to]) })
}

// reverse is p (g - <p, g>) for p, and g - p sum(g) for log p.
func (r softMaxRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	y := c.out.Data
	if r.Log {
		exps(dst, y)
	}
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
				dst[at] = grad[at] - s*dst[at]
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
	t := tan[0]
	exps(dst, c.out.Data)
	eachAlong(c.out.Shape, r.Axis, func(start, step, n int) {
		var s T
		for i := range n {
			s += dst[start+i*step] * t[start+i*step]
		}
		for i := range n {
			dst[start+i*step] = t[start+i*step] - s
		}
	})
	return nil
}
