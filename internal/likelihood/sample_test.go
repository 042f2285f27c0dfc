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
		// The covariance of y is the Fisher matrix where T(y) = y. Five standard deviations: that
		// of an entry of the covariance is at most scale sqrt((kurtosis - 1)/rows), the Gaussian's
		// 2.
		scale, spread := 1.0, math.Sqrt2
		switch l := l.(type) {
		case likelihood.Gaussian:
			scale = l.Variance
			for i := range wantCov {
				wantCov[i] *= scale * scale
			}
		case likelihood.Laplace:
			scale, spread = 2*l.Scale*l.Scale, math.Sqrt(5)
			for i := range wantCov {
				wantCov[i] *= l.Scale * l.Scale * scale
			}
		case likelihood.Poisson:
			scale = slices.Max(wantCov)
			spread = math.Sqrt(2 + 1/scale)
		}
		for i := range cols {
			checkClose(t, name+" mean", mean[i:i+1], wantMean[i:i+1], 5*math.Sqrt(wantCov[i*cols+i]/rows))
		}
		checkClose(t, name+" covariance", cov, wantCov, 5*spread*scale/math.Sqrt(rows))
	}
}

// Large counts come by other ways than small ones: their distribution function is the sum of the
// probabilities.
func TestPoissonDistribution(t *testing.T) {
	const draws = 40000
	rng := rand.New(rand.NewPCG(7, 1))
	for _, mean := range []float64{0.3, 9.9, 10.1, 40, 1000} {
		z, seen := []float64{math.Log(mean)}, make([]float64, 3000)
		y := []float64{0}
		for range draws {
			likelihood.Poisson{}.Sample(y, z, 1, rng)
			seen[int(y[0])]++
		}
		var got, want, worst float64
		for k := range seen {
			got += seen[k] / draws
			want += math.Exp(-likelihood.Poisson{}.NegLogLikelihood([]float64{float64(k)}, z, 1))
			worst = max(worst, math.Abs(got-want))
		}
		if worst > 1.95/math.Sqrt(draws) { // Kolmogorov's bound, passed by chance once in a thousand times
			t.Errorf("mean %g: the distribution functions differ by %.4f", mean, worst)
		}
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
