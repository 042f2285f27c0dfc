package kfac

import (
	"fmt"
	"math"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// positiveUnit keeps logarithms and quotients well away from zero.
func positiveUnit(a *gorgonia.Node) *gorgonia.Node {
	return gorgonia.Must(gorgonia.Exp(testnet.Mul(testnet.Tanh(a), gorgonia.NewConstant(0.5))))
}

// An elementwiseNet has parameters that act element by element in front of a dense layer, and the
// blocks that they get.
type elementwiseNet struct {
	name   string
	build  func(n *testnet.Net, x *gorgonia.Node) (h *gorgonia.Node) // with its cases along the first axis
	shape  []int                                                     // of x for a case; 3 if nil
	blocks []string
}

// network puts a dense layer behind, without a nonlinearity: what the parameters do to the loss is
// then their own.
func (e elementwiseNet) network(loss testnet.Likelihood) *testnet.Net {
	n := testnet.NewNet(1)
	shape := e.shape
	if shape == nil {
		shape = []int{3}
	}
	n.X = n.Random("x", append([]int{testnet.Cases}, shape...)...)
	h := e.build(n, n.X)
	if width := h.Shape().TotalSize() / testnet.Cases; h.Dims() > 2 {
		h = testnet.Reshape(h, testnet.Cases, width)
	}
	return n.Ends(n.Weighted(h, "w", h.Shape()[1], 3), loss)
}

// learned makes a parameter of standard normal entries.
func learned(n *testnet.Net, name string, shape ...int) *gorgonia.Node {
	n.Params = append(n.Params, n.Random(name, shape...))
	return n.Params[len(n.Params)-1]
}

// learnedNumber makes a parameter that is a number, not a tensor.
func learnedNumber(n *testnet.Net, name string) *gorgonia.Node {
	n.Params = append(n.Params, n.Scalar(name, 1.3))
	return n.Params[len(n.Params)-1]
}

// along multiplies x with p, which has length 1 along the given axes.
func along(x, p *gorgonia.Node, axes ...byte) *gorgonia.Node {
	return gorgonia.Must(gorgonia.BroadcastHadamardProd(x, p, nil, axes))
}

// scaleAndShift multiplies every row of x with a parameter, and adds another.
func scaleAndShift(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
	scale, shift := learned(n, "scale", 1, 3), learned(n, "shift", 1, 3)
	return testnet.AddRow(testnet.TimesRow(x, scale), shift)
}

// normalised is layer normalisation written by hand.
func normalised(x *gorgonia.Node) *gorgonia.Node {
	rows := x.Shape()[0]
	mean := testnet.Reshape(testnet.Mean(x, 1), rows, 1)
	d := gorgonia.Must(gorgonia.BroadcastSub(x, mean, nil, []byte{1}))
	variance := testnet.Reshape(testnet.Mean(testnet.Square(d), 1), rows, 1)
	deviation := gorgonia.Must(gorgonia.Sqrt(testnet.Add(variance, gorgonia.NewConstant(0.01))))
	return gorgonia.Must(gorgonia.BroadcastHadamardDiv(d, deviation, nil, []byte{1}))
}

// withRow is a net with one parameter p of shape (1, 3).
func withRow(name string, f func(h, p *gorgonia.Node) *gorgonia.Node) elementwiseNet {
	return elementwiseNet{name: name, blocks: []string{"p: 3 x 3"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			p := n.Uniform("p", 1, 3)
			for i := range testnet.Data(p) {
				testnet.Data(p)[i] += 0.5
			}
			n.Params = append(n.Params, p)
			return f(x, p)
		}}
}

var elementwiseNets = []elementwiseNet{
	withRow("sum", testnet.AddRow),
	withRow("sum, parameter first", func(h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastAdd(p, h, []byte{0}, nil))
	}),
	withRow("difference", func(h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastSub(h, p, nil, []byte{0}))
	}),
	withRow("difference, parameter first", func(h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastSub(p, h, []byte{0}, nil))
	}),
	withRow("product", testnet.TimesRow),
	withRow("product, parameter first", func(h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastHadamardProd(p, h, []byte{0}, nil))
	}),
	withRow("quotient", func(h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastHadamardDiv(h, p, nil, []byte{0}))
	}),
	withRow("quotient, parameter first", func(h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastHadamardDiv(p, positiveUnit(h), []byte{0}, nil))
	}),
	withRow("power", func(h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastPow(positiveUnit(h), p, nil, []byte{0}))
	}),
	withRow("power, parameter first", func(h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastPow(p, h, []byte{0}, nil))
	}),
	withRow("several uses", func(h, p *gorgonia.Node) *gorgonia.Node {
		h = testnet.Tanh(testnet.TimesRow(h, p))
		h = testnet.TimesRow(testnet.AddRow(h, p), p)
		return gorgonia.Must(gorgonia.BroadcastSub(p, h, []byte{0}, nil))
	}),
	withRow("reshaped", func(h, p *gorgonia.Node) *gorgonia.Node {
		again := testnet.Reshape(testnet.Reshape(p, 3), 1, 3)
		return testnet.AddRow(testnet.TimesRow(h, again), p)
	}),
	withRow("cases along the last axis", func(h, p *gorgonia.Node) *gorgonia.Node {
		return testnet.Transpose(along(testnet.Transpose(h), testnet.Reshape(p, 3, 1), 1))
	}),
	withRow("a constant in between", func(h, p *gorgonia.Node) *gorgonia.Node {
		return testnet.Mul(testnet.TimesRow(h, p), gorgonia.NewConstant(1.5))
	}),

	{name: "temperature", blocks: []string{"p: 1 x 1"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			p := n.Constant("p", 0.7, 1, 1)
			n.Params = append(n.Params, p)
			return gorgonia.Must(gorgonia.BroadcastHadamardDiv(x, p, nil, []byte{0, 1}))
		}},
	{name: "scalar", blocks: []string{"p: 1 x 1"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node { return testnet.Mul(x, learnedNumber(n, "p")) }},
	{name: "scalar exponent", blocks: []string{"p: 1 x 1"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			return gorgonia.Must(gorgonia.Pow(positiveUnit(x), learnedNumber(n, "p")))
		}},
	{name: "scale and shift", blocks: []string{"scale and shift: 6 x 6"}, build: scaleAndShift},
	{name: "scale and shift, as vectors", blocks: []string{"scale and shift: 6 x 6"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			scale, shift := n.Random("scale", 3), n.Random("shift", 3)
			n.Params = gorgonia.Nodes{shift, scale}
			return testnet.AddRow(testnet.TimesRow(x, scale), shift)
		}},
	{name: "gain and offset", blocks: []string{"gain and offset: 2 x 2"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			gain, offset := learned(n, "gain", 1, 1), learned(n, "offset", 1, 1)
			return gorgonia.Must(gorgonia.BroadcastAdd(along(x, gain, 0, 1), offset, nil, []byte{0, 1}))
		}},
	{name: "a scale for all and a shift for each", blocks: []string{"gain: 1 x 1", "shift: 3 x 3"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			gain, shift := learned(n, "gain", 1, 1), learned(n, "shift", 1, 3)
			return testnet.AddRow(along(x, gain, 0, 1), shift)
		}},
	{name: "a scale behind a shift", blocks: []string{"scale: 3 x 3", "shift: 3 x 3"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			scale, shift := learned(n, "scale", 1, 3), learned(n, "shift", 1, 3)
			return testnet.TimesRow(testnet.AddRow(x, shift), scale)
		}},
	{name: "a scale used again", blocks: []string{"scale: 3 x 3", "shift: 3 x 3"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			scale, shift := learned(n, "scale", 1, 3), learned(n, "shift", 1, 3)
			h := testnet.AddRow(testnet.TimesRow(x, scale), shift)
			return testnet.TimesRow(testnet.Tanh(h), scale)
		}},
	{name: "a scaled input used beside its shift", blocks: []string{"scale: 3 x 3", "shift: 3 x 3"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			scale, shift := learned(n, "scale", 1, 3), learned(n, "shift", 1, 3)
			h := testnet.TimesRow(x, scale)
			return testnet.Hadamard(testnet.AddRow(h, shift), testnet.Tanh(h))
		}},
	{name: "two scales and shifts", blocks: []string{"scale1 and shift1: 6 x 6", "scale2 and shift2: 6 x 6"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			scale1, shift1 := learned(n, "scale1", 1, 3), learned(n, "shift1", 1, 3)
			scale2, shift2 := learned(n, "scale2", 1, 3), learned(n, "shift2", 1, 3)
			h := testnet.Tanh(testnet.AddRow(testnet.TimesRow(x, scale1), shift1))
			return testnet.AddRow(testnet.TimesRow(h, scale2), shift2)
		}},
	{name: "positions", shape: []int{4, 3}, blocks: []string{"scale and shift: 6 x 6"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			scale, shift := learned(n, "scale", 1, 1, 3), learned(n, "shift", 1, 1, 3)
			return gorgonia.Must(gorgonia.BroadcastAdd(along(x, scale, 0, 1), shift, nil, []byte{0, 1}))
		}},
	{name: "positions folded into rows", shape: []int{4, 3}, blocks: []string{"scale and shift: 6 x 6"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			h := scaleAndShift(n, testnet.Reshape(x, testnet.Cases*4, 3))
			return testnet.Reshape(h, testnet.Cases, 12)
		}},
	{name: "one for each position", shape: []int{4, 3}, blocks: []string{"p: 4 x 4"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			return along(x, learned(n, "p", 1, 4, 1), 0, 2)
		}},
	{name: "channels", shape: []int{3, 2, 2}, blocks: []string{"p: 3 x 3"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			return along(x, learned(n, "p", 1, 3, 1, 1), 0, 2, 3)
		}},
	{name: "every element", shape: []int{3, 2, 2}, blocks: []string{"p: 12 x 12"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			return along(x, learned(n, "p", 1, 3, 2, 2), 0)
		}},
	{name: "batch normalisation", blocks: []string{"scale and shift: 6 x 6"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			scale, shift := learned(n, "scale", 1, 3), learned(n, "shift", 1, 3)
			h, _, _, _, err := gorgonia.BatchNorm(x, scale, shift, 0.9, 1e-3)
			return gorgonia.Must(h, err)
		}},
	{name: "batch normalisation of images", shape: []int{3, 2, 2}, blocks: []string{"scale and shift: 6 x 6"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			scale, shift := learned(n, "scale", 1, 3, 1, 1), learned(n, "shift", 1, 3, 1, 1)
			h, _, _, _, err := gorgonia.BatchNorm(x, scale, shift, 0.9, 1e-3)
			return gorgonia.Must(h, err)
		}},
	{name: "group normalisation", shape: []int{4, 2, 1}, blocks: []string{"scale and shift: 8 x 8"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			scale, shift := learned(n, "scale", 1, 4, 1, 1), learned(n, "shift", 1, 4, 1, 1)
			return gorgonia.Must(gorgonia.GroupNorm(x, scale, shift, 2, 4, 1e-3))
		}},
	{name: "layer normalisation", blocks: []string{"scale and shift: 6 x 6"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node { return scaleAndShift(n, normalised(x)) }},
	{name: "convolution with a scale for each channel", shape: []int{2, 3, 3}, blocks: []string{"p: 3 x 3"},
		build: func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			filter, p := learned(n, "filter", 3, 2, 2, 2), learned(n, "p", 1, 3, 1, 1)
			return testnet.Tanh(along(testnet.Convolve(x, filter, 0, 1), p, 0, 2, 3))
		}},
}

