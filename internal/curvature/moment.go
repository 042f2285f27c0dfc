package curvature

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// Averages are the running averages of a block's second moments after a number of updates.
type Averages[T Float] struct {
	Updates int
	Moments [][]T // row-major, in the order that the block's kind says
}

// moment is a second moment E[x y^T] of vectors x of n and y of m elements: a factor A = E[abar abar^T] or
// G = E[g g^T], or the cross moment of two layers (Martens & Grosse 2015, section 3). It holds the sum over
// the runs of the update in progress, and is n x m, in the model's dtype, in which products are computed.
//
// Of a diagonal moment only E[x_i^2] is kept, as n x 1: where that is exact (one-hot inputs), or where the
// whole would be too large.
type moment[T Float] struct {
	n, m      int
	diagonal  bool
	symmetric bool // x and y are the same

	// Rows X and Y of the run observed last, transposed, and their number; xt is nil if run is their sum.
	xt, yt []T
	rows   int

	run, total           []T // sums of x y^T: of the run observed last, and of those accumulated before
	runCount, totalCount int // cases, or positions, that they are to be divided by
}

// newCross is the moment of vectors of n and of m elements.
func newCross[T Float](n, m int) *moment[T] { return &moment[T]{n: n, m: m} }

// newFactor is the moment of vectors of n elements with themselves.
func newFactor[T Float](n int, diagonal bool) *moment[T] {
	if diagonal {
		return &moment[T]{n: n, m: 1, diagonal: true}
	}
	return &moment[T]{n: n, m: n, symmetric: true}
}

func (f *moment[T]) size() int { return f.n * f.m }

// observe takes in the rows of X and Y, given as X^T (n x rows) and Y^T (m x rows), which have to stay as
// they are until the update is done. It reports false if the sum of x y^T over them is not finite.
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

// finiteSquares reports whether the sum of squares of every row of X^T is finite. Then so are all inner
// products of rows, which are no larger.
func finiteSquares[T Float](xt []T, rows int) bool {
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
	f.run = linalg.Resized(f.run, f.size())
	return f.run
}

// observeLookups is observe for one-hot rows, of which ids tells where the one is, and adds to what was
// observed.
func (f *moment[T]) observeLookups(ids []int) {
	for _, i := range ids {
		f.run[i]++
	}
	f.runCount += len(ids)
}

// add computes sum = beta sum + alpha X^T Y for the run observed last; of a symmetric moment the upper
// triangle only.
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
	f.run = linalg.Resized(f.run, f.size())
	f.add(1, 0, f.run)
	f.xt, f.yt = nil, nil
}

// accumulate adds the run observed last to those before it.
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

// discard forgets the runs of the update.
func (f *moment[T]) discard() { f.totalCount, f.runCount, f.xt, f.yt = 0, 0, nil, nil }

