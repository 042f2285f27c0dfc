package program

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// opBase has what ops of a user need besides Do and SymDiff. By default they have one operand, and
// a result of its shape.
type opBase struct{}

func (opBase) Arity() int { return 1 }
func (opBase) Type() hm.Type {
	return hm.NewFnType(hm.TypeVariable('a'), hm.TypeVariable('a'))
}
func (opBase) InferShape(in ...gorgonia.DimSizer) (tensor.Shape, error) {
	return in[0].(tensor.Shape).Clone(), nil
}
func (opBase) ReturnsPtr() bool     { return false }
func (opBase) CallsExtern() bool    { return false }
func (opBase) OverwritesInput() int { return -1 }

// funcOp is an op of a user: f of each element of the first operand.
type funcOp struct {
	opBase
	name string
	f    func(x float64) float64
}

func (o funcOp) String() string        { return o.name }
func (o funcOp) Hashcode() uint32      { return hashOf(o.name) }
func (o funcOp) WriteHash(h hash.Hash) { fmt.Fprint(h, o.name) }
func (o funcOp) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	return mapped(in[0], func(x float64) float64 { return o.f(x) }), nil
}

func hashOf(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}

// mapped is a new value of the same shape and type.
func mapped(v gorgonia.Value, f func(float64) float64) gorgonia.Value {
	switch v := v.(type) {
	case *gorgonia.F64:
		return gorgonia.NewF64(f(float64(*v)))
	case *gorgonia.F32:
		return gorgonia.NewF32(float32(f(float64(*v))))
	}
	x := float64s(v.Data())
	y := make([]float64, len(x))
	for i := range x {
		y[i] = f(x[i])
	}
	b := &builder{dt: v.Dtype()}
	return tensor.New(tensor.WithShape(v.Shape().Clone()...), tensor.WithBacking(b.values(y)))
}

// smoothOp is a funcOp with a derivative.
type smoothOp struct {
	funcOp
	wrt  []bool
	diff func(x, y, grad *gorgonia.Node) (gorgonia.Nodes, error)
}

func (o smoothOp) DiffWRT(n int) []bool { return o.wrt }
func (o smoothOp) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	return o.diff(in[0], out, grad)
}

// cubeOp differentiates x^3 by ops of Gorgonia.
var cubeOp = smoothOp{funcOp{name: "user's cube", f: func(x float64) float64 { return x * x * x }}, []bool{true},
	func(x, y, grad *gorgonia.Node) (gorgonia.Nodes, error) {
		twice := must(gorgonia.Add(must(gorgonia.Square(x)), must(gorgonia.Square(x))))
		sum := must(gorgonia.Add(must(gorgonia.Square(x)), twice))
		return gorgonia.Nodes{must(gorgonia.HadamardProd(sum, grad))}, nil
	}}

// expOp uses its result: grad exp(x) = grad y.
var expOp = smoothOp{funcOp{name: "user's exp", f: math.Exp}, []bool{true},
	func(x, y, grad *gorgonia.Node) (gorgonia.Nodes, error) {
		return gorgonia.Nodes{must(gorgonia.HadamardProd(y, grad))}, nil
	}}

// sineOp differentiates by an op of the user that has no derivative itself.
var sineOp = smoothOp{funcOp{name: "user's sine", f: math.Sin}, []bool{true},
	func(x, y, grad *gorgonia.Node) (gorgonia.Nodes, error) {
		return gorgonia.Nodes{must(gorgonia.ApplyOp(cosOp{}, x, grad))}, nil
	}}

// cosOp is cos(x) g.
type cosOp struct{ opBase }

func (cosOp) Arity() int              { return 2 }
func (cosOp) String() string          { return "user's cosine" }
func (o cosOp) Hashcode() uint32      { return hashOf(o.String()) }
func (o cosOp) WriteHash(h hash.Hash) { fmt.Fprint(h, o) }
func (cosOp) Type() hm.Type {
	return hm.NewFnType(hm.TypeVariable('a'), hm.TypeVariable('a'), hm.TypeVariable('a'))
}
func (cosOp) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	g, i := float64s(in[1].Data()), -1
	return mapped(in[0], func(x float64) float64 { i++; return math.Cos(x) * g[i] }), nil
}