func elementwiseNetNamed(name string) elementwiseNet {
	return elementwiseNets[slices.IndexFunc(elementwiseNets, func(e elementwiseNet) bool { return e.name == name })]
}

// A placedElementwise is a block of parameters that act element by element, with where its moments
// are.
type placedElementwise struct {
	*curvature.Elementwise[float64]
	of     layers.Elementwise
	params []*parameter[float64]
	index  int // of the block among the plan's
}

// elementwiseBlocks are those of a plan.
func elementwiseBlocks(c *training[float64]) (all []placedElementwise) {
	for i, b := range c.plan.blocks {
		e, ok := b.Block.(*curvature.Elementwise[float64])
		if !ok {
			continue
		}
		placed := placedElementwise{Elementwise: e, of: c.plan.hooks[i].(*elementwiseHook[float64]).of, index: i}
		for _, g := range b.groups {
			placed.params = append(placed.params, g.params...)
		}
		all = append(all, placed)
	}
	return all
}

// name is that of the plan.
func (e placedElementwise) name() string { return elementwiseName(e.of, e.Width(), e.Channels()) }

// element tells where element i of a channel's block lies: in which parameter, and where in that.
func (e placedElementwise) element(channel, i int) (param *parameter[float64], at int) {
	if n := e.params[0].size(); e.Channels() == 1 {
		return e.params[i/n], i % n
	}
	return e.params[i], channel
}

