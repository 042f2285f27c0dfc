package kfac

import (
	"testing"

	"gonum.org/v1/gonum/floats"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// The heading is the sum of all updates, each multiplied by 1 - f of all that came later.
func TestHeading(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 3
		number := rapid.Float64Range(-1, 1)
		p := &parameter[float64]{given: true, previous: make([]float64, size)}
		want := make([]float64, size)
		var fit, weight, wantFit, wantWeight float64
		var e evidence
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			f := rapid.OneOf(rapid.SampledFrom([]float64{0, 1, 1, 1}), rapid.Float64Range(0.005, 1)).Draw(t, "factor")
			update := rapid.SliceOfN(number, size, size).Draw(t, "update")
			floats.Scale(1-f, want)
			if f > 0 { // else it is none of the model's
				floats.Add(want, update)
			}
			p.heading.turn(update, p.previous, f)
			p.previous = update
			if f == 0 && !p.heading.apart {
				t.Fatal("the heading is the previous update, which is none of the model's")
			}

			if bend := number.Draw(t, "curvature"); f > 0 {
				e = e.turned(bend, f)
				wantFit, wantWeight = (1-f)*wantFit+bend, (1-f)*wantWeight+f
			}
			fit, weight = e.fit, e.weight
		}
		p.grad = rapid.SliceOfN(number, size, size).Draw(t, "gradient")
		testnet.Near(t, "slope", []float64{slopeOfHeading([]*parameter[float64]{p})},
			[]float64{floats.Dot(want, p.grad)}, 1e-12)
		testnet.Near(t, "fit and weight", []float64{fit, weight}, []float64{wantFit, wantWeight}, 1e-12)
		if p.stop(); slopeOfHeading([]*parameter[float64]{p}) != 0 {
			t.Error("a heading is left")
		}
	})
}
