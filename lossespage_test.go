package kfac_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// pageLosses are the rows of the table of docs/losses.md, by their first column, each with the
// losses that TestLossesTrain trains for it. Those of policies have no fixed batch to compare on:
// TestPolicyGradient and TestPoliciesOfThePage play them.
var pageLosses = map[string][]string{
	"`-mean(log softmax(z) * y)`, one-hot `y` or probabilities": {"classes", "classes, of the node of LogSoftMax"},
	"the same at positions, `z` of shape (B, T, K)":             {"classes at positions"},
	"the same with the classes along another axis, such as the channels (B, K, H, W) of an image": {
		"classes along channels"},
	"the same with classes as indices: `LogSoftMax(z)` looked up, by `ByIndices`": {"classes as indices"},
	"the same with K-1 logits, joined with a 0 by `Concat`":                       {"one logit less"},
	"labels that sum to another number, class weights, padded positions of weight 0": {"soft labels that sum to two",
		"class weights", "padded positions"},
	"`-mean(y log sigmoid(z) + (1-y) log(1 - sigmoid(z)))`": {"bits"},
	"the same with a weight of the positive class":          {"weight of the positive class"},
	"`mean((z-y)^2)`": {"squared error"},
	"the same, with a weight for each case or output, or a mask of missing targets": {
		"weights of outputs, missing targets"},
	"`mean((z-y)^2)`, the variance of the targets known": {"squared error of known variance"},
	"`mean(s + (m-y)^2 / exp(s))`: the variance is predicted too": {"mean and variance",
		"mean and variance of one number"},
	"`mean(abs(z-y))`":                                                 {"absolute error of unknown scale"},
	"the same, the scale of the targets known":                         {"absolute error"},
	"`mean(log(1 + (z-y)^2 / (f s^2)))`: outliers":                     {"Student's t"},
	"`mean(exp(z) - y z)`: counts":                                     {"counts"},
	"`mean((y+r) log(1 + exp(z)/r) - y z)`: counts of larger variance": {"counts of larger variance"},
	"the negative log-likelihood of another distribution":              {"a distribution of the user's"},
	"a sum of these, for several outputs":                              {"two heads"},
	"`-mean(log pi(a) * advantage)`, and the clipped ratio of PPO":     nil,
	"actor and critic":                                                 nil,
	"Huber, log-cosh, squared hinge, focal, softmax or sigmoid by hand: any loss that is smooth where it counts": {
		"Huber", "log-cosh", "squared hinge", "focal", "softmax by hand", "sigmoid by hand"},
	"hinge, quantile, triplet: losses of straight pieces":    {"hinge", "quantile", "triplet"},
	"`sqrt(mean((z-y)^2))`":                                  {"root mean square"},
	"cosine, Dice, focal: losses that are not convex in `z`": {"cosine", "Dice", "focal"},
	"of several outputs together, such as a mean and a standard deviation, or an anchor and its pair": {
		"mean and logarithm of a deviation", "pairs"},
	"another function of an output that predicts classes, numbers, counts": {"without the loss check"},
}

// slicesOf makes a loss of parts of the output, which end at these columns.
func slicesOf(ends []int, cost func(s *testnet.Sketch, parts []*gorgonia.Node) *gorgonia.Node,
	declare func(parts []*gorgonia.Node) kfac.Distribution) lossCase {
	var parts []*gorgonia.Node
	return lossCase{
		cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
			parts = nil
			from := 0
			for _, to := range ends {
				parts = append(parts, gorgonia.Must(gorgonia.Slice(z, nil, gorgonia.S(from, to))))
				from = to
			}
			return cost(s, parts)
		},
		declare: func(*gorgonia.Node) kfac.Distribution { return declare(parts) },
		outputs: []int{ends[len(ends)-1]},
	}
}

// ofNode makes a loss that is declared at a node of its own.
func ofNode(cost func(s *testnet.Sketch, z *gorgonia.Node) (cost, declared *gorgonia.Node),
	outputs ...int) lossCase {
	var at *gorgonia.Node
	return lossCase{
		cost: func(s *testnet.Sketch, z *gorgonia.Node) (c *gorgonia.Node) {
			c, at = cost(s, z)
			return c
		},
		declare: func(*gorgonia.Node) kfac.Distribution { return kfac.Categorical(at) },
		outputs: outputs, smooth: true,
	}
}