// positions are those of the elements of one channel among all parameters.
func (e placedElementwise) positions(c *training[float64], channel int) (at []int) {
	for i := range e.Width() {
		param, k := e.element(channel, i)
		for _, p := range c.plan.order {
			if p == param {
				break
			}
			k += p.size()
		}
		at = append(at, k)
	}
	return at
}

// moment is the block of one channel.
func (e placedElementwise) moment(avg averages[float64], channel int) []float64 {
	n := e.Width() * e.Width()
	return avg[e.index].Moments[0][channel*n : (channel+1)*n]
}

// checkElementwise demands that every block is that of the dense Fisher matrix.
func checkElementwise(t *testing.T, c *training[float64], avg averages[float64], fisher mat.Matrix, tol float64) {
	t.Helper()
	for _, e := range elementwiseBlocks(c) {
		for channel := range e.Channels() {
			want := flatOf(pick(fisher, e.positions(c, channel)))
			testnet.Near(t, fmt.Sprint(e.name(), ", channel ", channel), e.moment(avg, channel), want, tol)
		}
	}
	for i, b := range c.plan.blocks {
		if _, ok := b.Block.(*curvature.Full[float64]); !ok {
			continue
		}
		var at []int
		for _, g := range b.groups {
			at = append(at, elementsOfParam(c, g.params[0])...)
		}
		testnet.Near(t, b.groups[0].names[0], avg[i].Moments[0], flatOf(pick(fisher, at)), tol)
	}
}

