package kfac

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

var must = gorgonia.Must

// A sketch is a graph in the making, in float64, with random inputs. Two sketches of one seed give the same values.
type sketch struct {
	graph *gorgonia.ExprGraph
	rng   *rand.Rand
}

func newSketch(seed uint64) *sketch {
	return &sketch{gorgonia.NewGraph(), rand.New(rand.NewPCG(seed, 3))}
}

// normals draws n standard normal numbers.
func (s *sketch) normals(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = s.rng.NormFloat64()
	}
	return x
}

// leaf makes an input that holds the given values.
func (s *sketch) leaf(name string, data []float64, shape ...int) *gorgonia.Node {
	value := tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
	return gorgonia.NewTensor(s.graph, tensor.Float64, len(shape), gorgonia.WithShape(shape...), gorgonia.WithName(name), gorgonia.WithValue(value))
}

// random makes an input of standard normal values.
func (s *sketch) random(name string, shape ...int) *gorgonia.Node {
	return s.leaf(name, s.normals(size(shape)), shape...)
}

// ones makes an input of ones.
func (s *sketch) ones(name string, shape ...int) *gorgonia.Node {
	data := make([]float64, size(shape))
	for i := range data {
		data[i] = 1
	}
	return s.leaf(name, data, shape...)
}

// uniform makes an input of values in (0, 1).
func (s *sketch) uniform(name string, shape ...int) *gorgonia.Node {
	data := make([]float64, size(shape))
	for i := range data {
		data[i] = s.rng.Float64()
	}
	return s.leaf(name, data, shape...)
}

// matrix makes an input of the elements of m.
func (s *sketch) matrix(name string, m mat.Matrix) *gorgonia.Node {
	rows, cols := m.Dims()
	return s.leaf(name, mat.DenseCopyOf(m).RawMatrix().Data, rows, cols)
}

// input is the input of a network with the given name.
func input(n *network, name string) *gorgonia.Node {
	for _, leaf := range n.sketch.graph.Inputs() {
		if leaf.Name() == name {
			return leaf
		}
	}
	panic("no input " + name)
}

// data is the memory of an input's value.
func data(n *gorgonia.Node) []float64 { return n.Value().Data().([]float64) }

// A lossFunc makes the cost of an output, with random targets, and declares it.
type lossFunc func(s *sketch, out *gorgonia.Node) (cost *gorgonia.Node, dist Distribution)

// squares is the mean over cases of |z-y|^2 / (2 variance).
func squares(variance float64) lossFunc {
	return func(s *sketch, out *gorgonia.Node) (*gorgonia.Node, Distribution) {
		y := s.random("y", out.Shape()...)
		total := must(gorgonia.Sum(must(gorgonia.Square(must(gorgonia.Sub(out, y))))))
		factor := 1 / (2 * variance * float64(casesOf(out)))
		return must(gorgonia.Mul(total, gorgonia.NewConstant(factor))), Gaussian(out, variance)
	}
}

// binary is the mean over cases of the binary cross-entropy.
func binary(s *sketch, out *gorgonia.Node) (*gorgonia.Node, Distribution) {
	y := s.uniform("y", out.Shape()...)
	total := must(gorgonia.Sum(must(gorgonia.Sub(must(gorgonia.Softplus(out)), must(gorgonia.HadamardProd(y, out))))))
	return must(gorgonia.Mul(total, gorgonia.NewConstant(1/float64(casesOf(out))))), Bernoulli(out)
}

// classes is the mean over cases of the softmax cross-entropy, for an output of (cases, classes).
func classes(s *sketch, out *gorgonia.Node) (*gorgonia.Node, Distribution) {
	y := s.leaf("y", make([]float64, out.Shape().TotalSize()), out.Shape()...)
	for i, k := 0, out.Shape()[1]; i < out.Shape()[0]; i++ {
		data(y)[i*k+s.rng.IntN(k)] = 1
	}
	total := must(gorgonia.Sum(must(gorgonia.HadamardProd(must(gorgonia.LogSoftMax(out)), y))))
	return must(gorgonia.Mul(total, gorgonia.NewConstant(-1/float64(casesOf(out))))), Categorical(out)
}

func casesOf(out *gorgonia.Node) int {
	if out.Dims() < 2 {
		return 1
	}
	return out.Shape()[0]
}

// A network is a model with its cost.
type network struct {
	sketch    *sketch
	x         *gorgonia.Node
	out, cost *gorgonia.Node
	dist      Distribution
	params    gorgonia.Nodes
}

// mlp describes a multilayer perceptron of random weights and data.
type mlp struct {
	widths  []int // of the input, the hidden layers and the output
	cases   int
	unit    func(*gorgonia.Node) (*gorgonia.Node, error) // of the hidden layers; nil for a linear net
	noBias  bool
	outByIn bool // weights are stored out x in
	loss    lossFunc
}

func (m mlp) build(seed uint64) *network {
	s := newSketch(seed)
	n := &network{sketch: s, x: s.random("x", m.cases, m.widths[0])}
	h := n.x
	for i, out := range m.widths[1:] {
		if i > 0 && m.unit != nil {
			h = must(m.unit(h))
		}
		h = n.layer(h, i, m.widths[i], out, !m.noBias, m.outByIn)
	}
	n.out = h
	n.cost, n.dist = m.loss(s, h)
	return n
}

