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

// at is h on all cases of the chunks. pick gives a parameter's value, or nil for one that stays as the user has it and out of the L2 term; scale
// is c.
func (h *objective[T]) at(chunks []chunk[T], params []*parameter[T], scale, eta float64, pick func(*parameter[T]) []T) (float64, error) {
	if h.run == nil {
		run, err := program.NewRun[T](h.program, h.seed)
		if err != nil {
			return 0, graphError(err)
		}
		h.run = run
	}
	var squares float64
	for _, p := range params {
		leaf, data := h.program.Node(p.src), pick(p)
		if leaf == nil || data == nil {
			continue
		}
		squares += linalg.Dot64(data, data)
		if err := h.run.Bind(leaf, data); err != nil {
			return 0, graphError(err)
		}
		defer h.run.Bind(leaf, nil)
	}
	var sum float64
	var cases int
	for _, k := range chunks {
		h.run.Use(k.inputs)
		h.run.Reseed(h.seed) // the same masks at every point
		if err := h.run.Forward(nil); err != nil {
			return 0, graphError(err)
		}
		sum += float64(h.run.Value(h.program.Outputs[0]).Data[0])
		cases += k.cases
	}
	if math.IsInf(sum, 0) {
		sum = math.NaN()
	}
	return sum/(scale*float64(cases)) + eta/2*squares, nil
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
		copy(p.dir, p.store.data)
		linalg.Axpy(1, p.next, p.dir)
		return p.dir
	}
	return nil
}
