package layers_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/layers"
)

// A chaining is one way to write a model, with the chains that are to be found in it.
type chaining struct {
	name string
	out  func(s *sketch) node
	want []string // in alphabetical order
}

// cased is an input of so many numbers for each case.
func (s *sketch) cased(name string, width int) node { return s.input(name, cases, width) }

var chainings = []chaining{
	{"perceptron", func(s *sketch) node {
		return s.dense("2", tanh(s.dense("1", tanh(s.dense("0", s.cased("x", 3), 4)), 2)), 3)
	}, []string{"w0 - w1 - w2"}},

	{"autoencoder with a linear code, of all layouts", func(s *sketch) node {
		h := s.cased("x", 4)
		for i, width := range []int{3, 2, 3, 3, 4} {
			w, in := fmt.Sprint("w", i), h.Shape()[1]
			if i >= 2 {
				h = mul(h, transpose(s.param(w, width, in)))
			} else {
				h = mul(h, s.param(w, in, width))
			}
			if i%2 == 0 {
				h = plus(h, s.param(fmt.Sprint("b", i), 1, width), 0)
			}
			if i != 1 && i != 4 {
				h = sigmoid(h)
			}
		}
		return h
	}, []string{"w0 - w1 - w2 - w3 - w4"}},

	{"cases in columns", func(s *sketch) node {
		w0, b0, w1 := s.param("w0", 3, 4), s.param("b0", 3, 1), s.param("w1", 3, 2)
		return transpose(mul(transpose(w1), tanh(plus(mul(w0, s.input("x", 4, cases)), b0, 1))))
	}, []string{"w0 - w1"}},

	{"vectors of a single case", func(s *sketch) node {
		h := s.input("x", 4)
		for i, width := range []int{3, 5, 2} {
			w, b := s.param(fmt.Sprint("w", i), width, h.Shape()[0]), s.param(fmt.Sprint("b", i), width)
			h = tanh(add(mul(w, h), b))
		}
		return h
	}, []string{"w0 - w1 - w2"}},

	{"one layer", func(s *sketch) node { return s.weighted("w", s.cased("x", 3), 2) }, nil},

	// A layer that feeds two others is linked to neither.
	// What feeds it is linked to it, and what the others feed to them.
	{"two heads", func(s *sketch) node {
		h := tanh(s.weighted("w1", tanh(s.weighted("w0", s.cased("x", 3), 4)), 3))
		return concat(1, s.weighted("left", h, 2), s.weighted("right", h, 2))
	}, []string{"w0 - w1"}},

	{"two heads of two layers", func(s *sketch) node {
		h := tanh(s.weighted("w", s.cased("x", 3), 4))
		u := s.weighted("u1", tanh(s.weighted("u0", h, 3)), 2)
		return add(u, s.weighted("v1", tanh(s.weighted("v0", h, 3)), 2))
	}, []string{"u0 - u1", "v0 - v1"}},

	{"two towers", func(s *sketch) node {
		v := s.weighted("v1", tanh(s.weighted("v0", s.cased("x", 3), 4)), 2)
		return add(s.weighted("u1", tanh(s.weighted("u0", s.cased("y", 2), 3)), 2), v)
	}, []string{"u0 - u1", "v0 - v1"}},

	// A layer that two others feed is linked to neither.
	{"two towers under one roof", func(s *sketch) node {
		u := tanh(s.weighted("u1", tanh(s.weighted("u0", s.cased("x", 3), 4)), 2))
		h := concat(1, u, tanh(s.weighted("v", s.cased("y", 2), 3)))
		return s.weighted("top", tanh(s.weighted("roof", h, 3)), 2)
	}, []string{"roof - top", "u0 - u1"}},

	{"residual sum", func(s *sketch) node {
		h := tanh(s.weighted("w0", s.cased("x", 3), 4))
		h = add(h, tanh(s.weighted("w1", h, 4)))
		return s.weighted("w3", tanh(s.weighted("w2", h, 3)), 2)
	}, []string{"w2 - w3"}},

	{"residual sum of the input, which is no layer", func(s *sketch) node {
		x := s.cased("x", 3)
		h := add(x, tanh(s.weighted("w0", x, 3)))
		h = tanh(s.weighted("w1", concat(1, h, x), 3))
		return s.weighted("w2", hadamard(h, x), 2)
	}, []string{"w0 - w1 - w2"}},

	{"skip over a layer", func(s *sketch) node {
		h := tanh(s.weighted("w0", s.cased("x", 3), 4))
		h = concat(1, h, tanh(s.weighted("w1", h, 2)))
		return s.weighted("w3", tanh(s.weighted("w2", h, 3)), 2)
	}, []string{"w2 - w3"}},

	{"residual sum that is the output, which is no layer either", func(s *sketch) node {
		h := tanh(s.weighted("w0", s.cased("x", 3), 4))
		return add(h, s.weighted("w1", h, 4))
	}, []string{"w0 - w1"}},

	{"gate", func(s *sketch) node {
		x := s.cased("x", 3)
		return s.weighted("w", hadamard(sigmoid(s.weighted("gate", x, 4)), s.weighted("value", x, 4)), 2)
	}, nil},

	// Once per case is the condition: the moments of neighbours pair them case by case.
	{"weight used twice", func(s *sketch) node {
		h := tanh(s.weighted("w0", s.cased("x", 3), 4))
		w := s.param("twice", 4, 4)
		h = tanh(mul(tanh(mul(h, w)), w))
		return s.weighted("w3", tanh(s.weighted("w2", h, 3)), 2)
	}, []string{"w2 - w3"}},

	{"weight used twice side by side", func(s *sketch) node {
		h := s.weighted("w0", s.cased("x", 3), 4)
		w := s.param("twice", 4, 3)
		return s.weighted("w2", add(mul(tanh(h), w), mul(square(h), w)), 2)
	}, nil},

	{"recurrence", func(s *sketch) node { return s.weighted("v", recurrence(2)(s), 2) }, nil},

	{"several positions per case, then one", func(s *sketch) node {
		h := reshape(s.input("x", cases, 2, 3), cases*2, 3)
		h = tanh(s.weighted("w1", tanh(s.weighted("w0", h, 4)), 3))
		h = tanh(s.weighted("w2", reshape(h, cases, 6), 3))
		return s.weighted("w3", h, 2)
	}, []string{"w2 - w3"}},

	{"one position per case, then several", func(s *sketch) node {
		h := tanh(s.weighted("w1", tanh(s.weighted("w0", s.cased("x", 3), 4)), 6))
		h = tanh(s.weighted("w2", reshape(h, cases*2, 3), 4))
		return reshape(s.weighted("w3", h, 2), cases, 4)
	}, []string{"w0 - w1"}},

	{"convolution", func(s *sketch) node {
		h := tanh(s.weighted("w0", reshape(tanh(s.filtered(3, 3)), cases, 12), 3))
		return s.weighted("w1", h, 2)
	}, []string{"w0 - w1"}},

	{"tied weights", func(s *sketch) node {
		w := s.param("tied", 3, 4)
		return mul(tanh(s.weighted("w", tanh(mul(s.cased("x", 3), w)), 4)), transpose(w))
	}, nil},

	{"tied weights around two others", func(s *sketch) node {
		w := s.param("tied", 3, 4)
		h := tanh(s.weighted("w0", tanh(mul(s.cased("x", 3), w)), 2))
		return mul(tanh(s.weighted("w1", h, 4)), transpose(w))
	}, []string{"w0 - w1"}},

	{"two layers behind tied weights", func(s *sketch) node {
		w := s.param("w", 4, 3)
		h := tanh(mul(tanh(mul(s.cased("x", 4), w)), transpose(w)))
		return s.weighted("u", tanh(s.weighted("v", h, 3)), 2)
	}, []string{"v - u"}},

	{"tied weights whose uses do not feed each other", func(s *sketch) node {
		w := s.param("w", 4, 3)
		return concat(1, mul(tanh(s.weighted("v", s.cased("x", 2), 4)), w), mul(s.cased("y", 3), transpose(w)))
	}, nil},

	// What is not being trained is no layer, and neither is a parameter with another kind of block.
	{"frozen layer between two", func(s *sketch) node {
		out := s.dense("2", tanh(s.dense("1", tanh(s.dense("0", s.cased("x", 3), 4)), 4)), 2)
		s.freeze("w1", "b1")
		return out
	}, []string{"w0 - w2"}},

	{"frozen head", func(s *sketch) node {
		h := tanh(s.weighted("w0", s.cased("x", 3), 4))
		out := add(s.weighted("u", h, 2), s.weighted("v", h, 2))
		s.freeze("v")
		return out
	}, []string{"w0 - u"}},

	{"frozen weight whose bias is not", func(s *sketch) node {
		out := s.dense("2", tanh(s.dense("1", tanh(s.dense("0", s.cased("x", 3), 4)), 4)), 2)
		s.freeze("w1")
		return out
	}, []string{"w0 - w2"}},

	{"embedding and batch normalisation", func(s *sketch) node {
		h := s.weighted("w0", lookup(s.param("table", 7, 4), s.words("words", cases)), 3)
		return s.weighted("w1", tanh(batchNorm(h, s.param("scale", 1, 3), s.param("shift", 1, 3))), 2)
	}, []string{"w0 - w1"}},

	{"layer that all cases share", func(s *sketch) node {
		context := tanh(s.weighted("v", s.input("context", 1, 2), 3))
		return s.weighted("w1", tanh(plus(s.weighted("w0", s.cased("x", 4), 3), context, 0)), 2)
	}, []string{"w0 - w1"}},
}

