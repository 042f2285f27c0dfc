// Command asm writes the assembly of package kernels, and for amd64 the Go declarations for it. It
// is a module of its own, so that only those who change a kernel need avo.
package main

import (
	"flag"
	"log"

	"github.com/mmcloughlin/avo/build"
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
	build.Generate() // reads the flags
	if err := neon(*neonFile); err != nil {
		log.Fatal(err)
	}
}
