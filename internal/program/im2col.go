package program

import "github.com/gorgonia-kfac/kfac/internal/parallel"

// Im2Col unfolds the patches of a (B,C,H,W) image to (B, outH, outW, C*KH*KW).
type Im2Col struct{ Window }

func (Im2Col) String() string { return "Im2Col" }

// im2ColRule unfolds patches. Row (y,x) of a case's result lists the pixels under the kernel at
// (y,x), channel by channel. Where the kernel lies over the padding it has zeros.
type im2ColRule[T Float] struct{ Im2Col }

// each walks over the patches of all cases. It writes the pixels of im to col, or, if fold, adds up
// col at the pixels of im.
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

// within reports whether the pixels of a row of the kernel at x lie side by side in the line.
func (r im2ColRule[T]) within(line, row []T, x int) bool {
	return r.Dilation[1] == 1 && x >= 0 && x+len(row) <= len(line)
}

func (r im2ColRule[T]) copyRow(line, row []T, x int) {
	if r.within(line, row, x) {
		line = line[x:]
		for k := range row {
			row[k] = line[k]
		}
		return
	}
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
	if r.within(line, row, x) {
		line = line[x:]
		for k, v := range row {
			line[k] += v
		}
		return
	}
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
