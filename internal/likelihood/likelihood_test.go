package likelihood_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/likelihood/likelihoodtest"
)

// distributions are one of each kind, the Gaussian with two variances. Their identities are tested.
var distributions = map[string]likelihood.Likelihood{
	"categorical":    likelihood.Categorical{},
	"bernoulli":      likelihood.Bernoulli{},
	"gaussian":       likelihood.Gaussian{Variance: 1},
	"gaussian(0.37)": likelihood.Gaussian{Variance: 0.37},
	"poisson":        likelihood.Poisson{},
	"laplace(0.7)":   likelihood.Laplace{Scale: 0.7},
}

// statistic is T(y), in the units of Mean.
func statistic(l likelihood.Likelihood, y float64) float64 {
	switch l := l.(type) {
	case likelihood.Gaussian:
		return y / l.Variance
	case likelihood.Laplace:
		return y / l.Scale / l.Scale
	}
	return y
}

func numbers(bound float64, n int) *rapid.Generator[[]float64] {
	return rapid.SliceOfN(rapid.Float64Range(-bound, bound), n, n)
}

// possibleTargets draws targets that are possible for l, between the outcomes as well as at them.
func possibleTargets(t *rapid.T, l likelihood.Likelihood, rows, cols int) []float64 {
	switch l.(type) {
	case likelihood.Gaussian:
		return numbers(5, rows*cols).Draw(t, "y")
	case likelihood.Laplace: // away from z, where there is no derivative
		return rapid.SliceOfN(rapid.SampledFrom([]float64{-9, -7.5, 6.5, 8}), rows*cols, rows*cols).Draw(t, "y")
	}
	y := rapid.SliceOfN(rapid.Float64Range(0, 1), rows*cols, rows*cols).Draw(t, "y")
	if _, ok := l.(likelihood.Categorical); ok {
		for row := range slices.Chunk(y, cols) {
			var sum float64
			for k := range row {
				row[k] += 0.01
				sum += row[k]
			}
			for k := range row {
				row[k] /= sum
			}
		}
	}
	return y
}

func checkClose(t rapid.TB, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d numbers, want %d", what, len(got), len(want))
	}
	for i := range got {
		if !(math.Abs(got[i]-want[i]) <= tol*max(1, math.Abs(want[i]))) {
			t.Fatalf("%s[%d] = %.16g, want %.16g\ngot  %v\nwant %v", what, i, got[i], want[i], got, want)
		}
	}
}

func checkAll(t *testing.T, property func(t *rapid.T, l likelihood.Likelihood, z []float64, cols int)) {
	for name, l := range distributions {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			rows, cols := rapid.IntRange(1, 3).Draw(t, "rows"), rapid.IntRange(2, 4).Draw(t, "cols")
			property(t, l, numbers(6, rows*cols).Draw(t, "z"), cols)
		}))
	}
}

func TestResidualIsDerivativeOfNegLogLikelihood(t *testing.T) {
	checkAll(t, func(t *rapid.T, l likelihood.Likelihood, z []float64, cols int) {
		y := possibleTargets(t, l, len(z)/cols, cols)
		want := make([]float64, len(z))
		for i := range z {
			want[i] = likelihoodtest.Derivative(func() float64 { return l.NegLogLikelihood(y, z, cols) }, z, i)
		}
		got := make([]float64, len(z))
		l.Residual(got, y, z, cols)
		checkClose(t, "residual", got, want, 1e-9)

		l.Residual(y, y, z, cols)
		checkClose(t, "residual in place of y", y, got, 0)
	})
}

