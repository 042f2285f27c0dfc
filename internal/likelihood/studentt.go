package likelihood

import (
	"math"
	"math/rand/v2"
)

// StudentT is the distribution of independent targets of heavy tails about z, entry by entry: of
// Student's t distribution. Its residual falls where a target is far off.
type StudentT struct {
	Freedom float64 // degrees of freedom
	Scale   float64 // the unit of the residuals
}

var _ Fitted = StudentT{}

func (StudentT) Variables(cols int) int { return cols }

func (StudentT) Discrete() bool { return false }

// Mean writes z times the Fisher matrix, which is the derivative.
func (t StudentT) Mean(dst, z []float64, cols int) {
	precision := t.precision()
	for i, zi := range z {
		dst[i] = zi * precision
	}
}

func (t StudentT) precision() float64 { return (t.Freedom + 1) / (t.Freedom + 3) / t.Scale / t.Scale }

func (t StudentT) Sample(y, z []float64, _ int, rng *rand.Rand) {
	for i, zi := range z {
		y[i] = zi + t.Scale*rng.NormFloat64()/math.Sqrt(gamma(t.Freedom/2, rng)*2/t.Freedom)
	}
}

func (t StudentT) Residual(r, y, z []float64, _ int) {
	for i, zi := range z {
		d := zi - y[i]
		r[i] = (t.Freedom + 1) * d / (t.Freedom*t.Scale*t.Scale + d*d)
	}
}

func (t StudentT) FisherProduct(dst, v, _ []float64, _ int) {
	for i, vi := range v {
		dst[i] = vi * t.precision()
	}
}

func (t StudentT) FisherFactor(dst, v, _ []float64, _ int) {
	for i, vi := range v {
		dst[i] = vi * math.Sqrt(t.precision())
	}
}

func (t StudentT) NegLogLikelihood(y, z []float64, _ int) (total float64) {
	for i, zi := range z {
		d := (zi - y[i]) / t.Scale
		total += (t.Freedom + 1) / 2 * math.Log1p(d*d/t.Freedom)
	}
	above, _ := math.Lgamma((t.Freedom + 1) / 2)
	below, _ := math.Lgamma(t.Freedom / 2)
	return total + float64(len(z))*(below-above+math.Log(t.Freedom*math.Pi)/2+math.Log(t.Scale))
}

// ImpliedTarget writes the nearer one of two targets with this residual.
func (t StudentT) ImpliedTarget(y, r, z []float64, _ int) {
	for i, zi := range z {
		p := (t.Freedom + 1) / 2
		root := math.Sqrt(math.Max(0, p*p-r[i]*r[i]*t.Freedom*t.Scale*t.Scale))
		y[i] = zi - r[i]*t.Freedom*t.Scale*t.Scale/(p+root)
	}
}

func (StudentT) CheckTarget(y []float64, cols int, tol float64) error {
	return Gaussian{}.CheckTarget(y, cols, tol)
}

// Fit takes points that lie beyond the targets on either side, far beside the scale. With the
// distance d to a target (c (freedom+1)) / grad is d + freedom scale^2 / d.
func (t StudentT) Fit(c, y []float64, grad, z [2][]float64, _ int) {
	for i := range c {
		middle, half := (z[0][i]+z[1][i])/2, (z[1][i]-z[0][i])/2
		square := t.Freedom * t.Scale * t.Scale / half / half
		low, high := 1/grad[0][i], 1/grad[1][i]
		off, sum := -(low+high)/(high-low), (high-low)/half
		// of the target, in units of half; the place is a fixed point of
		at := off
		for range 50 {
			at = off * (1 - at*at + square) / (1 - at*at - square)
		}
		c[i] = (2 + 2*square/(1-at*at)) / sum / (t.Freedom + 1)
		y[i] = middle + at*half
		if grad[0][i] == 0 && grad[1][i] == 0 {
			c[i], y[i] = 0, 0
		}
	}
}
