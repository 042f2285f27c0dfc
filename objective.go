package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// objective evaluates h, the user's cost in the solver's units with the L2 term added, on the whole batch, at parameters other than
// the user's too.
type objective[T program.Float] struct {
	program *program.Program // of the cost
	run     *program.Run[T]
	seed    uint64
}

// at is h with the parameters that are given replaced by what pick returns; nil leaves the user's.
func (h *objective[T]) at(params []*parameter[T], scale float64, eta float64, pick func(*parameter[T]) []T) (float64, error) {
	if h.run == nil {
		run, err := program.NewRun[T](h.program, h.seed)
		if err != nil {
			return 0, graphError(err)
		}
		h.run = run
	}
	var squares float64
	for _, p := range params {
		leaf := h.program.Node(p.src)
		if leaf == nil || !p.given {
			continue
		}
		data := p.store.data
		if pick != nil {
			data = pick(p)
		}
		squares += linalg.Dot64(data, data)
		if err := h.run.Bind(leaf, data); err != nil {
			return 0, graphError(err)
		}
		defer h.run.Bind(leaf, nil)
	}
	h.run.Reseed(h.seed) // the same masks at every point
	if err := h.run.Forward(nil); err != nil {
		return 0, graphError(err)
	}
	cost := float64(h.run.Value(h.program.Outputs[0]).Data[0])
	if math.IsInf(cost, 0) {
		cost = math.NaN()
	}
	return cost/scale + eta/2*squares, nil
}

// scaleOfMean turns the user's cost into the mean over cases of the negative log-likelihood, by division.
func (c *conductor[T]) scaleOfMean() float64 { return c.scale * float64(c.model.Cases) }
