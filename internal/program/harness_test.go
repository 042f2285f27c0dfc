package program

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A builder makes the graph of a test, with inputs of random values. Two builders of one seed make
// the same graph.
type builder struct {
	g    *gorgonia.ExprGraph
	dt   tensor.Dtype
	rng  *rand.Rand
	vars []variable // float inputs, in the order of their creation
}

// variable is an input and the law that its values are drawn from.
type variable struct {
	node *gorgonia.Node
	draw law
}

// A law draws n values.
type law func(rng *rand.Rand, n int) []float64

func newBuilder(dt tensor.Dtype, seed uint64) *builder {
	return &builder{g: gorgonia.NewGraph(), dt: dt, rng: rand.New(rand.NewPCG(seed, 1))}
}

// between draws uniformly.
func between(low, high float64) law {
	return func(rng *rand.Rand, n int) []float64 {
		x := make([]float64, n)
		for i := range x {
			x[i] = low + (high-low)*rng.Float64()
		}
		return x
	}
}

// spaced draws values that differ from each other and from zero by gap at least. So no finite
// difference crosses the kink of a maximum, an absolute value or a rectifier.
func spaced(gap float64) law {
	return func(rng *rand.Rand, n int) []float64 {
		x := make([]float64, n)
		for i, p := range rng.Perm(n) {
			x[i] = gap * (float64(p-n/2) + 0.6)
		}
		return x
	}
}

// apart draws from a coarse grid, shifted. So no value is near an integer, or near a value of
// another shift.
func apart(shift float64) law {
	return func(rng *rand.Rand, n int) []float64 {
		x := make([]float64, n)
		for i := range x {
			x[i] = float64(rng.IntN(5)-2) + shift
		}
		return x
	}
}

// values are data of the builder's dtype.
func (b *builder) values(x []float64) any {
	if b.dt == tensor.Float64 {
		return x
	}
	x32 := make([]float32, len(x))
	for i, v := range x {
		x32[i] = float32(v)
	}
	return x32
}

// input makes an input whose values follow a law; no dimensions make a scalar.
func (b *builder) input(draw law, shape ...int) *gorgonia.Node {
	name := fmt.Sprintf("x%d", len(b.vars))
	var n *gorgonia.Node
	if len(shape) == 0 {
		n = gorgonia.NewScalar(b.g, b.dt, gorgonia.WithName(name))
	} else {
		n = gorgonia.NewTensor(b.g, b.dt, len(shape), gorgonia.WithShape(shape...), gorgonia.WithName(name))
	}
	b.vars = append(b.vars, variable{n, draw})
	b.set(n, draw(b.rng, size(shape)))
	return n
}

// set gives an input new values in a new tensor.
func (b *builder) set(n *gorgonia.Node, x []float64) {
	var v gorgonia.Value
	switch {
	case len(n.Shape()) > 0:
		v = tensor.New(tensor.WithShape(n.Shape().Clone()...), tensor.WithBacking(b.values(x)))
	case b.dt == tensor.Float64:
		v = gorgonia.NewF64(x[0])
	default:
		v = gorgonia.NewF32(float32(x[0]))
	}
	if err := gorgonia.Let(n, v); err != nil {
		panic(err)
	}
}

// redraw gives all float inputs new values.
func (b *builder) redraw() {
	for _, v := range b.vars {
		b.set(v.node, v.draw(b.rng, size(v.node.Shape())))
	}
}

// x is an input of moderate values.
func (b *builder) x(shape ...int) *gorgonia.Node { return b.input(between(-1.2, 1.2), shape...) }

// positive is an input of values well above zero.
func (b *builder) positive(shape ...int) *gorgonia.Node { return b.input(between(0.8, 2), shape...) }

// ints is an input of integers.
func (b *builder) ints(v ...int) *gorgonia.Node {
	return gorgonia.NewTensor(b.g, tensor.Int, 1, gorgonia.WithShape(len(v)),
		gorgonia.WithName(fmt.Sprint("indices", v)),
		gorgonia.WithValue(tensor.New(tensor.WithShape(len(v)), tensor.WithBacking(v))))
}

// constant is a scalar constant.
func (b *builder) constant(v float64) *gorgonia.Node {
	if b.dt == tensor.Float64 {
		return gorgonia.NewConstant(v)
	}
	return gorgonia.NewConstant(float32(v))
}

