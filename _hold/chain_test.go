package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// chainsIn lists the chains of a plan, "w0 - w1", in alphabetical order.
func chainsIn(c *conductor[float64]) (chains []string) {
	for _, b := range c.blocks {
		if b, ok := b.(*chainBlock[float64]); ok {
			var names []string
			for _, l := range b.links {
				names = append(names, l.layer.name())
			}
			chains = append(chains, strings.Join(names, " - "))
		}
	}
	slices.Sort(chains)
	return chains
}

// A chaining is one way to write a model, with the chains that are to be found in it.
type chaining struct {
	name  string
	build func(n *testnet.Net) (out *gorgonia.Node) // adds the parameters to n
	loss  testnet.Likelihood                        // least squares if nil
	want  []string
}

func (c chaining) network() *testnet.Net {
	s := testnet.NewSketch(1)
	n := &testnet.Net{Sketch: s}
	n.Out = c.build(n)
	loss := c.loss
	if loss == nil {
		loss = testnet.Squares(1)
	}
	n.Cost, n.Loss = loss(s, n.Out)
	return n
}

var chainings = []chaining{
	{name: "perceptron", want: []string{"w0 - w1 - w2"}, build: func(n *testnet.Net) *gorgonia.Node {
		h := tanh(n.Layer(n.Random("x", cases, 3), 0, 3, 4, true, false))
		return n.Layer(tanh(n.Layer(h, 1, 4, 2, true, false)), 2, 2, 3, true, false)
	}},

	{name: "autoencoder with a linear code, of all layouts", loss: testnet.Binary, want: []string{
		"w0 - w1 - w2 - w3 - w4",
	}, build: func(n *testnet.Net) *gorgonia.Node {
		h := n.Random("x", cases, 4)
		for i, width := range []int{3, 2, 3, 3, 4} {
			h = n.Layer(h, i, h.Shape()[1], width, i%2 == 0, i >= 2)
			if i != 1 && i != 4 {
				h = sigmoid(h)
			}
		}
		return h
	}},

	{name: "cases in columns", want: []string{"w0 - w1"}, build: func(n *testnet.Net) *gorgonia.Node {
		w0, b0, w1 := n.Sketch.Random("w0", 3, 4), n.Sketch.Random("b0", 3, 1), n.Sketch.Random("w1", 3, 2)
		n.Params = list(w1, b0, w0)
		return transpose(mul(transpose(w1), tanh(addColumn(mul(w0, n.Sketch.Random("x", 4, cases)), b0))))
	}},

	{name: "vectors of a single case", want: []string{"w0 - w1 - w2"}, build: func(n *testnet.Net) *gorgonia.Node {
		h := n.Sketch.Random("x", 4)
		for i, width := range []int{3, 5, 2} {
			w, b := n.Sketch.Random(fmt.Sprint("w", i), width, h.Shape()[0]), n.Sketch.Random(fmt.Sprint("b", i), width)
			n.Params = append(n.Params, w, b)
			h = tanh(add(mul(w, h), b))
		}
		return h
	}},

	{name: "one layer", build: func(n *testnet.Net) *gorgonia.Node {
		return n.Weighted(n.Random("x", cases, 3), "w", 3, 2)
	}},

	// A layer that feeds two others is linked to neither. What feeds it is linked to it, and what
	// the others feed to them.
	{name: "two heads", loss: testnet.TwoHeads, want: []string{"w0 - w1"}, build: func(n *testnet.Net) *gorgonia.Node {
		h := tanh(n.Weighted(tanh(n.Weighted(n.Random("x", cases, 3), "w0", 3, 4)), "w1", 4, 3))
		return gorgonia.Must(gorgonia.Concat(1, n.Weighted(h, "left", 3, 2), n.Weighted(h, "right", 3, 2)))
	}},

	{name: "two heads of two layers", want: []string{"u0 - u1", "v0 - v1"}, build: func(n *testnet.Net) *gorgonia.Node {
		h := tanh(n.Weighted(n.Random("x", cases, 3), "w", 3, 4))
		u := n.Weighted(tanh(n.Weighted(h, "u0", 4, 3)), "u1", 3, 2)
		return add(u, n.Weighted(tanh(n.Weighted(h, "v0", 4, 3)), "v1", 3, 2))
	}},

	{name: "two towers", want: []string{"u0 - u1", "v0 - v1"}, build: func(n *testnet.Net) *gorgonia.Node {
		v := n.Weighted(tanh(n.Weighted(n.Random("x", cases, 3), "v0", 3, 4)), "v1", 4, 2)
		return add(n.Weighted(tanh(n.Weighted(n.Random("y0", cases, 2), "u0", 2, 3)), "u1", 3, 2), v)
	}},

	// A layer that two others feed is linked to neither.
	{name: "two towers under one roof", want: []string{"roof - top", "u0 - u1"},
		build: func(n *testnet.Net) *gorgonia.Node {
			u := tanh(n.Weighted(tanh(n.Weighted(n.Random("x", cases, 3), "u0", 3, 4)), "u1", 4, 2))
			h := gorgonia.Must(gorgonia.Concat(1, u, tanh(n.Weighted(n.Random("y0", cases, 2), "v", 2, 3))))
			return n.Weighted(tanh(n.Weighted(h, "roof", 5, 3)), "top", 3, 2)
		}},

	{name: "residual sum", want: []string{"w2 - w3"}, build: func(n *testnet.Net) *gorgonia.Node {
		h := tanh(n.Weighted(n.Random("x", cases, 3), "w0", 3, 4))
		h = add(h, tanh(n.Weighted(h, "w1", 4, 4)))
		return n.Weighted(tanh(n.Weighted(h, "w2", 4, 3)), "w3", 3, 2)
	}},

	{name: "residual sum of the input, which is no layer", want: []string{"w0 - w1 - w2"},
		build: func(n *testnet.Net) *gorgonia.Node {
			x := n.Random("x", cases, 3)
			h := add(x, tanh(n.Weighted(x, "w0", 3, 3)))
			h = tanh(n.Weighted(gorgonia.Must(gorgonia.Concat(1, h, x)), "w1", 6, 3))
			return n.Weighted(hadamard(h, x), "w2", 3, 2)
		}},

	{name: "skip over a layer", want: []string{"w2 - w3"}, build: func(n *testnet.Net) *gorgonia.Node {
		h := tanh(n.Weighted(n.Random("x", cases, 3), "w0", 3, 4))
		h = gorgonia.Must(gorgonia.Concat(1, h, tanh(n.Weighted(h, "w1", 4, 2))))
		return n.Weighted(tanh(n.Weighted(h, "w2", 6, 3)), "w3", 3, 2)
	}},

	{name: "residual sum that is the output, which is no layer either", want: []string{"w0 - w1"},
		build: func(n *testnet.Net) *gorgonia.Node {
			h := tanh(n.Weighted(n.Random("x", cases, 3), "w0", 3, 4))
			return add(h, n.Weighted(h, "w1", 4, 4))
		}},

	{name: "gate", build: func(n *testnet.Net) *gorgonia.Node {
		x := n.Random("x", cases, 3)
		h := hadamard(sigmoid(n.Weighted(x, "gate", 3, 4)), n.Weighted(x, "value", 3, 4))
		return n.Weighted(h, "w", 4, 2)
	}},

	// Once per case is the condition: the moments of neighbours pair them case by case.
	{name: "weight used twice", want: []string{"w2 - w3"}, build: func(n *testnet.Net) *gorgonia.Node {
		h := tanh(n.Weighted(n.Random("x", cases, 3), "w0", 3, 4))
		w := n.Sketch.Random("twice", 4, 4)
		n.Params = append(n.Params, w)
		h = tanh(mul(tanh(mul(h, w)), w))
		return n.Weighted(tanh(n.Weighted(h, "w2", 4, 3)), "w3", 3, 2)
	}},

	{name: "weight used twice side by side", build: func(n *testnet.Net) *gorgonia.Node {
		h := n.Weighted(n.Random("x", cases, 3), "w0", 3, 4)
		w := n.Sketch.Random("twice", 4, 3)
		n.Params = append(n.Params, w)
		return n.Weighted(add(mul(tanh(h), w), mul(testnet.Square(h), w)), "w2", 3, 2)
	}},

	{name: "recurrence", build: func(n *testnet.Net) *gorgonia.Node {
		w, u := n.Sketch.Random("w", 3, 4), n.Sketch.Random("u", 4, 4)
		n.Params = append(n.Params, w, u)
		h := n.Random("h", cases, 4)
		for i := range 2 {
			h = tanh(add(mul(n.Random(fmt.Sprint("x", i), cases, 3), w), mul(h, u)))
		}
		return n.Weighted(h, "v", 4, 2)
	}},

	{name: "several positions per case, then one", want: []string{"w2 - w3"},
		build: func(n *testnet.Net) *gorgonia.Node {
			h := reshape(n.Sketch.Random("x", cases, 2, 3), cases*2, 3)
			h = tanh(n.Weighted(tanh(n.Weighted(h, "w0", 3, 4)), "w1", 4, 3))
			h = tanh(n.Weighted(reshape(h, cases, 6), "w2", 6, 3))
			return n.Weighted(h, "w3", 3, 2)
		}},

	{name: "one position per case, then several", want: []string{"w0 - w1"},
		build: func(n *testnet.Net) *gorgonia.Node {
			h := tanh(n.Weighted(tanh(n.Weighted(n.Random("x", cases, 3), "w0", 3, 4)), "w1", 4, 6))
			return reshape(n.Weighted(tanh(n.Weighted(reshape(h, cases*2, 3), "w2", 3, 4)), "w3", 4, 2), cases, 4)
		}},

	{name: "convolution", want: []string{"w0 - w1"}, build: func(n *testnet.Net) *gorgonia.Node {
		f := n.Sketch.Random("f", 3, 2, 2, 2)
		n.Params = append(n.Params, f)
		h := gorgonia.Must(gorgonia.Conv2d(n.Sketch.Random("x", cases, 2, 3, 3), f, []int{2, 2}, []int{0, 0},
			[]int{1, 1}, []int{1, 1}))
		return n.Weighted(tanh(n.Weighted(reshape(tanh(h), cases, 12), "w0", 12, 3)), "w1", 3, 2)
	}},

	{name: "tied weights", build: func(n *testnet.Net) *gorgonia.Node {
		w := n.Sketch.Random("tied", 3, 4)
		n.Params = append(n.Params, w)
		return mul(tanh(n.Weighted(tanh(mul(n.Random("x", cases, 3), w)), "w", 4, 4)), transpose(w))
	}},

	{name: "tied weights around two others", want: []string{"w0 - w1"}, build: func(n *testnet.Net) *gorgonia.Node {
		w := n.Sketch.Random("tied", 3, 4)
		n.Params = append(n.Params, w)
		h := tanh(n.Weighted(tanh(mul(n.Random("x", cases, 3), w)), "w0", 4, 2))
		return mul(tanh(n.Weighted(h, "w1", 2, 4)), transpose(w))
	}},

	// What is not being trained is no layer, and neither is a parameter with another kind of block.
	{name: "frozen layer between two", want: []string{"w0 - w2"}, build: func(n *testnet.Net) *gorgonia.Node {
		h := tanh(n.Layer(n.Random("x", cases, 3), 0, 3, 4, true, false))
		h = tanh(n.Layer(h, 1, 4, 4, true, false))
		out := n.Layer(h, 2, 4, 2, true, false)
		n.Freeze("w1", "b1")
		return out
	}},

	{name: "frozen head", want: []string{"w0 - u"}, build: func(n *testnet.Net) *gorgonia.Node {
		h := tanh(n.Weighted(n.Random("x", cases, 3), "w0", 3, 4))
		out := add(n.Weighted(h, "u", 4, 2), n.Weighted(h, "v", 4, 2))
		n.Freeze("v")
		return out
	}},

	{name: "frozen weight whose bias is not", want: []string{"w0 - w2"}, build: func(n *testnet.Net) *gorgonia.Node {
		h := tanh(n.Layer(n.Random("x", cases, 3), 0, 3, 4, true, false))
		h = tanh(n.Layer(h, 1, 4, 4, true, false))
		out := n.Layer(h, 2, 4, 2, true, false)
		n.Freeze("w1")
		return out
	}},

	{name: "embedding and batch normalisation", want: []string{"w0 - w1"}, build: func(n *testnet.Net) *gorgonia.Node {
		table, scale, shift := n.Sketch.Random("table", 7, 4), n.Sketch.Random("scale", 1, 3),
			n.Sketch.Random("shift", 1, 3)
		n.Params = append(n.Params, table, scale, shift)
		words := gorgonia.NewVector(n.Graph, tensor.Int, gorgonia.WithName("words"), gorgonia.WithShape(cases),
			gorgonia.WithValue(tensor.New(tensor.WithShape(cases), tensor.WithBacking([]int{3, 1, 6, 1, 0}))))
		h, _, _, _, err := gorgonia.BatchNorm(n.Weighted(testnet.Rows(table, words), "w0", 4, 3), scale, shift, 0.9,
			1e-5)
		return n.Weighted(tanh(gorgonia.Must(h, err)), "w1", 3, 2)
	}},

	{name: "layer that all cases share", build: func(n *testnet.Net) *gorgonia.Node {
		context := tanh(n.Weighted(n.Sketch.Random("context", 1, 2), "v", 2, 3))
		return n.Weighted(tanh(addRow(n.Weighted(n.Random("x", cases, 4), "w0", 4, 3), context)), "w1", 3, 2)
	}, want: []string{"w0 - w1"}},
}

