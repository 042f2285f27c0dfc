package likelihood

import (
	"math"
	"math/rand/v2"
)

// Gaussian is the distribution of independent normal targets of mean z, entry by entry.
type Gaussian struct {
	Variance float64 // of each target; positive and finite, as is its inverse
}

var _ Likelihood = Gaussian{}

func (Gaussian) Variables(cols int) int { return cols }

func (Gaussian) Discrete() bool { return false }

func (g Gaussian) Mean(dst, z []float64, _ int) {
	for i, zi := range z {
		dst[i] = zi / g.Variance
	}
}

func (g Gaussian) Sample(y, z []float64, _ int, rng *rand.Rand) {
	deviation := math.Sqrt(g.Variance)
	for i, zi := range z {
		y[i] = zi + deviation*rng.NormFloat64()
	}
}

func (g Gaussian) Residual(r, y, z []float64, _ int) {
	for i, zi := range z {
		r[i] = (zi - y[i]) / g.Variance
	}
}

func (g Gaussian) FisherProduct(dst, v, _ []float64, _ int) {
	for i, vi := range v {
		dst[i] = vi / g.Variance
	}
}

func (g Gaussian) NegLogLikelihood(y, z []float64, _ int) float64 {
	var squares float64
	for i, zi := range z {
		squares += (zi - y[i]) * (zi - y[i])
	}
	return (squares/g.Variance + float64(len(z))*math.Log(2*math.Pi*g.Variance)) / 2
}

func (g Gaussian) ImpliedTarget(y, r, z []float64, _ int) {
	for i, zi := range z {
		y[i] = zi - g.Variance*r[i]
	}
}

func (Gaussian) CheckTarget(y []float64, cols int, _ float64) error {
	for i, t := range y {
		if math.IsNaN(t) || math.IsInf(t, 0) {
			return impossibleTarget(i, cols, t, "a finite number")
		}
	}
	return nil
}