func (b *builder) nodes() []*gorgonia.Node {
	n := make([]*gorgonia.Node, len(b.vars))
	for i, v := range b.vars {
		n[i] = v.node
	}
	return n
}

// must is gorgonia.Must under a short name.
func must(n *gorgonia.Node, err error) *gorgonia.Node {
	if err != nil {
		panic(err)
	}
	return n
}

// tapeValue runs a fresh tape machine and returns the value of n.
func tapeValue(t *testing.T, g *gorgonia.ExprGraph, n *gorgonia.Node, opts ...gorgonia.VMOpt) []float64 {
	t.Helper()
	var v gorgonia.Value
	gorgonia.Read(n, &v)
	vm := gorgonia.NewTapeMachine(g, opts...)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		t.Fatalf("tape machine: %v", err)
	}
	return float64s(v.Data())
}

// float64s converts the data of a value.
func float64s(data any) []float64 {
	switch d := data.(type) {
	case []float64:
		return d
	case float64:
		return []float64{d}
	case []float32:
		x := make([]float64, len(d))
		for i, v := range d {
			x[i] = float64(v)
		}
		return x
	case float32:
		return []float64{float64(d)}
	case []int:
		x := make([]float64, len(d))
		for i, v := range d {
			x[i] = float64(v)
		}
		return x
	}
	panic(fmt.Sprintf("no floats: %T", data))
}

// precision is how exactly results of a dtype are compared.
type precision struct {
	value float64 // relative error allowed of values and of sums of products
	step  float64 // of finite differences, a power of two so that x + step is exact for most x
	diff  float64 // relative error allowed of finite differences
}

// precisionOf allows for the error of a central difference of fourth order: step^4 f””'/30 + 1.5
// eps |f|/step. In float64 both terms are about 1e-12 for the step 2^-10. In float32 eps is 6e-8,
// and the error of f is several eps. There the step 2^-5 balances the two: 3e-8 f””' and 1e-5 |f|.
func precisionOf[T Float]() precision {
	var x T
	if _, ok := any(x).(float64); ok {
		return precision{1e-12, 1.0 / 4096, 1e-9}
	}
	return precision{2e-6, 1.0 / 32, 2e-4}
}

// prepared is a program with a run, ready to be checked.
type prepared[T Float] struct {
	*testing.T
	p    *Program
	r    *Run[T]
	vars []*Node // the float inputs that the program has
	out  *Node
}

func prepare[T Float](t *testing.T, b *builder, out *gorgonia.Node) *prepared[T] {
	t.Helper()
	p, err := New([]*gorgonia.Node{out})
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRun[T](p, 7)
	if err != nil {
		t.Fatal(err)
	}
	s := &prepared[T]{t, p, r, nil, p.Outputs[0]}
	s.findInputs(b)
	return s
}

// findInputs finds those of the graph's float inputs that the program has.
func (s *prepared[T]) findInputs(b *builder) {
	for _, v := range b.vars {
		if n := s.p.Node(v.node); n != nil {
			s.vars = append(s.vars, n)
		}
	}
}

func (s *prepared[T]) forward(rows []int) []T {
	s.Helper()
	if err := s.r.Forward(rows); err != nil {
		s.Fatal(err)
	}
	return append([]T(nil), s.r.Value(s.out).Data...)
}

func (s *prepared[T]) reverse(seed []T) [][]T {
	s.Helper()
	if err := s.r.Reverse([]Seed[T]{{s.out, seed}}, s.p.Path(s.vars...)); err != nil {
		s.Fatal(err)
	}
	grads := make([][]T, len(s.vars))
	for i, v := range s.vars {
		grads[i] = append([]T(nil), s.r.Gradient(v)...)
	}
	return grads
}

func (s *prepared[T]) tangent(dirs [][]T) []T {
	s.Helper()
	seeds := make([]Seed[T], len(dirs))
	for i, d := range dirs {
		seeds[i] = Seed[T]{s.vars[i], d}
	}
	if err := s.r.Tangent(seeds, s.p.Path(s.vars...)); err != nil {
		s.Fatal(err)
	}
	return append([]T(nil), s.r.Directional(s.out)...)
}

// bindCopies gives the inputs copies of their values, for finite differences to change in place.
func (s *prepared[T]) bindCopies() [][]T {
	s.Helper()
	x := make([][]T, len(s.vars))
	for i, v := range s.vars {
		x[i] = append([]T(nil), s.r.Value(v).Data...)
		if err := s.r.Bind(v, x[i]); err != nil {
			s.Fatal(err)
		}
	}
	return x
}