// chains are those of a model, "w0 - w1", in alphabetical order, and what the plan says of them.
func (m model) chains() (names, notes []string) {
	chains := layers.Chains(m.program, m.layers)
	for _, c := range chains {
		var l []string
		for _, link := range c {
			l = append(l, link.Name())
		}
		names = append(names, strings.Join(l, " - "))
	}
	slices.Sort(names)
	notes = layers.DescribeChains(chains)
	slices.Sort(notes)
	return names, notes
}

func TestChains(t *testing.T) {
	for _, c := range chainings {
		t.Run(c.name, func(t *testing.T) {
			m, _ := build(t, c.out)
			got, notes := m.approximate(whole).chains()
			if !slices.Equal(got, c.want) {
				t.Errorf("chains %q, want %q", got, c.want)
			}
			var want []string
			for _, chain := range c.want {
				want = append(want, "block-tridiagonal inverse along "+chain)
			}
			if want == nil {
				want = []string{"block-tridiagonal inverse: no layer, used once per case, feeds just one other such; " +
					"all blocks are inverted by themselves"}
			}
			if !slices.Equal(notes, want) {
				t.Errorf("notes %q, want %q", notes, want)
			}
		})
	}
}

// Layers of diagonal factors, and convolutions of uncorrelated pixels, are in no chain.
func TestChainsOfWholeFactors(t *testing.T) {
	perceptron := func(s *sketch) node {
		h := tanh(s.weighted("w1", tanh(s.weighted("w0", s.cased("x", 3), 4)), 9))
		return s.weighted("w3", tanh(s.weighted("w2", h, 5)), 2)
	}
	image := func(s *sketch) node { // one position per case
		return s.weighted("w", reshape(tanh(s.filtered(2, 2)), cases, 3), 2)
	}
	for _, test := range []struct {
		name string
		out  func(s *sketch) node
		a    layers.Approximation
		want []string
	}{
		{"whole", perceptron, layers.Approximation{MaxDim: 9}, []string{"w0 - w1 - w2 - w3"}},
		{"diagonal in between", perceptron, layers.Approximation{MaxDim: 8}, nil},
		{"image", image, layers.Approximation{MaxDim: 9}, []string{"filter - w"}},
		{"uncorrelated pixels", image, layers.Approximation{MaxDim: 9, Uncorrelated: true}, nil},
	} {
		m, _ := build(t, test.out)
		if got, _ := m.approximate(test.a).chains(); !slices.Equal(got, test.want) {
			t.Errorf("%s: chains %q, want %q", test.name, got, test.want)
		}
	}
}

