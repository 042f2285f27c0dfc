package program

import (
	"math"
	"sync"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// Unary is an elementwise function such as tanh.
type Unary struct{ Kind string }

func (o Unary) String() string { return o.Kind }

// unary is a function y of one variable x, with its derivative.
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

// makeUnaries lists the elementwise functions by the names that Gorgonia's ops have. rectify is of
// simplify's making.
func makeUnaries[T Float]() map[string]unary[T] {
	zero := func(x, y T) T { return 0 }
	return map[string]unary[T]{
		"abs":    {lift[T](math.Abs), func(x, y T) T { return sign(x) }},
		"sign":   {sign[T], zero},
		"ceil":   {lift[T](math.Ceil), zero},
		"floor":  {lift[T](math.Floor), zero},
		"sin":    {lift[T](math.Sin), func(x, y T) T { return T(math.Cos(float64(x))) }},
		"cos":    {lift[T](math.Cos), func(x, y T) T { return -T(math.Sin(float64(x))) }},
		"exp":    {lift[T](math.Exp), func(x, y T) T { return y }},
		"ln":     {lift[T](math.Log), func(x, y T) T { return 1 / x }},
		"log2":   {lift[T](math.Log2), func(x, y T) T { return 1 / (x * math.Ln2) }},
		"neg":    {func(x T) T { return -x }, func(x, y T) T { return -1 }},
		"square": {func(x T) T { return x * x }, func(x, y T) T { return 2 * x }},
		"sqrt":   {lift[T](math.Sqrt), func(x, y T) T { return 0.5 / y }},
		"inv":    {func(x T) T { return 1 / x }, func(x, y T) T { return -y * y }},
		"invSqrt": {
			lift[T](func(x float64) float64 { return 1 / math.Sqrt(x) }),
			func(x, y T) T { return -y * y * y / 2 },
		},
		"cube": {func(x T) T { return x * x * x }, func(x, y T) T { return 3 * x * x }},
		"rectify": {func(x T) T {
			if x >= 0 {
				return x
			}
			return x * 0 // keeps NaN, as Gorgonia's product of x with 0 or 1 does
		}, func(x, y T) T {
			if x >= 0 {
				return 1
			}
			return 0
		}},
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

// sigmoid has no branch: that would be mispredicted half of the time. Where exp(-x) overflows it is
// 0, in place of less than 1e-308.
func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// unaryGrain is for functions that take some nanoseconds an element.
const unaryGrain = parallel.Grain / 4

type unaryRule[T Float] struct{ unary[T] }

func (r unaryRule[T]) forward(c *call[T]) error {
	x, y := c.in[0].Data, c.out.Data
	if n := len(y); n < 2*unaryGrain {
		r.apply(x, y)
	} else {
		parallel.For(n, unaryGrain, func(from, to int) { r.apply(x[from:to], y[from:to]) })
	}
	return nil
}

func (r unaryRule[T]) apply(x, y []T) {
	for i, x := range x {
		y[i] = r.f(x)
	}
}

func (r unaryRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	x, y := c.in[0].Data, c.out.Data
	if n := len(y); n < 2*parallel.Grain {
		r.chain(x, y, grad, dst)
	} else {
		parallel.For(n, parallel.Grain, func(from, to int) {
			r.chain(x[from:to], y[from:to], grad[from:to], dst[from:to])
		})
	}
	return nil
}

// chain multiplies by the derivative.
func (r unaryRule[T]) chain(x, y, grad, dst []T) {
	for i, g := range grad {
		dst[i] = g * r.d(x[i], y[i])
	}
}

func (r unaryRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	return r.reverse(c, 0, tan[0], dst) // the Jacobian is diagonal
}