// weighOp multiplies each element of a vector by an integer, or by a truth value.
type weighOp struct {
	opBase
	of tensor.Dtype
}

func (weighOp) Arity() int              { return 2 }
func (o weighOp) String() string        { return "user's weights of " + o.of.String() }
func (o weighOp) Hashcode() uint32      { return hashOf(o.String()) }
func (o weighOp) WriteHash(h hash.Hash) { fmt.Fprint(h, o) }
func (o weighOp) Type() hm.Type {
	a := hm.TypeVariable('a')
	return hm.NewFnType(a, gorgonia.TensorType{Dims: 1, Of: o.of}, a)
}
func (o weighOp) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	if in[1].Dtype() != o.of {
		return nil, fmt.Errorf("weights of %v, want %v", in[1].Dtype(), o.of)
	}
	k, i := reflect.ValueOf(in[1].Data()), -1
	return mapped(in[0], func(x float64) float64 {
		i++
		switch k := k.Index(i); {
		case k.CanInt():
			return x * float64(k.Int())
		case k.CanUint():
			return x * float64(k.Uint())
		case k.Bool():
			return x
		}
		return 0
	}), nil
}
func (weighOp) DiffWRT(n int) []bool { return []bool{true, false} }
func (o weighOp) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	d, err := gorgonia.ApplyOp(o, grad, in[1])
	return gorgonia.Nodes{d, nil}, err
}

func weighed(k any) func(b *builder) *gorgonia.Node {
	return func(b *builder) *gorgonia.Node {
		v := tensor.New(tensor.WithShape(3), tensor.WithBacking(k))
		n := gorgonia.NewVector(b.g, v.Dtype(), gorgonia.WithShape(3),
			gorgonia.WithName("weights"), gorgonia.WithValue(v))
		return must(gorgonia.ApplyOp(weighOp{of: v.Dtype()}, b.x(3), n))
	}
}

// prodOp is the product of its operands, with a derivative in those that it declares.
type prodOp struct {
	cosOp // of two operands as well
	wrt   []bool
}

func (o prodOp) String() string        { return fmt.Sprint("user's product", o.wrt) }
func (o prodOp) Hashcode() uint32      { return hashOf(o.String()) }
func (o prodOp) WriteHash(h hash.Hash) { fmt.Fprint(h, o) }
func (o prodOp) DiffWRT(n int) []bool  { return o.wrt }
func (prodOp) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	return gorgonia.Nodes{must(gorgonia.HadamardProd(in[1], grad)), must(gorgonia.HadamardProd(in[0], grad))}, nil
}
func (prodOp) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	y, i := float64s(in[1].Data()), -1
	return mapped(in[0], func(x float64) float64 { i++; return x * y[i] }), nil
}

// TestUserOps checks ops that the package does not know.
func TestUserOps(t *testing.T) {
	for _, c := range []opCase{
		{name: "SymDiff of known ops", graph: func(b *builder) *gorgonia.Node {
			return must(gorgonia.ApplyOp(cubeOp, b.x(2, 3)))
		}},
		{name: "SymDiff with the result", graph: func(b *builder) *gorgonia.Node {
			return must(gorgonia.ApplyOp(expOp, b.x(2, 3)))
		}},
		{name: "scalar", graph: func(b *builder) *gorgonia.Node { return must(gorgonia.ApplyOp(cubeOp, b.x())) }},
		{name: "between known ops", graph: func(b *builder) *gorgonia.Node {
			h := must(gorgonia.ApplyOp(cubeOp, must(gorgonia.Mul(b.input(between(-0.5, 0.5), 2, 3), b.x(3, 2)))))
			return must(gorgonia.Mul(must(gorgonia.ApplyOp(expOp, h)), b.x(2, 2)))
		}},
		{name: "operand twice", graph: func(b *builder) *gorgonia.Node {
			x := b.x(2, 3)
			return must(gorgonia.HadamardProd(must(gorgonia.ApplyOp(cubeOp, x)), must(gorgonia.ApplyOp(expOp, x))))
		}},
		{name: "two operands", graph: func(b *builder) *gorgonia.Node {
			return must(gorgonia.ApplyOp(prodOp{wrt: []bool{true, true}}, b.x(2, 3), b.x(2, 3)))
		}},
		{name: "int", graph: weighed([]int{2, 0, -1})},
		{name: "int64", graph: weighed([]int64{2, 0, -1})},
		{name: "int32", graph: weighed([]int32{2, 0, -1})},
		{name: "byte", graph: weighed([]byte{2, 0, 1})},
		{name: "bool", graph: weighed([]bool{true, false, true})},
		{name: "truth values", graph: func(b *builder) *gorgonia.Node {
			x := b.input(spaced(0.3), 4)
			return must(gorgonia.ApplyOp(weighOp{of: tensor.Bool}, x, must(gorgonia.Gt(x, b.constant(0.05), false))))
		}, naive: func(x [][]float64) []float64 {
			y := make([]float64, len(x[0]))
			for i, v := range x[0] {
				y[i] = math.Max(v, 0)
			}
			return y
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Run("float64", func(t *testing.T) { checkUserOp[float64](t, c) })
			t.Run("float32", func(t *testing.T) { checkUserOp[float32](t, c) })
		})
	}
}

