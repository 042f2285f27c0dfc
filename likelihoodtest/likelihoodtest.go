// Package likelihoodtest tests that a [kfac.Likelihood] of the user's is one:
//
//	func TestMine(t *testing.T) {
//		likelihoodtest.Run(t, Mine{}, []float64{0.3, -1, 2, 0.1, 0.2, 0.3}, 3)
//	}
package likelihoodtest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gorgonia-kfac/kfac"
)

// Run tests a likelihood at rows of natural parameters z, of cols each: that all methods fit
// together, by finite differences and by samples, and that they leave alone what is not theirs. A
// few rows of a few columns, as a model may well have them, are enough. It takes less than a
// second.
func Run(t *testing.T, l kfac.Likelihood, z []float64, cols int) {
	t.Helper()
	if cols < 1 || len(z) == 0 || len(z)%cols != 0 {
		t.Fatalf("likelihoodtest: %d numbers are no rows of %d", len(z), cols)
	}
	for _, p := range properties {
		t.Run(p.name, func(t *testing.T) {
			if err := p.holds(subject{l, slices.Clone(z), cols}); err != nil {
				t.Errorf("%T: %v", l, err)
			}
		})
	}
}

// A property is something that a likelihood has to have.
type property struct {
	name  string
	holds func(s subject) error
}

// In an order in which the first failure is the likeliest cause of the others.
var properties = []property{
	{"inputs", subject.inputs},
	{"rows", subject.rows},
	{"aliasing", subject.aliasing},
	{"samples", subject.samples},
	{"residual", subject.residual},
	{"fisher", subject.fisher},
	{"moments", subject.moments},
	{"mean", subject.mean},
	{"factors", subject.factors},
	{"variables", subject.variables},
	{"targets", subject.targets},
	{"large outputs", subject.large},
	{"allocations", subject.allocations},
}

// A subject is a likelihood with the rows that it is tested at.
type subject struct {
	kfac.Likelihood
	z    []float64
	cols int
}

// A result is what one of the methods writes.
type result struct {
	method string
	values []float64
}

// results are those of the methods that use no random numbers.
func (s subject) results(y, v, z []float64) []result {
	n := len(z)
	mean, r, product := make([]float64, n), make([]float64, n), make([]float64, n)
	if !s.findsFactors() {
		s.Mean(mean, z, s.cols)
	}
	s.Residual(r, y, z, s.cols)
	s.FisherProduct(product, v, z, s.cols)
	all := []result{{"Mean", mean}, {"Residual", r}, {"FisherProduct", product}}
	if f, ok := s.Likelihood.(kfac.FactorFinder); ok {
		c := make([]float64, n)
		f.Factors(c, r, z, s.cols)
		all = append(all, result{"Factors", c})
	}
	if c, ok := s.Likelihood.(kfac.TargetChecker); ok {
		implied := make([]float64, n)
		c.ImpliedTarget(implied, r, z, s.cols)
		all = append(all, result{"ImpliedTarget", implied})
	}
	return all
}

// findsFactors reports whether the factor of a cost is told from gradients, and not by Mean.
func (s subject) findsFactors() bool {
	switch s.Likelihood.(type) {
	case kfac.FactorFinder, kfac.Fitter:
		return true
	}
	return false
}

// sample draws targets of some rows.
func (s subject) sample(z []float64, seed uint64) []float64 {
	y := make([]float64, len(z))
	s.Sample(y, z, s.cols, source(seed))
	return y
}

func source(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 17)) }

// normals are random numbers of the normal distribution.
func normals(n int, seed uint64) []float64 {
	x, rng := make([]float64, n), source(seed)
	for i := range x {
		x[i] = rng.NormFloat64()
	}
	return x
}

// eachRow calls f with the rows of z.
func (s subject) eachRow(f func(row int, z []float64) error) error {
	for i := 0; i < len(s.z); i += s.cols {
		if err := f(i/s.cols, s.z[i:i+s.cols]); err != nil {
			return err
		}
	}
	return nil
}

