package program

import (
	"fmt"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// Window is the geometry of patches of an image. The axes are height and width.
type Window struct {
	Kernel, Stride, Dilation [2]int
	PadBefore, PadAfter      [2]int // north and west; south and east
}

// within is the part of window i along an axis of n pixels that is not padding.
func (w Window) within(axis, i, n int) (from, to int) {
	start := i*w.Stride[axis] - w.PadBefore[axis]
	return max(start, 0), min(start+w.Kernel[axis], n)
}

// eachWindow calls f for each position of the result of a pooling, with the pixels of its window
// that lie in the image. These are rows y0 to y1 (excluded) and columns x0 to x1 of a plane. The
// plane starts at plane and has width pixels per row. Several planes are worked on at the same
// time.
func eachWindow[T Float](w Window, c *call[T], f func(out, plane, y0, y1, x0, x1, width int)) {
	in, out := c.in[0].Shape, c.out.Shape
	planeIn, planeOut := in[2]*in[3], out[2]*out[3]
	parallel.Rows(in[0]*in[1], planeIn, func(from, to int) {
		for p := from; p < to; p++ {
			at := p * planeOut
			for y := range out[2] {
				y0, y1 := w.within(0, y, in[2])
				for x := range out[3] {
					x0, x1 := w.within(1, x, in[3])
					f(at, p*planeIn, y0, y1, x0, x1, in[3])
					at++
				}
			}
		}
	})
}

// checkWindows makes sure that no window lies wholly in the padding.
func checkWindows[T Float](w Window, c *call[T]) error {
	in, out := c.in[0].Shape, c.out.Shape
	for axis := range 2 {
		for i := range out[2+axis] {
			if from, to := w.within(axis, i, in[2+axis]); from >= to {
				return fmt.Errorf("a window of %v lies wholly in the padding: kernel %v, padding %v and %v",
					out, w.Kernel, w.PadBefore, w.PadAfter)
			}
		}
	}
	return nil
}
