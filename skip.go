package kfac

import (
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
