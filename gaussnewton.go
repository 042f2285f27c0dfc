package kfac

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// GaussNewton declares outputs of a cost that is nobody's negative log-likelihood: Huber, hinge,
// quantile, focal, cosine and triplet losses, a root mean square, and so on. The curvature is that
// of the cost itself: its second derivatives with respect to the outputs take the place of the
// Fisher matrix (the generalised Gauss-Newton matrix, Schraudolph 2002; Martens 2014, section 6).
// They are computed from the graph between outputs and cost, however it is written, at each step,
// weights of cases and of targets included. Where the cost is a negative log-likelihood with
// natural parameters the two matrices are the same. The distribution is better declared there, for
// its curvature does not depend on the targets, and its loss check finds slips.
//
// The outputs are those that the cost is computed from: the model's last layers, before a softmax
// or a sigmoid. An output has a case in each row, or is a vector or scalar for one case. The cost
// is a mean or a sum over cases; a factor does not matter.
//
// Second derivatives between the outputs of one case count, and so do those between several
// outputs that are declared together. Those between cases, as a root mean square over the batch
// has, are left out. Negative eigenvalues of the matrix of a case count by their absolute value
// (Dauphin et al. 2014). The second derivative of Abs, Rectify, MaxBetween and MinBetween is zero
// almost everywhere; in cases where all are zero kinks count as rounded off, on both of their
// sides: |x| as bent by 1/s, with s the mean of |x| over the batch, as in the negative
// log-likelihood of a Laplace distribution of that scale. The plan says which of this was met.
//
// All cases of the batch are used. A case of more than 256 numbers has only the diagonal of its
// matrix, which is estimated. On the ranks of WithCommunicator the cost has to be a mean over cases
// unless all have as many; kinks are rounded off by the mean over a rank's own cases.
func GaussNewton(outputs ...*gorgonia.Node) Distribution {
	var all joint
	for _, n := range outputs {
		all = append(all, head{kind: "GaussNewton", node: n, problem: checkNode(n), Likelihood: noLikelihood{},
			ownUnit: true, byCost: true})
	}
	if len(all) == 0 {
		return joint{{kind: "GaussNewton", problem: errors.New("no output is given")}}
	}
	return all
}

// noLikelihood stands where there is none.
type noLikelihood struct{}

func (noLikelihood) Variables(cols int) int { return cols }

func (noLikelihood) Discrete() bool { return false }

func (noLikelihood) Mean(dst, _ []float64, _ int) { clear(dst) }

func (noLikelihood) Sample(y, _ []float64, _ int, _ *rand.Rand) { clear(y) }

func (noLikelihood) Residual(r, _, _ []float64, _ int) { clear(r) }

func (noLikelihood) FisherProduct(dst, _, _ []float64, _ int) { clear(dst) }

func (noLikelihood) NegLogLikelihood(_, _ []float64, _ int) float64 { return 0 }

func (noLikelihood) ImpliedTarget(y, _, _ []float64, _ int) { clear(y) }

func (noLikelihood) CheckTarget([]float64, int, float64) error { return nil }

// newHessian makes the hessian of the outputs of a model that are declared by the cost, or nil if
// there are none.
func newHessian[T program.Float](m *model[T], known blockForm) *hessian {
	h := &hessian{blockForm: known}
	for i, o := range m.outputs {
		if o.byCost {
			h.heads, h.offsets = append(h.heads, i), append(h.offsets, h.perCase)
			h.perCase += o.perCase()
		}
	}
	if h.heads == nil {
		return nil
	}
	if shape := m.outputs[h.heads[0]].node.Shape; len(h.heads) == 1 && len(shape) > 2 {
		h.rows = shape[len(shape)-1]
	}
	return h
}

