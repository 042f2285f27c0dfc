package program

import "github.com/gorgonia-kfac/kfac/internal/parallel"

// size is the number of elements of a shape.
func size(shape []int) int {
	s := 1
	for _, d := range shape {
		s *= d
	}
	return s
}

// strides are the row-major strides of a shape.
func strides(shape []int) []int {
	s := make([]int, len(shape))
	for i, d := len(shape)-1, 1; i >= 0; i-- {
		s[i] = d
		d *= shape[i]
	}
	return s
}

// split cuts a shape at an axis: the numbers of elements before, along and after it.
func split(shape []int, axis int) (outer, n, inner int) {
	return size(shape[:axis]), shape[axis], size(shape[axis+1:])
}

// last is the length of the last axis, 1 for a scalar.
func last(shape []int) int {
	if len(shape) == 0 {
		return 1
	}
	return shape[len(shape)-1]
}

// eachAlong calls f for each vector along an axis, for several at the same time. The vector's n
// elements are at start, start+step, ...
func eachAlong(shape []int, axis int, f func(start, step, n int)) {
	if len(shape) == 0 {
		f(0, 1, 1)
		return
	}
	outer, n, inner := split(shape, axis)
	parallel.Rows(outer, n*inner, func(from, to int) {
		for o := from; o < to; o++ {
			for i := range inner {
				f(o*n*inner+i, inner, n)
			}
		}
	})
}