// The chains are those of the graph, whatever the order of the parameters, and the plan tells them.
// Without the option there are none.
func TestChains(t *testing.T) {
	for _, w := range chainings {
		t.Run(w.name, func(t *testing.T) {
			for order := range 3 {
				n := w.network()
				switch order {
				case 1:
					slices.Reverse(n.Params)
				case 2:
					rand.New(rand.NewPCG(2, 2)).Shuffle(len(n.Params), func(i, j int) {
						n.Params[i], n.Params[j] = n.Params[j], n.Params[i]
					})
				}
				c := attach(t, n, WithBlockTridiagonal())
				if got := chainsIn(c); !slices.Equal(got, w.want) {
					t.Errorf("chains %q, want %q", got, w.want)
				}
				checkChainNotes(t, c.plan.Notes, w.want)
				plain := attach(t, n)
				if got := chainsIn(plain); len(got) > 0 {
					t.Errorf("chains %q without the option", got)
				}
				if got, want := len(layerBlocks(c)), len(layerBlocks(plain)); got != want {
					t.Errorf("%d layers, %d without the option", got, want)
				}
			}
		})
	}
}

func checkChainNotes(t *testing.T, notes, want []string) {
	t.Helper()
	var told []string
	for _, note := range notes {
		if chain, ok := strings.CutPrefix(note, "block-tridiagonal inverse along "); ok {
			told = append(told, chain)
		} else if strings.HasPrefix(note, "block-tridiagonal") != (len(want) == 0) {
			t.Errorf("note %q with chains %q", note, want)
		}
	}
	slices.Sort(told)
	if !slices.Equal(told, want) || len(notes) == 0 {
		t.Errorf("the plan's notes are %q, want the chains %q", notes, want)
	}
}