func TestFisherProduct(t *testing.T) {
	checkAll(t, func(t *rapid.T, l likelihood.Likelihood, z []float64, cols int) {
		u, v := numbers(3, len(z)).Draw(t, "u"), numbers(3, len(z)).Draw(t, "v")
		fu, fv := make([]float64, len(z)), make([]float64, len(z))
		l.FisherProduct(fu, u, z, cols)
		l.FisherProduct(fv, v, z, cols)

		var explicit []float64
		for i := 0; i < len(z); i += cols {
			f := likelihoodtest.Fisher(l, z[i:i+cols])
			for row := range slices.Chunk(f, cols) {
				explicit = append(explicit, dotOf(row, v[i:i+cols]))
			}
		}
		checkClose(t, "F v, explicit matrix", fv, explicit, 1e-12)
		checkClose(t, "u'Fv = v'Fu", []float64{dotOf(u, fv)}, []float64{dotOf(v, fu)}, 1e-12)
		if q := dotOf(v, fv); q < -1e-14 {
			t.Fatalf("v'Fv = %g < 0", q)
		}

		mean, shifted := make([]float64, len(z)), make([]float64, len(z))
		for i := range z {
			slope := likelihoodtest.Derivative(func() float64 {
				copy(shifted, z)
				l.Mean(mean, shifted, cols)
				return dotOf(mean, v)
			}, z, i)
			checkClose(t, "derivative of mean", fv[i:i+1], []float64{slope}, 1e-9)
		}
	})
}

// The categorical products that tests of other K-FAC implementations compare with.
func TestFisherProductGolden(t *testing.T) {
	got := make([]float64, 6)
	likelihood.Categorical{}.FisherProduct(got, []float64{1, 2, 3, 5, 3, 1}, []float64{1, 2, 3, 4, 6, 8}, 3)
	want := []float64{-.1418170936, -.1407703575, .2825874511, .0587718429, .1996475887, -.2584194316}
	checkClose(t, "F v", got, want, 5e-11)
}

// F_R is the covariance of the residual, whose expectation is zero (Martens & Grosse 2015,
// lemma 4). Mean is E[T(y)].
func TestMomentsByEnumeration(t *testing.T) {
	checkAll(t, func(t *rapid.T, l likelihood.Likelihood, z []float64, cols int) {
		z = z[:cols]
		r, zero, product := make([]float64, cols), make([]float64, cols), make([]float64, cols)
		first, second, ofTargets := make([]float64, cols), make([]float64, cols*cols), make([]float64, cols)
		for _, o := range likelihoodtest.Outcomes(l, z) {
			l.Residual(r, o.Y, z, cols)
			for i := range r {
				first[i] += o.Prob * r[i]
				for j := range r {
					second[i*cols+j] += o.Prob * r[i] * r[j]
				}
				ofTargets[i] += o.Prob * statistic(l, o.Y[i])
			}
		}
		checkClose(t, "E[residual]", first, zero, 1e-12)
		l.Mean(product, z, cols)
		checkClose(t, "E[T(y)]", product, ofTargets, 1e-12)
		for j := range cols {
			unit := make([]float64, cols)
			unit[j] = 1
			l.FisherProduct(product, unit, z, cols)
			checkClose(t, "row of E[r r']", product, second[j*cols:(j+1)*cols], 1e-11)
		}
	})
}

// The negative log-likelihood contains every constant: the probabilities of all targets sum to one.
func TestProbabilitiesSumToOne(t *testing.T) {
	checkAll(t, func(t *rapid.T, l likelihood.Likelihood, z []float64, cols int) {
		var total float64
		at := func(y float64) float64 { return math.Exp(-l.NegLogLikelihood([]float64{y}, z[:1], 1)) }
		switch l := l.(type) {
		case likelihood.Gaussian:
			deviation, step := math.Sqrt(l.Variance), 0.1
			for x := -12.0; x <= 12; x += step { // the trapezoidal rule is exact to rounding here
				total += step * deviation * at(z[0]+x*deviation)
			}
		case likelihood.Poisson:
			for y := 0.0; y < 1000; y++ {
				total += at(y)
			}
		case likelihood.Laplace:
			const step = 1.0 / 16 // of which the geometric series is known
			for x := -40.0; x <= 40; x += step {
				total += l.Scale * 2 * math.Tanh(step/2) * at(z[0]+x*l.Scale)
			}
		default:
			for _, o := range likelihoodtest.Outcomes(l, z[:cols]) {
				nll := l.NegLogLikelihood(o.Y, z[:cols], cols)
				checkClose(t, "probability", []float64{math.Exp(-nll)}, []float64{o.Prob}, 1e-12)
				total += math.Exp(-nll)
			}
		}
		checkClose(t, "sum", []float64{total}, []float64{1}, 1e-12)
	})
}

