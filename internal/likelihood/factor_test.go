package likelihood_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/likelihood/likelihoodtest"
)

// plain hides the closed form of a likelihood's factor.
type plain struct{ likelihood.Likelihood }

// The columns of B are those of a factor of the textbook's Fisher matrix, in closed form and by
// Cholesky.
func TestFisherFactor(t *testing.T) {
	checkAll(t, func(t *rapid.T, l likelihood.Likelihood, z []float64, cols int) {
		for name, l := range map[string]likelihood.Likelihood{"closed form": l, "Cholesky": plain{l}} {
			var f likelihood.Factor
			rows := len(z) / cols
			sum, want := make([]float64, len(z)*cols), []float64{}
			for k := range cols {
				v, column := make([]float64, len(z)), make([]float64, len(z))
				for r := range rows {
					v[r*cols+k] = 1
				}
				f.Product(l, column, v, z, cols)
				for i := range sum {
					r, c := i/cols, i%cols
					sum[i] += column[r] * column[r/cols*cols+c]
				}
			}
			for row := range slices.Chunk(z, cols) {
				inner := l
				if p, ok := l.(plain); ok {
					inner = p.Likelihood
				}
				want = append(want, likelihoodtest.Fisher(inner, row)...)
			}
			checkClose(t, name, sum, want, 1e-11)
		}
	})
}

// Factors need no memory after the first time.
func TestFisherFactorAllocatesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	z, v, dst := make([]float64, 12), make([]float64, 12), make([]float64, 12)
	for i := range z {
		z[i], v[i] = rng.NormFloat64(), rng.NormFloat64()
	}
	for name, l := range distributions {
		for _, l := range []likelihood.Likelihood{l, plain{l}} {
			var f likelihood.Factor
			if n := testing.AllocsPerRun(10, func() { f.Product(l, dst, v, z, 3) }); n > 0 {
				t.Errorf("%s: %g allocations", name, n)
			}
		}
	}
}
