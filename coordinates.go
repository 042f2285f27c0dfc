package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// coordinates are those that the weights of a layer are damped in, so that the units of data do not
// matter. A layer whose inputs are data sees them standardised, and one whose outputs are those of
// the model has them in the unit of the errors:
//
//	a~ = [(a - m)/s, 1],  W~ = s W/t,  b~ = (b + m W)/t,  g~ = t g.
//
// Without damping the coordinates make no difference (Martens & Grosse 2015, section 10). m, s and
// t are those of the first batch, and stay. Before it the coordinates are the weights' own.
type coordinates[T program.Float] struct {
	settled bool      // by a batch that was taken in
	shift   []float64 // m, by input; nil for 0
	scale   float64   // s; 0 for 1
	unit    float64   // t; 0 for 1
}

// own reports whether the coordinates are the weights' own.
func (c *coordinates[T]) own() bool { return c == nil || c.scale == 0 && c.unit == 0 }

// factors returns s/t and t.
func (c *coordinates[T]) factors() (scale, unit T) {
	s, t := 1.0, 1.0
	if c != nil && c.scale > 0 {
		s = c.scale
	}
	if c != nil && c.unit > 0 {
		t = c.unit
	}
	return T(s / t), T(t)
}

// shiftOf returns m of an input.
func (c *coordinates[T]) shiftOf(i int) T {
	if c.own() || c.shift == nil {
		return 0
	}
	return T(c.shift[i])
}

// standardise finds m and s from rows of inputs, x: m is the median of each input, if there is a
// bias to take it, and s the median distance from it of all numbers that differ from it. So neither
// a case that is far off nor inputs that are mostly 0 count. An s for each input would make much of
// those that hardly vary, as the pixels at the border of an image. Ranks may have parts of x.
func (c *coordinates[T]) standardise(x []float64, inputs int, bias bool, on *ranks) {
	rows := len(x) / inputs
	columns, distances := make([][]float64, inputs), make([]float64, 0, len(x))
	for i := range columns {
		columns[i] = make([]float64, rows)
		for r := range columns[i] {
			columns[i][r] = x[r*inputs+i]
		}
	}
	if c.shift = make([]float64, inputs); bias && on.count(rows) > 1 {
		c.shift = on.medians(columns)
	}
	for i, column := range columns {
		for _, v := range column {
			if d := math.Abs(v - c.shift[i]); d > rounded*math.Abs(c.shift[i]) {
				distances = append(distances, d)
			}
		}
	}
	c.scale = on.medians([][]float64{distances})[0]
	if c.scale == 0 { // all rows are the same
		c.shift = nil
	}
}

const (
	fewRows = 16   // the unit of so few errors is not taken from them alone
	rounded = 1e-6 // a smaller relative difference is rounding
)

// standard returns rows of inputs in these coordinates, in the memory of dst.
func (c *coordinates[T]) standard(dst, a []T, inputs int) []T {
	dst = linalg.Resized(dst, len(a))
	scale := T(1 / c.scale)
	parallel.Rows(len(a)/inputs, inputs, func(from, to int) {
		for at := from * inputs; at < to*inputs; at += inputs {
			row, standard := a[at:at+inputs], dst[at:at+inputs]
			for i, v := range row {
				standard[i] = (v - c.shiftOf(i)) * scale
			}
		}
	})
	return dst
}

// A change of coordinates of a layer's matrix.
type change int

const (
	gradientIn   change = iota // V~ from V
	directionOut               // U from U~
	weightsIn                  // W~ from W
)
