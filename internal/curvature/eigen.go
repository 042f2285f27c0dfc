package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// Eigen is the block of a single layer in its Kronecker-factored eigenbasis, the eigenvectors of A
// and G:
//
//	F = (Q_A (x) Q_G) diag(S) (Q_A (x) Q_G)^T.
//
// Damping adds to S, so that it is that of the whole block and not of its factors. The moments are
// A, G, and S if it is corrected.
//
//   - Otherwise S are the products of the eigenvalues: F = A (x) G.
//   - Corrected, S are the second moments of a case's gradient in the basis, abar x out. Then F is
//     the diagonal matrix in this basis that is nearest to the Fisher matrix: EKFAC (George et al.
//     2018). S is averaged at each update, in the basis of the inverse in use. Where that changes,
//     S goes on as the diagonal of the matrix so far in the new basis. At first S are the products
//     of the eigenvalues.
//
// Rows lie in groups of as many for each case, case after case. What a case has in several rows
// adds up before it is squared. Where there are no groups, rows count as if they were independent.
type Eigen[T Float] struct {
	layer[T]
	corrected bool
	s         *moment[T] // nil if not corrected
	inUse     *eigenbasis[T]

	bases    pool[eigenbasis[T]]
	inverses pool[eigenInverse[T]]
	work     pool[eigenwork[T]]
	turned   turned[T]

	at, gt, rows, product, tmp []T // scratch: rows in the basis, transposed; and of Apply
}

var _ Rebased[float64] = (*Eigen[float64])(nil)

// NewEigen makes the block of a layer without Channels.
func NewEigen[T Float](s Shape, corrected bool) *Eigen[T] {
	abar, out := s.Abar(), s.Out
	b := &Eigen[T]{corrected: corrected, turned: turned[T]{on: s.OutByIn, rows: out, cols: abar}}
	b.init(s)
	if corrected {
		b.s = b.add("S", newCross[T](abar, out), Error{Op: "averages of second moments in its eigenbasis"})
	}
	b.moments.ready()
	b.bases.make = func() *eigenbasis[T] {
		return &eigenbasis[T]{
			a: newEigenvectors[T](abar, s.DiagonalA), g: newEigenvectors[T](out, s.DiagonalG), s: make([]T, abar*out),
		}
	}
	b.inverses.make = func() *eigenInverse[T] { return &eigenInverse[T]{block: b, s: make([]T, abar*out)} }
	b.work.make = func() *eigenwork[T] { return &eigenwork[T]{} }
	return b
}

// share counts one more user of a basis, and drop one less.
func (b *Eigen[T]) share(e *eigenbasis[T]) *eigenbasis[T] {
	if e != nil {
		e.users++
	}
	return e
}

func (b *Eigen[T]) drop(e *eigenbasis[T]) {
	if e == nil {
		return
	}
	if e.users--; e.users == 0 {
		b.bases.put(e)
	}
}

// Keep and Release let go of the basis that was made from the averages.
func (b *Eigen[T]) Keep(next *Averages[T]) {
	b.forget(next)
	b.layer.Keep(next)
}

func (b *Eigen[T]) Release(a *Averages[T]) {
	b.forget(a)
	b.layer.Release(a)
}

func (b *Eigen[T]) forget(a *Averages[T]) {
	b.drop(a.basis)
	a.basis = nil
}

func (b *Eigen[T]) Observe(rows []Rows[T]) error {
	if err := b.layer.Observe(rows); err != nil || !b.corrected {
		return err
	}
	r := rows[0]
	if !r.Again {
		clear(b.s.sums(r.Cases))
	}
	if b.inUse != nil {
		b.observeSquares(&r)
	}
	if !linalg.Finite(b.s.run) {
		return &Error{Op: "second moments in its eigenbasis", Err: ErrNotFinite}
	}
	return nil
}

// observeSquares adds the squares of the cases' gradients in the basis.
func (b *Eigen[T]) observeSquares(r *Rows[T]) {
	f := b.factors
	n, m := f.a.n, f.g.n
	inCase := r.Groups > 0 && f.rows > r.Cases
	if !r.Again {
		x := f.at
		if len(x) != n*f.rows { // A was computed from the image
			b.rows = columnsOf(b.rows, r.A, f.rows, n, f.shape.Bias)
			x = b.rows
		}
		b.at = b.inUse.a.rows(b.at, x)
		if !inCase {
			square(b.at)
		}
	}
	b.gt = b.inUse.g.rows(b.gt, f.gt)
	if !inCase {
		square(b.gt)
		linalg.Gemm(false, true, n, m, f.rows, 1, b.at, b.gt, 1, b.s.run)
		return
	}
	b.product = linalg.Resized(b.product, n*m)
	each := f.rows / (r.Groups * r.Cases)
	for c := range r.Cases {
		for g := range r.Groups {
			at := (g*r.Cases + c) * each
			linalg.GemmLD(false, true, n, m, each, 1, b.at[at:], f.rows, b.gt[at:], f.rows, T(min(g, 1)), b.product, m)
		}
		for i, v := range b.product {
			b.s.run[i] += v * v
		}
	}
}

