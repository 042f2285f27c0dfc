package kfac_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A bandit shows inputs, of which one of three actions is right each, and pays 1 for it.
type bandit struct {
	*testnet.Net
	advantages *gorgonia.Node // by action; 0 for those not taken
	pay        *gorgonia.Node // of each case
	old        *gorgonia.Node // logarithms of the probabilities by which the actions were taken
	rng        *rand.Rand
	paid       float64 // of a case, in the last batch
}

const bandits = 64 // cases

func newBandit(t *testing.T) *bandit {
	t.Helper()
	return newBanditOf(t, func(b *bandit) *gorgonia.Node {
		return testnet.Neg(testnet.Mean(testnet.Sum(testnet.Hadamard(testnet.LogSoftMax(b.Out), b.advantages), 1)))
	})
}

// newBanditOf is one with another cost.
func newBanditOf(t *testing.T, cost func(b *bandit) *gorgonia.Node) *bandit {
	t.Helper()
	n := testnet.NewNet(5)
	n.X = n.Random("x", bandits, 4)
	w := n.Constant("w", 0, 4, 3)
	n.Params, n.Out = gorgonia.Nodes{w}, testnet.Mul(n.X, w)
	b := &bandit{Net: n, advantages: n.Constant("advantages", 0, bandits, 3), rng: rand.New(rand.NewPCG(8, 8))}
	b.pay, b.old = n.Constant("pay", 0, bandits, 1), n.Constant("old", 0, bandits, 3)
	n.Cost = cost(b)
	n.Grad(t)
	return b
}

// play shows new inputs, takes actions by the weights, and leaves the advantages in the graph.
func (b *bandit) play() {
	x, w, a := testnet.Data(b.X), testnet.Data(b.Params[0]), testnet.Data(b.advantages)
	clear(a)
	b.paid = 0
	var taken [bandits]int
	pay := testnet.Data(b.pay)
	clear(pay)
	for i := range bandits {
		var best, right int
		high, top := -1e9, -1e9
		row := x[4*i : 4*i+4]
		for j := range row {
			row[j] = b.rng.NormFloat64()
		}
		chances := 0.0
		old := testnet.Data(b.old)[3*i : 3*i+3]
		for k := range 3 {
			z := row[0]*w[k] + row[1]*w[3+k] + row[2]*w[6+k] + row[3]*w[9+k]
			old[k], chances = z, chances+math.Exp(z)
			// The largest of logits with Gumbel noise is a sample of their softmax.
			if z -= math.Log(b.rng.ExpFloat64()); z > high {
				high, best = z, k
			}
			if row[k] > top {
				top, right = row[k], k
			}
		}
		for k := range old {
			old[k] -= math.Log(chances)
		}
		taken[i] = best
		if best == right {
			pay[i] = 1
		}
		b.paid += pay[i] / bandits
	}
	for i, k := range taken {
		a[3*i+k] = pay[i] - b.paid
	}
}

// train returns what a case is paid in the last ten batches.
func (b *bandit) train(t *testing.T, solver gorgonia.Solver, batches int) (paid float64) {
	t.Helper()
	vm := gorgonia.NewTapeMachine(b.Graph, gorgonia.BindDualValues(b.Params...))
	defer vm.Close()
	for k := range batches {
		b.play()
		if k >= batches-10 {
			paid += b.paid / 10
		}
		testnet.Check(t, vm.RunAll())
		testnet.Check(t, solver.Step(b.ValueGrads()))
		vm.Reset()
	}
	return paid
}

// REINFORCE learns what pays, from a third by chance to nine tenths, in steps that do not change
// the policy by more than they may.
func TestPolicyGradient(t *testing.T) {
	b := newBandit(t)
	farthest := 0.0
	solver, err := kfac.NewSolver(b.Cost, kfac.Policy(kfac.Categorical(b.Out)),
		kfac.WithStats(func(s kfac.Stats) { farthest = max(farthest, s.KL) }))
	testnet.Check(t, err)
	if paid := b.train(t, solver, 80); paid < 0.9 {
		t.Errorf("a case is paid %.3f", paid)
	}
	if farthest > 0.01*(1+1e-9) {
		t.Errorf("a step changes the policy by %g nats", farthest)
	}
}

