//go:build purego || !(amd64 || arm64)

package kernels

var tiles32, tiles64 = portable[float32](), portable[float64]()

// available lists what this processor can run, the fastest first.
func available() ([]tiles[float32], []tiles[float64]) {
	return []tiles[float32]{tiles32}, []tiles[float64]{tiles64}
}
