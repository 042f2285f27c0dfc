package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// columnsOf writes X^T (n x rows) into dst, which grows as needed, and returns it. X is x (rows x
// n). If homogeneous, x is rows x (n-1), and X has a last column of ones. Second moments are
// computed from X^T because gonum's GEMM is fastest with it.
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

// factors holds the two Kronecker factors of a layer's block of the Fisher matrix, F = A (x) G.
//
// A layer may be used at S positions per case. abar abar^T is then averaged over cases and
// positions. g g^T is summed over positions and averaged over cases. This is KFC (Grosse & Martens
// 2016) and KFAC-expand (Eschenhagen et al. 2023). With S = 1 it is the original K-FAC. For
// KFAC-reduce, the rows are the means of a and the sums of g over the positions of each case.
type factors[T Float] struct {
	shape Shape
	layer int // index in the block
	a, g  *moment[T]

	at, gt []T // abar^T and g^T of the run observed last: abar x rows, out x rows
	rows   int

	patches patchSums[T] // used for a convolution instead of at
}

// Operations named in the errors of factors.
const (
	opMoments  = "second moments of its inputs and sampled gradients"
	opAverages = "averages of its second moments"
)

// newFactors adds the two factors of a layer to a block's moments. number follows A and G in their
// names.
func newFactors[T Float](b *moments[T], s Shape, layer int, number string) *factors[T] {
	overflow := Error{Layer: layer, Op: opAverages}
	f := &factors[T]{
		shape: s, layer: layer,
		a: b.add("A"+number, newFactor[T](s.sizeA(), s.DiagonalA), overflow),
		g: b.add("G"+number, newFactor[T](s.Out, s.DiagonalG), overflow),
	}
	f.a.inputs = true
	return f
}

// observe computes the second moments of the rows.
func (f *factors[T]) observe(r Rows[T]) error {
	if r.Again {
		return f.observeAgain(r)
	}
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

// observeAgain adds the second moment of the gradients of another sweep.
func (f *factors[T]) observeAgain(r Rows[T]) error {
	f.g.multiply() // before its rows are written over
	f.gt = columnsOf(f.gt, r.G, f.rows, f.g.n, false)
	if !f.g.observeAgain(f.gt, f.gt, f.rows) {
		return &Error{Layer: f.layer, Op: opMoments, Err: ErrNotFinite}
	}
	return nil
}

// observePixels observes the channels of all pixels of all patches, with a homogeneous coordinate.
// X^T has In rows, with the rows of a channel together. So the same memory is also the matrix with
// one row per channel and one column per patch and pixel.
func (f *factors[T]) observePixels(x []T) (ok bool) {
	pixels := len(x) / f.shape.Channels
	f.at = columnsOf(f.at, x, f.rows, f.shape.In, false)
	for range pixels {
		f.at = append(f.at, 1)
	}
	return f.a.observe(f.at, f.at, pixels, pixels)
}

// dampings returns what to add to the diagonals of the factors a and g.
func (f *factors[T]) dampings(a, g []T, d Damping) (dampA, dampG float64) {
	return d.Split(f.a.trace(a), f.a.n, f.g.trace(g), f.g.n)
}

// trace returns the trace of a (x) g.
func (f *factors[T]) trace(a, g []T) float64 { return f.a.trace(a) * f.g.trace(g) }

// layer is the common part of the blocks that hold a single layer. Its first two moments are A and
// G.
type layer[T Float] struct {
	moments[T]
	factors *factors[T]
}

// init adds the moments A and G. Other moments may be added after it, before ready is called.
func (b *layer[T]) init(s Shape) { b.factors = newFactors(&b.moments, s, 0, "") }

func (b *layer[T]) Observe(rows []Rows[T]) error { return b.factors.observe(rows[0]) }

func (b *layer[T]) Trace(avg *Averages[T]) float64 {
	return b.factors.trace(avg.Moments[0], avg.Moments[1])
}

func (b *layer[T]) Immediate() bool { return false }
