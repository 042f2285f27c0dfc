package program

import "slices"

// Sparsemax is the Euclidean projection of each vector along Axis onto the simplex.
type Sparsemax struct{ Axis int }

func (Sparsemax) String() string { return "Sparsemax" }

// sparsemaxRule projects vectors along an axis onto the simplex (Martins & Astudillo, 2016,
// algorithm 1): y = max(x - tau, 0), with the threshold tau for which y adds up to 1.
type sparsemaxRule[T Float] struct{ Sparsemax }

func (r sparsemaxRule[T]) forward(c *call[T]) error {
	x, y := c.in[0].Data, c.out.Data
	scratch := c.buf(0, len(x))
	eachAlong(c.out.Shape, r.Axis, func(start, step, n int) {
		number := start/(n*step)*step + start%(n*step) // of the vector
		sorted := scratch[number*n : (number+1)*n]
		for i := range n {
			sorted[i] = x[start+i*step]
		}
		tau := threshold(sorted)
		for i := range n {
			y[start+i*step] = max(x[start+i*step]-tau, 0)
		}
	})
	return nil
}

// threshold finds tau from the largest k for which 1 + k z_k exceeds z_1 + ... + z_k, where z is
// sorted in descending order. It sorts z.
func threshold[T Float](z []T) T {
	slices.Sort(z)
	top := z[len(z)-1] // subtracted for the sake of precision
	var sum, tau T
	for k := range z {
		v := z[len(z)-1-k] - top
		if sum += v; 1+T(k+1)*v <= sum {
			break
		}
		tau = (sum - 1) / T(k+1)
	}
	return tau + top
}

// reverse gives g less its mean on the support of y, and else 0.
func (r sparsemaxRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	y := c.out.Data
	eachAlong(c.out.Shape, r.Axis, func(start, step, n int) {
		var sum, count T
		for at := start; at < start+n*step; at += step {
			if y[at] > 0 {
				sum += grad[at]
				count++
			}
		}
		for at := start; at < start+n*step; at += step {
			dst[at] = 0
			if y[at] > 0 {
				dst[at] = grad[at] - sum/count
			}
		}
	})
	return nil
}

func (r sparsemaxRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	return r.reverse(c, 0, tan[0], dst) // the Jacobian is symmetric
}
