package kfac

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// uncorrelatedBlock is the block of a convolution whose activations are taken to be spatially uncorrelated (SUA; Grosse & Martens 2016, section 4.3). With
// K pixels in a kernel, the patch of K pixels x_k of C channels, and the mean m and the covariance S of the channels over all patches and pixels,
//
//	A = D + w w^T,   D = I_K (x) S,   w = 1_K (x) m,
//
// with a homogeneous coordinate 1 behind w if there is a bias. So a factor of C+1 rows takes the place of one of C K + 1.
type uncorrelatedBlock[T program.Float] struct {
	*layerBlock[T] // its factor A is E[(x,1)(x,1)^T] over pixels
	channels       int
	pixels         int // K

	now, next, aside *uncorrelatedInverse[T] // of A; next is that of the step in progress, aside that of stash, made when first needed
	g                inverseFactor[T]
	work, covariance []float64 // C x C
	mean, whitened   []float64 // m and q
	damping          float64   // that was added to A at last
	raised           bool
	err              error
	v, u             []T // out x abar
}

// uncorrelatedInverse is (A + delta I)^-1 by the formula of Sherman and Morrison. With P = (S + delta I)^-1 and q = P m it is
//
//	I_K (x) P - gain (1_K (x) q) (1_K (x) q)^T
//
// and with a bias it has a last column -cross (1_K (x) q) and a last row alike, and corner where they meet.
type uncorrelatedInverse[T program.Float] struct {
	p, q                []T
	gain, cross, corner T
}

func newUncorrelatedInverse[T program.Float](channels int) *uncorrelatedInverse[T] {
	return &uncorrelatedInverse[T]{p: make([]T, channels*channels), q: make([]T, channels)}
}

func newUncorrelatedBlock[T program.Float](l *layer, weight, bias *parameter[T]) *uncorrelatedBlock[T] {
	c, b := l.Channels, newLayerBlock(l, weight, bias)
	return &uncorrelatedBlock[T]{
		layerBlock: b, channels: c, pixels: l.In / c,
		now: newUncorrelatedInverse[T](c), next: newUncorrelatedInverse[T](c), g: newInverseFactor[T](l.Out, false),
		work: make([]float64, c*c), covariance: make([]float64, c*c), mean: make([]float64, c), whitened: make([]float64, c), v: make([]T, len(b.grad)), u: make([]T, len(b.grad)),
	}
}

// observe: X^T, of C K rows with those of a channel together, is at once the C rows of the channels over all patches and pixels.
func (b *uncorrelatedBlock[T]) observe(run *program.Run[T]) error {
	f, l := b.factors, b.layer
	c := capture(l, run, &f.buf)
	f.rows = len(c.g) / l.Out
	pixels := f.rows * b.pixels
	f.at = columnsOf(f.at, c.a, f.rows, l.In, false)
	for range pixels {
		f.at = append(f.at, 1)
	}
	f.gt = columnsOf(f.gt, c.g, f.rows, l.Out, false)
	if !f.a.observe(f.at, f.at, pixels, pixels) || !f.g.observe(f.gt, f.gt, f.rows, c.cases) {
		return b.badMoments("second moments of its inputs and sampled gradients")
	}
	return nil
}

// traceA is that of A, not of its factor.
func (b *uncorrelatedBlock[T]) traceA() float64 {
	t := float64(b.pixels) * (b.factors.a.trace() - 1) // without the homogeneous coordinate
	if b.layer.Bias != nil {
		t++
	}
	return t
}

func (b *uncorrelatedBlock[T]) trace() float64 { return b.traceA() * b.factors.g.trace() }

func (b *uncorrelatedBlock[T]) inversions(gamma float64) (first, then []func()) {
	f := b.factors
	dampA, dampG := factoredTikhonov(b.traceA(), b.layer.Abar(), f.g.trace(), b.layer.Out, gamma)
	return []func(){
		func() { b.invertA(dampA) },
		func() { b.g.factorise(f.g.source(), dampG) },
	}, nil
}