// In a random net of layers, some of them frozen, the links are the pairs of which each is the
// other's only neighbour, once the frozen layers are taken out of the net.
func TestChainsOfRandomNets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const rows = 7 // more than any layer is wide
		layers := rapid.IntRange(1, 7).Draw(t, "layers")
		s := testnet.NewSketch(rapid.Uint64().Draw(t, "seed"))
		n := &testnet.Net{Sketch: s, X: s.Random("x", rows, 2)}
		outputs := make([]*gorgonia.Node, layers)
		frozen := make([]bool, layers)
		// the layers that are trained and feed this one; of a frozen layer, what feeds through it
		trained := make([]map[int]bool, layers)
		used := make([]bool, layers)
		for i := range layers {
			frozen[i] = rapid.IntRange(0, 4).Draw(t, "frozen") == 0
			trained[i] = map[int]bool{}
			var inputs gorgonia.Nodes
			for j := range i {
				// Mostly the layer before, now and then another.
				if one := rapid.IntRange(0, 5).Draw(t, "from"); one == 0 || j == i-1 && one < 5 {
					inputs, used[j] = append(inputs, outputs[j]), true
					for k := range trained[j] {
						if frozen[j] {
							trained[i][k] = true
						}
					}
					if !frozen[j] {
						trained[i][j] = true
					}
				}
			}
			if len(inputs) == 0 || rapid.Bool().Draw(t, "from x") {
				inputs = append(inputs, n.X)
			}
			h := inputs[0]
			if len(inputs) > 1 {
				h = gorgonia.Must(gorgonia.Concat(1, inputs...))
			}
			before := len(n.Params)
			h = n.Layer(h, i, h.Shape()[1], rapid.IntRange(1, 3).Draw(t, "width"), rapid.Bool().Draw(t, "bias"),
				rapid.Bool().Draw(t, "out x in"))
			if frozen[i] {
				n.Params = n.Params[:before]
			}
			outputs[i] = tanh(h)
		}
		var ends gorgonia.Nodes
		for i, h := range outputs {
			if !used[i] {
				ends = append(ends, h)
			}
		}
		out := ends[0]
		if len(ends) > 1 {
			out = gorgonia.Must(gorgonia.Concat(1, ends...))
		}

		feeds := make([]int, layers)
		for i, from := range trained {
			for j := range from {
				if !frozen[i] {
					feeds[j]++
				}
			}
		}
		chain := make([]string, layers) // the chain that ends with this layer
		linked := make([]bool, layers)
		for i, from := range trained {
			chain[i] = fmt.Sprint("w", i)
			for j := range from {
				if len(from) == 1 && feeds[j] == 1 && !frozen[i] {
					chain[i], linked[j] = chain[j]+" - "+chain[i], true
				}
			}
		}
		var want []string
		for i, c := range chain {
			if !linked[i] && strings.Contains(c, " - ") {
				want = append(want, c)
			}
		}

		p, err := program.New(list(out))
		testnet.Check(t, err)
		var leaves []*program.Node
		for _, i := range rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "order"))).Perm(len(n.Params)) {
			leaves = append(leaves, p.Node(n.Params[i]))
		}
		found, _ := hookup(p, leaves, func(string, *program.Node) bool { return false })
		var got []string
		for _, c := range chainsOf(p, found) {
			var names []string
			for _, l := range c {
				names = append(names, l.name())
			}
			got = append(got, strings.Join(names, " - "))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("chains %q, want %q", got, want)
		}
	})
}

