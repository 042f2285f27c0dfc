package kfac

import (
	"fmt"
	"math"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// readGradients copies the gradients of the parameters in model and finds their weights. All are read before anything is
// written, since without BindDualValues two parameters may share one gradient tensor.
func (c *conductor[T]) readGradients(model []gorgonia.ValueGrad) error {
	if len(model) == 0 {
		return &ParamError{Param: "(none)", Op: "reading the list given to Step", Err: ErrNoGradient, Hint: "give Step the model's parameters: gorgonia.NodesToValueGrads(params)"}
	}
	nodes := make([]*gorgonia.Node, 0, len(model))
	listed := make(map[*gorgonia.Node]bool, len(model))
	var unreached []*gorgonia.Node
	for i, vg := range model {
		n, ok := vg.(*gorgonia.Node)
		if !ok || n == nil {
			return &ParamError{Param: fmt.Sprintf("element %d, a %T", i, vg), Op: "looking it up in the graph", Err: ErrForeign,
				Hint: "give Step the nodes of the parameters: gorgonia.NodesToValueGrads(params)"}
		}
		if listed[n] {
			continue
		}
		listed[n] = true
		if c.cfg.unreached && n.Graph() == c.cost.Graph() && c.whole.Node(n) == nil {
			unreached = append(unreached, n)
		} else {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == 0 {
		return c.trainable(unreached[0])
	}
	if err := c.sameList(nodes); err != nil {
		return err
	}
	if err := c.settle(nodes); err != nil {
		return err
	}
	c.unreached = unreached
	for _, p := range c.order {
		if p.given = listed[p.src]; p.given {
			if err := p.readWeights(!c.used && c.settled()); err != nil {
				return err
			}
		}
	}
	for _, p := range c.absent {
		p.given = false
	}
	for _, p := range c.order { // now that bad weights can't be what spoils a gradient
		if !p.given {
			clear(p.grad)
		} else if err := p.readGradient(); err != nil {
			return err
		}
	}
	return nil
}

// settle replans for the parameters that Step names: the first Step says which there are, and has the inputs that show which are one-hot; later ones may add
// some.
func (c *conductor[T]) settle(nodes []*gorgonia.Node) error {
	known := true
	for _, n := range nodes {
		known = known && c.params[n] != nil
	}
	if known && c.settled() {
		return nil
	}
	for _, n := range nodes {
		if err := c.trainable(n); err != nil {
			return err
		}
	}
	if c.settled() {
		for _, p := range c.order {
			if !slices.Contains(nodes, p.src) {
				nodes = append(nodes, p.src)
			}
		}
	}
	if c.rebuilt {
		if err := distinctNames(nodes); err != nil {
			return err
		}
	}
	return c.makePlan(nodes)
}

// trainable reports why a node given to Step is no parameter of the cost.
func (c *conductor[T]) trainable(n *gorgonia.Node) error {
	hint := ""
	leaf := c.model.Node(n)
	if leaf == nil {
		leaf = c.whole.Node(n)
	}
	switch {
	case n.Graph() != c.cost.Graph():
		hint = "it belongs to another graph than the cost; Attach goes on with another graph"
	case leaf == nil:
		hint = "the cost does not depend on it; leave it out of the list, or let WithUnreachedParameters do so"
	case !leaf.IsLeaf() || n.Op() != nil:
		hint = "it is computed or constant, not an input of the graph"
	default:
		return nil
	}
	return &ParamError{Param: n.Name(), Op: "looking it up in the graph", Hint: hint, Err: ErrForeign}
}

// readWeights finds the parameter's weights. same says that they have to be those that were found the last time, though maybe elsewhere.
func (p *parameter[T]) readWeights(same bool) error {
	fail := func(err error, hint string) error {
		return &ParamError{Param: p.name(), Op: "reading the weights", Hint: hint, Err: err}
	}
	v := p.src.Value()
	if v == nil {
		return fail(ErrNoGradient, "it has no value: give it one with WithInit or WithValue, and call RunAll before Step")
	}
	if !sameExtents(v.Shape(), p.src.Shape()) {
		return fail(fmt.Errorf("%w: the value has shape %v, the graph says %v", ErrShape, v.Shape(), p.src.Shape()), "was its tensor reshaped or transposed in place?")
	}
	var buf []T
	if !same {
		buf = p.store.copied()
	}
	store, err := flatten[T](v, buf)
	if err != nil {
		return fail(err, "")
	}
	if !linalg.Finite(store.data) {
		return fail(ErrNotFinite, "the initialisation or an earlier update made them so; the latter is helped by a lower WithLearningRate")
	}
	if same && p.store.data != nil && !slices.Equal(store.data, p.store.data) {
		return fail(ErrOtherWeights, "give its node in every graph the same tensor, WithValue(old.Value()); to go on from other weights, write them into that tensor")
	}
	p.store = store
	return nil
}

// readGradient copies the parameter's gradient.
func (p *parameter[T]) readGradient() error {
	fail := func(err error, hint string) error {
		return &ParamError{Param: p.name(), Op: "reading the gradient", Hint: hint, Err: err}
	}
	g, err := p.src.Grad()
	if err != nil || g == nil {
		return fail(ErrNoGradient,
			"call gorgonia.Grad(cost, params...) before the VM is made, RunAll before Step, and pass BindDualValues(params...) to the tape machine")
	}
	if !sameExtents(g.Shape(), p.src.Shape()) {
		return fail(fmt.Errorf("%w: it has shape %v, the parameter %v", ErrShape, g.Shape(), p.src.Shape()), "was its tensor reshaped or transposed in place?")
	}
	fg, err := flatten[T](g, p.dir) // dir is free until preconditioning
	if err != nil {
		return fail(err, "")
	}
	copy(p.grad, fg.data)
	if !linalg.Finite(p.grad) {
		return fail(ErrNotFinite, "look for NaN or infinity in the input and in the targets, and for overflow in the model; to go on, zero the gradients, as BindDualValues adds the next to them")
	}
	return nil
}

// sameExtents reports whether two shapes are the same up to axes of length 1, which Gorgonia adds and drops.
func sameExtents(a, b tensor.Shape) bool {
	return slices.Equal(longAxes(a), longAxes(b))
}

func longAxes(s tensor.Shape) (long []int) {
	for _, d := range s {
		if d != 1 {
			long = append(long, d)
		}
	}
	return long
}

// copied is the memory of a copy, to be used again; nil if data is the value's own.
func (f flat[T]) copied() []T {
	if f.store == nil {
		return nil
	}
	return f.data
}

// objectiveGradient adds up the gradients of all chunks, scales them to the solver's objective, the mean over cases of the negative
// log-likelihood, adds eta theta (Martens & Grosse 2015, section 6.1), and returns the norm.
func (c *conductor[T]) objectiveGradient(cases int) (norm float64) {
	own, taken := T(1/(c.scale*float64(cases))), T(1/float64(cases))
	for _, p := range c.order {
		if !p.given {
			continue
		}
		norm += linalg.Sum(len(p.grad), func(from, to int) float64 {
			grad := p.grad[from:to]
			linalg.Scale(own, grad)
			if len(c.chunks) > 0 {
				linalg.Axpy(taken, p.taken[from:to], grad)
			}
			if c.cfg.l2 > 0 {
				linalg.Axpy(T(c.cfg.l2), p.store.data[from:to], grad)
			}
			return linalg.Dot64(grad, grad)
		})
	}
	return math.Sqrt(norm)
}

// write adds the update to the weights, in place, and zeroes the user's gradient as Gorgonia's solvers do.
func (p *parameter[T]) write() {
	parallel.For(len(p.next), parallel.Grain, func(from, to int) {
		linalg.Axpy(1, p.next[from:to], p.store.data[from:to])
		copy(p.gradBefore[from:to], p.grad[from:to])
	})
	if p.store.store != nil {
		p.store.store()
	}
	p.velocity, p.next = p.next, p.velocity
	zeroGradient(p.src)
}

// zeroGradient zeroes a gradient that belongs to the parameter, where the next RunAll would add to it. Without BindDualValues
// the gradient is the value of another node, which the next RunAll computes anew and which may be shared.
func zeroGradient(n *gorgonia.Node) {
	g, err := n.Grad()
	if err != nil || n.Deriv() != nil && g == n.Deriv().Value() {
		return
	}
	switch g := g.(type) {
	case *gorgonia.F64:
		*g = 0
	case *gorgonia.F32:
		*g = 0
	case interface{ Zero() }:
		g.Zero()
	}
}

// costValue is the value that the VM left in the cost node, or NaN.
func costValue(cost *gorgonia.Node) float64 {
	v := cost.Value()
	if v == nil || valueSize(v) != 1 {
		return math.NaN()
	}
	switch x := v.Data().(type) {
	case float64:
		return x
	case float32:
		return float64(x)
	case []float64:
		return x[0]
	case []float32:
		return float64(x[0])
	}
	return math.NaN()
}
