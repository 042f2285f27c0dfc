// Command asm writes the assembly of package kernels, and for amd64 the Go declarations for it. It
// is a module of its own, so that only those who change a kernel need avo.
package main

import (
	"flag"
	"log"

	"github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

var neonFile = flag.String("neon", "", "`file` for the assembly for arm64")

func main() {
	build.ConstraintExpr("!purego")
	for _, p := range []precision{single, double} {
		for vectors := 1; vectors <= 3; vectors++ {
			if vectors < 3 { // more has no place in 16 registers
				tile(sse2, p, 4, vectors)
			}
			tile(avx2, p, 4, vectors)
			tile(avx512, p, 8, vectors)
		}
	}
	for _, p := range []precision{single, double} {
		(&vectors{precision: p, constants: map[uint64]Mem{}}).all()
	}
	columns(single)
	columns(double)
	build.Generate() // reads the flags
	if err := neon(*neonFile); err != nil {
		log.Fatal(err)
	}
}

// all makes the elementwise functions of a precision.
func (v *vectors) all() {
	type registers = []reg.VecVirtual
	for _, f := range []struct {
		name string
		f    func(x Op) reg.VecVirtual
	}{
		{"exp", v.exp}, {"log", v.log}, {"log1p", v.log1p}, {"tanh", v.tanh}, {"sigmoid", v.sigmoid},
		{"softplus", v.softplus}, {"rectify", func(x Op) reg.VecVirtual { return v.times(x, v.step(x)) }},
	} {
		v.elementwise(f.name, "is the function of each element of x.", []string{"x"}, false,
			func(x registers) reg.VecVirtual { return f.f(x[0]) })
	}
	for _, f := range []struct {
		name, doc string
		f         func(x, y Op) reg.VecVirtual
	}{
		{"add", "is x + y.", v.plus},
		{"sub", "is x - y.", v.minus},
		{"mul", "is x y, element by element.", v.times},
		{"tanhChain", "is x times the derivative of tanh where that is y.",
			func(x, y Op) reg.VecVirtual { return v.times(x, v.fnma(y, y, v.number(1))) }},
		{"sigmoidChain", "is x times the derivative of sigmoid where that is y.",
			func(x, y Op) reg.VecVirtual { return v.times(x, v.fnma(y, y, y)) }},
		{"softplusChain", "is x times the derivative of softplus at y.",
			func(x, y Op) reg.VecVirtual { return v.times(x, v.sigmoid(y)) }},
		{"rectifyChain", "is x times the derivative of the rectifier at y.",
			func(x, y Op) reg.VecVirtual { return v.times(x, v.step(y)) }},
	} {
		v.elementwise(f.name, f.doc, []string{"x", "y"}, false,
			func(x registers) reg.VecVirtual { return f.f(x[0], x[1]) })
	}
	v.elementwise("mulAdd", "is x y + z, element by element.", []string{"x", "y", "z"}, false,
		func(x registers) reg.VecVirtual { return v.fma(x[0], x[1], x[2]) })
	v.elementwise("axpy", "is alpha x + y.", []string{"x", "y"}, true,
		func(x registers) reg.VecVirtual { return v.fma(x[0], x[1], x[2]) })
	v.elementwise("scale", "is alpha x.", []string{"x"}, true,
		func(x registers) reg.VecVirtual { return v.times(x[0], x[1]) })
	v.elementwise("addScalar", "is alpha + x.", []string{"x"}, true,
		func(x registers) reg.VecVirtual { return v.plus(x[0], x[1]) })
	v.sum("dot", "is the inner product, summed in float64.", true)
	v.sum("sum", "is the sum, in float64.", false)
}
