//go:build purego || !amd64

package kernels

var functions32, functions64 = inGo[float32](), inGo[float64]()
