package kfac_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

type float interface{ float32 | float64 }

// net is a model as a user would write it: its graph, and what a training loop touches.
type net struct {
	graph  *gorgonia.ExprGraph
	x, y   *gorgonia.Node // one case a row
	out    *gorgonia.Node // natural parameters of the predictive distribution
	cost   *gorgonia.Node
	params gorgonia.Nodes
}

// valueGrads is what the loop gives to Step.
func (m *net) valueGrads() []gorgonia.ValueGrad { return gorgonia.NodesToValueGrads(m.params) }

func (m *net) param(t testing.TB, name string) *gorgonia.Node {
	t.Helper()
	for _, n := range m.params {
		if n.Name() == name {
			return n
		}
	}
	t.Fatalf("the net has no parameter %q", name)
	return nil
}

// matrix is a rows x cols tensor of T.
func matrix[T float](rows, cols int, data []float64) *tensor.Dense {
	backing := make([]T, rows*cols)
	for i, v := range data {
		backing[i] = T(v)
	}
	return tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(backing))
}

// normal draws n numbers from N(0, std^2).
func normal(rng *rand.Rand, n int, std float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = std * rng.NormFloat64()
	}
	return v
}

func dtype[T float]() tensor.Dtype {
	if _, ok := any(T(0)).(float32); ok {
		return tensor.Float32
	}
	return tensor.Float64
}

// input adds a matrix to the graph; parameters are inputs too.
func input[T float](g *gorgonia.ExprGraph, name string, rows, cols int, data []float64) *gorgonia.Node {
	return gorgonia.NewMatrix(g, dtype[T](), gorgonia.WithName(name), gorgonia.WithShape(rows, cols),
		gorgonia.WithValue(matrix[T](rows, cols, data)))
}

// loss is how a test writes a cost: the mean over cases of the negative log-likelihood unless it says otherwise.
type loss func(out, y *gorgonia.Node) *gorgonia.Node

var must = gorgonia.Must

// crossEntropy is -mean over cases of sum_k y_k log softmax(out)_k.
func crossEntropy(out, y *gorgonia.Node) *gorgonia.Node {
	logp := must(gorgonia.LogSoftMax(out))
	return must(gorgonia.Neg(must(gorgonia.Mean(must(gorgonia.Sum(must(gorgonia.HadamardProd(logp, y)), 1))))))
}

// squaredError is the mean over cases of |out - y|^2 / 2.
func squaredError(out, y *gorgonia.Node) *gorgonia.Node {
	squares := must(gorgonia.Square(must(gorgonia.Sub(out, y))))
	half := gorgonia.NewConstant(tensorScalar(out, 0.5))
	return must(gorgonia.HadamardProd(must(gorgonia.Mean(must(gorgonia.Sum(squares, 1)))), half))
}

// tensorScalar is v in the dtype of n, as NewConstant takes it.
func tensorScalar(n *gorgonia.Node, v float64) any {
	if n.Dtype() == tensor.Float32 {
		return float32(v)
	}
	return v
}

// binaryCrossEntropy is the mean over cases of sum_k log(1 + exp(out_k)) - y_k out_k.
func binaryCrossEntropy(out, y *gorgonia.Node) *gorgonia.Node {
	nll := must(gorgonia.Sub(must(gorgonia.Softplus(out)), must(gorgonia.HadamardProd(out, y))))
	return must(gorgonia.Mean(must(gorgonia.Sum(nll, 1))))
}

// shape of a multilayer perceptron: its batch size and the widths of its layers, input and output included.
type shape struct {
	batch  int
	widths []int
}

// newMLP makes a perceptron with tanh units, biases of shape (1, out), random weights and random data. Without Grad.
func newMLP[T float](seed uint64, s shape, l loss) *net {
	rng := rand.New(rand.NewPCG(seed, 7))
	m := &net{graph: gorgonia.NewGraph()}
	last := len(s.widths) - 1
	m.x = input[T](m.graph, "x", s.batch, s.widths[0], normal(rng, s.batch*s.widths[0], 1))
	m.y = input[T](m.graph, "y", s.batch, s.widths[last], oneHot(rng, s.batch, s.widths[last]))
	h := m.x
	for i, out := range s.widths[1:] {
		in := s.widths[i]
		w := input[T](m.graph, fmt.Sprintf("w%d", i), in, out, normal(rng, in*out, 1/math.Sqrt(float64(in))))
		b := input[T](m.graph, fmt.Sprintf("b%d", i), 1, out, normal(rng, out, 0.1))
		m.params = append(m.params, w, b)
		h = must(gorgonia.BroadcastAdd(must(gorgonia.Mul(h, w)), b, nil, []byte{0}))
		if i+1 < last {
			h = must(gorgonia.Tanh(h))
		}
	}
	m.out = h
	m.cost = l(m.out, m.y)
	return m
}

// oneHot draws a class for each row: targets that every distribution here can have.
func oneHot(rng *rand.Rand, rows, classes int) []float64 {
	y := make([]float64, rows*classes)
	for i := range rows {
		y[i*classes+rng.IntN(classes)] = 1
	}
	return y
}