// A stack is a perceptron of tanh units whose layers are stored in various ways.
type stack struct {
	*testnet.Net
	widths  []int
	outByIn []bool
	w, b    []*gorgonia.Node // b is nil where there is no bias
	columns bool             // the cases are columns, not rows
}

func drawStack(t *rapid.T, layers int) *stack {
	s := testnet.NewSketch(rapid.Uint64().Draw(t, "seed"))
	k := &stack{Net: &testnet.Net{Sketch: s}, columns: rapid.Bool().Draw(t, "columns")}
	losses := []testnet.Likelihood{testnet.Squares(0.37), testnet.Binary, testnet.Classes}
	loss := losses[rapid.IntRange(0, 2).Draw(t, "loss")]
	cases := rapid.IntRange(2, 12).Draw(t, "cases")
	k.widths = []int{rapid.IntRange(1, 4).Draw(t, "inputs")}
	for i := range layers {
		least := 1
		if i == layers-1 {
			least = 2 // classes
		}
		k.widths = append(k.widths, rapid.IntRange(least, 4).Draw(t, "width"))
		k.outByIn = append(k.outByIn, rapid.Bool().Draw(t, "out x in"))
		k.b = append(k.b, nil)
		if rapid.Bool().Draw(t, "bias") {
			k.b[i] = s.Random(fmt.Sprint("b", i), 1, k.widths[i+1])
		}
	}
	k.build(cases, loss)
	return k
}

func (k *stack) build(cases int, loss testnet.Likelihood) {
	s := k.Sketch
	k.X = s.Random("x", cases, k.widths[0])
	h := k.X
	if k.columns {
		h = transpose(h)
	}
	for i, out := range k.widths[1:] {
		in := k.widths[i]
		if i > 0 {
			h = tanh(h)
		}
		shape := []int{in, out}
		if k.outByIn[i] {
			shape = []int{out, in}
		}
		w := s.Random(fmt.Sprint("w", i), shape...)
		k.w, k.Params = append(k.w, w), append(k.Params, w)
		if k.b[i] != nil {
			k.Params = append(k.Params, k.b[i])
		}
		if k.outByIn[i] != k.columns {
			w = transpose(w)
		}
		switch b := k.b[i]; {
		case k.columns && b != nil:
			h = addColumn(mul(w, h), reshape(b, out, 1))
		case k.columns:
			h = mul(w, h)
		case b != nil:
			h = addRow(mul(h, w), b)
		default:
			h = mul(h, w)
		}
	}
	if k.columns {
		h = transpose(h)
	}
	k.Out = h
	k.Cost, k.Loss = loss(s, h)
}

// weight is that of layer i, in x out.
func (k *stack) weight(i int) mat.Matrix {
	shape := k.w[i].Shape()
	w := mat.NewDense(shape[0], shape[1], testnet.Data(k.w[i]))
	if k.outByIn[i] {
		return w.T()
	}
	return w
}

// sweep computes, without Gorgonia, the inputs abar of every layer, cases x abar, the outputs, and
// the Jacobians of the outputs with respect to what every layer computes, by layer and case.
func (k *stack) sweep(x []float64) (abar []*mat.Dense, z *mat.Dense, jacobians [][]*mat.Dense) {
	cases := len(x) / k.widths[0]
	h := mat.NewDense(cases, k.widths[0], slices.Clone(x))
	var slopes []*mat.Dense // of the units between layer i and the next
	for i := range k.w {
		bar := h
		if k.b[i] != nil {
			bar = mat.NewDense(cases, k.widths[i]+1, nil)
			bar.Augment(h, mat.NewDense(cases, 1, slices.Repeat([]float64{1}, cases)))
		}
		abar = append(abar, bar)
		var s mat.Dense
		s.Mul(h, k.weight(i))
		if b := k.b[i]; b != nil {
			s.Apply(func(_, c int, v float64) float64 { return v + testnet.Data(b)[c] }, &s)
		}
		z, h = &s, &mat.Dense{}
		h.Apply(func(_, _ int, v float64) float64 { return math.Tanh(v) }, &s)
		slope := &mat.Dense{}
		slope.Apply(func(_, _ int, a float64) float64 { return 1 - a*a }, h)
		slopes = append(slopes, slope)
	}
	jacobians = make([][]*mat.Dense, len(k.w))
	for n := range cases {
		j := identityMatrix(k.widths[len(k.w)])
		for i := len(k.w) - 1; i >= 0; i-- {
			jacobians[i] = append(jacobians[i], j)
			if i > 0 {
				next := &mat.Dense{}
				next.Mul(j, k.weight(i).T())
				next.Apply(func(_, c int, v float64) float64 { return v * slopes[i-1].At(n, c) }, next)
				j = next
			}
		}
	}
	return abar, z, jacobians
}

