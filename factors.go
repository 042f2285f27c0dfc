package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A moment is the running average of a second moment E[x y^T] of vectors x of n and y of m elements: a factor A = E[abar abar^T] or
// G = E[g g^T], or the cross moment of two layers (Martens & Grosse 2015, section 3). It is n x m, in the model's dtype, in which the products that
// it averages are computed. next is what the update in progress makes of it.
//
// Only the inverses need it whole, and they are computed now and then. In between, updates add to the upper triangle of a symmetric moment alone.
//
// Of a diagonal moment only E[x_i^2] is kept, as n x 1: where that is exact (one-hot inputs), or where the whole would be too large.
type moment[T program.Float] struct {
	n, m      int
	diagonal  bool
	symmetric bool // x and y are the same
	now, next []T  // of a symmetric moment the upper triangle of now
	frozen    bool // inverses are computed from copy, beside the steps, and not from next
	copy      []T  // of an earlier average; made when first needed

	// Of the update in progress: rows X and Y of the run observed last, transposed, or the sum of x y^T over them; the sum over the runs taken in before; and how
	// many cases (or positions) they are to be divided by.
	xt, yt               []T // nil if run is the sum
	rows                 int
	run, taken           []T // made when first needed
	runCount, takenCount int

	eps, weight T    // what the update makes of it: eps times the average and weight times the sums
	settled     bool // as next, which is not computed otherwise
}

func newMoment[T program.Float](n, m int) moment[T] {
	return moment[T]{n: n, m: m, now: make([]T, n*m), next: make([]T, n*m)}
}

// newFactor is the moment of vectors of n elements with themselves.
func newFactor[T program.Float](n int, diagonal bool) moment[T] {
	m := n
	if diagonal {
		m = 1
	}
	f := newMoment[T](n, m)
	f.diagonal, f.symmetric = diagonal, !diagonal
	return f
}

// observe takes in the rows of X and Y, given as X^T (n x rows) and Y^T (m x rows), which have to stay as they are until the update is done. It reports false if the
// sum of x y^T over them is not finite.
func (f *moment[T]) observe(xt, yt []T, rows, count int) (ok bool) {
	if f.diagonal {
		run := f.sums(count)
		for i := range run {
			x := xt[i*rows : (i+1)*rows]
			run[i] = linalg.Dot(x, x)
		}
		return linalg.Finite(run)
	}
	f.xt, f.yt, f.rows, f.runCount = xt, yt, rows, count
	return finiteSquares(xt, rows) && (f.symmetric || finiteSquares(yt, rows))
}

// finiteSquares reports whether the sum of squares of every row of X^T is finite. Then so are all inner products of rows, which are no larger.
func finiteSquares[T program.Float](xt []T, rows int) bool {
	var odd T // v - v is 0 for every finite v and NaN for every other
	for ; rows > 0 && len(xt) > 0; xt = xt[rows:] {
		v := linalg.Dot(xt[:rows], xt[:rows])
		odd += v - v
	}
	return odd == 0
}

// sums is where to put the sum of x y^T over a run that is to be divided by count.
func (f *moment[T]) sums(count int) []T {
	f.xt, f.yt, f.runCount = nil, nil, count
	f.run = linalg.Resized(f.run, f.n*f.m)
	return f.run
}

// observeLookups is observe for one-hot rows, of which ids tells where the one is, and adds to the rows observed by observe.
func (f *moment[T]) observeLookups(ids []int) {
	for _, i := range ids {
		f.run[i]++
	}
	f.runCount += len(ids)
}

// add computes sum = beta sum + alpha X^T Y for the run observed last; of a symmetric moment the upper triangle only.
func (f *moment[T]) add(alpha, beta T, sum []T) {
	if f.symmetric {
		linalg.UpperGramT(f.rows, f.n, alpha, f.xt, beta, sum)
	} else {
		linalg.Gemm(false, true, f.n, f.m, f.rows, alpha, f.xt, f.yt, beta, sum)
	}
}

// multiply makes run the sum, where it is not yet.
func (f *moment[T]) multiply() {
	if f.xt == nil {
		return
	}
	f.run = linalg.Resized(f.run, f.n*f.m)
	f.add(1, 0, f.run)
	f.xt, f.yt = nil, nil
}

// take adds the run observed last to those of the update.
func (f *moment[T]) take() {
	f.multiply()
	if f.takenCount == 0 {
		f.taken, f.run = f.run, linalg.Resized(f.taken, f.n*f.m)
	} else {
		linalg.Axpy(1, f.run, f.taken)
	}
	f.takenCount += f.runCount
	f.runCount = 0
}

