package program

import (
	"math"
	"sync"

	"github.com/gorgonia-kfac/kfac/internal/kernels"
)

// Binary is an elementwise function of two operands. An operand is broadcast if it is a scalar,
// and along an axis where its size is 1 and the result's is not.
type Binary struct{ Kind string }

func (o Binary) String() string { return o.Kind }

// binary is a function z of two variables with its partial derivatives. nil stands for the
// derivative zero. Sums, differences and products do without: their rules are written out.
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
	// The derivative goes to the operand that is chosen, and half to each in a tie.
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
	seconds *[3]func(a, b, z T) T // derivatives; nil if they are zero
	kinks   float64
}

func (r binaryRule[T]) forward(c *call[T]) error {
	if w := walkOf(c); w.short() {
		w.each(0, w.rows, func(s stretch) { r.forwardStretch(c, s) })
	} else {
		w.atOnce(func(s stretch) { r.forwardStretch(c, s) })
	}
	return nil
}

func (r binaryRule[T]) forwardStretch(c *call[T], s stretch) {
	out, a, b := c.out.Data[s.at:s.at+s.n], c.in[0].Data[s.in[0]:], c.in[1].Data[s.in[1]:]
	switch s.step {
	case [2]int{1, 1}:
		r.apply(out, a, b)
	case [2]int{1, 0}:
		r.applyScalar(out, a, b[0])
	default:
		for i := range out {
			out[i] = r.f(a[i*s.step[0]], b[i*s.step[1]])
		}
	}
}

// apply is the function on vectors.
func (r binaryRule[T]) apply(out, a, b []T) {
	a, b = a[:len(out)], b[:len(out)]
	switch r.kind {
	case "+":
		kernels.Add(out, a, b)
	case "-":
		kernels.Sub(out, a, b)
	case "⊙":
		kernels.Mul(out, a, b)
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
		kernels.AddScalar(b, out, a)
	case "-":
		kernels.AddScalar(-b, out, a)
	case "⊙":
		kernels.Scale(b, out, a)
	default:
		for i := range out {
			out[i] = r.f(a[i], b)
		}
	}
}

func (r binaryRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	clear(dst)
	apart := len(dst) == len(grad) // each element has a place of its own
	if w := walkOf(c); w.short() || !apart {
		w.each(0, w.rows, func(s stretch) { r.reverseStretch(c, k, s, grad, dst) })
	} else {
		w.atOnce(func(s stretch) { r.reverseStretch(c, k, s, grad, dst) })
	}
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

// reverseByCase is reverse for each of a number of cases by itself. dst holds operand k once for
// each case, and is added to.
func (r binaryRule[T]) reverseByCase(c *call[T], k, cases int, grad, dst []T) {
	operand := len(c.in[k].Data)
	length := len(c.out.Data) // of one case, in one piece
	if cases > 1 {
		length = size(c.out.Shape[c.node.CaseAxis:]) / cases
	}
	w := walkOf(c)
	w.each(0, w.rows, func(s stretch) {
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
	if w := walkOf(c); w.short() {
		w.each(0, w.rows, func(s stretch) { r.tangentStretch(c, s, tan, dst) })
	} else {
		w.atOnce(func(s stretch) { r.tangentStretch(c, s, tan, dst) })
	}
	return nil
}

func (r binaryRule[T]) tangentStretch(c *call[T], s stretch, tan [][]T, dst []T) {
	to := dst[s.at : s.at+s.n]
	clear(to)
	for k, t := range tan {
		from := s.in[k]
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
}

// passes reports whether the gradient of operand k is that of the result: it is added, and not
// broadcast.
func (r binaryRule[T]) passes(c *call[T], k int) bool {
	return (r.kind == "+" || r.kind == "-" && k == 0) && len(c.in[k].Data) == len(c.out.Data)
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
		kernels.Axpy(alpha, x[:n], dst)
		return
	}
	for i := range n {
		dst[i*step] += alpha * x[i*stepX]
	}
}

// addProduct adds the elementwise product of x and y to dst, n elements at the given steps.
func addProduct[T Float](dst []T, step int, x []T, stepX int, y []T, stepY, n int) {
	if step == 1 && stepX == 1 && stepY == 1 {
		kernels.MulAdd(dst, x[:n], y, dst)
		return
	}
	for i := range n {
		dst[i*step] += x[i*stepX] * y[i*stepY]
	}
}
