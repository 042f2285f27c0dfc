package kfac

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"
)

// lossHeads are the heads whose identities are tested, one of each kind and the Gaussian with two variances.
var lossHeads = map[string]head{
	"categorical":    categorical{},
	"bernoulli":      bernoulli{},
	"gaussian":       gaussian{variance: 1},
	"gaussian(0.37)": gaussian{variance: 0.37},
}

// outcome is a target of one case with its probability.
type outcome struct {
	y    []float64
	prob float64
}

// outcomes enumerates the targets of one case with their probabilities, by the definition of each distribution. For the
// Gaussian these are the nodes z ± sqrt(variance) of the two-point Gauss-Hermite rule in each entry, which gives the
// expectation of every polynomial of degree three or less in an entry exactly.
func outcomes(h head, z []float64) []outcome {
	if _, ok := h.(categorical); ok {
		var all []outcome
		for k, p := range plainSoftmax(z) {
			y := make([]float64, len(z))
			y[k] = 1
			all = append(all, outcome{y, p})
		}
		return all
	}
	all := []outcome{{nil, 1}}
	for _, zi := range z {
		low, high, p := 0.0, 1.0, math.Exp(zi)/(math.Exp(zi)+1)
		if g, ok := h.(gaussian); ok {
			low, high, p = zi-math.Sqrt(g.variance), zi+math.Sqrt(g.variance), 0.5
		}
		var longer []outcome
		for _, o := range all {
			longer = append(longer,
				outcome{append(slices.Clone(o.y), low), o.prob * (1 - p)},
				outcome{append(slices.Clone(o.y), high), o.prob * p})
		}
		all = longer
	}
	return all
}

func plainSoftmax(z []float64) []float64 {
	var sum float64
	for _, zk := range z {
		sum += math.Exp(zk)
	}
	p := make([]float64, len(z))
	for k, zk := range z {
		p[k] = math.Exp(zk) / sum
	}
	return p
}

// plainFisher is the Fisher matrix of one case as a dense K x K matrix, by its textbook formula.
func plainFisher(h head, z []float64) []float64 {
	n := len(z)
	f := make([]float64, n*n)
	for i := range n {
		switch h := h.(type) {
		case categorical:
			p := plainSoftmax(z)
			for j := range n {
				f[i*n+j] = -p[i] * p[j]
			}
			f[i*n+i] += p[i]
		case bernoulli:
			p := 1 / (1 + math.Exp(-z[i]))
			f[i*n+i] = p * (1 - p)
		case gaussian:
			f[i*n+i] = 1 / h.variance
		}
	}
	return f
}

func lossNumbers(bound float64, n int) *rapid.Generator[[]float64] {
	return rapid.SliceOfN(rapid.Float64Range(-bound, bound), n, n)
}

// lossTargets draws targets that are possible for h, between the outcomes as well as at them.
func lossTargets(t *rapid.T, h head, rows, cols int) []float64 {
	if _, ok := h.(gaussian); ok {
		return lossNumbers(5, rows*cols).Draw(t, "y")
	}
	y := rapid.SliceOfN(rapid.Float64Range(0, 1), rows*cols, rows*cols).Draw(t, "y")
	if _, ok := h.(categorical); ok {
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

// derivative is the central difference of fourth order of f with respect to x[i].
func derivative(f func() float64, x []float64, i int) float64 {
	const h = 1e-3
	at, steps := x[i], [4]float64{}
	for k, d := range [4]float64{h, -h, 2 * h, -2 * h} {
		x[i] = at + d
		steps[k] = f()
	}
	x[i] = at
	return (8*(steps[0]-steps[1]) - (steps[2] - steps[3])) / (12 * h)
}

func checkHeads(t *testing.T, property func(t *rapid.T, h head, z []float64, cols int)) {
	for name, h := range lossHeads {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			rows, cols := rapid.IntRange(1, 3).Draw(t, "rows"), rapid.IntRange(2, 4).Draw(t, "cols")
			property(t, h, lossNumbers(6, rows*cols).Draw(t, "z"), cols)
		}))
	}
}

