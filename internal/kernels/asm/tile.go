package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// tile makes the kernel of matrix products for a tile of C of a number of rows (4 or 8) and of a
// number of vectors across. The whole tile is kept in registers.
func tile(i isa, p precision, rows, vectors int) {
	name := fmt.Sprintf("tile%s%sx%d", p.name, i.name, vectors)
	TEXT(name, NOSPLIT, fmt.Sprintf(
		"func(k int, a *%[1]s, aRow, aStep int, b *%[1]s, bStep int, c *%[1]s, ldc int, alpha, beta %[1]s)", p.goType))
	Doc(fmt.Sprintf("%s computes a tile of C of %d rows and %d vectors of %d bytes.", name, rows, vectors, i.bytes))
	Pragma("noescape")

	k := Load(Param("k"), GP64())
	a := address(p, "a", "aRow", rows)
	aStep := stride(p, "aStep")
	b := Load(Param("b"), GP64())
	bStep := stride(p, "bStep")

	sum := make([][]reg.VecVirtual, rows)
	for r := range sum {
		sum[r] = make([]reg.VecVirtual, vectors)
		for v := range sum[r] {
			sum[r][v] = i.vector()
			i.zero(sum[r][v])
		}
	}

	Label("products")
	across := make([]reg.VecVirtual, vectors)
	for v := range across {
		across[v] = i.vector()
		i.load(p, Mem{Base: b, Disp: v * i.bytes}, across[v])
	}
	for r := range sum {
		x := i.vector()
		i.broadcast(p, a.row(r), x)
		for v := range across {
			i.addProduct(p, across[v], x, sum[r][v])
		}
	}
	ADDQ(bStep, b)
	a.advance(aStep)
	DECQ(k)
	JNZ(LabelRef("products"))

	c := address(p, "c", "ldc", rows)
	alpha, beta := i.vector(), i.vector()
	i.broadcast(p, NewParamAddr("alpha", alphaOffset), alpha)
	bits := GP64()
	if p.shift == 2 {
		MOVL(NewParamAddr("beta", alphaOffset+4), bits.As32())
		SHLL(U8(1), bits.As32())
	} else {
		MOVQ(NewParamAddr("beta", alphaOffset+8), bits)
		SHLQ(U8(1), bits)
	}
	JZ(LabelRef("overwrite")) // what C holds does not matter, even if it is NaN

	i.broadcast(p, NewParamAddr("beta", alphaOffset+1<<p.shift), beta)
	finish(i, p, sum, c, func(s reg.VecVirtual, old Mem) {
		i.mul(p, alpha, s)
		if i.name == sse2.name {
			c := i.vector()
			i.load(p, old, c)
			i.addProduct(p, beta, c, s)
		} else {
			i.addProduct(p, old, beta, s)
		}
	})
	Label("overwrite")
	finish(i, p, sum, c, func(s reg.VecVirtual, _ Mem) { i.mul(p, alpha, s) })
}

// alphaOffset is where the argument alpha lies: behind eight words.
const alphaOffset = 64

// finish stores the sums in C, as they are after f, and returns.
func finish(i isa, p precision, sum [][]reg.VecVirtual, c rowAddress, f func(s reg.VecVirtual, old Mem)) {
	for r := range sum {
		for v, s := range sum[r] {
			to := c.row(r)
			to.Disp = v * i.bytes
			f(s, to)
			i.store(p, s, to)
		}
	}
	if i.name != sse2.name {
		VZEROUPPER()
	}
	RET()
}

// stride loads a number of elements, as bytes.
func stride(p precision, param string) reg.GPVirtual {
	s := Load(Param(param), GP64()).(reg.GPVirtual)
	SHLQ(U8(p.shift), s)
	return s
}

// rowAddress addresses up to eight rows at equal distances.
type rowAddress struct {
	base        [2]reg.GPVirtual // of rows 0 and 4
	one, threes reg.GPVirtual    // one and three distances
}

func address(p precision, param, distance string, rows int) (a rowAddress) {
	a.base[0] = Load(Param(param), GP64()).(reg.GPVirtual)
	a.one = stride(p, distance)
	a.threes = GP64()
	LEAQ(Mem{Base: a.one, Index: a.one, Scale: 2}, a.threes)
	if rows > 4 {
		a.base[1] = GP64()
		LEAQ(Mem{Base: a.base[0], Index: a.one, Scale: 4}, a.base[1])
	}
	return a
}

func (a rowAddress) row(r int) Mem {
	base := a.base[r/4]
	switch r % 4 {
	case 0:
		return Mem{Base: base}
	case 3:
		return Mem{Base: base, Index: a.threes, Scale: 1}
	}
	return Mem{Base: base, Index: a.one, Scale: uint8(r % 4)}
}

func (a rowAddress) advance(by reg.GPVirtual) {
	for _, base := range a.base {
		if base != nil {
			ADDQ(by, base)
		}
	}
}