func TestImpliedTarget(t *testing.T) {
	checkAll(t, func(t *rapid.T, l likelihood.Likelihood, z []float64, cols int) {
		if s, ok := l.(likelihood.Scaled); ok {
			checkScaled(t, s, z, cols)
			return
		}
		y := possibleTargets(t, l, len(z)/cols, cols)
		r, back := make([]float64, len(z)), make([]float64, len(z))
		l.Residual(r, y, z, cols)
		l.ImpliedTarget(back, r, z, cols)
		checkClose(t, "implied target", back, y, 1e-12)
		if err := l.CheckTarget(back, cols, 1e-12); err != nil {
			t.Fatal(err)
		}
		l.ImpliedTarget(r, r, z, cols)
		checkClose(t, "implied target in place of r", r, back, 0)
	})
}

// checkScaled finds the factor of a gradient, and a target of the same residual.
func checkScaled(t *rapid.T, l likelihood.Scaled, z []float64, cols int) {
	y := possibleTargets(t, l, len(z)/cols, cols)
	r, c, back := make([]float64, len(z)), make([]float64, len(z)), make([]float64, len(z))
	l.Residual(r, y, z, cols)
	l.ImpliedTarget(back, r, z, cols)
	l.Residual(back, back, z, cols)
	checkClose(t, "residual of the implied target", back, r, 1e-12)
	for i := range r {
		r[i], back[i] = 3*r[i], 3
	}
	l.Factors(c, r, z, cols)
	checkClose(t, "factors", c, back, 1e-12)
}

// Every row counts for itself: what is computed on a batch is what is computed case by case.
func TestRowsAreIndependent(t *testing.T) {
	checkAll(t, func(t *rapid.T, l likelihood.Likelihood, z []float64, cols int) {
		y := possibleTargets(t, l, len(z)/cols, cols)
		whole, rows := allOf(l, y, z, cols), make([][]float64, 5)
		for i := 0; i < len(z); i += cols {
			for k, part := range allOf(l, y[i:i+cols], z[i:i+cols], cols) {
				rows[k] = append(rows[k], part...)
			}
		}
		rows[4] = []float64{sumOf(rows[4])}
		for k := range whole {
			checkClose(t, fmt.Sprint("result ", k), rows[k], whole[k], 1e-13)
		}
	})
}

// allOf calls every deterministic method: Mean, Residual, FisherProduct, ImpliedTarget,
// NegLogLikelihood.
func allOf(l likelihood.Likelihood, y, z []float64, cols int) [][]float64 {
	all := make([][]float64, 5)
	for k := range all {
		all[k] = make([]float64, len(z))
	}
	l.Mean(all[0], z, cols)
	l.Residual(all[1], y, z, cols)
	l.FisherProduct(all[2], y, z, cols)
	l.ImpliedTarget(all[3], y, z, cols)
	all[4] = []float64{l.NegLogLikelihood(y, z, cols)}
	return all
}

func TestMeanInPlace(t *testing.T) {
	checkAll(t, func(t *rapid.T, l likelihood.Likelihood, z []float64, cols int) {
		want := make([]float64, len(z))
		l.Mean(want, z, cols)
		l.Mean(z, z, cols)
		checkClose(t, "mean in place of z", z, want, 0)
	})
}