func TestResidualIsDerivativeOfNegLogLikelihood(t *testing.T) {
	checkHeads(t, func(t *rapid.T, h head, z []float64, cols int) {
		y := lossTargets(t, h, len(z)/cols, cols)
		want := make([]float64, len(z))
		for i := range z {
			want[i] = derivative(func() float64 { return h.negLogLikelihood(y, z, cols) }, z, i)
		}
		got := make([]float64, len(z))
		h.residual(got, y, z, cols)
		checkClose(t, "residual", got, want, 1e-9)

		h.residual(y, y, z, cols)
		checkClose(t, "residual in place of y", y, got, 0)
	})
}

func TestFisherProduct(t *testing.T) {
	checkHeads(t, func(t *rapid.T, h head, z []float64, cols int) {
		u, v := lossNumbers(3, len(z)).Draw(t, "u"), lossNumbers(3, len(z)).Draw(t, "v")
		fu, fv := make([]float64, len(z)), make([]float64, len(z))
		h.fisherProduct(fu, u, z, cols)
		h.fisherProduct(fv, v, z, cols)

		var explicit []float64
		for i := 0; i < len(z); i += cols {
			f := plainFisher(h, z[i:i+cols])
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
			slope := derivative(func() float64 {
				copy(shifted, z)
				h.mean(mean, shifted, cols)
				return dotOf(mean, v)
			}, z, i)
			checkClose(t, "derivative of mean", fv[i:i+1], []float64{slope}, 1e-9)
		}
	})
}

// The categorical products that tests of other K-FAC implementations compare with.
func TestFisherProductGolden(t *testing.T) {
	got := make([]float64, 6)
	categorical{}.fisherProduct(got, []float64{1, 2, 3, 5, 3, 1}, []float64{1, 2, 3, 4, 6, 8}, 3)
	checkClose(t, "F v", got, []float64{-.1418170936, -.1407703575, .2825874511, .0587718429, .1996475887, -.2584194316}, 5e-11)
}

// F_R is the covariance of the residual, whose expectation is zero (Martens & Grosse 2015, lemma 4), and mean is E[T(y)].
func TestMomentsByEnumeration(t *testing.T) {
	checkHeads(t, func(t *rapid.T, h head, z []float64, cols int) {
		z = z[:cols]
		r, zero, product := make([]float64, cols), make([]float64, cols), make([]float64, cols)
		first, second, statistic := make([]float64, cols), make([]float64, cols*cols), make([]float64, cols)
		for _, o := range outcomes(h, z) {
			h.residual(r, o.y, z, cols)
			for i := range r {
				first[i] += o.prob * r[i]
				for j := range r {
					second[i*cols+j] += o.prob * r[i] * r[j]
				}
				ty := o.y[i]
				if g, ok := h.(gaussian); ok {
					ty /= g.variance
				}
				statistic[i] += o.prob * ty
			}
		}
		checkClose(t, "E[residual]", first, zero, 1e-12)
		h.mean(product, z, cols)
		checkClose(t, "E[T(y)]", product, statistic, 1e-12)
		for j := range cols {
			unit := make([]float64, cols)
			unit[j] = 1
			h.fisherProduct(product, unit, z, cols)
			checkClose(t, "row of E[r r']", product, second[j*cols:(j+1)*cols], 1e-11)
		}
	})
}

// The negative log-likelihood contains every constant: the probabilities of all targets sum to one.
func TestProbabilitiesSumToOne(t *testing.T) {
	checkHeads(t, func(t *rapid.T, h head, z []float64, cols int) {
		var total float64
		if g, ok := h.(gaussian); ok {
			deviation, step := math.Sqrt(g.variance), 0.1
			for x := -12.0; x <= 12; x += step { // the trapezoidal rule is exact to rounding here
				total += step * deviation * math.Exp(-h.negLogLikelihood([]float64{z[0] + x*deviation}, z[:1], 1))
			}
		} else {
			for _, o := range outcomes(h, z[:cols]) {
				nll := h.negLogLikelihood(o.y, z[:cols], cols)
				checkClose(t, "probability", []float64{math.Exp(-nll)}, []float64{o.prob}, 1e-12)
				total += math.Exp(-nll)
			}
		}
		checkClose(t, "sum", []float64{total}, []float64{1}, 1e-12)
	})
}

