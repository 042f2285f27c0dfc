package program

import (
	"math"
	"sync"
)

// unary is a function of one variable with its derivative, given operand x and result y.
type unary[T Float] struct {
	f func(x T) T
	d func(x, y T) T
}

func knownUnary(kind string) Op {
	if _, ok := unaryTable64()[kind]; ok {
		return Unary{kind}
	}
	return nil
}

var (
	unaryTable32 = sync.OnceValue(makeUnaries[float32])
	unaryTable64 = sync.OnceValue(makeUnaries[float64])
)

func unaries[T Float]() map[string]unary[T] {
	if t, ok := any(unaryTable32()).(map[string]unary[T]); ok {
		return t
	}
	return any(unaryTable64()).(map[string]unary[T])
}

// lift turns a float64 function into one of T.
func lift[T Float](f func(float64) float64) func(T) T {
	return func(x T) T { return T(f(float64(x))) }
}

// makeUnaries lists the elementwise functions by the names that Gorgonia's ops have.
func makeUnaries[T Float]() map[string]unary[T] {
	zero := func(x, y T) T { return 0 }
	return map[string]unary[T]{
		"abs":     {lift[T](math.Abs), func(x, y T) T { return sign(x) }},
		"sign":    {sign[T], zero},
		"ceil":    {lift[T](math.Ceil), zero},
		"floor":   {lift[T](math.Floor), zero},
		"sin":     {lift[T](math.Sin), func(x, y T) T { return T(math.Cos(float64(x))) }},
		"cos":     {lift[T](math.Cos), func(x, y T) T { return -T(math.Sin(float64(x))) }},
		"exp":     {lift[T](math.Exp), func(x, y T) T { return y }},
		"ln":      {lift[T](math.Log), func(x, y T) T { return 1 / x }},
		"log2":    {lift[T](math.Log2), func(x, y T) T { return 1 / (x * math.Ln2) }},
		"neg":     {func(x T) T { return -x }, func(x, y T) T { return -1 }},
		"square":  {func(x T) T { return x * x }, func(x, y T) T { return 2 * x }},
		"sqrt":    {lift[T](math.Sqrt), func(x, y T) T { return 0.5 / y }},
		"inv":     {func(x T) T { return 1 / x }, func(x, y T) T { return -y * y }},
		"invSqrt": {lift[T](func(x float64) float64 { return 1 / math.Sqrt(x) }), func(x, y T) T { return -y * y * y / 2 }},
		"cube":    {func(x T) T { return x * x * x }, func(x, y T) T { return 3 * x * x }},
		"tanh":    {lift[T](math.Tanh), func(x, y T) T { return 1 - y*y }},
		"sigmoid": {lift[T](sigmoid), func(x, y T) T { return y * (1 - y) }},
		"log1p":   {lift[T](math.Log1p), func(x, y T) T { return 1 / (1 + x) }},
		"expm1":   {lift[T](math.Expm1), func(x, y T) T { return y + 1 }},
		"softplus": {lift[T](func(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }),
			func(x, y T) T { return T(sigmoid(float64(x))) }},
	}
}

func sign[T Float](x T) T {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}

func sigmoid(x float64) float64 {
	if x >= 0 {
		return 1 / (1 + math.Exp(-x))
	}
	e := math.Exp(x)
	return e / (1 + e)
}

type unaryRule[T Float] struct{ unary[T] }

func (r unaryRule[T]) forward(c *call[T]) error {
	for i, x := range c.in[0].Data {
		c.out.Data[i] = r.f(x)
	}
	return nil
}

func (r unaryRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	for i, x := range c.in[0].Data {
		dst[i] = grad[i] * r.d(x, c.out.Data[i])
	}
	return nil
}

func (r unaryRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	return r.reverse(c, 0, tan[0], dst) // the Jacobian is diagonal
}

func knownBinary(kind string) Op {
	switch kind {
	case "+", "-", "⊙", "÷", "^", "<", ">", "<=", ">=", "==", "!=":
		return Binary{kind}
	}
	return nil
}

// binaryRule computes elementwise functions of two operands, either of which may be broadcast.
type binaryRule[T Float] struct{ kind string }

func (r binaryRule[T]) forward(c *call[T]) error {
	a, b, out := c.in[0].Data, c.in[1].Data, c.out.Data
	x, y := indexer(c, 0), indexer(c, 1)
	if x.same && y.same {
		r.applySame(a, b, out)
		return nil
	}
	f := r.function()
	eachBroadcast(x, y, len(out), func(i, ia, ib int) { out[i] = f(a[ia], b[ib]) })
	return nil
}

func (r binaryRule[T]) applySame(a, b, out []T) {
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
		f := r.function()
		for i := range out {
			out[i] = f(a[i], b[i])
		}
	}
}

func (r binaryRule[T]) function() func(a, b T) T {
	truth := func(f func(a, b T) bool) func(a, b T) T {
		return func(a, b T) T {
			if f(a, b) {
				return 1
			}
			return 0
		}
	}
	switch r.kind {
	case "+":
		return func(a, b T) T { return a + b }
	case "-":
		return func(a, b T) T { return a - b }
	case "⊙":
		return func(a, b T) T { return a * b }
	case "÷":
		return func(a, b T) T { return a / b }
	case "^":
		return func(a, b T) T { return T(math.Pow(float64(a), float64(b))) }
	case "max":
		return func(a, b T) T { return max(a, b) }
	case "min":
		return func(a, b T) T { return min(a, b) }
	case "<":
		return truth(func(a, b T) bool { return a < b })
	case ">":
		return truth(func(a, b T) bool { return a > b })
	case "<=":
		return truth(func(a, b T) bool { return a <= b })
	case ">=":
		return truth(func(a, b T) bool { return a >= b })
	case "==":
		return truth(func(a, b T) bool { return a == b })
	}
	return truth(func(a, b T) bool { return a != b })
}