// rows writes rows, given as X^T (n x rows), in the basis: Q^T X^T.
func (e *eigenvectors[T]) rows(dst, xt []T) []T {
	dst = linalg.Resized(dst, len(xt))
	if e.q == nil {
		copy(dst, xt)
		return dst
	}
	cols := len(xt) / e.n
	linalg.Gemm(false, false, e.n, cols, e.n, 1, e.qT, xt, 0, dst)
	return dst
}

// Invert finds the basis of the averages when it is first asked for an inverse of them.
func (b *Eigen[T]) Invert(avg *Averages[T], d Damping) *Inversion[T] {
	v, w := b.inverses.get(), b.work.get()
	made := &Inversion[T]{}
	old := b.share(b.inUse)
	if avg.basis == nil {
		e := b.share(b.bases.get())
		avg.basis = e
		made.First = []func(){
			func() { e.a.compute(&w.wideA, avg.Moments[0]) },
			func() { e.g.compute(&w.wideG, avg.Moments[1]) },
		}
		made.Then = []func(){func() {
			switch {
			case e.failure() != nil:
			case b.corrected && old != nil:
				e.rotated(e.s, avg.Moments[2], old, w)
			default:
				e.products()
			}
			copy(v.s, e.s)
		}}
	} else {
		copy(v.s, avg.basis.s)
	}
	v.basis, v.damping = b.share(avg.basis), d.Whole()
	made.result = func() (Inverse[T], error) {
		b.work.put(w)
		b.drop(old)
		if err := v.basis.failure(); err != nil {
			v.Release()
			return nil, err
		}
		return v, nil
	}
	return made
}

func (b *Eigen[T]) NewInverse() Inverse[T] {
	v := b.inverses.get()
	v.basis = b.share(b.bases.get())
	return v
}

// Rebase puts S into the basis of the inverse that is in use from now on, and the inverse gets it.
// It returns nothing where S is not corrected.
func (b *Eigen[T]) Rebase(inverse Inverse[T], first bool) (share []T) {
	v := inverse.(*eigenInverse[T])
	if b.corrected {
		s := b.current.Moments[2]
		switch b.inUse {
		case v.basis:
		case nil: // v.s is the whole of it
			if clear(s); first {
				copy(s, v.s)
			}
		default:
			w := b.work.get()
			v.basis.rotated(s, s, b.inUse, w)
			b.work.put(w)
		}
		copy(v.s, s)
		share = v.s
	}
	b.drop(b.inUse)
	b.inUse = b.share(v.basis)
	return share
}

// eigenInverse is (F + damping I)^-1.
type eigenInverse[T Float] struct {
	block   *Eigen[T] // holds the scratch for Apply
	basis   *eigenbasis[T]
	s       []T
	damping float64
}

func (v *eigenInverse[T]) Apply(u, grad [][]T) {
	b := v.block
	x, y := b.turned.enter(u[0], grad[0])
	b.tmp = linalg.Resized(b.tmp, len(x))
	v.basis.into(x, y, b.tmp)
	damping := T(v.damping)
	for i, s := range v.s {
		x[i] /= s + damping
	}
	v.basis.outOf(x, x, b.tmp)
	b.turned.leave(u[0])
}

func (v *eigenInverse[T]) State(to Visitor[T]) {
	v.basis.a.state(to, "Q_A")
	v.basis.g.state(to, "Q_G")
	to.Tensor("S", v.s, v.basis.a.n, v.basis.g.n)
	damping := []float64{v.damping}
	to.Wide("damping", damping)
	v.damping = damping[0]
}

func (e *eigenvectors[T]) state(to Visitor[T], name string) {
	if e.q == nil {
		return
	}
	to.Tensor(name, e.q, e.n, e.n)
	if to.Reads() { // a basis that is shown only may be in use in the background
		linalg.Transpose(e.qT, e.q, e.n, e.n)
	}
}

func (v *eigenInverse[T]) Raised() int { return 0 }

// Dampings returns nothing: nothing is added to the factors.
func (v *eigenInverse[T]) Dampings() []float64 { return nil }

func (v *eigenInverse[T]) Release() {
	v.block.drop(v.basis)
	v.basis = nil
	v.block.inverses.put(v)
}
