package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// Full is a whole block of the Fisher matrix, for parameters that act element by element: the mean
// over cases of v v^T. The vector v is what one case contributes to the gradients of all
// parameters, one behind the other, summed over its positions. It is a Kronecker product with A =
// [1], so that damping adds to the block itself.
//
// It is what [Elementwise] is for a single parameter with few elements. But its inverse costs as
// much as that of a layer's factor, and so is made as often.
//
// The moment is F. There are rows for each parameter: G holds each case's contribution.
type Full[T Float] struct {
	moments[T]
	mean     *moment[T]
	elements []int // of each parameter
	xt       []T   // the rows observed last, F's rows x cases
	inverses pool[fullInverse[T]]
	work     pool[inverter[T]]
	v        []T // scratch of Apply
}

var _ Block[float64] = (*Full[float64])(nil)

// NewFull makes the block of parameters with the given numbers of elements.
func NewFull[T Float](elements ...int) *Full[T] {
	b := &Full[T]{elements: elements}
	n := 0
	for _, e := range elements {
		n += e
	}
	b.mean = b.add("F", newFactor[T](n, false), Error{Op: opSquares})
	b.ready()
	b.inverses.make = func() *fullInverse[T] { return &fullInverse[T]{block: b, f: newFactorInverse[T](n, false)} }
	b.work.make = func() *inverter[T] { return &inverter[T]{} }
	b.v = make([]T, 2*n)
	return b
}

// Size returns the number of rows of the block.
func (b *Full[T]) Size() int { return b.mean.n }

func (b *Full[T]) Observe(rows []Rows[T]) error {
	r := rows[0]
	if r.Again {
		b.mean.multiply() // before its rows are written over
	}
	cases := len(r.G) / b.elements[0]
	b.xt = linalg.Resized(b.xt, b.mean.n*cases)
	at := 0
	for k, n := range b.elements {
		linalg.Transpose(b.xt[at:at+n*cases], rows[k].G, cases, n)
		at += n * cases
	}
	ok := false
	if r.Again {
		ok = b.mean.observeAgain(b.xt, b.xt, cases)
	} else {
		ok = b.mean.observe(b.xt, b.xt, cases, r.Cases)
	}
	if !ok {
		return &Error{Op: "sampled gradients", Err: ErrNotFinite}
	}
	return nil
}

func (b *Full[T]) Trace(avg *Averages[T]) float64 { return b.mean.trace(avg.Moments[0]) }

func (b *Full[T]) Immediate() bool { return false }

func (b *Full[T]) NewInverse() Inverse[T] { return b.inverses.get() }

func (b *Full[T]) Invert(avg *Averages[T], d Damping) *Inversion[T] {
	v, w, damping := b.inverses.get(), b.work.get(), d.Whole()
	return &Inversion[T]{
		First: []func(){func() { v.f.compute(w, avg.Moments[0], damping) }},
		result: func() (Inverse[T], error) {
			b.work.put(w)
			if err := v.f.failure(0, "Cholesky factorisation of F", v.f.n); err != nil {
				v.Release()
				return nil, err
			}
			return v, nil
		},
	}
}

// Factors returns F.
func (b *Full[T]) Factors() []Factor[T] { return []Factor[T]{b.mean.show(b.current.Moments[0])} }

// fullInverse is (F + damping I)^-1.
type fullInverse[T Float] struct {
	block *Full[T] // holds the scratch for Apply
	f     factorInverse[T]
}

func (v *fullInverse[T]) Apply(u, grad [][]T) {
	n := v.f.n
	x, y := v.block.v[:n], v.block.v[n:]
	at := 0
	for _, g := range grad {
		at += copy(x[at:], g)
	}
	linalg.Gemm(false, false, 1, n, n, 1, x, v.f.data, 0, y)
	for _, d := range u {
		y = y[copy(d, y):]
	}
}

func (v *fullInverse[T]) State(to Visitor[T]) { v.f.state(to, "F^-1") }
func (v *fullInverse[T]) Raised() int         { return count(v.f.raised) }
func (v *fullInverse[T]) Dampings() []float64 { return []float64{v.f.damping} }
func (v *fullInverse[T]) Release()            { v.block.inverses.put(v) }