// partial is the derivative of the result z with respect to operand k.
func (r binaryRule[T]) partial(k int) func(a, b, z T) T {
	switch r.kind {
	case "+":
		return func(a, b, z T) T { return 1 }
	case "-":
		return func(a, b, z T) T { return T(1 - 2*k) }
	case "⊙":
		if k == 0 {
			return func(a, b, z T) T { return b }
		}
		return func(a, b, z T) T { return a }
	case "÷":
		if k == 0 {
			return func(a, b, z T) T { return 1 / b }
		}
		return func(a, b, z T) T { return -z / b }
	case "^":
		if k == 0 {
			return func(a, b, z T) T {
				if b == 0 {
					return 0
				}
				return b * T(math.Pow(float64(a), float64(b-1)))
			}
		}
		return func(a, b, z T) T {
			if z == 0 { // the limit, where log a is infinite
				return 0
			}
			return z * T(math.Log(float64(a)))
		}
	case "max", "min": // a tie goes half to each
		mine := r.function()
		return func(a, b, z T) T {
			switch {
			case a == b:
				return 0.5
			case (mine(a, b) == a) == (k == 0):
				return 1
			}
			return 0
		}
	}
	return nil // comparisons are constant almost everywhere
}

func (r binaryRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	a, b, z := c.in[0].Data, c.in[1].Data, c.out.Data
	x, y := indexer(c, 0), indexer(c, 1)
	d := r.partial(k)
	if d == nil {
		clear(dst)
		return nil
	}
	if x.same && y.same {
		switch {
		case r.kind == "+" || r.kind == "-" && k == 0:
			copy(dst, grad)
		case r.kind == "⊙":
			r.applySame(grad, c.in[1-k].Data, dst)
		default:
			for i, g := range grad {
				dst[i] = g * d(a[i], b[i], z[i])
			}
		}
		return nil
	}
	clear(dst)
	eachBroadcast(x, y, len(grad), func(i, ia, ib int) {
		to := ia
		if k == 1 {
			to = ib
		}
		dst[to] += grad[i] * d(a[ia], b[ib], z[i])
	})
	return nil
}

func (r binaryRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	a, b, z := c.in[0].Data, c.in[1].Data, c.out.Data
	x, y := indexer(c, 0), indexer(c, 1)
	clear(dst)
	for k, t := range tan {
		d := r.partial(k)
		if t == nil || d == nil {
			continue
		}
		eachBroadcast(x, y, len(dst), func(i, ia, ib int) {
			from := ia
			if k == 1 {
				from = ib
			}
			dst[i] += t[from] * d(a[ia], b[ib], z[i])
		})
	}
	return nil
}

// index maps positions of a result to positions of an operand that is broadcast to it.
type index struct {
	same, scalar bool
	shape        []int // of the result
	stride       []int // of the operand, 0 along broadcast axes
}

func indexer[T Float](c *call[T], k int) index {
	in, out := c.in[k], c.out
	if len(in.Data) == len(out.Data) {
		return index{same: true}
	}
	if len(in.Data) == 1 {
		return index{scalar: true}
	}
	ix := index{shape: out.Shape, stride: c.intBuf(8+k, len(out.Shape))} // slots 8 and 9: the broadcast strides
	for i, d := len(out.Shape)-1, 1; i >= 0; i-- {
		ix.stride[i] = 0
		if in.Shape[i] != 1 {
			ix.stride[i] = d
			d *= in.Shape[i]
		}
	}
	return ix
}

// eachBroadcast calls f with each position of the result and the operands' positions that belong to it.
func eachBroadcast(x, y index, n int, f func(i, ia, ib int)) {
	shape := x.shape
	if shape == nil {
		shape = y.shape
	}
	if shape == nil { // each operand is either a scalar or of the result's size
		for i := range n {
			ia, ib := i, i
			if x.scalar {
				ia = 0
			}
			if y.scalar {
				ib = 0
			}
			f(i, ia, ib)
		}
		return
	}
	last := len(shape) - 1
	cols := shape[last]
	sx, sy := x.last(last), y.last(last)
	for row := 0; row*cols < n; row++ {
		ia, ib := x.start(row, cols, shape), y.start(row, cols, shape)
		for i := row * cols; i < (row+1)*cols; i++ {
			f(i, ia, ib)
			ia += sx
			ib += sy
		}
	}
}

// last is the operand's step along the result's last axis.
func (x index) last(axis int) int {
	switch {
	case x.same:
		return 1
	case x.scalar:
		return 0
	}
	return x.stride[axis]
}

// start is the operand's position at the start of a row (index over all axes but the last) of the result.
func (x index) start(row, cols int, shape []int) int {
	switch {
	case x.same:
		return row * cols
	case x.scalar:
		return 0
	}
	pos := 0
	for axis := len(shape) - 2; axis >= 0; axis-- {
		pos += row % shape[axis] * x.stride[axis]
		row /= shape[axis]
	}
	return pos
}
