package likelihood

import (
	"math"
	"math/rand/v2"

	"github.com/gorgonia-kfac/kfac/internal/kernels"
)

// Poisson is the distribution of independent counts of mean exp(z), entry by entry. Targets are at
// least 0.
type Poisson struct{}

var _ Likelihood = Poisson{}

func (Poisson) Variables(cols int) int { return cols }

func (Poisson) Discrete() bool { return false } // the likelihood without log(y!) is not bounded

func (Poisson) Mean(dst, z []float64, _ int) { rates(dst, z) }

func (Poisson) Sample(y, z []float64, _ int, rng *rand.Rand) {
	rates(y, z)
	for i, mean := range y {
		y[i] = count(mean, rng)
	}
}

func (Poisson) Residual(r, y, z []float64, _ int) {
	subtract(r, y, z, rates)
}

func (Poisson) FisherProduct(dst, v, z []float64, _ int) {
	rates(dst, z)
	kernels.Mul(dst, v, dst)
}

func (Poisson) NegLogLikelihood(y, z []float64, _ int) (total float64) {
	for i, zi := range z {
		logFactorial, _ := math.Lgamma(y[i] + 1)
		total += rate(zi) - y[i]*zi + logFactorial
	}
	return total
}

// ImpliedTarget is Residual: the map from y to exp(z) - y is its own inverse.
func (p Poisson) ImpliedTarget(y, r, z []float64, cols int) { p.Residual(y, r, z, cols) }

// CheckTarget allows for rounding beside counts of any size: a target was the difference of
// exp(z) and a residual.
func (Poisson) CheckTarget(y []float64, cols int, tol float64) error {
	for i, t := range y {
		if !(t >= -tol) || math.IsInf(t, 0) {
			return impossibleTarget(i, cols, t, "a count, at least 0")
		}
	}
	return nil
}

// rate is exp(z), and finite with all products that are made of it.
func rate(z float64) float64 { return math.Exp(math.Min(z, 300)) }

// rates writes the rate of each entry.
func rates(dst, z []float64) {
	for i, zi := range z {
		dst[i] = math.Min(zi, 300)
	}
	kernels.Exp(dst, dst)
}

// count draws a Poisson number. Small ones are counted by the gaps between events, large ones by
// Hörmann's transformed rejection (1993), and from 1e9 on they are as good as normal.
func count(mean float64, rng *rand.Rand) float64 {
	switch {
	case !(mean > 0): // NaN too
		return 0
	case mean < 10:
		n := -1.0
		for left := mean; left >= 0; n++ {
			left -= rng.ExpFloat64()
		}
		return n
	case mean > 1e9:
		return math.Round(mean + math.Sqrt(mean)*rng.NormFloat64())
	}
	b := 0.931 + 2.53*math.Sqrt(mean)
	a := -0.059 + 0.02483*b
	inverse := 1.1239 + 1.1328/(b-3.4)
	squeeze := 0.9277 - 3.6224/(b-2)
	for {
		u, v := rng.Float64()-0.5, rng.Float64()
		us := 0.5 - math.Abs(u)
		k := math.Floor((2*a/us+b)*u + mean + 0.43)
		if us >= 0.07 && v <= squeeze {
			return k
		}
		if k < 0 || us < 0.013 && v > us {
			continue
		}
		logFactorial, _ := math.Lgamma(k + 1)
		if math.Log(v*inverse/(a/(us*us)+b)) <= k*math.Log(mean)-mean-logFactorial {
			return k
		}
	}
}
