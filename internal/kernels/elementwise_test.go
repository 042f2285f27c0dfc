package kernels

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// bothWays runs a test with the functions of this processor, and with those in Go.
func bothWays(t *testing.T, f func(t *testing.T)) {
	t.Run("chosen", f)
	defer func(f32 functions[float32], f64 functions[float64]) { functions32, functions64 = f32, f64 }(
		functions32, functions64)
	functions32, functions64 = inGo[float32](), inGo[float64]()
	t.Run("in Go", f)
}

// A smooth function has to be exact within a number of units in the last place.
type smooth struct {
	name    string
	f32     func(dst, x []float32)
	f64     func(dst, x []float64)
	inGo    func(x float64) float64
	exactly func(x *big.Float) *big.Float // of a finite number that the function is finite for
}

var smoothFunctions = []smooth{
	{"exp", Exp[float32], Exp[float64], math.Exp, bigExp},
	{"log", Log[float32], Log[float64], log, bigLog},
	{"log1p", Log1p[float32], Log1p[float64], math.Log1p, bigLog1p},
	{"tanh", Tanh[float32], Tanh[float64], math.Tanh, func(x *big.Float) *big.Float {
		if x.Sign() == 0 || x.MantExp(nil) < -100 {
			return x
		}
		e := bigExp(plus(x, x))
		return over(minus(e, number(1)), plus(e, number(1)))
	}},
	{"sigmoid", Sigmoid[float32], Sigmoid[float64], sigmoid, func(x *big.Float) *big.Float {
		return over(number(1), plus(number(1), bigExp(minus(number(0), x))))
	}},
	{"softplus", Softplus[float32], Softplus[float64], softplus, func(x *big.Float) *big.Float {
		return bigLog1p(bigExp(x))
	}},
}

func number(x float64) *big.Float      { return big.NewFloat(x).SetPrec(400) }
func zero() *big.Float                 { return new(big.Float).SetPrec(400) }
func plus(x, y *big.Float) *big.Float  { return zero().Add(x, y) }
func minus(x, y *big.Float) *big.Float { return zero().Sub(x, y) }
func times(x, y *big.Float) *big.Float { return zero().Mul(x, y) }
func over(x, y *big.Float) *big.Float  { return zero().Quo(x, y) }

// bigExp is exp(x) by its series for x/2^k, squared k times.
func bigExp(x *big.Float) *big.Float {
	const halvings = 40
	r := zero().SetMantExp(x, -halvings)
	sum, term := number(1), number(1)
	for i := 1; i < 20; i++ {
		term = over(times(term, r), number(float64(i)))
		sum = plus(sum, term)
	}
	for range halvings {
		sum = times(sum, sum)
	}
	return sum
}

// bigLog is log(x), by one step of Halley's method from a float64, which triples the digits.
func bigLog(x *big.Float) *big.Float {
	mantissa := zero()
	exponent := x.MantExp(mantissa)
	m, _ := mantissa.Float64()
	y := number(math.Log(m) + float64(exponent)*math.Ln2)
	e := bigExp(y)
	return plus(y, over(times(number(2), minus(x, e)), plus(x, e)))
}

func bigLog1p(x *big.Float) *big.Float {
	if x.Sign() == 0 || x.MantExp(nil) < -80 {
		return minus(x, over(times(x, x), number(2)))
	}
	return bigLog(plus(number(1), x))
}

// unitsOff is the error of got in units in the last place of want, for the given format.
func unitsOff(got float64, want *big.Float, bits, least int) float64 {
	exponent := least
	if want.Sign() != 0 {
		exponent = max(least, want.MantExp(nil)-1)
	}
	if w, _ := want.Float64(); math.IsInf(w, 0) || math.IsInf(got, 0) {
		if w == got {
			return 0
		}
		if bits == 52 || math.Abs(w) < math.MaxFloat32 {
			return math.Inf(1)
		}
		return 0 // beyond the largest float32
	}
	off, _ := minus(number(got), want).Float64()
	return math.Abs(off) / math.Ldexp(1, exponent-bits)
}

