package likelihood

import (
	"math"
	"math/rand/v2"
)

// Heteroscedastic is the distribution of independent normal targets, of which both mean and
// variance are predicted. The first half of a row are the means, the second half the logarithms of
// the variances. Targets lie where the means do; what a target has in the second half says nothing.
type Heteroscedastic struct{}

var _ Fitted = Heteroscedastic{}

func (Heteroscedastic) Variables(cols int) int { return cols / 2 }

func (Heteroscedastic) Discrete() bool { return false }

// each calls f with where a target and the logarithm of its variance lie in rows of n numbers.
func (Heteroscedastic) each(n, cols int, f func(mean, logVariance int)) {
	for row := 0; row < n; row += cols {
		for i := row; i < row+cols/2; i++ {
			f(i, i+cols/2)
		}
	}
}

// Mean writes z, whose derivative is no Fisher matrix.
func (Heteroscedastic) Mean(dst, z []float64, _ int) { copy(dst, z) }

func (h Heteroscedastic) Sample(y, z []float64, cols int, rng *rand.Rand) {
	h.each(len(z), cols, func(m, s int) {
		y[m] = z[m] + math.Sqrt(rate(z[s]))*rng.NormFloat64()
		y[s] = 0
	})
}

// Residual has (m-y)/v for the mean m, and (1 - (m-y)^2/v)/2 for the logarithm of the variance v.
func (h Heteroscedastic) Residual(r, y, z []float64, cols int) {
	h.each(len(z), cols, func(m, s int) {
		d, precision := z[m]-y[m], rate(-z[s])
		r[m], r[s] = d*precision, (1-d*d*precision)/2
	})
}

func (h Heteroscedastic) FisherProduct(dst, v, z []float64, cols int) {
	h.each(len(z), cols, func(m, s int) { dst[m], dst[s] = v[m]*rate(-z[s]), v[s]/2 })
}

func (h Heteroscedastic) FisherFactor(dst, v, z []float64, cols int) {
	h.each(len(z), cols, func(m, s int) { dst[m], dst[s] = v[m]*math.Sqrt(rate(-z[s])), v[s]/math.Sqrt2 })
}

func (h Heteroscedastic) NegLogLikelihood(y, z []float64, cols int) (total float64) {
	h.each(len(z), cols, func(m, s int) {
		d := z[m] - y[m]
		total += (z[s] + d*d*rate(-z[s]) + math.Log(2*math.Pi)) / 2
	})
	return total
}

func (h Heteroscedastic) ImpliedTarget(y, r, z []float64, cols int) {
	h.each(len(z), cols, func(m, s int) { y[m], y[s] = z[m]-r[m]*rate(z[s]), 0 })
}

func (Heteroscedastic) CheckTarget(y []float64, cols int, tol float64) error {
	return Gaussian{}.CheckTarget(y, cols, tol)
}

// Fit uses one of the points: of c (m-y)/v and c (1 - (m-y)^2/v)/2 one can tell c and y.
func (h Heteroscedastic) Fit(c, y []float64, grad, z [2][]float64, cols int) {
	g, at := grad[0], z[0]
	h.each(len(at), cols, func(m, s int) {
		variance := rate(at[s])
		square := g[m] * g[m] * variance // c^2 (m-y)^2/v
		factor := math.Hypot(g[s], math.Sqrt(square)) + math.Abs(g[s])
		if g[s] < 0 && factor > 0 {
			factor = square / factor // the other way to write it cancels
		}
		c[m], c[s], y[m], y[s] = factor, factor, 0, 0
		if factor > 0 {
			y[m] = at[m] - g[m]*variance/factor
		}
	})
}