// moments are A_ij and G_ij of all pairs of layers, with the expectation over the model's targets.
func (k *stack) moments(h head) *chainMoments {
	abar, z, jacobians := k.sweep(testnet.Data(k.X))
	cases, outputs := z.Dims()
	m := &chainMoments{a: crossMoments(cases, abar)}
	for i := range k.w {
		_, width := abar[i].Dims()
		m.abar, m.out = append(m.abar, width), append(m.out, k.widths[i+1])
		var row []*mat.Dense
		for j := range k.w {
			g := mat.NewDense(k.widths[i+1], k.widths[j+1], nil)
			for n := range cases {
				fisher := mat.NewDense(outputs, outputs, plainFisher(h, slices.Clone(z.RawRowView(n))))
				var part mat.Dense
				part.Product(jacobians[i][n].T(), fisher, jacobians[j][n])
				part.Scale(1/float64(cases), &part)
				g.Add(g, &part)
			}
			row = append(row, g)
		}
		m.g = append(m.g, row)
	}
	return m
}

// tikhonov damps the factors of each layer by pi gamma and gamma / pi (Martens & Grosse 2015,
// section 6.3).
func (c *chainMoments) tikhonov(gamma float64) *chainMoments {
	for i := range c.abar {
		pi := math.Sqrt(mat.Trace(c.a[i][i]) / float64(c.abar[i]) / (mat.Trace(c.g[i][i]) / float64(c.out[i])))
		c.a[i][i] = plusDiagonal(flatOf(c.a[i][i]), pi*gamma)
		c.g[i][i] = plusDiagonal(flatOf(c.g[i][i]), gamma/pi)
	}
	return c
}

// inverseByDefinition is F^^-1 = Xi^T Lambda Xi written out (section 4.3), of factors that are
// damped already.
func (c *chainMoments) inverseByDefinition(t rapid.TB) *mat.Dense {
	t.Helper()
	at := c.offsets()
	layers, n := len(c.abar), at[len(at)-1]
	xi, lambda := identityMatrix(n), mat.NewDense(n, n, nil)
	for i := range layers {
		var sigma mat.Dense
		sigma.Kronecker(c.a[i][i], c.g[i][i])
		if i+1 < layers {
			var psiA, psiG, psi, next, explained mat.Dense
			psiA.Mul(c.a[i][i+1], inverseOf(t, c.a[i+1][i+1]))
			psiG.Mul(c.g[i][i+1], inverseOf(t, c.g[i+1][i+1]))
			psi.Kronecker(&psiA, &psiG)
			next.Kronecker(c.a[i+1][i+1], c.g[i+1][i+1])
			explained.Product(&psi, &next, psi.T())
			sigma.Sub(&sigma, &explained)
			psi.Scale(-1, &psi)
			xi.Slice(at[i], at[i+1], at[i+1], at[i+2]).(*mat.Dense).Copy(&psi)
		}
		lambda.Slice(at[i], at[i+1], at[i], at[i+1]).(*mat.Dense).Copy(inverseOf(t, &sigma))
	}
	var inverse mat.Dense
	inverse.Product(xi.T(), lambda, xi)
	return &inverse
}

// byLayer is a quantity of all parameters, layer by layer and each abar x out, whatever way the
// weights are stored in.
func byLayer(c *conductor[float64], of func(*parameter[float64]) []float64) (v []float64) {
	var all []float64
	for _, p := range c.order {
		all = append(all, of(p)...)
	}
	for _, b := range layerBlocks(c) {
		for _, i := range elements(c, b.layer) {
			v = append(v, all[i])
		}
	}
	return v
}

func times(m *mat.Dense, v []float64) []float64 {
	var u mat.VecDense
	u.MulVec(m, mat.NewVecDense(len(v), v))
	return u.RawVector().Data
}

// The direction of a whole net is the dense inverse of F^ times the gradient, for layers stored in
// all ways. Of two layers, F^ is all of the Kronecker products.
func TestDirectionOfAChain(tt *testing.T) {
	rapid.Check(tt, func(t *rapid.T) {
		layers := rapid.IntRange(2, 4).Draw(t, "layers")
		gamma := rapid.Float64Range(0.05, 2).Draw(t, "gamma")
		k := drawStack(t, layers)
		c := attach(tt, k.Net, WithBlockTridiagonal())
		if len(c.blocks) != 1 || len(layerBlocks(c)) != layers {
			t.Fatalf("not one chain of all layers; plan:\n%v", c.plan)
		}
		gradients(tt, c)
		observeExactly(tt, c, nil)
		directions(tt, c, gamma)

		m := k.moments(c.outputs[0].head).tikhonov(gamma)
		v := byLayer(c, gradientOf)
		testnet.Near(t, "direction", byLayer(c, directionOf), times(m.inverseByDefinition(t), v), 1e-9)
		if layers == 2 {
			testnet.Near(t, "direction by the whole matrix", byLayer(c, directionOf),
				times(inverseOf(t, m.kroneckers(1)), v), 1e-9)
		}
	})
}

