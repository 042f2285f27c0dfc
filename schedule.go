package kfac

import (
	"math"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// GrowingBatch is a mini-batch that grows exponentially, m_k = First exp((k-1)/b), until at update FullAt it is the whole training set (Martens &
// Grosse 2015, section 13: First 1000, FullAt 500). Small batches serve at the start, where any gradient does; later only large ones tell the
// direction. Solver.Accumulate runs batches that are larger than the graph's.
type GrowingBatch struct {
	First  int // cases of the first update
	All    int // cases of the training set
	FullAt int // the update, from 1, from which on the batch is the training set
}

// Size is the number of cases for update k, from 1, rounded down. It is between 1 and All, whatever the fields are.
func (g GrowingBatch) Size(k int) int {
	if k >= g.FullAt || g.First >= g.All {
		return max(g.All, 1)
	}
	grown := float64(g.First) * math.Pow(float64(g.All)/float64(g.First), float64(k-1)/float64(g.FullAt-1))
	return max(min(int(grown+1e-9), g.All), 1)
}

// Chunks is the number of chunks of the given size that come nearest to Size(k), at least 1.
func (g GrowingBatch) Chunks(k, size int) int {
	return max(int(math.Round(float64(g.Size(k))/float64(max(size, 1)))), 1)
}

// average takes the weights into the iterate average (Martens & Grosse 2015, section 8): mean = xi_k mean + (1 - xi_k) theta with
// xi_k = min(1 - 1/k, xi), the plain mean of the first iterates at first. It covers every parameter that was ever in a step's list.
func (c *conductor[T]) average() {
	for _, p := range c.order {
		if !p.given && p.averages == 0 || !p.given && p.readWeights(false) != nil {
			continue // never trained; or its weights are gone, so that the average stays
		}
		if p.mean == nil {
			p.mean = make([]T, len(p.grad))
		}
		p.averages++
		xi := T(decay(p.averages, c.cfg.averaging))
		linalg.Scale(xi, p.mean)
		linalg.Axpy(1-xi, p.store.data, p.mean)
	}
}

// useAverage exchanges the weights with their averages; see Solver.UseAverage.
func (c *conductor[T]) useAverage() (restore func(), err error) {
	begun := slices.ContainsFunc(c.order, func(p *parameter[T]) bool { return p.averages > 0 })
	switch {
	case c.cfg.averaging == 0:
		return nil, &ConfigError{"UseAverage", "no WithIterateAveraging", "that option, without which there is no average"}
	case !begun:
		return nil, &ConfigError{"UseAverage", "no average yet", "a step from the one on that WithIterateAveraging names"}
	case c.averaged:
		return nil, &ConfigError{"UseAverage", "a second call", "a call of the function that the first returned, before"}
	}
	weights := map[*parameter[T]][]T{}
	for _, p := range c.order {
		if p.averages == 0 {
			continue
		}
		if err := p.readWeights(false); err != nil {
			return nil, err
		}
		weights[p] = slices.Clone(p.store.data)
	}
	for p := range weights {
		p.put(p.mean)
	}
	c.averaged = true
	done := false
	return func() {
		if done {
			return
		}
		done, c.averaged = true, false
		for p, w := range weights {
			p.put(w)
		}
	}, nil
}

// put writes the weights where they were read from.
func (p *parameter[T]) put(data []T) {
	copy(p.store.data, data)
	if p.store.store != nil {
		p.store.store()
	}
}
