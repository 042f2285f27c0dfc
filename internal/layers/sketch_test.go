package layers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

const (
	cases = 5 // of the batches
	steps = 4 // positions of each case
)

type node = *gorgonia.Node

var must = gorgonia.Must

func mul(a, b node) node                    { return must(gorgonia.Mul(a, b)) }
func add(a, b node) node                    { return must(gorgonia.Add(a, b)) }
func sub(a, b node) node                    { return must(gorgonia.Sub(a, b)) }
func hadamard(a, b node) node               { return must(gorgonia.HadamardProd(a, b)) }
func tanh(a node) node                      { return must(gorgonia.Tanh(a)) }
func sigmoid(a node) node                   { return must(gorgonia.Sigmoid(a)) }
func rectify(a node) node                   { return must(gorgonia.Rectify(a)) }
func square(a node) node                    { return must(gorgonia.Square(a)) }
func transpose(a node, axes ...int) node    { return must(gorgonia.Transpose(a, axes...)) }
func reshape(a node, shape ...int) node     { return must(gorgonia.Reshape(a, shape)) }
func concat(axis int, nodes ...node) node   { return must(gorgonia.Concat(axis, nodes...)) }
func sumOver(a node, along ...int) node     { return must(gorgonia.Sum(a, along...)) }
func meanOver(a node, along ...int) node    { return must(gorgonia.Mean(a, along...)) }
func lookup(table, words node) node         { return must(gorgonia.ByIndices(table, words, 0)) }
func columns(a node, from, to int) node     { return must(gorgonia.Slice(a, nil, gorgonia.S(from, to))) }
func batched(a, b node, trans ...bool) node { return must(gorgonia.BatchedMatMul(a, b, trans...)) }
func globalAverage(a node) node             { return must(gorgonia.GlobalAveragePool2D(a)) }
func plus(a, b node, axes ...byte) node     { return must(gorgonia.BroadcastAdd(a, b, nil, axes)) }
func times(a, b node, axes ...byte) node {
	return must(gorgonia.BroadcastHadamardProd(a, b, nil, axes))
}
func dividedBy(a, b node, axes ...byte) node {
	return must(gorgonia.BroadcastHadamardDiv(a, b, nil, axes))
}

// rowsTimes multiplies the last axis of a with w.
func rowsTimes(a, w node) node {
	return must(gorgonia.Tensordot([]int{a.Dims() - 1}, []int{0}, a, w))
}

// folded applies w, and b if there is one, to each position of x (cases, steps, in).
func folded(x, w, b node) node {
	shape := x.Shape()
	h := mul(reshape(x, shape[0]*shape[1], shape[2]), w)
	if b != nil {
		h = plus(h, b, 0)
	}
	return reshape(h, shape[0], shape[1], w.Shape()[1])
}

func convolve(x, filter node, pad, stride int) node {
	kernel := filter.Shape()[2:]
	return must(gorgonia.Conv2d(x, filter, kernel, []int{pad, pad}, []int{stride, stride}, []int{1, 1}))
}

func batchNorm(x, scale, shift node) node {
	h, _, _, _, err := gorgonia.BatchNorm(x, scale, shift, 0.9, 1e-3)
	return must(h, err)
}

// normalised is layer normalisation written by hand.
func normalised(x node) node {
	rows := x.Shape()[0]
	d := must(gorgonia.BroadcastSub(x, reshape(meanOver(x, 1), rows, 1), nil, []byte{1}))
	variance := reshape(meanOver(square(d), 1), rows, 1)
	return dividedBy(d, must(gorgonia.Sqrt(add(variance, gorgonia.NewConstant(0.01)))), 1)
}

// A sketch is a graph in the making. No node has a value: layers are found without one.
type sketch struct {
	graph  *gorgonia.ExprGraph
	params gorgonia.Nodes
	oneHot []string // the weights whose inputs are said to be one-hot rows
	moving []string // the parameters whose slices are said to move

	vectorCases bool // an output that is a vector holds one number for each case
}

// input makes an input.
func (s *sketch) input(name string, shape ...int) node {
	return gorgonia.NewTensor(s.graph, tensor.Float64, len(shape),
		gorgonia.WithShape(shape...), gorgonia.WithName(name))
}

// param makes an input that is to be trained.
func (s *sketch) param(name string, shape ...int) node {
	n := s.input(name, shape...)
	s.params = append(s.params, n)
	return n
}

// scalar makes a parameter without axes.
func (s *sketch) scalar(name string) node {
	n := gorgonia.NewScalar(s.graph, tensor.Float64, gorgonia.WithName(name))
	s.params = append(s.params, n)
	return n
}

// unnamed makes a parameter without a name.
func (s *sketch) unnamed(shape ...int) node {
	n := gorgonia.NewTensor(s.graph, tensor.Float64, len(shape), gorgonia.WithShape(shape...))
	s.params = append(s.params, n)
	return n
}