func TestImpliedTarget(t *testing.T) {
	checkHeads(t, func(t *rapid.T, h head, z []float64, cols int) {
		y := lossTargets(t, h, len(z)/cols, cols)
		r, back := make([]float64, len(z)), make([]float64, len(z))
		h.residual(r, y, z, cols)
		h.impliedTarget(back, r, z, cols)
		checkClose(t, "implied target", back, y, 1e-12)
		if err := h.checkTarget(back, cols, 1e-12); err != nil {
			t.Fatal(err)
		}
		h.impliedTarget(r, r, z, cols)
		checkClose(t, "implied target in place of r", r, back, 0)
	})
}

// Every row counts for itself: what is computed on a batch is what is computed case by case.
func TestRowsAreIndependent(t *testing.T) {
	checkHeads(t, func(t *rapid.T, h head, z []float64, cols int) {
		y := lossTargets(t, h, len(z)/cols, cols)
		whole, rows := allOf(h, y, z, cols), make([][]float64, 5)
		for i := 0; i < len(z); i += cols {
			for k, part := range allOf(h, y[i:i+cols], z[i:i+cols], cols) {
				rows[k] = append(rows[k], part...)
			}
		}
		rows[4] = []float64{sumOf(rows[4])}
		for k := range whole {
			checkClose(t, fmt.Sprint("result ", k), rows[k], whole[k], 1e-13)
		}
	})
}

// allOf runs every deterministic method: mean, residual, Fisher product, implied target, negative log-likelihood.
func allOf(h head, y, z []float64, cols int) [][]float64 {
	all := make([][]float64, 5)
	for k := range all {
		all[k] = make([]float64, len(z))
	}
	h.mean(all[0], z, cols)
	h.residual(all[1], y, z, cols)
	h.fisherProduct(all[2], y, z, cols)
	h.impliedTarget(all[3], y, z, cols)
	all[4] = []float64{h.negLogLikelihood(y, z, cols)}
	return all
}