// elementsOfParam are the places of a parameter's elements among those of all.
func elementsOfParam(c *training[float64], of *parameter[float64]) (at []int) {
	start := 0
	for _, p := range c.plan.order {
		for i := range p.size() {
			if p == of {
				at = append(at, start+i)
			}
		}
		start += p.size()
	}
	return at
}

// What each case contributes is the gradient for a loss that leaves the other cases out, and all
// together make the gradient.
func TestGradientByCase(t *testing.T) {
	for _, e := range elementwiseNets {
		t.Run(e.name, func(t *testing.T) {
			n := e.network(testnet.Squares(1))
			c := attach(t, n)
			run, out := c.plan.model.run, c.plan.model.outputs[0]
			reverse := func(seed []float64) {
				testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: out.node, Data: seed}}, c.plan.path))
			}
			for _, rows := range [][]int{nil, {3, 0}} {
				testnet.Check(t, run.Forward(rows))
				seed := testnet.NewSketch(2).Normals(len(run.Value(out.node).Data))
				for _, b := range elementwiseBlocks(c) {
					for k, p := range b.params {
						reverse(seed)
						got := make([]float64, run.Cases()*p.size())
						run.GradientByCase(b.of.Uses[k], got)
						var want []float64
						for i := range run.Cases() {
							only := make([]float64, len(seed))
							copy(only[i*out.cols:(i+1)*out.cols], seed[i*out.cols:])
							reverse(only)
							want = append(want, run.Gradient(p.leaf)...)
						}
						testnet.Near(t, fmt.Sprint(p.name, ", rows ", rows), got, want, identity)
					}
				}
			}
		})
	}
}

