package likelihoodtest

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/likelihood"
)

var (
	_ kfac.Likelihood         = likelihood.Essential(nil)
	_ kfac.TargetChecker      = likelihood.Likelihood(nil)
	_ kfac.VariableCounter    = likelihood.Likelihood(nil)
	_ kfac.DiscreteLikelihood = likelihood.Likelihood(nil)
	_ kfac.FactorFinder       = likelihood.Scaled(nil)
	_ kfac.Fitter             = likelihood.Fitted(nil)
)

var rows = []float64{0.3, -1.2, 0.8, 1.5, 0.1, -0.4}

// Our own distributions pass.
func TestOwnDistributions(t *testing.T) {
	for name, l := range map[string]kfac.Likelihood{
		"categorical": likelihood.Categorical{},
		"bernoulli":   likelihood.Bernoulli{},
		"gaussian":    likelihood.Gaussian{Variance: 0.37},
		"poisson":     likelihood.Poisson{},
		"laplace":     likelihood.Laplace{Scale: 0.7},
		"student":     likelihood.StudentT{Freedom: 4, Scale: 0.7},
		"cauchy":      likelihood.StudentT{Freedom: 1, Scale: 1},
		"overspread":  likelihood.NegativeBinomial{Size: 2.5},
	} {
		t.Run(name, func(t *testing.T) { Run(t, l, rows, 3) })
	}
	t.Run("heteroscedastic", func(t *testing.T) { Run(t, likelihood.Heteroscedastic{}, append(rows, 0.2, -0.3), 4) })
}

// broken is a Bernoulli with something wrong.
type broken struct {
	likelihood.Bernoulli
	mean     func(dst, z []float64)
	sample   func(y, z []float64, rng *rand.Rand)
	residual func(r, y, z []float64)
	fisher   func(dst, v, z []float64)
	nll      func(y, z []float64, total float64) float64
	implied  func(y, r, z []float64)
	check    func(y []float64, err error) error
	count    int
}

func (b broken) Mean(dst, z []float64, cols int) {
	b.Bernoulli.Mean(dst, z, cols)
	if b.mean != nil {
		b.mean(dst, z)
	}
}

func (b broken) Sample(y, z []float64, cols int, rng *rand.Rand) {
	b.Bernoulli.Sample(y, z, cols, rng)
	if b.sample != nil {
		b.sample(y, z, rng)
	}
}

func (b broken) Residual(r, y, z []float64, cols int) {
	b.Bernoulli.Residual(r, y, z, cols)
	if b.residual != nil {
		b.residual(r, y, z)
	}
}

func (b broken) FisherProduct(dst, v, z []float64, cols int) {
	b.Bernoulli.FisherProduct(dst, v, z, cols)
	if b.fisher != nil {
		b.fisher(dst, v, z)
	}
}

func (b broken) NegLogLikelihood(y, z []float64, cols int) float64 {
	total := b.Bernoulli.NegLogLikelihood(y, z, cols)
	if b.nll != nil {
		return b.nll(y, z, total)
	}
	return total
}

func (b broken) ImpliedTarget(y, r, z []float64, cols int) {
	b.Bernoulli.ImpliedTarget(y, r, z, cols)
	if b.implied != nil {
		b.implied(y, r, z)
	}
}

func (b broken) CheckTarget(y []float64, cols int, tol float64) error {
	err := b.Bernoulli.CheckTarget(y, cols, tol)
	if b.check != nil {
		return b.check(y, err)
	}
	return err
}

func (b broken) Variables(cols int) int { return cols - b.count }

// scaled is a Laplace with wrong factors.
type scaled struct{ likelihood.Laplace }

func (s scaled) Factors(c, grad, z []float64, cols int) {
	s.Laplace.Factors(c, grad, z, cols)
	for i := range c {
		c[i] *= 1.01
	}
}

// unfitted is a StudentT that finds wrong factors.
type unfitted struct{ likelihood.StudentT }

func (u unfitted) Fit(c, y []float64, grad, z [2][]float64, cols int) {
	u.StudentT.Fit(c, y, grad, z, cols)
	for i := range c {
		c[i] *= 1.01
	}
}

// unscaled is a Laplace without factors.
type unscaled struct{ kfac.Likelihood }

var sink []float64

