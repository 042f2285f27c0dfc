package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// columns makes a function that copies rows, as many as a vector has elements, to columns: a square
// at a time, in registers.
func columns(p precision) {
	lanes := vectorBytes >> p.shift
	name := "columns" + p.name + "AVX2"
	TEXT(name, NOSPLIT, fmt.Sprintf("func(squares int, dst *%[1]s, ldd int, src *%[1]s, lds int)", p.goType))
	Doc(fmt.Sprintf("%s transposes a number of squares of %d x %d, beside each other in src.", name, lanes, lanes))
	Pragma("noescape")
	squares := Load(Param("squares"), GP64())
	dst, src := address(p, "dst", "ldd", lanes), address(p, "src", "lds", lanes)
	below := GP64() // from a square to the next in dst
	MOVQ(dst.one, below)
	SHLQ(U8(5-p.shift), below)

	Label("square")
	rows := make([]reg.VecVirtual, lanes)
	for r := range rows {
		rows[r] = YMM()
		p.load(src.row(r), rows[r])
	}
	transposed := transpose4
	if lanes == 8 {
		transposed = transpose8
	}
	for r, v := range transposed(rows) {
		p.load(v, dst.row(r))
	}
	for _, base := range src.base {
		if base != nil {
			ADDQ(Imm(vectorBytes), base)
		}
	}
	dst.advance(below)
	DECQ(squares)
	JNZ(LabelRef("square"))
	VZEROUPPER()
	RET()
}

// shuffled is f(imm, x, y) with a register for its result.
func shuffled(f func(imm, y, x, dst Op), imm uint8, x, y Op) reg.VecVirtual {
	r := YMM()
	f(U8(imm), y, x, r)
	return r
}

// transpose4 transposes 4 x 4 elements of 8 bytes.
func transpose4(a []reg.VecVirtual) []reg.VecVirtual {
	var pairs [4]reg.VecVirtual // with elements 0 and 2, and 1 and 3
	for i := 0; i < 4; i += 2 {
		pairs[i] = binary(three(VUNPCKLPD), a[i+1], a[i])
		pairs[i+1] = binary(three(VUNPCKHPD), a[i+1], a[i])
	}
	return []reg.VecVirtual{
		shuffled(VPERM2F128, 0x20, pairs[0], pairs[2]),
		shuffled(VPERM2F128, 0x20, pairs[1], pairs[3]),
		shuffled(VPERM2F128, 0x31, pairs[0], pairs[2]),
		shuffled(VPERM2F128, 0x31, pairs[1], pairs[3]),
	}
}

// transpose8 transposes 8 x 8 elements of 4 bytes.
func transpose8(a []reg.VecVirtual) []reg.VecVirtual {
	var pairs, fours [8]reg.VecVirtual
	for i := 0; i < 8; i += 2 {
		pairs[i] = binary(three(VUNPCKLPS), a[i+1], a[i])
		pairs[i+1] = binary(three(VUNPCKHPS), a[i+1], a[i])
	}
	for i := 0; i < 8; i += 4 {
		fours[i] = binary(three(VUNPCKLPD), pairs[i+2], pairs[i])
		fours[i+1] = binary(three(VUNPCKHPD), pairs[i+2], pairs[i])
		fours[i+2] = binary(three(VUNPCKLPD), pairs[i+3], pairs[i+1])
		fours[i+3] = binary(three(VUNPCKHPD), pairs[i+3], pairs[i+1])
	}
	var rows []reg.VecVirtual
	for _, half := range []uint8{0x20, 0x31} {
		for i := range 4 {
			rows = append(rows, shuffled(VPERM2F128, half, fours[i], fours[i+4]))
		}
	}
	return rows
}
