package infer_test

import (
	"slices"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/infer"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A model has two outputs of 6 cases and 3 columns, and targets for each.
type model struct {
	*testnet.Net
	a, b *gorgonia.Node
	y    *gorgonia.Node
}

func newModel() model {
	n := testnet.NewNet(5)
	n.X = n.Random("x", 6, 4)
	h := testnet.Tanh(n.Dense("0", n.X, 5))
	return model{Net: n, a: n.Dense("a", h, 3), b: n.Dense("b", h, 3),
		y: n.Leaf("y", testnet.OneHots(n.Rng, 6, 3), 6, 3)}
}

func must(n *gorgonia.Node, err error) *gorgonia.Node { return gorgonia.Must(n, err) }

func log(n *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Log(n)) }

func exp(n *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Exp(n)) }

func number(v float64) *gorgonia.Node { return gorgonia.NewConstant(v) }

// classes is the cross-entropy of a softmax.
func (m model) classes(z *gorgonia.Node) *gorgonia.Node {
	return testnet.Neg(testnet.Mean(testnet.Sum(testnet.Hadamard(testnet.LogSoftMax(z), m.y), 1)))
}

// squares is the mean squared error.
func (m model) squares(z *gorgonia.Node) *gorgonia.Node {
	return testnet.Mean(testnet.Square(testnet.Sub(z, m.y)))
}

// bits is the binary cross-entropy.
func (m model) bits(z *gorgonia.Node) *gorgonia.Node {
	return testnet.Mean(testnet.Sub(testnet.Softplus(z), testnet.Hadamard(z, m.y)))
}

// distances is the mean absolute error.
func (m model) distances(z *gorgonia.Node) *gorgonia.Node {
	return testnet.Mean(must(gorgonia.Abs(testnet.Sub(z, m.y))))
}

// counts is the cost of counts.
func (m model) counts(z *gorgonia.Node) *gorgonia.Node {
	return testnet.Mean(testnet.Sub(exp(z), testnet.Hadamard(z, m.y)))
}

// outputs are what is found in a cost.
func (m model) outputs(t *testing.T, cost *gorgonia.Node) infer.Found {
	t.Helper()
	p, err := program.New([]*gorgonia.Node{cost})
	testnet.Check(t, err)
	return infer.Outputs(p, m.Params)
}

// wanted is an output that has to be found.
type wanted struct {
	family infer.Family
	node   *gorgonia.Node
}

