package kfac

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A cost with Dropout or random nodes is another function at each draw. The runs that a step is
// made from have to draw the same numbers: else the quadratic model is not that of the gradient.
// The numbers are the VM's where they can be had. Where not, the private runs draw their own, and
// the gradient is theirs too. The objective then draws others; see costAt.

// draw draws numbers for the private runs, into g.drawn: those that the VM has drawn where they can
// be had, which it reports, or others. The run of the cost then holds its forward pass with them.
func (g *graph[T]) draw(seed uint64) (shared bool, err error) {
	run, err := g.costs()
	if err != nil {
		return false, graphError(err)
	}
	conditions[T]{seed: seed}.set(run)
	err = run.Adopt()
	shared = err == nil && (!g.drawsInputs() || !otherCost[T](costValue(g.cost), g.costOf(run)))
	if err != nil && !errors.Is(err, program.ErrOtherDraws) {
		return false, graphError(err)
	}
	if !shared {
		run.Reseed(seed)
		if err := run.Forward(nil); err != nil {
			return false, graphError(err)
		}
	}
	g.drawn.KeepDrawn(run)
	return shared, nil
}

// drawsInputs reports whether there are random nodes, of which only the cost tells whether their
// numbers are still there.
func (g *graph[T]) drawsInputs() bool {
	return slices.ContainsFunc(g.whole.Nodes, func(n *program.Node) bool {
		_, ok := n.Op.(program.Random)
		return ok
	})
}

// ownGradients gives the parameters the gradients of the forward pass that the run of the cost
// holds. wrong is a node whose gradient the VM gets wrong, or nil.
func (g *graph[T]) ownGradients(p *planned[T], wrong *program.Node) error {
	c := newComparison(g, p)
	if err := g.whole.CheckDifferentiable(c.path); err != nil {
		if wrong == nil {
			return nil // only the VM can differentiate it
		}
		return &GraphError{Node: wrong.Name(), What: "differentiating Dropout", Err: ErrGradient,
			Hint: fmt.Sprintf("Gorgonia v0.9.18's gradient is wrong unless p is 0.5, and the solver can't compute it "+
				"again (%v): give the mask as an input, by HadamardProd", err)}
	}
	if err := c.sweep(); err != nil {
		return err
	}
	for i, n := range c.leaves {
		grad := c.run.Gradient(n)
		if !linalg.Finite(grad) {
			return &ParamError{Param: n.Name(), Op: "computing its gradient again", Err: ErrNotFinite,
				Hint: "did the input, the targets or the weights change after RunAll?"}
		}
		copy(c.params[i].grad, grad)
	}
	return nil
}