// findHessian computes the hessian at the outputs of the model's run, of all cases, for the chunk
// of the update that has this number.
func (g *graph[T]) findHessian(m *model[T], chunk int, seed uint64) error {
	for len(g.hessians) <= chunk {
		g.hessians = append(g.hessians, newHessian(m, g.blockForm))
	}
	h := g.hessians[chunk]
	if m.hessian = h; h == nil {
		return nil
	}
	h.blockForm = g.blockForm
	if err := g.tail.sweepFrom(m, nil); err != nil {
		return err
	}
	n := 0
	for _, i := range h.heads {
		n += len(m.outputs[i].z)
	}
	h.grad = linalg.Resized(h.grad, n)
	h.gather(h.grad, func(i int) []float64 {
		linalg.Convert(m.outputs[i].y, g.tail.run.Gradient(g.tail.leaves[i]))
		return m.outputs[i].y
	})
	of := func(y, x []float64, rounded bool) error { return g.tail.curve(h, m.outputs, y, x, rounded) }
	if err := h.compute(of, rounding[T](), rand.New(rand.NewPCG(seed, 3))); err != nil {
		return err
	}
	if !linalg.Finite(h.blocks) {
		return &GraphError{Node: program.NameOf(g.cost), What: "computing its second derivatives", Err: ErrNotFinite,
			Hint: "is there a root, a norm or a logarithm of what is 0 for some case? Add a small number to it"}
	}
	scale := g.scales[h.heads[0]]
	floats.Scale(1/scale, h.blocks)
	floats.Scale(1/scale, h.grad)
	if err := h.makePositive(rounding[T]() / 100); err != nil {
		return &GraphError{Node: program.NameOf(g.cost), What: "finding the positive part of its second derivatives",
			Err: err, Hint: "look at the data and at the model's outputs"}
	}
	g.blockForm = h.blockForm
	return nil
}

// meanCurvature is the mean diagonal element of the model's hessian; none if it has none.
func (m *model[T]) meanCurvature() []ratio {
	if m.hessian == nil {
		return nil
	}
	return []ratio{{sum: m.hessian.trace(), n: float64(len(m.hessian.grad))}}
}

// keepPrecision makes the mean curvature the precision of the outputs that the cost declares.
func (m *model[T]) keepPrecision(mean []ratio) {
	for _, r := range mean {
		for _, i := range m.hessian.heads {
			m.outputs[i].precision = r.value()
		}
	}
}

// curve computes y = H x for the second derivatives of the cost, forward over reverse. The tail
// holds the sweeps at the outputs.
func (t *lossTail[T]) curve(h *hessian, outputs []*output, y, x []float64, rounded bool) error {
	for len(t.directions) < len(h.heads) {
		t.directions = append(t.directions, program.Seed[T]{})
	}
	h.scatter(x, func(i int) []float64 { return outputs[i].y })
	for k, i := range h.heads {
		d := &t.directions[k]
		d.Node, d.Data = t.leaves[i], linalg.Resized(d.Data, len(outputs[i].y))
		linalg.Convert(d.Data, outputs[i].y)
	}
	if err := t.run.Tangent(t.directions[:len(h.heads)], t.path); err != nil {
		return graphError(err)
	}
	if err := t.run.Bend(t.path, rounded); err != nil {
		return graphError(err)
	}
	h.gather(y, func(i int) []float64 {
		linalg.Convert(outputs[i].y, t.run.GradientAlong(t.leaves[i]))
		return outputs[i].y
	})
	return nil
}

// notes are what the plan says of outputs that are declared by the cost.
func (f blockForm) notes() (notes []string) {
	if f.width == 0 {
		return nil
	}
	notes = append(notes, fmt.Sprintf("GaussNewton: the second derivatives of the cost are in blocks of %d by %d",
		f.width, f.width))
	if f.coupled {
		const outside = "GaussNewton: there are second derivatives outside the blocks, between cases or in cases of " +
			"more than %d numbers; they are left out, and the blocks are estimated"
		notes = append(notes, fmt.Sprintf(outside, widestBlock))
	}
	if f.kinked {
		notes = append(notes, "GaussNewton: where second derivatives are all zero, kinks count as rounded off")
	}
	if f.saddle {
		notes = append(notes, "GaussNewton: some blocks had negative eigenvalues, which count by their absolute value")
	}
	return notes
}
