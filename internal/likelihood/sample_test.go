package likelihood_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/likelihood/likelihoodtest"
)

func TestSampleFrequencies(t *testing.T) {
	const rows = 40000
	cases := []float64{0.3, -1.2, 1.1, -0.4}
	for name, l := range distributions {
		cols := len(cases)
		z, y := make([]float64, 0, rows*cols), make([]float64, rows*cols)
		for range rows {
			z = append(z, cases...)
		}
		l.Sample(y, z, cols, rand.New(rand.NewPCG(3, 5)))
		if err := l.CheckTarget(y, cols, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantMean, wantCov := make([]float64, cols), likelihoodtest.Fisher(l, cases)
		for _, o := range likelihoodtest.Outcomes(l, cases) {
			for k := range wantMean {
				wantMean[k] += o.Prob * o.Y[k]
			}
		}
		mean, cov := make([]float64, cols), make([]float64, cols*cols)
		for row := range slices.Chunk(y, cols) {
			for i := range row {
				mean[i] += row[i] / rows
				for j := range row {
					cov[i*cols+j] += (row[i] - wantMean[i]) * (row[j] - wantMean[j]) / rows
				}
			}
		}
		scale := 1.0 // of y, whose covariance is the Fisher matrix where T(y) = y
		if g, ok := l.(likelihood.Gaussian); ok {
			scale = g.Variance
			for i := range wantCov {
				wantCov[i] *= scale * scale
			}
		}
		// Five standard deviations. That of an entry of the covariance is at most the Gaussian's,
		// sqrt(2) scale/sqrt(rows).
		for i := range cols {
			checkClose(t, name+" mean", mean[i:i+1], wantMean[i:i+1], 5*math.Sqrt(wantCov[i*cols+i]/rows))
		}
		checkClose(t, name+" covariance", cov, wantCov, 5*math.Sqrt2*scale/math.Sqrt(rows))
	}
}

// constantSource is a random source at the end of its range.
type constantSource uint64

func (s constantSource) Uint64() uint64 { return uint64(s) }

// A class of probability zero is not drawn, even where rounding makes the sum of the others too
// small.
func TestImpossibleClassIsNeverDrawn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		z := append([]float64{-1e4}, numbers(3, rapid.IntRange(1, 20).Draw(t, "n")).Draw(t, "z")...)
		z = append(z, math.Inf(-1))
		y := make([]float64, len(z))
		for _, source := range []constantSource{0, math.MaxUint64} {
			likelihood.Categorical{}.Sample(y, z, len(z), rand.New(source))
			if y[0] != 0 || y[len(y)-1] != 0 {
				t.Fatalf("source %d: drawn %v", source, y)
			}
		}
	})
}

func TestSampleIsDeterminedBySeed(t *testing.T) {
	z := numbers(2, 300).Example(1)
	for name, l := range distributions {
		draw := func(seed uint64) []float64 {
			y := make([]float64, len(z))
			l.Sample(y, z, 3, rand.New(rand.NewPCG(seed, 0)))
			return y
		}
		if !slices.Equal(draw(1), draw(1)) {
			t.Errorf("%s: one seed, two samples", name)
		}
		if slices.Equal(draw(1), draw(2)) {
			t.Errorf("%s: two seeds, one sample", name)
		}
	}
}
