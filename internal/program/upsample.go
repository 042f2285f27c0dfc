package program

// Upsample repeats each pixel of a (B,C,H,W) image Factor times in both directions.
type Upsample struct{ Factor int }

func (Upsample) String() string { return "Upsample2D" }

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