// finds demands that exactly these outputs are found, and nothing that is unknown.
func finds(t *testing.T, found infer.Found, want ...wanted) {
	t.Helper()
	var got []wanted
	for _, o := range found.Outputs {
		got = append(got, wanted{o.Family, o.Node.Src})
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	if len(found.Unknown) > 0 {
		t.Errorf("%v is unknown", names(found.Unknown))
	}
}

func names(nodes []*program.Node) (all []string) {
	for _, n := range nodes {
		all = append(all, n.Name())
	}
	return all
}

// Each family is found, at the node that a user would declare, alone and beside each other.
func TestOutputs(t *testing.T) {
	families := []struct {
		family infer.Family
		cost   func(m model, z *gorgonia.Node) *gorgonia.Node
	}{
		{infer.Categorical, model.classes}, {infer.Bernoulli, model.bits}, {infer.SquaredError, model.squares},
		{infer.Poisson, model.counts}, {infer.AbsoluteError, model.distances},
	}
	for _, one := range families {
		m := newModel()
		finds(t, m.outputs(t, one.cost(m, m.a)), wanted{one.family, m.a})
		for _, other := range families {
			m := newModel()
			cost := testnet.Add(one.cost(m, m.a), testnet.Mul(number(0.3), other.cost(m, m.b)))
			finds(t, m.outputs(t, cost), wanted{one.family, m.a}, wanted{other.family, m.b})
		}
	}
}

// What a cost is multiplied with, what is added that has no data, and how it is summed, does not
// matter.
func TestOutputsOfRewrittenCosts(t *testing.T) {
	rewritings := map[string]func(m model, cost *gorgonia.Node) *gorgonia.Node{
		"the negative of the negative": func(_ model, c *gorgonia.Node) *gorgonia.Node {
			return testnet.Neg(testnet.Neg(c))
		},
		"a product": func(_ model, c *gorgonia.Node) *gorgonia.Node {
			return testnet.Mul(number(0.5), c)
		},
		"a quotient": func(_ model, c *gorgonia.Node) *gorgonia.Node {
			return must(gorgonia.Div(c, number(6)))
		},
		"a constant": func(_ model, c *gorgonia.Node) *gorgonia.Node {
			return testnet.Sub(testnet.Add(c, number(3)), number(1))
		},
		"a term of the targets alone": func(m model, c *gorgonia.Node) *gorgonia.Node {
			return testnet.Add(c, testnet.Sum(testnet.Hadamard(m.y, exp(m.y))))
		},
		"squares of weights": func(m model, c *gorgonia.Node) *gorgonia.Node {
			for _, w := range m.Params {
				c = testnet.Add(c, testnet.Mul(number(0.01), testnet.Sum(testnet.Square(w))))
			}
			return c
		},
		"absolute values of weights, with an input as weight": func(m model, c *gorgonia.Node) *gorgonia.Node {
			norm := testnet.Sum(must(gorgonia.Abs(m.Params[0])))
			return testnet.Add(testnet.Mul(m.Scalar("strength", 0.1), norm), c)
		},
		"a learned weight": func(m model, c *gorgonia.Node) *gorgonia.Node {
			s := m.Scalar("s", 0.1)
			m.Params = append(m.Params, s)
			return testnet.Add(testnet.Mul(exp(testnet.Neg(s)), c), s)
		},
	}
	for name, rewrite := range rewritings {
		t.Run(name, func(t *testing.T) {
			m := newModel()
			cost := rewrite(m, testnet.Add(m.classes(m.a), m.squares(m.b)))
			finds(t, m.outputs(t, cost), wanted{infer.Categorical, m.a}, wanted{infer.SquaredError, m.b})
		})
	}
}

// What is before an output is the model's, however it is written.
func TestOutputsOfModels(t *testing.T) {
	m := newModel()
	gate := testnet.Hadamard(testnet.Softplus(m.a), testnet.Sigmoid(m.b))
	finds(t, m.outputs(t, m.squares(gate)), wanted{infer.SquaredError, gate})

	m = newModel()
	p := testnet.SoftMax(m.a, 1)
	finds(t, m.outputs(t, m.squares(p)), wanted{infer.SquaredError, p})

	m = newModel()
	far := testnet.Neg(testnet.Square(testnet.Sub(m.a, m.b)))
	finds(t, m.outputs(t, m.counts(far)), wanted{infer.Poisson, far})

	// The divergence from a standard normal distribution, of a variational autoencoder.
	m = newModel()
	drawn := testnet.Add(m.a, testnet.Hadamard(m.Random("noise", 6, 3), exp(testnet.Mul(number(0.5), m.b))))
	decoded := m.Dense("decoder", drawn, 3)
	divergence := testnet.Sum(testnet.Sub(testnet.Add(testnet.Square(m.a), exp(m.b)), m.b))
	finds(t, m.outputs(t, testnet.Add(m.bits(decoded), testnet.Mul(number(0.5), divergence))),
		wanted{infer.SquaredError, m.a}, wanted{infer.Poisson, m.b}, wanted{infer.Bernoulli, decoded})
}

// Data may be constants of the graph.
func TestOutputsOfConstantData(t *testing.T) {
	for _, constant := range []string{"x", "y", "x and y"} {
		n := testnet.NewNet(5)
		leaf := func(name string, values []float64, shape ...int) *gorgonia.Node {
			if constant == name || constant == "x and y" {
				return gorgonia.NewConstant(testnet.Tensor(n.Dtype, values, shape...), gorgonia.WithName(name))
			}
			return n.Leaf(name, values, shape...)
		}
		m := model{Net: n, y: leaf("y", testnet.OneHots(n.Rng, 6, 3), 6, 3)}
		z := testnet.Mul(leaf("x", n.Normals(24), 6, 4), n.Param("w", 4, 3))
		finds(t, m.outputs(t, m.classes(z)), wanted{infer.Categorical, z})
	}
}

// A term of none of the families is unknown, and layers before it may be outputs.
func TestUnknown(t *testing.T) {
	for _, c := range []struct {
		name  string
		cost  func(m model) *gorgonia.Node
		guess bool // a is
	}{
		{"a hinge error", func(m model) *gorgonia.Node {
			return testnet.Mean(testnet.Rectify(testnet.Sub(number(1), testnet.Hadamard(m.a, m.y))))
		}, true},
		{"an output as it is", func(m model) *gorgonia.Node { return testnet.Mean(m.a) }, true},
		{"a quotient of outputs", func(m model) *gorgonia.Node {
			e := testnet.Square(testnet.Sub(m.a, m.y))
			return testnet.Mean(must(gorgonia.HadamardDiv(e, testnet.Softplus(m.b))))
		}, true},
		{"a product of outputs", func(m model) *gorgonia.Node {
			return testnet.Mean(testnet.Hadamard(m.a, m.b))
		}, true},
		{"a ratio of probabilities", func(m model) *gorgonia.Node {
			taken := testnet.Sum(testnet.Hadamard(testnet.LogSoftMax(m.a), m.y), 1)
			return testnet.Mean(testnet.Hadamard(exp(testnet.Sub(taken, m.Random("old", 6))), m.Random("advantage", 6)))
		}, true},
		{"an entropy beside a likelihood", func(m model) *gorgonia.Node {
			logs := testnet.LogSoftMax(m.a)
			return testnet.Add(m.classes(m.a), testnet.Mean(testnet.Hadamard(exp(logs), logs)))
		}, false},
		{"a logarithm of something else", func(m model) *gorgonia.Node {
			return testnet.Mean(log(testnet.Add(exp(m.a), exp(testnet.Neg(m.a)))))
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newModel()
			found := m.outputs(t, c.cost(m))
			if len(found.Unknown) == 0 {
				t.Errorf("all is known: %v", found.Outputs)
			}
			a := func(n *program.Node) bool { return n.Src == m.a }
			if slices.ContainsFunc(found.Guesses, a) != c.guess {
				t.Errorf("the guesses are %v", names(found.Guesses))
			}
		})
	}
}
