// Package linalg is linear algebra in float32 and float64. Matrix products are those of package
// kernels, or of the BLAS that is registered with gonum (blas32.Use, blas64.Use) if that is not
// gonum's own. All matrices are row-major and dense.
package linalg

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/kernels"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// Float is the set of element types that Gorgonia models are trained in.
type Float interface{ float32 | float64 }

// Resized returns n elements in the memory of x, grown if it is too small. Their values are
// unspecified.
func Resized[T Float](x []T, n int) []T {
	if cap(x) < n {
		return make([]T, n)
	}
	return x[:n]
}

// Dot returns the inner product of x and y, which have the same length. It is summed in float64.
func Dot[T Float](x, y []T) T { return T(kernels.Dot(x, y)) }

// Dot64 is Dot in float64, on all processors.
func Dot64[T Float](x, y []T) float64 {
	if len(x) <= piece { // without a closure
		return kernels.Dot(x, y)
	}
	return Sum(len(x), func(from, to int) float64 { return kernels.Dot(x[from:to], y[from:to]) })
}

// Norm returns the Euclidean norm, also where squares over- or underflow.
func Norm[T Float](x []T) float64 {
	if s := Dot64(x, x); s > 1e-280 && s < 1e280 {
		return math.Sqrt(s)
	}
	var largest, sum float64
	for _, v := range x {
		largest = max(largest, math.Abs(float64(v)))
	}
	if largest == 0 {
		return 0
	}
	for _, v := range x {
		sum += float64(v) / largest * (float64(v) / largest)
	}
	return largest * math.Sqrt(sum)
}

// piece is the number of elements that Sum and Sums give f at once.
const piece = parallel.Grain

// Sum adds up what f returns for consecutive pieces of 0 <= i < n. The pieces do not depend on the
// number of processors.
func Sum(n int, f func(from, to int) float64) float64 {
	if n <= piece {
		return f(0, n)
	}
	var sum [1]float64
	Sums(n, sum[:], func(from, to int, sum []float64) { sum[0] = f(from, to) })
	return sum[0]
}

// Sums is Sum for several sums: it adds up in total what f writes to its sums. Both are zero
// before.
func Sums(n int, total []float64, f func(from, to int, sums []float64)) {
	if n <= piece {
		f(0, n, total)
		return
	}
	k := len(total)
	sums := make([]float64, k*((n+piece-1)/piece))
	parallel.For(len(sums)/k, 1, func(from, to int) {
		for i := from; i < to; i++ {
			f(i*piece, min((i+1)*piece, n), sums[i*k:(i+1)*k])
		}
	})
	for i, s := range sums {
		total[i%k] += s
	}
}

// Axpy computes y += alpha x. With alpha = 0 x does not matter.
func Axpy[T Float](alpha T, x, y []T) {
	if alpha != 0 {
		kernels.Axpy(alpha, x[:len(y)], y)
	}
}

// Scale computes x *= alpha. With alpha = 0 the old contents do not matter.
func Scale[T Float](alpha T, x []T) {
	if alpha == 0 {
		clear(x)
	} else {
		kernels.Scale(alpha, x, x)
	}
}

// block is the edge of the tiles that Transpose and the mirrors work in.
const block = 32

// Transpose writes the transpose of src (rows x cols) to dst (cols x rows).
func Transpose[T Float](dst, src []T, rows, cols int) {
	TransposeLD(dst, rows, src, cols, rows, cols)
}

// TransposeLD is Transpose with the strides between rows given: ldd and lds elements.
func TransposeLD[T Float](dst []T, ldd int, src []T, lds, rows, cols int) {
	tiles := (rows + block - 1) / block // along an edge
	if rows*cols < parallel.Grain {
		transposeTiles(dst, ldd, src, lds, rows, cols, 0, tiles)
		return
	}
	parallel.Rows(tiles, block*cols, func(from, to int) {
		transposeTiles(dst, ldd, src, lds, rows, cols, from, to)
	})
}

// transposeTiles is TransposeLD for the rows from to to of tiles of src.
func transposeTiles[T Float](dst []T, ldd int, src []T, lds, rows, cols, from, to int) {
	for i := from * block; i < min(to*block, rows); i += block {
		for j := 0; j < cols; j += block {
			kernels.Transpose(dst[j*ldd+i:], ldd, src[i*lds+j:], lds, min(block, rows-i), min(block, cols-j))
		}
	}
}

// TransposeSquare transposes the n x n matrix a in place.
func TransposeSquare[T Float](a []T, n int) {
	eachTileAbove(n, func(i0, i1, j0, j1 int) {
		for i := i0; i < i1; i++ {
			for j := max(j0, i+1); j < j1; j++ {
				a[i*n+j], a[j*n+i] = a[j*n+i], a[i*n+j]
			}
		}
	})
}

// Convert copies src to dst, element by element, in dst's type.
func Convert[D, S Float](dst []D, src []S) {
	parallel.For(len(src), parallel.Grain, func(from, to int) {
		d := dst[from:to]
		for i, v := range src[from:to] {
			d[i] = D(v)
		}
	})
}

// Finite reports whether no element of x is NaN or infinite.
func Finite[T Float](x []T) bool {
	if len(x) <= piece {
		return oddness(x) == 0
	}
	return Sum(len(x), func(from, to int) float64 { return oddness(x[from:to]) }) == 0
}

// oddness is 0 if all of x is finite, and else NaN. For every finite v the difference v-v is 0, and
// for every other it is NaN.
func oddness[T Float](x []T) float64 {
	var s0, s1, s2, s3 T // apart, so that additions do not wait for each other
	n := len(x) &^ 3
	for i := 0; i < n; i += 4 {
		v := x[i : i+4 : i+4]
		s0 += v[0] - v[0]
		s1 += v[1] - v[1]
		s2 += v[2] - v[2]
		s3 += v[3] - v[3]
	}
	for _, v := range x[n:] {
		s0 += v - v
	}
	return float64(s0 + s1 + s2 + s3)
}