// Each mistake is found by the test that is for it.
func TestMistakesAreFound(t *testing.T) {
	times := func(by float64) func(x []float64) {
		return func(x []float64) {
			for i := range x {
				x[i] *= by
			}
		}
	}
	for name, c := range map[string]struct {
		l     kfac.Likelihood
		found string
	}{
		"a sample with a constant": {broken{sample: func(y, _ []float64, _ *rand.Rand) { clear(y) }}, "samples"},
		"a sample of its own generator": {broken{sample: func(y, z []float64, _ *rand.Rand) {
			for i := range y {
				y[i] = float64(rand.IntN(2))
			}
		}}, "samples"},
		"a sample of another distribution": {broken{sample: func(y, _ []float64, rng *rand.Rand) {
			for i := range y {
				y[i] = float64(rng.IntN(2))
			}
		}}, "moments"},
		"a residual that is too large": {broken{residual: func(r, _, _ []float64) { times(1.001)(r) }}, "residual"},
		"a residual with a sign":       {broken{residual: func(r, _, _ []float64) { times(-1)(r) }}, "residual"},
		"a Fisher matrix too large":    {broken{fisher: func(dst, _, _ []float64) { times(1.1)(dst) }}, "moments"},
		"a Fisher matrix with a sign":  {broken{fisher: func(dst, _, _ []float64) { times(-1)(dst) }}, "fisher"},
		"a Fisher product with squares": {broken{fisher: func(dst, v, _ []float64) {
			for i := range v {
				dst[i] += v[i] * v[i]
			}
		}}, "fisher"},
		"a Fisher product, unsymmetric": {broken{fisher: func(dst, v, _ []float64) {
			for i := 0; i+1 < len(v); i += 3 {
				dst[i] += v[i+1] / 10
			}
		}}, "fisher"},
		"a mean that is too small": {broken{mean: func(dst, _ []float64) { times(0.99)(dst) }}, "mean"},
		"a mean of other rows":     {broken{mean: func(dst, z []float64) { dst[0] += z[len(z)-1] }}, "rows"},
		"a likelihood with a constant": {broken{nll: func(_, _ []float64, total float64) float64 {
			return total + 1
		}}, "rows"},
		"a mean likelihood": {broken{nll: func(_, z []float64, total float64) float64 {
			return total / float64(max(len(z), 1))
		}}, "rows"},
		"a likelihood below 0": {broken{nll: func(_, z []float64, total float64) float64 {
			return total - 5*float64(len(z))
		}}, "variables"},
		"a residual that clears z": {broken{residual: func(_, _, z []float64) { clear(z) }}, "inputs"},
		"a product that clears v":  {broken{fisher: func(_, v, _ []float64) { clear(v) }}, "inputs"},
		"a residual that reads y late": {broken{residual: func(r, y, z []float64) {
			likelihood.Bernoulli{}.Mean(r, z, 1)
			for i := range r {
				r[i] -= y[i]
			}
		}}, "aliasing"},
		"no target at all":   {broken{count: 3}, "variables"},
		"an implied target":  {broken{implied: func(y, _, _ []float64) { times(0.5)(y) }}, "targets"},
		"targets all wrong":  {broken{check: func([]float64, error) error { return errWrong }}, "targets"},
		"NaN for a target":   {broken{check: func([]float64, error) error { return nil }}, "targets"},
		"overflow":           {broken{mean: overflow}, "large outputs"},
		"a mean that makes":  {broken{mean: func(dst, _ []float64) { sink = slices.Clone(dst) }}, "allocations"},
		"wrong factors":      {scaled{likelihood.Laplace{Scale: 1}}, "factors"},
		"a wrong fit":        {unfitted{likelihood.StudentT{Freedom: 4, Scale: 1}}, "factors"},
		"factors are needed": {unscaled{likelihood.Laplace{Scale: 1}}, "mean"},
	} {
		t.Run(name, func(t *testing.T) {
			failed := ""
			for _, p := range properties {
				if err := p.holds(subject{c.l, slices.Clone(rows), 3}); err != nil {
					failed = p.name
					t.Logf("%s: %v", p.name, err)
					break
				}
			}
			if failed != c.found {
				t.Errorf("found by %q, want %q", failed, c.found)
			}
		})
	}
}

var errWrong = wrong{}

type wrong struct{}

func (wrong) Error() string { return "wrong" }

// overflow is what a quotient of two infinite numbers makes of large outputs.
func overflow(dst, z []float64) {
	for i, v := range z {
		if math.IsInf(math.Exp(v), 1) {
			dst[i] = math.NaN()
		}
	}
}
