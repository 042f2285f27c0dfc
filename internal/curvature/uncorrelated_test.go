package curvature

import (
	"testing"

	"gonum.org/v1/gonum/mat"
)

// uncorrelatedA is A from E[(x,1)(x,1)^T] over pixels.
func uncorrelatedA(s Shape, factor []float64) *mat.Dense {
	n := s.Channels
	k, f := s.In/n, matrixOf(factor, n+1)
	mean := func(i int) float64 { return f.At(i, n) }
	a := mat.NewDense(s.Abar(), s.Abar(), nil)
	for i := range s.In {
		for j := range s.In {
			if i%k == j%k { // one pixel
				a.Set(i, j, f.At(i/k, j/k))
			} else {
				a.Set(i, j, mean(i/k)*mean(j/k))
			}
		}
		if s.Bias {
			a.Set(i, s.In, mean(i/k))
			a.Set(s.In, i, mean(i/k))
		}
	}
	if s.Bias {
		a.Set(s.In, s.In, 1)
	}
	return a
}

// The factor is that of the channels over all patches and pixels, and the trace is that of A (x) G,
// which is the same as without the approximation.
func TestUncorrelatedMoments(t *testing.T) {
	const cases, locations = 3, 5
	for _, s := range []Shape{{In: 8, Out: 3, Channels: 2}, {In: 9, Out: 2, Channels: 3, Bias: true, OutByIn: true}} {
		r := layerRows(newSource(6), s, cases, locations)
		k := s.In / s.Channels
		var pixels []float64
		for p := 0; p < len(r.A); p += s.In {
			for pixel := range k {
				for c := range s.Channels {
					pixels = append(pixels, r.A[p+c*k+pixel])
				}
				pixels = append(pixels, 1)
			}
		}
		b := NewUncorrelated[float64](s)
		avg := seen[float64](t, b, []Rows[float64]{r})
		n := s.Channels + 1
		checkNear(t, "A", avg.Moments[0], momentOf(pixels, n, pixels, n, len(pixels)/n), rounding)
		checkNear(t, "G", avg.Moments[1], momentOf(r.G, s.Out, r.G, s.Out, cases), rounding)

		whole := Shape{In: s.In, Out: s.Out, Bias: s.Bias}
		plain := NewKronecker[float64](whole)
		want := plain.Trace(seen[float64](t, plain, []Rows[float64]{r}))
		checkNear(t, "trace", []float64{b.Trace(avg)}, []float64{want}, rounding)
	}
}

// Of one pixel nothing is taken to be uncorrelated.
func TestUncorrelatedOfOnePixel(t *testing.T) {
	s := Shape{In: 4, Out: 3, Channels: 4, Bias: true}
	plain := Shape{In: 4, Out: 3, Bias: true}
	src := newSource(7)
	r, v := layerRows(src, s, 4, 3), src.normals(15)
	direction := func(b Block[float64]) []float64 {
		return applied(inverted(t, b, seen(t, b, []Rows[float64]{r}), tikhonov(0.3)), v)[0]
	}
	checkNear(t, "direction", direction(NewUncorrelated[float64](s)), direction(NewKronecker[float64](plain)), 1e-11)
}
