package kfac

import (
	"fmt"
	"math"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// positiveUnit keeps logarithms and quotients well away from zero.
func positiveUnit(a *gorgonia.Node) *gorgonia.Node {
	return gorgonia.Must(gorgonia.Exp(mul(tanh(a), gorgonia.NewConstant(0.5))))
}

// An elementwiseNet has parameters that act element by element in front of a dense layer, and the
// blocks that they get.
type elementwiseNet struct {
	name string
	// x has the shape below; h has a row for each case
	build  func(s *testnet.Sketch, x *gorgonia.Node) (h *gorgonia.Node, params gorgonia.Nodes)
	shape  []int // (cases, 3) if nil
	blocks []string
}

// withRow is a net with one parameter p of shape (1, 3).
func withRow(name string, f func(s *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node) elementwiseNet {
	return elementwiseNet{name: name, blocks: []string{"p: 3 x 3"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			p := s.Uniform("p", 1, 3)
			for i := range testnet.Data(p) {
				testnet.Data(p)[i] += 0.5
			}
			return f(s, x, p), list(p)
		}}
}

var elementwiseNets = []elementwiseNet{
	withRow("sum", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node { return addRow(h, p) }),
	withRow("sum, parameter first", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastAdd(p, h, []byte{0}, nil))
	}),
	withRow("difference", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastSub(h, p, nil, []byte{0}))
	}),
	withRow("difference, parameter first", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastSub(p, h, []byte{0}, nil))
	}),
	withRow("product", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node { return timesRow(h, p) }),
	withRow("product, parameter first", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastHadamardProd(p, h, []byte{0}, nil))
	}),
	withRow("quotient", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastHadamardDiv(h, p, nil, []byte{0}))
	}),
	withRow("quotient, parameter first", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastHadamardDiv(p, positiveUnit(h), []byte{0}, nil))
	}),
	withRow("power", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastPow(positiveUnit(h), p, nil, []byte{0}))
	}),
	withRow("power, parameter first", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastPow(p, h, []byte{0}, nil))
	}),
	withRow("several uses", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		h = tanh(timesRow(h, p))
		return gorgonia.Must(gorgonia.BroadcastSub(p, timesRow(addRow(h, p), p), []byte{0}, nil))
	}),
	withRow("reshaped", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		return addRow(timesRow(h, reshape(reshape(p, 3), 1, 3)), p)
	}),
	withRow("cases along the last axis", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		return transpose(gorgonia.Must(gorgonia.BroadcastHadamardProd(transpose(h), reshape(p, 3, 1), nil, []byte{1})))
	}),
	withRow("a constant in between", func(_ *testnet.Sketch, h, p *gorgonia.Node) *gorgonia.Node {
		return mul(timesRow(h, p), gorgonia.NewConstant(1.5))
	}),

	{name: "temperature", blocks: []string{"p: 1 x 1"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			p := s.Leaf("p", []float64{0.7}, 1, 1)
			return gorgonia.Must(gorgonia.BroadcastHadamardDiv(x, p, nil, []byte{0, 1})), list(p)
		}},
	{name: "scalar", blocks: []string{"p: 1 x 1"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			p := gorgonia.NewScalar(s.Graph, tensor.Float64, gorgonia.WithName("p"), gorgonia.WithValue(1.3))
			return mul(x, p), list(p)
		}},
	{name: "scalar exponent", blocks: []string{"p: 1 x 1"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			p := gorgonia.NewScalar(s.Graph, tensor.Float64, gorgonia.WithName("p"), gorgonia.WithValue(1.3))
			return gorgonia.Must(gorgonia.Pow(positiveUnit(x), p)), list(p)
		}},
	{name: "scale and shift", blocks: []string{"scale and shift: 3 of 2 x 2"}, build: scaleAndShift},
	{name: "scale and shift, as vectors", blocks: []string{"scale and shift: 3 of 2 x 2"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			scale, shift := s.Random("scale", 3), s.Random("shift", 3)
			return addRow(timesRow(x, scale), shift), list(shift, scale)
		}},
	{name: "gain and offset", blocks: []string{"gain and offset: 2 x 2"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			gain, offset := s.Random("gain", 1, 1), s.Random("offset", 1, 1)
			h := gorgonia.Must(gorgonia.BroadcastHadamardProd(x, gain, nil, []byte{0, 1}))
			return gorgonia.Must(gorgonia.BroadcastAdd(h, offset, nil, []byte{0, 1})), list(gain, offset)
		}},
	{name: "a scale for all and a shift for each", blocks: []string{"gain: 1 x 1", "shift: 3 x 3"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			gain, shift := s.Random("gain", 1, 1), s.Random("shift", 1, 3)
			return addRow(gorgonia.Must(gorgonia.BroadcastHadamardProd(x, gain, nil, []byte{0, 1})), shift),
				list(gain, shift)
		}},
	{name: "a scale behind a shift", blocks: []string{"scale: 3 x 3", "shift: 3 x 3"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			scale, shift := s.Random("scale", 1, 3), s.Random("shift", 1, 3)
			return timesRow(addRow(x, shift), scale), list(scale, shift)
		}},
	{name: "a scale used again", blocks: []string{"scale: 3 x 3", "shift: 3 x 3"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			scale, shift := s.Random("scale", 1, 3), s.Random("shift", 1, 3)
			return timesRow(tanh(addRow(timesRow(x, scale), shift)), scale), list(scale, shift)
		}},
	{name: "a scaled input used beside its shift", blocks: []string{"scale: 3 x 3", "shift: 3 x 3"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			scale, shift := s.Random("scale", 1, 3), s.Random("shift", 1, 3)
			h := timesRow(x, scale)
			return hadamard(addRow(h, shift), tanh(h)), list(scale, shift)
		}},
	{name: "two scales and shifts", blocks: []string{"scale1 and shift1: 3 of 2 x 2", "scale2 and shift2: 3 of 2 x 2"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			scale1, shift1, scale2, shift2 := s.Random("scale1", 1, 3), s.Random("shift1", 1, 3),
				s.Random("scale2", 1, 3), s.Random("shift2", 1, 3)
			return addRow(timesRow(tanh(addRow(timesRow(x, scale1), shift1)), scale2), shift2),
				list(scale1, shift1, scale2, shift2)
		}},
	{name: "positions", shape: []int{cases, 4, 3}, blocks: []string{"scale and shift: 3 of 2 x 2"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			scale, shift := s.Random("scale", 1, 1, 3), s.Random("shift", 1, 1, 3)
			h := gorgonia.Must(gorgonia.BroadcastHadamardProd(x, scale, nil, []byte{0, 1}))
			return reshape(gorgonia.Must(gorgonia.BroadcastAdd(h, shift, nil, []byte{0, 1})), cases, 12),
				list(scale, shift)
		}},
	{name: "positions folded into rows", shape: []int{cases, 4, 3}, blocks: []string{"scale and shift: 3 of 2 x 2"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			h, params := scaleAndShift(s, reshape(x, cases*4, 3))
			return reshape(h, cases, 12), params
		}},
	{name: "one for each position", shape: []int{cases, 4, 3}, blocks: []string{"p: 4 x 4"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			p := s.Random("p", 1, 4, 1)
			return reshape(gorgonia.Must(gorgonia.BroadcastHadamardProd(x, p, nil, []byte{0, 2})), cases, 12), list(p)
		}},
	{name: "channels", shape: []int{cases, 3, 2, 2}, blocks: []string{"p: 3 x 3"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			p := s.Random("p", 1, 3, 1, 1)
			return reshape(gorgonia.Must(gorgonia.BroadcastHadamardProd(x, p, nil, []byte{0, 2, 3})), cases, 12),
				list(p)
		}},
	{name: "every element", shape: []int{cases, 3, 2, 2}, blocks: []string{"p: 12 x 12"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			p := s.Random("p", 1, 3, 2, 2)
			return reshape(gorgonia.Must(gorgonia.BroadcastHadamardProd(x, p, nil, []byte{0})), cases, 12), list(p)
		}},
	{name: "batch normalisation", blocks: []string{"scale and shift: 3 of 2 x 2"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			scale, shift := s.Random("scale", 1, 3), s.Random("shift", 1, 3)
			h, _, _, _, err := gorgonia.BatchNorm(x, scale, shift, 0.9, 1e-3)
			return gorgonia.Must(h, err), list(scale, shift)
		}},
	{name: "batch normalisation of images", shape: []int{cases, 3, 2, 2},
		blocks: []string{"scale and shift: 3 of 2 x 2"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			scale, shift := s.Random("scale", 1, 3, 1, 1), s.Random("shift", 1, 3, 1, 1)
			h, _, _, _, err := gorgonia.BatchNorm(x, scale, shift, 0.9, 1e-3)
			return reshape(gorgonia.Must(h, err), cases, 12), list(scale, shift)
		}},
	{name: "group normalisation", shape: []int{cases, 4, 2, 1}, blocks: []string{"scale and shift: 4 of 2 x 2"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			scale, shift := s.Random("scale", 1, 4, 1, 1), s.Random("shift", 1, 4, 1, 1)
			return reshape(gorgonia.Must(gorgonia.GroupNorm(x, scale, shift, 2, 4, 1e-3)), cases, 8), list(scale, shift)
		}},
	{name: "layer normalisation", blocks: []string{"scale and shift: 3 of 2 x 2"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			return scaleAndShift(s, normalised(x))
		}},
	{name: "convolution with a scale for each channel", shape: []int{cases, 2, 3, 3}, blocks: []string{"p: 3 x 3"},
		build: func(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
			filter, p := s.Random("filter", 3, 2, 2, 2), s.Random("p", 1, 3, 1, 1)
			h := gorgonia.Must(gorgonia.Conv2d(x, filter, tensor.Shape{2, 2}, []int{0, 0}, []int{1, 1}, []int{1, 1}))
			return reshape(tanh(gorgonia.Must(gorgonia.BroadcastHadamardProd(h, p, nil, []byte{0, 2, 3}))), cases, 12),
				list(filter, p)
		}},
}