// layer adds a dense layer with parameters w<i> and b<i>.
func (n *network) layer(h *gorgonia.Node, i, in, out int, bias, outByIn bool) *gorgonia.Node {
	shape := []int{in, out}
	if outByIn {
		shape = []int{out, in}
	}
	w := n.sketch.random(fmt.Sprintf("w%d", i), shape...)
	for k := range data(w) {
		data(w)[k] /= math.Sqrt(float64(in))
	}
	n.params = append(n.params, w)
	if outByIn {
		w = must(gorgonia.Transpose(w))
	}
	h = must(gorgonia.Mul(h, w))
	if bias {
		b := n.sketch.random(fmt.Sprintf("b%d", i), 1, out)
		n.params = append(n.params, b)
		h = must(gorgonia.BroadcastAdd(h, b, nil, []byte{0}))
	}
	return h
}

// attach makes the solver of a network, plans for its parameters, and finds the scale of the cost.
func attach(t rapid.TB, n *network, opts ...Option) *conductor[float64] {
	t.Helper()
	s, err := NewSolver(n.cost, n.dist, append(opts, WithoutGradientCheck())...)
	if err != nil {
		t.Fatal(err)
	}
	c := s.engine.(*conductor[float64])
	if err := c.makePlan(n.params); err != nil {
		t.Fatal(err)
	}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	return c
}

// layerBlocks are the blocks of the layers, in chains or by themselves.
func layerBlocks(c *conductor[float64]) (blocks []*layerBlock[float64]) {
	for _, b := range c.blocks {
		switch b := b.(type) {
		case *kroneckerBlock[float64]:
			blocks = append(blocks, b.layerBlock)
		case *tiedBlock[float64]:
			blocks = append(blocks, b.layerBlock)
		case *chainBlock[float64]:
			blocks = append(blocks, b.links...)
		}
	}
	return blocks
}

// gradients gives every parameter the gradient of the cost, from a private run, in the solver's units.
func gradients(t rapid.TB, c *conductor[float64]) {
	t.Helper()
	run, err := program.NewRun[float64](c.whole, 1)
	check(t, err)
	check(t, run.Forward(nil))
	var leaves []*program.Node
	for _, p := range c.order {
		leaves = append(leaves, c.whole.Node(p.src))
	}
	check(t, run.Reverse([]program.Seed[float64]{{Node: c.whole.Outputs[0], Data: []float64{1}}}, c.whole.Path(leaves...)))
	for i, p := range c.order {
		p.given = true
		copy(p.grad, run.Gradient(leaves[i]))
	}
	c.objectiveGradient(c.model.Cases)
}

// observed brings a block's averages up to date with a run.
func observed(t rapid.TB, b block[float64], run *program.Run[float64]) {
	t.Helper()
	check(t, b.observe(run))
	check(t, b.average(0.95, true))
}

// directions preconditions the gradients with the factors in next, damped with gamma.
func directions(t rapid.TB, c *conductor[float64], gamma float64) {
	t.Helper()
	raised, err := c.invert(gamma)
	check(t, err)
	if raised > 0 {
		t.Fatalf("the damping of %d factors was raised", raised)
	}
	for _, b := range c.blocks {
		b.precondition(gamma, true)
	}
}

// trainer runs a network on a tape machine and steps.
type trainer struct {
	*network
	vm     gorgonia.VM
	solver *Solver
}

func newTrainer(t testing.TB, n *network, opts ...Option) *trainer {
	t.Helper()
	_, err := gorgonia.Grad(n.cost, n.params...)
	check(t, err)
	solver, err := NewSolver(n.cost, n.dist, opts...)
	check(t, err)
	vm := gorgonia.NewTapeMachine(n.sketch.graph, gorgonia.BindDualValues(n.params...))
	t.Cleanup(func() { vm.Close() })
	return &trainer{n, vm, solver}
}

// step returns the cost before the update.
func (tr *trainer) step(t testing.TB) float64 {
	t.Helper()
	check(t, tr.vm.RunAll())
	cost := number64(tr.cost.Value())
	check(t, tr.solver.Step(gorgonia.NodesToValueGrads(tr.params)))
	tr.vm.Reset()
	return cost
}

// falls demands that training lowers the cost at least to the given part of what it was.
func (tr *trainer) falls(t testing.TB, steps int, to float64) {
	t.Helper()
	first := tr.step(t)
	for range steps - 1 {
		tr.step(t)
	}
	if last := tr.step(t); !(last < to*first) {
		t.Errorf("the cost went from %.4g to %.4g in %d steps, want at most %g of it\n%v", first, last, steps, to, tr.solver.Plan())
	}
}

// number64 is the value of a scalar.
func number64(v gorgonia.Value) float64 {
	switch x := v.Data().(type) {
	case float32:
		return float64(x)
	case float64:
		return x
	}
	return math.NaN()
}

func check(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// averageOf is the current average of a moment, whole.
func averageOf[T program.Float](f *moment[T]) []float64 {
	whole := slices.Clone(f.now)
	if f.symmetric {
		linalg.MirrorUpper(whole, f.n)
	}
	return converted[float64](whole)
}

// converted is x in another type.
func converted[D, S program.Float](x []S) []D {
	c := make([]D, len(x))
	linalg.Convert(c, x)
	return c
}
