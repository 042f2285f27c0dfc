package kfac

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// cut slices the first axes of a node; nil takes all of one.
func cut(n *gorgonia.Node, slices ...tensor.Slice) *gorgonia.Node {
	return gorgonia.Must(gorgonia.Slice(n, slices...))
}

func from(start, end int) tensor.Slice { return gorgonia.S(start, end) }

// partLayer is a layer of 4 inputs whose weight is a part of a parameter.
func partLayer(weight, bias string, out int, form string) wantLayer {
	return wantLayer{Weight: weight, Bias: bias, In: 4, Out: out, Sites: 1, Rows: cases, Form: "dense layer " + form}
}

// partWirings have layers whose weights are parts of parameters. The nets are linear.
var partWirings = []wiring{
	{name: "gates of one parameter", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		x, w, b := s.Random("x", cases, 4), s.Random("w", 4, 5), s.Random("b", 5)
		first := addRow(mul(x, cut(w, nil, from(0, 3))), cut(b, from(0, 3)))
		second := addRow(mul(x, cut(w, nil, from(3, 5))), cut(b, from(3, 5)))
		return concat(1, first, second), list(w, b)
	}, layers: []wantLayer{
		partLayer("w[:, 0:3]", "b[0:3]", 3, "x w + b[0:3]"), partLayer("w[:, 3:5]", "b[3:5]", 2, "x w + b[3:5]"),
	}},

	{name: "rows of one parameter", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		x, h, w := s.Random("x", cases, 4), s.Random("h", cases, 4), s.Random("w", 8, 3)
		return add(mul(x, cut(w, from(0, 4))), mul(h, cut(w, from(4, 8)))), list(w)
	}, layers: []wantLayer{partLayer("w[0:4]", "", 3, "x w"), partLayer("w[4:8]", "", 3, "x w")}},

	{name: "slice of a transpose", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		x, w := s.Random("x", cases, 4), s.Random("w", 6, 4)
		return mul(x, cut(transpose(w), nil, from(2, 5))), list(w)
	}, layers: []wantLayer{partLayer("w[:, 2:5]", "", 3, "x w")}},

	{name: "transpose of a slice", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		x, w, b := s.Random("x", cases, 4), s.Random("w", 6, 4), s.Random("b", 1, 3)
		return addRow(mul(x, transpose(cut(w, from(2, 5)))), b), list(w, b)
	}, layers: []wantLayer{partLayer("w[2:5]", "b", 3, "x w^T + b").outByIn()}},

	{name: "every second row, for a vector", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 8, 3)
		return mul(transpose(cut(w, gorgonia.S(0, 8, 2))), s.Random("x", 4)), list(w)
	}, layers: []wantLayer{partLayer("w[0:8:2]", "", 3, "w^T x").used(1, 1)}},

	{name: "axes moved before a vector", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 2, 4, 3)
		moved := reshape(gorgonia.Must(gorgonia.Transpose(w, 2, 0, 1)), 6, 4)
		return mul(moved, s.Random("x", 4)), list(w)
	}, layers: []wantLayer{{Weight: "w", In: 4, Out: 6, OutByIn: true, Sites: 1, Rows: 1, Form: "dense layer w x"}}},

	{name: "all weights in one vector", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		theta := s.Random("theta", 24)
		x := mul(s.Random("x", cases, 4), reshape(cut(theta, from(0, 12)), 4, 3))
		x = timesRow(addRow(x, cut(theta, from(12, 15))), reshape(cut(theta, from(15, 18)), 1, 3))
		return mul(x, reshape(cut(theta, from(18, 24)), 3, 2)), list(theta)
	}, layers: []wantLayer{
		partLayer("theta[0:12]", "theta[12:15]", 3, "x w + theta[12:15]"),
		{Weight: "theta[18:24]", In: 3, Out: 2, Sites: 1, Rows: cases, Form: "dense layer x w"},
	}},

	{name: "stack of matrices", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 2, 4, 3), s.Random("b", 2, 1, 3)
		h := batched(s.Random("x", 2, cases, 4), w)
		h = gorgonia.Must(gorgonia.BroadcastAdd(h, b, nil, []byte{1}))
		return testnet.Sum(h, 0), list(w, b)
	}, layers: []wantLayer{
		partLayer("w[0]", "b[0]", 3, "x w + b[0]"), partLayer("w[1]", "b[1]", 3, "x w + b[1]"),
	}},

	{name: "stack times columns", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 2, 3, 4)
		return transpose(testnet.Sum(batched(w, s.Random("x", 2, 4, cases)), 0)), list(w)
	}, layers: []wantLayer{partLayer("w[0]", "", 3, "w x").outByIn(), partLayer("w[1]", "", 3, "w x").outByIn()}},

	{name: "transposed stack", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 2, 3, 4)
		return testnet.Sum(batched(s.Random("x", 2, cases, 4), w, false, true), 0), list(w)
	}, layers: []wantLayer{partLayer("w[0]", "", 3, "x w^T").outByIn(), partLayer("w[1]", "", 3, "x w^T").outByIn()}},

	{name: "heads", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 4, 6)
		heads := gorgonia.Must(gorgonia.Transpose(reshape(w, 4, 2, 3), 1, 0, 2))
		return testnet.Sum(batched(s.Random("x", 2, cases, 4), heads), 0), list(w)
	}, layers: []wantLayer{partLayer("w[0]", "", 3, "x w"), partLayer("w[1]", "", 3, "x w")}},

	{name: "slices used at several times", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, h := s.Random("w", 6, 2), s.Random("x", cases, 4)
		var parts gorgonia.Nodes
		for range 2 {
			x := mul(h, cut(w, from(0, 4)))
			parts = append(parts, x)
			h = concat(1, x, x)
		}
		return concat(1, parts...), list(w)
	}, layers: []wantLayer{{Weight: "w[0:4]", In: 4, Out: 2, Sites: 2, Rows: 2 * cases,
		Form: "recurrent weight h w, 2 time steps"}}},

	{name: "groups of a convolution", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		x, w := s.Random("x", cases, 4, 3, 3), s.Random("w", 4, 2, 2, 2)
		h := concat(1, convolve(cut(x, nil, from(0, 2)), cut(w, from(0, 2)), 0, 1),
			convolve(cut(x, nil, from(2, 4)), cut(w, from(2, 4)), 0, 1))
		return reshape(h, cases, 16), list(w)
	}, layers: []wantLayer{
		{Weight: "w[0:2]", In: 8, Out: 2, OutByIn: true, Sites: 1, Rows: 4 * cases,
			Form: "convolution 2x2, stride 1, x * w, 4 positions per case"},
		{Weight: "w[2:4]", In: 8, Out: 2, OutByIn: true, Sites: 1, Rows: 4 * cases,
			Form: "convolution 2x2, stride 1, x * w, 4 positions per case"},
	}},
}

