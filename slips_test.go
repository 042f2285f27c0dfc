package kfac_test

import (
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// Each slip in a cost, or in what is declared, is told for what it is, with its remedy.
func TestSlipsOfCosts(t *testing.T) {
	log := func(n *gorgonia.Node) *gorgonia.Node { return node(gorgonia.Log(n)) }
	laplace := func(z *gorgonia.Node) kfac.Distribution { return kfac.Laplace(z, 2) }
	distance := func(d draft) *gorgonia.Node { return testnet.Mean(node(gorgonia.Abs(testnet.Sub(d.z, d.y)))) }
	squares := func(d draft) *gorgonia.Node { return testnet.Mean(testnet.Square(testnet.Sub(d.z, d.y))) }
	bits := func(d draft) *gorgonia.Node { return testnet.Mean(d.bits(testnet.Sigmoid(d.z), d.y)) }
	for _, c := range []struct {
		name    string
		declare func(z *gorgonia.Node) kfac.Distribution
		cost    func(d draft) *gorgonia.Node
		words   []string
	}{
		{"no logarithm", kfac.Categorical, func(d draft) *gorgonia.Node {
			return testnet.Neg(testnet.Mean(testnet.Hadamard(node(gorgonia.SoftMax(d.z)), d.y)))
		}, []string{"a logarithm is missing", "kfac.Policy"}},
		{"no logarithm, of bits", kfac.Bernoulli, func(d draft) *gorgonia.Node {
			return testnet.Neg(testnet.Mean(testnet.Hadamard(testnet.Sigmoid(d.z), d.y)))
		}, []string{"a logarithm is missing"}},
		{"a sign", kfac.SquaredError, func(d draft) *gorgonia.Node { return testnet.Neg(squares(d)) },
			[]string{"minus what it should be", "Neg"}},
		{"a sign, of distances", laplace, func(d draft) *gorgonia.Node { return testnet.Neg(distance(d)) },
			[]string{"minus what it should be"}},
		{"a generator", kfac.Bernoulli, func(d draft) *gorgonia.Node {
			return testnet.Mean(log(testnet.Sub(d.number(1), testnet.Sigmoid(d.z))))
		}, []string{"Log(1 - D)", "minimise -Log(D)"}},
		{"a softmax over the cases", kfac.Categorical, func(d draft) *gorgonia.Node {
			return d.classes(node(gorgonia.LogSoftMax(d.z, 0)))
		}, []string{"over another axis", "over its cases"}},
		{"a softmax over channels", func(z *gorgonia.Node) kfac.Distribution {
			return kfac.Categorical(z.Graph().ByName("image")[0])
		}, func(d draft) *gorgonia.Node {
			z := testnet.Reshape(d.z, 12, 2, 2)
			gorgonia.WithName("image")(z)
			y := node(gorgonia.Transpose(d.Leaf("t", testnet.OneHots(d.Rng, 24, 2), 12, 2, 2), 0, 2, 1))
			return testnet.Neg(testnet.Mean(testnet.Hadamard(node(gorgonia.LogSoftMax(z, 1)), y)))
		}, []string{"than the last, axis 1", "kfac.Categorical of the node"}},
		{"weights of either sign", kfac.SquaredError, func(d draft) *gorgonia.Node {
			return testnet.Mean(testnet.Hadamard(d.Random("w", 12, 4), testnet.Square(testnet.Sub(d.z, d.y))))
		}, []string{"weights from -", "a mask", "Policy"}},
		{"weights, and impossible targets", kfac.Bernoulli, func(d draft) *gorgonia.Node {
			y := testnet.Hadamard(d.number(3), d.y)
			each := testnet.Sub(testnet.Softplus(d.z), testnet.Hadamard(y, d.z))
			return testnet.Mean(node(gorgonia.BroadcastHadamardProd(each, d.Leaf("w", pattern(12, 1, 4), 12, 1), nil,
				[]byte{1})))
		}, []string{"weights from", "to 0.08", "[0, 1]", "Weighted"}},
		{"the root of squares", kfac.SquaredError, func(d draft) *gorgonia.Node {
			return node(gorgonia.Sqrt(squares(d)))
		}, []string{"root"}},
		{"the root of a likelihood", kfac.Bernoulli, func(d draft) *gorgonia.Node {
			return node(gorgonia.Sqrt(bits(d)))
		}, []string{"root"}},
		{"squares, declared as classes", kfac.Categorical, squares, []string{"declare kfac.SquaredError"}},
		{"squares, declared as distances", laplace, squares, []string{"declare kfac.SquaredError"}},
		{"squares, declared as of heavy tails", func(z *gorgonia.Node) kfac.Distribution {
			return kfac.StudentT(z, 3, 1)
		}, squares, []string{"declare kfac.SquaredError"}},
		{"bits, declared as squares", kfac.SquaredError, bits, []string{"declare kfac.Bernoulli"}},
		{"classes, declared as bits", kfac.Bernoulli, func(d draft) *gorgonia.Node {
			return d.classes(testnet.LogSoftMax(d.z))
		}, []string{"declare kfac.Categorical"}},
		{"distances, declared as squares", kfac.SquaredError, distance, []string{"declare kfac.AbsoluteError"}},
		{"counts, declared as squares", kfac.SquaredError, func(d draft) *gorgonia.Node {
			return testnet.Mean(testnet.Sub(node(gorgonia.Exp(d.z)), testnet.Hadamard(d.y, d.z)))
		}, []string{"that of counts", "kfac.Poisson"}},
		{"squares of probabilities", kfac.Categorical, func(d draft) *gorgonia.Node {
			return testnet.Mean(testnet.Square(testnet.Sub(node(gorgonia.SoftMax(d.z)), d.y)))
		}, []string{"kfac.SquaredError of the node of the probabilities"}},
		{"heavy tails of another scale", func(z *gorgonia.Node) kfac.Distribution { return kfac.StudentT(z, 3, 1) },
			func(d draft) *gorgonia.Node {
				return testnet.Mean(node(gorgonia.Log1p(testnet.Square(testnet.Sub(d.z, d.y)))))
			}, []string{"log(1 + (z-y)^2/3)"}},
		{"a logarithm of a standard deviation", func(z *gorgonia.Node) kfac.Distribution {
			return kfac.Heteroscedastic(z, z.Graph().ByName("s")[0])
		}, func(d draft) *gorgonia.Node {
			s := d.Dense("3", d.z, 4)
			gorgonia.WithName("s")(s)
			e := node(gorgonia.HadamardDiv(testnet.Sub(d.z, d.y), node(gorgonia.Exp(s))))
			return testnet.Mean(testnet.Add(testnet.Hadamard(d.number(0.5), testnet.Square(e)), s))
		}, []string{"s + (m-y)^2 / exp(s)", "standard deviation", "GaussNewton"}},
		{"a SoftMax that Log has changed", kfac.Categorical, func(d draft) *gorgonia.Node {
			p := node(gorgonia.SoftMax(d.z))
			return testnet.Mean(d.bits(p, d.y))
		}, []string{"is a logarithm already", "in place", "Exp"}},
		{"a SoftMax that Log has changed, of products", kfac.Categorical, func(d draft) *gorgonia.Node {
			p := node(gorgonia.SoftMax(d.z))
			node(gorgonia.Log(p))
			return testnet.Neg(testnet.Mean(log(testnet.Sum(testnet.Hadamard(p, d.y), 1))))
		}, []string{"is a logarithm already", "in place", "Exp"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDraft[float64]()
			d.Cost = c.cost(d)
			solver, err := kfac.NewSolver(d.Cost, c.declare(d.z))
			testnet.Check(t, err)
			tr := &kfac.Trainer{Net: d.Net, Run: testnet.Machines["BindDualValues"](t, d.Net), Solver: solver}
			before := testnet.Weights(d.Params)
			refused(t, tr.Try(), kfac.ErrLoss, c.words...)
			testnet.SameBits(t, "weights", testnet.Weights(d.Params), before)
		})
	}
}

// A sigmoid that has rounded to 1 makes the logarithm of 0, which the error names, with what to
// write in its place.
func TestSigmoidThatRounds(t *testing.T) {
	d := newDraft[float64]()
	far := testnet.Hadamard(d.number(1e4), d.z)
	gorgonia.UseNonStable()
	d.Cost = testnet.Neg(testnet.Mean(node(gorgonia.Log(testnet.Sub(d.number(1), testnet.Sigmoid(far))))))
	gorgonia.UseStabilization()
	solver, err := kfac.NewSolver(d.Cost, kfac.Bernoulli(far))
	testnet.Check(t, err)
	tr := &kfac.Trainer{Net: d.Net, Run: testnet.Machines["BindDualValues"](t, d.Net), Solver: solver}
	refused(t, tr.Try(), kfac.ErrNotFinite, "rounded to 0", "Neg(Softplus(z))")
}

// pattern repeats some numbers.
func pattern(n int, of ...float64) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = of[i%len(of)]
	}
	return x
}
