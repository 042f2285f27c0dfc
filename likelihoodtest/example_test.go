package likelihoodtest_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gorgonia-kfac/kfac/likelihoodtest"
)

// Binomial is the distribution of the number of successes in so many trials. z is the logit of one.
type Binomial struct{ Trials int }

func (b Binomial) Mean(dst, z []float64, _ int) {
	for i, v := range z {
		dst[i] = float64(b.Trials) / (1 + math.Exp(-v))
	}
}

func (b Binomial) Sample(y, z []float64, _ int, rng *rand.Rand) {
	for i, v := range z {
		y[i] = 0
		for range b.Trials {
			if rng.Float64() < 1/(1+math.Exp(-v)) {
				y[i]++
			}
		}
	}
}

func (b Binomial) Residual(r, y, z []float64, _ int) {
	for i, v := range z {
		r[i] = float64(b.Trials)/(1+math.Exp(-v)) - y[i]
	}
}

func (b Binomial) FisherProduct(dst, v, z []float64, _ int) {
	for i, zi := range z {
		p := 1 / (1 + math.Exp(-zi))
		dst[i] = float64(b.Trials) * p * (1 - p) * v[i]
	}
}

func (b Binomial) NegLogLikelihood(y, z []float64, _ int) (total float64) {
	for i, v := range z {
		total += float64(b.Trials)*(math.Max(v, 0)+math.Log1p(math.Exp(-math.Abs(v)))) - y[i]*v
		total -= logChoose(float64(b.Trials), y[i])
	}
	return total
}

func logChoose(n, k float64) float64 {
	a, _ := math.Lgamma(n + 1)
	b, _ := math.Lgamma(k + 1)
	c, _ := math.Lgamma(n - k + 1)
	return a - b - c
}

// A test of a distribution of one's own.
func Example() {
	_ = func(t *testing.T) {
		z := []float64{0.3, -1.2, 0.8, 1.5, 0.1, -0.4} // two cases, of three outputs each
		likelihoodtest.Run(t, Binomial{Trials: 12}, z, 3)
	}
}

func TestBinomial(t *testing.T) {
	likelihoodtest.Run(t, Binomial{Trials: 12}, []float64{0.3, -1.2, 0.8, 1.5, 0.1, -0.4}, 3)
}