// In float32 the functions are within 2 units in the last place of those in float64, over the whole
// range of numbers.
func TestFloat32Functions(t *testing.T) { bothWays(t, testFloat32Functions) }

func testFloat32Functions(t *testing.T) {
	const stride = 20011 // prime
	for _, f := range smoothFunctions {
		x, y := make([]float32, 1021), make([]float32, 1021)
		n, worst, where := 0, 0.0, float32(0)
		for b := uint64(0); b < 1<<32+stride; b += stride {
			if n == len(x) || b >= 1<<32 {
				f.f32(y[:n], x[:n])
				for i, v := range x[:n] {
					if off := float32Off(y[i], f.inGo(float64(v))); !(off <= worst) {
						worst, where = off, v
					}
				}
				n = 0
			}
			x[n] = math.Float32frombits(uint32(b))
			n++
		}
		t.Logf("%s: %.2f units at %g", f.name, worst, where)
		if !(worst <= 2) {
			t.Errorf("%s(%g) is off by %g units", f.name, where, worst)
		}
	}
}

// float32Off is the error of got in units in the last place.
func float32Off(got float32, want float64) float64 {
	switch {
	case alike(float64(got), float64(float32(want))) && math.IsNaN(want):
		return 0
	case got == float32(want):
		return 0
	case !alike(float64(got), float64(float32(want))):
		return math.Inf(1)
	}
	return math.Abs(float64(got)-want) / math.Ldexp(1, max(-126, math.Ilogb(want))-23)
}

// In float64 they are within 4 of the exact values.
func TestFloat64Functions(t *testing.T) { bothWays(t, testFloat64Functions) }

func testFloat64Functions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	for _, f := range smoothFunctions {
		var x []float64
		for range 400 {
			x = append(x, math.Float64frombits(rng.Uint64()),
				rng.NormFloat64(), 10*rng.NormFloat64(), 800*rng.NormFloat64())
		}
		y := make([]float64, len(x))
		f.f64(y, x)
		worst, where := 0.0, 0.0
		for i, v := range x {
			if w := f.inGo(v); math.IsNaN(w) || math.IsInf(w, 0) || v > 1e4 && f.name == "exp" {
				if !alike(w, y[i]) {
					t.Errorf("%s(%g) is %g, want %g", f.name, v, y[i], w)
				}
				continue
			}
			want := number(f.inGo(v)) // for huge arguments, whose exp is no number
			if math.Abs(v) < 1e4 || f.name[:3] == "log" {
				want = f.exactly(number(v))
			}
			if off := unitsOff(y[i], want, 52, -1022); !(off <= worst) {
				worst, where = off, v
			}
		}
		t.Logf("%s: %.2f units at %g", f.name, worst, where)
		if !(worst <= 4) {
			t.Errorf("%s(%g) is off by %g units", f.name, where, worst)
		}
	}
}

// TestSpecialValues tables zeros with their signs, the smallest and largest numbers, infinities and
// NaN.
func TestSpecialValues(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		testSpecialValues[float32](t, 0x1p-149, math.MaxFloat32)
		testSpecialValues[float64](t, 0x1p-1074, math.MaxFloat64)
	})
}