// average computes next = eps now + (1-eps) mean over the runs; of a symmetric moment the upper triangle.
// next may be now.
func (f *moment[T]) average(eps float64, next, now []T) {
	keep, weight := T(eps), T((1-eps)/float64(f.totalCount+f.runCount))
	if f.totalCount > 0 {
		f.multiply()
	}
	if f.xt != nil {
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

// mirrored makes both triangles of a symmetric moment hold.
func (f *moment[T]) mirrored(x []T) {
	if f.symmetric {
		linalg.MirrorUpper(x, f.n)
	}
}

// trace of an average.
func (f *moment[T]) trace(x []T) float64 {
	apart := f.m + 1
	if f.diagonal {
		apart = 1
	}
	return diagonalSum(x, f.n, apart)
}

// diagonalSum adds up n elements that lie so far apart.
func diagonalSum[T Float](x []T, n, apart int) (sum float64) {
	for i := range n {
		sum += float64(x[i*apart])
	}
	return sum
}

// Decay is epsilon_k = min(1 - 1/k, ema) for the k-th update, from 1: the plain mean of the first updates,
// which then fade (Martens & Grosse 2015, section 5).
func Decay(k int, ema float64) float64 { return math.Min(1-1/float64(k), ema) }

// moments are those of a block, with their averages. Every kind of block is made of them.
//
// Only inverses need averages whole. In between, Update adds to the upper triangle of symmetric ones alone.
type moments[T Float] struct {
	list    []*moment[T]
	layerOf []int  // by moment: its layer in the block
	crosses []bool // by moment: it is a cross moment
	current *Averages[T]
	unused  pool[Averages[T]]
}

// add makes a moment one of the block's.
func (b *moments[T]) add(f *moment[T], layer int, cross bool) *moment[T] {
	b.list, b.layerOf, b.crosses = append(b.list, f), append(b.layerOf, layer), append(b.crosses, cross)
	return f
}

// ready makes room for the averages, once all moments are there.
func (b *moments[T]) ready() {
	b.unused.make = func() *Averages[T] {
		a := &Averages[T]{Moments: make([][]T, len(b.list))}
		for i, f := range b.list {
			a.Moments[i] = make([]T, f.size())
		}
		return a
	}
	b.current = b.unused.make()
}

func (b *moments[T]) Accumulate() {
	for _, f := range b.list {
		f.accumulate()
	}
}

func (b *moments[T]) Discard() {
	for _, f := range b.list {
		f.discard()
	}
}

func (b *moments[T]) Average(ema float64) (*Averages[T], error) {
	next := b.unused.get()
	next.Updates = b.current.Updates + 1
	eps := Decay(next.Updates, ema)
	for i, f := range b.list {
		f.average(eps, next.Moments[i], b.current.Moments[i])
		f.mirrored(next.Moments[i])
		if !linalg.Finite(next.Moments[i]) {
			b.Release(next)
			return nil, &Error{Layer: b.layerOf[i], Op: b.averagesOp(i), Next: b.crosses[i], Err: ErrNotFinite}
		}
	}
	return next, nil
}

func (b *moments[T]) averagesOp(i int) string {
	if b.crosses[i] {
		return opCrossAverages
	}
	return opAverages
}

func (b *moments[T]) Keep(next *Averages[T]) {
	b.Release(b.current)
	b.current = next
	b.Discard()
}

func (b *moments[T]) Update(ema float64) {
	b.current.Updates++
	eps := Decay(b.current.Updates, ema)
	for i, f := range b.list {
		f.average(eps, b.current.Moments[i], b.current.Moments[i])
	}
	b.Discard()
}

func (b *moments[T]) Copy() *Averages[T] {
	c := b.unused.get()
	c.Updates = b.current.Updates
	for i, f := range b.list {
		copy(c.Moments[i], b.current.Moments[i])
		f.mirrored(c.Moments[i])
	}
	return c
}

func (b *moments[T]) Release(a *Averages[T]) { b.unused.put(a) }

// columnsOf writes X^T (n x rows) into dst, which is grown as needed, for X of rows x n, or of rows x (n-1)
// with a column of ones behind it if homogeneous. Second moments are computed from this form, which gonum's
// GEMM is fastest with.
func columnsOf[T Float](dst, x []T, rows, n int, homogeneous bool) []T {
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
// For a layer that is used at S positions per case, a is averaged over cases and positions and g g^T is
// summed over positions, as in KFC (Grosse & Martens 2016) and KFAC-expand (Eschenhagen et al. 2023); with
// S = 1 these are the paper's. For KFAC-reduce the rows are means of a and sums of g over the positions of
// each case.
type factors[T Float] struct {
	shape Shape
	a, g  *moment[T]

	at, gt []T // abar^T and g^T of the run observed last: abar x rows, out x rows
	rows   int

	patches patchSums[T] // of a convolution, in place of at
}

// newFactors adds the two factors of a layer to a block's moments.
func newFactors[T Float](b *moments[T], s Shape, layer int) *factors[T] {
	return &factors[T]{
		shape: s,
		a:     b.add(newFactor[T](s.sizeA(), s.DiagonalA), layer, false),
		g:     b.add(newFactor[T](s.Out, s.DiagonalG), layer, false),
	}
}

// observe computes the second moments of the rows. It reports false if one is not finite.
func (f *factors[T]) observe(r Rows[T]) (ok bool) {
	f.rows = len(r.G) / f.shape.Out
	f.gt = columnsOf(f.gt, r.G, f.rows, f.g.n, false)
	var a bool
	if r.Patches != nil {
		f.at = f.at[:0]
		a = f.a.observePatches(r.Patches, &f.patches, r.A)
	} else {
		rows := len(r.A) / f.shape.In
		f.at = columnsOf(f.at, r.A, rows, f.a.n, f.shape.Bias)
		a = f.a.observe(f.at, f.at, rows, rows)
		f.a.observeLookups(r.Lookups)
	}
	g := f.g.observe(f.gt, f.gt, f.rows, r.Cases)
	return a && g
}
