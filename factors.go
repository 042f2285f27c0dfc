package kfac

import (
	"math"

	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A moment is the running average of a second moment E[x y^T] of vectors x of n and y of m elements: a factor A = E[abar abar^T] or
// G = E[g g^T], or the cross moment of two layers (Martens & Grosse 2015, section 3). It is n x m, and float64 in either dtype of the
// model. next is what the update in progress makes of it.
//
// Of a diagonal moment only E[x_i^2] is kept, as n x 1: where that is exact (one-hot inputs), or where the whole would be too large.
type moment[T program.Float] struct {
	n, m      int
	diagonal  bool
	now, next []float64
	frozen    bool      // inverses are computed from copy, beside the steps, and not from next
	copy      []float64 // of an earlier now; made when first needed

	// Of the update in progress: sums of x y^T over rows, and how many cases (or positions) they are to be divided by.
	run, taken           []T // of the run observed last, and of those taken in before; taken is made when first needed
	runCount, takenCount int
}

func newMoment[T program.Float](n, m int) moment[T] {
	return moment[T]{n: n, m: m, now: make([]float64, n*m), next: make([]float64, n*m), run: make([]T, n*m)}
}

// newFactor is the moment of vectors of n elements with themselves.
func newFactor[T program.Float](n int, diagonal bool) moment[T] {
	m := n
	if diagonal {
		m = 1
	}
	f := newMoment[T](n, m)
	f.diagonal = diagonal
	return f
}

// observe computes the sum of x y^T over the rows of X and Y, given as X^T (n x rows) and Y^T (m x rows). It reports false if it is not finite.
func (f *moment[T]) observe(xt, yt []T, rows, count int) (ok bool) {
	f.runCount = count
	switch {
	case f.diagonal:
		for i := range f.run {
			x := xt[i*rows : (i+1)*rows]
			f.run[i] = linalg.Dot(x, x)
		}
	case f.n == f.m && &xt[0] == &yt[0]:
		linalg.GramT(rows, f.n, 1, xt, 0, f.run)
	default:
		linalg.Gemm(false, true, f.n, f.m, rows, 1, xt, yt, 0, f.run)
	}
	return linalg.Finite(f.run)
}

// observeLookups is observe for one-hot rows, of which ids tells where the one is, and adds to the rows observed by observe.
func (f *moment[T]) observeLookups(ids []int) {
	for _, i := range ids {
		f.run[i]++
	}
	f.runCount += len(ids)
}

// take adds the run observed last to those of the update.
func (f *moment[T]) take() {
	if f.takenCount == 0 {
		if f.taken == nil {
			f.taken = make([]T, len(f.run))
		}
		f.taken, f.run = f.run, f.taken
	} else {
		linalg.Axpy(1, f.run, f.taken)
	}
	f.takenCount += f.runCount
	f.runCount = 0
}

// drop forgets the runs of the update.
func (f *moment[T]) drop() { f.takenCount, f.runCount = 0, 0 }

// average sets next = eps now + (1-eps) mean, where the mean is over the runs taken in and the one observed last. It reports false if next is
// not finite.
func (f *moment[T]) average(eps float64) (ok bool) {
	if f.takenCount > 0 {
		linalg.Axpy(1, f.taken, f.run)
	}
	weight := (1 - eps) / float64(f.takenCount+f.runCount)
	return linalg.Sum(len(f.run), func(from, to int) float64 {
		now, next := f.now[from:to], f.next[from:to]
		var odd float64 // v - v is 0 for every finite v and NaN for every other
		for i, s := range f.run[from:to] {
			v := eps*now[i] + weight*float64(s)
			next[i] = v
			odd += v - v
		}
		return odd
	}) == 0
}

// keep makes next the current average.
func (f *moment[T]) keep() {
	f.now, f.next = f.next, f.now
	f.drop()
}

// freeze makes source a copy of now, if on, or next again.
func (f *moment[T]) freeze(on bool) {
	f.frozen = on
	if on {
		f.copy = append(f.copy[:0], f.now...)
	}
}

// source is what inverses are computed from.
func (f *moment[T]) source() []float64 {
	if f.frozen {
		return f.copy
	}
	return f.next
}

// trace of the average that inverses are computed from.
func (f *moment[T]) trace() float64 {
	if f.diagonal {
		return floats.Sum(f.source())
	}
	var t float64
	source := f.source()
	for i := range f.n {
		t += source[i*f.m+i]
	}
	return t
}

// decay is epsilon_k = min(1 - 1/k, ema) for the k-th update, from 1: the plain mean of the first updates, which then fade
// (Martens & Grosse 2015, section 5).
func decay(k int, ema float64) float64 { return math.Min(1-1/float64(k), ema) }

// columnsOf writes X^T (n x rows) into dst, which is grown as needed, for X of rows x n, or of rows x (n-1) with a column of ones behind it if
// homogeneous. Second moments are computed from this form, which gonum's GEMM is fastest with.
func columnsOf[T program.Float](dst, x []T, rows, n int, homogeneous bool) []T {
	dst = resized(dst, rows*n)
	cols := n
	if homogeneous {
		cols--
		for i := range dst[cols*rows:] {
			dst[cols*rows+i] = 1
		}
	}
	linalg.Transpose(dst[:cols*rows], x, rows, cols)
	return dst
}

// factors are the two Kronecker factors of a layer's block of the Fisher matrix, F = A (x) G.
//
// For a layer that is used at S positions per case, a is averaged over cases and positions and g g^T is summed over positions, as
// in KFC (Grosse & Martens 2016) and KFAC-expand (Eschenhagen et al. 2023); with S = 1 these are the paper's. By KFAC-reduce a is averaged and g summed
// over the positions of each case before anything else.
type factors[T program.Float] struct {
	a, g    moment[T]
	updates int // k: the number of averaged updates

	at, gt []T // abar^T and g^T of the run observed last: abar x rows, out x rows
	rows   int
	buf    captured[T]

	patches patchSums[T] // of a convolution, in place of at
}

func newFactors[T program.Float](l *layer) *factors[T] {
	abar := l.abar()
	if l.channels > 0 {
		abar = l.channels + 1
	}
	return &factors[T]{a: newFactor[T](abar, l.diagonalA), g: newFactor[T](l.out, l.diagonalG)}
}

// observe takes the layer's inputs and gradients from a run. It reports false if a second moment is not finite.
func (f *factors[T]) observe(l *layer, run *program.Run[T]) (ok bool) {
	c := capture(l, run, &f.buf)
	f.rows = len(c.g) / l.out
	f.gt = columnsOf(f.gt, c.g, f.rows, f.g.n, false)
	var a bool
	if l.patches != nil {
		a = f.a.observePatches(l.patches, &f.patches, c.a)
	} else {
		rows := len(c.a) / l.in
		f.at = columnsOf(f.at, c.a, rows, f.a.n, l.bias != nil)
		a = f.a.observe(f.at, f.at, rows, rows)
		f.a.observeLookups(c.lookups)
	}
	g := f.g.observe(f.gt, f.gt, f.rows, c.cases)
	return a && g
}

func (f *factors[T]) take() {
	f.a.take()
	f.g.take()
}

func (f *factors[T]) drop() {
	f.a.drop()
	f.g.drop()
}

// average reports false if a moment has overflowed.
func (f *factors[T]) average(ema float64) (ok bool) {
	eps := decay(f.updates+1, ema)
	a, g := f.a.average(eps), f.g.average(eps)
	return a && g
}

// keep makes next the current averages.
func (f *factors[T]) keep() {
	f.a.keep()
	f.g.keep()
	f.updates++
}