// rows: what is computed of many rows is what is computed of each, and of none it is nothing.
func (s subject) rows() error {
	y, v := s.sample(s.z, 1), normals(len(s.z), 2)
	whole, total := s.results(y, v, s.z), 0.0
	err := s.eachRow(func(row int, z []float64) error {
		from, to := row*s.cols, (row+1)*s.cols
		for k, part := range s.results(y[from:to], v[from:to], z) {
			if err := same(part.method+" of a row", part.values, whole[k].values[from:to], 1e-9); err != nil {
				return err
			}
		}
		total += s.NegLogLikelihood(y[from:to], z, s.cols)
		return nil
	})
	if err != nil {
		return err
	}
	got := s.NegLogLikelihood(y, s.z, s.cols)
	if err := same("NegLogLikelihood, of the rows", []float64{total}, []float64{got}, 1e-9); err != nil {
		return err
	}
	s.results(nil, nil, nil)
	s.Sample(nil, nil, s.cols, source(1))
	if nll := s.NegLogLikelihood(nil, nil, s.cols); nll != 0 {
		return fmt.Errorf("of no rows NegLogLikelihood is %g, want 0", nll)
	}
	return nil
}

// inputs: arguments that are not written to stay as they are.
func (s subject) inputs() error {
	z := slices.Clone(s.z)
	y, v := s.sample(z, 1), normals(len(s.z), 2)
	keptY, keptV := slices.Clone(y), slices.Clone(v)
	s.results(y, v, z)
	s.NegLogLikelihood(y, z, s.cols)
	return errors.Join(same("z, which is not to be written to,", z, s.z, 0),
		same("y, which is not to be written to,", y, keptY, 0), same("v, which is not to be written to,", v, keptV, 0))
}

// aliasing: results may be written over the arguments that the interface says.
func (s subject) aliasing() error {
	y, v := s.sample(s.z, 1), normals(len(s.z), 2)
	for _, want := range s.results(y, v, s.z) {
		var got []float64
		switch want.method {
		case "Mean":
			if s.findsFactors() {
				continue
			}
			got = slices.Clone(s.z)
			s.Mean(got, got, s.cols)
		case "Residual":
			got = slices.Clone(y)
			s.Residual(got, got, s.z, s.cols)
		case "ImpliedTarget":
			got = make([]float64, len(s.z))
			s.Residual(got, y, s.z, s.cols)
			s.Likelihood.(kfac.TargetChecker).ImpliedTarget(got, got, s.z, s.cols)
		default:
			continue
		}
		if err := same(want.method+", written over its argument,", got, want.values, 0); err != nil {
			return err
		}
	}
	return nil
}

// samples: they come from the generator, and from nothing else.
func (s subject) samples() error {
	z := slices.Repeat(s.z, 50)
	first, again := s.sample(z, 1), s.sample(z, 1)
	if err := same("Sample with the same generator", again, first, 0); err != nil {
		return err
	}
	if slices.Equal(s.sample(z, 2), first) {
		return errors.New("samples are the same whatever the generator")
	}
	return nil
}

