package kfac

import (
	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A parameter is one tensor being trained, with what a step works out for it.
type parameter[T program.Float] struct {
	src  *gorgonia.Node
	leaf *program.Node // in the program of the outputs; nil if they do not depend on it
	// reached: the outputs can be differentiated by it, so that it takes part in the exact Fisher products.
	reached bool

	given bool // in the list of this step
	store flat[T]
	grad  []T // of the step's objective; zero if not given
	dir   []T // preconditioned gradient

	velocity, next []T // the previous update, and this step's
	best           []T // the best update so far of a search
}

func (p *parameter[T]) name() string { return p.src.Name() }

// A block is the curvature of one layer or of one parameter outside layers. All its methods work on what the step in progress
// makes of it, until keep makes that current.
type block[T program.Float] interface {
	// bind lets the parameters' gradients and directions be those that the block computes with.
	bind()
	// needsInverse reports whether there is no inverse yet that precondition could use.
	needsInverse() bool
	// observe estimates the curvature from a run after its sampled backward sweep.
	observe(run *program.Run[T], ema float64) error
	// trace is the sum of the eigenvalues of the step's curvature.
	trace() float64
	// inversions returns what there is to compute before precondition, given gamma; the functions may run concurrently.
	inversions(gamma float64) []func()
	// inverted reports what came of them, and how many factors had to be damped more.
	inverted() (raised int, err error)
	// precondition turns the gradients of its parameters into directions, U = (F + damping)^-1 V. fresh says that the inverse is this step's.
	precondition(gamma float64, fresh bool)
	// stash puts the step's inverse aside in exchange for the one that was put aside before.
	stash()
	// keep makes the step's statistics current and, if fresh, its inverse.
	keep(fresh bool)
}

// kroneckerBlock is the block A (x) G of a layer.
type kroneckerBlock[T program.Float] struct {
	layer        *layer
	weight, bias *parameter[T]
	factors      *factors[T]
	inverse      *inverse[T]

	grad, dir, tmp []T // V, U and scratch: abar x out, or out x abar
	interleaved    bool
}

func newKroneckerBlock[T program.Float](l *layer, weight, bias *parameter[T]) *kroneckerBlock[T] {
	abar := l.abar()
	n := abar * l.out
	b := &kroneckerBlock[T]{
		layer: l, weight: weight, bias: bias,
		factors: newFactors[T](abar, l.out), inverse: newInverse[T](abar, l.out),
		grad: make([]T, n), dir: make([]T, n), tmp: make([]T, n),
		interleaved: bias != nil && l.outByIn,
	}
	b.bind()
	return b
}

// bind: weight and bias lie behind each other in the block's memory, so that nothing needs to be copied, unless they are interleaved.
func (b *kroneckerBlock[T]) bind() {
	if b.interleaved {
		return
	}
	w := b.layer.in * b.layer.out
	b.weight.grad, b.weight.dir = b.grad[:w], b.dir[:w]
	if b.bias != nil {
		b.bias.grad, b.bias.dir = b.grad[w:], b.dir[w:]
	}
}

func (b *kroneckerBlock[T]) needsInverse() bool { return b.factors.updates == 0 }

func (b *kroneckerBlock[T]) observe(run *program.Run[T], ema float64) error {
	if b.factors.update(b.layer, run, ema) {
		return nil
	}
	return &LayerError{Layer: b.layer.name(), Op: "second moments of its inputs and sampled gradients", Err: ErrNotFinite,
		Hint: "a NaN, an infinity or an overflow in its inputs, or in the gradients that reach it: look at the data and at the weights"}
}

func (b *kroneckerBlock[T]) trace() float64 { return b.factors.a.trace() * b.factors.g.trace() }

func (b *kroneckerBlock[T]) inversions(gamma float64) []func() {
	f, v := b.factors, b.inverse
	dampA, dampG := factoredTikhonov(f.a.trace(), f.a.n, f.g.trace(), f.g.n, gamma)
	return []func(){
		func() { v.a.factorise(&f.a, dampA) },
		func() { v.g.factorise(&f.g, dampG) },
	}
}

func (b *kroneckerBlock[T]) inverted() (raised int, err error) {
	for i, v := range []*inverseFactor[T]{&b.inverse.a, &b.inverse.g} {
		if v.err != nil {
			return 0, &LayerError{Layer: b.layer.name(), Op: "Cholesky factorisation of " + "AG"[i:i+1], Dim: v.n, Damping: v.damping, Err: v.err,
				Hint: "raise WithDamping, or look for inputs of very different scales"}
		}
		if v.raised {
			raised++
		}
	}
	return raised, nil
}

func (b *kroneckerBlock[T]) precondition(_ float64, fresh bool) {
	if b.interleaved {
		b.weave(b.grad, b.weight.grad, b.bias.grad, true)
	}
	b.inverse.apply(b.dir, b.grad, b.tmp, b.layer.outByIn, fresh)
	if b.interleaved {
		b.weave(b.dir, b.weight.dir, b.bias.dir, false)
	}
}

// weave copies weight (out x in) and bias to, or from, a matrix of out x abar.
func (b *kroneckerBlock[T]) weave(m, weight, bias []T, to bool) {
	in, abar := b.layer.in, b.layer.abar()
	for o := range b.layer.out {
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

// diagonalBlock is the diagonal of the Fisher matrix for a parameter outside layers, E[(dL/dtheta_i)^2].
//
// The sampled gradients of different cases are independent and have mean zero, so the square of their sum has the
// expectation of the sum of their squares (Martens & Grosse 2015, lemma 4): one backward sweep over all cases is enough.
type diagonalBlock[T program.Float] struct {
	param     *parameter[T]
	now, next []float64
	updates   int
}

func newDiagonalBlock[T program.Float](p *parameter[T]) *diagonalBlock[T] {
	n := p.leaf.Size()
	if perCase := p.leaf.CaseAxis == 0; perCase {
		n = size(p.leaf.Shape[1:]) // see observe
	}
	return &diagonalBlock[T]{param: p, now: make([]float64, n), next: make([]float64, n)}
}

func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

func (b *diagonalBlock[T]) bind()              {}
func (b *diagonalBlock[T]) needsInverse() bool { return false }

func (b *diagonalBlock[T]) observe(run *program.Run[T], ema float64) error {
	grad := run.Gradient(b.param.leaf)
	if !linalg.Finite(grad) {
		return &LayerError{Layer: b.param.name(), Op: "sampled gradient", Err: ErrNotFinite, Hint: "look at the data and at the weights"}
	}
	eps := decay(b.updates+1, ema)
	n := len(b.now)
	count := float64(run.Cases())
	if len(grad) != n || b.param.leaf.CaseAxis == 0 {
		// A parameter with entries of its own for each case: row i sees case i only. The rows that were run stand for all.
		count = float64(len(grad)/n) * float64(b.param.leaf.Size()/n)
	}
	for i := range b.next {
		var s float64
		for j := i; j < len(grad); j += n {
			s += float64(grad[j]) * float64(grad[j])
		}
		b.next[i] = eps*b.now[i] + (1-eps)*s/count
	}
	return nil
}

func (b *diagonalBlock[T]) trace() float64 {
	return floats.Sum(b.next) * float64(len(b.param.grad)/len(b.next))
}

func (b *diagonalBlock[T]) inversions(float64) []func() { return nil }
func (b *diagonalBlock[T]) inverted() (int, error)      { return 0, nil }

func (b *diagonalBlock[T]) precondition(gamma float64, _ bool) {
	n := len(b.next)
	for i, v := range b.param.grad {
		b.param.dir[i] = T(float64(v) / (b.next[i%n] + gamma*gamma))
	}
}

func (b *diagonalBlock[T]) stash() {}

func (b *diagonalBlock[T]) keep(bool) {
	b.now, b.next = b.next, b.now
	b.updates++
}

// identityBlock leaves the gradient as it is.
type identityBlock[T program.Float] struct{ param *parameter[T] }

func (b *identityBlock[T]) bind()                                  {}
func (b *identityBlock[T]) needsInverse() bool                     { return false }
func (b *identityBlock[T]) observe(*program.Run[T], float64) error { return nil }
func (b *identityBlock[T]) trace() float64                         { return 0 }
func (b *identityBlock[T]) inversions(float64) []func()            { return nil }
func (b *identityBlock[T]) inverted() (int, error)                 { return 0, nil }
func (b *identityBlock[T]) precondition(float64, bool)             { copy(b.param.dir, b.param.grad) }
func (b *identityBlock[T]) stash()                                 {}
func (b *identityBlock[T]) keep(bool)                              {}
