package main

import (
	"math"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// split is log 2 as a sum of two numbers of the precision.
func (v *vectors) split() (hi, lo float64) {
	const lo64 = 2.3190468138462996e-17 // log 2 less its nearest float64
	if v.is32() {
		hi = float64(float32(math.Ln2))
		return hi, math.Ln2 - hi
	}
	return math.Ln2, lo64
}

// reduce writes x as n log 2 + r, with |r| at most log(2)/2. n comes with magic added, too.
func (v *vectors) reduce(x Op) (n, withMagic, r reg.VecVirtual) {
	hi, lo := v.split()
	withMagic = v.fma(x, v.number(math.Log2E), v.magic())
	n = v.minus(withMagic, v.magic())
	r = v.fnma(n, v.number(hi), x)
	return n, withMagic, v.fnma(n, v.number(lo), r)
}

// series are the reciprocals of factorials from that of first on, as many as make the series of exp
// exact for |r| up to log(2)/2.
func (v *vectors) series(first int) []float64 {
	var c []float64
	factorial := 1.0
	for k := range pick(v, 8, 14) {
		factorial *= max(1, float64(k))
		if k >= first {
			c = append(c, 1/factorial)
		}
	}
	return c
}

// exp is exp(x) = 2^n exp(r). Since 2^n may overflow where the result does not, and underflow where
// the result is no normal number, it is multiplied in two parts. For x outside of the range, the
// bounds of the range overflow and underflow too.
func (v *vectors) exp(x Op) reg.VecVirtual {
	x = v.least(v.register(v.number(pick(v, 89.0, 710))), x)
	x = v.most(v.register(v.number(pick(v, -104.0, -746))), x)
	n, _, r := v.reduce(x)
	p := v.polynomial(r, v.series(0)...)
	half := v.fma(n, v.number(0.5), v.magic())
	rest := v.plus(v.minus(n, v.minus(half, v.magic())), v.magic())
	return v.times(v.times(p, v.power(half)), v.power(rest))
}

// decay is exp(-|x|).
func (v *vectors) decay(x Op) reg.VecVirtual { return v.exp(v.negative(x)) }

// logarithm is log(u) + c for normal numbers u > 0. With u = 2^k (1 + f), f between sqrt(1/2)-1 and
// sqrt(2)-1, and s = f/(2+f), log(1+f) is
//
//	2 atanh(s) = f - (f^2/2 - s (f^2/2 + R)) with R = 2 s^2/3 + 2 s^4/5 + ...
//
// Where k is 0 and exact is not nil, f is exact and c is left out. k is counted from start on.
func (v *vectors) logarithm(u, start Op, c, exact Op) reg.VecVirtual {
	bits := func(x float64) uint64 {
		return pick(v, uint64(math.Float32bits(float32(x))), math.Float64bits(x))
	}
	root, one := bits(math.Sqrt2/2), bits(1)
	shifted := binary(v.ops().addInts, v.bits(one-root), u)
	k := reg.VecVirtual(v.register(shifted))
	v.ops().shiftRight(U8(v.mantissa()), k, k)
	integer := pick(v, 0x1p23, 0x1p52)
	k = v.minus(v.either(k, v.number(integer)), v.number(integer+pick(v, 127.0, 1023)))
	f := binary(v.ops().addInts, v.bits(root), v.both(shifted, v.bits(1<<v.mantissa()-1)))
	f = v.minus(f, v.number(1))
	if exact != nil {
		nought := v.compare(equal, k, v.number(0))
		f = v.choose(nought, exact, f)
		c = binary(v.ops().andNot, c, nought)
	}
	if start != nil {
		k = v.plus(k, start)
	}

	s := v.over(f, v.plus(f, v.number(2)))
	var odd []float64
	for i := range pick(v, 5, 11) {
		odd = append(odd, 2/float64(2*i+3))
	}
	z := v.times(s, s)
	half := v.times(v.times(f, v.number(0.5)), f)
	r := v.fma(z, v.polynomial(z, odd...), half)
	hi, lo := v.split()
	low := v.times(k, v.number(lo))
	if c != nil {
		low = v.plus(low, c)
	}
	low = v.fma(s, r, low)
	low = v.minus(half, low)
	return v.fma(k, v.number(hi), v.minus(f, low))
}

// outside puts right what logarithm made of 0, negative numbers, infinity and NaN.
func (v *vectors) outside(u, log Op) reg.VecVirtual {
	log = v.choose(v.compare(notLess, u, v.number(math.Inf(1))), u, log)
	log = v.choose(v.compare(less, u, v.number(0)), v.register(v.number(math.NaN())), log)
	return v.choose(v.compare(equal, u, v.number(0)), v.register(v.number(math.Inf(-1))), log)
}

// log is log(x). Numbers that are not normal are scaled.
func (v *vectors) log(x Op) reg.VecVirtual {
	exponent := pick(v, 25.0, 54)
	tiny := v.compare(less, x, v.number(pick(v, 0x1p-126, 0x1p-1022)))
	u := v.choose(tiny, v.times(x, v.number(math.Exp2(exponent))), x)
	return v.outside(x, v.logarithm(u, v.both(tiny, v.number(-exponent)), nil, nil))
}

// log1p is log(1+x). With u = 1+x rounded, and d what is lost by that, it is log(u) + d/u.
func (v *vectors) log1p(x Op) reg.VecVirtual {
	log := v.outside(v.plus(x, v.number(1)), v.logOnePlus(x))
	return v.choose(v.compare(equal, x, v.number(0)), x, log) // the sign of zero
}

// logOnePlus is log1p for finite x > -1, but for the sign of zero.
func (v *vectors) logOnePlus(x Op) reg.VecVirtual {
	u := v.plus(x, v.number(1))
	back := v.minus(u, v.number(1))
	d := v.plus(v.minus(x, back), v.minus(v.register(v.number(1)), v.minus(u, back)))
	return v.logarithm(u, nil, v.over(d, u), x)
}

// tanh is e/(e+2) with e = exp(2|x|) - 1, and the sign of x. It is 1 long before the bound.
func (v *vectors) tanh(x Op) reg.VecVirtual {
	size := v.absolute(x)
	twice := v.least(v.register(v.number(pick(v, 20.0, 44))), v.plus(size, size))
	_, n, r := v.reduce(twice)
	p := v.fma(v.times(r, r), v.polynomial(r, v.series(2)...), r)
	power := v.power(n)
	e := v.fma(power, p, v.minus(power, v.number(1)))
	return v.either(v.quotient(e, e, 2), v.both(x, v.bits(v.signBit())))
}

// sigmoid is 1/(1+e) for x > 0 and e/(1+e) for x < 0, with e = exp(-|x|).
func (v *vectors) sigmoid(x Op) reg.VecVirtual {
	e := v.decay(x)
	return v.quotient(v.choose(x, e, v.register(v.number(1))), e, 1)
}

// quotient is x/(e+c). In float32, where an error of two roundings counts, the rounding of the sum
// and that of the quotient are put right.
func (v *vectors) quotient(x, e Op, c float64) reg.VecVirtual {
	sum := v.plus(e, v.number(c))
	q := v.over(x, sum)
	if !v.is32() {
		return q
	}
	back := v.minus(sum, e)
	lost := v.plus(v.minus(e, v.minus(sum, back)), v.minus(v.register(v.number(c)), back))
	rest := v.fnma(q, lost, v.fnma(q, sum, x))
	return v.plus(q, v.over(rest, sum))
}

// softplus is log(1+exp(x)) = max(x, 0) + log(1+exp(-|x|)).
func (v *vectors) softplus(x Op) reg.VecVirtual {
	return v.plus(v.most(v.register(v.number(0)), x), v.logOnePlus(v.decay(x)))
}

// step is 1 for x >= 0, and else 0.
func (v *vectors) step(x Op) reg.VecVirtual {
	return v.both(v.compare(greaterEqual, x, v.number(0)), v.number(1))
}
