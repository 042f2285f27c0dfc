package program

import (
	"fmt"
	"math"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// A bent rule is that of an op that is not linear in its operands, so that its gradients change
// with them.
type bent[T Float] interface {
	// bend computes how the gradient of operand k, at a fixed gradient of the result, changes along
	// the tangents of the operands. nil stands for zero; at least one is not nil.
	bend(c *call[T], k int, grad []T, tan [][]T, dst []T) error
}

// A rounder is the rule of an op whose first derivative jumps at some places.
type rounder[T Float] interface {
	// round is bend for the op with its kinks rounded off.
	round(c *call[T], k int, grad []T, tan [][]T, dst []T)
}

// Bend computes how the gradients of the last Reverse, along the same path, change along the
// directions of the last Tangent: products with the second derivatives of what Reverse has started
// from, forward over reverse. GradientAlong has them.
//
// The second derivatives of Abs, Rectify, MaxBetween and MinBetween are zero, as they are almost
// everywhere. If rounded, they are instead those of functions whose kinks are rounded off: |x|
// counts as bent by 1/s everywhere, where s is the mean of |x|, and the others are made of it.
// Abs of residuals then bends as the negative log-likelihood of a Laplace distribution of their
// scale, on average.
//
// Opaque ops and normalisations have no second derivative here.
func (r *Run[T]) Bend(path Path, rounded bool) error {
	if r.outputsOnly {
		return fmt.Errorf("program: Bend after TangentOfOutputs, which keeps no tangents for it")
	}
	if r.bends == nil {
		r.bends = make([]buffer[T], len(r.calls))
	}
	for i := range r.bends {
		r.bends[i].set = false
	}
	for i := len(r.calls) - 1; i >= 0; i-- {
		c := &r.calls[i]
		if !path.on[i] || !r.grads[i].set || c.node.IsLeaf() {
			continue
		}
		tan := r.tangentsOf(c)
		for k, kid := range c.node.Kids {
			if !path.on[kid.index] || kid.Dtype != r.p.dtype {
				continue
			}
			if err := r.bendInto(c, k, kid, tan, rounded); err != nil {
				return c.fail("second derivative", err)
			}
		}
	}
	return nil
}

// tangentsOf are the tangents of a call's operands, or nil if all are zero.
func (r *Run[T]) tangentsOf(c *call[T]) (tan [][]T) {
	in, any := r.tanIn[:0], false
	for _, kid := range c.node.Kids {
		var t []T
		if b := &r.tans[kid.index]; b.set {
			t, any = b.data, true
		}
		in = append(in, t)
	}
	if r.tanIn = in; any {
		return in
	}
	return nil
}

// bendInto adds to the change of the gradient of operand k of c: by that of the gradient of its
// result, and by that of its own derivative.
func (r *Run[T]) bendInto(c *call[T], k int, kid *Node, tan [][]T, rounded bool) error {
	n := len(c.in[k].Data)
	if from := &r.bends[c.node.index]; from.set {
		part := r.scratch.sized(n)
		if err := c.rule.reverse(c, k, from.data, part); err != nil {
			return err
		}
		addTo(r.bendOf(kid, n), 1, 1, part, 1, n)
	}
	if tan == nil {
		return nil
	}
	grad := r.grads[c.node.index].data
	if rule, ok := c.rule.(bent[T]); ok {
		part := r.scratch.sized(n)
		if err := rule.bend(c, k, grad, tan, part); err != nil {
			return err
		}
		addTo(r.bendOf(kid, n), 1, 1, part, 1, n)
	}
	if rule, ok := c.rule.(rounder[T]); ok && rounded {
		part := r.scratch.sized(n)
		rule.round(c, k, grad, tan, part)
		addTo(r.bendOf(kid, n), 1, 1, part, 1, n)
	}
	return nil
}

// bendOf is the change of the gradient of a node so far.
func (r *Run[T]) bendOf(n *Node, size int) []T { return settled(&r.bends[n.index], size) }

// GradientAlong is the change of the gradient of n that the last Bend found. It is zero if there is
// none.
func (r *Run[T]) GradientAlong(n *Node) []T { return r.bendOf(n, size(r.calls[n.index].out.Shape)) }

// secondDerivative is that of a function of makeUnaries, or nil if it is straight between its
// kinks.
func secondDerivative[T Float](kind string) func(x, y T) T {
	switch kind {
	case "sin", "cos":
		return func(x, y T) T { return -y }
	case "exp":
		return func(x, y T) T { return y }
	case "expm1":
		return func(x, y T) T { return y + 1 }
	case "ln":
		return func(x, y T) T { return -1 / (x * x) }
	case "log2":
		return func(x, y T) T { return -1 / (x * x * math.Ln2) }
	case "log1p":
		return func(x, y T) T { return -1 / ((1 + x) * (1 + x)) }
	case "square":
		return func(x, y T) T { return 2 }
	case "cube":
		return func(x, y T) T { return 6 * x }
	case "sqrt":
		return func(x, y T) T { return -1 / (4 * y * y * y) }
	case "inv":
		return func(x, y T) T { return 2 * y * y * y }
	case "invSqrt":
		return func(x, y T) T { return 0.75 * y * y * y * y * y }
	case "tanh":
		return func(x, y T) T { return -2 * y * (1 - y*y) }
	case "sigmoid":
		return func(x, y T) T { return y * (1 - y) * (1 - 2*y) }
	case "softplus":
		return func(x, y T) T {
			e := T(math.Exp(-math.Abs(float64(x))))
			return e / ((1 + e) * (1 + e))
		}
	}
	return nil
}

func (r unaryRule[T]) bend(c *call[T], _ int, grad []T, tan [][]T, dst []T) error {
	x, y := c.in[0].Data, c.out.Data
	if r.second == nil {
		clear(dst)
		return nil
	}
	parallel.For(len(grad), unaryGrain, func(from, to int) {
		for i := from; i < to; i++ {
			dst[i] = grad[i] * tan[0][i] * r.second(x[i], y[i])
		}
	})
	return nil
}

// kinks is how often |x| is in a function, beside what is straight.
var kinks = map[string]float64{"abs": 1, "rectify": 0.5, "max": 0.5, "min": -0.5}

func (r unaryRule[T]) round(c *call[T], _ int, grad []T, tan [][]T, dst []T) {
	clear(dst)
	var sum float64
	for _, x := range c.in[0].Data {
		sum += math.Abs(float64(x))
	}
	if r.kinks == 0 || sum == 0 {
		return
	}
	by := T(r.kinks * float64(len(grad)) / sum)
	for i, g := range grad {
		dst[i] = by * g * tan[0][i]
	}
}

// secondsOf are the second derivatives of a binary function: with respect to its first operand, to
// both, and to its second.
func secondsOf[T Float](kind string) *[3]func(a, b, z T) T {
	none := func(a, b, z T) T { return 0 }
	switch kind {
	case "⊙":
		return &[3]func(a, b, z T) T{none, func(a, b, z T) T { return 1 }, none}
	case "÷":
		return &[3]func(a, b, z T) T{none,
			func(a, b, z T) T { return -1 / (b * b) },
			func(a, b, z T) T { return 2 * z / (b * b) },
		}
	case "^":
		pow := func(a, b T) T { return T(math.Pow(float64(a), float64(b))) }
		log := func(a T) T { return T(math.Log(float64(a))) }
		return &[3]func(a, b, z T) T{
			func(a, b, z T) T {
				if b == 0 || b == 1 {
					return 0
				}
				return b * (b - 1) * pow(a, b-2)
			},
			func(a, b, z T) T {
				if a == 0 { // the limit, for b above 1
					return 0
				}
				return pow(a, b-1) * (1 + b*log(a))
			},
			func(a, b, z T) T {
				if z == 0 {
					return 0
				}
				return z * log(a) * log(a)
			},
		}
	}
	return nil
}

func (r binaryRule[T]) bend(c *call[T], k int, grad []T, tan [][]T, dst []T) error {
	clear(dst)
	if r.seconds == nil {
		return nil
	}
	r.eachPair(c, func(at int, in [2]int, a, b T) {
		for l, t := range tan {
			if t != nil {
				dst[in[k]] += grad[at] * t[in[l]] * r.seconds[k+l](a, b, c.out.Data[at])
			}
		}
	})
	return nil
}

func (r binaryRule[T]) round(c *call[T], k int, grad []T, tan [][]T, dst []T) {
	clear(dst)
	if r.kinks == 0 {
		return
	}
	var sum float64
	r.eachPair(c, func(_ int, _ [2]int, a, b T) { sum += math.Abs(float64(a - b)) })
	if sum == 0 {
		return
	}
	by := T(r.kinks * float64(len(grad)) / sum)
	r.eachPair(c, func(at int, in [2]int, _, _ T) {
		for l, t := range tan {
			if t != nil && k == l {
				dst[in[k]] += by * grad[at] * t[in[l]]
			} else if t != nil {
				dst[in[k]] -= by * grad[at] * t[in[l]]
			}
		}
	})
}

// eachPair calls f with the place of each element of the result, and those of the operands for it.
func (r binaryRule[T]) eachPair(c *call[T], f func(at int, in [2]int, a, b T)) {
	w := walkOf(c)
	w.each(0, w.rows, func(s stretch) {
		for i := range s.n {
			in := [2]int{s.in[0] + i*s.step[0], s.in[1] + i*s.step[1]}
			f(s.at+i, in, c.in[0].Data[in[0]], c.in[1].Data[in[1]])
		}
	})
}

// bendProduct is bend for a product, which is linear in each of two operands: the gradient of one
// changes by what it would be if the other were its tangent.
func bendProduct[T Float](r rule[T], c *call[T], k int, grad []T, tan [][]T, dst []T) error {
	other := &c.in[1-k]
	if tan[1-k] == nil {
		clear(dst)
		return nil
	}
	data := other.Data
	other.Data = tan[1-k]
	err := r.reverse(c, k, grad, dst)
	other.Data = data
	return err
}

func (r matMulRule[T]) bend(c *call[T], k int, grad []T, tan [][]T, dst []T) error {
	return bendProduct[T](r, c, k, grad, tan, dst)
}

func (r batchedMatMulRule[T]) bend(c *call[T], k int, grad []T, tan [][]T, dst []T) error {
	return bendProduct[T](r, c, k, grad, tan, dst)
}

func (r matVecRule[T]) bend(c *call[T], k int, grad []T, tan [][]T, dst []T) error {
	return bendProduct[T](r, c, k, grad, tan, dst)
}

func (r vecDotRule[T]) bend(c *call[T], k int, grad []T, tan [][]T, dst []T) error {
	return bendProduct[T](r, c, k, grad, tan, dst)
}

func (r outerProdRule[T]) bend(c *call[T], k int, grad []T, tan [][]T, dst []T) error {
	return bendProduct[T](r, c, k, grad, tan, dst)
}

// bend puts the other operand's tangent in the place of its permuted value for a time.
func (r tensordotRule[T]) bend(c *call[T], k int, grad []T, tan [][]T, dst []T) error {
	if tan[1-k] == nil {
		clear(dst)
		return nil
	}
	operands := func(of []T) (a, b []T) {
		if k == 0 {
			return nil, of
		}
		return of, nil
	}
	a, b := operands(tan[1-k])
	r.matrices(c, a, b, 0)
	err := r.reverse(c, k, grad, dst)
	a, b = operands(c.in[1-k].Data)
	r.matrices(c, a, b, 0)
	return err
}

// bend differentiates p (g - <p, g>) and g - p sum(g), with the tangent p (t - <p, t>) of p.
func (r softMaxRule[T]) bend(c *call[T], _ int, grad []T, tan [][]T, dst []T) error {
	y, t := c.out.Data, tan[0]
	p := y
	if r.Log {
		p = c.buf(1, len(y))
		exps(p, y)
	}
	eachAlong(c.out.Shape, r.Axis, func(start, step, n int) {
		var pt, pg, g, dpg T
		for i := range n {
			at := start + i*step
			pt += p[at] * t[at]
			pg += p[at] * grad[at]
			g += grad[at]
		}
		for i := range n {
			at := start + i*step
			dst[at] = p[at] * (t[at] - pt) // the tangent of p
			dpg += dst[at] * grad[at]
		}
		for i := range n {
			at := start + i*step
			if r.Log {
				dst[at] *= -g
			} else {
				dst[at] = dst[at]*(grad[at]-pg) - p[at]*dpg
			}
		}
	})
	return nil
}

func (normRule[T]) bend(*call[T], int, []T, [][]T, []T) error { return errNoSecond }

func (r *opaqueRule[T]) bend(*call[T], int, []T, [][]T, []T) error { return errNoSecond }

var errNoSecond = fmt.Errorf("it has no second derivative here: %w", ErrNotDifferentiable)