// In a linear net the block of each part is that of the dense Fisher matrix, unless it is used at
// several times. With one case it is so behind every likelihood.
func TestPartsAreExact(t *testing.T) {
	for _, w := range partWirings {
		if strings.Contains(w.name, "several times") {
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			c := attach(t, w.network())
			checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
			if strings.Contains(w.name, "convolution") || c.plan.model.Whole != "" {
				return
			}
			w.loss = testnet.Binary
			c = attach(t, w.network())
			numeric := jacobians(t, c)
			for row := range 2 {
				avg := exactAverages(t, c, []int{row})
				only := caseFisher(t, c, numeric[row], row)
				for _, l := range placedLayers(c) {
					testnet.Near(t, fmt.Sprint(l.Name(), " of case ", row), flatOf(l.kronecker(avg)),
						flatOf(pick(only, elements(c, l.Layer))), 1e-9)
				}
			}
		})
	}
}

// Every element of a parameter gets the direction of its block, once: the gradient, multiplied with
// the damped inverse of the blocks, at the places of their elements.
func TestDirectionOfParts(t *testing.T) {
	const gamma = 0.3
	for _, w := range partWirings {
		for _, rate := range []float64{1, 2.5} {
			t.Run(fmt.Sprint(w.name, ", rate ", rate), func(t *testing.T) {
				var opts []Option
				if rate != 1 {
					opts = append(opts, WithGroup("*", GroupRate(rate)))
				}
				c := attach(t, w.network(), opts...)
				gradients(t, c)
				avg := exactAverages(t, c, nil)
				directions(t, c, avg, gamma)
				total := 0
				for _, p := range c.plan.order {
					total += p.size()
				}
				var v, u []float64
				for _, p := range c.plan.order {
					v, u = append(v, p.grad...), append(u, p.direction...)
				}
				damped := mat.NewDense(total, total, nil)
				for _, l := range placedLayers(c) {
					a, g := l.factors(avg)
					s := l.block.groups[0].shape
					fa, fg := square(slices.Clone(a)), square(slices.Clone(g))
					dampA, dampG := tikhonov(gamma).Split(mat.Trace(fa), s.Abar(), mat.Trace(fg), s.Out)
					addTo(damped, fisherBlock(fa, fg, dampA, dampG), elements(c, l.Layer))
				}
				for i, b := range c.plan.blocks {
					if d, ok := b.Block.(*curvature.Diagonal[float64]); ok {
						for k, at := range otherElements(c, b) {
							damped.Set(at, at, avg[i].Moments[0][k%d.Entries()]+gamma*gamma)
						}
					}
				}
				var back mat.VecDense
				back.MulVec(damped, mat.NewVecDense(total, u))
				for i := range v {
					v[i] *= rate
				}
				testnet.Near(t, "(F + damping) u", back.RawVector().Data, v, 1e-9)
			})
		}
	}
}

