package kfac

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/likelihood/likelihoodtest"
)

// only returns the one head of d.
func only(t *testing.T, d Distribution) head {
	t.Helper()
	if n := len(d.heads()); n != 1 {
		t.Fatalf("%d heads, want 1", n)
	}
	return d.heads()[0]
}

func TestTracing(t *testing.T) {
	must, f64 := gorgonia.Must, tensor.Float64
	g := gorgonia.NewGraph()
	matrix := func(name string) *gorgonia.Node {
		return gorgonia.NewMatrix(g, f64, gorgonia.WithShape(4, 3), gorgonia.WithName(name))
	}
	target := matrix("target")
	check := func(what string, z *gorgonia.Node, d Distribution) {
		t.Helper()
		h := only(t, d)
		if err := h.err(); err != nil || h.output() != z {
			t.Errorf("%s: traced to %v, want %v; error %v", what, h.output(), z, err)
		}
	}

	z := matrix("plain")
	check("logits", z, Categorical(z))
	check("logits", z, Bernoulli(z))
	check("mean", z, Gaussian(z, 2))
	check("tanh, no softmax", must(gorgonia.Tanh(z)), Categorical(must(gorgonia.Tanh(z))))
	sigmoidal := must(gorgonia.Sigmoid(z))
	check("mean that is a sigmoid", sigmoidal, Gaussian(sigmoidal, 1))
	check("logits that are a sigmoid", sigmoidal, Categorical(sigmoidal))
	check("logarithm, no softmax", must(gorgonia.Log(sigmoidal)), Categorical(must(gorgonia.Log(sigmoidal))))

	z = matrix("default axis")
	check("SoftMax", z, Categorical(must(gorgonia.SoftMax(z))))
	z = matrix("last axis")
	check("SoftMax, axis 1", z, Categorical(must(gorgonia.SoftMax(z, 1))))
	z = matrix("log form")
	check("LogSoftMax", z, Categorical(must(gorgonia.LogSoftMax(z))))

	z = matrix("log of softmax")
	p := must(gorgonia.SoftMax(z))
	check("Log(SoftMax)", z, Categorical(must(gorgonia.Log(p))))
	check("SoftMax under a Log", z, Categorical(p))
	z = matrix("log of softmax times target")
	p = must(gorgonia.SoftMax(z))
	must(gorgonia.Log(must(gorgonia.HadamardProd(p, target))))
	check("SoftMax in Log(SoftMax ⊙ target)", z, Categorical(p))

	z = matrix("unstabilised")
	p = must(gorgonia.SoftMax(z))
	gorgonia.UseNonStable()
	logP := must(gorgonia.Log(p))
	gorgonia.UseStabilization()
	if logP == p {
		t.Fatal("Log(SoftMax) is the SoftMax node, stabilisation off")
	}
	check("Log over SoftMax", z, Categorical(logP))

	z = gorgonia.NewVector(g, f64, gorgonia.WithShape(3), gorgonia.WithName("vector"))
	check("SoftMax of one case", z, Categorical(must(gorgonia.SoftMax(z))))
	z = gorgonia.NewMatrix(g, f64, gorgonia.WithShape(1, 3), gorgonia.WithName("row"))
	check("SoftMax of a batch of one", z, Categorical(must(gorgonia.SoftMax(z))))

	z = gorgonia.NewTensor(g, tensor.Float32, 4, gorgonia.WithShape(2, 3, 4, 5), gorgonia.WithName("image"))
	check("Sigmoid", z, Bernoulli(must(gorgonia.Sigmoid(z))))
}

// Gorgonia rewrites BinaryXent of a sigmoid into softplus terms. The sigmoid node stays beside the
// cost.
func TestTracingThroughBinaryXent(t *testing.T) {
	for _, dt := range []tensor.Dtype{tensor.Float64, tensor.Float32} {
		g := gorgonia.NewGraph()
		x := gorgonia.NewMatrix(g, dt, gorgonia.WithShape(4, 3), gorgonia.WithName("x"))
		w := gorgonia.NewMatrix(g, dt, gorgonia.WithShape(3, 2), gorgonia.WithName("w"))
		y := gorgonia.NewMatrix(g, dt, gorgonia.WithShape(4, 2), gorgonia.WithName("y"))
		z := gorgonia.Must(gorgonia.Mul(x, w))
		p := gorgonia.Must(gorgonia.Sigmoid(z))
		cost := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.BinaryXent(p, y))))
		ancestors := g.ExactSubgraphRoots(cost).AllNodes()
		if slices.Contains(ancestors, p) || !slices.Contains(ancestors, z) {
			t.Fatal("this Gorgonia keeps the sigmoid in the cost")
		}
		if h := only(t, Bernoulli(p)); h.err() != nil || h.output() != z {
			t.Errorf("%v: traced to %v, want %v; error %v", dt, h.output(), z, h.err())
		}
	}
}