// invertA computes next, and raises the damping where S can't be factorised.
func (b *uncorrelatedBlock[T]) invertA(damping float64) {
	n := b.channels
	factor := b.factors.a.source() // (C+1) x (C+1)
	mean, covariance := b.mean, b.covariance
	linalg.Convert(mean, factor[n*(n+1):n*(n+1)+n])
	for i := range n {
		for j := range n {
			covariance[i*n+j] = float64(factor[i*(n+1)+j]) - mean[i]*mean[j]
		}
	}
	b.damping, b.raised, b.err = raising(damping, func(damping float64) bool {
		chol, ok := cholesky(b.work, covariance, n, damping)
		if ok {
			_, ok = lapack64.Potri(chol)
		}
		return ok && linalg.Finite(b.work)
	})
	if b.err != nil {
		return
	}
	linalg.MirrorLower(b.work, n)
	q := b.whitened
	blas64.Symv(1, blas64.Symmetric{N: n, Stride: n, Data: b.work, Uplo: blas.Lower},
		blas64.Vector{N: n, Data: mean, Inc: 1}, 0, blas64.Vector{N: n, Data: q, Inc: 1})
	linalg.Convert(b.next.p, b.work)
	linalg.Convert(b.next.q, q)
	one := 1 + float64(b.pixels)*floats.Dot(mean, q)
	if b.layer.Bias == nil {
		b.next.gain = T(1 / one)
		return
	}
	s := b.damping*one + 1
	b.next.gain, b.next.cross, b.next.corner = T(b.damping/s), T(1/s), T(one/s)
}

func (b *uncorrelatedBlock[T]) inverted() (raised int, err error) {
	if b.err != nil {
		return 0, notFactorised(b.layer, "Cholesky factorisation of the channels' covariance", b.channels, b.damping, b.err)
	}
	if b.g.err != nil {
		return 0, notFactorised(b.layer, "Cholesky factorisation of G", b.g.n, b.g.damping, b.g.err)
	}
	for _, r := range []bool{b.raised, b.g.raised} {
		if r {
			raised++
		}
	}
	return raised, nil
}

// precondition computes U = G^-1 V A^-1 for V of out x abar.
func (b *uncorrelatedBlock[T]) precondition(_ float64, fresh bool) {
	b.gather()
	inverse := b.now
	if fresh {
		inverse = b.next
	}
	out, abar := b.layer.Out, b.layer.Abar()
	v, u := b.grad, b.dir
	if !b.layer.OutByIn {
		v, u = b.v, b.u
		linalg.Transpose(v, b.grad, abar, out)
	}
	linalg.Gemm(false, false, out, abar, out, 1, b.g.at(fresh), v, 0, u)
	for o := range out {
		b.applyA(inverse, u[o*abar:(o+1)*abar])
	}
	if !b.layer.OutByIn {
		linalg.Transpose(b.dir, u, out, abar)
	}
	b.scatter()
}

// applyA replaces a row, C K elements with those of a channel together and perhaps one of the bias behind them, by its product with (A + delta I)^-1.
func (b *uncorrelatedBlock[T]) applyA(inverse *uncorrelatedInverse[T], row []T) {
	k, n := b.pixels, b.channels
	patches, tmp := row[:n*k], b.v[:n*k]
	if b.layer.OutByIn {
		tmp = b.u[:n*k]
	}
	linalg.Gemm(false, false, n, k, n, 1, inverse.p, patches, 0, tmp)
	var along T // (1_K (x) q)^T row
	for c, q := range inverse.q {
		for _, x := range patches[c*k : (c+1)*k] {
			along += q * x
		}
	}
	shift := -inverse.gain * along
	if b.layer.Bias != nil {
		bias := row[n*k]
		shift -= inverse.cross * bias
		row[n*k] = inverse.corner*bias - inverse.cross*along
	}
	for c, q := range inverse.q {
		for i := range k {
			patches[c*k+i] = tmp[c*k+i] + shift*q
		}
	}
}

func (b *uncorrelatedBlock[T]) stash() {
	if b.aside == nil {
		b.aside = newUncorrelatedInverse[T](b.channels)
	}
	b.next, b.aside = b.aside, b.next
	b.g.stash()
}

func (b *uncorrelatedBlock[T]) keep(fresh bool) {
	b.factors.keep()
	if fresh {
		b.now, b.next = b.next, b.now
		b.g.keep()
	}
}
