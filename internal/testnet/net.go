package testnet

import (
	"fmt"
	"math"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A Net is a model as a user would write it: its graph, and what a training loop touches.
type Net struct {
	*Sketch
	X      *gorgonia.Node // the input, if there is but one
	Out    *gorgonia.Node
	Cost   *gorgonia.Node
	Loss   Loss // what the cost is
	Params gorgonia.Nodes
}

// NewNet is a net to be, on a sketch of that seed.
func NewNet(seed uint64) *Net { return &Net{Sketch: NewSketch(seed)} }

// Ends makes the cost of an output by a likelihood.
func (n *Net) Ends(out *gorgonia.Node, l Likelihood) *Net {
	n.Out = out
	n.Cost, n.Loss = l(n.Sketch, out)
	return n
}

// Input is the input, target or parameter with the given name.
func (n *Net) Input(name string) *gorgonia.Node {
	for _, leaf := range n.Graph.Inputs() {
		if leaf.Name() == name {
			return leaf
		}
	}
	panic("no input " + name)
}

// Param makes a parameter with entries of about 1/2.
func (n *Net) Param(name string, shape ...int) *gorgonia.Node {
	p := n.Scaled(name, 0.5, shape...)
	n.Params = append(n.Params, p)
	return p
}

// Dense adds a layer with parameters w<name> and b<name> of about 1/2.
func (n *Net) Dense(name string, h *gorgonia.Node, out int) *gorgonia.Node {
	return AddRow(Mul(h, n.Param("w"+name, h.Shape()[1], out)), n.Param("b"+name, 1, out))
}

// Weighted multiplies with a new parameter of standard normal entries.
func (n *Net) Weighted(h *gorgonia.Node, name string, in, out int) *gorgonia.Node {
	w := n.Random(name, in, out)
	n.Params = append(n.Params, w)
	return Mul(h, w)
}

// Layer adds a dense layer with parameters w<i> and b<i>. Its outputs are of about the size of its
// inputs; the biases are standard normal.
func (n *Net) Layer(h *gorgonia.Node, i, in, out int, bias, outByIn bool) *gorgonia.Node {
	shape := []int{in, out}
	if outByIn {
		shape = []int{out, in}
	}
	values := n.Normals(in * out)
	for k := range values {
		values[k] /= math.Sqrt(float64(in))
	}
	w := n.Leaf(fmt.Sprintf("w%d", i), values, shape...)
	n.Params = append(n.Params, w)
	if outByIn {
		w = Transpose(w)
	}
	h = Mul(h, w)
	if bias {
		b := n.Random(fmt.Sprintf("b%d", i), 1, out)
		n.Params = append(n.Params, b)
		h = AddRow(h, b)
	}
	return h
}

// Freeze takes the parameters with these names out of the list.
func (n *Net) Freeze(names ...string) {
	n.Params = slices.DeleteFunc(n.Params, func(p *gorgonia.Node) bool { return slices.Contains(names, p.Name()) })
}

// CopyParams gives the parameters the values of another net's.
func (n *Net) CopyParams(from *Net) {
	for i, p := range n.Params {
		copy(Data(p), Data(from.Params[i]))
	}
}

// The ones that Grad differentiates by are nodes of Gorgonia's own, which all graphs have in
// common. They remember their hash when they are first asked for it, which tests that make their
// graphs side by side must not do.
func init() {
	for _, of := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
		x := gorgonia.NewScalar(gorgonia.NewGraph(), of, gorgonia.WithName("x"))
		if _, err := gorgonia.Grad(gorgonia.Must(gorgonia.Square(x)), x); err != nil {
			panic(err)
		}
	}
}

// Grad adds the gradients of all parameters to the graph.
func (n *Net) Grad(t TB) gorgonia.Nodes {
	t.Helper()
	grads, err := gorgonia.Grad(n.Cost, n.Params...)
	Check(t, err)
	return grads
}

// ValueGrads is what a loop gives to Step.
func (n *Net) ValueGrads() []gorgonia.ValueGrad { return gorgonia.NodesToValueGrads(n.Params) }

// An MLP describes a multilayer perceptron of random weights and data, in float64.
type MLP struct {
	Widths  []int // of the input, the hidden layers and the output
	Cases   int
	Unit    Unit // of the hidden layers; nil for a linear net
	NoBias  bool
	OutByIn bool // weights are stored out x in
	Loss    Likelihood
}

// Build makes the perceptron. The targets are drawn last, by the likelihood.
func (m MLP) Build(seed uint64) *Net {
	n := NewNet(seed)
	n.X = n.Random("x", m.Cases, m.Widths[0])
	h := n.X
	for i, out := range m.Widths[1:] {
		if i > 0 && m.Unit != nil {
			h = must(m.Unit(h))
		}
		h = n.Layer(h, i, m.Widths[i], out, !m.NoBias, m.OutByIn)
	}
	return n.Ends(h, m.Loss)
}

// A Shape is the batch size and the widths of the layers, input and output included.
type Shape struct {
	Cases  int
	Widths []int
}

// NewMLP makes a perceptron in T with tanh units, and small biases. The targets are classes, and
// drawn before the weights, so that every likelihood trains the same net.
func NewMLP[T Float](seed uint64, s Shape, l Likelihood) *Net {
	n := &Net{Sketch: NewSketchOf[T](seed, 7)}
	last := len(s.Widths) - 1
	n.X = n.Random("x", s.Cases, s.Widths[0])
	n.Targets(n.oneHot("y", s.Cases, s.Widths[last]))
	h := n.X
	for i, out := range s.Widths[1:] {
		in := s.Widths[i]
		w := n.Scaled(fmt.Sprintf("w%d", i), 1/math.Sqrt(float64(in)), in, out)
		b := n.Scaled(fmt.Sprintf("b%d", i), 0.1, 1, out)
		n.Params = append(n.Params, w, b)
		h = AddRow(Mul(h, w), b)
		if i+1 < last {
			h = Tanh(h)
		}
	}
	return n.Ends(h, l)
}
