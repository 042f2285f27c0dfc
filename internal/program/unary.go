package program

import (
	"math"
	"sync"

	"github.com/gorgonia-kfac/kfac/internal/kernels"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// Unary is an elementwise function such as tanh.
type Unary struct{ Kind string }

func (o Unary) String() string { return o.Kind }

// unary is a function y of one variable x, and the product of a gradient with its derivative, on
// vectors.
type unary[T Float] struct {
	f     func(y, x []T)
	chain func(dst, grad, x, y []T)
}

// each makes a unary of a function of a number and its derivative.
func each[T Float](f func(x T) T, d func(x, y T) T) unary[T] {
	return unary[T]{func(y, x []T) {
		for i, x := range x {
			y[i] = f(x)
		}
	}, chained(d)}
}

func chained[T Float](d func(x, y T) T) func(dst, grad, x, y []T) {
	return func(dst, grad, x, y []T) {
		for i, g := range grad {
			dst[i] = g * d(x[i], y[i])
		}
	}
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
// simplify's making; as Gorgonia's product of x with 0 or 1 it keeps NaN.
func makeUnaries[T Float]() map[string]unary[T] {
	zero := func(x, y T) T { return 0 }
	ofX := func(f func(dst, grad, x []T)) func(dst, grad, x, y []T) {
		return func(dst, grad, x, _ []T) { f(dst, grad, x) }
	}
	ofY := func(f func(dst, grad, y []T)) func(dst, grad, x, y []T) {
		return func(dst, grad, _, y []T) { f(dst, grad, y) }
	}
	return map[string]unary[T]{
		"abs":   each(lift[T](math.Abs), func(x, y T) T { return sign(x) }),
		"sign":  each(sign[T], zero),
		"ceil":  each(lift[T](math.Ceil), zero),
		"floor": each(lift[T](math.Floor), zero),
		"sin":   each(lift[T](math.Sin), func(x, y T) T { return T(math.Cos(float64(x))) }),
		"cos":   each(lift[T](math.Cos), func(x, y T) T { return -T(math.Sin(float64(x))) }),
		"exp":   {kernels.Exp[T], ofY(kernels.Mul[T])},
		"ln":    {kernels.Log[T], chained(func(x, y T) T { return 1 / x })},
		"log2":  each(lift[T](math.Log2), func(x, y T) T { return 1 / (x * math.Ln2) }),
		"neg": {func(y, x []T) { kernels.Scale(-1, y, x) },
			ofX(func(dst, grad, _ []T) { kernels.Scale(-1, dst, grad) })},
		"square": {func(y, x []T) { kernels.Mul(y, x, x) }, ofX(func(dst, grad, x []T) {
			kernels.Mul(dst, grad, x)
			kernels.Scale(2, dst, dst)
		})},
		"sqrt": each(lift[T](math.Sqrt), func(x, y T) T { return 0.5 / y }),
		"inv":  each(func(x T) T { return 1 / x }, func(x, y T) T { return -y * y }),
		"invSqrt": each(lift[T](func(x float64) float64 { return 1 / math.Sqrt(x) }),
			func(x, y T) T { return -y * y * y / 2 }),
		"cube":     each(func(x T) T { return x * x * x }, func(x, y T) T { return 3 * x * x }),
		"rectify":  {kernels.Rectify[T], ofX(kernels.RectifyChain[T])},
		"tanh":     {kernels.Tanh[T], ofY(kernels.TanhChain[T])},
		"sigmoid":  {kernels.Sigmoid[T], ofY(kernels.SigmoidChain[T])},
		"log1p":    {kernels.Log1p[T], chained(func(x, y T) T { return 1 / (1 + x) })},
		"expm1":    each(lift[T](math.Expm1), func(x, y T) T { return y + 1 }),
		"softplus": {kernels.Softplus[T], ofX(kernels.SoftplusChain[T])},
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

// unaryGrain is for functions that take some nanoseconds an element.
const unaryGrain = parallel.Grain / 4

type unaryRule[T Float] struct {
	unary[T]
	second func(x, y T) T // derivative; nil if it is zero
	kinks  float64
}

func (r unaryRule[T]) forward(c *call[T]) error {
	x, y := c.in[0].Data, c.out.Data
	if n := len(y); n < 2*unaryGrain {
		r.f(y, x)
	} else {
		parallel.For(n, unaryGrain, func(from, to int) { r.f(y[from:to], x[from:to]) })
	}
	return nil
}

func (r unaryRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	x, y := c.in[0].Data, c.out.Data
	if n := len(y); n < 2*parallel.Grain {
		r.chain(dst, grad, x, y)
	} else {
		parallel.For(n, parallel.Grain, func(from, to int) {
			r.chain(dst[from:to], grad[from:to], x[from:to], y[from:to])
		})
	}
	return nil
}

func (r unaryRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	return r.reverse(c, 0, tan[0], dst) // the Jacobian is diagonal
}
