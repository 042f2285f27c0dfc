package main

import (
	"fmt"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// elementwise makes a function that fills dst by elements of the same place in the given slices, of
// which the first tells the length. The last elements, fewer than a vector, go the same way in a
// vector with zeros.
func (v *vectors) elementwise(
	name, doc string, slices []string, scalar bool, f func(x []reg.VecVirtual) reg.VecVirtual,
) {
	signature := fmt.Sprintf("%s []%s", strings.Join(append([]string{"dst"}, slices...), ", "), v.goType)
	if scalar {
		signature = "alpha " + v.goType + ", " + signature
	}
	TEXT(name+v.name+"AVX2", NOSPLIT, "func("+signature+")")
	Doc(fmt.Sprintf("%s%sAVX2 %s", name, v.name, doc))
	Pragma("noescape")
	var alpha []reg.VecVirtual
	if scalar {
		alpha = []reg.VecVirtual{YMM()}
		address, err := Param("alpha").Resolve()
		if err != nil {
			panic(err)
		}
		v.broadcast(address.Addr, alpha[0])
	}
	n := Load(Param(slices[0]).Len(), GP64())
	to := Load(Param("dst").Base(), GP64())
	var from []reg.Register
	for _, s := range slices {
		from = append(from, Load(Param(s).Base(), GP64()))
	}

	Label("whole")
	CMPQ(n, Imm(uint64(v.lanes())))
	JL(LabelRef("rest"))
	x := alpha
	for _, p := range from {
		x = append(x, v.register(Mem{Base: p}))
		ADDQ(Imm(vectorBytes), p)
	}
	v.load(f(x), Mem{Base: to})
	ADDQ(Imm(vectorBytes), to)
	SUBQ(Imm(uint64(v.lanes())), n)
	JMP(LabelRef("whole"))

	Label("rest")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	mask := v.mask(n)
	x = alpha
	for _, p := range from {
		x = append(x, v.masked(Mem{Base: p}, mask))
	}
	pick(v, VMASKMOVPS, VMASKMOVPD)(f(x), mask, Mem{Base: to})
	Label("done")
	VZEROUPPER()
	RET()
}

// mask is set in the first n elements.
func (v *vectors) mask(n reg.Register) reg.VecVirtual {
	if v.masks.Base == nil {
		v.masks = GLOBL("masks"+v.name, attr.RODATA|attr.NOPTR)
		for i := range 2 * v.lanes() {
			all := ^uint64(0)
			if i >= v.lanes() {
				all = 0
			}
			if v.is32() {
				DATA(4*i, U32(all))
			} else {
				DATA(8*i, U64(all))
			}
		}
	}
	table, missing, m := GP64(), GP64(), YMM()
	LEAQ(v.masks, table)
	MOVQ(U32(v.lanes()), missing)
	SUBQ(n, missing)
	VMOVDQU(Mem{Base: table, Index: missing, Scale: 1 << v.shift}, m)
	return m
}

// masked loads the elements that the mask is set for, and zeros.
func (v *vectors) masked(from Mem, mask Op) reg.VecVirtual {
	r := YMM()
	pick(v, VMASKMOVPS, VMASKMOVPD)(from, mask, r)
	return r
}

// sum makes the inner product of x and y, or the sum of x, in float64: in running sums of four
// numbers each.
func (v *vectors) sum(name, doc string, product bool) {
	slices := "x"
	if product {
		slices = "x, y"
	}
	TEXT(name+v.name+"AVX2", NOSPLIT, fmt.Sprintf("func(%s []%s) float64", slices, v.goType))
	Doc(fmt.Sprintf("%s%sAVX2 %s", name, v.name, doc))
	Pragma("noescape")
	n := Load(Param("x").Len(), GP64())
	x := Load(Param("x").Base(), GP64())
	var y reg.Register
	if product {
		y = Load(Param("y").Base(), GP64())
	}
	const apart = 4 // sums, whose additions do not wait for each other
	sum := make([]reg.VecVirtual, apart)
	for i := range sum {
		sum[i] = YMM()
		VXORPD(sum[i], sum[i], sum[i])
	}
	quarter := 4 << v.shift // bytes of four elements
	step := apart * 4
	four := func(p reg.Register, i int) reg.VecVirtual {
		r := YMM()
		from := Mem{Base: p, Disp: i * quarter}
		if v.is32() {
			VCVTPS2PD(from, r)
		} else {
			VMOVUPD(from, r)
		}
		return r
	}

	add := func(i int) {
		if product {
			VFMADD231PD(four(x, i), four(y, i), sum[i])
		} else {
			VADDPD(four(x, i), sum[i], sum[i])
		}
	}
	advance := func(bytes int) {
		ADDQ(Imm(uint64(bytes)), x)
		if product {
			ADDQ(Imm(uint64(bytes)), y)
		}
	}

	Label("whole")
	CMPQ(n, Imm(uint64(step)))
	JL(LabelRef("fours"))
	for i := range sum {
		add(i)
	}
	advance(apart * quarter)
	SUBQ(Imm(uint64(step)), n)
	JMP(LabelRef("whole"))

	Label("fours")
	CMPQ(n, Imm(4))
	JL(LabelRef("ones"))
	add(0)
	advance(quarter)
	SUBQ(Imm(4), n)
	JMP(LabelRef("fours"))

	Label("ones")
	VADDPD(sum[1], sum[0], sum[0])
	VADDPD(sum[3], sum[2], sum[2])
	VADDPD(sum[2], sum[0], sum[0])
	high := XMM()
	VEXTRACTF128(Imm(1), sum[0], high)
	total := XMM()
	VADDPD(high, sum[0].AsX(), total)
	VHADDPD(total, total, total)
	Label("one")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	one := func(p reg.Register) reg.VecVirtual {
		r := XMM()
		if v.is32() {
			VCVTSS2SD(Mem{Base: p}, total, r)
		} else {
			VMOVSD(Mem{Base: p}, r)
		}
		return r
	}
	if product {
		VFMADD231SD(one(x), one(y), total)
	} else {
		VADDSD(one(x), total, total)
	}
	advance(1 << v.shift)
	DECQ(n)
	JMP(LabelRef("one"))
	Label("done")
	Store(total, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