func testSpecialValues[T Float](t *testing.T, tiny, huge T) {
	inf, nan, minus0 := T(math.Inf(1)), T(math.NaN()), T(math.Copysign(0, -1))
	least := T(math.Log(0x1p-149)) // the logarithm of tiny
	if !single[T]() {
		least = T(-1074 * math.Ln2)
	}
	most := T(math.Log(float64(huge)))
	x := []T{0, minus0, tiny, -tiny, huge, -huge, inf, -inf, nan}
	for _, c := range []struct {
		name string
		f    func(dst, x []T)
		want []T
	}{
		{"exp", Exp[T], []T{1, 1, 1, 1, inf, 0, inf, 0, nan}},
		{"log", Log[T], []T{-inf, -inf, least, nan, most, nan, inf, nan, nan}},
		{"log1p", Log1p[T], []T{0, minus0, tiny, -tiny, most, nan, inf, nan, nan}},
		{"tanh", Tanh[T], []T{0, minus0, tiny, -tiny, 1, -1, 1, -1, nan}},
		{"sigmoid", Sigmoid[T], []T{.5, .5, .5, .5, 1, 0, 1, 0, nan}},
		{"softplus", Softplus[T], []T{T(math.Ln2), T(math.Ln2), T(math.Ln2), T(math.Ln2), huge, 0, inf, 0, nan}},
		{"rectify", Rectify[T], []T{0, minus0, tiny, minus0, huge, minus0, inf, nan, nan}},
	} {
		got := make([]T, len(x))
		c.f(got, x)
		for i, w := range c.want {
			g := got[i]
			same := g == w && math.Signbit(float64(g)) == math.Signbit(float64(w)) || g != g && w != w
			if near := math.Abs(float64(g)/float64(w)-1) < rounding[T](); !same && !near {
				t.Errorf("%s(%g) is %g, want %g", c.name, x[i], g, w)
			}
		}
	}
	got := make([]T, 1)
	Log1p(got, []T{-1})
	if got[0] != -inf {
		t.Errorf("log1p(-1) is %g", got[0])
	}
}

// pointwise are all functions whose elements do not depend on each other, as of three vectors.
func pointwise[T Float]() map[string]func(dst, x, y []T) {
	one := func(f func(dst, x []T)) func(dst, x, y []T) { return func(dst, x, y []T) { f(dst, x) } }
	return map[string]func(dst, x, y []T){
		"exp": one(Exp[T]), "log": one(Log[T]), "log1p": one(Log1p[T]), "tanh": one(Tanh[T]),
		"sigmoid": one(Sigmoid[T]), "softplus": one(Softplus[T]), "rectify": one(Rectify[T]),
		"tanhChain": TanhChain[T], "sigmoidChain": SigmoidChain[T], "softplusChain": SoftplusChain[T],
		"rectifyChain": RectifyChain[T], "add": Add[T], "sub": Sub[T], "mul": Mul[T],
		"mulAdd":    func(dst, x, y []T) { MulAdd(dst, x, y, y) },
		"axpy":      func(dst, x, y []T) { copy(dst, y); Axpy(1.5, x, dst) },
		"scale":     func(dst, x, y []T) { Scale(1.5, dst, x) },
		"addScalar": func(dst, x, y []T) { AddScalar(1.5, dst, x) },
	}
}

// An element has the same bits wherever it lies, and by whatever others it is surrounded. Nothing
// else is written. The result may take the place of an operand.
func TestPlacesOfElements(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		testPlacesOfElements[float32](t)
		testPlacesOfElements[float64](t)
	})
}

func testPlacesOfElements[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	const n = 37
	x, y := numbers[T](rng, n), numbers[T](rng, n)
	for name, f := range pointwise[T]() {
		want := make([]T, n)
		for i := range want {
			f(want[i:i+1], x[i:i+1], y[i:i+1])
		}
		for from := range 9 {
			for to := from; to <= n; to++ {
				dst := slices.Repeat([]T{7}, n)
				f(dst[from:to], x[from:to], y[from:to])
				for i, v := range dst {
					inside := from <= i && i < to
					if inside && v != want[i] && want[i] == want[i] || !inside && v != 7 {
						t.Fatalf("%s from %d to %d: element %d is %g, want %g", name, from, to, i, v, want[i])
					}
				}
			}
		}
		inPlace := slices.Clone(x)
		f(inPlace, inPlace, y)
		if fmt.Sprint(inPlace) != fmt.Sprint(want) && name != "axpy" {
			t.Errorf("%s in place: %v, want %v", name, inPlace, want)
		}
	}
}

