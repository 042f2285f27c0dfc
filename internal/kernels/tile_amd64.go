//go:build !purego

package kernels

import "golang.org/x/sys/cpu"

var tiles32, tiles64 = choose()

func choose() (tiles[float32], tiles[float64]) {
	all32, all64 := available()
	return all32[0], all64[0]
}

// available lists what this processor can run, the fastest first.
func available() (all32 []tiles[float32], all64 []tiles[float64]) {
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX2 {
		all32 = append(all32, tiles[float32]{"AVX-512", 8, 16,
			[]tileKernel[float32]{tile32AVX512x1, tile32AVX512x2, tile32AVX512x3}, 8, columns32AVX2})
		all64 = append(all64, tiles[float64]{"AVX-512", 8, 8,
			[]tileKernel[float64]{tile64AVX512x1, tile64AVX512x2, tile64AVX512x3}, 4, columns64AVX2})
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		all32 = append(all32, tiles[float32]{"AVX2", 4, 8,
			[]tileKernel[float32]{tile32AVX2x1, tile32AVX2x2, tile32AVX2x3}, 8, columns32AVX2})
		all64 = append(all64, tiles[float64]{"AVX2", 4, 4,
			[]tileKernel[float64]{tile64AVX2x1, tile64AVX2x2, tile64AVX2x3}, 4, columns64AVX2})
	}
	return append(all32, tiles[float32]{"SSE2", 4, 4, []tileKernel[float32]{tile32SSE2x1, tile32SSE2x2}, 0, nil}),
		append(all64, tiles[float64]{"SSE2", 4, 2, []tileKernel[float64]{tile64SSE2x1, tile64SSE2x2}, 0, nil})
}