// residual: it is the gradient of NegLogLikelihood.
func (s subject) residual() error {
	for seed := range uint64(20) {
		err := s.eachRow(func(row int, z []float64) error {
			y, r, want := s.sample(z, 100+seed), make([]float64, s.cols), make([]float64, s.cols)
			s.Residual(r, y, z, s.cols)
			for j := range z {
				want[j] = derivative(func() float64 { return s.NegLogLikelihood(y, z, s.cols) }, z, j)
			}
			return atRow(row, z, same(fmt.Sprintf("Residual of y = %v, beside the slope of NegLogLikelihood,", y),
				r, want, 1e-6))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// matrix is the Fisher matrix of a row by FisherProduct, row-major.
func (s subject) matrix(z []float64) []float64 {
	n := len(z)
	f, unit := make([]float64, n*n), make([]float64, n)
	for j := range n {
		unit[j] = 1
		s.FisherProduct(f[j*n:(j+1)*n], unit, z, s.cols)
		unit[j] = 0
	}
	return f
}

// fisher: the product is that with a matrix, which is symmetric and has no negative eigenvalue.
func (s subject) fisher() error {
	return s.eachRow(func(row int, z []float64) error {
		n, f := s.cols, s.matrix(z)
		turned := make([]float64, n*n)
		for i := range n {
			for j := range n {
				turned[j*n+i] = f[i*n+j]
			}
		}
		if err := atRow(row, z, same("the transpose of the Fisher matrix", turned, f, 1e-9)); err != nil {
			return err
		}
		for seed := range uint64(20) {
			v, got, want := normals(n, 200+seed), make([]float64, n), make([]float64, n)
			s.FisherProduct(got, v, z, n)
			var form, size float64
			for i := range n {
				for j := range n {
					want[i] += f[i*n+j] * v[j]
					size += math.Abs(v[i] * f[i*n+j] * v[j])
				}
				form += v[i] * want[i]
			}
			if err := same("FisherProduct, beside the sum of those of unit vectors,", got, want, 1e-9); err != nil {
				return atRow(row, z, err)
			}
			if form < -1e-9*size {
				return atRow(row, z, fmt.Errorf("v F v is %g with v = %v: a Fisher matrix has no negative eigenvalue",
					form, v))
			}
		}
		return nil
	})
}

// moments: residuals of samples have the mean zero and the Fisher matrix as covariance.
func (s subject) moments() error {
	const draws = 20000
	return s.eachRow(func(row int, z []float64) error {
		n := s.cols
		first, second := make([]moment, n), make([]moment, n*n)
		y, r, rng := make([]float64, n), make([]float64, n), source(3)
		for range draws {
			s.Sample(y, z, n, rng)
			s.Residual(r, y, z, n)
			for i := range n {
				first[i].add(r[i])
				for j := range n {
					second[i*n+j].add(r[i] * r[j])
				}
			}
		}
		f := s.matrix(z)
		for i := range n {
			if !first[i].mayBe(0, math.Sqrt(f[i*n+i])) {
				return atRow(row, z, fmt.Errorf("residuals of samples have the mean %.4g in column %d, where 0 is "+
					"needed: they are drawn from another distribution", first[i].mean(), i))
			}
			for j := range n {
				if m := second[i*n+j]; !m.mayBe(f[i*n+j], math.Sqrt(f[i*n+i]*f[j*n+j])) {
					return atRow(row, z, fmt.Errorf("the Fisher matrix has %.4g at (%d, %d), where the products of "+
						"the residuals of samples have the mean %.4g", f[i*n+j], i, j, m.mean()))
				}
			}
		}
		return nil
	})
}

// A moment is the mean of some numbers.
type moment struct{ n, sum, squares float64 }

func (m *moment) add(x float64) {
	m.n++
	m.sum += x
	m.squares += x * x
}

func (m moment) mean() float64 { return m.sum / m.n }

// mayBe reports whether the expectation may be this: within six standard errors, and ten of n
// draws of the given size, so that what is too rare to be drawn counts for nothing.
func (m moment) mayBe(expected, size float64) bool {
	variance := math.Max(m.squares/m.n-m.mean()*m.mean(), 0)
	return math.Abs(m.mean()-expected) <= 6*math.Sqrt(variance/m.n)+10*math.Max(size, math.Abs(expected))/m.n
}

// mean: what Mean has more than Residual is T(y), the same whatever z. Its slope is the Fisher
// matrix.
func (s subject) mean() error {
	if s.findsFactors() {
		return nil
	}
	return s.eachRow(func(row int, z []float64) error {
		n, y := s.cols, s.sample(z, 5)
		here, other := s.statistic(y, z), slices.Clone(z)
		for j, d := range normals(n, 6) {
			other[j] += d / 2
		}
		if err := same("Mean - Residual at one z, beside that at another with the same y,", s.statistic(y, other), here,
			1e-8); err != nil {
			return atRow(row, z, fmt.Errorf("%w; a likelihood whose residual is not E[T(y)] - T(y) is a "+
				"kfac.FactorFinder", err))
		}
		f, mean := s.matrix(z), make([]float64, n)
		for i := range n {
			slope := make([]float64, n)
			for j := range n {
				slope[j] = derivative(func() float64 {
					s.Mean(mean, z, n)
					return mean[i]
				}, z, j)
			}
			if err := same(fmt.Sprintf("the slope of Mean in column %d, beside the Fisher matrix,", i),
				slope, f[i*n:(i+1)*n], 1e-6); err != nil {
				return atRow(row, z, err)
			}
		}
		return nil
	})
}

// statistic is T(y), found at z.
func (s subject) statistic(y, z []float64) []float64 {
	t, r := make([]float64, len(z)), make([]float64, len(z))
	s.Mean(t, z, s.cols)
	s.Residual(r, y, z, s.cols)
	for j := range t {
		t[j] -= r[j]
	}
	return t
}

// factors: they are what gradients were multiplied with.
func (s subject) factors() error {
	if f, ok := s.Likelihood.(kfac.Fitter); ok {
		return s.fits(f)
	}
	f, ok := s.Likelihood.(kfac.FactorFinder)
	if !ok {
		return nil
	}
	return s.eachRow(func(row int, z []float64) error {
		y, r, c := s.sample(z, 7), make([]float64, s.cols), make([]float64, s.cols)
		for _, factor := range []float64{0.01, 1, 30} {
			s.Residual(r, y, z, s.cols)
			for j := range r {
				r[j] *= factor
			}
			f.Factors(c, r, z, s.cols)
			for j, cj := range c {
				if cj != 0 && !(math.Abs(cj-factor) <= 1e-6*factor) {
					const wrong = "in column %d a factor of %g is found of %g times a residual"
					return atRow(row, z, fmt.Errorf(wrong, j, cj, factor))
				}
			}
			if !slices.ContainsFunc(c, func(cj float64) bool { return cj != 0 }) {
				return atRow(row, z, fmt.Errorf("no factor is found in %v", r))
			}
		}
		clear(r)
		f.Factors(c, r, z, s.cols)
		return nil
	})
}

// fits: what gradients were multiplied with is found at some opposite points, with targets that
// have these gradients elsewhere too.
func (s subject) fits(f kfac.Fitter) (err error) {
	n := len(s.z)
	y, c, found := s.sample(s.z, 7), make([]float64, n), make([]float64, n)
	r, want := make([]float64, n), make([]float64, n)
	var z, grad [2][]float64
	for k := range z {
		z[k], grad[k] = make([]float64, n), make([]float64, n)
	}
	for _, factor := range []float64{0.01, 1, 30} {
		for spread := 1.0; spread < 1e9; spread *= 20 {
			for k := range z {
				for j := range z[k] {
					z[k][j] = spread * float64(2*k-1)
				}
				s.Residual(grad[k], y, z[k], s.cols)
				for j := range grad[k] {
					grad[k][j] *= factor
				}
			}
			f.Fit(c, found, grad, z, s.cols)
			if err = same("a factor that Fit finds", c, slices.Repeat([]float64{factor}, n), 1e-6*factor); err != nil {
				continue
			}
			s.Residual(r, found, s.z, s.cols)
			s.Residual(want, y, s.z, s.cols)
			if err = same("Residual of what Fit finds", r, want, 1e-6); err == nil {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("%w, at the farthest points tried", err)
		}
	}
	clear(grad[0])
	clear(grad[1])
	f.Fit(c, found, grad, z, s.cols)
	return same("a factor that Fit finds where there is no gradient", c, make([]float64, n), 0)
}

// variables: there is one at least; those that are discrete have T(y) in [0, 1].
func (s subject) variables() error {
	if c, ok := s.Likelihood.(kfac.VariableCounter); ok && c.Variables(s.cols) < 1 {
		return fmt.Errorf("it has %d variables by Variables(%d), where there is one at least", c.Variables(s.cols),
			s.cols)
	}
	if d, ok := s.Likelihood.(kfac.DiscreteLikelihood); !ok || !d.Discrete() {
		return nil
	}
	if s.findsFactors() {
		return errors.New("a likelihood that is discrete has the residual E[T(y)] - T(y), so no Factors are needed")
	}
	y := s.sample(s.z, 8)
	for _, t := range s.statistic(y, s.z) {
		if !(t > -1e-9 && t < 1+1e-9) {
			return fmt.Errorf("it is discrete, but T(y) = Mean - Residual is %g, and not in [0, 1]", t)
		}
	}
	if nll := s.NegLogLikelihood(y, s.z, s.cols); nll < 0 {
		return fmt.Errorf("it is discrete, but NegLogLikelihood is %g, and not at least 0", nll)
	}
	return nil
}

// targets: samples are possible, residuals come from the targets that they imply, and NaN is none.
func (s subject) targets() error {
	c, ok := s.Likelihood.(kfac.TargetChecker)
	if !ok {
		return nil
	}
	y, r, again := s.sample(s.z, 9), make([]float64, len(s.z)), make([]float64, len(s.z))
	if err := c.CheckTarget(y, s.cols, 1e-9); err != nil {
		return fmt.Errorf("a sample is no target: %w", err)
	}
	s.Residual(r, y, s.z, s.cols)
	implied := slices.Clone(r)
	c.ImpliedTarget(implied, r, s.z, s.cols)
	if err := c.CheckTarget(implied, s.cols, 1e-9); err != nil {
		return fmt.Errorf("an implied target is no target: %w", err)
	}
	s.Residual(again, implied, s.z, s.cols)
	if err := same("Residual of what ImpliedTarget finds", again, r, 1e-6); err != nil {
		return err
	}
	y[0] = math.NaN()
	if c.CheckTarget(y, s.cols, 1e-9) == nil {
		return errors.New("the target NaN is taken by CheckTarget")
	}
	return nil
}

// large: outputs that are far off make no NaN.
func (s subject) large() error {
	z := slices.Clone(s.z)
	for i, v := range z {
		z[i] = 1000 * v
	}
	y, v := s.sample(z, 1), normals(len(z), 2)
	for _, r := range s.results(y, v, z) {
		if slices.ContainsFunc(r.values, math.IsNaN) {
			return fmt.Errorf("at z = %[2]v %[1]s has a NaN: %[3]v", r.method, z, r.values)
		}
	}
	if nll := s.NegLogLikelihood(y, z, s.cols); math.IsNaN(nll) {
		return fmt.Errorf("at z = %v, y = %v NegLogLikelihood is NaN", z, y)
	}
	return nil
}

// allocations: there are none.
func (s subject) allocations() error {
	y, v, dst, rng := make([]float64, len(s.z)), normals(len(s.z), 2), make([]float64, len(s.z)), source(1)
	for _, call := range []struct {
		method string
		f      func()
	}{
		{"Sample", func() { s.Sample(y, s.z, s.cols, rng) }},
		{"Mean", func() {
			if !s.findsFactors() {
				s.Mean(dst, s.z, s.cols)
			}
		}},
		{"Residual", func() { s.Residual(dst, y, s.z, s.cols) }},
		{"FisherProduct", func() { s.FisherProduct(dst, v, s.z, s.cols) }},
		{"NegLogLikelihood", func() { s.NegLogLikelihood(y, s.z, s.cols) }},
	} {
		if n := testing.AllocsPerRun(10, call.f); n > 0 {
			return fmt.Errorf("%s allocates %g times a call", call.method, n)
		}
	}
	return nil
}

// derivative is the central difference of fourth order of f with respect to x[i].
func derivative(f func() float64, x []float64, i int) float64 {
	at, steps := x[i], [4]float64{}
	h := 1e-5 * math.Max(1, math.Abs(at))
	for k, d := range [4]float64{h, -h, 2 * h, -2 * h} {
		x[i] = at + d
		steps[k] = f()
	}
	x[i] = at
	return (8*(steps[0]-steps[1]) - (steps[2] - steps[3])) / (12 * h)
}

// same returns an error unless two results are the same, relative to the largest number.
func same(what string, got, want []float64, tolerance float64) error {
	size := 1.0
	for _, w := range want {
		size = math.Max(size, math.Abs(w))
	}
	for i := range got {
		if !(math.Abs(got[i]-want[i]) <= tolerance*size) {
			return fmt.Errorf("%s is %.10g at %d, want %.10g\ngot  %v\nwant %v", what, got[i], i, want[i], got, want)
		}
	}
	return nil
}

// atRow says where an error was found.
func atRow(row int, z []float64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("at row %d, z = %v: %w", row, z, err)
}
