package kfac

import (
	"math"
	"math/rand/v2"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// sampler runs the model privately on some cases and sweeps the gradients of targets sampled from
// its own predictions back (Martens & Grosse 2015, sections 5 and 8).
type sampler[T program.Float] struct {
	seeds []program.Seed[T]
	perm  []int

	// What is random, so that a test can put something else in its place: the choice of cases, and
	// the drawing of targets into o.y.
	choose func(p *program.Program, fraction float64, atLeast int, rng *rand.Rand) []int
	draw   func(o *output, rng *rand.Rand)
}

func newSampler[T program.Float]() *sampler[T] {
	s := &sampler[T]{}
	s.choose = s.randomCases
	s.draw = func(o *output, rng *rand.Rand) { o.Sample(o.y, o.z, o.cols, rng) }
	return s
}

// forget lets go of the graph that was sampled from.
func (s *sampler[T]) forget() {
	for i := range s.seeds {
		s.seeds[i].Node = nil
	}
}

// A sample is what sampling has drawn.
type sample struct {
	seed uint64 // of what Dropout and random nodes draw
	all  bool   // the run holds the forward pass of the whole batch
}

// sample draws the cases and the targets with rng, and runs both passes. The gradients are those of
// the cases' own negative log-likelihoods, each output's times its weight in the objective, summed
// where cases meet, not averaged. path goes from the nodes that are observed to the outputs.
func (s *sampler[T]) sample(m *model[T], path program.Path, weights []float64, fraction float64, atLeast int,
	rng *rand.Rand) (sample, error) {
	drawn := sample{seed: rng.Uint64()}
	rows := s.choose(m.Program, fraction, atLeast, rng)
	if err := m.forward(nil, drawn.seed, rows); err != nil {
		return drawn, err
	}
	for len(s.seeds) < len(m.outputs) {
		s.seeds = append(s.seeds, program.Seed[T]{})
	}
	seeds := s.seeds[:len(m.outputs)]
	for i, o := range m.outputs {
		s.draw(o, rng)
		o.Residual(o.y, o.y, o.z, o.cols)
		seed := &seeds[i]
		seed.Node, seed.Data = o.node, linalg.Resized(seed.Data, len(o.y))
		root := math.Sqrt(weights[i]) // so that weight multiplies the second moments
		for j, r := range o.y {
			seed.Data[j] = T(root * r)
		}
	}
	if err := m.run.Reverse(seeds, path); err != nil {
		return drawn, graphError(err)
	}
	drawn.all = rows == nil
	return drawn, nil
}

// partOf is the number of cases that a fraction of the batch stands for, if it is not to be less
// than atLeast. It may be more than there are.
func partOf(cases int, fraction float64, atLeast int) int {
	return max(int(math.Ceil(fraction*float64(cases))), atLeast)
}

// randomCases draws a random subset of the cases: the fraction of the batch, but no fewer than
// atLeast. nil is the whole batch.
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
	for i := range n {
		j := i + rng.IntN(p.Cases-i)
		s.perm[i], s.perm[j] = s.perm[j], s.perm[i]
	}
	return s.perm[:n]
}

// leastStatistics is the least number of cases for the factors, of a batch of so many. A batch that
// the quadratic model takes whole serves whole here too, if it is not large: one forward pass is
// for both then.
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

// observe takes the rows of each block out of a run.
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

// averages are those that an update makes, by block; nil where nothing in the step needs them.
type averages[T program.Float] []*curvature.Averages[T]

// newAverages computes the averages of all blocks, or only of those that need some at every step.
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

// release lets go of averages that are not kept.
func (a averages[T]) release(blocks []*block[T]) {
	for i, avg := range a {
		if avg != nil {
			blocks[i].Release(avg)
			a[i] = nil
		}
	}
}

// keep makes the averages the current ones, and brings the others up to date. It returns the number
// of blocks whose averages have started anew.
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

// meanCurvature is the trace of the approximate Fisher matrix over the number of parameters: its
// mean eigenvalue. It is 1 if there is none.
func (a averages[T]) meanCurvature(blocks []*block[T], params []*parameter[T]) float64 {
	var trace, n float64
	for _, p := range params {
		if p.given {
			n += float64(p.size())
		}
	}
	for i, b := range blocks {
		trace += b.Trace(a[i])
	}
	if mean := trace / n; mean > 0 && !math.IsInf(mean, 0) {
		return mean
	}
	return 1
}
