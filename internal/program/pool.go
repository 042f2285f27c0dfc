package program

import "github.com/gorgonia-kfac/kfac/internal/parallel"

// MaxPool takes the maximum of each window of a (B,C,H,W) image.
type MaxPool struct{ Window }

func (MaxPool) String() string { return "MaxPool2D" }

// AvgPool takes the mean of each window of a (B,C,H,W) image.
type AvgPool struct{ Window }

func (AvgPool) String() string { return "AveragePool2D" }

// GlobalAvgPool takes the mean of each channel of a (B,C,H,W) image.
type GlobalAvgPool struct{}

func (GlobalAvgPool) String() string { return "GlobalAveragePool2D" }

// maxPoolRule takes the largest pixel of each window, and the first if there are several. Padding
// never wins. NaN does.
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

// avgPoolRule takes the mean of the pixels of each window. Padding counts neither in the sum nor in
// the number of pixels, so that a constant image stays constant. (Gorgonia divides the sum by the
// width of the image instead.)
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
