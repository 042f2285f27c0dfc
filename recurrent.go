package kfac

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// TimeCorrelation is how the uses of a recurrent weight at different time steps are taken to depend on each other (Martens, Ba & Johnson 2018).
type TimeCorrelation string

const (
	// TimeIndependent: not at all. F is the sum of the time steps' own Kronecker products, as for any other shared weight.
	TimeIndependent TimeCorrelation = "independent"
	// TimeSymmetric: as a linear Gaussian chain in which a step depends on the one before as that on it ("option 1" of the paper).
	TimeSymmetric TimeCorrelation = "symmetric"
	// TimeStationary: as a linear Gaussian chain without end ("option 2" of the paper); for long sequences.
	TimeStationary TimeCorrelation = "stationary"
)

// recurrentBlock is the block of a weight that is used once at each of T time steps. Its gradient is the sum of w_t = vec(abar_t g_t^T), and
//
//	F = sum over t and t' of E[w_t w_t'^T],  where E[w_{t+1} w_t^T] = A' (x) G'  and  E[w_t w_t^T] = A (x) G
//
// and what is farther apart depends by what is in between: w_{t+1} = Phi w_t + noise (Martens, Ba & Johnson 2018, section 3.5). The time steps are those of the
// graph's construction.
type recurrentBlock[T program.Float] struct {
	*layerBlock[T]
	lagA, lagG moment[T] // A' and G': E[abar_{t+1} abar_t^T], E[g_{t+1} g_t^T], with the same divisors as A and G

	a, g             junction[T]
	now, next, aside *recurrentInverse[T] // next is that of the step in progress; aside that of stash, made when first needed
	v, u             []T                  // abar x out: the layer's own memory, or room for what is transposed
}

func newRecurrentBlock[T program.Float](l *layer, weight, bias *parameter[T], c TimeCorrelation) *recurrentBlock[T] {
	b := &recurrentBlock[T]{layerBlock: newLayerBlock(l, weight, bias)}
	abar, out := l.Abar(), l.Out
	b.lagA, b.lagG = newMoment[T](abar, abar), newMoment[T](out, out)
	b.now, b.next = newRecurrentInverse[T](l, c), newRecurrentInverse[T](l, c)
	b.a, b.g = newLagJunction[T](abar, c), newLagJunction[T](out, c)
	b.v, b.u = b.grad, b.dir
	if l.OutByIn {
		b.v, b.u = make([]T, len(b.grad)), make([]T, len(b.dir))
	}
	return b
}

func newLagJunction[T program.Float](n int, c TimeCorrelation) junction[T] {
	j := junction[T]{n: n, m: n, chol: make([]float64, n*n), eigen: make([]float64, n*n), whiten: make([]float64, n*n)}
	if c == TimeStationary {
		j.regress = make([]float64, n*n)
	}
	return j
}

func (b *recurrentBlock[T]) observe(run *program.Run[T]) error {
	if err := b.layerBlock.observe(run); err != nil {
		return err
	}
	f := b.factors
	a := b.lagA.observeLag(f.at, f.rows, len(b.layer.Sites), f.a.runCount)
	g := b.lagG.observeLag(f.gt, f.rows, len(b.layer.Sites), f.g.runCount)
	if !a || !g {
		return b.badMoments("cross moments of its time steps")
	}
	return nil
}

// observeLag computes the sum of x_{t+1} x_t^T, given X^T (n x rows) with the rows of one time step behind those of another.
func (f *moment[T]) observeLag(xt []T, rows, steps, count int) (ok bool) {
	lag, run := rows/steps, f.sums(count)
	linalg.GemmLD(false, true, f.n, f.n, rows-lag, 1, xt[lag:], rows, xt, rows, 0, run, f.n)
	return linalg.Finite(run)
}

// lags calls f for both lag moments.
func (b *recurrentBlock[T]) lags(f func(*moment[T])) {
	f(&b.lagA)
	f(&b.lagG)
}

func (b *recurrentBlock[T]) take() {
	b.layerBlock.take()
	b.lags((*moment[T]).take)
}

func (b *recurrentBlock[T]) drop() {
	b.layerBlock.drop()
	b.lags((*moment[T]).drop)
}

func (b *recurrentBlock[T]) average(ema float64, settle bool) error {
	eps := decay(b.factors.updates+1, ema)
	if err := b.layerBlock.average(ema, settle); err != nil {
		return err
	}
	if !b.lagA.average(eps, settle) || !b.lagG.average(eps, settle) {
		return b.badMoments("averages of the cross moments of its time steps")
	}
	return nil
}

// inversions: K and s of both sides, and then what the two make together.
func (b *recurrentBlock[T]) inversions(gamma float64) (first, then []func()) {
	dampA, dampG := b.dampings(gamma)
	side := func(j *junction[T], l *link[T], factor, lag []T, damping float64) func() {
		return func() {
			j.decompose(factor, damping)
			if b.next.correlation == TimeStationary {
				j.join(l, j, lag)
			} else {
				j.joinSymmetric(l, lag)
			}
		}
	}
	inverse := b.next
	inverse.steps = len(b.layer.Sites) // not in every graph the same
	first = []func(){
		side(&b.a, &inverse.a[0], b.factors.a.source(), b.lagA.source(), dampA),
		side(&b.g, &inverse.g[0], b.factors.g.source(), b.lagG.source(), dampG),
	}
	return first, []func(){inverse.computeGains}
}

