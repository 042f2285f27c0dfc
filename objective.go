package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// objective evaluates h, the user's cost in the solver's units with the L2 term added, on the whole batch, at parameters other than
// the user's too.
type objective[T program.Float] struct {
	seed   uint64
	values [][]T // of the parameters at the present evaluation
}

// at is h on all cases of the chunks. pick gives a parameter's value, or nil for one that stays as the user has it and out of the L2 term.
func (h *objective[T]) at(chunks []chunk[T], params []*parameter[T], eta float64, pick func(*parameter[T]) []T) (float64, error) {
	h.values = h.values[:0]
	var squares float64
	for _, p := range params {
		data := pick(p)
		h.values = append(h.values, data)
		squares += linalg.Dot64(data, data)
	}
	var sum float64
	var cases int
	for i := range chunks {
		k := &chunks[i]
		cost, err := h.cost(k, params)
		if err != nil {
			return 0, graphError(err)
		}
		sum += cost / k.graph.scale
		cases += k.cases
	}
	if math.IsInf(sum, 0) {
		sum = math.NaN()
	}
	return sum/float64(cases) + eta/2*squares, nil
}

// cost is that of a chunk, in the user's units.
func (h *objective[T]) cost(k *chunk[T], params []*parameter[T]) (float64, error) {
	g := k.graph
	if g.costRun == nil {
		run, err := program.NewRun[T](g.whole, h.seed)
		if err != nil {
			return 0, err
		}
		g.costRun = run
	}
	for i, p := range params {
		leaf := g.whole.Node(g.places[p].src)
		if leaf == nil || h.values[i] == nil {
			continue
		}
		if err := g.costRun.Bind(leaf, h.values[i]); err != nil {
			return 0, err
		}
		defer g.costRun.Bind(leaf, nil)
	}
	g.costRun.Use(k.inputs)
	g.costRun.Reseed(h.seed) // the same masks at every point
	if err := g.costRun.Forward(nil); err != nil {
		return 0, err
	}
	return float64(g.costRun.Value(g.whole.Outputs[0]).Data[0]), nil
}

// present is the value of a parameter that was given, as it is.
func (p *parameter[T]) present() []T {
	if p.given {
		return p.store.data
	}
	return nil
}

// trial is its value after the proposed update. It overwrites dir.
func (p *parameter[T]) trial() []T {
	if p.given {
		parallel.For(len(p.dir), parallel.Grain, func(from, to int) {
			copy(p.dir[from:to], p.store.data[from:to])
			linalg.Axpy(1, p.next[from:to], p.dir[from:to])
		})
		return p.dir
	}
	return nil
}
