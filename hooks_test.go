package kfac

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

func (w wiring) network() *testnet.Net {
	s := testnet.NewSketch(1)
	n := &testnet.Net{Sketch: s}
	n.Out, n.Params = w.build(s)
	loss := w.loss
	if loss == nil {
		loss = testnet.Squares(1)
	}
	n.Cost, n.Loss = loss(s, n.Out)
	return n
}

// found lists what a plan and its layers make of a network, in the terms of a wiring.
func found(c *training[float64], others []wantOther) (kept []wantLayer, rest []wantOther) {
	for _, row := range c.describe().Params {
		for _, l := range placedLayers(c) {
			if l.Weight.Name() != row.Name || row.Treatment != Kronecker {
				continue
			}
			found := wantLayer{Weight: l.Name(), In: l.In, Out: l.Out, OutByIn: l.OutByIn, Sites: len(l.Sites),
				Form: row.Reason}
			if l.WeightAt != nil {
				found.Form = l.Describe(c.plan.model.Cases)
			}
			if l.Bias != nil {
				found.Bias = l.BiasName()
			}
			for _, s := range l.Sites {
				found.Rows += s.Rows
			}
			kept = append(kept, found)
		}
		if row.Treatment != Kronecker {
			reason := row.Reason
			for _, o := range others {
				if o.Name == row.Name && strings.Contains(reason, o.Reason) {
					reason = o.Reason // as demanded
				}
			}
			rest = append(rest, wantOther{row.Name, row.Treatment, reason})
		}
	}
	return kept, rest
}

func TestWirings(t *testing.T) {
	for _, w := range wirings {
		t.Run(w.name, func(t *testing.T) {
			n := w.network()
			c := attach(t, n)
			kept, rest := found(c, w.others)
			if diff := gocmp.Diff(w.layers, kept); diff != "" {
				t.Errorf("layers (-want +got):\n%s", diff)
			}
			if diff := gocmp.Diff(w.others, rest); diff != "" {
				t.Errorf("other parameters (-want +got):\n%s", diff)
			}
			plan := c.describe()
			checkRows(t, plan, w.layers, n.Params)
			checkCapture(t, c, nil)
			if c.plan.model.Whole == "" {
				checkCapture(t, c, []int{2, 0})
			}
			if w.noGrad {
				return
			}
			// NewSolver by itself plans the same for the parameters that Grad is called for.
			n.Grad(t)
			s := NewSolverOf(t, n)
			byName := func(a, b ParamPlan) int { return cmp.Compare(a.Name, b.Name) }
			if diff := gocmp.Diff(slices.SortedFunc(slices.Values(plan.Params), byName),
				slices.SortedFunc(slices.Values(s.Plan().Params), byName)); diff != "" {
				t.Errorf("plan of NewSolver (-list given +after Grad):\n%s", diff)
			}
		})
	}
}

// checkRows demands that the plan lists every parameter, in order, with its shape, and that the
// lines of a layer name its factors.
func checkRows(t *testing.T, plan Plan, want []wantLayer, params gorgonia.Nodes) {
	t.Helper()
	if len(plan.Params) != len(params) {
		t.Fatalf("%d lines for %d parameters", len(plan.Params), len(params))
	}
	for i, row := range plan.Params {
		if row.Name != params[i].Name() || !slices.Equal(row.Shape, params[i].Shape()) {
			t.Errorf("line %d is of %s %v, want %s %v", i, row.Name, row.Shape, params[i].Name(), params[i].Shape())
		}
		var blocks []string
		is := func(name string) bool { return name == row.Name || strings.HasPrefix(name, row.Name+"[") }
		for _, l := range want {
			if is(l.Weight) || is(l.Bias) {
				abar := l.In
				if l.Bias != "" {
					abar++
				}
				block := fmt.Sprintf("%s: A %d, G %d", l.Weight, abar, l.Out)
				if strings.HasPrefix(l.Form, "embedding") {
					block = fmt.Sprintf("%s: diagonal A %d, G %d", l.Weight, abar, l.Out)
				}
				blocks = append(blocks, block)
				if row.Treatment != Kronecker {
					t.Errorf("%s is treated as %s, want %s", row.Name, row.Treatment, Kronecker)
				}
			}
		}
		if block := strings.Join(blocks, "; "); row.Block != block && row.Treatment != Full {
			t.Errorf("%s: block %q, want %q", row.Name, row.Block, block)
		}
	}
}