// After Gorgonia has removed a node, the user's graph finds wrong nodes by their number.
func TestTracingWithStaleIndex(t *testing.T) {
	g := gorgonia.NewGraph()
	matrix := func(name string) *gorgonia.Node {
		return gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithShape(4, 3), gorgonia.WithName(name))
	}
	z, q := matrix("z"), matrix("q")
	// This leaves Gorgonia's own constant 1 in the graph.
	gorgonia.Must(gorgonia.BinaryXent(matrix("prediction"), q))
	rest := gorgonia.Must(gorgonia.Sub(gorgonia.NewConstant(1.0), q))
	p, s := gorgonia.Must(gorgonia.Sigmoid(z)), gorgonia.Must(gorgonia.SoftMax(z))
	for _, n := range g.AllNodes() {
		g.Node(n.ID()) // fills the index
	}
	gorgonia.Must(gorgonia.Log(rest)) // becomes log1p(-q); removes rest
	if g.Node(p.ID()) == p {
		t.Fatal("the index is not stale: the test tests nothing")
	}
	for _, d := range []Distribution{Bernoulli(p), Categorical(s)} {
		if h := only(t, d); h.err() != nil || h.output() != z {
			t.Errorf("%s: traced to %v; error %v", h.name(), h.output(), h.err())
		}
	}
	if err := only(t, Bernoulli(rest)).err(); err == nil || !strings.Contains(err.Error(), "belongs to no graph") {
		t.Errorf("removed node: error %v", err)
	}
}

func TestBadArguments(t *testing.T) {
	g := gorgonia.NewGraph()
	node := func(shape ...int) *gorgonia.Node {
		name := gorgonia.WithName(fmt.Sprint("z", shape))
		return gorgonia.NewTensor(g, tensor.Float64, len(shape), gorgonia.WithShape(shape...), name)
	}
	softmax := func(z *gorgonia.Node, axis ...int) *gorgonia.Node { return gorgonia.Must(gorgonia.SoftMax(z, axis...)) }
	z := node(4, 3)
	for _, c := range []struct {
		d          Distribution
		name, want string
	}{
		{Categorical(nil), "Categorical(nil)", "the node is nil"},
		{Bernoulli(nil), "Bernoulli(nil)", "the node is nil"},
		{Gaussian(nil, 1), "Gaussian(nil)", "the node is nil"},
		{Joint(nil), "Joint(nil)", "part 0 is a nil Distribution"},
		{Gaussian(gorgonia.NewConstant(1.5), 1), "Gaussian(1.5)", "belongs to no graph"},
		{Categorical(softmax(z, 0)), "Categorical(z[4 3])", "over axis 0 of an output of shape (4, 3)"},
		{Categorical(softmax(node(4, 1, 6), 1)), "Categorical(z[4 1 6])", "fewer than two classes"},
		{Poisson(nil), "Poisson(nil)", "the node is nil"},
		{Laplace(nil, 1), "Laplace(nil)", "the node is nil"},
		{Laplace(z, -1), "Laplace(z[4 3])", "the scale is -1"},
		{AbsoluteError(nil), "AbsoluteError(nil)", "the node is nil"},
		{NegativeBinomial(z, 0), "NegativeBinomial(z[4 3])", "the size is 0"},
		{StudentT(z, 0, 1), "StudentT(z[4 3])", "degrees of freedom is 0"},
		{StudentT(z, 1, math.NaN()), "StudentT(z[4 3])", "the scale is NaN"},
		{Heteroscedastic(nil, z), "Heteroscedastic(nil)", "the node is nil"},
		{Heteroscedastic(z, nil), "Heteroscedastic(z[4 3])", "the node is nil"},
		{Heteroscedastic(z, node(4, 1)), "Heteroscedastic(z[4 3], z[4 1])", "(4, 3) and the logarithm"},
		{Heteroscedastic(z, z), "Heteroscedastic(z[4 3], z[4 3])", "the same node"},
		{Laplace(z, 1e-200), "Laplace(z[4 3])", "the scale is 1e-200"},
		{Categorical(node(4, 1)), "Categorical(z[4 1])", "fewer than two classes"},
		{Categorical(softmax(node(7, 1))), "Categorical(z[7 1])", "fewer than two classes"},
		{Categorical(gorgonia.NewScalar(g, tensor.Float64, gorgonia.WithName("s"))), "Categorical(s)", "shape ()"},
		{SquaredError(nil), "SquaredError(nil)", "the node is nil"},
		{Gaussian(z, -1), "Gaussian(z[4 3])", "the variance is -1"},
		{Gaussian(z, math.NaN()), "Gaussian(z[4 3])", "the variance is NaN"},
		{Gaussian(z, math.Inf(1)), "Gaussian(z[4 3])", "the variance is +Inf"},
		{Gaussian(z, 5e-324), "Gaussian(z[4 3])", "the variance is 5e-324"},
	} {
		h := only(t, c.d)
		if err := h.err(); h.name() != c.name || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s: %q", h.name(), err, c.name, c.want)
		}
	}
}