func init() {
	logs := func(z *gorgonia.Node) *gorgonia.Node { return testnet.LogSoftMax(z) }
	oneHot := func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		return s.Leaf("y", testnet.OneHots(s.Rng, z.Shape()[0], z.Shape()[1]), z.Shape()...)
	}
	entropy := func(s *testnet.Sketch, logs *gorgonia.Node) *gorgonia.Node {
		return testnet.Neg(mean(sum(testnet.Hadamard(logs, oneHot(s, logs)), 1)))
	}
	plain := func(declare func(z *gorgonia.Node) kfac.Distribution,
		cost func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node) lossCase {
		return lossCase{cost: cost, declare: declare, smooth: true}
	}
	lossCases["classes"] = plain(kfac.Categorical, func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		return entropy(s, logs(z))
	})
	lossCases["classes, of the node of LogSoftMax"] = ofNode(func(s *testnet.Sketch,
		z *gorgonia.Node) (cost, declared *gorgonia.Node) {
		l := logs(z)
		return entropy(s, l), l
	})
	lossCases["classes along channels"] = ofNode(func(s *testnet.Sketch,
		z *gorgonia.Node) (cost, declared *gorgonia.Node) {
		l := gorgonia.Must(gorgonia.LogSoftMax(z, 1))
		b, k := z.Shape()[0], z.Shape()[1]
		y := s.Leaf("y", testnet.OneHots(s.Rng, b*4, k), b, 2, 2, k)
		return testnet.Neg(mean(testnet.Hadamard(l, gorgonia.Must(gorgonia.Transpose(y, 0, 3, 1, 2))))), l
	}, 3, 2, 2)
	lossCases["classes as indices"] = plain(kfac.Categorical, func(s *testnet.Sketch,
		z *gorgonia.Node) *gorgonia.Node {
		cases, k := z.Shape()[0], z.Shape()[1]
		places := make([]int, cases)
		for i := range places {
			places[i] = k*i + s.Rng.IntN(k)
		}
		flat := testnet.Reshape(logs(z), cases*k, 1)
		return testnet.Neg(mean(gorgonia.Must(gorgonia.ByIndices(flat, s.Words("places", places...), 0))))
	})
	lossCases["one logit less"] = ofNode(func(s *testnet.Sketch,
		z *gorgonia.Node) (cost, declared *gorgonia.Node) {
		joined := gorgonia.Must(gorgonia.Concat(1, z, s.Constant("none", 0, z.Shape()[0], 1)))
		return entropy(s, logs(joined)), joined
	})
	lossCases["bits"] = plain(kfac.Bernoulli, func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		return mean(gorgonia.Must(gorgonia.BinaryXent(testnet.Sigmoid(z), bits01(s, z))))
	})
	lossCases["squared error"] = plain(kfac.SquaredError, squaredError)
	lossCases["squared error of known variance"] = plain(func(z *gorgonia.Node) kfac.Distribution {
		return kfac.Gaussian(z, 0.5)
	}, squaredError)
	lossCases["a distribution of the user's"] = lossCase{cost: lossCases["counts"].cost,
		declare: func(z *gorgonia.Node) kfac.Distribution { return kfac.Custom(z, essential{likelihood.Poisson{}}) }}
	lossCases["two heads"] = slicesOf([]int{3, 5}, func(s *testnet.Sketch, parts []*gorgonia.Node) *gorgonia.Node {
		squares := mean(testnet.Square(testnet.Sub(parts[1], s.Random("t", parts[1].Shape()...))))
		return testnet.Add(entropy(s, logs(parts[0])), squares)
	}, func(parts []*gorgonia.Node) kfac.Distribution {
		return kfac.Joint(kfac.Categorical(parts[0]), kfac.SquaredError(parts[1]))
	})
	together := func(parts []*gorgonia.Node) kfac.Distribution { return kfac.GaussNewton(parts...) }
	lossCases["mean and logarithm of a deviation"] = slicesOf([]int{1, 2}, func(s *testnet.Sketch,
		parts []*gorgonia.Node) *gorgonia.Node {
		e := testnet.Sub(parts[0], s.Random("y", parts[0].Shape()...))
		far := testnet.Hadamard(e, gorgonia.Must(gorgonia.Exp(testnet.Neg(parts[1]))))
		return mean(testnet.Add(times(testnet.Square(far), 0.5), parts[1]))
	}, together)
	lossCases["pairs"] = slicesOf([]int{2, 4}, func(s *testnet.Sketch, parts []*gorgonia.Node) *gorgonia.Node {
		// Near where they are alike, and at least 1 apart where not: a contrastive loss.
		far := sum(testnet.Square(testnet.Sub(parts[0], parts[1])), 1)
		alike := bits01(s, far)
		near := testnet.Hadamard(alike, far)
		apart := testnet.Hadamard(testnet.Sub(gorgonia.NewConstant(1.0), alike),
			testnet.Square(testnet.Rectify(plus(testnet.Neg(gorgonia.Must(gorgonia.Sqrt(plus(far, 1e-3)))), 1))))
		return mean(testnet.Add(near, apart))
	}, together)
	// Certainty is rewarded too.
	unchecked := plain(kfac.Categorical, func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		l := logs(z)
		entropy := entropy(s, l)
		certainty := mean(sum(testnet.Hadamard(gorgonia.Must(gorgonia.Exp(l)), l), 1))
		return testnet.Sub(entropy, times(certainty, 0.1))
	})
	unchecked.smooth, unchecked.opts = false, []kfac.Option{kfac.WithoutLossCheck()}
	lossCases["without the loss check"] = unchecked
}

// Each row of the page is a loss that the tests train, declared as the row says.
func TestLossesOfThePage(t *testing.T) {
	page, err := os.ReadFile("docs/losses.md")
	testnet.Check(t, err)
	_, table, _ := strings.Cut(string(page), "| --- | --- | --- |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	declared := regexp.MustCompile(`(?m)^loss: +(\w+)`)
	seen := 0
	for row := range strings.Lines(table) {
		cells := strings.Split(row, " | ")
		loss := strings.TrimPrefix(cells[0], "| ")
		names, ok := pageLosses[loss]
		if !ok {
			t.Errorf("no test trains %q", loss)
		}
		seen++
		for _, name := range names {
			l, ok := lossCases[name]
			if !ok {
				t.Errorf("%q has no loss %q", loss, name)
				continue
			}
			n, z := lossNet(t, l)
			solver, err := kfac.NewSolver(n.Cost, l.declare(z), l.opts...)
			testnet.Check(t, err)
			found := declared.FindAllStringSubmatch(solver.Plan().String(), -1)
			kind := found[0][1]
			for _, f := range found {
				if f[1] != kind {
					kind = "Joint"
				}
			}
			if !strings.Contains(cells[1], kind+"(") && !strings.Contains(cells[1], "`"+kind+"`") &&
				!strings.Contains(cells[1], "any declaration") {
				t.Errorf("%q is declared as %s, the page has %q", name, kind, cells[1])
			}
		}
	}
	if seen != len(pageLosses) {
		t.Errorf("the page has %d losses, the tests %d", seen, len(pageLosses))
	}
}