func TestNoRows(t *testing.T) {
	for name, h := range lossHeads {
		h.sample(nil, nil, 3, rand.New(rand.NewPCG(1, 1)))
		if all := allOf(h, nil, nil, 3); all[4][0] != 0 {
			t.Errorf("%s: negative log-likelihood of no rows is %g", name, all[4][0])
		}
		if err := h.checkTarget(nil, 3, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExtremeOutputsStayFinite(t *testing.T) {
	z := []float64{1e3, -1e3, 1e30, -1e30, 0, -1e30, 1e30, 1e30, -1e3, -1e3, -1e30, -1e30}
	const cols = 2
	for name, h := range lossHeads {
		y := make([]float64, len(z))
		h.sample(y, z, cols, rand.New(rand.NewPCG(1, 2)))
		if err := h.checkTarget(y, cols, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for k, result := range allOf(h, y, z, cols) {
			for i, x := range result {
				if math.IsNaN(x) || math.IsInf(x, 0) {
					t.Errorf("%s: entry %d of result %d is %g", name, i, k, x)
				}
			}
		}
	}
}

// Where a distribution is nearly certain, the small numbers are right to rounding and not just small.
func TestPrecisionOfConfidentOutputs(t *testing.T) {
	fv := make([]float64, 2)
	categorical{}.fisherProduct(fv, []float64{1, 3}, []float64{0, -50}, 2)
	pq := math.Exp(-50) / (1 + math.Exp(-50)) / (1 + math.Exp(-50))
	bv := make([]float64, 2)
	bernoulli{}.fisherProduct(bv, []float64{1, 3}, []float64{50, -50}, 2)
	one, two, many := []float64{1}, []float64{1, 0}, make([]float64, 3000)
	for what, c := range map[string]struct{ got, want float64 }{
		"categorical Fisher product, likely":   {fv[0], -2 * pq},
		"categorical Fisher product, unlikely": {fv[1], 2 * pq},
		"bernoulli Fisher product, likely":     {bv[0], pq},
		"bernoulli Fisher product, unlikely":   {bv[1], 3 * pq},
		"categorical, right and sure":          {categorical{}.negLogLikelihood(two, []float64{1e3 + 50, 1e3}, 2), math.Exp(-50)},
		"categorical, wrong and sure":          {categorical{}.negLogLikelihood(two, []float64{-1e30, 1e30}, 2), 2e30},
		"bernoulli, right and sure":            {bernoulli{}.negLogLikelihood(one, []float64{50}, 1), math.Exp(-50)},
		"bernoulli, wrong and sure":            {bernoulli{}.negLogLikelihood(one, []float64{-1e30}, 1), 1e30},
		"bernoulli, many at chance":            {bernoulli{}.negLogLikelihood(many, many, 3), 3000 * math.Ln2},
		"a class ruled out by logit -Inf":      {categorical{}.negLogLikelihood(two, []float64{0, math.Inf(-1)}, 2), 0},
	} {
		if !(math.Abs(c.got-c.want) <= 1e-14*math.Abs(c.want)) {
			t.Errorf("%s: %.17g, want %.17g", what, c.got, c.want)
		}
	}
}

// A diverged model shows: not-a-number in z is not covered up.
func TestNaNPropagates(t *testing.T) {
	for name, h := range lossHeads {
		for at := range 2 {
			z := []float64{1, 2}
			z[at] = math.NaN()
			all := allOf(h, []float64{0.5, 0.5}, z, 2)
			for _, k := range []int{0, 1, 3, 4} { // the Gaussian's Fisher matrix does not depend on z
				if !slices.ContainsFunc(all[k], math.IsNaN) {
					t.Errorf("%s: result %d with z = %v is %v", name, k, z, all[k])
				}
			}
			h.sample(make([]float64, 2), z, 2, rand.New(rand.NewPCG(1, 2))) // must return
		}
	}
}

func TestSampleFrequencies(t *testing.T) {
	const rows = 40000
	cases := []float64{0.3, -1.2, 1.1, -0.4}
	for name, h := range lossHeads {
		cols := len(cases)
		z, y := make([]float64, 0, rows*cols), make([]float64, rows*cols)
		for range rows {
			z = append(z, cases...)
		}
		h.sample(y, z, cols, rand.New(rand.NewPCG(3, 5)))
		if err := h.checkTarget(y, cols, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantMean, wantCov := make([]float64, cols), plainFisher(h, cases)
		for _, o := range outcomes(h, cases) {
			for k := range wantMean {
				wantMean[k] += o.prob * o.y[k]
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
		if g, ok := h.(gaussian); ok {
			scale = g.variance
			for i := range wantCov {
				wantCov[i] *= scale * scale
			}
		}
		// Five standard deviations; that of an entry of the covariance is at most the Gaussian's, sqrt(2) scale/sqrt(rows).
		for i := range cols {
			checkClose(t, name+" mean", mean[i:i+1], wantMean[i:i+1], 5*math.Sqrt(wantCov[i*cols+i]/rows))
		}
		checkClose(t, name+" covariance", cov, wantCov, 5*math.Sqrt2*scale/math.Sqrt(rows))
	}
}

// constantSource is a random source at the end of its range.
type constantSource uint64

func (s constantSource) Uint64() uint64 { return uint64(s) }

// A class of probability zero is not drawn, even where rounding lets the sum of the others fall short.
func TestImpossibleClassIsNeverDrawn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		z := append([]float64{-1e4}, lossNumbers(3, rapid.IntRange(1, 20).Draw(t, "n")).Draw(t, "z")...)
		z = append(z, math.Inf(-1))
		y := make([]float64, len(z))
		for _, source := range []constantSource{0, math.MaxUint64} {
			categorical{}.sample(y, z, len(z), rand.New(source))
			if y[0] != 0 || y[len(y)-1] != 0 {
				t.Fatalf("source %d: drawn %v", source, y)
			}
		}
	})
}

func TestSampleIsDeterminedBySeed(t *testing.T) {
	z := lossNumbers(2, 300).Example(1)
	for name, h := range lossHeads {
		draw := func(seed uint64) []float64 {
			y := make([]float64, len(z))
			h.sample(y, z, 3, rand.New(rand.NewPCG(seed, 0)))
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

func TestHeadsDoNotAllocate(t *testing.T) {
	z, y, dst := make([]float64, 60), make([]float64, 60), make([]float64, 60)
	rng := rand.New(rand.NewPCG(1, 1))
	for name, h := range lossHeads {
		if n := testing.AllocsPerRun(5, func() {
			h.sample(y, z, 3, rng)
			h.mean(dst, z, 3)
			h.residual(dst, y, z, 3)
			h.fisherProduct(dst, y, z, 3)
			h.negLogLikelihood(y, z, 3)
			h.impliedTarget(dst, y, z, 3)
			_ = h.checkTarget(y, 3, 0)
		}); n != 0 {
			t.Errorf("%s: %g allocations", name, n)
		}
	}
}

func TestCheckTarget(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		h    head
		y    []float64
		want string // a part of the error; empty where y is possible
	}{
		{categorical{}, []float64{0, 1, 0.25, 0.75}, ""},
		{categorical{}, []float64{-1e-4, 1 + 1e-4, 1, 5e-4}, ""},
		{categorical{}, []float64{0, 1, 1.5, -0.5}, "row 1, column 1 is -0.5"},
		{categorical{}, []float64{0, 1, 1, 1}, "row 1 sums to 2"},
		{categorical{}, []float64{0, 1, 1, 1.5e-3}, "row 1 sums to 1.0015"},
		{categorical{}, []float64{0, 0, 1, 0}, "row 0 sums to 0"},
		{categorical{}, []float64{0, 1, nan, 1}, "row 1, column 0 is NaN"},
		{categorical{}, []float64{0, inf, 1, 0}, "row 0 sums to +Inf"},
		{bernoulli{}, []float64{0, 1, 0.5, 1 + 1e-4, -1e-4, 1}, ""},
		{bernoulli{}, []float64{0, 1, 0.5, 1.25}, "row 1, column 1 is 1.25"},
		{bernoulli{}, []float64{0, 1, -0.25, 1}, "row 1, column 0 is -0.25"},
		{bernoulli{}, []float64{0, nan}, "row 0, column 1 is NaN"},
		{gaussian{variance: 1}, []float64{-1e30, 7, 0, 1}, ""},
		{gaussian{variance: 1}, []float64{0, 1, inf, 0}, "row 1, column 0 is +Inf"},
		{gaussian{variance: 1}, []float64{0, nan}, "row 0, column 1 is NaN"},
	} {
		err := c.h.checkTarget(c.y, 2, 1e-3)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%T.checkTarget(%v) = %v, want %q", c.h, c.y, err, c.want)
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

// only returns the one head of d.
func only(t *testing.T, d Distribution) head {
	t.Helper()
	if n := len(d.heads()); n != 1 {
		t.Fatalf("%d heads, want 1", n)
	}
	return d.heads()[0]
}

func TestTracing(t *testing.T) {
	must, f64 := gorgonia.Must, tensor.Float64
	g := gorgonia.NewGraph()
	matrix := func(name string) *gorgonia.Node {
		return gorgonia.NewMatrix(g, f64, gorgonia.WithShape(4, 3), gorgonia.WithName(name))
	}
	target := matrix("target")
	check := func(what string, z *gorgonia.Node, d Distribution) {
		t.Helper()
		h := only(t, d)
		if err := h.err(); err != nil || h.output() != z {
			t.Errorf("%s: traced to %v, want %v; error %v", what, h.output(), z, err)
		}
	}

	z := matrix("plain")
	check("logits", z, Categorical(z))
	check("logits", z, Bernoulli(z))
	check("mean", z, Gaussian(z, 2))
	check("tanh, no softmax", must(gorgonia.Tanh(z)), Categorical(must(gorgonia.Tanh(z))))
	sigmoidal := must(gorgonia.Sigmoid(z))
	check("mean that is a sigmoid", sigmoidal, Gaussian(sigmoidal, 1))
	check("logits that are a sigmoid", sigmoidal, Categorical(sigmoidal))
	check("logarithm, no softmax", must(gorgonia.Log(sigmoidal)), Categorical(must(gorgonia.Log(sigmoidal))))

	z = matrix("default axis")
	check("SoftMax", z, Categorical(must(gorgonia.SoftMax(z))))
	z = matrix("last axis")
	check("SoftMax, axis 1", z, Categorical(must(gorgonia.SoftMax(z, 1))))
	z = matrix("log form")
	check("LogSoftMax", z, Categorical(must(gorgonia.LogSoftMax(z))))

	z = matrix("log of softmax")
	p := must(gorgonia.SoftMax(z))
	check("Log(SoftMax)", z, Categorical(must(gorgonia.Log(p))))
	check("SoftMax under a Log", z, Categorical(p))
	z = matrix("log of softmax times target")
	p = must(gorgonia.SoftMax(z))
	must(gorgonia.Log(must(gorgonia.HadamardProd(p, target))))
	check("SoftMax in Log(SoftMax ⊙ target)", z, Categorical(p))

	z = matrix("unstabilised")
	p = must(gorgonia.SoftMax(z))
	gorgonia.UseNonStable()
	logP := must(gorgonia.Log(p))
	gorgonia.UseStabilization()
	if logP == p {
		t.Fatal("Log(SoftMax) is the SoftMax node, stabilisation off")
	}
	check("Log over SoftMax", z, Categorical(logP))

	z = gorgonia.NewVector(g, f64, gorgonia.WithShape(3), gorgonia.WithName("vector"))
	check("SoftMax of one case", z, Categorical(must(gorgonia.SoftMax(z))))
	z = gorgonia.NewMatrix(g, f64, gorgonia.WithShape(1, 3), gorgonia.WithName("row"))
	check("SoftMax of a batch of one", z, Categorical(must(gorgonia.SoftMax(z))))

	z = gorgonia.NewTensor(g, tensor.Float32, 4, gorgonia.WithShape(2, 3, 4, 5), gorgonia.WithName("image"))
	check("Sigmoid", z, Bernoulli(must(gorgonia.Sigmoid(z))))
}

// Gorgonia rewrites BinaryXent of a sigmoid into softplus terms, and leaves the sigmoid node beside the cost.
func TestTracingThroughBinaryXent(t *testing.T) {
	for _, dt := range []tensor.Dtype{tensor.Float64, tensor.Float32} {
		g := gorgonia.NewGraph()
		x := gorgonia.NewMatrix(g, dt, gorgonia.WithShape(4, 3), gorgonia.WithName("x"))
		w := gorgonia.NewMatrix(g, dt, gorgonia.WithShape(3, 2), gorgonia.WithName("w"))
		y := gorgonia.NewMatrix(g, dt, gorgonia.WithShape(4, 2), gorgonia.WithName("y"))
		z := gorgonia.Must(gorgonia.Mul(x, w))
		p := gorgonia.Must(gorgonia.Sigmoid(z))
		cost := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.BinaryXent(p, y))))
		ancestors := g.ExactSubgraphRoots(cost).AllNodes()
		if slices.Contains(ancestors, p) || !slices.Contains(ancestors, z) {
			t.Fatal("this Gorgonia keeps the sigmoid in the cost")
		}
		if h := only(t, Bernoulli(p)); h.err() != nil || h.output() != z {
			t.Errorf("%v: traced to %v, want %v; error %v", dt, h.output(), z, h.err())
		}
	}
}

// After Gorgonia has removed a node, the user's graph finds wrong nodes by their number.
func TestTracingWithStaleIndex(t *testing.T) {
	g := gorgonia.NewGraph()
	matrix := func(name string) *gorgonia.Node {
		return gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithShape(4, 3), gorgonia.WithName(name))
	}
	z, q := matrix("z"), matrix("q")
	gorgonia.Must(gorgonia.BinaryXent(matrix("prediction"), q)) // leaves Gorgonia's own constant 1 in the graph
	rest := gorgonia.Must(gorgonia.Sub(gorgonia.NewConstant(1.0), q))
	p, s := gorgonia.Must(gorgonia.Sigmoid(z)), gorgonia.Must(gorgonia.SoftMax(z))
	for _, n := range g.AllNodes() {
		g.Node(n.ID()) // fills the index
	}
	gorgonia.Must(gorgonia.Log(rest)) // becomes log1p(-q); removes rest
	if g.Node(p.ID()) == p {
		t.Fatal("the index is not stale: the test tests nothing")
	}
	for _, d := range []Distribution{Bernoulli(p), Categorical(s)} {
		if h := only(t, d); h.err() != nil || h.output() != z {
			t.Errorf("%s: traced to %v; error %v", h.name(), h.output(), h.err())
		}
	}
	if err := only(t, Bernoulli(rest)).err(); err == nil || !strings.Contains(err.Error(), "belongs to no graph") {
		t.Errorf("removed node: error %v", err)
	}
}

func TestBadArguments(t *testing.T) {
	g := gorgonia.NewGraph()
	node := func(shape ...int) *gorgonia.Node {
		return gorgonia.NewTensor(g, tensor.Float64, len(shape), gorgonia.WithShape(shape...), gorgonia.WithName(fmt.Sprint("z", shape)))
	}
	softmax := func(z *gorgonia.Node, axis ...int) *gorgonia.Node { return gorgonia.Must(gorgonia.SoftMax(z, axis...)) }
	z := node(4, 3)
	for _, c := range []struct {
		d          Distribution
		name, want string
	}{
		{Categorical(nil), "Categorical(nil)", "the node is nil"},
		{Bernoulli(nil), "Bernoulli(nil)", "the node is nil"},
		{Gaussian(nil, 1), "Gaussian(nil)", "the node is nil"},
		{Joint(nil), "Joint(nil)", "part 0 is a nil Distribution"},
		{Gaussian(gorgonia.NewConstant(1.5), 1), "Gaussian(1.5)", "belongs to no graph"},
		{Categorical(softmax(z, 0)), "Categorical(z[4 3])", "over axis 0 of an output of shape (4, 3)"},
		{Categorical(softmax(node(4, 5, 6))), "Categorical(z[4 5 6])", "shape (4, 5, 6)"},
		{Categorical(node(4, 1)), "Categorical(z[4 1])", "fewer than two classes"},
		{Categorical(softmax(node(7, 1))), "Categorical(z[7 1])", "fewer than two classes"},
		{Categorical(gorgonia.NewScalar(g, tensor.Float64, gorgonia.WithName("s"))), "Categorical(s)", "shape ()"},
		{Gaussian(z, 0), "Gaussian(z[4 3])", "the variance is 0"},
		{Gaussian(z, -1), "Gaussian(z[4 3])", "the variance is -1"},
		{Gaussian(z, math.NaN()), "Gaussian(z[4 3])", "the variance is NaN"},
		{Gaussian(z, math.Inf(1)), "Gaussian(z[4 3])", "the variance is +Inf"},
		{Gaussian(z, 5e-324), "Gaussian(z[4 3])", "the variance is 5e-324"},
	} {
		h := only(t, c.d)
		if err := h.err(); h.name() != c.name || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s: %q", h.name(), err, c.name, c.want)
		}
	}
}

func TestJoint(t *testing.T) {
	g := gorgonia.NewGraph()
	node := func(name string) *gorgonia.Node {
		return gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithShape(4, 3), gorgonia.WithName(name))
	}
	d := Joint(Categorical(node("a")), Joint(Bernoulli(node("b")), Joint()), Gaussian(node("c"), 2))
	var names []string
	for _, h := range d.heads() {
		if h.err() != nil {
			t.Errorf("%s: %v", h.name(), h.err())
		}
		names = append(names, h.name())
	}
	if want := []string{"Categorical(a)", "Bernoulli(b)", "Gaussian(c)"}; !slices.Equal(names, want) {
		t.Errorf("heads %v, want %v", names, want)
	}
	if n := len(Joint().heads()); n != 0 {
		t.Errorf("Joint() has %d heads", n)
	}
}
