package likelihood

import (
	"math"
	"math/rand/v2"
)

// NegativeBinomial is the distribution of independent counts of mean exp(z) and variance exp(z) +
// exp(2z)/Size, entry by entry: of Poisson counts whose rates are of a gamma distribution. Targets
// are at least 0.
type NegativeBinomial struct {
	Size float64 // the shape of the gamma distribution
}

var _ Fitted = NegativeBinomial{}

func (NegativeBinomial) Variables(cols int) int { return cols }

func (NegativeBinomial) Discrete() bool { return false } // the likelihood without its constant is not bounded

// Mean writes an integral of the Fisher matrix.
func (n NegativeBinomial) Mean(dst, z []float64, _ int) {
	for i, zi := range z {
		dst[i] = n.Size * math.Log1p(rate(zi)/n.Size)
	}
}

func (n NegativeBinomial) Sample(y, z []float64, _ int, rng *rand.Rand) {
	for i, zi := range z {
		y[i] = count(rate(zi)*gamma(n.Size, rng)/n.Size, rng)
	}
}

// part is the mean's part of the variance of the rate, and one minus it.
func (n NegativeBinomial) part(z float64) (p, q float64) {
	mean := rate(z)
	return mean / (n.Size + mean), n.Size / (n.Size + mean)
}

func (n NegativeBinomial) Residual(r, y, z []float64, _ int) {
	for i, zi := range z {
		p, q := n.part(zi)
		r[i] = n.Size*p - y[i]*q
	}
}

func (n NegativeBinomial) FisherProduct(dst, v, z []float64, _ int) {
	for i, zi := range z {
		p, _ := n.part(zi)
		dst[i] = v[i] * n.Size * p
	}
}

func (n NegativeBinomial) FisherFactor(dst, v, z []float64, _ int) {
	for i, zi := range z {
		p, _ := n.part(zi)
		dst[i] = v[i] * math.Sqrt(n.Size*p)
	}
}

func (n NegativeBinomial) NegLogLikelihood(y, z []float64, _ int) (total float64) {
	ofSize, _ := math.Lgamma(n.Size)
	for i, zi := range z {
		both, _ := math.Lgamma(n.Size + y[i])
		logFactorial, _ := math.Lgamma(y[i] + 1)
		// log(1 + mean/size), where the mean may be too large for a number
		ratio := zi - math.Log(n.Size)
		logSum := math.Max(ratio, 0) + math.Log1p(math.Exp(-math.Abs(ratio)))
		total += (n.Size+y[i])*logSum - y[i]*ratio + ofSize + logFactorial - both
	}
	return total
}

func (n NegativeBinomial) ImpliedTarget(y, r, z []float64, _ int) {
	for i, zi := range z {
		p, q := n.part(zi)
		y[i] = (n.Size*p - r[i]) / q
	}
}

func (NegativeBinomial) CheckTarget(y []float64, cols int, tol float64) error {
	return Poisson{}.CheckTarget(y, cols, tol)
}

// Fit solves two equations that are linear in c and c y.
func (n NegativeBinomial) Fit(c, y []float64, grad, z [2][]float64, _ int) {
	for i := range c {
		p0, q0 := n.part(z[0][i])
		p1, q1 := n.part(z[1][i])
		det := p0*q1 - p1*q0
		c[i] = (grad[0][i]*q1 - grad[1][i]*q0) / det / n.Size
		if y[i] = 0; c[i] != 0 {
			y[i] = (grad[0][i]*p1 - grad[1][i]*p0) / det / c[i]
		}
	}
}
