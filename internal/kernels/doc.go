// Package kernels computes matrix products and elementwise functions at the speed of the processor,
// without cgo: by assembly for AVX-512 and AVX2 with FMA on amd64 and for NEON on arm64, and in
// portable Go elsewhere and with the build tag purego. Results depend on the kind of processor, but
// not on the number of processors, nor on where in memory operands lie.
//
// The directory asm has the program that writes the assembly.
package kernels

//go:generate go -C asm run . -out ../kernels_amd64.s -stubs ../kernels_amd64.go -pkg kernels -neon ../kernels_arm64.s

// Float is the set of element types that Gorgonia models are trained in.
type Float interface{ float32 | float64 }

func single[T Float]() bool {
	_, ok := any(T(0)).(float32)
	return ok
}