// What is not in a chain has the block that it has without the option, so that nothing changes for
// a net of one layer.
func TestChainOfOneLayer(t *testing.T) {
	one := testnet.MLP{Widths: []int{4, 3}, Cases: 10, Loss: testnet.Classes}
	plain, option := NewTrainer(t, one.Build(1)), NewTrainer(t, one.Build(1), WithBlockTridiagonal())
	for range 6 {
		plain.Steps(t, 1)
		option.Steps(t, 1)
		checkTwins(t, option, plain)
	}
}

// The cross moments follow the same average as the factors: the plain mean of the first 20 updates,
// and then 1/20 of each.
func TestCrossMomentsAverage(t *testing.T) {
	k := &stack{Net: &testnet.Net{Sketch: testnet.NewSketch(4)}, widths: []int{3, 4, 2, 3},
		outByIn: []bool{false, true, false}}
	k.b = []*gorgonia.Node{k.Sketch.Random("b0", 1, 4), nil, k.Sketch.Random("b2", 1, 3)}
	const cases = 5
	k.build(cases, testnet.Squares(1))
	c := attach(t, k.Net, WithBlockTridiagonal())
	b := c.blocks[0].(*chainBlock[float64])
	run := c.sampler.run
	var wantA, wantG [][]float64 // A_01, A_12; G_01, G_12
	for update := 1; update <= 25; update++ {
		x, seed := k.Sketch.Normals(cases*3), k.Sketch.Normals(cases*3)
		testnet.Check(t, run.Bind(b.links[0].layer.sites[0].input, x))
		testnet.Check(t, run.Forward(nil))
		testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: c.outputs[0].node, Data: seed}}, c.sampler.path))
		observed(t, b, run)
		b.keep(false)

		abar, _, jacobians := k.sweep(x)
		g := make([]*mat.Dense, len(k.w))
		for i := range g {
			g[i] = mat.NewDense(cases, k.widths[i+1], nil)
			for n := range cases {
				var row mat.VecDense
				row.MulVec(jacobians[i][n].T(), mat.NewVecDense(3, seed[n*3:(n+1)*3]))
				g[i].SetRow(n, row.RawVector().Data)
			}
		}
		weight := max(1/float64(update), 0.05)
		wantA = averaged(wantA, flats(crossMoments(cases, abar), 1), weight)
		wantG = averaged(wantG, flats(crossMoments(cases, g), 1), weight)
		for i := range wantA {
			testnet.Near(t, fmt.Sprintf("A %d after update %d", i, update), averageOf(&b.crossA[i]), wantA[i], identity)
			testnet.Near(t, fmt.Sprintf("G %d after update %d", i, update), averageOf(&b.crossG[i]), wantG[i], identity)
		}
	}
}

// averaged is (1 - weight) mean + weight x.
func averaged(mean, x [][]float64, weight float64) (sum [][]float64) {
	for i := range x {
		s := make([]float64, len(x[i]))
		for k, v := range x[i] {
			s[k] = weight * v
			if mean != nil {
				s[k] += (1 - weight) * mean[i][k]
			}
		}
		sum = append(sum, s)
	}
	return sum
}

// After many updates from random parts of the batch, the joint second moments of neighbours are
// positive semidefinite, without which F^ need not be. Cross moments with weights of their own
// would make them indefinite.
func TestJointMomentsArePositive(t *testing.T) {
	n := testnet.MLP{Widths: []int{4, 5, 3, 2}, Cases: 30, Unit: gorgonia.Tanh, Loss: testnet.Binary}.Build(3)
	l := NewTrainer(t, n, WithBlockTridiagonal(), WithMinStatisticsCases(3), WithMinModelCases(30))
	for range 60 {
		copy(testnet.Data(n.X), n.Sketch.Normals(len(testnet.Data(n.X))))
		l.Steps(t, 1)
	}
	b := conductorOf(l).blocks[0].(*chainBlock[float64])
	for i := range b.crossA {
		for _, m := range [][3]*moment[float64]{
			{&b.links[i].factors.a, &b.crossA[i], &b.links[i+1].factors.a},
			{&b.links[i].factors.g, &b.crossG[i], &b.links[i+1].factors.g},
		} {
			first, cross, second := square(averageOf(m[0])), mat.NewDense(m[1].n, m[1].m, averageOf(m[1])),
				square(averageOf(m[2]))
			joint := mat.NewDense(m[0].n+m[2].n, m[0].n+m[2].n, nil)
			joint.Slice(0, m[0].n, 0, m[0].n).(*mat.Dense).Copy(first)
			joint.Slice(0, m[0].n, m[0].n, m[0].n+m[2].n).(*mat.Dense).Copy(cross)
			joint.Slice(m[0].n, m[0].n+m[2].n, 0, m[0].n).(*mat.Dense).Copy(cross.T())
			joint.Slice(m[0].n, m[0].n+m[2].n, m[0].n, m[0].n+m[2].n).(*mat.Dense).Copy(second)
			var eigen mat.EigenSym
			size, _ := joint.Dims()
			if !eigen.Factorize(mat.NewSymDense(size, flatOf(joint)), false) {
				t.Fatal("no eigenvalues")
			}
			if v := eigen.Values(nil); v[0] < -1e-13*v[size-1] || mat.Norm(cross, 2) < 1e-3*v[size-1] {
				t.Errorf("layers %d and %d: eigenvalues from %g to %g, cross moment of norm %g",
					i, i+1, v[0], v[size-1], mat.Norm(cross, 2))
			}
		}
	}
}

