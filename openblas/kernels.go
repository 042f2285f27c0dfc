package openblas

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
)

// A generation is an extension of the processors' vector instructions that OpenBLAS has kernels
// for.
type generation struct {
	name    string
	remedy  string   // the value of OPENBLAS_CORETYPE that asks for them
	kernels []string // OpenBLAS's names, in lower case, for the processors whose kernels use it
}

// generations, the newer first.
var generations = []generation{
	{"AVX-512", "SKYLAKEX", []string{"skylakex", "cooperlake", "sapphirerapids"}},
	{"AVX2", "HASWELL", []string{"haswell", "zen", "excavator"}},
}

// processor is the newest generation whose instructions both this processor and its operating
// system have. It is an index of generations.
func processor() int {
	x := cpu.X86
	switch {
	case x.HasAVX512F && x.HasAVX512CD && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL:
		return 0
	case x.HasAVX2 && x.HasFMA:
		return 1
	}
	return len(generations)
}

// warn writes a line to w if OpenBLAS runs kernels of an older generation than the processor's and
// nobody chose that.
func warn(w io.Writer, env func(string) string, kernels string, processor int) {
	for _, g := range generations[:min(processor+1, len(generations))] {
		if slices.Contains(g.kernels, strings.ToLower(kernels)) {
			return
		}
	}
	if processor == len(generations) || env("OPENBLAS_CORETYPE") != "" || env("KFAC_OPENBLAS_QUIET") != "" {
		return
	}
	g := generations[processor]
	fmt.Fprintf(w, "kfac/openblas: OpenBLAS runs its kernels for %s, but this processor has %s: "+
		"OPENBLAS_CORETYPE=%s in the environment may make matrix products several times as fast "+
		"(KFAC_OPENBLAS_QUIET=1 leaves this line out)\n", kernels, g.name, g.remedy)
}