// words makes an input of n indices. Gorgonia takes two of one name for the same.
func (s *sketch) words(name string, n int) node {
	return gorgonia.NewVector(s.graph, tensor.Int, gorgonia.WithShape(n), gorgonia.WithName(name))
}

// dense adds a layer with parameters w<name> and b<name>.
func (s *sketch) dense(name string, h node, out int) node {
	return plus(s.weighted("w"+name, h, out), s.param("b"+name, 1, out), 0)
}

// weighted multiplies with a new parameter.
func (s *sketch) weighted(name string, h node, out int) node {
	return mul(h, s.param(name, h.Shape()[1], out))
}

// freeze takes the parameters with these names out of the list.
func (s *sketch) freeze(names ...string) {
	s.params = slices.DeleteFunc(s.params, func(n node) bool { return slices.Contains(names, n.Name()) })
}

// A model is what is found in a sketch.
type model struct {
	program *program.Program
	layers  []*layers.Layer
	rest    []layers.Rest
}

// build makes a model of the outputs that f makes.
func build(t rapid.TB, f func(s *sketch) node) (model, *sketch) {
	t.Helper()
	s := &sketch{graph: gorgonia.NewGraph()}
	return find(t, s, f(s)), s
}

// find makes a model of the parameters of s that some outputs depend on.
func find(t rapid.TB, s *sketch, outputs ...node) model {
	t.Helper()
	p, err := program.New(outputs)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = p.WithVectorCases(s.vectorCases); err != nil {
		t.Fatal(err)
	}
	var leaves []*program.Node
	for _, n := range s.params {
		if leaf := p.Node(n); leaf != nil {
			leaves = append(leaves, leaf)
		}
	}
	found, rest := layers.Find(p, leaves, layers.Asked{
		OneHot: func(weight, _ *program.Node) bool { return slices.Contains(s.oneHot, weight.Name()) },
		Stays:  func(param *program.Node, _ string) bool { return !slices.Contains(s.moving, param.Name()) },
	})
	return model{p, found, rest}
}

// approximate decides the forms of all factors.
func (m model) approximate(a layers.Approximation) model {
	for _, l := range m.layers {
		l.Approximate(m.program, a)
	}
	return m
}

// whole keeps all factors whole.
var whole = layers.Approximation{MaxDim: 1 << 30, Sharing: layers.Expand}

// lines list what is found, by kind:
//
//	w + b: 4 to 3, rows [5]: what the layer is
//	tied w: 3 to 4 stored out x in, rows [5], if it has such uses too
//	scale and shift: what they are, if they act element by element
//	v is no weight: why not
func (m model) lines() string {
	var s []string
	for _, l := range m.layers {
		s = append(s, layerLine(l)+": "+l.Describe(m.program.Cases))
		if l.Tied != nil {
			s = append(s, "tied "+layerLine(l.Tied))
		}
	}
	done := map[*program.Node]bool{}
	for _, e := range m.elementwise(true) {
		s = append(s, e.Name()+": "+e.Describe())
		for _, n := range e.Params {
			done[n] = true
		}
	}
	for _, r := range m.rest {
		if !done[r.Param] {
			left := ""
			if r.At != nil {
				left = fmt.Sprint(" at ", r.At)
			}
			s = append(s, r.Param.Name()+left+" is no weight: "+r.Why)
		}
	}
	return strings.Join(s, "\n")
}

// layerLine is a layer's weight, bias, sizes, layout and positions.
func layerLine(l *layers.Layer) string {
	s := l.Name()
	if l.Bias != nil {
		s += " + " + l.BiasName()
	}
	s += fmt.Sprintf(": %d to %d", l.In, l.Out)
	if l.OutByIn {
		s += " stored out x in"
	}
	var rows []int
	for _, site := range l.Sites {
		rows = append(rows, site.Rows)
	}
	s += fmt.Sprintf(", rows %v", rows)
	return s
}

// A wiring is one way to write a model, with what is found in it.
type wiring struct {
	name string
	out  func(s *sketch) node
	want string // model.lines
}

// checkWirings demands that the same is found whatever the order of the parameters.
func checkWirings(t *testing.T, wirings []wiring) {
	for _, w := range wirings {
		t.Run(w.name, func(t *testing.T) {
			for _, reversed := range []bool{false, true} {
				s := &sketch{graph: gorgonia.NewGraph()}
				out := w.out(s)
				if reversed {
					slices.Reverse(s.params)
				}
				got := find(t, s, out).approximate(whole).lines()
				if want := strings.TrimSpace(w.want); got != want {
					t.Errorf("parameters reversed: %v; got\n%s\nwant\n%s", reversed, got, want)
				}
			}
		})
	}
}

// named is the wiring of that name.
func named(wirings []wiring, name string) func(s *sketch) node {
	return wirings[slices.IndexFunc(wirings, func(w wiring) bool { return w.name == name })].out
}