// The expectation of the blocks over the model's targets is the exact Fisher matrix's, for every
// loss.
func TestElementwiseBlocksAreExact(t *testing.T) {
	for _, e := range elementwiseNets {
		t.Run(e.name, func(t *testing.T) {
			for _, loss := range likelihoods {
				c := attach(t, e.network(loss))
				var names []string
				for _, row := range c.describe().Params {
					if row.Treatment == Full {
						names = append(names, row.Block)
					}
				}
				slices.Sort(names)
				names = slices.Compact(names)
				if diff := gocmp.Diff(e.blocks, names); diff != "" {
					t.Fatalf("blocks (-want +got):\n%s\n%v", diff, c.describe())
				}
				fisher := denseFisher(t, c, jacobians(t, c))
				checkElementwise(t, c, exactAverages(t, c, nil), fisher, identity)
				all := seededAverages(t, c, nil, func(o *output) int {
					return len(outcomes(o.head, make([]float64, o.cols)))
				}, targetSeeds)
				checkElementwise(t, c, all, fisher, identity)
			}
		})
	}
}

// With WithFullBlocks(1) only the diagonals are left: the same entries.
func TestElementwiseDiagonals(t *testing.T) {
	for _, e := range elementwiseNets {
		t.Run(e.name, func(t *testing.T) {
			c := attach(t, e.network(testnet.Classes), WithFullBlocks(1))
			for _, b := range elementwiseBlocks(c) {
				if b.Width() != 1 || len(b.params) != 1 {
					t.Errorf("%s is not diagonal", b.name())
				}
			}
			for _, row := range c.describe().Params {
				if tensor.Shape(row.Shape).TotalSize() > 1 && row.Treatment == Full {
					t.Errorf("%s is treated as %s", row.Name, row.Treatment)
				}
			}
			checkElementwise(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)), identity)
		})
	}
}

// The Jacobians by finite differences of what Gorgonia's own machine computes give the same blocks.
func TestElementwiseByFiniteDifferences(t *testing.T) {
	for _, name := range []string{"difference", "quotient, parameter first", "power", "power, parameter first",
		"several uses", "cases along the last axis", "channels",
		"batch normalisation", "group normalisation", "layer normalisation"} {
		e := elementwiseNetNamed(name)
		t.Run(e.name, func(t *testing.T) {
			n := e.network(testnet.Binary)
			c := attach(t, n)
			checkElementwise(t, c, exactAverages(t, c, nil), denseFisher(t, c, differences(t, n)), 1e-9)
		})
	}
}

// Statistics of some rows are those of a batch that holds no others, if the batch is not
// normalised.
func TestElementwiseOfRows(t *testing.T) {
	for _, e := range elementwiseNets {
		if e.shape != nil || e.name == "batch normalisation" {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			c := attach(t, e.network(testnet.Binary))
			first := elementwiseBlocks(c)[0].index
			var mean []float64
			for _, row := range []int{4, 1, 2} {
				mean = plus(mean, exactAverages(t, c, []int{row})[first].Moments[0])
			}
			floats.Scale(1.0/3, mean)
			testnet.Near(t, "three rows", exactAverages(t, c, []int{1, 2, 4})[first].Moments[0], mean, identity)
		})
	}
}

// The direction of each channel solves (F + gamma^2) u = v.
func TestElementwiseDirection(t *testing.T) {
	for _, e := range elementwiseNets {
		t.Run(e.name, func(t *testing.T) {
			for _, gamma := range []float64{0.03, 1, 40} {
				c := attach(t, e.network(testnet.Classes))
				gradients(t, c)
				avg := exactAverages(t, c, nil)
				directions(t, c, avg, gamma)
				for _, b := range elementwiseBlocks(c) {
					for channel := range b.Channels() {
						var v, got []float64
						for k := range b.Width() {
							p, at := b.element(channel, k)
							v, got = append(v, p.grad[at]), append(got, p.direction[at])
						}
						var want mat.VecDense
						testnet.Check(t, want.SolveVec(plusDiagonal(b.moment(avg, channel), gamma*gamma),
							mat.NewVecDense(len(v), v)))
						testnet.Near(t, fmt.Sprint(b.name(), ", channel ", channel), got, want.RawVector().Data, 1e-10)
					}
				}
			}
		})
	}
}

