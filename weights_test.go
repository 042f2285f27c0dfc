package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// weightedNet is a classifier whose cost is a sum over cases, each times its weight. Cases of the
// weight 0 have inputs and targets of their own.
func weightedNet(weights []float64, declare bool) (*testnet.Net, Distribution) {
	n := testnet.NewNet(3)
	x, y, names := []float64{}, []float64{}, 0
	for i, w := range weights {
		rng := rand.New(rand.NewPCG(1, uint64(names)))
		if w == 0 {
			rng = rand.New(rand.NewPCG(2, uint64(i)))
		} else {
			names++
		}
		x = append(x, testnet.Normals(rng, 3, 1)...)
		y = append(y, testnet.OneHots(rng, 1, 3)...)
	}
	n.X = n.Leaf("x", x, len(weights), 3)
	w := n.Random("w", 3, 3)
	n.Params, n.Out = gorgonia.Nodes{w}, testnet.Mul(n.X, w)
	perCase := n.Leaf("weights", weights, len(weights))
	logs := testnet.Sum(testnet.Hadamard(testnet.LogSoftMax(n.Out), n.Leaf("y", y, len(weights), 3)), 1)
	n.Cost = testnet.Neg(testnet.Sum(testnet.Hadamard(logs, perCase)))
	if declare {
		return n, Weighted(Categorical(n.Out), perCase)
	}
	return n, Categorical(n.Out)
}

// weightsAfter returns the parameters after some steps, with targets that are no chance.
func weightsAfter(t *testing.T, n *testnet.Net, d Distribution, steps int) ([]float64, Stats) {
	t.Helper()
	n.Grad(t)
	s, err := NewSolver(n.Cost, d)
	testnet.Check(t, err)
	s.engine.(*training[float64]).sampler.draw = func(o *output, _ *rand.Rand) {
		for i := 0; i < len(o.z); i += o.cols {
			row := o.y[i : i+o.cols]
			clear(row)
			row[int(1e4*math.Abs(o.z[i]))%o.cols] = 1
		}
	}
	vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
	defer vm.Close()
	for range steps {
		testnet.Check(t, vm.RunAll())
		testnet.Check(t, s.Step(n.ValueGrads()))
		vm.Reset()
	}
	return testnet.Weights(n.Params), s.Stats()
}

// A case of weight 0 counts nowhere, and weights may be in any scale.
func TestCasesOfNoWeight(t *testing.T) {
	plain, without := weightedNet(slices.Repeat([]float64{1}, 20), false)
	want, stats := weightsAfter(t, plain, without, 8)
	padded := []float64{}
	for i := range 20 {
		padded = append(padded, 3)
		padded = append(padded, slices.Repeat([]float64{0}, i%3)...)
	}
	for _, declare := range []bool{false, true} {
		n, d := weightedNet(padded, declare)
		got, padStats := weightsAfter(t, n, d, 8)
		testnet.Near(t, fmt.Sprint("weights, declared: ", declare), got, want, 1e-9)
		if padStats.Cases != stats.Cases {
			t.Errorf("%d cases, want %d", padStats.Cases, stats.Cases)
		}
	}
}

// The mean of the weights that are not 0 is 1.
func TestUnitsOfWeights(t *testing.T) {
	n, d := weightedNet([]float64{1, 2, 0, 3}, true)
	c := startedWith(t, n, d)
	w := c.graph.units.entries[0]
	testnet.Near(t, "weights", []float64{w[0], w[3], w[6], w[9]}, []float64{0.5, 1, 0, 1.5}, 1e-12)
	testnet.Near(t, "scale", []float64{c.graph.scale()}, []float64{2}, 1e-12)
	if got := c.graph.units.cases; !slices.Equal(got, []int{0, 1, 3}) {
		t.Errorf("cases %v count", got)
	}
}

// startedWith is a training that has measured the units of its cost.
func startedWith(t *testing.T, n *testnet.Net, d Distribution) *training[float64] {
	t.Helper()
	s, err := NewSolver(n.Cost, d, WithoutGradientCheck())
	testnet.Check(t, err)
	c := s.engine.(*training[float64])
	testnet.Check(t, c.replan(n.Params))
	_, err = c.check(&chunk[float64]{})
	testnet.Check(t, err)
	return c
}

func TestRefusedWeights(t *testing.T) {
	other := func(n *testnet.Net) Distribution {
		return Weighted(Categorical(n.Out), n.Leaf("other", []float64{1, 2, 3, 4}, 4))
	}
	undeclared := func(n *testnet.Net) Distribution { return Categorical(n.Out) }
	squared := func(n *testnet.Net) Distribution {
		w := n.Graph.ByName("weights")[0]
		logs := testnet.Sum(testnet.Hadamard(testnet.LogSoftMax(n.Out), n.Graph.ByName("y")[0]), 1)
		n.Cost = testnet.Neg(testnet.Sum(testnet.Hadamard(testnet.Hadamard(logs, w), w)))
		return Weighted(Categorical(n.Out), w)
	}
	for what, c := range map[string]struct {
		weights []float64
		declare func(n *testnet.Net) Distribution // nil: not, then the cost's
		want    string
	}{
		"negative":            {[]float64{1, 1, -1, 1}, nil, "weights that are at least 0"},
		"negative, found":     {[]float64{1, 1, -1, 1}, undeclared, "weights from -1 to 1"},
		"no part of the cost": {[]float64{1, 1, 1, 1}, other, "looking for the weights"},
		"squared in the cost": {[]float64{1, 2, 3, 4}, squared, "a cost with the weights that were declared"},
	} {
		n, d := weightedNet(c.weights, true)
		if c.declare != nil {
			d = c.declare(n)
		}
		n.Grad(t)
		s, err := NewSolver(n.Cost, d)
		testnet.Check(t, err)
		vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
		testnet.Check(t, vm.RunAll())
		err = s.Step(n.ValueGrads())
		vm.Close()
		if !errors.Is(err, ErrLoss) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}