func (s *prepared[T]) unbind() {
	for _, v := range s.vars {
		if err := s.r.Bind(v, nil); err != nil {
			s.Fatal(err)
		}
	}
}

// checkDerivatives compares Reverse and Tangent with finite differences of Forward, and with each
// other.
func (s *prepared[T]) checkDerivatives(rng *rand.Rand) {
	s.Helper()
	s.checkDerivativesWithin(rng, precisionOf[T]())
}

func (s *prepared[T]) checkDerivativesWithin(rng *rand.Rand, prec precision) {
	s.Helper()
	f := s.forward(nil)
	seed := random[T](rng, len(f))
	dirs := make([][]T, len(s.vars))
	for i, v := range s.vars {
		dirs[i] = random[T](rng, v.Size())
	}
	grads, tan := s.reverse(seed), s.tangent(dirs)
	s.checkLifetimes(f, dirs, tan)

	var left, right, scale float64 // <g, J t> = <J^T g, t>
	for i, g := range seed {
		left += float64(g) * float64(tan[i])
		scale += math.Abs(float64(g) * float64(tan[i]))
	}
	for i, grad := range grads {
		for j, g := range grad {
			right += float64(g) * float64(dirs[i][j])
			scale += math.Abs(float64(g) * float64(dirs[i][j]))
		}
	}
	if math.Abs(left-right) > prec.value*scale {
		s.Errorf("<g, J t> = %v but <J^T g, t> = %v", left, right)
	}

	x := s.bindCopies()
	defer s.unbind()
	size := 1 + absDot(seed, f)
	for i, v := range s.vars {
		for j, x0 := range x[i] {
			want := difference(prec.step, func(h float64) float64 {
				x[i][j] = x0 + T(h)
				return dot(seed, s.forward(nil))
			})
			x[i][j] = x0
			if got := float64(grads[i][j]); !near(got, want, prec.diff*size) {
				s.Errorf("gradient of %s[%d] is %v, finite differences say %v", v.Name(), j, got, want)
			}
		}
	}
	moved := s.bindCopies()
	shifted := func(h float64) []T {
		for k := range x {
			for j := range moved[k] {
				moved[k][j] = x[k][j] + T(h)*dirs[k][j]
			}
		}
		return s.forward(nil)
	}
	h := prec.step
	ahead, behind, farAhead, farBehind := shifted(h), shifted(-h), shifted(2*h), shifted(-2*h)
	for i := range tan {
		want := (8*(float64(ahead[i])-float64(behind[i])) - (float64(farAhead[i]) - float64(farBehind[i]))) / (12 * h)
		if !near(float64(tan[i]), want, prec.diff*(1+math.Abs(want)+maxAbs(f))) {
			s.Errorf("tangent[%d] is %v, finite differences say %v", i, tan[i], want)
		}
	}
}

// difference is the central difference of fourth order.
func difference(h float64, f func(h float64) float64) float64 {
	return (8*(f(h)-f(-h)) - (f(2*h) - f(-2*h))) / (12 * h)
}

// near compares absolutely; NaN is near nothing.
func near(got, want, tolerance float64) bool { return math.Abs(got-want) <= tolerance }

func dot[T Float](x, y []T) (s float64) {
	for i := range x {
		s += float64(x[i]) * float64(y[i])
	}
	return s
}

func absDot[T Float](x, y []T) (s float64) {
	for i := range x {
		s += math.Abs(float64(x[i]) * float64(y[i]))
	}
	return s
}

func maxAbs[T Float](x []T) (m float64) {
	for _, v := range x {
		m = max(m, math.Abs(float64(v)))
	}
	return m
}

func random[T Float](rng *rand.Rand, n int) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(2*rng.Float64() - 1)
	}
	return x
}

// compare demands that got and want agree to a relative precision.
func compare[T Float](t *testing.T, what string, got []T, want []float64, relative float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d elements, want %d", what, len(got), len(want))
	}
	tol := relative * (1 + maxAbs(want))
	for i := range got {
		if !near(float64(got[i]), want[i], tol) {
			t.Errorf("%s[%d] is %v, want %v", what, i, got[i], want[i])
		}
	}
}