// A randomNet is a net of layers w0, w1, ..., some of them frozen.
// Some of those before it feed each layer.
type randomNet struct {
	*sketch
	out    node
	frozen []bool
	// trained are the layers that are trained and feed each one.
	// A frozen layer passes on what feeds it.
	trained [][]int
}

func drawNet(t *rapid.T) *randomNet {
	const rows = 7 // more than any layer is wide
	depth := rapid.IntRange(1, 7).Draw(t, "layers")
	n := &randomNet{sketch: &sketch{graph: gorgonia.NewGraph()}, trained: make([][]int, depth)}
	x, outputs, used := n.input("x", rows, 2), []node(nil), make([]bool, depth)
	for i := range depth {
		n.frozen = append(n.frozen, rapid.IntRange(0, 4).Draw(t, "frozen") == 0)
		var inputs gorgonia.Nodes
		for j := range i {
			// Mostly the layer before, now and then another.
			if one := rapid.IntRange(0, 5).Draw(t, "from"); one == 0 || j == i-1 && one < 5 {
				inputs, used[j] = append(inputs, outputs[j]), true
				through := []int{j}
				if n.frozen[j] {
					through = n.trained[j]
				}
				n.trained[i] = append(n.trained[i], through...)
			}
		}
		slices.Sort(n.trained[i])
		n.trained[i] = slices.Compact(n.trained[i])
		if len(inputs) == 0 || rapid.Bool().Draw(t, "from x") {
			inputs = append(inputs, x)
		}
		outputs = append(outputs, n.layer(t, i, joined(inputs)))
	}
	var ends gorgonia.Nodes
	for i, h := range outputs {
		if !used[i] {
			ends = append(ends, h)
		}
	}
	n.out = joined(ends)
	return n
}

