package program

import (
	"fmt"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// im2ColRule unfolds patches: row (y,x) of a case's result lists the pixels under the kernel at (y,x), channel by channel, and zeros
// where the kernel lies over the padding.
type im2ColRule[T Float] struct{ Im2Col }

// each walks over the patches of all cases: it writes the pixels of im to col, or adds up col at the pixels of im if fold.
func (r im2ColRule[T]) each(c *call[T], im, col []T, fold bool) {
	cases := c.in[0].Shape[0]
	oneIm, oneCol := size(c.in[0].Shape[1:]), size(c.out.Shape[1:])
	parallel.Rows(cases, oneCol, func(from, to int) {
		for i := from; i < to; i++ {
			r.one(c.in[0].Shape[1:], c.out.Shape[1:], im[i*oneIm:(i+1)*oneIm], col[i*oneCol:(i+1)*oneCol], fold)
		}
	})
}

func (r im2ColRule[T]) one(in, out []int, im, col []T, fold bool) {
	channels, height, width := in[0], in[1], in[2]
	for at := range out[0] * out[1] {
		y0 := at/out[1]*r.Stride[0] - r.PadBefore[0]
		x0 := at%out[1]*r.Stride[1] - r.PadBefore[1]
		for ch := range channels {
			for ky := range r.Kernel[0] {
				row := col[:r.Kernel[1]]
				col = col[r.Kernel[1]:]
				y := y0 + ky*r.Dilation[0]
				if y < 0 || y >= height {
					if !fold {
						clear(row)
					}
					continue
				}
				line := im[(ch*height+y)*width:][:width]
				if fold {
					r.addRow(line, row, x0)
				} else {
					r.copyRow(line, row, x0)
				}
			}
		}
	}
}

func (r im2ColRule[T]) copyRow(line, row []T, x int) {
	for k := range row {
		if uint(x) < uint(len(line)) {
			row[k] = line[x]
		} else {
			row[k] = 0
		}
		x += r.Dilation[1]
	}
}

func (r im2ColRule[T]) addRow(line, row []T, x int) {
	for _, v := range row {
		if uint(x) < uint(len(line)) {
			line[x] += v
		}
		x += r.Dilation[1]
	}
}

func (r im2ColRule[T]) forward(c *call[T]) error {
	r.each(c, c.in[0].Data, c.out.Data, false)
	return nil
}

func (r im2ColRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	clear(dst)
	r.each(c, dst, grad, true)
	return nil
}

func (r im2ColRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	r.each(c, tan[0], dst, false)
	return nil
}

// eachWindow calls f for each position of the result of a pooling with the pixels of its window that lie in the image: rows y0 to y1
// (excluded) and columns x0 to x1 of the plane of width pixels per row that starts at plane. Several planes are worked on at the same time.
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
				return fmt.Errorf("a window of %v lies wholly in the padding: kernel %v, padding %v and %v", out, w.Kernel, w.PadBefore, w.PadAfter)
			}
		}
	}
	return nil
}

// within is the part of window i along an axis of n pixels that is not padding.
func (w Window) within(axis, i, n int) (from, to int) {
	start := i*w.Stride[axis] - w.PadBefore[axis]
	return max(start, 0), min(start+w.Kernel[axis], n)
}

// maxPoolRule takes the largest pixel of each window, the first if there are several; padding never wins. NaN does.
type maxPoolRule[T Float] struct{ MaxPool }

func (r maxPoolRule[T]) forward(c *call[T]) error {
	if err := checkWindows(r.Window, c); err != nil {
		return err
	}
	x, best := c.in[0].Data, c.intBuf(0, len(c.out.Data))
	eachWindow(r.Window, c, func(out, plane, y0, y1, x0, x1, width int) {
		at := plane + y0*width + x0
		top := x[at]
		for y := y0; y < y1; y++ {
			row := plane + y*width
			for i, v := range x[row+x0 : row+x1] {
				if v > top || v != v {
					at, top = row+x0+i, v
				}
			}
		}
		best[out], c.out.Data[out] = at, top
	})
	return nil
}

