package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

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
func (p *planned[T]) settle(units []float64, on *ranks) {
	for _, h := range p.hooks {
		if h, ok := h.(*layerHook[T]); ok {
			h.settle(p.model.run, units, on)
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

// observe gives each block its rows of a run, or, again, those of another backward sweep of it.
func observe[T program.Float](p *planned[T], again bool) error {
	for i, b := range p.blocks {
		if h := p.hooks[i]; h != nil {
			rows := h.capture(p.model.run, b.rows)
			for k := range rows {
				rows[k].Again = again
			}
			if err := b.Observe(rows); err != nil {
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
// the number of parameter elements, each counted with its factor on lambda. It returns 1 if that is
// not positive and finite.
func (a averages[T]) meanCurvature(blocks []*block[T], params []*parameter[T]) float64 {
	var trace float64
	for i, b := range blocks {
		trace += b.Trace(a[i])
	}
	var damped float64 // so that lambda counts in what it is multiplied by
	for _, p := range params {
		if p.given {
			damped += p.own.lambda * float64(p.size())
		}
	}
	if mean := trace / damped; mean > 0 && !math.IsInf(mean, 0) {
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
