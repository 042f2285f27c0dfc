package kernels

import "math"

// functions are the elementwise functions for an element type. The slices have the same length. dst
// may be one of the others.
type functions[T Float] struct {
	exp, log, log1p, tanh, sigmoid, softplus, rectify    func(dst, x []T)
	tanhChain, sigmoidChain, softplusChain, rectifyChain func(dst, grad, x []T)
	add, sub, mul                                        func(dst, x, y []T)
	mulAdd                                               func(dst, x, y, z []T)
	axpy                                                 func(alpha T, dst, x, y []T)
	scale, addScalar                                     func(alpha T, dst, x []T)
	dot                                                  func(x, y []T) float64
	sum                                                  func(x []T) float64
}

func functionsOf[T Float]() *functions[T] {
	if f, ok := any(&functions32).(*functions[T]); ok {
		return f
	}
	return any(&functions64).(*functions[T])
}

// Exp writes exp(x) to dst.
func Exp[T Float](dst, x []T) { functionsOf[T]().exp(dst[:len(x)], x) }

// Log writes log(x) to dst.
func Log[T Float](dst, x []T) { functionsOf[T]().log(dst[:len(x)], x) }

// Log1p writes log(1+x) to dst.
func Log1p[T Float](dst, x []T) { functionsOf[T]().log1p(dst[:len(x)], x) }

// Tanh writes tanh(x) to dst.
func Tanh[T Float](dst, x []T) { functionsOf[T]().tanh(dst[:len(x)], x) }

// Sigmoid writes 1/(1+exp(-x)) to dst.
func Sigmoid[T Float](dst, x []T) { functionsOf[T]().sigmoid(dst[:len(x)], x) }

// Softplus writes log(1+exp(x)) to dst.
func Softplus[T Float](dst, x []T) { functionsOf[T]().softplus(dst[:len(x)], x) }

// Rectify writes x to dst where x >= 0, and else x times 0, which keeps NaN.
func Rectify[T Float](dst, x []T) { functionsOf[T]().rectify(dst[:len(x)], x) }

// TanhChain writes grad times the derivative 1-y^2 of y = tanh(x) to dst.
func TanhChain[T Float](dst, grad, y []T) {
	functionsOf[T]().tanhChain(dst[:len(grad)], grad, y[:len(grad)])
}

// SigmoidChain writes grad times the derivative y-y^2 of y = sigmoid(x) to dst.
func SigmoidChain[T Float](dst, grad, y []T) {
	functionsOf[T]().sigmoidChain(dst[:len(grad)], grad, y[:len(grad)])
}

// SoftplusChain writes grad times the derivative sigmoid(x) of softplus to dst.
func SoftplusChain[T Float](dst, grad, x []T) {
	functionsOf[T]().softplusChain(dst[:len(grad)], grad, x[:len(grad)])
}

// RectifyChain writes grad times 1 to dst where x >= 0, and else grad times 0.
func RectifyChain[T Float](dst, grad, x []T) {
	functionsOf[T]().rectifyChain(dst[:len(grad)], grad, x[:len(grad)])
}

// Add writes x + y to dst.
func Add[T Float](dst, x, y []T) { functionsOf[T]().add(dst[:len(x)], x, y[:len(x)]) }

// Sub writes x - y to dst.
func Sub[T Float](dst, x, y []T) { functionsOf[T]().sub(dst[:len(x)], x, y[:len(x)]) }

// Mul writes the products of the elements of x and y to dst.
func Mul[T Float](dst, x, y []T) { functionsOf[T]().mul(dst[:len(x)], x, y[:len(x)]) }

// MulAdd writes x y + z to dst, element by element.
func MulAdd[T Float](dst, x, y, z []T) {
	functionsOf[T]().mulAdd(dst[:len(x)], x, y[:len(x)], z[:len(x)])
}

// Axpy computes y += alpha x.
func Axpy[T Float](alpha T, x, y []T) { functionsOf[T]().axpy(alpha, y[:len(x)], x, y[:len(x)]) }

