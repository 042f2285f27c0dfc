package kfac

import (
	"math"
	"math/rand/v2"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// sampler chooses cases, samples targets from the predictions of the solver's own program for them,
// and sweeps their gradients back (Martens & Grosse 2015, sections 5 and 8).
type sampler[T program.Float] struct {
	seeds []program.Seed[T]
	perm  []int

	// The random parts, which a test can replace: choose selects the cases, and draw writes sampled
	// targets into o.y.
	choose func(p *program.Program, fraction float64, atLeast int, rng *rand.Rand) []int
	draw   func(o *output, rng *rand.Rand)
}

func newSampler[T program.Float]() *sampler[T] {
	s := &sampler[T]{}
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

// sample draws targets with rng for the last forward pass of the model, and sweeps back from them.
// The gradients are those of each case's negative log-likelihood, summed where cases meet, not
// averaged. They are multiplied by the square root of the weight in the objective. path leads from
// the observed nodes to the outputs, and rows are the cases of the run, or nil for all.
func (s *sampler[T]) sample(m *model[T], path program.Path, u *units, rows []int, rng *rand.Rand) error {
	for len(s.seeds) < len(m.outputs) {
		s.seeds = append(s.seeds, program.Seed[T]{})
	}
	seeds := s.seeds[:len(m.outputs)]
	for i, o := range m.outputs {
		s.draw(o, rng)
		o.Residual(o.y, o.y, o.z, o.cols)
		seed := &seeds[i]
		seed.Node, seed.Data = o.node, linalg.Resized(seed.Data, len(o.y))
		root := math.Sqrt(u.weights[i]) // then the second moments are multiplied by the weight
		if rows == nil {                // and are means over the cases that count
			root *= math.Sqrt(float64(m.Cases) / float64(u.count(m.Cases)))
		}
		u.each(i, rows, o.perCase(), func(j int, w float64) { o.y[j] *= math.Sqrt(w) })
		for j, r := range o.y {
			seed.Data[j] = T(root * r)
		}
	}
	return graphError(m.run.Reverse(seeds, path))
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

// shuffle puts a random choice of n elements in front.
func shuffle(x []int, n int, rng *rand.Rand) {
	for i := range min(n, len(x)-1) {
		j := i + rng.IntN(len(x)-i)
		x[i], x[j] = x[j], x[i]
	}
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

// leastStatistics returns the smallest number of cases for the factors, for a batch with the given
// number of cases. If the quadratic model uses the whole batch and the batch is not large, the
// factors use the whole batch too. One forward pass then serves both.
func leastStatistics(cfg *config, cases int) int {
	const least = 128
	modelWhole := cfg.learningRate == 0 && partOf(cases, cfg.modelFraction, cfg.minModelCases) >= cases
	switch {
	case cfg.minStatsCases > 0:
		return cfg.minStatsCases
	case modelWhole && cases <= 2*least:
		return cases
	}
	return least
}

// settle finds the coordinates of blocks that are new from the run of the model; see
// layerHook.settle.
func (p *planned[T]) settle(units []float64) {
	for _, h := range p.hooks {
		if h, ok := h.(*layerHook[T]); ok {
			h.settle(p.model.run, units)
		}
	}
}

// keepCoordinates makes the coordinates of all blocks final.
func (p *planned[T]) keepCoordinates() {
	for _, b := range p.blocks {
		for _, g := range b.groups {
			if g.coords != nil {
				g.coords.settled = true
			}
		}
	}
}

// observe gives each block its rows of a run.
func observe[T program.Float](p *planned[T]) error {
	for i, b := range p.blocks {
		if h := p.hooks[i]; h != nil {
			if err := b.Observe(h.capture(p.model.run, b.rows)); err != nil {
				return b.layerError(err)
			}
		}
	}
	return nil
}

// averages holds the new running averages of an update, by block. An element is nil if the step
// does not need it.
type averages[T program.Float] []*curvature.Averages[T]

// newAverages computes the averages of all blocks if all, and otherwise only of the Immediate
// blocks, which need them at every step.
func newAverages[T program.Float](blocks []*block[T], ema float64, all bool) (averages[T], error) {
	next := make(averages[T], len(blocks))
	for i, b := range blocks {
		if !all && !b.Immediate() {
			continue
		}
		var err error
		if next[i], err = b.Average(ema); err != nil {
			next.release(blocks)
			return nil, b.layerError(err)
		}
	}
	return next, nil
}

// release gives back averages that are not kept.
func (a averages[T]) release(blocks []*block[T]) {
	for i, avg := range a {
		if avg != nil {
			blocks[i].Release(avg)
			a[i] = nil
		}
	}
}

// keep makes the averages current. It updates blocks without new averages in place. It returns the
// number of blocks whose averages have restarted.
func (a averages[T]) keep(blocks []*block[T], ema float64) (restarted int) {
	for i, b := range blocks {
		again := false
		if a[i] != nil {
			again = a[i].Restarted
			b.Keep(a[i])
			a[i] = nil
		} else {
			again = b.Update(ema)
		}
		if again {
			restarted++
		}
	}
	return restarted
}

// meanCurvature returns the mean eigenvalue of the approximate Fisher matrix: its trace divided by
// the number of parameter elements. It returns 1 if that is not positive and finite.
func (a averages[T]) meanCurvature(blocks []*block[T], params []*parameter[T]) float64 {
	var trace float64
	for i, b := range blocks {
		trace += b.Trace(a[i])
	}
	if mean := trace / weightsGiven(params); mean > 0 && !math.IsInf(mean, 0) {
		return mean
	}
	return 1
}

// weightsGiven returns the number of weights of the parameters that were given.
func weightsGiven[T program.Float](params []*parameter[T]) (n float64) {
	for _, p := range params {
		if p.given {
			n += float64(p.size())
		}
	}
	return n
}
