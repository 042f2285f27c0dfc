package curvature

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// Uncorrelated is the block of a convolution with activations that are taken to be spatially
// uncorrelated (SUA; Grosse & Martens 2016, section 4.3). A kernel has K pixels. A patch has K
// pixels x_k of C channels. m and S are the mean and the covariance of the channels over all
// patches and pixels. Then
//
//	A = D + w w^T,   D = I_K (x) S,   w = 1_K (x) m.
//
// If there is a bias, w is followed by a homogeneous coordinate 1. So a factor of C+1 rows replaces
// a factor of C K + 1 rows. The moments are E[(x,1)(x,1)^T] over pixels, and G. In a patch, the
// elements of a channel are adjacent.
type Uncorrelated[T Float] struct {
	layer[T]
	channels, pixels int // C and K
	inverses         pool[uncorrelatedInverse[T]]
	work             pool[uncorrelatedWork[T]]
	turned           turned[T]
	row              []T // scratch of Apply: C K
}

// uncorrelatedWork is the scratch of an inversion.
type uncorrelatedWork[T Float] struct {
	inverse, covariance []float64 // C x C
	mean, whitened      []float64 // m and q
	a                   linalg.Inverter[float64]
	g                   inverter[T]
}

var _ Block[float64] = (*Uncorrelated[float64])(nil)

// NewUncorrelated makes the block of a layer with Channels and whole factors.
func NewUncorrelated[T Float](s Shape) *Uncorrelated[T] {
	c := s.Channels
	b := &Uncorrelated[T]{
		channels: c, pixels: s.In / c,
		turned: turned[T]{on: !s.OutByIn, rows: s.Abar(), cols: s.Out}, row: make([]T, s.In),
	}
	b.init(s)
	b.ready()
	b.inverses.make = func() *uncorrelatedInverse[T] {
		return &uncorrelatedInverse[T]{
			block: b, p: make([]T, c*c), q: make([]T, c), g: newFactorInverse[T](s.Out, false),
		}
	}
	b.work.make = func() *uncorrelatedWork[T] {
		return &uncorrelatedWork[T]{
			inverse: make([]float64, c*c), covariance: make([]float64, c*c),
			mean: make([]float64, c), whitened: make([]float64, c),
		}
	}
	return b
}

// traceA returns the trace of A, given its factor.
func (b *Uncorrelated[T]) traceA(factor []T) float64 {
	t := float64(b.pixels) * (b.factors.a.trace(factor) - 1) // without the homogeneous coordinate
	if b.factors.shape.Bias {
		t++
	}
	return t
}

func (b *Uncorrelated[T]) Trace(avg *Averages[T]) float64 {
	return b.traceA(avg.Moments[0]) * b.factors.g.trace(avg.Moments[1])
}

func (b *Uncorrelated[T]) NewInverse() Inverse[T] { return b.inverses.get() }

func (b *Uncorrelated[T]) Invert(avg *Averages[T], d Damping) *Inversion[T] {
	v, w := b.inverses.get(), b.work.get()
	a, g, s := avg.Moments[0], avg.Moments[1], b.factors.shape
	dampA, dampG := d.Split(b.traceA(a), s.Abar(), b.factors.g.trace(g), s.Out)
	return &Inversion[T]{
		First: []func(){
			func() { v.computeA(w, a, dampA) },
			func() { v.g.compute(&w.g, g, dampG) },
		},
		result: func() (Inverse[T], error) {
			b.work.put(w)
			err := v.a.failure(0, "Cholesky factorisation of the channels' covariance", b.channels)
			if err == nil {
				err = v.g.failure(0, "Cholesky factorisation of G", v.g.n)
			}
			if err != nil {
				v.Release()
				return nil, err
			}
			return v, nil
		},
	}
}