func scaleAndShift(s *testnet.Sketch, x *gorgonia.Node) (*gorgonia.Node, gorgonia.Nodes) {
	scale, shift := s.Random("scale", 1, 3), s.Random("shift", 1, 3)
	return addRow(timesRow(x, scale), shift), list(scale, shift)
}

// normalised is layer normalisation written by hand.
func normalised(x *gorgonia.Node) *gorgonia.Node {
	rows := x.Shape()[0]
	mean := reshape(testnet.Mean(x, 1), rows, 1)
	d := gorgonia.Must(gorgonia.BroadcastSub(x, mean, nil, []byte{1}))
	variance := reshape(testnet.Mean(testnet.Square(d), 1), rows, 1)
	deviation := gorgonia.Must(gorgonia.Sqrt(add(variance, gorgonia.NewConstant(0.01))))
	return gorgonia.Must(gorgonia.BroadcastHadamardDiv(d, deviation, nil, []byte{1}))
}

func elementwiseNetNamed(name string) elementwiseNet {
	return elementwiseNets[slices.IndexFunc(elementwiseNets, func(e elementwiseNet) bool { return e.name == name })]
}

// network puts a dense layer behind, without a nonlinearity: what the parameters do to the loss is
// then their own.
func (e elementwiseNet) network(loss testnet.Likelihood) *testnet.Net {
	s := testnet.NewSketch(1)
	shape := e.shape
	if shape == nil {
		shape = []int{cases, 3}
	}
	n := &testnet.Net{Sketch: s, X: s.Random("x", shape...)}
	h, params := e.build(s, n.X)
	w := s.Random("w", h.Shape()[1], 3)
	n.Out, n.Params = mul(h, w), append(params, w)
	n.Cost, n.Loss = loss(s, n.Out)
	return n
}

