package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// columnsOf writes X^T (n x rows) into dst, which is grown as needed, for X of rows x n, or of rows
// x (n-1) with a column of ones behind it if homogeneous. Second moments are computed from this
// form, which gonum's GEMM is fastest with.
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
// For a layer that is used at S positions per case, a is averaged over cases and positions and g
// g^T is summed over positions, as in KFC (Grosse & Martens 2016) and KFAC-expand (Eschenhagen et
// al. 2023); with S = 1 these are the paper's. For KFAC-reduce the rows are means of a and sums of
// g over the positions of each case.
type factors[T Float] struct {
	shape Shape
	layer int // of the block
	a, g  *moment[T]

	at, gt []T // abar^T and g^T of the run observed last: abar x rows, out x rows
	rows   int

	patches patchSums[T] // of a convolution, in place of at
}

// Operations in which factors fail.
const (
	opMoments  = "second moments of its inputs and sampled gradients"
	opAverages = "averages of its second moments"
)

// newFactors adds the two factors of a layer to a block's moments.
func newFactors[T Float](b *moments[T], s Shape, layer int) *factors[T] {
	overflow := Error{Layer: layer, Op: opAverages}
	f := &factors[T]{
		shape: s, layer: layer,
		a: b.add(newFactor[T](s.sizeA(), s.DiagonalA), overflow),
		g: b.add(newFactor[T](s.Out, s.DiagonalG), overflow),
	}
	f.a.inputs = true
	return f
}

// observe computes the second moments of the rows.
func (f *factors[T]) observe(r Rows[T]) error {
	f.rows = len(r.G) / f.shape.Out
	f.gt = columnsOf(f.gt, r.G, f.rows, f.g.n, false)
	a, done := false, false
	switch {
	case f.shape.Channels > 0:
		a, done = f.observePixels(r.A), true
	case r.Patches != nil:
		f.at = f.at[:0]
		a, done = f.patches.observe(f.a, r.Patches, r.A)
	}
	if !done {
		rows := len(r.A) / f.shape.In
		f.at = columnsOf(f.at, r.A, rows, f.a.n, f.shape.Bias)
		a = f.a.observe(f.at, f.at, rows, rows)
		f.a.observeLookups(r.Lookups)
	}
	if g := f.g.observe(f.gt, f.gt, f.rows, r.Cases); !a || !g {
		return &Error{Layer: f.layer, Op: opMoments, Err: ErrNotFinite}
	}
	return nil
}

// observePixels observes the channels of all pixels of all patches, with a homogeneous coordinate:
// X^T, of In rows with those of a channel together, is at once the rows of the channels over all
// patches and pixels.
func (f *factors[T]) observePixels(x []T) (ok bool) {
	pixels := len(x) / f.shape.Channels
	f.at = columnsOf(f.at, x, f.rows, f.shape.In, false)
	for range pixels {
		f.at = append(f.at, 1)
	}
	return f.a.observe(f.at, f.at, pixels, pixels)
}

// dampings are what is added to the diagonals of the factors a and g.
func (f *factors[T]) dampings(a, g []T, d Damping) (dampA, dampG float64) {
	return d.Split(f.a.trace(a), f.a.n, f.g.trace(g), f.g.n)
}

// trace is that of a (x) g.
func (f *factors[T]) trace(a, g []T) float64 { return f.a.trace(a) * f.g.trace(g) }

// layer is what the blocks of one layer by itself have in common. Their first two moments are A and
// G.
type layer[T Float] struct {
	moments[T]
	factors *factors[T]
}

// init makes the two moments. There may be others behind them before the moments are ready.
func (b *layer[T]) init(s Shape) { b.factors = newFactors(&b.moments, s, 0) }

func (b *layer[T]) Observe(rows []Rows[T]) error { return b.factors.observe(rows[0]) }

func (b *layer[T]) Trace(avg *Averages[T]) float64 {
	return b.factors.trace(avg.Moments[0], avg.Moments[1])
}

func (b *layer[T]) Immediate() bool { return false }