// grad calls gorgonia.Grad for all parameters.
func (m *net) grad(t testing.TB) {
	t.Helper()
	if _, err := gorgonia.Grad(m.cost, m.params...); err != nil {
		t.Fatal(err)
	}
}

// machine runs a net forward and backward once. A new LispMachine is needed each time: a second RunAll of one does nothing.
type machine func() error

// dualTape is the machine that Gorgonia's own examples use with a solver.
func dualTape(m *net) machine {
	return tape(m, gorgonia.BindDualValues(m.params...))
}

func tape(m *net, opts ...gorgonia.VMOpt) machine {
	vm := gorgonia.NewTapeMachine(m.graph, opts...)
	return func() error { vm.Reset(); return vm.RunAll() }
}

// compiled is a tape machine that runs only what cost and gradients need.
func compiled(t testing.TB, m *net) machine {
	t.Helper()
	outputs := gorgonia.Nodes{m.cost}
	for _, p := range m.params {
		outputs = append(outputs, p.Deriv())
	}
	prog, locMap, err := gorgonia.CompileFunction(m.graph, append(gorgonia.Nodes{m.x, m.y}, m.params...), outputs)
	if err != nil {
		t.Fatal(err)
	}
	return tape(m, gorgonia.WithPrecompiled(prog, locMap), gorgonia.BindDualValues(m.params...))
}

func lisp(m *net) machine {
	return func() error { return gorgonia.NewLispMachine(m.graph).RunAll() }
}

// trainer is a training loop: run the machine, step.
type trainer struct {
	*net
	run    machine
	solver gorgonia.Solver
}

// step does one iteration.
func (tr *trainer) step() error {
	if err := tr.run(); err != nil {
		return err
	}
	return tr.solver.Step(tr.valueGrads())
}

// steps does n iterations, none of which may fail.
func (tr *trainer) steps(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		if err := tr.step(); err != nil {
			t.Fatalf("iteration %d: %v", i+1, err)
		}
	}
}

// newTrainer attaches K-FAC to a net, with the usual machine.
func newTrainer(t testing.TB, m *net, dist kfac.Distribution, opts ...kfac.Option) *trainer {
	t.Helper()
	m.grad(t)
	return &trainer{net: m, run: dualTape(m), solver: newSolver(t, m, dist, opts...)}
}

func newSolver(t testing.TB, m *net, dist kfac.Distribution, opts ...kfac.Option) *kfac.Solver {
	t.Helper()
	s, err := kfac.NewSolver(m.cost, dist, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// numbers copies a value as float64, which holds every float32 exactly.
func numbers(v gorgonia.Value) []float64 {
	var out []float64
	add := func(x any) {
		switch x := x.(type) {
		case float64:
			out = append(out, x)
		case float32:
			out = append(out, float64(x))
		}
	}
	switch v := v.(type) {
	case *gorgonia.F64:
		add(float64(*v))
	case *gorgonia.F32:
		add(float64(*v))
	case *tensor.Dense:
		eachElement(v, func(at, _ int) { add(v.Get(at)) })
	}
	return out
}

// eachElement calls f with the place in memory and the row-major number of each element of a tensor.
func eachElement(d *tensor.Dense, f func(at, i int)) {
	it := d.Iterator()
	i := 0
	for at, err := it.Start(); err == nil; at, err = it.Next() {
		f(at, i)
		i++
	}
}

// weights copies the values of nodes, one behind the other.
func weights(nodes gorgonia.Nodes) []float64 {
	var all []float64
	for _, n := range nodes {
		all = append(all, numbers(n.Value())...)
	}
	return all
}

// gradients copies the gradients of nodes, one behind the other.
func gradients(t testing.TB, nodes gorgonia.Nodes) []float64 {
	t.Helper()
	var all []float64
	for _, n := range nodes {
		g, err := n.Grad()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, numbers(g)...)
	}
	return all
}

// sameBits fails unless got and want are equal in every bit, NaN included.
func sameBits(t testing.TB, what string, got, want []float64) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%s: %d numbers, want %d > 0", what, len(got), len(want))
	}
	for i := range want {
		if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
			t.Fatalf("%s: element %d of %d is %v, want %v in every bit; largest relative difference %.3g", what, i, len(want), got[i], want[i], distance(got, want))
		}
	}
}

// near fails unless got and want differ by at most tol times the norm of want.
func near(t testing.TB, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%s: %d numbers, want %d > 0", what, len(got), len(want))
	}
	if d := distance(got, want); !(d <= tol) {
		t.Fatalf("%s: relative distance %.3g, at most %.3g expected", what, d, tol)
	}
}

// distance is |a - b| / |b|.
func distance(a, b []float64) float64 {
	var d, n float64
	for i := range b {
		d += (a[i] - b[i]) * (a[i] - b[i])
		n += b[i] * b[i]
	}
	return math.Sqrt(d / n)
}

// moved fails unless every one of nodes has changed since before.
func moved(t testing.TB, nodes gorgonia.Nodes, before []float64) {
	t.Helper()
	at := 0
	for _, n := range nodes {
		now := numbers(n.Value())
		if distance(now, before[at:at+len(now)]) == 0 {
			t.Errorf("%s has not moved", n.Name())
		}
		at += len(now)
	}
}