// elementwiseBlocks are those of a plan, with their names.
func elementwiseBlocks(c *conductor[float64]) (blocks []*elementwiseBlock[float64], names []string) {
	for _, b := range c.blocks {
		if b, ok := b.(*elementwiseBlock[float64]); ok {
			blocks, names = append(blocks, b), append(names, b.name())
		}
	}
	return blocks, names
}

// channelElements are the positions among all parameters of the elements of one of a block's
// channels.
func channelElements(c *conductor[float64], b *elementwiseBlock[float64], channel int) (at []int) {
	for i := range b.width {
		param, k := b.element(channel, i)
		for _, p := range c.order {
			if p == b.params[param] {
				break
			}
			k += len(p.grad)
		}
		at = append(at, k)
	}
	return at
}

// blockOf is the block of one channel.
func blockOf(b *elementwiseBlock[float64], channel int) []float64 {
	n := b.width * b.width
	return b.mean.next[channel*n : (channel+1)*n]
}

// checkElementwise demands that every channel's block is that of the dense Fisher matrix.
func checkElementwise(t *testing.T, c *conductor[float64], fisher mat.Matrix, tol float64) {
	t.Helper()
	blocks, names := elementwiseBlocks(c)
	for i, b := range blocks {
		for channel := range b.channels {
			want := flatOf(pick(fisher, channelElements(c, b, channel)))
			testnet.Near(t, fmt.Sprint(names[i], ", channel ", channel), blockOf(b, channel), want, tol)
		}
	}
}

