package likelihood

import (
	"math"
	"math/rand/v2"
)

// Laplace is the distribution of independent targets of median z whose density falls by e at every
// Scale, entry by entry. Its residual takes two values only.
type Laplace struct {
	Scale float64 // the mean absolute residual; positive and finite, as is its inverse's square
}

var _ Scaled = Laplace{}

func (Laplace) Variables(cols int) int { return cols }

func (Laplace) Discrete() bool { return false }

// Mean writes z/scale^2, whose derivative is the Fisher matrix.
func (l Laplace) Mean(dst, z []float64, _ int) {
	for i, zi := range z {
		dst[i] = zi / (l.Scale * l.Scale)
	}
}

func (l Laplace) Sample(y, z []float64, _ int, rng *rand.Rand) {
	for i, zi := range z {
		y[i] = zi + l.Scale*rng.ExpFloat64()*float64(1-2*rng.IntN(2))
	}
}

func (l Laplace) Residual(r, y, z []float64, _ int) {
	for i, zi := range z {
		switch d := zi - y[i]; {
		case d > 0:
			r[i] = 1 / l.Scale
		case d < 0:
			r[i] = -1 / l.Scale
		default:
			r[i] = d // 0 or NaN
		}
	}
}

func (l Laplace) FisherProduct(dst, v, _ []float64, _ int) {
	for i, vi := range v {
		dst[i] = vi / (l.Scale * l.Scale)
	}
}

func (l Laplace) NegLogLikelihood(y, z []float64, _ int) float64 {
	var sum float64
	for i, zi := range z {
		sum += math.Abs(zi - y[i])
	}
	return sum/l.Scale + float64(len(z))*math.Log(2*l.Scale)
}

// ImpliedTarget writes the end of the interval of such targets.
func (Laplace) ImpliedTarget(y, r, z []float64, _ int) {
	for i, zi := range z {
		y[i] = zi - r[i]
	}
}

func (Laplace) CheckTarget(y []float64, cols int, tol float64) error {
	return Gaussian{}.CheckTarget(y, cols, tol)
}

// Factors are those of residuals of one size.
func (l Laplace) Factors(c, grad, _ []float64, _ int) {
	for i, g := range grad {
		c[i] = math.Abs(g) * l.Scale
	}
}