// drop forgets the runs of the update.
func (f *moment[T]) drop() { f.takenCount, f.runCount, f.xt, f.yt = 0, 0, nil, nil }

// average makes the average eps times itself + (1-eps) mean, where the mean is over the runs taken in and the one observed last: at once, as next, if settle, or else
// perhaps when the update is kept. It reports false if next is not finite.
func (f *moment[T]) average(eps float64, settle bool) (ok bool) {
	f.eps, f.weight = T(eps), T((1-eps)/float64(f.takenCount+f.runCount))
	f.settled = settle || f.takenCount > 0 || f.xt == nil
	if !f.settled {
		return true
	}
	if f.takenCount > 0 {
		f.multiply()
		linalg.Axpy(1, f.taken, f.run)
	}
	if f.xt != nil {
		copy(f.next, f.now)
		f.add(f.weight, f.eps, f.next)
	} else {
		f.mix()
	}
	if f.symmetric {
		linalg.MirrorUpper(f.next, f.n)
	}
	return linalg.Finite(f.next)
}

// mix computes next = eps now + weight run.
func (f *moment[T]) mix() {
	parallel.For(len(f.next), parallel.Grain, func(from, to int) {
		next, now := f.next[from:to], f.now[from:to]
		for i, s := range f.run[from:to] {
			next[i] = f.eps*now[i] + f.weight*s
		}
	})
}

// keep makes the average with the update the current one.
func (f *moment[T]) keep() {
	if f.settled {
		f.now, f.next = f.next, f.now
	} else {
		f.add(f.weight, f.eps, f.now)
	}
	f.drop()
}

// freeze makes source a copy of the current average, if on, or next again.
func (f *moment[T]) freeze(on bool) {
	f.frozen = on
	if !on {
		return
	}
	f.copy = append(f.copy[:0], f.now...)
	if f.symmetric {
		linalg.MirrorUpper(f.copy, f.n)
	}
}

// source is what inverses are computed from. Unless it is frozen the update in progress has to be settled.
func (f *moment[T]) source() []T {
	if f.frozen {
		return f.copy
	}
	return f.next
}

// trace of the average that inverses are computed from.
func (f *moment[T]) trace() float64 {
	apart := f.m + 1
	if f.diagonal {
		apart = 1
	}
	return diagonalSum(f.source(), f.n, apart)
}

// diagonalSum adds up n elements that lie so far apart.
func diagonalSum[T program.Float](x []T, n, apart int) (sum float64) {
	for i := range n {
		sum += float64(x[i*apart])
	}
	return sum
}

// decay is epsilon_k = min(1 - 1/k, ema) for the k-th update, from 1: the plain mean of the first updates, which then fade
// (Martens & Grosse 2015, section 5).
func decay(k int, ema float64) float64 { return math.Min(1-1/float64(k), ema) }

// columnsOf writes X^T (n x rows) into dst, which is grown as needed, for X of rows x n, or of rows x (n-1) with a column of ones behind it if
// homogeneous. Second moments are computed from this form, which gonum's GEMM is fastest with.
func columnsOf[T program.Float](dst, x []T, rows, n int, homogeneous bool) []T {
	dst = linalg.Resized(dst, rows*n)
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
	abar := l.Abar()
	if l.Channels > 0 {
		abar = l.Channels + 1
	}
	return &factors[T]{a: newFactor[T](abar, l.DiagonalA), g: newFactor[T](l.Out, l.DiagonalG)}
}

// observe takes the layer's inputs and gradients from a run. It reports false if a second moment is not finite.
func (f *factors[T]) observe(l *layer, run *program.Run[T]) (ok bool) {
	c := capture(l, run, &f.buf)
	f.rows = len(c.g) / l.Out
	f.gt = columnsOf(f.gt, c.g, f.rows, f.g.n, false)
	var a bool
	if l.Patches != nil {
		a = f.a.observePatches(l.Patches, &f.patches, c.a)
	} else {
		rows := len(c.a) / l.In
		f.at = columnsOf(f.at, c.a, rows, f.a.n, l.Bias != nil)
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
func (f *factors[T]) average(ema float64, settle bool) (ok bool) {
	eps := decay(f.updates+1, ema)
	a, g := f.a.average(eps, settle), f.g.average(eps, settle)
	return a && g
}

// keep makes the averages with the update the current ones.
func (f *factors[T]) keep() {
	f.a.keep()
	f.g.keep()
	f.updates++
}