// What each case contributes is the gradient for a loss that leaves the other cases out, and all
// together make the gradient.
func TestGradientByCase(t *testing.T) {
	for _, e := range elementwiseNets {
		t.Run(e.name, func(t *testing.T) {
			n := e.network(testnet.Squares(1))
			c := attach(t, n)
			run, out := c.sampler.run, c.outputs[0]
			for _, rows := range [][]int{nil, {3, 0}} {
				testnet.Check(t, run.Forward(rows))
				seed := testnet.NewSketch(2).Normals(len(run.Value(out.node).Data))
				blocks, _ := elementwiseBlocks(c)
				for _, b := range blocks {
					for k, p := range b.params {
						testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: out.node, Data: seed}},
							c.sampler.path))
						got := make([]float64, run.Cases()*len(p.grad))
						run.GradientByCase(b.uses[k], got)
						var want []float64
						for i := range run.Cases() {
							only := make([]float64, len(seed))
							copy(only[i*out.cols:(i+1)*out.cols], seed[i*out.cols:])
							testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: out.node, Data: only}},
								c.sampler.path))
							want = append(want, run.Gradient(p.leaf)...)
						}
						testnet.Near(t, fmt.Sprint(p.name(), ", rows ", rows), got, want, identity)
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
				_, names := elementwiseBlocks(c)
				slices.Sort(names)
				if diff := gocmp.Diff(e.blocks, names); diff != "" {
					t.Fatalf("blocks (-want +got):\n%s\n%v", diff, c.plan)
				}
				fisher := denseFisher(t, c, jacobians(t, c))
				observeExactly(t, c, nil)
				checkElementwise(t, c, fisher, identity)
				observeSeeded(t, c, nil, func(o *output) int {
					return len(outcomes(o.head, make([]float64, o.cols)))
				}, targetSeeds)
				checkElementwise(t, c, fisher, identity)
			}
		})
	}
}