// Costs of policies as people write them: the clipped ratio of PPO, actor and critic, and actions
// that are numbers.
func TestPoliciesOfThePage(t *testing.T) {
	learns := func(t *testing.T, b *bandit, dist kfac.Distribution) {
		t.Helper()
		solver, err := kfac.NewSolver(b.Cost, dist)
		testnet.Check(t, err)
		if paid := b.train(t, solver, 80); paid < 0.85 {
			t.Errorf("a case is paid %.3f", paid)
		}
	}
	t.Run("clipped ratio", func(t *testing.T) {
		b := newBanditOf(t, func(b *bandit) *gorgonia.Node {
			ratio := gorgonia.Must(gorgonia.Exp(testnet.Sub(testnet.LogSoftMax(b.Out), b.old)))
			over, under := testnet.Rectify(plus(ratio, -1.2)), testnet.Rectify(plus(testnet.Neg(ratio), 0.8))
			clipped := testnet.Add(testnet.Sub(ratio, over), under)
			worse := gorgonia.Must(gorgonia.MinBetween(testnet.Hadamard(ratio, b.advantages),
				testnet.Hadamard(clipped, b.advantages)))
			return testnet.Neg(testnet.Mean(testnet.Sum(worse, 1)))
		})
		learns(t, b, kfac.Policy(kfac.Categorical(b.Out)))
	})
	t.Run("actor and critic", func(t *testing.T) {
		var value *gorgonia.Node
		b := newBanditOf(t, func(b *bandit) *gorgonia.Node {
			w := b.Random("critic", 4, 1)
			b.Params = append(b.Params, w)
			value = testnet.Mul(b.X, w)
			logs := testnet.Hadamard(testnet.LogSoftMax(b.Out), b.advantages)
			return testnet.Sub(testnet.Mean(testnet.Square(testnet.Sub(value, b.pay))),
				testnet.Mean(testnet.Sum(logs, 1)))
		})
		learns(t, b, kfac.Joint(kfac.Policy(kfac.Categorical(b.Out)), kfac.SquaredError(value)))
	})
	t.Run("numbers", func(t *testing.T) {
		const variance, cases = 0.25, 64
		n := testnet.NewNet(5)
		n.X = n.Random("x", cases, 4)
		w := n.Constant("w", 0, 4, 1)
		n.Params, n.Out = gorgonia.Nodes{w}, testnet.Mul(n.X, w)
		action, advantage := n.Constant("action", 0, cases, 1), n.Constant("advantage", 0, cases, 1)
		far := testnet.Square(testnet.Sub(n.Out, action))
		n.Cost = times(testnet.Mean(testnet.Hadamard(far, advantage)), 1/(2*variance))
		n.Grad(t)
		solver, err := kfac.NewSolver(n.Cost, kfac.Policy(kfac.Gaussian(n.Out, variance)))
		testnet.Check(t, err)
		vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(w))
		defer vm.Close()
		rng := rand.New(rand.NewPCG(8, 8))
		play := func() { // the action that pays most is the sum of the inputs
			x, a, v := testnet.Data(n.X), testnet.Data(action), testnet.Data(advantage)
			baseline := 0.0
			for i := range cases {
				want, mean := 0.0, 0.0
				for j := range 4 {
					x[4*i+j] = rng.NormFloat64()
					want += x[4*i+j]
					mean += x[4*i+j] * testnet.Data(w)[j]
				}
				a[i] = mean + math.Sqrt(variance)*rng.NormFloat64()
				v[i] = -(a[i] - want) * (a[i] - want)
				baseline += v[i] / cases
			}
			for i := range v {
				v[i] -= baseline
			}
		}
		for range 200 {
			play()
			testnet.Check(t, vm.RunAll())
			testnet.Check(t, solver.Step(n.ValueGrads()))
			vm.Reset()
		}
		for i, v := range testnet.Data(w) {
			if math.Abs(v-1) > 0.2 {
				t.Errorf("weight %d is %.3f, 1 pays most", i, v)
			}
		}
	})
}

// Without the declaration such a cost is refused, and taken where there is no check.
func TestWithoutLossCheck(t *testing.T) {
	b := newBandit(t)
	b.play()
	vm := gorgonia.NewTapeMachine(b.Graph, gorgonia.BindDualValues(b.Params...))
	defer vm.Close()
	testnet.Check(t, vm.RunAll())
	solver, err := kfac.NewSolver(b.Cost, kfac.Categorical(b.Out))
	testnet.Check(t, err)
	if err := solver.Step(b.ValueGrads()); !errors.Is(err, kfac.ErrLoss) {
		t.Errorf("error %v", err)
	}
	solver, err = kfac.NewSolver(b.Cost, kfac.Categorical(b.Out), kfac.WithoutLossCheck())
	testnet.Check(t, err)
	testnet.Check(t, solver.Step(b.ValueGrads()))
}

// Where the cost is the likelihood, a policy is trained as what it is, at a learning rate. Without
// one it takes steps of the same length, where the model finds another.
func TestPolicyOfLikelihood(t *testing.T) {
	rate := kfac.WithLearningRate(0.5)
	weights := func(declare func(n *testnet.Net) kfac.Distribution, opts ...kfac.Option) []float64 {
		n := testnet.NewMLP[float64](1, testnet.Shape{Cases: 32, Widths: []int{4, 5, 3}}, testnet.CrossEntropy)
		n.Grad(t)
		solver, err := kfac.NewSolver(n.Cost, declare(n), append(opts, kfac.WithNormConstraint(0.02))...)
		testnet.Check(t, err)
		costAfter(t, n, solver, 6)
		return testnet.Weights(n.Params)
	}
	plain := func(n *testnet.Net) kfac.Distribution { return kfac.Categorical(n.Out) }
	policy := func(n *testnet.Net) kfac.Distribution { return kfac.Policy(kfac.Categorical(n.Out)) }
	testnet.Near(t, "by Policy", weights(policy, rate), weights(plain, rate), 1e-9)
	if !slices.Equal(weights(plain), weights(plain, kfac.WithoutLossCheck())) {
		t.Error("without the loss check the steps are others")
	}
}

// The unit of the payments means nothing: a policy is trained by the same steps in any.
func TestPolicyInAnyUnit(t *testing.T) {
	weights := func(unit float64) []float64 {
		b := newBandit(t)
		solver, err := kfac.NewSolver(b.Cost, kfac.Policy(kfac.Categorical(b.Out)))
		testnet.Check(t, err)
		vm := gorgonia.NewTapeMachine(b.Graph, gorgonia.BindDualValues(b.Params...))
		defer vm.Close()
		for range 12 {
			b.play()
			for i := range testnet.Data(b.advantages) {
				testnet.Data(b.advantages)[i] *= unit
			}
			testnet.Check(t, vm.RunAll())
			testnet.Check(t, solver.Step(b.ValueGrads()))
			vm.Reset()
		}
		return testnet.Weights(b.Params)
	}
	want := weights(1)
	for _, unit := range []float64{1e-6, 0.1, 1000} {
		testnet.Near(t, "the weights", weights(unit), want, 1e-9)
	}
}
