package kfac

import (
	"errors"
	"fmt"
	"math"

	"gorgonia.org/gorgonia"
)

// ZeroGradients zeroes the gradients of the parameters, so that the next RunAll starts anew. It is
// for going on after a Step that has returned an error, and after a batch that is not to count:
// with BindDualValues, and with a LispMachine, a RunAll adds to the gradients that are there.
// Gradients that the next RunAll computes anew stay as they are.
func ZeroGradients(params []gorgonia.ValueGrad) {
	for _, p := range params {
		if n, ok := p.(*gorgonia.Node); ok && n != nil {
			zeroGradient(n)
		}
	}
}

// WithSkipNotFinite leaves out a batch whose gradient has a NaN or an infinity in it: Step, or
// Accumulate for a chunk, zeroes the gradients, changes nothing else and returns no error. The
// training goes on as if that RunAll had not been; chunks accumulated before it count for the next
// Step. Stats tells how many were left out. After inRow of them, at least 1, one after the other,
// the next is an error, a *ParamError with ErrNotFinite. Weights that are not finite are always an
// error. Default: so is the gradient.
func WithSkipNotFinite(inRow int) Option {
	return number("WithSkipNotFinite", float64(inRow), inRow >= 1, "a number of batches >= 1",
		func(c *config) { c.skipInRow = inRow })
}

// skipped counts the RunAlls that were left out.
type skipped struct{ all, inRow int }

// errGradientNotFinite is the ErrNotFinite of a gradient that the user's VM has left.
var errGradientNotFinite = fmt.Errorf("%w", ErrNotFinite)

// skip leaves out the RunAll that a call has failed with, where that is asked for: then there is no
// error any more.
func (t *training[T]) skip(model []gorgonia.ValueGrad, err *error) (left bool) {
	var p *ParamError
	if t.cfg.skipInRow == 0 || !errors.As(*err, &p) || p.Err != errGradientNotFinite {
		return false
	}
	if t.skipped.inRow >= t.cfg.skipInRow {
		p.Op += fmt.Sprintf(" after %d batches in a row that were left out for it", t.skipped.inRow)
		return false
	}
	t.skipped.all++
	t.skipped.inRow++
	ZeroGradients(model)
	t.graph.machine.spend()
	*err = nil
	return true
}

// skippedStats are those of a step that was not made.
func (t *training[T]) skippedStats() Stats {
	nan := math.NaN()
	return Stats{Step: t.steps + 1, Skipped: true, SkippedBatches: t.skipped.all,
		Cost: costValue(t.graph.cost), Scale: nan, Damping: nan, Gamma: nan, LearningRate: nan, Momentum: nan,
		Shrink: nan, QuadModelChange: nan, Rho: nan, GradNorm: nan, PreconGradNorm: nan, KL: nan}
}
