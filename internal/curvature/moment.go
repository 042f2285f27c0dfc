package curvature

import (
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// moment is a second moment E[x y^T] of vectors x of n and y of m elements: a factor A = E[abar
// abar^T] or G = E[g g^T], or the cross moment of two layers (Martens & Grosse 2015, section 3). It
// is n x m. It holds the sum over the runs of the update in progress. Products are computed in the
// model's dtype.
//
// A diagonal moment keeps only E[x_i^2], as n x 1. It is used where the diagonal is exact (one-hot
// inputs), and where the whole matrix would be too large.
type moment[T Float] struct {
	name      string
	n, m      int
	diagonal  bool
	symmetric bool // y is x
	inputs    bool // x is the input of a layer

	// The run observed last is given by its rows, X^T and Y^T, until their product is computed into
	// run. byRows says that it is not yet.
	byRows bool
	xt, yt []T
	rows   int

	run, total           []T // sums of x y^T: over the run observed last, and over the accumulated runs
	runCount, totalCount int // divisors of the sums: numbers of cases or positions
	partsCount           int // of all parts of the update; 0 if it has but this one
}

// newCross makes the moment of vectors of n elements with vectors of m elements.
func newCross[T Float](n, m int) *moment[T] { return &moment[T]{n: n, m: m} }

// newFactor makes the moment of vectors of n elements with themselves.
func newFactor[T Float](n int, diagonal bool) *moment[T] {
	if diagonal {
		return &moment[T]{n: n, m: 1, diagonal: true}
	}
	return &moment[T]{n: n, m: n, symmetric: true}
}

func (f *moment[T]) size() int { return f.n * f.m }

// observe takes the rows of X and Y, given as X^T (n x rows) and Y^T (m x rows). Unless the moment
// is diagonal, xt and yt must stay unchanged until the update is done. observe reports false if the
// sum of x y^T is not finite.
func (f *moment[T]) observe(xt, yt []T, rows, count int) (ok bool) {
	if f.diagonal {
		run := f.sums(count)
		for i := range run {
			x := xt[i*rows : (i+1)*rows]
			run[i] = linalg.Dot(x, x)
		}
		return linalg.Finite(run)
	}
	f.byRows, f.xt, f.yt, f.rows, f.runCount = true, xt, yt, rows, count
	return finiteSquares(xt, rows) && (f.symmetric || finiteSquares(yt, rows))
}

// observeAgain adds the rows of another sweep to the run observed last, whose product must have
// been computed. It reports false if the sum of x y^T is not finite.
func (f *moment[T]) observeAgain(xt, yt []T, rows int) (ok bool) {
	if f.diagonal {
		for i := range f.run {
			x := xt[i*rows : (i+1)*rows]
			f.run[i] += linalg.Dot(x, x)
		}
		return linalg.Finite(f.run)
	}
	f.xt, f.yt, f.rows = xt, yt, rows
	f.add(1, 1, f.run)
	return finiteSquares(xt, rows) && (f.symmetric || finiteSquares(yt, rows))
}

// finiteSquares reports whether the sum of squares of every row of X^T is finite. If so, all inner
// products of rows are finite too, because no inner product is larger.
func finiteSquares[T Float](xt []T, rows int) bool {
	var odd T // v - v is 0 for every finite v and NaN for every other
	for ; rows > 0 && len(xt) > 0; xt = xt[rows:] {
		v := linalg.Dot(xt[:rows], xt[:rows])
		odd += v - v
	}
	return odd == 0
}

// observeLag observes pairs of rows that are lag rows apart: it sums x_{t+lag} x_t^T, given X^T.
func (f *moment[T]) observeLag(xt []T, rows, lag, count int) (ok bool) {
	clear(f.sums(count))
	return f.observeLagAgain(xt, rows, lag)
}

// observeLagAgain adds the pairs of another sweep.
func (f *moment[T]) observeLagAgain(xt []T, rows, lag int) (ok bool) {
	linalg.GemmLD(false, true, f.n, f.n, rows-lag, 1, xt[lag:], rows, xt, rows, 1, f.run, f.n)
	return linalg.Finite(f.run)
}

// sums returns the memory for the sum of x y^T over a run. count is the sum's divisor.
func (f *moment[T]) sums(count int) []T {
	f.byRows, f.runCount = false, count
	f.run = linalg.Resized(f.run, f.size())
	return f.run
}

// observeLookups adds one-hot rows to the run observed last. ids holds the index of the 1 in each
// row.
func (f *moment[T]) observeLookups(ids []int) {
	for _, i := range ids {
		f.run[i]++
	}
	f.runCount += len(ids)
}

// add computes sum = beta sum + alpha X^T Y for the run observed last. For a symmetric moment it
// computes the upper triangle only.
func (f *moment[T]) add(alpha, beta T, sum []T) {
	if f.symmetric {
		linalg.UpperGramT(f.rows, f.n, alpha, f.xt, beta, sum)
	} else {
		linalg.Gemm(false, true, f.n, f.m, f.rows, alpha, f.xt, f.yt, beta, sum)
	}
}

// multiply computes the sum of the run observed last into run, unless run already holds it.
func (f *moment[T]) multiply() {
	if !f.byRows {
		return
	}
	f.run = linalg.Resized(f.run, f.size())
	f.add(1, 0, f.run)
	f.byRows = false
}

// accumulate adds the run observed last to the accumulated runs.
func (f *moment[T]) accumulate() {
	f.multiply()
	if f.totalCount == 0 {
		f.total, f.run = f.run, linalg.Resized(f.total, f.size())
	} else {
		linalg.Axpy(1, f.run, f.total)
	}
	f.totalCount += f.runCount
	f.runCount = 0
}

// discard forgets the runs of the update in progress.
func (f *moment[T]) discard() { f.byRows, f.totalCount, f.runCount, f.partsCount = false, 0, 0, 0 }

// count is the divisor of the update's sums.
func (f *moment[T]) count() int {
	if f.partsCount > 0 {
		return f.partsCount
	}
	return f.totalCount + f.runCount
}

// average computes next = eps now + (1-eps) times the mean over the runs. For a symmetric moment it
// computes the upper triangle only. next and now may be the same slice.
func (f *moment[T]) average(eps float64, next, now []T) {
	keep, weight := T(eps), T((1-eps)/float64(f.count()))
	if f.partsCount > 0 && f.totalCount+f.runCount == 0 { // this part has no cases
		copy(next, now)
		linalg.Scale(keep, next)
		return
	}
	if f.totalCount > 0 {
		f.multiply()
	}
	if f.byRows {
		if &next[0] != &now[0] {
			copy(next, now)
		}
		f.add(weight, keep, next)
		return
	}
	parallel.For(len(next), parallel.Grain, func(from, to int) {
		next, now, run := next[from:to], now[from:to], f.run[from:to]
		if f.totalCount == 0 {
			for i, s := range run {
				next[i] = keep*now[i] + weight*s
			}
			return
		}
		for i, s := range f.total[from:to] {
			next[i] = keep*now[i] + weight*(run[i]+s)
		}
	})
}

// mirrored copies the upper triangle of a symmetric moment to its lower triangle.
func (f *moment[T]) mirrored(x []T) {
	if f.symmetric {
		linalg.MirrorUpper(x, f.n)
	}
}

// addLeading adds alpha x (n x n) to the first n rows and columns of sum, which has the moment's
// form. If the moment is diagonal, x has n elements.
func (f *moment[T]) addLeading(sum []T, alpha float64, x []T, n int) {
	if f.diagonal {
		linalg.Axpy(T(alpha), x, sum[:n])
		return
	}
	for i := range n {
		linalg.Axpy(T(alpha), x[i*n:(i+1)*n], sum[i*f.n:i*f.n+n])
	}
}

// trace returns the trace of an average of the moment.
func (f *moment[T]) trace(x []T) float64 {
	if f.diagonal {
		return diagonalSum(x, f.n, 1)
	}
	return diagonalSum(x, f.n, f.n+1)
}

// diagonalSum sums n elements of x that are apart elements from each other.
func diagonalSum[T Float](x []T, n, apart int) (sum float64) {
	for i := range n {
		sum += float64(x[i*apart])
	}
	return sum
}