// A parameter that acts on another one, not on what depends on the case, has no gradient by case.
func TestParametersOfEachOther(t *testing.T) {
	s := testnet.NewSketch(1)
	p, q, w := s.Random("p", 1, 3), s.Random("q", 1, 3), s.Random("w", 3, 2)
	n := &testnet.Net{Sketch: s, Params: gorgonia.Nodes{p, q, w}}
	h := testnet.AddRow(s.Random("x", testnet.Cases, 3), testnet.Hadamard(p, q))
	c := attach(t, n.Ends(testnet.Mul(h, w), testnet.Squares(1)))
	rows := c.describe().Params
	if elementwiseBlocks(c) != nil || rows[0].Treatment != Diagonal || rows[1].Treatment != Diagonal {
		t.Errorf("want diagonal blocks of p and q:\n%v", c.describe())
	}
}

// Parameters of up to as many elements as WithFullBlocks says have a full block. With more, one is
// diagonal, and a scale and its shift have 2 x 2 for each channel.
func TestFullBlocksBySize(t *testing.T) {
	build := func(opts ...Option) []string {
		n := testnet.NewNet(1)
		x, p := n.Random("x", testnet.Cases, 40), learned(n, "p", 1, 40)
		scale, shift := learned(n, "scale", 1, 40), learned(n, "shift", 1, 40)
		h := testnet.TimesRow(testnet.Tanh(testnet.AddRow(x, p)), scale)
		c := attach(t, n.Ends(testnet.AddRow(h, shift), testnet.Squares(1)), opts...)
		var rows []string
		for _, r := range c.describe().Params {
			rows = append(rows, fmt.Sprintf("%s %s %s", r.Name, r.Treatment, r.Block))
		}
		checkElementwise(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)), identity)
		return rows
	}
	pairs := []string{"scale full scale and shift: 40 of 2 x 2", "shift full scale and shift: 40 of 2 x 2"}
	whole := []string{"scale full scale and shift: 80 x 80", "shift full scale and shift: 80 x 80"}
	for _, test := range []struct {
		opts []Option
		want []string
	}{
		{nil, append([]string{"p full p: 40 x 40"}, whole...)},
		{[]Option{WithFullBlocks(80)}, append([]string{"p full p: 40 x 40"}, whole...)},
		{[]Option{WithFullBlocks(79)}, append([]string{"p full p: 40 x 40"}, pairs...)},
		{[]Option{WithFullBlocks(39)}, append([]string{"p diagonal "}, pairs...)},
		{[]Option{WithFullBlocks(40)}, append([]string{"p full p: 40 x 40"}, pairs...)},
		{[]Option{WithFullBlocks(1)}, []string{"p diagonal ", "scale diagonal ", "shift diagonal "}},
	} {
		if diff := gocmp.Diff(test.want, build(test.opts...)); diff != "" {
			t.Errorf("plan (-want +got):\n%s", diff)
		}
	}
}

// A sampled gradient that is not finite is an error that names the parameter.
func TestElementwiseNotFinite(t *testing.T) {
	n := elementwiseNets[0].network(testnet.Squares(1))
	c := attach(t, n)
	run := c.plan.model.run
	testnet.Check(t, run.Forward(nil))
	seed := program.Seed[float64]{Node: c.plan.model.outputs[0].node, Data: make([]float64, testnet.Cases*3)}
	seed.Data[4] = math.Inf(1)
	testnet.Check(t, run.Reverse([]program.Seed[float64]{seed}, c.plan.path))
	alone, at := *c.plan, elementwiseBlocks(c)[0].index
	alone.blocks, alone.hooks = alone.blocks[at:at+1], alone.hooks[at:at+1]
	err := observe(&alone, false)
	if layer, ok := err.(*LayerError); !ok || layer.Layer != "p" || layer.Err != ErrNotFinite {
		t.Errorf("error %v, want a LayerError of p that wraps ErrNotFinite", err)
	}
}

func TestElementwiseTrains(t *testing.T) {
	for _, name := range []string{"temperature", "scalar", "scale and shift", "layer normalisation",
		"batch normalisation", "channels", "convolution with a scale for each channel"} {
		t.Run(name, func(t *testing.T) {
			NewTrainer(t, elementwiseNetNamed(name).network(testnet.Classes)).Falls(t, 20, 0.5)
		})
	}
}
