package kfac

import (
	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A parameter is one tensor being trained, with what a step works out for it.
type parameter[T program.Float] struct {
	key      key
	place[T] // in the graph that the solver is attached to; of one that this lacks, only the block that waits

	given bool // in the list of this step
	store flat[T]
	grad  []T // of the step's objective; zero if not given
	taken []T // sum of the gradients of the chunks before; made when first needed
	dir   []T // preconditioned gradient

	velocity, next []T // the previous update of this parameter, and this step's
	gradBefore     []T // grad of the step that made the previous update
	best           []T // the best update so far of a search
	mean           []T // the iterate average
	averages       int // iterates in it
}

func (p *parameter[T]) name() string { return p.key.name }

// A block is the curvature of one layer, of a chain of layers, or of one parameter outside layers. All its methods work on what the
// step in progress makes of it, until keep makes that current.
type block[T program.Float] interface {
	// bind lets the parameters' gradients and directions be those that the block computes with.
	bind()
	// rest lets go of the graph, where that is one which the block has no part in any more, or for the time being.
	rest()
	// needsInverse reports whether there is no inverse yet that precondition could use.
	needsInverse() bool
	// observe computes second moments from a run after its sampled backward sweep.
	observe(run *program.Run[T]) error
	// take counts the run observed last as one of several of the step in progress; drop forgets those.
	take()
	drop()
	// average brings the running averages up to date with the runs taken and the one observed last. settle says that trace or, without freeze, inversions will be called,
	// for which they have to be whole.
	average(ema float64, settle bool) error
	// trace is the sum of the eigenvalues of the step's curvature.
	trace() float64
	// inversions returns what there is to compute before precondition, given gamma: functions that may run concurrently, and then others.
	inversions(gamma float64) (first, then []func())
	// freeze makes inversions start from a copy of the current averages, if on, and not from those of the step in progress.
	freeze(on bool)
	// inverted reports what came of them, and how many factors had to be damped more.
	inverted() (raised int, err error)
	// precondition turns the gradients of its parameters into directions, U = (F + damping)^-1 V. fresh says that the inverse is this step's.
	precondition(gamma float64, fresh bool)
	// stash puts the step's inverse aside in exchange for the one that was put aside before.
	stash()
	// keep makes the step's statistics current and, if fresh, its inverse.
	keep(fresh bool)
}

// ofLayer is a block of a layer by itself.
type ofLayer[T program.Float] interface {
	block[T]
	base() *layerBlock[T]
}

// layerBlock is what every kind of block for a layer has: its parameters, its factors, and the memory for V and U.
type layerBlock[T program.Float] struct {
	layer        *layer // in the graph that the solver is attached to
	layout       layers.Layout
	weight, bias *parameter[T]
	factors      *factors[T]

	grad, dir   []T // V, U: abar x out, or out x abar
	interleaved bool
}

func newLayerBlock[T program.Float](l *layer, weight, bias *parameter[T]) *layerBlock[T] {
	n := l.Abar() * l.Out
	b := &layerBlock[T]{
		layer: l, layout: l.Layout(), weight: weight, bias: bias, factors: newFactors[T](l),
		grad: make([]T, n), dir: make([]T, n), interleaved: bias != nil && l.OutByIn,
	}
	b.bind()
	return b
}

// bind: weight and bias lie behind each other in the block's memory, so that nothing needs to be copied, unless they are interleaved.
func (b *layerBlock[T]) bind() {
	if b.interleaved {
		return
	}
	w := b.layer.In * b.layer.Out
	b.weight.grad, b.weight.dir = b.grad[:w], b.dir[:w]
	if b.bias != nil {
		b.bias.grad, b.bias.dir = b.grad[w:], b.dir[w:]
	}
}

// serves reports whether the block is that of a layer with these parameters and factors of the same kind, in whatever graph and however often it is used.
func (b *layerBlock[T]) serves(l *layer, weight, bias *parameter[T]) bool {
	return b.weight == weight && b.bias == bias && b.layout == l.Layout()
}

func (b *layerBlock[T]) base() *layerBlock[T] { return b }

func (b *layerBlock[T]) rest() { b.layer = nil }

func (b *layerBlock[T]) needsInverse() bool { return b.factors.updates == 0 }

func (b *layerBlock[T]) observe(run *program.Run[T]) error {
	if b.factors.observe(b.layer, run) {
		return nil
	}
	return b.badMoments("second moments of its inputs and sampled gradients")
}

func (b *layerBlock[T]) badMoments(op string) error {
	return &LayerError{Layer: b.layer.Name(), Op: op, Err: ErrNotFinite,
		Hint: "a NaN, an infinity or an overflow in its inputs, or in the gradients that reach it: look at the data and at the weights"}
}

func (b *layerBlock[T]) take() { b.factors.take() }
func (b *layerBlock[T]) drop() { b.factors.drop() }

func (b *layerBlock[T]) average(ema float64, settle bool) error {
	if b.factors.average(ema, settle) {
		return nil
	}
	return b.badMoments("averages of its second moments")
}

func (b *layerBlock[T]) trace() float64 { return b.factors.a.trace() * b.factors.g.trace() }

// gather brings V together, and scatter hands U out, where weight and bias are interleaved.
func (b *layerBlock[T]) gather() {
	if b.interleaved {
		b.weave(b.grad, b.weight.grad, b.bias.grad, true)
	}
}

func (b *layerBlock[T]) scatter() {
	if b.interleaved {
		b.weave(b.dir, b.weight.dir, b.bias.dir, false)
	}
}

// weave copies weight (out x in) and bias to, or from, a matrix of out x abar.
func (b *layerBlock[T]) weave(m, weight, bias []T, to bool) {
	in, abar := b.layer.In, b.layer.Abar()
	for o := range b.layer.Out {
		row := m[o*abar : (o+1)*abar]
		if to {
			copy(row, weight[o*in:(o+1)*in])
			row[in] = bias[o]
		} else {
			copy(weight[o*in:(o+1)*in], row)
			bias[o] = row[in]
		}
	}
}

func (b *layerBlock[T]) freeze(on bool) {
	b.factors.a.freeze(on)
	b.factors.g.freeze(on)
}

// dampings are what factored Tikhonov damping adds to the diagonals of A and G.
func (b *layerBlock[T]) dampings(gamma float64) (dampA, dampG float64) {
	f := b.factors
	return factoredTikhonov(f.a.trace(), f.a.n, f.g.trace(), f.g.n, gamma)
}

// kroneckerBlock is the block A (x) G of a layer by itself.
type kroneckerBlock[T program.Float] struct {
	*layerBlock[T]
	inverse *inverse[T]
	tmp     []T // scratch of V's size
	low     lowRank[T]
}

func newKroneckerBlock[T program.Float](l *layer, weight, bias *parameter[T]) *kroneckerBlock[T] {
	b := newLayerBlock(l, weight, bias)
	return &kroneckerBlock[T]{layerBlock: b, inverse: newInverse[T](l), tmp: make([]T, len(b.grad))}
}

func (b *kroneckerBlock[T]) inversions(gamma float64) (first, then []func()) {
	f, v := b.factors, b.inverse
	dampA, dampG := b.dampings(gamma)
	return []func(){
		func() { v.a.factorise(f.a.source(), dampA) },
		func() { v.g.factorise(f.g.source(), dampG) },
	}, nil
}

func (b *kroneckerBlock[T]) inverted() (raised int, err error) {
	for i, v := range []*inverseFactor[T]{&b.inverse.a, &b.inverse.g} {
		if v.err != nil {
			return 0, notFactorised(b.layer, "Cholesky factorisation of "+"AG"[i:i+1], v.n, v.damping, v.err)
		}
		if v.raised {
			raised++
		}
	}
	return raised, nil
}

func notFactorised(l *layer, op string, dim int, damping float64, err error) error {
	return &LayerError{Layer: l.Name(), Op: op, Dim: dim, Damping: damping, Err: err,
		Hint: "raise WithDamping, or look for inputs of very different scales"}
}

func (b *kroneckerBlock[T]) precondition(_ float64, fresh bool) {
	b.gather()
	if b.low.holds {
		b.inverse.applyLowRank(b.dir, b.factors.at, &b.low, b.layer.OutByIn, fresh)
	} else {
		b.inverse.apply(b.dir, b.grad, b.tmp, b.layer.OutByIn, fresh)
	}
	b.scatter()
}

func (b *kroneckerBlock[T]) stash() {
	b.inverse.a.stash()
	b.inverse.g.stash()
}

func (b *kroneckerBlock[T]) keep(fresh bool) {
	b.factors.keep()
	if fresh {
		b.inverse.a.keep()
		b.inverse.g.keep()
	}
}

// tiedBlock is the block of a weight that is used both ways round, as W and as W^T. Each way has Kronecker factors of its own. Their sum
//
//	F = A_1 (x) G_1 + G_2 (x) A_2
//
// is approximated by one Kronecker product, L (x) R / s with L = tr(G_1) A_1 + tr(A_2) G_2, R = tr(A_1) G_1 + tr(G_2) A_2 and s = tr(F): its partial traces
// are those of F.
type tiedBlock[T program.Float] struct {
	*kroneckerBlock[T] // its factors are L and R
	ways               [2]*factors[T]
}

func newTiedBlock[T program.Float](l *layer, weight, bias *parameter[T]) *tiedBlock[T] {
	return &tiedBlock[T]{newKroneckerBlock(l, weight, bias), [2]*factors[T]{newFactors[T](l), newFactors[T](l.Tied)}}
}

func (b *tiedBlock[T]) observe(run *program.Run[T]) error {
	for i, l := range []*layer{b.layer, b.layer.Tied} {
		if !b.ways[i].observe(l, run) {
			return b.badMoments("second moments of its inputs and sampled gradients")
		}
	}
	return nil
}

func (b *tiedBlock[T]) take() {
	for _, f := range b.ways {
		f.take()
	}
}

func (b *tiedBlock[T]) drop() {
	for _, f := range b.ways {
		f.drop()
	}
}

func (b *tiedBlock[T]) average(ema float64, _ bool) error {
	for _, f := range b.ways {
		if !f.average(ema, true) {
			return b.badMoments("averages of its second moments")
		}
	}
	b.sum()
	return nil
}

// sum computes the Kronecker product in place of the sum. How the scale is divided between its factors does not matter to the inverse, since factored Tikhonov
// damping balances their traces; they are means with the weights tr(G_1) and tr(A_2) for the first.
func (b *tiedBlock[T]) sum() {
	a1, g1, a2, g2 := &b.ways[0].a, &b.ways[0].g, &b.ways[1].a, &b.ways[1].g
	trA1, trG1, trA2, trG2 := a1.trace(), g1.trace(), a2.trace(), g2.trace()
	l, r, trace := b.factors.a.next, b.factors.g.next, trA1*trG1+trA2*trG2
	b.factors.a.settled, b.factors.g.settled = true, true
	clear(l)
	clear(r)
	if trace == 0 {
		return
	}
	w := trG1 + trA2
	b.addTo(l, b.factors.a.n, trG1/w, a1)
	b.addTo(l, b.factors.a.n, trA2/w, g2) // without the homogeneous coordinate, which the transposed use has not
	b.addTo(r, b.factors.g.n, trA1*w/trace, g1)
	b.addTo(r, b.factors.g.n, trG2*w/trace, a2)
}

// addTo adds a multiple of f to the leading rows and columns of sum, n x n, or n elements if f is diagonal.
func (b *tiedBlock[T]) addTo(sum []T, n int, alpha float64, f *moment[T]) {
	if f.diagonal {
		linalg.Axpy(T(alpha), f.next, sum[:f.n])
		return
	}
	for i := range f.n {
		linalg.Axpy(T(alpha), f.next[i*f.n:(i+1)*f.n], sum[i*n:i*n+f.n])
	}
}

func (b *tiedBlock[T]) keep(fresh bool) {
	for _, f := range b.ways {
		f.keep()
	}
	b.kroneckerBlock.keep(fresh)
}

// diagonalBlock is the diagonal of the Fisher matrix for a parameter outside layers, E[(dL/dtheta_i)^2].
//
// The sampled gradients of different cases are independent and have mean zero, so the square of their sum has the
// expectation of the sum of their squares (Martens & Grosse 2015, lemma 4): one backward sweep over all cases is enough.
type diagonalBlock[T program.Float] struct {
	param   *parameter[T]
	mean    moment[float64] // of the squares: n x 1
	updates int
}

func newDiagonalBlock[T program.Float](p *parameter[T]) *diagonalBlock[T] {
	return &diagonalBlock[T]{param: p, mean: newMoment[float64](diagonalSize(p.leaf), 1)}
}

// diagonalSize is the number of entries that a parameter's diagonal has; see observe.
func diagonalSize(leaf *program.Node) int {
	if perCase := leaf.CaseAxis == 0; perCase {
		return size(leaf.Shape[1:])
	}
	return leaf.Size()
}

func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

func (b *diagonalBlock[T]) bind()              {}
func (b *diagonalBlock[T]) rest()              {}
func (b *diagonalBlock[T]) needsInverse() bool { return false }

func (b *diagonalBlock[T]) observe(run *program.Run[T]) error {
	grad := run.Gradient(b.param.leaf)
	if !linalg.Finite(grad) {
		return &LayerError{Layer: b.param.name(), Op: "sampled gradient", Err: ErrNotFinite, Hint: "look at the data and at the weights"}
	}
	n := b.mean.n
	count := run.Cases()
	if len(grad) != n || b.param.leaf.CaseAxis == 0 {
		// A parameter with entries of its own for each case: row i sees case i only. The rows that were run stand for all.
		count = len(grad) / n * (b.param.leaf.Size() / n)
	}
	sums := b.mean.sums(count)
	for i := range sums {
		var s float64
		for j := i; j < len(grad); j += n {
			s += float64(grad[j]) * float64(grad[j])
		}
		sums[i] = s
	}
	return nil
}

func (b *diagonalBlock[T]) take() { b.mean.take() }
func (b *diagonalBlock[T]) drop() { b.mean.drop() }

func (b *diagonalBlock[T]) average(ema float64, _ bool) error {
	if !b.mean.average(decay(b.updates+1, ema), true) {
		return &LayerError{Layer: b.param.name(), Op: "averages of its squared sampled gradients", Err: ErrNotFinite, Hint: "look at the data and at the weights"}
	}
	return nil
}

func (b *diagonalBlock[T]) trace() float64 {
	return floats.Sum(b.mean.next) * float64(len(b.param.grad)/b.mean.n)
}

func (b *diagonalBlock[T]) inversions(float64) (first, then []func()) { return nil, nil }
func (b *diagonalBlock[T]) inverted() (int, error)                    { return 0, nil }
func (b *diagonalBlock[T]) freeze(bool)                               {}

func (b *diagonalBlock[T]) precondition(gamma float64, _ bool) {
	n := b.mean.n
	for i, v := range b.param.grad {
		b.param.dir[i] = T(float64(v) / (b.mean.next[i%n] + gamma*gamma))
	}
}

func (b *diagonalBlock[T]) stash() {}

func (b *diagonalBlock[T]) keep(bool) {
	b.mean.keep()
	b.updates++
}

// identityBlock leaves the gradient as it is.
type identityBlock[T program.Float] struct{ param *parameter[T] }

func (b *identityBlock[T]) bind()                                     {}
func (b *identityBlock[T]) rest()                                     {}
func (b *identityBlock[T]) needsInverse() bool                        { return false }
func (b *identityBlock[T]) observe(*program.Run[T]) error             { return nil }
func (b *identityBlock[T]) take()                                     {}
func (b *identityBlock[T]) drop()                                     {}
func (b *identityBlock[T]) average(float64, bool) error               { return nil }
func (b *identityBlock[T]) trace() float64                            { return 0 }
func (b *identityBlock[T]) inversions(float64) (first, then []func()) { return nil, nil }
func (b *identityBlock[T]) inverted() (int, error)                    { return 0, nil }
func (b *identityBlock[T]) freeze(bool)                               {}
func (b *identityBlock[T]) precondition(float64, bool)                { copy(b.param.dir, b.param.grad) }
func (b *identityBlock[T]) stash()                                    {}
func (b *identityBlock[T]) keep(bool)                                 {}