// uncorrelatedInverse holds the inverse of G and (A + delta I)^-1. The latter comes from the
// formula of Sherman and Morrison. With P = (S + delta I)^-1 and q = P m it is
//
//	I_K (x) P - gain (1_K (x) q) (1_K (x) q)^T
//
// With a bias it has one more column, -cross (1_K (x) q), and one more row, the transpose of that
// column. The element where they meet is corner.
type uncorrelatedInverse[T Float] struct {
	block               *Uncorrelated[T] // holds the scratch for Apply
	p, q                []T
	gain, cross, corner T
	a                   attempt // factorisation of S
	g                   factorInverse[T]
}

// computeA computes (A + delta I)^-1. It raises the damping delta if S + delta I can't be
// factorised.
func (v *uncorrelatedInverse[T]) computeA(w *uncorrelatedWork[T], factor []T, damping float64) {
	n := v.block.channels
	linalg.Convert(w.mean, factor[n*(n+1):n*(n+1)+n]) // the factor is (C+1) x (C+1)
	for i := range n {
		for j := range n {
			w.covariance[i*n+j] = float64(factor[i*(n+1)+j]) - w.mean[i]*w.mean[j]
		}
	}
	v.a = retry(damping, func(damping float64) bool {
		damped(w.inverse, w.covariance, n, damping)
		return w.a.Invert(w.inverse, n) && linalg.Finite(w.inverse)
	})
	if v.a.err != nil {
		return
	}
	q := w.whitened
	blas64.Symv(1, blas64.Symmetric{N: n, Stride: n, Data: w.inverse, Uplo: blas.Lower},
		blas64.Vector{N: n, Data: w.mean, Inc: 1}, 0, blas64.Vector{N: n, Data: q, Inc: 1})
	linalg.Convert(v.p, w.inverse)
	linalg.Convert(v.q, q)
	one := 1 + float64(v.block.pixels)*floats.Dot(w.mean, q)
	if !v.block.factors.shape.Bias {
		v.gain = T(1 / one)
		return
	}
	s := v.a.damping*one + 1
	v.gain, v.cross, v.corner = T(v.a.damping/s), T(1/s), T(one/s)
}

func (v *uncorrelatedInverse[T]) Apply(u, grad [][]T) {
	b := v.block
	x, y := b.turned.enter(u[0], grad[0]) // out x abar
	out, abar := b.factors.shape.Out, b.factors.shape.Abar()
	linalg.Gemm(false, false, out, abar, out, 1, v.g.data, y, 0, x)
	for row := x; len(row) > 0; row = row[abar:] {
		v.applyA(row[:abar])
	}
	b.turned.leave(u[0])
}

// applyA multiplies a row by (A + delta I)^-1, in place. The row has C K elements, with the
// elements of a channel adjacent, and perhaps one more for the bias.
func (v *uncorrelatedInverse[T]) applyA(row []T) {
	k, n := v.block.pixels, v.block.channels
	patches, tmp := row[:n*k], v.block.row
	linalg.Gemm(false, false, n, k, n, 1, v.p, patches, 0, tmp)
	var along T // (1_K (x) q)^T row
	for c, q := range v.q {
		for _, x := range patches[c*k : (c+1)*k] {
			along += q * x
		}
	}
	shift := -v.gain * along
	if len(row) > n*k {
		bias := row[n*k]
		shift -= v.cross * bias
		row[n*k] = v.corner*bias - v.cross*along
	}
	for c, q := range v.q {
		for i := range k {
			patches[c*k+i] = tmp[c*k+i] + shift*q
		}
	}
}

func (v *uncorrelatedInverse[T]) State(to Visitor[T]) {
	n := v.block.channels
	to.Tensor("P", v.p, n, n)
	to.Tensor("q", v.q, n)
	rest := []T{v.gain, v.cross, v.corner}
	to.Tensor("gain, cross, corner", rest, len(rest))
	v.gain, v.cross, v.corner = rest[0], rest[1], rest[2]
	visitFlag(to, "P raised", &v.a.raised)
	visitNumber(to, "P damping", &v.a.damping)
	v.g.state(to, "G^-1")
}

func (v *uncorrelatedInverse[T]) Raised() int { return count(v.a.raised, v.g.raised) }
func (v *uncorrelatedInverse[T]) Release()    { v.block.inverses.put(v) }