func (r maxPoolRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	best, in, out := c.intBuf(0, len(grad)), c.in[0].Shape, c.out.Shape
	planeIn, planeOut := in[2]*in[3], out[2]*out[3]
	parallel.Rows(in[0]*in[1], planeIn, func(from, to int) {
		clear(dst[from*planeIn : to*planeIn])
		for i := from * planeOut; i < to*planeOut; i++ {
			dst[best[i]] += grad[i]
		}
	})
	return nil
}

func (r maxPoolRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	best := c.intBuf(0, len(dst))
	parallel.For(len(dst), parallel.Grain, func(from, to int) {
		for i := from; i < to; i++ {
			dst[i] = tan[0][best[i]]
		}
	})
	return nil
}

// avgPoolRule takes the mean of the pixels of each window. Padding counts neither in the sum nor in the number of pixels, so that a
// constant image stays constant. (Gorgonia divides the sum by the width of the image instead.)
type avgPoolRule[T Float] struct{ AvgPool }

func (r avgPoolRule[T]) average(c *call[T], src, dst []T) {
	eachWindow(r.Window, c, func(out, plane, y0, y1, x0, x1, width int) {
		var sum T
		for y := y0; y < y1; y++ {
			for _, v := range src[plane+y*width+x0 : plane+y*width+x1] {
				sum += v
			}
		}
		dst[out] = sum / T((y1-y0)*(x1-x0))
	})
}

func (r avgPoolRule[T]) forward(c *call[T]) error {
	if err := checkWindows(r.Window, c); err != nil {
		return err
	}
	r.average(c, c.in[0].Data, c.out.Data)
	return nil
}

func (r avgPoolRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	clear(dst)
	eachWindow(r.Window, c, func(out, plane, y0, y1, x0, x1, width int) {
		g := grad[out] / T((y1-y0)*(x1-x0))
		for y := y0; y < y1; y++ {
			row := dst[plane+y*width+x0 : plane+y*width+x1]
			for i := range row {
				row[i] += g
			}
		}
	})
	return nil
}

func (r avgPoolRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	r.average(c, tan[0], dst)
	return nil
}

// globalAvgPoolRule takes the mean of each channel of each case.
type globalAvgPoolRule[T Float] struct{}

func (globalAvgPoolRule[T]) average(src, dst []T) {
	n := len(src) / max(len(dst), 1)
	for i := range dst {
		var sum T
		for _, v := range src[i*n : (i+1)*n] {
			sum += v
		}
		dst[i] = sum / T(n)
	}
}

func (r globalAvgPoolRule[T]) forward(c *call[T]) error {
	r.average(c.in[0].Data, c.out.Data)
	return nil
}

func (r globalAvgPoolRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	n := len(dst) / max(len(grad), 1)
	for i := range dst {
		dst[i] = grad[i/n] / T(n)
	}
	return nil
}

func (r globalAvgPoolRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	r.average(tan[0], dst)
	return nil
}

// upsampleRule repeats each pixel in a square of Factor x Factor.
type upsampleRule[T Float] struct{ Upsample }

// each calls f with each position of the result and the pixel that it repeats.
func (r upsampleRule[T]) each(c *call[T], f func(out, in int)) {
	rows, width := size(c.out.Shape[:3]), c.out.Shape[3]
	for row := range rows { // Factor rows of the result after each other show one row of the image
		for x := range width {
			f(row*width+x, row/r.Factor*(width/r.Factor)+x/r.Factor)
		}
	}
}

func (r upsampleRule[T]) forward(c *call[T]) error {
	return r.tangent(c, [][]T{c.in[0].Data}, c.out.Data)
}

func (r upsampleRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	clear(dst)
	r.each(c, func(out, in int) { dst[in] += grad[out] })
	return nil
}

func (r upsampleRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	r.each(c, func(out, in int) { dst[out] = tan[0][in] })
	return nil
}
