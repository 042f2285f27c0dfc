package likelihood_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/likelihood/likelihoodtest"
)

// A fittedCase is a likelihood of one target with the sums that expectations are taken by.
type fittedCase struct {
	likelihood.Fitted
	cols    int
	targets func(z []float64, f func(y, width float64)) // such that sum width p(y) g(y) is E[g]
}

// overLine sums over the real line by the trapezoidal rule in the inverse hyperbolic sine of y, in
// which a density with heavy tails falls off too.
func overLine(z []float64, f func(y, width float64)) {
	const h = 1.0 / 64
	for i := -64 * 40; i <= 64*40; i++ {
		u := h * float64(i)
		f(z[0]+math.Sinh(u), h*math.Cosh(u))
	}
}

func overCounts(_ []float64, f func(y, width float64)) {
	for y := range 4000 {
		f(float64(y), 1)
	}
}

var fittedCases = map[string]fittedCase{
	"heteroscedastic":   {likelihood.Heteroscedastic{}, 2, overLine},
	"student":           {likelihood.StudentT{Freedom: 3, Scale: 0.5}, 1, overLine},
	"cauchy":            {likelihood.StudentT{Freedom: 1, Scale: 2}, 1, overLine},
	"negative binomial": {likelihood.NegativeBinomial{Size: 2.5}, 1, overCounts},
	"geometric":         {likelihood.NegativeBinomial{Size: 1}, 1, overCounts},
}

// Probabilities sum to one, residuals are the slope of the negative log-likelihood and have the
// mean zero, and the Fisher matrix is their second moment.
func TestMomentsOfFitted(t *testing.T) {
	for name, c := range fittedCases {
		t.Run(name, func(t *testing.T) {
			for _, z := range [][]float64{{0.3, -0.7}, {-1.2, 0.4}, {1.1, 1.5}} {
				z = z[:c.cols]
				n := c.cols
				y, r, total := make([]float64, n), make([]float64, n), 0.0
				first, second := make([]float64, n), make([]float64, n*n)
				c.targets(z, func(target, width float64) {
					y[0] = target
					p := width * math.Exp(-c.NegLogLikelihood(y, z, n))
					c.Residual(r, y, z, n)
					total += p
					for i := range r {
						first[i] += p * r[i]
						for j := range r {
							second[i*n+j] += p * r[i] * r[j]
						}
					}
				})
				checkClose(t, "sum of the probabilities", []float64{total}, []float64{1}, 1e-9)
				checkClose(t, "mean residual", first, make([]float64, n), 1e-9)
				product, factor, outer := make([]float64, n*n), make([]float64, n*n), make([]float64, n*n)
				for i := range n {
					unit := make([]float64, n)
					unit[i] = 1
					c.FisherProduct(product[i*n:(i+1)*n], unit, z, n)
					c.Fitted.(likelihood.Factored).FisherFactor(factor[i*n:(i+1)*n], unit, z, n)
				}
				for i := range outer {
					for k := range n {
						outer[i] += factor[k*n+i/n] * factor[k*n+i%n]
					}
				}
				checkClose(t, "Fisher matrix", product, second, 1e-9)
				checkClose(t, "product of its factors", outer, product, 1e-12)
				y[0] = 2
				c.Residual(r, y, z, n)
				for i := range z {
					slope := likelihoodtest.Derivative(func() float64 { return c.NegLogLikelihood(y, z, n) }, z, i)
					checkClose(t, "residual", r[i:i+1], []float64{slope}, 1e-9)
				}
			}
		})
	}
}

// Factors and targets are found from gradients at opposite points, where these are far enough
// apart; nothing is found where there is no gradient.
func TestFit(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for name, c := range fittedCases {
		t.Run(name, func(t *testing.T) {
			cols := 2 * c.cols
			for _, spread := range []float64{20, 400} {
				if _, counts := c.Fitted.(likelihood.NegativeBinomial); counts {
					spread = spread / 20 // of a logarithm
				}
				var z, grad [2][]float64
				n := 3 * cols
				want, y := make([]float64, n), make([]float64, n)
				for i := range want {
					want[i] = math.Exp(rng.NormFloat64())
					if i%cols < cols/c.cols {
						y[i] = float64(rng.IntN(7))
					}
				}
				for i := range want { // a mean and its variance have one factor
					want[i] = want[i/cols*cols+i%cols%(cols/c.cols)]
				}
				want[0], want[cols/c.cols*(c.cols-1)], y[0] = 0, 0, 0
				for k := range z {
					z[k], grad[k] = make([]float64, n), make([]float64, n)
					for i := range n {
						z[k][i] = spread * float64(2*k-1)
						if c.cols == 2 {
							z[k][i] /= spread // one point tells
						}
					}
					c.Residual(grad[k], y, z[k], cols)
					for i := range n {
						grad[k][i] *= want[i]
					}
				}
				for range 2 {
					got, targets := make([]float64, n), make([]float64, n)
					c.Fit(got, targets, grad, z, cols)
					checkClose(t, "factors", got, want, 1e-9)
					checkClose(t, "targets", targets, y, 1e-8)
					slices.Reverse(z[:])
					slices.Reverse(grad[:])
				}
			}
		})
	}
}

// Samples of Student's t distribution, and so the numbers of a gamma distribution that they are
// made of, lie where its density says.
func TestSamplesOfStudentT(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	for _, shape := range []float64{0.3, 1, 1.5, 40} {
		const n = 200000
		l := likelihood.StudentT{Freedom: 2 * shape, Scale: 1}
		y, z := make([]float64, n), make([]float64, n)
		l.Sample(y, z, 1, rng)
		// The distribution function of |y| below 1, by the trapezoidal rule.
		within, sum := 0.0, 0.0
		for _, v := range y {
			if math.Abs(v) < 1 {
				within++
			}
		}
		const steps = 2000
		for i := range steps {
			x := (float64(i) + 0.5) / steps
			sum += 2.0 / steps * math.Exp(-l.NegLogLikelihood([]float64{x}, []float64{0}, 1))
		}
		if e := math.Abs(within/n - sum); e > 5*math.Sqrt(sum*(1-sum)/n) {
			t.Errorf("shape %g: %.4f of the numbers are below 1, want %.4f", shape, within/n, sum)
		}
	}
}