// An inverse is in use from when it is kept until another is. One that was put aside comes back.
func TestChainKeepsAndStashes(t *testing.T) {
	n := testnet.MLP{Widths: []int{3, 4, 3, 2}, Cases: 9, Unit: gorgonia.Tanh, Loss: testnet.Binary,
		OutByIn: true}.Build(5)
	c := attach(t, n, WithBlockTridiagonal())
	gradients(t, c)
	observeExactly(t, c, nil)
	b := c.blocks[0]
	direction := func(fresh bool) []float64 {
		b.precondition(0, fresh)
		return byLayer(c, directionOf)
	}
	invert := func(gamma float64) []float64 {
		_, err := c.invert(gamma)
		testnet.Check(t, err)
		return direction(true)
	}
	same := func(what string, got, want []float64) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: another direction, off by %g", what, testnet.Distance(got, want))
		}
	}
	if !b.needsInverse() {
		t.Error("no inverse is needed before there is any")
	}
	first := invert(0.5)
	b.keep(true)
	if b.needsInverse() {
		t.Error("an inverse is needed although there is one")
	}
	same("kept", direction(false), first)

	observed(t, b, c.sampler.run) // of the last sweep: other moments
	second := invert(0.2)
	if testnet.Distance(second, first) < 1e-3 {
		t.Fatal("the test makes no difference")
	}
	same("before the second is kept", direction(false), first)
	b.keep(false)
	same("the moments kept, not the inverse", direction(false), first)

	observed(t, b, c.sampler.run)
	second = invert(0.2)
	b.stash()
	third := invert(0.9)
	b.stash()
	same("the first candidate, back", direction(true), second)
	b.stash()
	same("the second candidate, back", direction(true), third)
	same("through all of it", direction(false), first)
	b.stash()
	b.keep(true)
	same("the first candidate, kept", direction(false), second)
}

// With the block-tridiagonal inverse the loss falls, in both dtypes, by a learning rate and by the
// quadratic model; a course is the same in every bit when it is repeated, and another than with the
// block-diagonal inverse.
func TestChainTrains(t *testing.T) {
	t.Run("float64", testChainTrains[float64])
	t.Run("float32", testChainTrains[float32])
}

func testChainTrains[T program.Float](t *testing.T) {
	for name, opts := range map[string][]Option{
		"learning rate":   {WithLearningRate(0.2), WithMinStatisticsCases(30)},
		"quadratic model": {WithMinStatisticsCases(30), WithMinModelCases(40)},
		"paper's rules":   {WithPaperRules(), WithDamping(1)},
	} {
		t.Run(name, func(t *testing.T) {
			course := func(opts ...Option) (costs, weights []float64) {
				tr := NewTrainer(t, testnet.Teacher[T]([]int{4, 6, 5, 3}, 60), opts...)
				for range 41 { // two searches for gamma
					tr.Steps(t, 1)
					costs = append(costs, tr.Solver.Stats().Cost)
				}
				if notes := tr.Solver.Plan().Notes; len(opts) > 3 &&
					!slices.Contains(notes, "block-tridiagonal inverse along w0 - w1 - w2") {
					t.Errorf("notes %q", notes)
				}
				return costs, testnet.Weights(tr.Params)
			}
			costs, weights := course(append(slices.Clone(opts), WithBlockTridiagonal())...)
			if first, last := costs[0], costs[len(costs)-1]; !(last < 0.1*first) {
				t.Errorf("the cost went from %g to %g", first, last)
			}
			_, again := course(append(slices.Clone(opts), WithBlockTridiagonal())...)
			if !slices.Equal(again, weights) {
				t.Error("the same course again ends at other weights")
			}
			if other, _ := course(opts...); math.Abs(other[20]/costs[20]-1) < 1e-3 {
				t.Errorf("the block-diagonal inverse gets to the same cost, %g", other[20])
			}
		})
	}
}

// A step that fails leaves no trace in a chain: the training goes on as that of a twin which has
// not seen it. Step 20 searches for gamma.
func TestChainAfterAFailure(t *testing.T) {
	m := testnet.MLP{Widths: []int{3, 4, 4, 2}, Cases: 12, Unit: gorgonia.Tanh, Loss: testnet.Classes}
	for name, opts := range map[string][]Option{
		"learning rate":   {WithLearningRate(0.1), WithMinStatisticsCases(6)},
		"quadratic model": {WithMinStatisticsCases(6), WithMinModelCases(6)},
	} {
		opts = append(opts, WithBlockTridiagonal())
		for _, done := range []int{0, 1, 4, 19} {
			t.Run(fmt.Sprint(name, ", step ", done+1), func(t *testing.T) {
				l, twin := NewTrainer(t, m.Build(6), opts...), NewTrainer(t, m.Build(6), opts...)
				l.Steps(t, done)
				twin.Steps(t, done)
				testnet.Check(t, l.Run())
				sound := slices.Clone(testnet.Data(l.X))
				for i := range testnet.Data(l.X) {
					testnet.Data(l.X)[i] = math.NaN() // after RunAll, so that the private run finds it
				}
				if err := l.Solver.Step(l.ValueGrads()); !errors.Is(err, ErrNotFinite) {
					t.Fatalf("error %v, want %v", err, ErrNotFinite)
				}
				copy(testnet.Data(l.X), sound)
				testnet.ZeroGradients(l.Params)
				for range 4 {
					l.Steps(t, 1)
					twin.Steps(t, 1)
					checkTwins(t, l, twin)
				}
			})
		}
	}
}