func checkUserOp[T Float](t *testing.T, c opCase) {
	b := newBuilder(dtypeOf[T](), 11)
	s := prepare[T](t, b, c.graph(b))
	if err := s.p.CheckDifferentiable(s.p.Path(s.vars...)); err != nil {
		t.Error(err)
	}
	nodes := len(b.g.AllNodes())
	for range 2 {
		compare(t, "value", s.forward(nil), s.wantValue(c, b, 11), 4*precisionOf[T]().value)
		s.checkDerivatives(b.rng)
		b.redraw()
	}
	if n := len(b.g.AllNodes()); n != nodes {
		t.Errorf("the user's graph has %d nodes, had %d", n, nodes)
	}
}

// TestTangentOfUnknownGradient: an op whose SymDiff uses an op without a derivative can be run
// backwards, but not forwards.
func TestTangentOfUnknownGradient(t *testing.T) {
	b := newBuilder(tensor.Float64, 1)
	s := prepare[float64](t, b, must(gorgonia.ApplyOp(sineOp, b.x(2, 3))))
	s.forward(nil)
	seed := random[float64](b.rng, 6)
	for i, g := range s.reverse(seed)[0] {
		if want := seed[i] * math.Cos(float64s(b.vars[0].node.Value().Data())[i]); !near(g, want, 1e-14) {
			t.Errorf("gradient[%d] is %v, want %v", i, g, want)
		}
	}
	err := s.r.Tangent([]Seed[float64]{{s.vars[0], seed}}, s.p.Path(s.vars...))
	if !errors.Is(err, ErrNotDifferentiable) || !strings.Contains(err.Error(), "user's cosine") {
		t.Errorf("tangent: %v", err)
	}
}

