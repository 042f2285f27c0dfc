package program

import (
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// permute writes src of the given shape to dst with axis i of dst being axis perm[i] of src.
func permute[T Float](dst, src []T, shape, perm []int) {
	var axes jointAxes
	switch shape, perm := axes.join(shape, perm); {
	case len(perm) < 2:
		copy(dst, src)
	case len(perm) == 2:
		linalg.Transpose(dst, src, shape[0], shape[1])
	case len(perm) == 3 && perm[0] == 0: // as from (B,H,W,C) to (B,C,H,W)
		transposeStack(dst, src, shape[0], shape[1], shape[2])
	default:
		permuteRows(dst, src, shape, perm)
	}
}

// permuteBack undoes permute. dst has the given shape, src is permuted.
func permuteBack[T Float](dst, src []T, shape, perm []int) {
	permute(dst, src, permuted(shape, perm), inverse(perm))
}

// permuted is the shape with axis i being axis perm[i] of the given one.
func permuted(shape, perm []int) []int {
	to := make([]int, len(perm))
	for i, axis := range perm {
		to[i] = shape[axis]
	}
	return to
}

// inverse is the permutation that undoes perm.
func inverse(perm []int) []int {
	inverse := make([]int, len(perm))
	for i, axis := range perm {
		inverse[axis] = i
	}
	return inverse
}

// transposeStack transposes n matrices of rows x cols.
func transposeStack[T Float](dst, src []T, n, rows, cols int) {
	one := rows * cols
	parallel.Rows(n, one, func(from, to int) {
		for at := from * one; at < to*one; at += one {
			linalg.Transpose(dst[at:at+one], src[at:at+one], rows, cols)
		}
	})
}

// jointAxes makes one axis of those that stay together in a permutation. It has room for the
// results, of up to eight axes.
type jointAxes struct{ first, sizes, shape, order [8]int }

func (a *jointAxes) join(shape, perm []int) (fewer, order []int) {
	first, sizes := a.first[:0], a.sizes[:0] // of each new axis, in the order of the result
	for i, axis := range perm {
		if i > 0 && axis == perm[i-1]+1 {
			sizes[len(sizes)-1] *= shape[axis]
			continue
		}
		first, sizes = append(first, axis), append(sizes, shape[axis])
	}
	fewer, order = append(a.shape[:0], sizes...), a.order[:0]
	for i, f := range first {
		place := 0
		for _, other := range first {
			if other < f {
				place++
			}
		}
		order = append(order, place)
		fewer[place] = sizes[i]
	}
	return fewer, order
}

// permuteRows is permute, row by row of the result.
func permuteRows[E any](dst, src []E, shape, perm []int) {
	st := strides(shape)
	last := len(perm) - 1
	at := make([]int, len(perm))
	n, cols, step := size(shape), shape[perm[last]], st[perm[last]]
	for i := 0; i < n; i += cols {
		j := 0
		for a := range last {
			j += at[a] * st[perm[a]]
		}
		if step == 1 {
			copy(dst[i:i+cols], src[j:])
		} else {
			for k := range cols {
				dst[i+k] = src[j+k*step]
			}
		}
		for a := last - 1; a >= 0; a-- {
			if at[a]++; at[a] < shape[perm[a]] {
				break
			}
			at[a] = 0
		}
	}
}
