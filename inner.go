package kfac

import (
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// WithInner has another solver make the steps, such as gorgonia.NewAdamSolver(). What it sees as
// the gradient of each parameter is the preconditioned gradient, shortened by the norm constraint:
// nu U, with U = F0^-1 grad and nu of WithNormConstraint. Its learning rate, momentum, clipping and
// so on are its own. With a plain gorgonia.VanillaSolver of the same rate the steps are those of
// WithLearningRate and WithMomentum(0).
//
// It is valid only with WithLearningRate, which should be the inner solver's rate: the norm
// constraint limits the step that it would make. WithMomentum can't be combined with it.
//
// The inner solver works on copies of the weights, in the order of the graph. Gorgonia's solvers
// keep their state by position, so every Step has to be given the same parameters; others are a
// *ParamError with ErrOtherList. A Step that fails after the inner solver's has still changed that
// one's state. Save can't write its state: see [WithoutInner].
//
// Default: none.
func WithInner(solver gorgonia.Solver) Option {
	return rateOption("WithInner", func(c *config) error {
		if solver == nil {
			return &ConfigError{"WithInner", "nil", "a gorgonia.Solver"}
		}
		c.inner = solver
		return nil
	})
}

// inner is another solver, with copies of the parameters that it works on.
type inner[T program.Float] struct {
	solver gorgonia.Solver
	params []*stand[T]
	list   []gorgonia.ValueGrad // params
}

// stand is a stand-in for a parameter, as the inner solver sees it.
type stand[T program.Float] struct {
	key
	weights, grad   []T
	value, gradient gorgonia.Value // on the same memory
}

func (c *stand[T]) Name() string                  { return c.name }
func (c *stand[T]) Value() gorgonia.Value         { return c.value }
func (c *stand[T]) Grad() (gorgonia.Value, error) { return c.gradient, nil }

func copyOf[T program.Float](p *parameter[T]) *stand[T] {
	c := &stand[T]{key: p.key, weights: make([]T, p.size()), grad: make([]T, p.size())}
	shape := p.extents
	if len(shape) == 0 {
		shape = []int{1}
	}
	c.value = tensor.New(tensor.WithShape(shape...), tensor.WithBacking(c.weights))
	c.gradient = tensor.New(tensor.WithShape(shape...), tensor.WithBacking(c.grad))
	return c
}

// step has the inner solver make a step of some parameters from what it is to take for their
// gradients. updates are the changes of their weights.
func (in *inner[T]) step(params []*parameter[T], gradients, updates [][]T) error {
	if in.params == nil {
		for _, p := range params {
			c := copyOf(p)
			in.params, in.list = append(in.params, c), append(in.list, c)
		}
	}
	at, err := in.find(params)
	if err != nil {
		return err
	}
	for i, c := range in.params {
		copy(c.weights, params[at[i]].weights.data)
		copy(c.grad, gradients[at[i]])
	}
	if err := in.solver.Step(in.list); err != nil {
		return &ParamError{Param: "(all)", Op: fmt.Sprintf("the step of the inner solver, a %T", in.solver), Err: err}
	}
	for i, c := range in.params {
		p, update := params[at[i]], updates[at[i]]
		if !linalg.Finite(c.weights) {
			return &ParamError{Param: p.name, Op: "updating by the inner solver", Err: ErrNotFinite,
				Hint: "lower its learning rate or raise WithDamping"}
		}
		copy(update, c.weights)
		linalg.Axpy(-1, p.weights.data, update)
	}
	return nil
}

// find returns where the parameters of the inner solver are in a list, which has to have the same.
func (in *inner[T]) find(params []*parameter[T]) (at []int, err error) {
	other := func(name, what string) ([]int, error) {
		return nil, &ParamError{Param: name, Op: "comparing the list with the inner solver's, " + what,
			Err: ErrOtherList, Hint: "its state goes by position: give every Step the same parameters"}
	}
	for _, c := range in.params {
		i := slices.IndexFunc(params, func(p *parameter[T]) bool { return p.key == c.key })
		if i < 0 {
			return other(c.name, "which has it")
		}
		at = append(at, i)
	}
	for i, p := range params {
		if !slices.Contains(at, i) {
			return other(p.name, "which lacks it")
		}
	}
	return at, nil
}

// ownGradients reports a parameter whose gradient may be another node's value too.
func ownGradients[T program.Float](params []*parameter[T]) error {
	for _, p := range params {
		if g, err := p.src.Grad(); p.listed() && err == nil && p.src.Deriv() != nil && g == p.src.Deriv().Value() {
			return &ParamError{Param: p.name, Op: "writing the preconditioned gradient", Err: ErrSharedMemory,
				Hint: "its gradient is the value of another node: give the tape machine BindDualValues(params...)"}
		}
	}
	return nil
}

// leave writes the preconditioned gradient in place of the gradient. The weights are the caller's
// to change.
func (p *parameter[T]) leave(direction []T) error {
	g, err := p.src.Grad()
	if err != nil {
		return err
	}
	f, err := flatten[T](g, nil)
	if err != nil {
		return err
	}
	copy(f.data, direction)
	f.flush()
	p.stop()
	p.giveBack(direction)
	p.weights = flat[T]{}
	return nil
}