// checkCapture demands that sum over rows of abar g^T, of what is captured, is the gradient that a
// sweep back to the parameters finds.
func checkCapture(t *testing.T, c *training[float64], rows []int) {
	t.Helper()
	m := c.plan.model
	run := m.run
	testnet.Check(t, run.Forward(rows))
	random := testnet.NewSketch(2)
	var seeds []program.Seed[float64]
	for _, o := range m.outputs {
		seeds = append(seeds, program.Seed[float64]{Node: o.node, Data: random.Normals(len(run.Value(o.node).Data))})
	}
	for _, l := range placedLayers(c) {
		testnet.Check(t, run.Reverse(seeds, c.plan.path))
		weight, bias := gradientOfLayer(t, l.Layer, run)
		if l.Tied != nil {
			other, _ := gradientOfLayer(t, l.Tied, run)
			floats.Add(weight, other)
		}
		leaves := []*program.Node{l.Weight}
		if l.Bias != nil {
			leaves = append(leaves, l.Bias)
		}
		testnet.Check(t, run.Reverse(seeds, m.Path(leaves...)))
		testnet.Near(t, fmt.Sprint("gradient of ", l.Name(), ", rows ", rows), weight,
			elementsOf(run.Gradient(l.Weight), l.WeightAt), identity)
		if l.Bias != nil {
			testnet.Near(t, fmt.Sprint("gradient of ", l.BiasName(), ", rows ", rows), bias,
				elementsOf(run.Gradient(l.Bias), l.BiasAt), identity)
		}
	}
}

// elementsOf are some elements of x, or all where at is nil.
func elementsOf(x []float64, at []int) (part []float64) {
	if at == nil {
		return x
	}
	for _, i := range at {
		part = append(part, x[i])
	}
	return part
}

// gradientOfLayer is the sum over rows of abar g^T, as the weight is stored, and of g.
func gradientOfLayer(t *testing.T, l *layers.Layer, run *program.Run[float64]) (weight, bias []float64) {
	t.Helper()
	var buf rowBuffer[float64]
	seen := captureLayer(l, run, &buf)
	rows := len(seen.G) / l.Out
	if len(seen.G) != rows*l.Out || len(seen.A)/l.In+len(seen.Lookups) != rows {
		t.Fatalf("%s: %d inputs, %d lookups and %d gradients", l.Name(), len(seen.A), len(seen.Lookups), len(seen.G))
	}
	weight, bias = make([]float64, l.In*l.Out), make([]float64, l.Out)
	for r := range rows {
		a := make([]float64, l.In)
		if len(seen.Lookups) > 0 {
			a[seen.Lookups[r]] = 1
		} else {
			copy(a, seen.A[r*l.In:])
		}
		for o := range l.Out {
			for i := range l.In {
				at := i*l.Out + o
				if l.OutByIn {
					at = o*l.In + i
				}
				weight[at] += a[i] * seen.G[r*l.Out+o]
			}
			bias[o] += seen.G[r*l.Out+o]
		}
	}
	return weight, bias
}

// A product that is a declared output itself has a gradient of its own, which the bias behind it
// has not.
func TestProductThatIsAnOutput(t *testing.T) {
	s := testnet.NewSketch(3)
	w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
	z1 := mul(s.Random("x", cases, 4), w)
	z2 := addRow(z1, b)
	cost1, dist1 := testnet.Squares(1)(s, z1)
	y2 := s.Uniform("y2", cases, 3)
	cost2 := testnet.Mean(testnet.Sub(testnet.Softplus(z2), hadamard(y2, z2)))
	n := &testnet.Net{Sketch: s, Cost: add(cost1, cost2), Loss: testnet.Joint(dist1, testnet.Bernoulli(z2)),
		Params: list(w, b)}
	c := attach(t, n)
	checkCapture(t, c, nil)
	kept, rest := found(c, nil)
	if diff := gocmp.Diff([]wantLayer{dense("", "x w")}, kept); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	if len(rest) != 1 || rest[0].Name != "b" || rest[0].Treatment != Full {
		t.Errorf("other parameters: %v", rest)
	}
}

// A parameter that only a term of the cost beside the likelihood depends on keeps its plain
// gradient.
func TestParameterOutsideTheOutputs(t *testing.T) {
	s := testnet.NewSketch(4)
	w, extra := s.Random("w", 4, 3), s.Random("extra", 2, 2)
	out := mul(s.Random("x", cases, 4), w)
	cost, dist := testnet.Squares(1)(s, out)
	n := &testnet.Net{Sketch: s, Cost: add(cost, testnet.Sum(testnet.Square(extra))), Loss: dist,
		Params: list(w, extra)}
	_, rest := found(attach(t, n), []wantOther{{"extra", Identity, "the declared outputs do not depend on it"}})
	if diff := gocmp.Diff([]wantOther{{"extra", Identity, "the declared outputs do not depend on it"}},
		rest); diff != "" {
		t.Errorf("other parameters (-want +got):\n%s", diff)
	}
}

// Where Grad was not called, what has a value for all cases at once counts as a parameter, and the
// data do not.
func TestParametersAreGuessed(t *testing.T) {
	n := testnet.MLP{Widths: []int{4, 3, 2}, Cases: cases, Unit: gorgonia.Tanh, Loss: testnet.Classes}.Build(5)
	s := NewSolverOf(t, n)
	var names []string
	for _, row := range s.Plan().Params {
		names = append(names, fmt.Sprint(row.Name, " ", row.Treatment))
	}
	slices.Sort(names)
	if want := []string{"b0 kronecker", "b1 kronecker", "w0 kronecker", "w1 kronecker"}; !slices.Equal(names, want) {
		t.Errorf("guessed %v, want %v", names, want)
	}
}
