package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A factor is the running average of a second moment, A = E[abar abar^T] or G = E[g g^T] (Martens & Grosse 2015, section 3). It is
// symmetric, n x n, and float64 in either dtype of the model. next is what the step in progress makes of it.
type factor struct {
	n         int
	now, next []float64
}

func newFactor(n int) factor {
	return factor{n, make([]float64, n*n), make([]float64, n*n)}
}

// trace of the average in next.
func (f *factor) trace() float64 {
	var t float64
	for i := range f.n {
		t += f.next[i*f.n+i]
	}
	return t
}

// average sets next = eps now + (1-eps) moment.
func average[T program.Float](next, now []float64, moment []T, eps float64) {
	for i, m := range moment {
		next[i] = eps*now[i] + (1-eps)*float64(m)
	}
}

// decay is epsilon_k = min(1 - 1/k, ema) for the k-th update, from 1: the plain mean of the first updates, which then fade
// (Martens & Grosse 2015, section 5).
func decay(k int, ema float64) float64 { return math.Min(1-1/float64(k), ema) }

// secondMoment computes X^T X / count into c, where X is rows x n, or rows x (n-1) with a column of ones behind it if
// homogeneous. scratch is grown as needed and returned.
func secondMoment[T program.Float](c []T, x []T, rows, n int, homogeneous bool, count int, scratch []T) []T {
	if cap(scratch) < rows*n {
		scratch = make([]T, rows*n)
	}
	xt := scratch[:rows*n]
	cols := n
	if homogeneous {
		cols--
		for i := range xt[cols*rows:] {
			xt[cols*rows+i] = 1
		}
	}
	linalg.Transpose(xt[:cols*rows], x, rows, cols)
	linalg.GramT(rows, n, 1/T(count), xt, 0, c)
	return scratch
}

// factors are the two Kronecker factors of a layer's block of the Fisher matrix, F = A (x) G.
//
// For a layer that is used at S positions per case, a is averaged over cases and positions and g is summed over positions, as
// in KFC (Grosse & Martens 2016) and KFAC-expand (Eschenhagen et al. 2023); with S = 1 these are the paper's.
type factors[T program.Float] struct {
	a, g    factor
	updates int // k: the number of averaged moments

	moments []T // of the step in progress: A's, then G's
	scratch []T // X^T
	buf     captured[T]
}

func newFactors[T program.Float](abar, out int) *factors[T] {
	return &factors[T]{a: newFactor(abar), g: newFactor(out), moments: make([]T, abar*abar+out*out)}
}

// update computes next from now and what was captured. It reports false, with next unspecified, if a moment is not finite.
func (f *factors[T]) update(l *layer, run *program.Run[T], ema float64) (ok bool) {
	c := capture(l, run, &f.buf)
	ma, mg := f.moments[:f.a.n*f.a.n], f.moments[f.a.n*f.a.n:]
	f.scratch = secondMoment(ma, c.a, c.rows, f.a.n, l.bias != nil, c.rows, f.scratch)
	f.scratch = secondMoment(mg, c.g, c.rows, f.g.n, false, c.cases, f.scratch)
	if !linalg.Finite(f.moments) {
		return false
	}
	eps := decay(f.updates+1, ema)
	average(f.a.next, f.a.now, ma, eps)
	average(f.g.next, f.g.now, mg, eps)
	return true
}

// keep makes next the current average.
func (f *factors[T]) keep() {
	f.a.now, f.a.next = f.a.next, f.a.now
	f.g.now, f.g.next = f.g.next, f.g.now
	f.updates++
}
