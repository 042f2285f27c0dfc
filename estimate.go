package kfac

import (
	"math"
	"math/rand/v2"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A sampler chooses cases and sweeps gradients back from the outputs, whose second moments are an
// estimate of the Fisher matrix. By default they are those of targets that are sampled from the
// predictions of the solver's own program (Martens & Grosse 2015, sections 5 and 8).
type sampler[T program.Float] struct {
	estimate FisherEstimate
	samples  int

	seeds []program.Seed[T]
	perm  []int

	factor likelihood.Factor
	v      []float64 // that B is multiplied with
	signs  []float64 // by case, or nil for none

	// The random parts, which a test can replace: choose selects the cases, and draw writes sampled
	// targets into o.y.
	choose func(p *program.Program, fraction float64, atLeast int, rng *rand.Rand) []int
	draw   func(o *output, rng *rand.Rand)
}

func newSampler[T program.Float](cfg *config) *sampler[T] {
	s := &sampler[T]{estimate: cfg.estimate, samples: cfg.samples}
	s.choose = s.randomCases
	s.draw = func(o *output, rng *rand.Rand) { o.Sample(o.y, o.z, o.cols, rng) }
	return s
}

// forget drops the references to the graph that was sampled from.
func (s *sampler[T]) forget() {
	for i := range s.seeds {
		s.seeds[i].Node = nil
	}
}

// partOf returns the number of cases for a fraction of the batch, but at least atLeast. It may
// exceed cases.
func partOf(cases int, fraction float64, atLeast int) int {
	return max(int(math.Ceil(fraction*float64(cases))), atLeast)
}

// cases chooses among the cases that count.
func (s *sampler[T]) cases(p *program.Program, w *weighting, fraction float64, atLeast int, rng *rand.Rand) []int {
	if w.cases == nil || p.Whole != "" {
		return s.choose(p, fraction, atLeast, rng)
	}
	s.perm = append(s.perm[:0], w.cases...)
	n := min(partOf(len(s.perm), fraction, atLeast), len(s.perm))
	shuffle(s.perm, n, rng)
	return s.perm[:n]
}

// some chooses a fraction of the cases of all ranks, and least of them, and returns those of a
// chunk, or nil for all. purpose tells the choices of a chunk apart.
func (s *sampler[T]) some(k *chunk[T], fraction float64, least, purpose int, rng *rand.Rand) []int {
	p, w := k.plan.model.Program, &k.weighting
	if k.shard == nil {
		return s.cases(p, w, fraction, least, rng)
	}
	part := partOf(k.shard.cases, fraction, least)
	switch {
	case p.Whole != "":
		return nil
	case part >= k.shard.cases:
		return w.cases
	}
	s.perm = k.shard.choose(part, purpose, k.cases, s.perm)
	if w.cases != nil {
		for i, n := range s.perm {
			s.perm[i] = w.cases[n]
		}
	}
	return s.perm
}

// randomCases draws a random subset of the cases: the given fraction of the batch, but at least
// atLeast cases. It returns nil for the whole batch.
func (s *sampler[T]) randomCases(p *program.Program, fraction float64, atLeast int, rng *rand.Rand) []int {
	n := partOf(p.Cases, fraction, atLeast)
	if n >= p.Cases || p.Whole != "" {
		return nil
	}
	if len(s.perm) != p.Cases {
		s.perm = make([]int, p.Cases)
	}
	for i := range s.perm {
		s.perm[i] = i
	}
	shuffle(s.perm, n, rng)
	return s.perm[:n]
}

// sweeps returns the number of backward sweeps whose second moments add up to the estimate.
func (s *sampler[T]) sweeps(m *model[T]) (n int) {
	switch s.estimate {
	case EmpiricalFisher:
		return 1
	case ExactFisher:
		for _, o := range m.outputs {
			n += o.perCase()
		}
		return n
	}
	return s.samples
}

// sweep does one of the sweeps, from the last forward pass of the model. The gradients are those of
// each case's negative log-likelihood, summed where cases meet, not averaged. They are multiplied
// by the square root of the weight in the objective. path leads from the observed nodes to the
// outputs, and rows are the cases of the run, or nil for all.
func (s *sampler[T]) sweep(number int, g *graph[T], m *model[T], path program.Path, u *units, rows []int,
	by draws) error {
	first, last := 0, len(m.outputs)
	switch s.estimate {
	case ExactFisher: // the column of one output
		for number >= m.outputs[first].perCase() {
			number -= m.outputs[first].perCase()
			first++
		}
		last = first + 1
	case EmpiricalFisher:
		if err := g.residuals(m, u, rows); err != nil {
			return err
		}
	}
	s.signs = s.drawSigns(m, by)
	for len(s.seeds) < len(m.outputs) {
		s.seeds = append(s.seeds, program.Seed[T]{})
	}
	for i, o := range m.outputs[first:last] {
		if !o.byCost {
			s.gradient(o, first+i, number, by)
		} else if first+i == m.hessian.heads[0] {
			s.drawByCost(m, by)
		}
		s.seed(&s.seeds[i], m, first+i, u, rows, by.of)
	}
	return graphError(m.run.Reverse(s.seeds[:last-first], path))
}

// gradient writes a gradient at output o to o.y, whose second moment is F_R in expectation. number
// is that of the output.
func (s *sampler[T]) gradient(o *output, number, column int, by draws) {
	switch s.estimate {
	case SampledFisher:
		by.each(number, len(o.z), o.perCase(), func(from, to int, rng *rand.Rand) {
			part := *o
			part.z, part.y = o.z[from:to], o.y[from:to]
			s.draw(&part, rng)
		})
		o.Residual(o.y, o.y, o.z, o.cols)
	case ExactFisher:
		s.v = zeros(s.v, len(o.z))
		for i := column; i < len(s.v); i += o.perCase() {
			s.v[i] = 1
		}
		s.factor.Product(o, o.y, s.v, o.z, o.cols)
	case CurvaturePropagation:
		s.v = linalg.Resized(s.v, len(o.z))
		by.each(number, len(s.v), o.perCase(), func(from, to int, rng *rand.Rand) { randomSigns(s.v[from:to], rng) })
		s.factor.Product(o, o.y, s.v, o.z, o.cols)
	}
}

// drawByCost writes gradients of the second moment of the hessian to the outputs that are declared
// by the cost.
func (s *sampler[T]) drawByCost(m *model[T], by draws) {
	if s.estimate == EmpiricalFisher { // these are there
		return
	}
	h := m.hessian
	h.draw(func(i int) []float64 { return m.outputs[i].y }, func(x []float64) {
		by.each(h.heads[0], len(x), h.perCase, func(from, to int, rng *rand.Rand) {
			if s.estimate == CurvaturePropagation {
				randomSigns(x[from:to], rng)
				return
			}
			for i := range x[from:to] {
				x[from+i] = rng.NormFloat64()
			}
		})
	})
}

// seed makes the gradient at output i a seed.
func (s *sampler[T]) seed(seed *program.Seed[T], m *model[T], i int, u *units, rows []int, of *shard) {
	o := m.outputs[i]
	seed.Node, seed.Data = o.node, linalg.Resized(seed.Data, len(o.y))
	// Then the second moments are multiplied by the weight, and means over the cases that count.
	root := math.Sqrt(u.weights[i])
	if rows == nil && (of == nil || m.Whole != "" && m.Cases > 1) {
		all, count := m.Cases, u.count(m.Cases)
		if of != nil {
			all, count = of.run, of.cases
		}
		root *= math.Sqrt(float64(all) / float64(count))
	}
	root /= math.Sqrt(float64(s.samples))
	u.each(i, rows, o.perCase(), func(j int, w float64) { o.y[j] *= math.Sqrt(w) })
	for j, r := range o.y {
		seed.Data[j] = T(root * r)
	}
	for n, sign := range s.signs {
		if sign < 0 {
			linalg.Scale(-1, seed.Data[n*o.perCase():(n+1)*o.perCase()])
		}
	}
}

// drawSigns draws a sign for each case, where the gradients of the cases are not independent with
// mean zero by themselves. A case's own second moments do not change. But what several cases have
// added to, as the gradient of a parameter, then has the right second moment in expectation
// (Martens & Grosse 2015, lemma 4).
func (s *sampler[T]) drawSigns(m *model[T], by draws) []float64 {
	if s.estimate == SampledFisher || s.estimate == CurvaturePropagation {
		return nil
	}
	signs := linalg.Resized(s.signs, m.run.Cases())
	by.each(forSigns, len(signs), 1, func(from, to int, rng *rand.Rand) { randomSigns(signs[from:to], rng) })
	return signs
}

// draws are the random numbers of a sweep: from a generator, or, on ranks, by the index of each
// case among those of all of them.
type draws struct {
	rng   *rand.Rand
	of    *shard // nil where there are no ranks
	sweep int
	rows  []int // the cases, or nil for all
}

// Numbers of no output: for the signs of cases, and for the choices of cases.
const (
	forSigns = -1 - iota
	forStatistics
	forModel
)

// each calls f for all elements of an output at once, or for the n of each case.
func (d *draws) each(output, elements, n int, f func(from, to int, rng *rand.Rand)) {
	if d.of == nil {
		f(0, elements, d.rng)
		return
	}
	var source rand.PCG
	rng := rand.New(&source)
	for i := range elements / n {
		row := i
		if d.rows != nil {
			row = d.rows[i]
		}
		d.of.random(&source, d.sweep, output, row)
		f(i*n, (i+1)*n, rng)
	}
}

func randomSigns(v []float64, rng *rand.Rand) {
	for i := range v {
		v[i] = float64(2*rng.IntN(2) - 1)
	}
}

// residuals writes to each o.y the gradient of the negative log-likelihood of the data's targets,
// from the gradient of the cost. rows are the cases of the model's run, or nil for all.
func (g *graph[T]) residuals(m *model[T], u *units, rows []int) error {
	if err := g.tail.sweepFrom(m, rows); err != nil {
		return err
	}
	for i, o := range m.outputs {
		linalg.Convert(o.y, g.tail.of(i, rows, o.perCase()))
		scale := 0.0
		if u.scales[i] > 0 {
			scale = 1 / u.scales[i]
		}
		for j := range o.y {
			o.y[j] *= scale
		}
		u.each(i, rows, o.perCase(), func(j int, w float64) {
			if w > 0 {
				o.y[j] /= w
			}
		})
	}
	return nil
}
