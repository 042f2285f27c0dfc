package kernels

import "unsafe"

// portable are tiles in Go.
func portable[T Float]() tiles[T] {
	return tiles[T]{"portable", 4, 4, []tileKernel[T]{tilePortable[T]}, 0, nil}
}

// tilePortable computes a tile of 4 x 4.
func tilePortable[T Float](k int, a *T, aRow, aStep int, b *T, bStep int, c *T, ldc int, alpha, beta T) {
	as := unsafe.Slice(a, 3*aRow+(k-1)*aStep+1)
	bs := unsafe.Slice(b, (k-1)*bStep+4)
	cs := unsafe.Slice(c, 3*ldc+4)
	for i := 0; i < 4; i += 2 {
		var s00, s01, s02, s03, s10, s11, s12, s13 T
		at0, at1 := i*aRow, (i+1)*aRow
		for p := range k {
			y := bs[p*bStep : p*bStep+4 : p*bStep+4]
			x0, x1 := as[at0], as[at1]
			s00 += x0 * y[0]
			s01 += x0 * y[1]
			s02 += x0 * y[2]
			s03 += x0 * y[3]
			s10 += x1 * y[0]
			s11 += x1 * y[1]
			s12 += x1 * y[2]
			s13 += x1 * y[3]
			at0 += aStep
			at1 += aStep
		}
		for r, s := range [2][4]T{{s00, s01, s02, s03}, {s10, s11, s12, s13}} {
			to := cs[(i+r)*ldc : (i+r)*ldc+4]
			for j, s := range s {
				if beta == 0 {
					to[j] = alpha * s
				} else {
					to[j] = alpha*s + beta*to[j]
				}
			}
		}
	}
}