// fisherBlock is (A + dampA I) (x) (G + dampG I).
func fisherBlock(a, g *mat.Dense, dampA, dampG float64) *mat.Dense {
	for m, d := range map[*mat.Dense]float64{a: dampA, g: dampG} {
		for i := range m.RawMatrix().Rows {
			m.Set(i, i, m.At(i, i)+d)
		}
	}
	var k mat.Dense
	k.Kronecker(a, g)
	return &k
}

// addTo adds m to the listed rows and columns.
func addTo(sum, m *mat.Dense, at []int) {
	for i, r := range at {
		for k, c := range at {
			sum.Set(r, c, sum.At(r, c)+m.At(i, k))
		}
	}
}

// otherElements are the places of a block's only parameter, or of what it has of it, among all.
func otherElements(c *training[float64], b *block[float64]) (at []int) {
	all := elementsOfParam(c, b.groups[0].params[0])
	if b.groups[0].at[0] == nil {
		return all
	}
	for _, k := range b.groups[0].at[0] {
		at = append(at, all[k])
	}
	return at
}

// Inner products count every element once.
func TestInnerProductsOfParts(t *testing.T) {
	for _, w := range partWirings {
		c := attach(t, w.network())
		gradients(t, c)
		directions(t, c, exactAverages(t, c, nil), 0.3)
		random := testnet.NewSketch(4)
		var want float64
		for _, p := range c.plan.order {
			copy(p.previous, random.Normals(p.size()))
			for i := range p.grad {
				want += p.grad[i] * p.previous[i]
			}
		}
		m, err := spanOf(c.plan.blocks, 0, true)
		testnet.Check(t, err)
		testnet.Near(t, w.name, []float64{m.slope[1]}, []float64{want}, 1e-9)
	}
}

// A net of parts of every kind falls to what it is taught, and says so in the plan.
func TestPartsTrain(t *testing.T) {
	for name, opts := range map[string][]Option{"default": nil, "EKFAC": {WithEKFAC()},
		"tridiagonal": {WithBlockTridiagonal()}} {
		t.Run(name, func(t *testing.T) {
			NewTrainer(t, testnet.Parts(12), append(opts, WithSeed(1))...).Falls(t, 30, 0.2)
		})
	}
}

func TestPlanOfParts(t *testing.T) {
	c := attach(t, testnet.Parts(5))
	var got []string
	for _, r := range c.describe().Params {
		got = append(got, fmt.Sprintf("%s: %s, %s, %s", r.Name, r.Treatment, r.Block, r.Reason))
	}
	want := []string{
		"w: kronecker, w[:, 0:3]: A 5, G 3; w[:, 3:6]: A 5, G 3, dense layer x w + b[0:3]; dense layer x w + b[3:6]",
		"b: kronecker, w[:, 0:3]: A 5, G 3; w[:, 3:6]: A 5, G 3, " +
			"homogeneous coordinate of w[:, 0:3]; homogeneous coordinate of w[:, 3:6]",
		"u: kronecker, u[0]: A 3, G 2; u[1]: A 3, G 2, dense layer x w",
		"theta: kronecker, theta[0:6]: A 3, G 3, dense layer x w + theta[6:9]; " +
			"homogeneous coordinate of theta[0:6]; 2 other elements diagonal: used by ⊙, which is no matrix product",
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

// With WithStrict a parameter whose layers leave something of it is a fallback.
func TestStrictParts(t *testing.T) {
	n := testnet.Parts(5)
	_, err := NewSolver(n.Cost, Declared(n), WithStrict())
	if err == nil || !strings.Contains(err.Error(), "theta") {
		t.Errorf("got %v, want that theta has a fallback", err)
	}
}

// A slice that the user moves from step to step makes its parameter diagonal from then on, and a
// step is the same as if it had been so from the start.
func TestSlicesThatMove(t *testing.T) {
	build := func() (*testnet.Net, *gorgonia.Node) {
		n := testnet.NewNet(6)
		w := n.Param("w", 6, 3)
		part := cut(w, from(0, 4))
		h := testnet.Tanh(mul(n.Random("x", cases, 4), part))
		return n.Ends(n.Dense("1", h, 2), testnet.Squares(1)), part
	}
	n, part := build()
	tr := NewTrainer(t, n, WithSeed(1))
	treatment := func() Treatment { return tr.Solver.Plan().Params[0].Treatment }
	tr.Step(t)
	if got := treatment(); got != Kronecker {
		t.Fatalf("before it moves: %s", got)
	}
	for _, start := range []int{1, 0, 2} {
		testnet.Check(t, gorgonia.UnsafeLet(part, gorgonia.S(start, start+4)))
		tr.Step(t)
		if got := treatment(); got != Diagonal {
			t.Errorf("moved to %d: %s", start, got)
		}
	}
}
