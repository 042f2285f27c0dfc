package curvature

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// A Factor shows a factor A or G of a layer, or the block F of parameters outside layers. It is
// symmetric, with blocks of Width x Width along its diagonal and nothing outside of these. A whole
// factor is one block.
type Factor[T Float] struct {
	N, Width int
	Data     []T     // N x Width: the blocks, one after the other
	Trace    float64 // of the matrix that the factor stands for, which has Rows rows
	Rows     int
}

// show returns a moment's average as a factor. The memory is that of the average.
func (f *moment[T]) show(x []T) Factor[T] {
	f.mirrored(x)
	width := f.n
	if f.diagonal {
		width = 1
	}
	return Factor[T]{N: f.n, Width: width, Data: x, Trace: f.trace(x), Rows: f.n}
}

// Factors returns A and G.
func (b *layer[T]) Factors() []Factor[T] { return b.factors.show(b.current.Moments) }

func (f *factors[T]) show(moments [][]T) []Factor[T] {
	return []Factor[T]{f.a.show(moments[0]), f.g.show(moments[1])}
}

// Factors returns A and G of each layer.
func (b *Chain[T]) Factors() (all []Factor[T]) {
	for i, f := range b.layers {
		all = append(all, f.show(b.current.Moments[2*i:])...)
	}
	return all
}

// Factors returns L and R, with s split between them. They have memory of their own.
func (b *Tied[T]) Factors() []Factor[T] {
	for i, f := range b.moments.list {
		f.mirrored(b.current.Moments[i])
	}
	sum := b.sums.make()
	b.sum(sum, b.current)
	return []Factor[T]{b.ways[0].a.show(sum.l), b.ways[0].g.show(sum.r)}
}

// Factors returns A of a single pixel, and G. The trace is that of the whole A.
func (b *Uncorrelated[T]) Factors() []Factor[T] {
	both := b.layer.Factors()
	both[0].Trace, both[0].Rows = b.traceA(b.current.Moments[0]), b.factors.shape.Abar()
	return both
}

// Factors returns F, each of whose elements counts once however often it repeats.
func (b *Diagonal[T]) Factors() []Factor[T] {
	f := Factor[T]{N: b.squares.n, Width: 1, Data: b.current.Moments[0], Trace: b.Trace(b.current), Rows: b.size}
	return []Factor[T]{f}
}

// Factors returns F.
func (b *Elementwise[T]) Factors() []Factor[T] {
	n := b.channels * b.width
	return []Factor[T]{{N: n, Width: b.width, Data: b.current.Moments[0], Trace: b.Trace(b.current), Rows: n}}
}

// Factors returns nothing.
func (b *Identity[T]) Factors() []Factor[T] { return nil }

// Dampings returns what was added to A and to G.
func (v *KroneckerInverse[T]) Dampings() []float64 { return []float64{v.a.damping, v.g.damping} }

// Dampings returns what was added to A and to G.
func (v *uncorrelatedInverse[T]) Dampings() []float64 { return []float64{v.a.damping, v.g.damping} }

// Dampings returns what was added to A and to G of each layer.
func (t *tridiagonal[T]) Dampings() []float64 { return slices.Clone(t.damping) }

// keepDampings takes the dampings from the junctions that the links were made by.
func (t *tridiagonal[T]) keepDampings(w *junctions[T]) {
	for i := range w.a {
		t.damping[2*i], t.damping[2*i+1] = w.a[i].damping, w.g[i].damping
	}
}

// Dampings returns what is added to F.
func (v diagonalInverse[T]) Dampings() []float64 { return []float64{v.damping} }

// Dampings returns what is added to F.
func (v elementwiseInverse[T]) Dampings() []float64 { return []float64{v.damping} }

// Dampings returns nothing.
func (identity[T]) Dampings() []float64 { return nil }

// Eigenvalues returns all eigenvalues, the largest first. The error wraps linalg.ErrNotFinite or
// linalg.ErrNoConvergence.
func (f Factor[T]) Eigenvalues() ([]float64, error) {
	values := make([]float64, f.N)
	if f.Width == 1 {
		linalg.Convert(values, f.Data)
	} else {
		block := make([]float64, f.Width*f.Width)
		for at := 0; at < f.N; at += f.Width {
			linalg.Convert(block, f.Data[at*f.Width:(at+f.Width)*f.Width])
			if err := linalg.EigenSym(f.Width, block, values[at:at+f.Width]); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(values, func(a, b float64) int { return cmp.Compare(b, a) })
	return values, nil
}

// lanczosSteps is the number of products that Extremes makes.
const lanczosSteps = 32

// Extremes estimates the largest and the smallest eigenvalue, by up to 32 products with a vector
// (Lanczos, with every vector made orthogonal to all before it). It is exact but for rounding up to
// 32 rows, and for a diagonal. Otherwise the largest is no smaller and the smallest no larger than
// the estimate says. They are NaN where the factor is not finite.
func (f Factor[T]) Extremes() (largest, smallest float64) {
	if f.Width <= lanczosSteps {
		values, err := f.Eigenvalues()
		if err != nil || len(values) == 0 {
			return math.NaN(), math.NaN()
		}
		return values[0], values[f.N-1]
	}
	a := make([]float64, f.N*f.N)
	linalg.Convert(a, f.Data)
	if !linalg.Finite(a) {
		return math.NaN(), math.NaN()
	}
	alpha, beta := lanczos(blas64.Symmetric{N: f.N, Stride: f.N, Data: a, Uplo: blas.Upper}, lanczosSteps)
	k := len(alpha)
	t := Factor[float64]{N: k, Width: k, Data: make([]float64, k*k)}
	for i := range k {
		t.Data[i*k+i] = alpha[i]
		if i+1 < k {
			t.Data[i*k+i+1], t.Data[(i+1)*k+i] = beta[i], beta[i]
		}
	}
	values, err := t.Eigenvalues()
	if err != nil {
		return math.NaN(), math.NaN()
	}
	return values[0], values[k-1]
}

// lanczos returns the diagonal and the subdiagonal of the tridiagonal matrix of a in the space that
// a random vector and its images span (Golub & Van Loan, Matrix Computations, section 10.1). It
// takes fewer than the given number of steps where that space is smaller.
func lanczos(a blas64.Symmetric, steps int) (alpha, beta []float64) {
	rng := rand.New(rand.NewPCG(1, uint64(a.N)))
	q := make([]float64, a.N)
	for i := range q {
		q[i] = rng.NormFloat64()
	}
	floats.Scale(1/floats.Norm(q, 2), q)
	var basis [][]float64
	for {
		basis = append(basis, q)
		next := make([]float64, a.N)
		blas64.Symv(1, a, blas64.Vector{N: a.N, Inc: 1, Data: q}, 0, blas64.Vector{N: a.N, Inc: 1, Data: next})
		image := floats.Norm(next, 2)
		alpha = append(alpha, floats.Dot(q, next))
		for range 2 { // the second time against the rounding of the first
			for _, before := range basis {
				floats.AddScaled(next, -floats.Dot(before, next), before)
			}
		}
		norm := floats.Norm(next, 2)
		if len(alpha) == steps || !(norm > 1e-12*image) {
			return alpha, beta
		}
		floats.Scale(1/norm, next)
		beta, q = append(beta, norm), next
	}
}