// A factor of a chain that can't be factorised, a cross moment that is not finite: the error names
// the layer, the step leaves no trace, and once the cause is gone the training goes on as if
// nothing had been.
func TestChainErrors(t *testing.T) {
	factorA := func(i int) func(b *chainBlock[float64]) []float64 {
		return func(b *chainBlock[float64]) []float64 { return b.links[i].factors.a.now }
	}
	factorG := func(i int) func(b *chainBlock[float64]) []float64 {
		return func(b *chainBlock[float64]) []float64 { return b.links[i].factors.g.now }
	}
	crossA := func(i int) func(b *chainBlock[float64]) []float64 {
		return func(b *chainBlock[float64]) []float64 { return b.crossA[i].now }
	}
	crossG := func(i int) func(b *chainBlock[float64]) []float64 {
		return func(b *chainBlock[float64]) []float64 { return b.crossG[i].now }
	}
	for _, test := range []struct {
		name  string
		at    func(b *chainBlock[float64]) []float64 // the first number of which is spoilt
		value float64
		layer string
		op    string
		dim   int
		is    error
	}{
		{"indefinite A", factorA(1), -1e30, "w1", "Cholesky factorisation of A", 5, ErrNotPosDef},
		{"indefinite G", factorG(2), -1e30, "w2", "Cholesky factorisation of G", 2, ErrNotPosDef},
		{"NaN in A", factorA(0), math.NaN(), "w0", "averages of its second moments", 0, ErrNotFinite},
		{"NaN in a cross moment of G", crossG(0), math.NaN(), "w0", "cross moments with w1", 0, ErrNotFinite},
		{"infinity in a cross moment of A", crossA(1), math.Inf(1), "w1", "cross moments with w2", 0, ErrNotFinite},
		{"cross moment of A that overflows", crossA(1), 1e300, "w1", "generalised eigenproblem of A", 5, ErrNotFinite},
	} {
		for _, done := range []int{2, 19} {
			t.Run(fmt.Sprint(test.name, ", step ", done+1), func(t *testing.T) {
				m := testnet.MLP{Widths: []int{3, 4, 4, 2}, Cases: 12, Unit: gorgonia.Tanh, Loss: testnet.Binary}
				opts := []Option{WithBlockTridiagonal(), WithDamping(0.1)}
				l, twin := NewTrainer(t, m.Build(7), opts...), NewTrainer(t, m.Build(7), opts...)
				l.Steps(t, done)
				twin.Steps(t, done)
				at := &test.at(conductorOf(l).blocks[0].(*chainBlock[float64]))[0]
				sound := *at
				*at = test.value
				testnet.Check(t, l.Run())
				err := l.Solver.Step(l.ValueGrads())
				var layer *LayerError
				if !errors.As(err, &layer) || !errors.Is(err, test.is) {
					t.Fatalf("error %v, want a LayerError that is %v", err, test.is)
				}
				if layer.Layer != test.layer || !strings.Contains(layer.Op, test.op) || layer.Dim != test.dim {
					t.Errorf("%v; want layer %s, %s, %d", err, test.layer, test.op, test.dim)
				}
				checkTwins(t, l, twin)
				*at = sound
				testnet.ZeroGradients(l.Params)
				for range 3 {
					l.Steps(t, 1)
					twin.Steps(t, 1)
					checkTwins(t, l, twin)
				}
			})
		}
	}
}

// Damping that is lost in rounding, on a factor that is singular: the error names layer and factor
// of the chain.
func TestChainWithHopelessDamping(t *testing.T) {
	n := testnet.MLP{Widths: []int{3, 4, 2}, Cases: 12, Unit: gorgonia.Tanh, Loss: testnet.Classes}.Build(8)
	for i := range testnet.Data(n.X) {
		testnet.Data(n.X)[i] = float64(i%3) / 3 // one case, repeated
	}
	l := NewTrainer(t, n, WithBlockTridiagonal(), WithDamping(1e-300))
	before := testnet.Weights(l.Params)
	testnet.Check(t, l.Run())
	err := l.Solver.Step(l.ValueGrads())
	var layer *LayerError
	if !errors.As(err, &layer) || !errors.Is(err, ErrNotPosDef) {
		t.Fatalf("error %v, want a LayerError that is %v", err, ErrNotPosDef)
	}
	if layer.Layer != "w0" || layer.Dim != 4 || !strings.Contains(layer.Op, "factorisation of A") {
		t.Errorf("%v; want the factorisation of A (4 x 4) of w0", err)
	}
	if !slices.Equal(testnet.Weights(l.Params), before) {
		t.Error("the weights have changed")
	}
}

// A layer that joins the list later makes a longer chain, with statistics and an inverse of its own
// from that step on. One that is left out of the list stays as it is.
func TestChainOfALongerList(t *testing.T) {
	n := testnet.MLP{Widths: []int{3, 4, 4, 2}, Cases: 12, Unit: gorgonia.Tanh, Loss: testnet.Classes}.Build(9)
	l := NewTrainer(t, n, WithBlockTridiagonal())
	all := n.Params
	n.Params = slices.Concat(all[:2], all[4:])
	middle := slices.Concat(testnet.Data(all[2]), testnet.Data(all[3]))
	l.Steps(t, 5)
	if got := chainsIn(conductorOf(l)); !slices.Equal(got, []string{"w0 - w2"}) {
		t.Errorf("chains %q without the layer in the middle", got)
	}
	if !slices.Equal(slices.Concat(testnet.Data(all[2]), testnet.Data(all[3])), middle) {
		t.Error("the layer in the middle has moved")
	}
	for _, p := range all[2:4] { // of the RunAlls before
		zeroGradient(p)
	}
	n.Params = all
	l.Steps(t, 1)
	if got := chainsIn(conductorOf(l)); !slices.Equal(got, []string{"w0 - w1 - w2"}) {
		t.Errorf("chains %q with the layer in the middle", got)
	}
	if st := l.Solver.Stats(); !st.InverseUpdated ||
		conductorOf(l).blocks[0].(*chainBlock[float64]).links[0].factors.updates != 1 {
		t.Errorf("the chain has not begun anew: %+v", st)
	}
	before := testnet.Weights(l.Params)
	n.Params = all[:2]
	l.Steps(t, 2)
	n.Params = all
	after := testnet.Weights(l.Params)
	moved := len(testnet.Data(all[0])) + len(testnet.Data(all[1]))
	if !slices.Equal(after[moved:], before[moved:]) || slices.Equal(after[:moved], before[:moved]) {
		t.Error("other weights have moved than were in the list")
	}
}
