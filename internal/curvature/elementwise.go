package curvature

import (
	"math"

	"gonum.org/v1/gonum/blas"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// Elementwise holds blocks of the Fisher matrix, each of width x width, for parameters that act
// element by element. A block is the mean over cases of v v^T. The vector v is what one case
// contributes to the gradients, summed over its positions. If the cases can't be told apart, v is
// the sum over all cases. Its v v^T has the same expectation as the sum of the cases' v v^T.
//
// Parameters with few elements have one block for all of them. A single parameter with many
// elements has a block of width 1 for each. The scales and the shifts of many channels have a block
// of width 2 for each (Osawa et al. 2019).
//
// The moment is (channels width) x width. There are rows for each parameter: G holds each case's
// contribution.
type Elementwise[T Float] struct {
	moments[T]
	elements        int // of each parameter
	params          int
	width, channels int
	mean            *moment[T]
	work, v         []float64 // scratch of Apply
}

var _ Block[float64] = (*Elementwise[float64])(nil)

// NewElementwise makes the blocks of params (1 or 2) parameters of the given number of elements
// each. Up to fullBlock elements have one block for all of them.
func NewElementwise[T Float](params, elements, fullBlock int) *Elementwise[T] {
	b := &Elementwise[T]{elements: elements, params: params, width: params, channels: elements}
	if all := params * elements; all <= fullBlock {
		b.width, b.channels = all, 1
	}
	b.mean = b.add("F", newCross[T](b.channels*b.width, b.width), Error{Op: opSquares})
	b.ready()
	b.work, b.v = make([]float64, b.width*b.width), make([]float64, b.width)
	return b
}

// Width returns the number of rows of each block. Channels returns the number of blocks.
func (b *Elementwise[T]) Width() int    { return b.width }
func (b *Elementwise[T]) Channels() int { return b.channels }

// element returns the place of element i of a channel's block: the parameter and the index in it.
func (b *Elementwise[T]) element(channel, i int) (param, at int) {
	if b.channels == 1 {
		return i / b.elements, i % b.elements
	}
	return i, channel
}

// Observe sums v v^T over the cases.
func (b *Elementwise[T]) Observe(rows []Rows[T]) error {
	sums := b.mean.run
	if !rows[0].Again {
		sums = b.mean.sums(rows[0].Cases)
		clear(sums)
	}
	cases, w := len(rows[0].G)/b.elements, b.width
	for c := range b.channels {
		block := sums[c*w*w : (c+1)*w*w]
		for n := range cases {
			b.addOuter(block, rows, c, n)
		}
	}
	if !linalg.Finite(sums) {
		return &Error{Op: "sampled gradients", Err: ErrNotFinite}
	}
	return nil
}

// addOuter adds v v^T of channel and case n to block.
func (b *Elementwise[T]) addOuter(block []T, rows []Rows[T], channel, n int) {
	for i := range b.width {
		p, at := b.element(channel, i)
		vi := rows[p].G[n*b.elements+at]
		for j := range i + 1 {
			p, at := b.element(channel, j)
			s := vi * rows[p].G[n*b.elements+at]
			block[i*b.width+j] += s
			if j < i {
				block[j*b.width+i] += s
			}
		}
	}
}

func (b *Elementwise[T]) Trace(avg *Averages[T]) (t float64) {
	w := b.width
	for c := range b.channels {
		for i := range w {
			t += float64(avg.Moments[0][(c*w+i)*w+i])
		}
	}
	return t
}

func (b *Elementwise[T]) Immediate() bool { return true }

func (b *Elementwise[T]) Invert(avg *Averages[T], d Damping) *Inversion[T] {
	return done[T](elementwiseInverse[T]{b, avg.Moments[0], d.Whole()})
}

// elementwiseInverse solves with each block.
type elementwiseInverse[T Float] struct {
	block   *Elementwise[T] // holds the scratch for Apply
	mean    []T
	damping float64
}

// Apply solves (F + damping I) u = v, channel by channel. It leaves a NaN where there is no
// solution.
func (v elementwiseInverse[T]) Apply(u, grad [][]T) {
	b := v.block
	w := b.width
	for c := range b.channels {
		for i := range w {
			p, at := b.element(c, i)
			b.v[i] = float64(grad[p][at])
		}
		b.solve(v.mean[c*w*w:(c+1)*w*w], v.damping)
		for i := range w {
			p, at := b.element(c, i)
			u[p][at] = T(b.v[i])
		}
	}
}

// solve replaces v by (block + damping I)^-1 v.
func (b *Elementwise[T]) solve(block []T, damping float64) {
	if b.width == 1 {
		b.v[0] /= float64(block[0]) + damping
		return
	}
	solved := retry(damping, func(damping float64) bool {
		if !cholesky(b.work, block, b.width, damping) {
			return false
		}
		linalg.SolveLower(blas.Left, false, b.width, b.work, b.width, 1, b.v)
		linalg.SolveLower(blas.Left, true, b.width, b.work, b.width, 1, b.v)
		return true
	})
	if solved.err != nil {
		b.v[0] = math.NaN()
	}
}

func (b *Elementwise[T]) NewInverse() Inverse[T] { return nil }

func (v elementwiseInverse[T]) Raised() int      { return 0 }
func (v elementwiseInverse[T]) State(Visitor[T]) {}
func (v elementwiseInverse[T]) Release()         {}