// With WithFullBlocks(1) only the diagonals are left: the same entries.
func TestElementwiseDiagonals(t *testing.T) {
	for _, e := range elementwiseNets {
		t.Run(e.name, func(t *testing.T) {
			c := attach(t, e.network(testnet.Classes), WithFullBlocks(1))
			blocks, _ := elementwiseBlocks(c)
			for _, b := range blocks {
				if b.width != 1 || len(b.params) != 1 {
					t.Errorf("%s is not diagonal", b.name())
				}
			}
			for _, row := range c.plan.Params {
				if size(row.Shape) > 1 && row.Treatment == Full {
					t.Errorf("%s is treated as %s", row.Name, row.Treatment)
				}
			}
			observeExactly(t, c, nil)
			checkElementwise(t, c, denseFisher(t, c, jacobians(t, c)), identity)
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
			observeExactly(t, c, nil)
			checkElementwise(t, c, denseFisher(t, c, differences(t, n)), 1e-9)
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
			n := e.network(testnet.Binary)
			c := attach(t, n)
			var want, mean []float64
			for _, row := range []int{4, 1, 2} {
				observeExactly(t, c, []int{row})
				blocks, _ := elementwiseBlocks(c)
				mean = plus(mean, blocks[0].mean.next)
			}
			want = scaled(mean, 1.0/3)
			observeExactly(t, c, []int{1, 2, 4})
			blocks, _ := elementwiseBlocks(c)
			testnet.Near(t, "three rows", blocks[0].mean.next, want, identity)
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
				observeExactly(t, c, nil)
				directions(t, c, gamma)
				blocks, names := elementwiseBlocks(c)
				for i, b := range blocks {
					for channel := range b.channels {
						var v, got []float64
						for k := range b.width {
							p, at := b.element(channel, k)
							v, got = append(v, b.params[p].grad[at]), append(got, b.params[p].dir[at])
						}
						var want mat.VecDense
						testnet.Check(t, want.SolveVec(plusDiagonal(blockOf(b, channel), gamma*gamma),
							mat.NewVecDense(len(v), v)))
						testnet.Near(t, fmt.Sprint(names[i], ", channel ", channel), got, want.RawVector().Data, 1e-10)
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
	n := &testnet.Net{Sketch: s, Out: mul(addRow(s.Random("x", cases, 3), hadamard(p, q)), w), Params: list(p, q, w)}
	n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
	c := attach(t, n)
	if blocks, _ := elementwiseBlocks(c); blocks != nil || c.plan.Params[0].Treatment != Diagonal ||
		c.plan.Params[1].Treatment != Diagonal {
		t.Errorf("want diagonal blocks of p and q:\n%v", c.plan)
	}
}

// A parameter of more elements than WithFullBlocks says is diagonal, element by element, but a
// scale and its shift are 2 x 2 whatever their number.
func TestFullBlocksBySize(t *testing.T) {
	build := func(opts ...Option) []string {
		s := testnet.NewSketch(1)
		x, p, scale, shift := s.Random("x", cases, 40), s.Random("p", 1, 40), s.Random("scale", 1, 40),
			s.Random("shift", 1, 40)
		n := &testnet.Net{Sketch: s, Out: addRow(timesRow(tanh(addRow(x, p)), scale), shift),
			Params: list(p, scale, shift)}
		n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
		c := attach(t, n, opts...)
		var rows []string
		for _, r := range c.plan.Params {
			rows = append(rows, fmt.Sprintf("%s %s %s", r.Name, r.Treatment, r.Block))
		}
		observeExactly(t, c, nil)
		checkElementwise(t, c, denseFisher(t, c, jacobians(t, c)), identity)
		return rows
	}
	pairs := []string{"scale full scale and shift: 40 of 2 x 2", "shift full scale and shift: 40 of 2 x 2"}
	for _, test := range []struct {
		opts []Option
		want []string
	}{
		{nil, append([]string{"p diagonal "}, pairs...)},
		{[]Option{WithFullBlocks(39)}, append([]string{"p diagonal "}, pairs...)},
		{[]Option{WithFullBlocks(40)}, append([]string{"p full p: 40 x 40"}, pairs...)},
		{[]Option{WithFullBlocks(1)}, []string{"p diagonal ", "scale diagonal ", "shift diagonal "}},
	} {
		if diff := gocmp.Diff(test.want, build(test.opts...)); diff != "" {
			t.Errorf("plan (-want +got):\n%s", diff)
		}
	}
}

// The running average of the blocks decays like that of the factors, and several runs count as one.
func TestElementwiseAverage(t *testing.T) {
	n := elementwiseNetNamed("scale and shift").network(testnet.Squares(1))
	c := attach(t, n)
	blocks, _ := elementwiseBlocks(c)
	b, run := blocks[0], c.sampler.run
	testnet.Check(t, run.Forward(nil))
	var want []float64
	for k := 1; k <= 25; k++ {
		var sum []float64
		for i := range 2 {
			seed := n.Sketch.Normals(cases * 3)
			testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: c.outputs[0].node, Data: seed}},
				c.sampler.path))
			testnet.Check(t, b.observe(run))
			sum = plus(sum, scaled(b.mean.run, 1.0/(2*cases)))
			if i == 0 {
				b.take()
			}
		}
		testnet.Check(t, b.average(0.9, true))
		eps := min(1-1/float64(k), 0.9)
		want = plus(scaled(sum, 1-eps), scaled(append(want, make([]float64, len(sum)-len(want))...), eps))
		testnet.Near(t, fmt.Sprint("update ", k), b.mean.next, want, identity)
		b.keep(false)
	}
}

// A sampled gradient that is not finite is an error that names the parameter.
func TestElementwiseNotFinite(t *testing.T) {
	n := elementwiseNets[0].network(testnet.Squares(1))
	c := attach(t, n)
	blocks, _ := elementwiseBlocks(c)
	run := c.sampler.run
	testnet.Check(t, run.Forward(nil))
	seed := make([]float64, cases*3)
	seed[4] = math.Inf(1)
	testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: c.outputs[0].node, Data: seed}}, c.sampler.path))
	err := blocks[0].observe(run)
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
