package kfac

import (
	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

type (
	layer = layers.Layer
	site  = layers.Site
)

// captured holds what a layer's sites saw in one private run: rows of inputs a and of backpropagated sampled-target gradients g.
type captured[T program.Float] struct {
	a, g    []T   // rows x in, rows x out
	lookups []int // for lookups, in place of rows of a: where the one of the one-hot row is
	cases   int

	meanA, sumG []T // of reduced
}

// capture collects a layer's inputs and gradients from a run after its sampled backward sweep. Where they do not lie in one piece
// they are gathered into buf.
func capture[T program.Float](l *layer, run *program.Run[T], buf *captured[T]) captured[T] {
	buf.cases = run.Cases()
	if l.Reduce {
		buf.reduce(l, run)
		return captured[T]{a: buf.meanA, g: buf.sumG, cases: buf.cases}
	}
	if s := l.Sites[0]; len(l.Sites) == 1 && !s.InputColumns && !s.OutputColumns && !s.Lookup {
		return captured[T]{a: run.Value(s.Input).Data, g: run.Gradient(s.Output), cases: buf.cases}
	}
	buf.a, buf.g, buf.lookups = buf.a[:0], buf.g[:0], buf.lookups[:0]
	for _, s := range l.Sites {
		buf.append(l, s, run)
	}
	return *buf
}

// append adds the rows of one site.
func (c *captured[T]) append(l *layer, s site, run *program.Run[T]) {
	g := run.Gradient(s.Output)
	rows := len(g) / l.Out
	if s.Lookup {
		c.lookups = append(c.lookups, run.Value(s.Input).Ints...)
	} else {
		c.a = appendRows(c.a, run.Value(s.Input).Data, rows, l.In, s.InputColumns)
	}
	c.g = appendRows(c.g, g, rows, l.Out, s.OutputColumns)
}

// reduce computes the mean of a and the sum of g over the positions of each case.
func (c *captured[T]) reduce(l *layer, run *program.Run[T]) {
	c.meanA, c.sumG = zeros(c.meanA, c.cases*l.In), zeros(c.sumG, c.cases*l.Out)
	positions := 0
	for _, s := range l.Sites {
		c.a, c.g = c.a[:0], c.g[:0]
		c.append(l, s, run)
		rows := len(c.g) / l.Out
		perCase := rows / c.cases
		positions += perCase
		for r := range rows {
			n := r / perCase
			linalg.Axpy(1, c.a[r*l.In:(r+1)*l.In], c.meanA[n*l.In:(n+1)*l.In])
			linalg.Axpy(1, c.g[r*l.Out:(r+1)*l.Out], c.sumG[n*l.Out:(n+1)*l.Out])
		}
	}
	linalg.Scale(1/T(positions), c.meanA)
}

// zeros is linalg.Resized with all elements zero.
func zeros[T program.Float](buf []T, n int) []T {
	buf = linalg.Resized(buf, n)
	clear(buf)
	return buf
}

// appendRows appends a matrix of rows x cols to dst; transposed says that src holds cols x rows.
func appendRows[T program.Float](dst, src []T, rows, cols int, transposed bool) []T {
	n := len(dst)
	dst = append(dst, src...)
	if transposed {
		linalg.Transpose(dst[n:], src, cols, rows)
	}
	return dst
}