func TestJoint(t *testing.T) {
	g := gorgonia.NewGraph()
	node := func(name string) *gorgonia.Node {
		return gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithShape(4, 3), gorgonia.WithName(name))
	}
	d := Joint(Categorical(node("a")), Joint(Bernoulli(node("b")), Joint()), Gaussian(node("c"), 2))
	var names []string
	for _, h := range d.heads() {
		if h.err() != nil {
			t.Errorf("%s: %v", h.name(), h.err())
		}
		names = append(names, h.name())
	}
	if want := []string{"Categorical(a)", "Bernoulli(b)", "Gaussian(c)"}; !slices.Equal(names, want) {
		t.Errorf("heads %v, want %v", names, want)
	}
	if n := len(Joint().heads()); n != 0 {
		t.Errorf("Joint() has %d heads", n)
	}
}

// A node without a type, whose Dtype panics, is refused like any other bad argument.
func TestNodesWithoutType(t *testing.T) {
	g := gorgonia.NewGraph()
	z := gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithShape(4, 3), gorgonia.WithName("z"))
	cost := gorgonia.Must(gorgonia.Sum(z))
	variable := hm.TypeVariable('a')
	for what, opts := range map[string][]gorgonia.NodeConsOpt{
		"no type":            {},
		"type variable":      {gorgonia.WithType(variable)},
		"tensor of variable": {gorgonia.WithType(gorgonia.TensorType{Dims: 2, Of: variable})},
	} {
		n := gorgonia.NewUniqueNode(append(opts, gorgonia.In(g), gorgonia.WithName(what))...)
		declared := []Distribution{
			Categorical(n), Bernoulli(n), Gaussian(n, 1), Joint(Bernoulli(z), Gaussian(n, 1)),
		}
		for _, d := range declared {
			_, err := NewSolver(cost, d)
			checkConfigError(t, err, what, "no type of elements")
		}
		_, err := NewSolver(n, Gaussian(z, 1))
		checkConfigError(t, err, "cost", "no type of elements")
	}
	_, err := NewSolver(nil, Gaussian(z, 1))
	checkConfigError(t, err, "cost", "nil")
	_, err = NewSolver(cost, nil)
	checkConfigError(t, err, "distribution", "none")
}

func checkConfigError(t *testing.T, err error, parts ...string) {
	t.Helper()
	var config *ConfigError
	if !errors.As(err, &config) {
		t.Fatalf("error %v, want a ConfigError", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}

// outcomes enumerates the targets of one case with their probabilities.
func outcomes(h head, z []float64) []likelihoodtest.Outcome {
	return likelihoodtest.Outcomes(h.Likelihood, z)
}

// plainFisher is the Fisher matrix of one case as a dense matrix, by its textbook formula.
func plainFisher(h head, z []float64) []float64 { return likelihoodtest.Fisher(h.Likelihood, z) }

func sumOf(a []float64) (sum float64) {
	for _, x := range a {
		sum += x
	}
	return sum
}
