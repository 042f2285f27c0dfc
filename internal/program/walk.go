package program

import "github.com/gorgonia-kfac/kfac/internal/parallel"

// A stretch is a piece of the result of a binary op along its last axis, with the places of the
// operands' elements for it.
type stretch struct {
	at, n    int
	in, step [2]int // first position in each operand, and how far it is from there to the next: 0 if broadcast
}

// stretchLength is the most elements of a stretch: few enough to stay in the cache while they are
// worked on.
const stretchLength = 1 << 12

// A walk over the result of a binary op goes from stretch to stretch. The stretches are rows of
// equal length, joined from the last axes. The last row may be shorter.
type walk struct {
	elements, rows, length int
	step                   [2]int // in the operands, within a row

	// shape is that of the axes that lead from row to row. It is nil where no operand needs to be
	// broadcast along any.
	shape   []int
	strides [2][]int // of the operands, along these axes
}

// walkOf finds the walk of a call. Its strides last until the next walk of the call.
func walkOf[T Float](c *call[T]) walk {
	n := len(c.out.Data)
	w := walk{elements: n, rows: (n + stretchLength - 1) / stretchLength, length: stretchLength}
	spread := false // one operand has to be broadcast along some axes
	for k, in := range c.in {
		switch len(in.Data) {
		case n:
			w.step[k] = 1
		case 1:
		default:
			spread = true
		}
	}
	if spread {
		w.strides = [2][]int{broadcastStrides(c, 0), broadcastStrides(c, 1)}
		axes, length, step := longest(c.out.Shape, w.strides)
		w.shape, w.rows, w.length, w.step = c.out.Shape[:axes], n/max(length, 1), length, step
	}
	return w
}

// short reports whether there is too little to do for several processors.
func (w walk) short() bool { return w.elements < 2*parallel.Grain }

// atOnce calls f for all stretches, several at the same time.
func (w walk) atOnce(f func(s stretch)) {
	parallel.Rows(w.rows, w.length, func(from, to int) { w.each(from, to, f) })
}

// each calls f for the stretches of some rows.
func (w walk) each(from, to int, f func(s stretch)) {
	for row := from; row < to; row++ {
		s := stretch{at: row * w.length, n: min(w.length, w.elements-row*w.length), step: w.step}
		if w.shape == nil {
			s.in = [2]int{s.at * s.step[0], s.at * s.step[1]}
		}
		for axis, rest := len(w.shape)-1, row; axis >= 0; axis-- {
			i := rest % w.shape[axis]
			rest /= w.shape[axis]
			s.in[0] += i * w.strides[0][axis]
			s.in[1] += i * w.strides[1][axis]
		}
		f(s)
	}
}

// longest joins the last axes of a shape for as long as one step in each operand leads from element
// to element. It returns how many axes are left, and the length and the steps of what was joined.
func longest(shape []int, strides [2][]int) (axes, length int, step [2]int) {
	length = 1
	for axes = len(shape); axes > 0; axes-- {
		n, here := shape[axes-1], [2]int{strides[0][axes-1], strides[1][axes-1]}
		switch {
		case n == 1:
		case length == 1:
			step = here
		case here != [2]int{step[0] * length, step[1] * length}:
			return axes, length, step
		}
		length *= n
	}
	return axes, length, step
}

// broadcastStrides are the steps of operand k from element to element along the axes of the result.
// They are 0 where it is broadcast.
func broadcastStrides[T Float](c *call[T], k int) []int {
	st, in := c.intBuf(k, len(c.out.Shape)), c.in[k]
	for i, d := len(st)-1, 1; i >= 0; i-- {
		st[i] = 0
		if len(in.Data) > 1 && in.Shape[i] != 1 {
			st[i] = d
			d *= in.Shape[i]
		}
	}
	return st
}
