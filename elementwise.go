package kfac

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// elementwiseBlock holds the blocks of the Fisher matrix, of width x width each, for parameters that act element by element: the mean over cases of v v^T, where v
// is what a case contributes to the gradients, summed over its positions first. A single parameter has one block for all its elements if they are few, or else
// one of width 1 for each. The scale and the shift of a channel have one of width 2 (Osawa et al. 2019). Where the cases can't be told apart, v v^T of their sum stands for
// the sum of theirs, whose expectation it has.
type elementwiseBlock[T program.Float] struct {
	params          []*parameter[T]
	uses            [][]program.Use // in the graph that the solver is attached to
	width, channels int
	mean            moment[T] // (channels width) x width
	updates         int

	byCase [][]T // of each parameter: cases x elements
	work   []float64
	v      []float64
}

func newElementwiseBlock[T program.Float](params []*parameter[T], fullBlock int) *elementwiseBlock[T] {
	b := &elementwiseBlock[T]{params: params, width: len(params), channels: params[0].leaf.Size(), byCase: make([][]T, len(params))}
	if len(params) == 1 && b.channels <= fullBlock {
		b.width, b.channels = b.channels, 1
	}
	b.mean = newMoment[T](b.channels*b.width, b.width)
	b.work, b.v = make([]float64, b.width*b.width), make([]float64, b.width)
	return b
}

// name is that of the parameters, with the sizes of the blocks.
func (b *elementwiseBlock[T]) name() string {
	name := b.params[0].name()
	for _, p := range b.params[1:] {
		name += " and " + p.name()
	}
	if b.channels == 1 {
		return fmt.Sprintf("%s: %d x %d", name, b.width, b.width)
	}
	return fmt.Sprintf("%s: %d of %d x %d", name, b.channels, b.width, b.width)
}

// element tells where element i of a channel's block lies: in which parameter, and where in that.
func (b *elementwiseBlock[T]) element(channel, i int) (param, at int) {
	if len(b.params) == 1 {
		return 0, channel + i // one of channel and i is 0
	}
	return i, channel
}

func (b *elementwiseBlock[T]) bind()              {}
func (b *elementwiseBlock[T]) rest()              { b.uses = nil }
func (b *elementwiseBlock[T]) needsInverse() bool { return false }

func (b *elementwiseBlock[T]) observe(run *program.Run[T]) error {
	cases := run.CasesApart()
	for k, p := range b.params {
		b.byCase[k] = zeros(b.byCase[k], cases*p.leaf.Size())
		run.GradientByCase(b.uses[k], b.byCase[k])
	}
	sums := b.mean.sums(run.Cases())
	clear(sums)
	w := b.width
	for c := range b.channels {
		block := sums[c*w*w : (c+1)*w*w]
		for n := range cases {
			b.addOuter(block, c, n)
		}
	}
	if !linalg.Finite(sums) {
		return b.notFinite("sampled gradients")
	}
	return nil
}

// addOuter adds v v^T of one channel and case.
func (b *elementwiseBlock[T]) addOuter(block []T, channel, n int) {
	for i := range b.width {
		p, at := b.element(channel, i)
		vi := b.byCase[p][n*b.params[p].leaf.Size()+at]
		for j := range i + 1 {
			p, at := b.element(channel, j)
			s := vi * b.byCase[p][n*b.params[p].leaf.Size()+at]
			block[i*b.width+j] += s
			if j < i {
				block[j*b.width+i] += s
			}
		}
	}
}

func (b *elementwiseBlock[T]) notFinite(op string) error {
	return &LayerError{Layer: b.params[0].name(), Op: op, Err: ErrNotFinite, Hint: "look at the data and at the weights"}
}

func (b *elementwiseBlock[T]) take() { b.mean.take() }
func (b *elementwiseBlock[T]) drop() { b.mean.drop() }

func (b *elementwiseBlock[T]) average(ema float64, _ bool) error {
	if !b.mean.average(decay(b.updates+1, ema), true) {
		return b.notFinite("averages of its squared sampled gradients")
	}
	return nil
}

func (b *elementwiseBlock[T]) trace() (t float64) {
	for c := range b.channels {
		for i := range b.width {
			t += float64(b.mean.next[(c*b.width+i)*b.width+i])
		}
	}
	return t
}

func (b *elementwiseBlock[T]) inversions(float64) (first, then []func()) { return nil, nil }
func (b *elementwiseBlock[T]) inverted() (int, error)                    { return 0, nil }
func (b *elementwiseBlock[T]) freeze(bool)                               {}

// precondition solves (F + gamma^2 I) u = v, channel by channel. Where that has no solution, which the step reports, it leaves a NaN.
func (b *elementwiseBlock[T]) precondition(gamma float64, _ bool) {
	w := b.width
	for c := range b.channels {
		for i := range w {
			p, at := b.element(c, i)
			b.v[i] = float64(b.params[p].grad[at])
		}
		b.solve(b.mean.next[c*w*w:(c+1)*w*w], gamma*gamma)
		for i := range w {
			p, at := b.element(c, i)
			b.params[p].dir[at] = T(b.v[i])
		}
	}
}

// solve replaces v by (block + damping I)^-1 v.
func (b *elementwiseBlock[T]) solve(block []T, damping float64) {
	if b.width == 1 {
		b.v[0] /= float64(block[0]) + damping
		return
	}
	_, _, err := raising(damping, func(damping float64) bool {
		l, ok := cholesky(b.work, block, b.width, damping)
		if ok {
			lapack64.Potrs(l, blas64.General{Rows: b.width, Cols: 1, Stride: 1, Data: b.v})
		}
		return ok
	})
	if err != nil {
		b.v[0] = math.NaN()
	}
}

func (b *elementwiseBlock[T]) stash() {}

func (b *elementwiseBlock[T]) keep(bool) {
	b.mean.keep()
	b.updates++
}