// Scale writes alpha x to dst.
func Scale[T Float](alpha T, dst, x []T) { functionsOf[T]().scale(alpha, dst[:len(x)], x) }

// AddScalar writes alpha + x to dst.
func AddScalar[T Float](alpha T, dst, x []T) { functionsOf[T]().addScalar(alpha, dst[:len(x)], x) }

// Dot returns the inner product of x and y, summed in float64.
func Dot[T Float](x, y []T) float64 { return functionsOf[T]().dot(x, y[:len(x)]) }

// Sum returns the sum of x in float64.
func Sum[T Float](x []T) float64 { return functionsOf[T]().sum(x) }

// inGo are the functions in portable Go.
func inGo[T Float]() functions[T] {
	return functions[T]{
		exp: each[T](math.Exp), log: each[T](log), log1p: each[T](math.Log1p), tanh: each[T](math.Tanh),
		sigmoid: each[T](sigmoid), softplus: each[T](softplus),
		rectify:      func(dst, x []T) { rectifyChain(dst, x, x) },
		tanhChain:    func(dst, grad, y []T) { pairs(dst, grad, y, func(g, y T) T { return g * (1 - y*y) }) },
		sigmoidChain: func(dst, grad, y []T) { pairs(dst, grad, y, func(g, y T) T { return g * (y - y*y) }) },
		softplusChain: func(dst, grad, x []T) {
			pairs(dst, grad, x, func(g, x T) T { return g * T(sigmoid(float64(x))) })
		},
		rectifyChain: rectifyChain[T],
		add:          func(dst, x, y []T) { pairs(dst, x, y, func(x, y T) T { return x + y }) },
		sub:          func(dst, x, y []T) { pairs(dst, x, y, func(x, y T) T { return x - y }) },
		mul:          func(dst, x, y []T) { pairs(dst, x, y, func(x, y T) T { return x * y }) },
		mulAdd: func(dst, x, y, z []T) {
			for i := range dst {
				dst[i] = x[i]*y[i] + z[i]
			}
		},
		axpy: func(alpha T, dst, x, y []T) {
			for i := range dst {
				dst[i] = alpha*x[i] + y[i]
			}
		},
		scale: func(alpha T, dst, x []T) {
			for i := range dst {
				dst[i] = alpha * x[i]
			}
		},
		addScalar: func(alpha T, dst, x []T) {
			for i := range dst {
				dst[i] = alpha + x[i]
			}
		},
		dot: dot[T],
		sum: sum[T],
	}
}

func each[T Float](f func(float64) float64) func(dst, x []T) {
	return func(dst, x []T) {
		for i, v := range x {
			dst[i] = T(f(float64(v)))
		}
	}
}

func pairs[T Float](dst, x, y []T, f func(x, y T) T) {
	for i := range dst {
		dst[i] = f(x[i], y[i])
	}
}

func rectifyChain[T Float](dst, grad, x []T) {
	for i, g := range grad {
		if x[i] >= 0 {
			dst[i] = g
		} else {
			dst[i] = g * 0
		}
	}
}

func sigmoid(x float64) float64 {
	e := math.Exp(-math.Abs(x))
	if x < 0 {
		return e / (1 + e)
	}
	return 1 / (1 + e)
}

func softplus(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// log is math.Log, which on amd64 is wrong for numbers that are not normal.
func log(x float64) float64 {
	if 0 < x && x < 0x1p-1022 {
		return math.Log(x*0x1p54) - 54*math.Ln2
	}
	return math.Log(x)
}

// dot adds up in four sums, whose additions do not wait for each other.
func dot[T Float](x, y []T) float64 {
	return inFours(len(x), func(i int) float64 { return float64(x[i]) * float64(y[i]) })
}

func sum[T Float](x []T) float64 {
	return inFours(len(x), func(i int) float64 { return float64(x[i]) })
}

func inFours(n int, f func(i int) float64) float64 {
	var s [4]float64
	for i := range n {
		s[i%4] += f(i)
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}
