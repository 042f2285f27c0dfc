package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// vectors writes arithmetic on vectors of 32 bytes in AVX2 with FMA. Its methods take and return
// operands, of which those that return a register never overwrite one that they were given.
type vectors struct {
	precision
	constants map[uint64]Mem // by their bits
	masks     Mem            // a vector of set bits, and one of bits that are not
}

// arithmetic are the instructions of a precision on vectors.
type arithmetic struct {
	add, sub, div, min, max, and, andNot, or, addInts, fma213, fnma231 func(a, b, dst Op)
	cmp, blend                                                         func(a, b, c, dst Op)
	shiftLeft, shiftRight                                              func(n, v, dst Op)
}

func three(f func(ops ...Op)) func(a, b, dst Op) { return func(a, b, dst Op) { f(a, b, dst) } }

func four(f func(ops ...Op)) func(a, b, c, dst Op) { return func(a, b, c, dst Op) { f(a, b, c, dst) } }

var arithmetics = map[string]arithmetic{
	"32": {
		three(VADDPS), three(VSUBPS), three(VDIVPS), three(VMINPS), three(VMAXPS), three(VANDPS), three(VANDNPS),
		three(VORPS), three(VPADDD), three(VFMADD213PS), three(VFNMADD231PS), four(VCMPPS), VBLENDVPS,
		three(VPSLLD), three(VPSRLD),
	},
	"64": {
		three(VADDPD), three(VSUBPD), three(VDIVPD), three(VMINPD), three(VMAXPD), three(VANDPD), three(VANDNPD),
		three(VORPD), three(VPADDQ), three(VFMADD213PD), three(VFNMADD231PD), four(VCMPPD), VBLENDVPD,
		three(VPSLLQ), three(VPSRLQ),
	},
}

const vectorBytes = 32

func (v *vectors) is32() bool { return v.name == "32" }

func (v *vectors) lanes() int { return vectorBytes >> v.shift }

// pick chooses by precision.
func pick[X any](v *vectors, single, double X) X {
	if v.is32() {
		return single
	}
	return double
}

// bits is a vector of which each element has these bits.
func (v *vectors) bits(b uint64) Mem {
	if m, ok := v.constants[b]; ok {
		return m
	}
	m := GLOBL(fmt.Sprintf("all%s_%0*x", v.name, pick(v, 8, 16), b), attr.RODATA|attr.NOPTR)
	for i := range v.lanes() {
		if v.is32() {
			DATA(4*i, U32(b))
		} else {
			DATA(8*i, U64(b))
		}
	}
	v.constants[b] = m
	return m
}

// number is a vector of which each element is x.
func (v *vectors) number(x float64) Mem {
	if v.is32() {
		return v.bits(uint64(math.Float32bits(float32(x))))
	}
	return v.bits(math.Float64bits(x))
}

// register brings a vector to a register of its own.
func (v *vectors) register(x Op) reg.VecVirtual {
	r := YMM()
	v.load(x, r)
	return r
}

func (v *vectors) ops() arithmetic { return arithmetics[v.name] }

// binary is f with a register for its result.
func binary(f func(a, b, dst Op), a, b Op) reg.VecVirtual {
	r := YMM()
	f(a, b, r)
	return r
}

func (v *vectors) plus(x, y Op) reg.VecVirtual  { return binary(v.ops().add, y, x) }
func (v *vectors) minus(x, y Op) reg.VecVirtual { return binary(v.ops().sub, y, x) }
func (v *vectors) times(x, y Op) reg.VecVirtual { return binary(three(v.mul), y, x) }
func (v *vectors) over(x, y Op) reg.VecVirtual  { return binary(v.ops().div, y, x) }
func (v *vectors) both(x, y Op) reg.VecVirtual  { return binary(v.ops().and, y, x) } // bits

// least and most are y if that is NaN.
func (v *vectors) least(x, y Op) reg.VecVirtual { return binary(v.ops().min, y, x) }
func (v *vectors) most(x, y Op) reg.VecVirtual  { return binary(v.ops().max, y, x) }

// fma is x y + z.
func (v *vectors) fma(x, y, z Op) reg.VecVirtual {
	if _, ok := y.(Mem); ok { // must not be the second
		r := v.register(z)
		v.precision.fma(y, x, r)
		return r
	}
	r := v.register(x)
	v.ops().fma213(z, y, r)
	return r
}

// fnma is z - x y.
func (v *vectors) fnma(x, y, z Op) reg.VecVirtual {
	r := v.register(z)
	v.ops().fnma231(y, x, r)
	return r
}

// absolute is |x|, and negative -|x|.
func (v *vectors) absolute(x Op) reg.VecVirtual { return v.both(x, v.bits(v.signBit()-1)) }
func (v *vectors) negative(x Op) reg.VecVirtual { return v.either(x, v.bits(v.signBit())) }

func (v *vectors) either(x, y Op) reg.VecVirtual { return binary(v.ops().or, y, x) } // bits

func (v *vectors) signBit() uint64 { return pick(v, uint64(1)<<31, 1<<63) }

// Predicates of compare, false for NaN unless they say otherwise.
const (
	equal        = 0
	less         = 1
	notLess      = 5 // true for NaN
	greaterEqual = 13
)

// compare is a mask of all bits where the predicate holds for x and y.
func (v *vectors) compare(predicate int, x, y Op) reg.VecVirtual {
	r := YMM()
	v.ops().cmp(U8(predicate), y, x, r)
	return r
}

// choose is x where the highest bit of mask is set, and else y.
func (v *vectors) choose(mask, x, y Op) reg.VecVirtual {
	r := YMM()
	v.ops().blend(mask, x, y, r)
	return r
}

// polynomial is c[0] + c[1] x + c[2] x^2 + ...
func (v *vectors) polynomial(x Op, c ...float64) reg.VecVirtual {
	last := len(c) - 1
	sum := v.register(v.number(c[last]))
	for i := last - 1; i >= 0; i-- {
		v.ops().fma213(v.number(c[i]), x, sum)
	}
	return sum
}

// mantissa is the number of bits of the mantissa, without the leading one.
func (v *vectors) mantissa() int { return pick(v, 23, 52) }

// magic is a number that, added, rounds to an integer and leaves that in the lowest bits.
func (v *vectors) magic() Mem { return v.number(pick(v, 0x1.8p23, 0x1.8p52)) }

// power is 2^n, for an integer n to which magic was added.
func (v *vectors) power(n Op) reg.VecVirtual {
	r := YMM()
	v.ops().shiftLeft(U8(v.mantissa()), n, r)
	v.ops().addInts(v.number(1), r, r)
	return r
}
