package likelihood

import (
	"sync"

	"github.com/gorgonia-kfac/kfac/internal/kernels"
)

// scratch is kept from call to call, so that methods do not allocate.
var scratch = sync.Pool{New: func() any { return new([]float64) }}

// pieceLength is about how many entries are computed at once: few enough for the nearest cache.
const pieceLength = 512

// eachPiece calls f for consecutive pieces of n entries, of whole rows, with scratch of their size.
func eachPiece(cols, n int, f func(p []float64, from, to int)) {
	buf := scratch.Get().(*[]float64)
	defer scratch.Put(buf)
	length := max(1, pieceLength/cols) * cols
	if cap(*buf) < length {
		*buf = make([]float64, length)
	}
	for from := 0; from < n; from += length {
		to := min(from+length, n)
		f((*buf)[:to-from], from, to)
	}
}

// subtract writes mean(z) - y to r, which may alias y.
func subtract(r, y, z []float64, mean func(dst, z []float64)) {
	eachPiece(1, len(z), func(p []float64, from, to int) {
		mean(p, z[from:to])
		kernels.Sub(r[from:to], p, y[from:to])
	})
}