// What is no smooth function, or a product with one, is by the definition up to rounding.
func TestArithmetic(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		testArithmetic[float32](t)
		testArithmetic[float64](t)
	})
}

func testArithmetic[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	x, y := numbers[T](rng, 100), numbers[T](rng, 100)
	x[0], y[1], x[2], y[3] = T(math.Inf(1)), T(math.NaN()), 0, T(math.Inf(-1))
	step := func(x float64) float64 {
		if x >= 0 {
			return 1
		}
		return 0
	}
	functions := pointwise[T]()
	for name, f := range map[string]func(x, y float64) float64{
		"tanhChain":     func(g, y float64) float64 { return g * (1 - y*y) },
		"sigmoidChain":  func(g, y float64) float64 { return g * (y - y*y) },
		"softplusChain": func(g, x float64) float64 { return g * sigmoid(x) },
		"rectifyChain":  func(g, x float64) float64 { return g * step(x) },
		"add":           func(x, y float64) float64 { return x + y },
		"sub":           func(x, y float64) float64 { return x - y },
		"mul":           func(x, y float64) float64 { return x * y },
		"mulAdd":        func(x, y float64) float64 { return x*y + y },
		"axpy":          func(x, y float64) float64 { return 1.5*x + y },
		"scale":         func(x, y float64) float64 { return 1.5 * x },
		"addScalar":     func(x, y float64) float64 { return 1.5 + x },
	} {
		got := make([]T, len(x))
		functions[name](got, x, y)
		for i, g := range got {
			w := f(float64(x[i]), float64(y[i]))
			near := math.Abs(float64(g)-w) <= 4*rounding[T]()*(1+finite(x[i]))*(1+finite(y[i]))*(1+finite(y[i]))
			if !alike(float64(g), w) || math.Abs(w) < math.MaxFloat64 && !near {
				t.Errorf("%s(%g, %g) is %g, want %g", name, x[i], y[i], g, w)
			}
		}
	}
}

// finite is |x|, or 0 where that is not finite.
func finite[T Float](x T) float64 {
	if x-x != 0 {
		return 0
	}
	return math.Abs(float64(x))
}

// Inner products and sums are summed in float64. They have the same bits wherever the vectors lie.
func TestDot(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		testDot[float32](t)
		testDot[float64](t)
	})
}

func testDot[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for n := range 70 {
		x, y := numbers[T](rng, n), numbers[T](rng, n)
		want, size := zero(), 0.0
		for i, v := range x {
			want = plus(want, times(number(float64(v)), number(float64(y[i]))))
			size += math.Abs(float64(v) * float64(y[i]))
		}
		got := Dot(x, y)
		if w, _ := want.Float64(); !(math.Abs(got-w) <= float64(n)*0x1p-53*size) {
			t.Errorf("%d elements: %g, want %g", n, got, w)
		}
		if ones := slices.Repeat([]T{1}, n); math.Abs(Sum(x)-Dot(x, ones)) > float64(n)*0x1p-50 {
			t.Errorf("%d elements: the sum is %g, the product with ones %g", n, Sum(x), Dot(x, ones))
		}
		for at := range 4 {
			shifted := append(make([]T, at, at+n), x...)[at:]
			if again := Dot(shifted, y); again != got {
				t.Errorf("%d elements, %d further on: %g, want %g", n, at, again, got)
			}
		}
	}
}

// A result or second operand that is too short is refused before anything is written.
func TestShortSlices(t *testing.T) {
	short, long := make([]float64, 3), make([]float64, 4)
	for name, f := range map[string]func(){
		"dst":     func() { Exp(short[:3:3], long) },
		"operand": func() { Mul(long, long, short[:3:3]) },
		"dot":     func() { Dot(long, short[:3:3]) },
		"axpy":    func() { Axpy(1, long, short[:3:3]) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
