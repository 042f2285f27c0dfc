package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// precision is an element type, with the instructions that have a form for each.
type precision struct {
	name, goType string
	shift        uint8 // log2 of the bytes of an element

	load, broadcast, mul, fma func(ops ...Op) // AVX2 with FMA, and AVX-512

	load1, loadSSE, mulSSE, addSSE func(x, y Op)
	spread                         func(v Op) // an element to a vector
}

var (
	single = precision{
		name: "32", goType: "float32", shift: 2,
		load: VMOVUPS, broadcast: VBROADCASTSS, mul: VMULPS, fma: VFMADD231PS,
		load1: MOVSS, loadSSE: MOVUPS, mulSSE: MULPS, addSSE: ADDPS,
		spread: func(v Op) { SHUFPS(U8(0), v, v) },
	}
	double = precision{
		name: "64", goType: "float64", shift: 3,
		load: VMOVUPD, broadcast: VBROADCASTSD, mul: VMULPD, fma: VFMADD231PD,
		load1: MOVSD, loadSSE: MOVUPD, mulSSE: MULPD, addSSE: ADDPD,
		spread: func(v Op) { UNPCKLPD(v, v) },
	}
)

// An isa is a set of instructions with vectors of a width.
type isa struct {
	name   string
	bytes  int
	vector func() reg.VecVirtual
}

var (
	sse2   = isa{"SSE2", 16, XMM}
	avx2   = isa{"AVX2", 32, YMM}
	avx512 = isa{"AVX512", 64, ZMM}
)

// zero clears a vector.
func (i isa) zero(v Op) {
	switch i.name {
	case sse2.name:
		XORPS(v, v)
	case avx2.name:
		VXORPS(v, v, v)
	case avx512.name:
		VPXORD(v, v, v)
	}
}

func (i isa) load(p precision, from Mem, v Op) {
	if i.name == sse2.name {
		p.loadSSE(from, v)
	} else {
		p.load(from, v)
	}
}

func (i isa) store(p precision, v Op, to Mem) {
	if i.name == sse2.name {
		p.loadSSE(v, to)
	} else {
		p.load(v, to)
	}
}

// broadcast fills a vector with the element at from.
func (i isa) broadcast(p precision, from Mem, v Op) {
	if i.name == sse2.name {
		p.load1(from, v)
		p.spread(v)
	} else {
		p.broadcast(from, v)
	}
}

// mul multiplies v by x.
func (i isa) mul(p precision, x, v Op) {
	if i.name == sse2.name {
		p.mulSSE(x, v)
	} else {
		p.mul(x, v, v)
	}
}

// addProduct adds x y to v.
func (i isa) addProduct(p precision, x, y, v Op) {
	if i.name == sse2.name {
		t := i.vector()
		MOVAPS(y, t)
		p.mulSSE(x, t)
		p.addSSE(t, v)
	} else {
		p.fma(x, y, v)
	}
}
