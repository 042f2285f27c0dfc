package likelihood

import (
	"math"
	"math/rand/v2"

	"github.com/gorgonia-kfac/kfac/internal/kernels"
)

// Bernoulli is the distribution of independent binary targets: P(y = 1) = sigmoid(z), entry by
// entry. Targets are in [0, 1].
type Bernoulli struct{}

var _ Likelihood = Bernoulli{}

func (Bernoulli) Variables(cols int) int { return cols }

func (Bernoulli) Discrete() bool { return true }

func (Bernoulli) Mean(dst, z []float64, _ int) { kernels.Sigmoid(dst, z) }

func (Bernoulli) Sample(y, z []float64, _ int, rng *rand.Rand) {
	kernels.Sigmoid(y, z)
	for i, p := range y {
		y[i] = 0
		if rng.Float64() < p {
			y[i] = 1
		}
	}
}

func (Bernoulli) Residual(r, y, z []float64, _ int) {
	subtract(r, y, z, kernels.Sigmoid[float64])
}

// FisherProduct computes p (1-p) v. With e = exp(-|z|), p (1-p) = e/(1+e)^2, which does not cancel.
func (Bernoulli) FisherProduct(dst, v, z []float64, _ int) {
	for i, zi := range z {
		dst[i] = -math.Abs(zi)
	}
	kernels.Exp(dst, dst)
	for i, e := range dst {
		dst[i] = v[i] * e / ((1 + e) * (1 + e))
	}
}

// NegLogLikelihood sums log(1+exp(z)) - y z = max(z,0) - y z + log(1+e) with e = exp(-|z|). Few
// logarithms are taken: (1+e1)(1+e2)... - 1 is accumulated without cancellation, as far as it fits
// into a float64.
func (Bernoulli) NegLogLikelihood(y, z []float64, _ int) float64 {
	var total, product float64 // product is (1+e1)(1+e2)... - 1
	for i, zi := range z {
		e := math.Exp(-math.Abs(zi))
		product += e + product*e
		if product > 1e300 {
			total += math.Log1p(product)
			product = 0
		}
		total += max(zi, 0) - y[i]*zi
	}
	return total + math.Log1p(product)
}

// ImpliedTarget is Residual: the map from y to sigmoid(z) - y is its own inverse.
func (b Bernoulli) ImpliedTarget(y, r, z []float64, cols int) { b.Residual(y, r, z, cols) }

func (Bernoulli) CheckTarget(y []float64, cols int, tol float64) error {
	for i, t := range y {
		if !(t >= -tol && t <= 1+tol) {
			return impossibleTarget(i, cols, t, "a value in [0, 1]")
		}
	}
	return nil
}
