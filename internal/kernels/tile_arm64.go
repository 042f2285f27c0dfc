//go:build !purego

package kernels

var tiles32, tiles64 = choose()

func choose() (tiles[float32], tiles[float64]) {
	all32, all64 := available()
	return all32[0], all64[0]
}

// available lists what every processor of this kind can run, the fastest first.
func available() ([]tiles[float32], []tiles[float64]) {
	return []tiles[float32]{{"NEON", 8, 4, []tileKernel[float32]{tile32NEONx1, tile32NEONx2, tile32NEONx3}, 0, nil}},
		[]tiles[float64]{{"NEON", 8, 2, []tileKernel[float64]{tile64NEONx1, tile64NEONx2, tile64NEONx3}, 0, nil}}
}

//go:noescape
func tile32NEONx1(k int, a *float32, aRow, aStep int, b *float32, bStep int, c *float32, ldc int, alpha, beta float32)

//go:noescape
func tile32NEONx2(k int, a *float32, aRow, aStep int, b *float32, bStep int, c *float32, ldc int, alpha, beta float32)

//go:noescape
func tile32NEONx3(k int, a *float32, aRow, aStep int, b *float32, bStep int, c *float32, ldc int, alpha, beta float32)

//go:noescape
func tile64NEONx1(k int, a *float64, aRow, aStep int, b *float64, bStep int, c *float64, ldc int, alpha, beta float64)

//go:noescape
func tile64NEONx2(k int, a *float64, aRow, aStep int, b *float64, bStep int, c *float64, ldc int, alpha, beta float64)

//go:noescape
func tile64NEONx3(k int, a *float64, aRow, aStep int, b *float64, bStep int, c *float64, ldc int, alpha, beta float64)