// A case of three natural parameters has one class or three targets. Only classes and bits are
// discrete.
func TestVariables(t *testing.T) {
	for name, l := range distributions {
		_, classes := l.(likelihood.Categorical)
		_, bits := l.(likelihood.Bernoulli)
		if n := l.Variables(3); n != 1 && classes || n != 3 && !classes {
			t.Errorf("%s: %d variables", name, n)
		}
		if l.Discrete() != (classes || bits) {
			t.Errorf("%s: discrete is %v", name, l.Discrete())
		}
	}
}

func TestNoRows(t *testing.T) {
	for name, l := range distributions {
		l.Sample(nil, nil, 3, rand.New(rand.NewPCG(1, 1)))
		if all := allOf(l, nil, nil, 3); all[4][0] != 0 {
			t.Errorf("%s: negative log-likelihood of no rows is %g", name, all[4][0])
		}
		if err := l.CheckTarget(nil, 3, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExtremeOutputsStayFinite(t *testing.T) {
	z := []float64{1e3, -1e3, 1e30, -1e30, 0, -1e30, 1e30, 1e30, -1e3, -1e3, -1e30, -1e30}
	const cols = 2
	for name, l := range distributions {
		y := make([]float64, len(z))
		l.Sample(y, z, cols, rand.New(rand.NewPCG(1, 2)))
		if err := l.CheckTarget(y, cols, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for k, result := range allOf(l, y, z, cols) {
			for i, x := range result {
				if math.IsNaN(x) || math.IsInf(x, 0) {
					t.Errorf("%s: entry %d of result %d is %g", name, i, k, x)
				}
			}
		}
	}
}

// Where a distribution is nearly certain, its small numbers are right to rounding, not just small.
func TestPrecisionOfConfidentOutputs(t *testing.T) {
	categorical, bernoulli := likelihood.Categorical{}, likelihood.Bernoulli{}
	fv := make([]float64, 2)
	categorical.FisherProduct(fv, []float64{1, 3}, []float64{0, -50}, 2)
	pq := math.Exp(-50) / (1 + math.Exp(-50)) / (1 + math.Exp(-50))
	bv := make([]float64, 2)
	bernoulli.FisherProduct(bv, []float64{1, 3}, []float64{50, -50}, 2)
	one, two, many := []float64{1}, []float64{1, 0}, make([]float64, 3000)
	sure := categorical.NegLogLikelihood(two, []float64{1e3 + 50, 1e3}, 2)
	for what, c := range map[string]struct{ got, want float64 }{
		"categorical Fisher product, likely":   {fv[0], -2 * pq},
		"categorical Fisher product, unlikely": {fv[1], 2 * pq},
		"bernoulli Fisher product, likely":     {bv[0], pq},
		"bernoulli Fisher product, unlikely":   {bv[1], 3 * pq},
		"categorical, right and sure":          {sure, math.Exp(-50)},
		"categorical, wrong and sure":          {categorical.NegLogLikelihood(two, []float64{-1e30, 1e30}, 2), 2e30},
		"bernoulli, right and sure":            {bernoulli.NegLogLikelihood(one, []float64{50}, 1), math.Exp(-50)},
		"bernoulli, wrong and sure":            {bernoulli.NegLogLikelihood(one, []float64{-1e30}, 1), 1e30},
		"bernoulli, many at chance":            {bernoulli.NegLogLikelihood(many, many, 3), 3000 * math.Ln2},
		"a class ruled out by logit -Inf":      {categorical.NegLogLikelihood(two, []float64{0, math.Inf(-1)}, 2), 0},
	} {
		if !(math.Abs(c.got-c.want) <= 1e-14*math.Abs(c.want)) {
			t.Errorf("%s: %.17g, want %.17g", what, c.got, c.want)
		}
	}
}

// A diverged model shows: not-a-number in z is not covered up.
func TestNaNPropagates(t *testing.T) {
	for name, l := range distributions {
		for at := range 2 {
			z := []float64{1, 2}
			z[at] = math.NaN()
			all := allOf(l, []float64{0.5, 0.5}, z, 2)
			// The Fisher product, result 2, is left out: not all depend on z.
			for _, k := range []int{0, 1, 3, 4} {
				if !slices.ContainsFunc(all[k], math.IsNaN) {
					t.Errorf("%s: result %d with z = %v is %v", name, k, z, all[k])
				}
			}
			l.Sample(make([]float64, 2), z, 2, rand.New(rand.NewPCG(1, 2))) // must return
		}
	}
}

func TestNoAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has sync.Pool drop scratch")
	}
	z, y, dst := make([]float64, 60), make([]float64, 60), make([]float64, 60)
	rng := rand.New(rand.NewPCG(1, 1))
	for name, l := range distributions {
		if n := testing.AllocsPerRun(5, func() {
			l.Sample(y, z, 3, rng)
			l.Mean(dst, z, 3)
			l.Residual(dst, y, z, 3)
			l.FisherProduct(dst, y, z, 3)
			l.NegLogLikelihood(y, z, 3)
			l.ImpliedTarget(dst, y, z, 3)
			_ = l.CheckTarget(y, 3, 0)
		}); n != 0 {
			t.Errorf("%s: %g allocations", name, n)
		}
	}
}

func TestCheckTarget(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		l    likelihood.Likelihood
		y    []float64
		want string // a part of the error; empty where y is possible
	}{
		{likelihood.Categorical{}, []float64{0, 1, 0.25, 0.75}, ""},
		{likelihood.Categorical{}, []float64{-1e-4, 1 + 1e-4, 1, 5e-4}, ""},
		{likelihood.Categorical{}, []float64{0, 1, 1.5, -0.5}, "row 1, column 1 is -0.5"},
		{likelihood.Categorical{}, []float64{0, 1, 1, 1}, "row 1 sums to 2"},
		{likelihood.Categorical{}, []float64{0, 1, 1, 1.5e-3}, "row 1 sums to 1.0015"},
		{likelihood.Categorical{}, []float64{0, 0, 1, 0}, "row 0 sums to 0"},
		{likelihood.Categorical{}, []float64{0, 1, nan, 1}, "row 1, column 0 is NaN"},
		{likelihood.Categorical{}, []float64{0, inf, 1, 0}, "row 0 sums to +Inf"},
		{likelihood.Bernoulli{}, []float64{0, 1, 0.5, 1 + 1e-4, -1e-4, 1}, ""},
		{likelihood.Bernoulli{}, []float64{0, 1, 0.5, 1.25}, "row 1, column 1 is 1.25"},
		{likelihood.Bernoulli{}, []float64{0, 1, -0.25, 1}, "row 1, column 0 is -0.25"},
		{likelihood.Bernoulli{}, []float64{0, nan}, "row 0, column 1 is NaN"},
		{likelihood.Gaussian{Variance: 1}, []float64{-1e30, 7, 0, 1}, ""},
		{likelihood.Gaussian{Variance: 1}, []float64{0, 1, inf, 0}, "row 1, column 0 is +Inf"},
		{likelihood.Gaussian{Variance: 1}, []float64{0, nan}, "row 0, column 1 is NaN"},
		{likelihood.Laplace{Scale: 1}, []float64{0, nan}, "row 0, column 1 is NaN"},
		{likelihood.Poisson{}, []float64{0, 1e9, -1e-4, 0.5}, ""},
		{likelihood.Poisson{}, []float64{0, 1, -0.25, 1}, "row 1, column 0 is -0.25"},
		{likelihood.Poisson{}, []float64{0, inf, nan, 1}, "row 0, column 1 is +Inf"},
	} {
		err := c.l.CheckTarget(c.y, 2, 1e-3)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%T.CheckTarget(%v) = %v, want %q", c.l, c.y, err, c.want)
		}
	}
}

func dotOf(a, b []float64) (sum float64) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

func sumOf(a []float64) (sum float64) {
	for _, x := range a {
		sum += x
	}
	return sum
}