// joinSymmetric computes K and s for the symmetric part of the lag moment X: K^T F K = I and K^T ((X + X^T)/2) K = diag(s).
func (j *junction[T]) joinSymmetric(l *link[T], lag []T) {
	if j.failed {
		return
	}
	j.op = "eigenproblem of the lag"
	for r := range j.n {
		for c := range j.n {
			j.eigen[r*j.n+c] = (float64(lag[r*j.n+c]) + float64(lag[c*j.n+r])) / 2
		}
	}
	whitened := general(j.eigen, j.n, j.n)
	blas64.Trsm(blas.Left, blas.NoTrans, 1, j.lower(), whitened)
	blas64.Trsm(blas.Right, blas.Trans, 1, j.lower(), whitened)
	linalg.MirrorLower(j.eigen, j.n)
	if !linalg.Finite(j.eigen) {
		j.err = ErrNotFinite
		return
	}
	if j.err = linalg.EigenSym(j.n, j.eigen, l.s); j.err == nil {
		j.finish(l)
	}
}

func (b *recurrentBlock[T]) freeze(on bool) {
	b.layerBlock.freeze(on)
	b.lags(func(m *moment[T]) { m.freeze(on) })
}

func (b *recurrentBlock[T]) inverted() (raised int, err error) {
	for side, j := range []*junction[T]{&b.a, &b.g} {
		if j.err != nil {
			return 0, notFactorised(b.layer, j.op+" of "+"AG"[side:side+1], j.n, j.damping, j.err)
		}
		if j.raised {
			raised++
		}
	}
	return raised, nil
}

func (b *recurrentBlock[T]) precondition(_ float64, fresh bool) {
	b.gather()
	if b.layer.OutByIn {
		linalg.Transpose(b.v, b.grad, b.layer.Out, b.layer.Abar())
	}
	inverse := b.now
	if fresh {
		inverse = b.next
	}
	inverse.apply(b.u, b.v)
	if b.layer.OutByIn {
		linalg.Transpose(b.dir, b.u, b.layer.Abar(), b.layer.Out)
	}
	b.scatter()
}

func (b *recurrentBlock[T]) stash() {
	if b.aside == nil {
		b.aside = newRecurrentInverse[T](b.layer, b.next.correlation)
	}
	b.next, b.aside = b.aside, b.next
}

func (b *recurrentBlock[T]) keep(fresh bool) {
	b.factors.keep()
	b.lags((*moment[T]).keep)
	if fresh {
		b.now, b.next = b.next, b.now
	}
}

// recurrentInverse is (F + damping)^-1 for a recurrent weight, with A and G damped as in the independent case. In the basis K, in which A and G are identities:
//
//   - TimeSymmetric: A' and G' are symmetric, and diagonal with s_A and s_G there, so that F is diagonal with
//     sum over |d| < T of (1 - |d|/T) (s_A s_G)^|d|; the sum over t is in G already.
//   - TimeStationary: F^-1 = (I - Phi)^T Q^-1 (I - Phi) with Phi = (A' A^-1) (x) (G' G^-1), and Q = A (x) G - Phi (A (x) G) Phi^T diagonal with 1 - s_A s_G there: the
//     block-tridiagonal inverse of a layer that is its own neighbour.
//
// See Martens, Ba & Johnson 2018, sections 3.5.3 and 3.5.4.
type recurrentInverse[T program.Float] struct {
	tridiagonal[T]
	correlation TimeCorrelation
	steps       int // of time
	gains       []T // abar x out: what is multiplied by in the basis K
	y           []T
}

func newRecurrentInverse[T program.Float](l *layer, c TimeCorrelation) *recurrentInverse[T] {
	abar, out := l.Abar(), l.Out
	v := &recurrentInverse[T]{correlation: c, gains: make([]T, abar*out)}
	v.tmp = make([]T, abar*out)
	v.a, v.g = newLinks[T]([]int{abar}), newLinks[T]([]int{out})
	if c == TimeStationary {
		v.y = make([]T, abar*out)
		for _, l := range []*link[T]{&v.a[0], &v.g[0]} {
			l.m, l.psi, l.psiT = l.n, make([]T, l.n*l.n), make([]T, l.n*l.n)
		}
	}
	return v
}

// computeGains needs the links of both sides.
func (v *recurrentInverse[T]) computeGains() {
	cols := v.g[0].n
	for r, sA := range v.a[0].s {
		for c, sG := range v.g[0].s {
			v.gains[r*cols+c] = T(v.gain(sA * sG))
		}
	}
}

func (v *recurrentInverse[T]) gain(x float64) float64 {
	if v.correlation == TimeStationary {
		return 1 / max(1-x, minGap)
	}
	x = min(max(x, -1), 1)
	sum, power := 1.0, 1.0
	for d := 1; d < v.steps; d++ {
		power *= x
		sum += 2 * (1 - float64(d)/float64(v.steps)) * power
	}
	return 1 / max(sum, minGap)
}

// apply computes U for V of abar x out. They must not share memory.
func (v *recurrentInverse[T]) apply(u, grad []T) {
	a, g := &v.a[0], &v.g[0]
	copy(u, grad)
	if v.correlation == TimeStationary {
		v.subtract(u, a.psi, g.psi, grad, 0, 0)
	}
	v.solveWith(u, 0, func(x []T) {
		for i, s := range v.gains {
			x[i] *= s
		}
	})
	if v.correlation == TimeStationary {
		copy(v.y, u)
		v.subtract(u, a.psiT, g.psiT, v.y, 0, 0)
	}
}
