package kfac

import (
	"math"
	"math/rand/v2"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// lowRank is what a block needs to apply its inverses to the batch's inputs and gradients in place of their product (Martens & Grosse 2015, section 8, task 6).
// With Abar (R x abar), the layer's inputs at the R positions of the batch, and E (R x out), the gradients of the objective with respect to its outputs there, it is
// V = Abar^T E, and
//
//	U = A^-1 V G^-1 = (A^-1 Abar^T) (E G^-1)
//
// takes R (n^2 + m^2 + n m) multiplications in place of n m (n + m): less where the batch is small beside the layer.
type lowRank[T program.Float] struct {
	errors []T  // E
	at, et []T  // A^-1 Abar^T, G^-1 E^T: abar x R, out x R
	holds  bool // V, the gradient that the user's VM has computed and that was given to Step, is Abar^T E

	signs, rows, product, given []T // scratch of confirm
}

// factored reports whether the factors have been observed from Abar as it is.
func (b *kroneckerBlock[T]) factored() bool {
	l, f := b.layer, b.factors
	return !l.Reduce && l.Patches == nil && !l.DiagonalA && !l.DiagonalG && len(f.at) == f.a.n*f.rows
}

// saves is how many multiplications the low-rank form saves at this step, where the whole batch was observed; negative if it takes more.
func (b *kroneckerBlock[T]) saves() int {
	n, m := b.factors.a.n, b.factors.g.n
	return n*m*(n+m) - b.factors.rows*(n*n+m*m+n*m)
}

// takeErrors takes E from a run after a backward sweep of the objective's gradient.
func (b *kroneckerBlock[T]) takeErrors(run *program.Run[T]) {
	b.low.errors = b.low.errors[:0]
	for _, s := range b.layer.Sites {
		g := run.Gradient(s.Output)
		b.low.errors = appendRows(b.low.errors, g, len(g)/b.layer.Out, b.layer.Out, s.OutputColumns)
	}
}

// confirm finds out whether V is Abar^T E, up to rounding: whether both have the same product with a vector of random signs (Freivalds 1977), the squared difference of
// which is that of the matrices in the mean. So a gradient that was clipped, or that another term of the cost adds to, does not go unnoticed.
func (b *kroneckerBlock[T]) confirm(rng *rand.Rand) {
	b.gather()
	n, m, rows, s := b.layer.Abar(), b.layer.Out, b.factors.rows, &b.low
	s.signs, s.rows, s.product, s.given = linalg.Resized(s.signs, m), linalg.Resized(s.rows, rows), linalg.Resized(s.product, n), linalg.Resized(s.given, n)
	for i := range s.signs {
		s.signs[i] = T(2*rng.IntN(2) - 1)
	}
	linalg.Gemm(false, false, rows, 1, m, 1, s.errors, s.signs, 0, s.rows)
	linalg.Gemm(false, false, n, 1, rows, 1, b.factors.at, s.rows, 0, s.product)
	if b.layer.OutByIn {
		linalg.Gemm(false, false, 1, n, m, 1, s.signs, b.grad, 0, s.given)
	} else {
		linalg.Gemm(false, false, n, 1, m, 1, b.grad, s.signs, 0, s.given)
	}
	linalg.Axpy(-1, s.given, s.product)
	miss := linalg.Dot64(s.product, s.product)
	s.holds = math.Sqrt(miss) <= confirmed*rounding[T]()*math.Sqrt(linalg.Dot64(b.grad, b.grad))
}

// confirmed is the part of the rounding of gradients, relative to their norm, that V may differ from Abar^T E by. What is as small in V is lost.
const confirmed = 0.1

// applyLowRank is apply for V = Abar^T E, with Abar^T as at (abar x rows).
func (v *inverse[T]) applyLowRank(u, at []T, low *lowRank[T], outByIn, fresh bool) {
	n, m := v.a.n, v.g.n
	rows := len(at) / n
	low.at, low.et = linalg.Resized(low.at, n*rows), linalg.Resized(low.et, m*rows)
	linalg.Gemm(false, false, n, rows, n, 1, v.a.at(fresh), at, 0, low.at)
	linalg.Gemm(false, true, m, rows, m, 1, v.g.at(fresh), low.errors, 0, low.et)
	if outByIn {
		linalg.Gemm(false, true, m, n, rows, 1, low.et, low.at, 0, u)
	} else {
		linalg.Gemm(false, true, n, m, rows, 1, low.at, low.et, 0, u)
	}
}

// chooseLowRank lists the blocks that gain by the low-rank form at this step, if they are worth the backward sweep that they take. That takes a run of the whole batch
// in which nothing is random, and an update of a single chunk.
func (c *conductor[T]) chooseLowRank() {
	for _, b := range c.lowRank {
		b.low.holds = false
	}
	c.lowRank = c.lowRank[:0]
	if !c.sampler.all || len(c.chunks) > 0 || c.cfg.l2 > 0 || draws(c.whole) != nil {
		return
	}
	saved, sweep := 0, 0
	for b, l := range c.layers {
		sweep += b.factors.rows * l.In * l.Out
	}
	for _, b := range c.blocks {
		if k, ok := b.(*kroneckerBlock[T]); ok && k.factored() && k.saves() > 0 {
			c.lowRank = append(c.lowRank, k)
			saved += k.saves()
		}
	}
	if saved <= worthSweep*sweep {
		c.lowRank = c.lowRank[:0]
	}
}

// takeErrors sweeps the gradient of the objective back through the forward pass of the statistics, for the listed blocks.
func (c *conductor[T]) takeErrors() error {
	if len(c.lowRank) == 0 {
		return nil
	}
	seeds, err := c.tail.gradients(c.run, c.outputs, T(1/(c.scale*float64(c.model.Cases))))
	if err != nil {
		return graphError(err)
	}
	if err := c.run.Reverse(seeds, c.path); err != nil {
		return graphError(err)
	}
	for _, b := range c.lowRank {
		b.takeErrors(c.run)
	}
	return nil
}

// worthSweep is how many multiplications must be saved for each of a backward sweep, which has other work to do too.
const worthSweep = 2

// confirmErrors decides, now that V is known, which blocks have the low-rank form at this step.
func (c *conductor[T]) confirmErrors() {
	if len(c.lowRank) == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(c.cfg.seed, uint64(c.steps)))
	for _, b := range c.lowRank {
		b.confirm(rng)
	}
}