func joined(nodes gorgonia.Nodes) node {
	if len(nodes) == 1 {
		return nodes[0]
	}
	return concat(1, nodes...)
}

// layer adds layer i.
func (n *randomNet) layer(t *rapid.T, i int, h node) node {
	in, width := h.Shape()[1], rapid.IntRange(1, 3).Draw(t, "width")
	bias, outByIn := rapid.Bool().Draw(t, "bias"), rapid.Bool().Draw(t, "out x in")
	before, w := len(n.params), fmt.Sprint("w", i)
	if outByIn {
		h = mul(h, transpose(n.param(w, width, in)))
	} else {
		h = mul(h, n.param(w, in, width))
	}
	if bias {
		h = plus(h, n.param(fmt.Sprint("b", i), 1, width), 0)
	}
	if n.frozen[i] {
		n.params = n.params[:before]
	}
	return tanh(h)
}

// chains link the pairs of which each is the other's only neighbour, without the frozen layers.
func (n *randomNet) chains() (want []string) {
	feeds := make([]int, len(n.trained))
	for i, from := range n.trained {
		for _, j := range from {
			if !n.frozen[i] {
				feeds[j]++
			}
		}
	}
	chain, linked := make([]string, len(feeds)), make([]bool, len(feeds)) // the chain that ends with each layer
	for i, from := range n.trained {
		chain[i] = fmt.Sprint("w", i)
		if len(from) == 1 && feeds[from[0]] == 1 && !n.frozen[i] {
			chain[i], linked[from[0]] = chain[from[0]]+" - "+chain[i], true
		}
	}
	for i, c := range chain {
		if !linked[i] && strings.Contains(c, " - ") {
			want = append(want, c)
		}
	}
	slices.Sort(want)
	return want
}

func TestChainsOfRandomNets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := drawNet(t)
		rng := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "order")))
		rng.Shuffle(len(n.params), func(i, j int) { n.params[i], n.params[j] = n.params[j], n.params[i] })
		got, _ := find(t, n.sketch, n.out).chains()
		if want := n.chains(); !slices.Equal(got, want) {
			t.Errorf("chains %q, want %q", got, want)
		}
	})
}
