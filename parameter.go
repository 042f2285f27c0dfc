package kfac

import (
	"fmt"
	"math"
	"reflect"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A parameter is one tensor being trained. Weights and gradients come in here, and weights go out.
type parameter[T program.Float] struct {
	key
	place[T] // in the graph that the solver is attached to; zero if that lacks it
	extents  []int

	own         own     // settings
	given       bool    // in the list of this step
	aside       bool    // in it too, but another solver steps it
	memory      extent  // of the weights, where it was last found to be the parameter's own
	weights     flat[T] // as the user has them
	before      flat[T] // weights before the call in progress
	accumulated []T     // sum of the gradients of the chunks before; made when first needed

	// State.
	previous []T // delta0: the previous update of this parameter
	heading  heading[T]
	mean     []T // the iterate average
	averages int // iterates in it

	unused [][]T // buffers of the parameter's size
}

// A key is what a parameter is known by from graph to graph.
type key struct{ name, shape string }

func keyOf(n *gorgonia.Node) key { return key{program.NameOf(n), program.FormatShape(n.Shape())} }

func (k key) String() string { return fmt.Sprintf("%q of shape %s", k.name, k.shape) }

// A place is what a parameter is in one graph.
type place[T program.Float] struct {
	src  *gorgonia.Node
	leaf *program.Node // in the program of the outputs; nil if they do not depend on it
	// reached: the outputs can be differentiated by it, so that it takes part in the exact Fisher
	// products.
	reached bool

	grad      []T // V: gradient of the step's objective; zero if the parameter was not given
	direction []T // U: the preconditioned gradient. The paper's Delta is -U
}

func newParameter[T program.Float](n *gorgonia.Node) *parameter[T] {
	size := n.Shape().TotalSize()
	return &parameter[T]{key: keyOf(n), own: asAll(), extents: slices.Clone(n.Shape()), previous: make([]T, size)}
}

func (p *parameter[T]) size() int { return len(p.previous) }

// borrow returns a buffer of the parameter's size, until giveBack.
func (p *parameter[T]) borrow() []T {
	if n := len(p.unused); n > 0 {
		b := p.unused[n-1]
		p.unused = p.unused[:n-1]
		return b
	}
	return make([]T, p.size())
}

func (p *parameter[T]) giveBack(b []T) {
	if b != nil {
		p.unused = append(p.unused, b)
	}
}

// listed reports whether the parameter is in the list of this step.
func (p *parameter[T]) listed() bool { return p.given || p.aside }

// moved reports whether there is a previous update.
func (p *parameter[T]) moved() bool { return linalg.Dot(p.previous, p.previous) > 0 }

// readWeights finds the parameter's weights. same says that they have to be those that were found
// the last time, though maybe elsewhere.
func (p *parameter[T]) readWeights(same bool) error {
	fail := func(err error, hint string) error {
		return &ParamError{Param: p.name, Op: "reading the weights", Hint: hint, Err: err}
	}
	var buf []T
	if !same {
		buf = p.weights.copied()
	}
	weights, err := p.findWeights(p.src, buf)
	if err != nil {
		return err
	}
	if !linalg.Finite(weights.data) {
		return fail(ErrNotFinite,
			"the initialisation or an earlier update made them so; the latter is helped by a lower WithLearningRate")
	}
	if same && p.weights.data != nil && !slices.Equal(weights.data, p.weights.data) {
		return fail(ErrOtherWeights, "give its node in every graph the same tensor, WithValue(old.Value()); "+
			"to go on from other weights, write them into that tensor")
	}
	p.weights = weights
	return nil
}

// presentWeights returns the parameter's weights: those in the graph, or, if the last step was not
// given the parameter, those that it was trained to. same is as in readWeights.
func (p *parameter[T]) presentWeights(same bool) ([]T, error) {
	if p.src == nil || !p.listed() && p.weights.data != nil {
		return p.weights.data, nil
	}
	q := parameter[T]{key: p.key, place: p.place, weights: flat[T]{data: p.weights.data}}
	err := q.readWeights(same)
	return q.weights.data, err
}

// findWeights finds the parameter's weights in its node, whatever they are. buf is used for copies.
func (p *parameter[T]) findWeights(n *gorgonia.Node, buf []T) (flat[T], error) {
	fail := func(err error, hint string) (flat[T], error) {
		return flat[T]{}, &ParamError{Param: p.name, Op: "reading the weights", Hint: hint, Err: err}
	}
	v := n.Value()
	if v == nil {
		return fail(ErrNoValue,
			"it has no value: give it one with WithInit or WithValue, and call RunAll before Step")
	}
	if !sameExtents(v.Shape(), n.Shape()) {
		err := fmt.Errorf("%w: the value has shape %v, the graph says %v", ErrShape, v.Shape(), n.Shape())
		return fail(err, "was its tensor reshaped or transposed in place?")
	}
	weights, err := flatten(v, buf)
	if err != nil {
		return fail(err, otherType)
	}
	return weights, nil
}

// readGradient copies the parameter's gradient.
func (p *parameter[T]) readGradient() error {
	fail := func(err error, hint string) error {
		return &ParamError{Param: p.name, Op: "reading the gradient", Hint: hint, Err: err}
	}
	g, err := p.src.Grad()
	if err != nil || g == nil {
		if p.src.Deriv() == nil {
			return fail(ErrNoGradient, "gorgonia.Grad was not called for it: do so before the VM is made, with the "+
				"cost and all parameters, or leave it out of the list; with a LispMachine, call RunAll before Step")
		}
		return fail(ErrNoGradient, "call RunAll before Step, and make a tape machine after Grad, with "+
			"BindDualValues(params...)")
	}
	if !sameExtents(g.Shape(), p.src.Shape()) {
		err := fmt.Errorf("%w: it has shape %v, the parameter %v", ErrShape, g.Shape(), p.src.Shape())
		return fail(err, "was its tensor reshaped or transposed in place?")
	}
	buf := p.borrow()
	defer p.giveBack(buf)
	values, err := flatten(g, buf)
	if err != nil {
		return fail(err, otherType)
	}
	copy(p.grad, values.data)
	if !linalg.Finite(p.grad) {
		return fail(errGradientNotFinite, noNumber+afterNaN+"; WithSkipNotFinite does so by itself")
	}
	return nil
}

// noNumber is the hint for a gradient that is not finite, where nothing tells why. afterNaN says
// how to go on.
const (
	noNumber = "look for NaN or infinity in the input and in the targets, and for overflow in the model"
	afterNaN = "; to go on, zero the gradients (ZeroGradients), as BindDualValues adds the next to them"
)

// otherType is the hint for a value that can't be read.
const otherType = "parameters and gradients have to be dense tensors, or scalars, of the cost's dtype"

// accumulate adds the gradient, in units of the objective, to those of the chunks before; first
// says that there are none.
func (p *parameter[T]) accumulate(scale float64, first bool) {
	linalg.Scale(T(1/scale), p.grad)
	if first {
		p.accumulated = append(p.accumulated[:0], p.grad...)
	} else {
		linalg.Axpy(1, p.grad, p.accumulated)
	}
	zeroGradient(p.src)
}

// objectiveGradient makes grad the gradient of the solver's objective, the mean over cases of the
// negative log-likelihood, with eta theta added (Martens & Grosse 2015, section 6.1), and returns
// its squared norm. The user's cost is scale times the sum over cases; chunked says that there were
// chunks before.
func (p *parameter[T]) objectiveGradient(scale float64, cases int, eta float64, chunked bool) float64 {
	own, before := T(1/(scale*float64(cases))), T(1/float64(cases))
	return linalg.Sum(len(p.grad), func(from, to int) float64 {
		grad := p.grad[from:to]
		linalg.Scale(own, grad)
		if chunked {
			linalg.Axpy(before, p.accumulated[from:to], grad)
		}
		if eta > 0 {
			linalg.Axpy(T(eta), p.weights.data[from:to], grad)
		}
		return linalg.Dot64(grad, grad)
	})
}

// updateBy computes the update alpha Delta + mu delta0 into a buffer. ok says that the weights stay
// finite.
func (p *parameter[T]) updateBy(update []T, alpha, mu T) (ok bool) {
	return linalg.Sum(len(update), func(from, to int) float64 {
		update, previous, direction := update[from:to], p.previous[from:to], p.direction[from:to]
		var odd T // w - w is 0 for every finite w
		for i, w := range p.weights.data[from:to] {
			d := mu*previous[i] - alpha*direction[i]
			update[i] = d
			w += d
			odd += w - w
		}
		return float64(odd)
	}) == 0
}

// after computes the weights after an update into a buffer.
func (p *parameter[T]) after(weights, update []T) {
	parallel.For(len(weights), parallel.Grain, func(from, to int) {
		copy(weights[from:to], p.weights.data[from:to])
		linalg.Axpy(1, update[from:to], weights[from:to])
	})
}

// write adds the update to what the decay leaves of the weights, in place, keeps it as the previous
// one, and zeroes the user's gradient as Gorgonia's solvers do. It returns the squared norm of the
// update. factor is as in turn. What it writes lies between the update and the weights plus that,
// so it is finite.
func (p *parameter[T]) write(update []T, factor float64, decay T) float64 {
	p.heading.turn(update, p.previous, factor)
	parallel.For(len(update), parallel.Grain, func(from, to int) {
		if decay > 0 {
			linalg.Scale(1-decay, p.weights.data[from:to])
		}
		linalg.Axpy(1, update[from:to], p.weights.data[from:to])
	})
	p.weights.flush()
	p.giveBack(p.previous)
	p.previous = update
	zeroGradient(p.src)
	return linalg.Dot64(update, update)
}

// reject forgets the previous update with a step that is not taken, and zeroes the user's gradient.
func (p *parameter[T]) reject(update []T) {
	p.stop()
	p.giveBack(update)
	zeroGradient(p.src)
}

// normOf returns the Euclidean norm of something of all parameters that were given. It is finite if
// that is.
func normOf[T program.Float](params []*parameter[T], of func(*parameter[T]) []T) (norm float64) {
	var squares float64
	for _, p := range params {
		if p.given {
			squares += linalg.Dot64(of(p), of(p))
		}
	}
	if !math.IsInf(squares, 1) {
		return math.Sqrt(squares)
	}
	for _, p := range params {
		if p.given {
			norm = math.Hypot(norm, linalg.Norm(of(p)))
		}
	}
	return min(norm, math.MaxFloat64)
}

func theWeights[T program.Float](p *parameter[T]) []T   { return p.weights.data }
func theGradient[T program.Float](p *parameter[T]) []T  { return p.grad }
func theDirection[T program.Float](p *parameter[T]) []T { return p.direction }
func thePrevious[T program.Float](p *parameter[T]) []T  { return p.previous }

// stop forgets the previous update and the heading.
func (p *parameter[T]) stop() {
	clear(p.previous)
	p.heading.apart = false
}

// slopeOfHeading returns grad^T heading, over the parameters that were given.
func slopeOfHeading[T program.Float](params []*parameter[T]) (slope float64) {
	for _, p := range params {
		if p.given {
			h := p.heading.along(p.previous)
			slope += linalg.Sum(len(h), func(from, to int) float64 { return linalg.Dot64(p.grad[from:to], h[from:to]) })
		}
	}
	return slope
}

// put writes other weights where they were read from.
func (p *parameter[T]) put(data []T) { p.weights.put(data) }

func (f flat[T]) put(data []T) {
	copy(f.data, data)
	f.flush()
}

// zeroGradient zeroes a gradient that belongs to the parameter, where the next RunAll would add to
// it. Without BindDualValues the gradient is the value of another node, which the next RunAll
// computes anew and which may be shared.
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

// gather copies the elements of src at the given places, in that order.
func gather[T program.Float](dst, src []T, at []int) {
	for i, k := range at {
		dst[i] = src[k]
	}
}

// scatter copies elements to the given places of dst.
func scatter[T program.Float](dst, src []T, at []int) {
	for i, k := range at {
		dst[k] = src[i]
	}
}

// listed reads the list given to Step: the nodes in it, each once, in order.
func listed(model []gorgonia.ValueGrad) ([]*gorgonia.Node, error) {
	if len(model) == 0 {
		return nil, &ParamError{Param: "(none)", Op: "reading the list given to Step", Err: ErrNoGradient,
			Hint: "give Step the model's parameters: gorgonia.NodesToValueGrads(params)"}
	}
	nodes := make([]*gorgonia.Node, 0, len(model))
	seen := make(map[*gorgonia.Node]bool, len(model))
	for i, vg := range model {
		n, ok := vg.(*gorgonia.Node)
		if !ok || n == nil {
			return nil, &ParamError{Param: fmt.Sprintf("element %d, a %T", i, vg), Op: "looking it up in the graph",
				Err: ErrForeign, Hint: "give Step the nodes of the parameters: gorgonia.NodesToValueGrads(params)"}
		}
		if !seen[n] {
			seen[n] = true
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// readAll reads weights and gradients of the listed parameters. All are read before anything is
// written, since without BindDualValues two parameters may share one gradient tensor. same is as in
// readWeights.
func readAll[T program.Float](params []*parameter[T], given []*parameter[T], same bool) error {
	for _, p := range params {
		p.given, p.aside = false, false
	}
	for _, p := range given { // all of them first: if one fails the chunks before still know their list
		p.aside = p.own.solver != nil
		p.given = !p.aside
	}
	for _, p := range given {
		if err := p.readWeights(same); err != nil {
			return err
		}
	}
	if err := ownMemory(given); err != nil {
		return err
	}
	for _, p := range params { // now that bad weights can't be what spoils a gradient
		if !p.listed() {
			clear(p.grad)
		} else if err := p.readGradient(); err != nil {
			return err
		}
	}
	return nil
}

// ownMemory reports two parameters whose weights share memory: either update would change the
// other's.
func ownMemory[T program.Float](params []*parameter[T]) error {
	known := true
	for _, p := range params {
		known = known && extentOf(p.src.Value()) == p.memory
	}
	if known {
		return nil
	}
	for i, p := range params {
		for _, q := range params[:i] {
			if share(p.src.Value(), q.src.Value()) {
				return &ParamError{Param: q.name + " and " + p.name, Op: "reading the weights", Err: ErrSharedMemory,
					Hint: "give each parameter a tensor of its own; to tie weights, use one node in both places"}
			}
		}
	}
	for _, p := range params {
		p.memory = extentOf(p.src.Value())
	}
	return nil
}

// An extent is where a value's elements lie in memory.
type extent struct{ from, to uintptr }

// extentOf is that of a tensor or of a number; zero of anything else.
func extentOf(v gorgonia.Value) extent {
	switch v := v.(type) {
	case *tensor.Dense:
		if v != nil {
			return extent{v.Uintptr(), v.Uintptr() + v.MemSize()}
		}
	case *gorgonia.F64, *gorgonia.F32:
		at := reflect.ValueOf(v).Pointer()
		return extent{at, at + v.MemSize()}
	}
	return extent{}
}

// share reports whether two values have an element in common. Views of one tensor need not.
func share(a, b gorgonia.Value) bool {
	x, y := extentOf(a), extentOf(b)
	if x.to <= y.from || y.to <= x.from {
		return false
	}
	s, views := a.(*tensor.Dense)
	t, both := b.(*tensor.Dense)
	if !views || !both || !s.RequiresIterator() && !t.RequiresIterator() {
		return true
	}
	of := map[uintptr]bool{}
	eachElement(s, func(at int) { of[x.from+uintptr(at)*s.Dtype().Size()] = true })
	common := false
	eachElement(t, func(at int) { common = common || of[y.from+uintptr(at)*t.Dtype().Size()] })
	return common
}

// sameList reports a difference between the nodes listed and the parameters given for the chunks
// before.
func sameList[T program.Float](nodes []*gorgonia.Node, params []*parameter[T]) error {
	const op, hint = "comparing the list with that of Accumulate",
		"the parameters given for the chunks of one update must be the same"
	for _, n := range nodes {
		given := func(p *parameter[T]) bool { return p.src == n && p.listed() }
		if !slices.ContainsFunc(params, given) {
			return &ParamError{Param: program.NameOf(n), Op: op, Err: ErrOtherList,
				Hint: "it was not given then: " + hint}
		}
	}
	for _, p := range params {
		if p.listed() && !slices.Contains(nodes, p.src) {
			return &ParamError{Param: p.name, Op: op, Err: ErrOtherList, Hint: "it was given then: " + hint}
		}
	}
	return nil
}

// sameExtents reports whether two shapes are the same up to axes of length 1, which Gorgonia adds
// and drops.
func sameExtents(a, b tensor.Shape) bool { return slices.Equal(longAxes(a), longAxes(b)) }

func longAxes(s tensor.Shape) (long []int) {
	for _, d := range s {
		if d != 1 {
			long = append(long, d)
		}
	}
	return long
}

// flat is the row-major contents of a Gorgonia value. Of a contiguous tensor it is the tensor's own
// memory; of anything else (a view, a scalar) a copy, which store writes back.
type flat[T program.Float] struct {
	data  []T
	store func() // nil if data is the value's own memory
}

// flush writes a copy back.
func (f flat[T]) flush() {
	if f.store != nil {
		f.store()
	}
}

// copied is the memory of a copy, to be used again; nil if data is the value's own.
func (f flat[T]) copied() []T {
	if f.store == nil {
		return nil
	}
	return f.data
}

// flatten reads a float tensor or scalar. buf is used for copies.
func flatten[T program.Float](v gorgonia.Value, buf []T) (flat[T], error) {
	switch v := v.(type) {
	case *gorgonia.F64:
		return scalar(append(buf[:0], T(*v)), func(x T) { *v = gorgonia.F64(x) })
	case *gorgonia.F32:
		return scalar(append(buf[:0], T(*v)), func(x T) { *v = gorgonia.F32(x) })
	case *tensor.Dense:
		return flattenDense(v, buf)
	}
	return flat[T]{}, fmt.Errorf("%w: a %T is neither a float tensor nor a float scalar", ErrShape, v)
}

func scalar[T program.Float](data []T, write func(T)) (flat[T], error) {
	return flat[T]{data, func() { write(data[0]) }}, nil
}

func flattenDense[T program.Float](t *tensor.Dense, buf []T) (flat[T], error) {
	var want T
	if got, ok := t.Data().([]T); ok && !t.RequiresIterator() && !t.DataOrder().IsColMajor() {
		return flat[T]{data: got[:t.Shape().TotalSize()]}, nil
	}
	if t.IsScalar() {
		if x, ok := t.ScalarValue().(T); ok {
			return scalar(append(buf[:0], x), func(x T) { t.Set(0, x) })
		}
	}
	if _, ok := t.Data().([]T); !ok {
		return flat[T]{}, fmt.Errorf("%w: dtype %v where the model has %T", ErrShape, t.Dtype(), want)
	}
	data := buf[:0]
	eachElement(t, func(at int) { data = append(data, t.Get(at).(T)) })
	return flat[T]{data, func() {
		i := 0
		eachElement(t, func(at int) { t.Set(at, data[i]); i++ })
	}}, nil
}

// eachElement calls f with the position in memory of each element, in row-major order.
func eachElement(t *tensor.Dense, f func(at int)) {
	it := t.Iterator()
	for at, err := it.Start(); err == nil; at, err = it.Next() {
		f(at)
	}
}

// errGradientNotFinite is the ErrNotFinite of a gradient that the user's VM has left.
var errGradientNotFinite = fmt.Errorf("%w", ErrNotFinite)