func TestNotDifferentiable(t *testing.T) {
	none := func(x, y, grad *gorgonia.Node) (gorgonia.Nodes, error) { return nil, nil }
	step := funcOp{name: "user's op", f: math.Floor}
	for _, c := range []struct {
		name    string
		op      gorgonia.Op
		want    string
		checked bool // CheckDifferentiable sees it
	}{
		{"no SymDiff", step, "no SymDiff", true},
		{"none declared", smoothOp{step, []bool{false}, none}, "no derivative", true},
		{"too few declared", smoothOp{step, nil, none}, "lists 0 of 1", true},
		{"SymDiff fails", smoothOp{step, []bool{true}, func(x, y, grad *gorgonia.Node) (gorgonia.Nodes, error) {
			return nil, errors.New("out of ink")
		}}, "out of ink", false},
		{"SymDiff panics", smoothOp{step, []bool{true}, func(x, y, grad *gorgonia.Node) (gorgonia.Nodes, error) {
			panic("out of paper")
		}}, "out of paper", false},
		{"SymDiff returns nothing", smoothOp{step, []bool{true}, none}, "no gradient of operand 0", false},
		{"SymDiff returns another shape", smoothOp{step, []bool{true},
			func(x, y, grad *gorgonia.Node) (gorgonia.Nodes, error) {
				return gorgonia.Nodes{must(gorgonia.Sum(grad))}, nil
			}}, "gradient of shape ()", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder(tensor.Float64, 1)
			h := must(gorgonia.Tanh(b.x(2, 3)))
			n := must(gorgonia.ApplyOp(c.op, h))
			gorgonia.WithName("rounded")(n)
			s := prepare[float64](t, b, must(gorgonia.Square(n)))
			s.forward(nil)
			path := s.p.Path(s.vars...)
			err := s.p.CheckDifferentiable(path)
			if !c.checked {
				if err != nil {
					t.Errorf("CheckDifferentiable: %v", err)
				}
				err = s.r.Reverse([]Seed[float64]{{s.out, make([]float64, 6)}}, path)
			}
			var opErr *OpError
			if !errors.Is(err, ErrNotDifferentiable) || !errors.As(err, &opErr) ||
				opErr.Op != "user's op" || opErr.Node != "rounded" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want an OpError with %q", err, c.want)
			}
			if err := s.p.CheckDifferentiable(s.p.Path(s.p.Node(n))); err != nil {
				t.Errorf("path that begins behind the op: %v", err)
			}
		})
	}
}

// TestConstantOperand: where the op declares an operand not to be differentiable in, the derivative
// is zero, as in Gorgonia.
func TestConstantOperand(t *testing.T) {
	b := newBuilder(tensor.Float64, 1)
	s := prepare[float64](t, b, must(gorgonia.ApplyOp(prodOp{wrt: []bool{true, false}}, b.x(3), b.x(3))))
	if err := s.p.CheckDifferentiable(s.p.Path(s.vars...)); err != nil {
		t.Error(err)
	}
	if err := s.p.CheckDifferentiable(s.p.Path(s.vars[1])); !errors.Is(err, ErrNotDifferentiable) {
		t.Errorf("path through that operand alone: %v", err)
	}
	s.forward(nil)
	y, seed := float64s(b.vars[1].node.Value().Data()), random[float64](b.rng, 3)
	grads := s.reverse(seed)
	tan := s.tangent([][]float64{seed, {1, 1, 1}})
	for i, g := range seed {
		if grads[0][i] != g*y[i] || grads[1][i] != 0 || tan[i] != g*y[i] {
			t.Errorf("element %d: gradients %v and %v, tangent %v, want %v, 0 and %v",
				i, grads[0][i], grads[1][i], tan[i], g*y[i], g*y[i])
		}
	}
}

// TestDoErrors: what goes wrong in an op's Do is told with the names of op and node.
func TestDoErrors(t *testing.T) {
	for _, c := range []struct {
		do   func(v gorgonia.Value) (gorgonia.Value, error)
		want string
	}{
		{func(gorgonia.Value) (gorgonia.Value, error) { return nil, errors.New("out of ink") }, "out of ink"},
		{func(gorgonia.Value) (gorgonia.Value, error) { panic("out of paper") }, "out of paper"},
		{func(gorgonia.Value) (gorgonia.Value, error) { return nil, nil }, "no value"},
		{func(gorgonia.Value) (gorgonia.Value, error) { return gorgonia.NewF64(1), nil }, "has shape ()"},
		{func(gorgonia.Value) (gorgonia.Value, error) {
			return tensor.New(tensor.WithShape(2, 3), tensor.Of(tensor.Float32)), nil
		}, "dtype float32"},
	} {
		b := newBuilder(tensor.Float64, 1)
		n := must(gorgonia.ApplyOp(doOp{funcOp{name: "user's op"}, c.do}, b.x(2, 3)))
		gorgonia.WithName("broken")(n)
		err := prepare[float64](t, b, n).r.Forward(nil)
		var opErr *OpError
		if !errors.As(err, &opErr) || opErr.Op != "user's op" || opErr.Node != "broken" ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want an OpError with %q", err, c.want)
		}
	}
}

type doOp struct {
	funcOp
	do func(v gorgonia.Value) (gorgonia.Value, error)
}

func (o doOp) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return o.do(in[0]) }
