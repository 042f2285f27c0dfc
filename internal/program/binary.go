package program

import (
	"math"
	"sync"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// binary is a function z of two variables with its partial derivatives, nil standing for zero. Sums, differences and products do
// without derivatives: their rules are written out.
type binary[T Float] struct {
	f func(a, b T) T
	d [2]func(a, b, z T) T
}

func knownBinary(kind string) Op {
	if _, ok := binaryTable64()[kind]; ok {
		return Binary{kind}
	}
	return nil
}

var (
	binaryTable32 = sync.OnceValue(makeBinaries[float32])
	binaryTable64 = sync.OnceValue(makeBinaries[float64])
)

func binaries[T Float]() map[string]binary[T] {
	if t, ok := any(binaryTable32()).(map[string]binary[T]); ok {
		return t
	}
	return any(binaryTable64()).(map[string]binary[T])
}

// makeBinaries lists the functions by the names that Gorgonia's ops have.
func makeBinaries[T Float]() map[string]binary[T] {
	truth := func(f func(a, b T) bool) binary[T] {
		return binary[T]{f: func(a, b T) T {
			if f(a, b) {
				return 1
			}
			return 0
		}}
	}
	// A maximum's or minimum's derivative goes to the operand that is chosen, half to each in a tie.
	chosen := func(f func(a, b T) T) binary[T] {
		share := func(mine, other, z T) T {
			switch {
			case mine == other:
				return 0.5
			case mine == z:
				return 1
			}
			return 0
		}
		return binary[T]{f, [2]func(a, b, z T) T{share, func(a, b, z T) T { return share(b, a, z) }}}
	}
	return map[string]binary[T]{
		"+": {f: func(a, b T) T { return a + b }},
		"-": {f: func(a, b T) T { return a - b }},
		"⊙": {f: func(a, b T) T { return a * b }},
		"÷": {func(a, b T) T { return a / b }, [2]func(a, b, z T) T{
			func(a, b, z T) T { return 1 / b },
			func(a, b, z T) T { return -z / b },
		}},
		"^": {func(a, b T) T { return T(math.Pow(float64(a), float64(b))) }, [2]func(a, b, z T) T{
			func(a, b, z T) T {
				if b == 0 {
					return 0
				}
				return b * T(math.Pow(float64(a), float64(b-1)))
			},
			func(a, b, z T) T {
				if z == 0 { // the limit, where log a is infinite
					return 0
				}
				return z * T(math.Log(float64(a)))
			},
		}},
		"max": chosen(func(a, b T) T { return max(a, b) }),
		"min": chosen(func(a, b T) T { return min(a, b) }),
		"<":   truth(func(a, b T) bool { return a < b }),
		">":   truth(func(a, b T) bool { return a > b }),
		"<=":  truth(func(a, b T) bool { return a <= b }),
		">=":  truth(func(a, b T) bool { return a >= b }),
		"==":  truth(func(a, b T) bool { return a == b }),
		"!=":  truth(func(a, b T) bool { return a != b }),
	}
}

// binaryRule computes elementwise functions of two operands, either of which may be broadcast.
type binaryRule[T Float] struct {
	kind string
	binary[T]
}

func (r binaryRule[T]) forward(c *call[T]) error {
	out, a, b := c.out.Data, c.in[0].Data, c.in[1].Data
	eachStretch(c, true, func(s stretch) {
		x, y := a[s.in[0]:], b[s.in[1]:]
		switch to := out[s.at : s.at+s.n]; s.step {
		case [2]int{1, 1}:
			r.apply(to, x, y)
		case [2]int{1, 0}:
			r.applyScalar(to, x, y[0])
		default:
			for i := range to {
				to[i] = r.f(x[i*s.step[0]], y[i*s.step[1]])
			}
		}
	})
	return nil
}

// apply is the function on vectors.
func (r binaryRule[T]) apply(out, a, b []T) {
	a, b = a[:len(out)], b[:len(out)]
	switch r.kind {
	case "+":
		for i := range out {
			out[i] = a[i] + b[i]
		}
	case "-":
		for i := range out {
			out[i] = a[i] - b[i]
		}
	case "⊙":
		for i := range out {
			out[i] = a[i] * b[i]
		}
	default:
		for i := range out {
			out[i] = r.f(a[i], b[i])
		}
	}
}

// applyScalar is the function of a vector and a number.
func (r binaryRule[T]) applyScalar(out, a []T, b T) {
	a = a[:len(out)]
	switch r.kind {
	case "+":
		for i := range out {
			out[i] = a[i] + b
		}
	case "⊙":
		for i := range out {
			out[i] = a[i] * b
		}
	default:
		for i := range out {
			out[i] = r.f(a[i], b)
		}
	}
}

func (r binaryRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	if apart := len(dst) == len(grad); apart { // each element has a place of its own
		eachStretch(c, true, func(s stretch) {
			clear(dst[s.in[k] : s.in[k]+s.n])
			r.reverseStretch(c, k, s, grad, dst)
		})
		return nil
	}
	clear(dst)
	eachStretch(c, false, func(s stretch) { r.reverseStretch(c, k, s, grad, dst) })
	return nil
}

// reverseStretch adds the gradient of operand k over a stretch.
func (r binaryRule[T]) reverseStretch(c *call[T], k int, s stretch, grad, dst []T) {
	g, to := grad[s.at:s.at+s.n], s.in[k]
	switch {
	case r.kind == "+" || r.kind == "-":
		addTo(dst[to:], s.step[k], r.sign(k), g, 1, s.n)
	case r.kind == "⊙":
		addProduct(dst[to:], s.step[k], g, 1, c.in[1-k].Data[s.in[1-k]:], s.step[1-k], s.n)
	case r.d[k] != nil:
		a, b, ia, ib := c.in[0].Data, c.in[1].Data, s.in[0], s.in[1]
		for i, g := range g {
			dst[to] += g * r.d[k](a[ia], b[ib], c.out.Data[s.at+i])
			to += s.step[k]
			ia += s.step[0]
			ib += s.step[1]
		}
	}
}

// reverseByCase is reverse for each case by itself: dst holds operand k once for each, and is added to.
func (r binaryRule[T]) reverseByCase(c *call[T], k int, grad, dst []T) {
	cases, operand := c.run.CasesApart(), len(c.in[k].Data)
	length := len(c.out.Data) // of one case, in one piece
	if cases > 1 {
		length = size(c.out.Shape[c.node.CaseAxis:]) / cases
	}
	eachStretch(c, false, func(s stretch) {
		for end := s.at + s.n; s.at < end; {
			piece := s
			piece.n = min(length-s.at%length, end-s.at)
			n := s.at / length % cases
			r.reverseStretch(c, k, piece, grad, dst[n*operand:(n+1)*operand])
			s.at += piece.n
			s.in[0] += piece.n * s.step[0]
			s.in[1] += piece.n * s.step[1]
		}
	})
}

func (r binaryRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	eachStretch(c, true, func(s stretch) {
		clear(dst[s.at : s.at+s.n])
		for k, t := range tan {
			from, to := s.in[k], dst[s.at:s.at+s.n]
			switch {
			case t == nil:
			case r.kind == "+" || r.kind == "-":
				addTo(to, 1, r.sign(k), t[from:], s.step[k], s.n)
			case r.kind == "⊙":
				addProduct(to, 1, t[from:], s.step[k], c.in[1-k].Data[s.in[1-k]:], s.step[1-k], s.n)
			case r.d[k] != nil:
				a, b, ia, ib := c.in[0].Data, c.in[1].Data, s.in[0], s.in[1]
				for i := range to {
					to[i] += t[from] * r.d[k](a[ia], b[ib], c.out.Data[s.at+i])
					from += s.step[k]
					ia += s.step[0]
					ib += s.step[1]
				}
			}
		}
	})
	return nil
}

// sign is the derivative of a sum or difference with respect to operand k.
func (r binaryRule[T]) sign(k int) T {
	if r.kind == "-" && k == 1 {
		return -1
	}
	return 1
}

// addTo adds alpha x to dst, n elements at the given steps.
func addTo[T Float](dst []T, step int, alpha T, x []T, stepX, n int) {
	if step == 1 && stepX == 1 {
		linalg.Axpy(alpha, x[:n], dst[:n])
		return
	}
	for i := range n {
		dst[i*step] += alpha * x[i*stepX]
	}
}

// addProduct adds the elementwise product of x and y to dst, n elements at the given steps.
func addProduct[T Float](dst []T, step int, x []T, stepX int, y []T, stepY, n int) {
	if step == 1 && stepX == 1 && stepY == 1 {
		dst, x, y := dst[:n], x[:n], y[:n]
		for i := range dst {
			dst[i] += x[i] * y[i]
		}
		return
	}
	for i := range n {
		dst[i*step] += x[i*stepX] * y[i*stepY]
	}
}

// A stretch is a piece of the result of a binary op, along its last axis, and where the operands' elements for it are.
type stretch struct {
	at, n    int
	in, step [2]int // first position in each operand, and how far it is from there to the next: 0 if broadcast
}

// stretchLength is the most elements of a stretch, few enough for them to stay in the cache while they are worked on.
const stretchLength = 1 << 12

// eachStretch walks over the result of a binary op, with several stretches at the same time if atOnce.
func eachStretch[T Float](c *call[T], atOnce bool, f func(s stretch)) {
	n, shape := len(c.out.Data), c.out.Shape
	whole := stretch{n: n}
	spread := false // one operand has to be broadcast along some axes
	for k, in := range c.in {
		switch len(in.Data) {
		case n:
			whole.step[k] = 1
		case 1:
		default:
			spread = true
		}
	}
	grain := n
	if atOnce {
		grain = parallel.Grain
	}
	if !spread {
		parallel.For(n, grain, func(from, to int) {
			for s := whole; from < to; from += s.n {
				s.at, s.n = from, min(to-from, stretchLength)
				s.in = [2]int{from * s.step[0], from * s.step[1]}
				f(s)
			}
		})
		return
	}
	strides := [2][]int{broadcastStrides(c, 0), broadcastStrides(c, 1)}
	axes, length, step := longest(shape, strides)
	parallel.For(n/max(length, 1), grain/max(length, 1), func(from, to int) {
		s := stretch{n: length, step: step}
		for row := from; row < to; row++ {
			s.at, s.in = row*length, [2]int{}
			for axis, rest := axes-1, row; axis >= 0; axis-- {
				i := rest % shape[axis]
				rest /= shape[axis]
				s.in[0] += i * strides[0][axis]
				s.in[1] += i * strides[1][axis]
			}
			f(s)
		}
	})
}

// longest joins the last axes of a shape for as long as one step in each operand leads from element to element. It returns how many axes are left, and the length
// and the steps of what was joined.
func longest(shape []int, strides [2][]int) (axes, length int, step [2]int) {
	length = 1
	for axes = len(shape); axes > 0; axes-- {
		n, here := shape[axes-1], [2]int{strides[0][axes-1], strides[1][axes-1]}
		switch {
		case n == 1:
		case length == 1:
			step = here
		case here != [2]int{step[0] * length, step[1] * length}:
			return axes, length, step
		}
		length *= n
	}
	return axes, length, step
}

// broadcastStrides are the steps from element to element of operand k along the axes of the result, 0 where it is broadcast.
func broadcastStrides[T Float](c *call[T], k int) []int {
	st, in := c.intBuf(k, len(c.out.Shape)), c.in[k]
	for i, d := len(st)-1, 1; i >= 0; i-- {
		st[i] = 0
		if len(in.Data) > 1 && in.Shape[i] != 1 {
			st[i] = d
			d *= in.Shape[i]
		}
	}
	return st
}
