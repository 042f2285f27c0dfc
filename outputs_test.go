package kfac

import (
	"math"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A perceptron of 32 cases and 12 outputs, whose cost is made by finish.
func perceptronOf[T testnet.Float](finish func(n *testnet.Net, z *gorgonia.Node)) *testnet.Net {
	n := &testnet.Net{Sketch: testnet.NewSketchOf[T](5, 5)}
	n.X = n.Random("x", 32, 4)
	finish(n, n.Dense("2", testnet.Tanh(n.Dense("1", n.X, 6)), 12))
	return n
}

// trainedBy trains a net for some updates, on Gorgonia's VM or on the solver's own.
func trainedBy(t *testing.T, n *testnet.Net, d Distribution, own bool) []float64 {
	t.Helper()
	n.Grad(t)
	s, err := NewSolver(n.Cost, d)
	testnet.Check(t, err)
	run := testnet.DualTape(n)
	if own {
		run = ownMachine(t, s)
	}
	(&Trainer{Net: n, Run: run, Solver: s}).Steps(t, 6)
	return testnet.Weights(n.Params)
}

func crossEntropyOf(logs, y *gorgonia.Node) *gorgonia.Node {
	return testnet.Neg(testnet.Mean(testnet.Hadamard(logs, y)))
}

// Classes along another axis than the last are those of a model that moves them there.
func TestClassesAlongAnotherAxis(t *testing.T) {
	var weights [3][]float64
	for i := range weights {
		var d Distribution
		n := perceptronOf[float64](func(n *testnet.Net, z *gorgonia.Node) {
			z = testnet.Reshape(z, 32, 3, 2, 2)
			y := n.Leaf("y", testnet.OneHots(n.Rng, 32*4, 3), 32, 2, 2, 3)
			turn := func(z *gorgonia.Node, axes ...int) *gorgonia.Node {
				return gorgonia.Must(gorgonia.Transpose(z, axes...))
			}
			if i == 0 {
				z = turn(z, 0, 2, 3, 1)
				d, n.Cost = Categorical(z), crossEntropyOf(gorgonia.Must(gorgonia.LogSoftMax(z, 3)), y)
				return
			}
			logs := gorgonia.Must(gorgonia.LogSoftMax(z, 1))
			d, n.Cost = Categorical(logs), crossEntropyOf(logs, turn(y, 0, 3, 1, 2))
		})
		weights[i] = trainedBy(t, n, d, i == 2)
	}
	testnet.Near(t, "weights", weights[1], weights[0], 1e-9)
	testnet.Near(t, "weights on the solver's VM", weights[2], weights[0], 1e-9)
}

// Two outputs with one distribution are the halves of a row.
func TestOutputsSideBySide(t *testing.T) {
	for _, layers := range []bool{false, true} {
		var weights [3][]float64
		for i := range weights {
			var d Distribution
			n := perceptronOf[float64](func(n *testnet.Net, z *gorgonia.Node) {
				half := func(k int) *gorgonia.Node {
					return gorgonia.Must(gorgonia.Slice(z, nil, gorgonia.S(6*k, 6*k+6)))
				}
				m, s := half(0), half(1)
				if layers { // of these the halves are joined
					m, s = n.Dense("m", z, 6), n.Dense("s", z, 6)
					z = gorgonia.Must(gorgonia.Concat(1, m, s))
				}
				if d = Heteroscedastic(m, s); i == 0 {
					if d = Custom(z, likelihood.Heteroscedastic{}); layers {
						m, s = half(0), half(1)
					}
				}
				e := testnet.Square(testnet.Sub(m, n.Random("y", 32, 6)))
				n.Cost = testnet.Mean(testnet.Add(s, testnet.Hadamard(e, gorgonia.Must(gorgonia.Exp(testnet.Neg(s))))))
			})
			weights[i] = trainedBy(t, n, d, i == 2)
		}
		testnet.Near(t, "weights", weights[1], weights[0], 1e-9)
		testnet.Near(t, "weights on the solver's VM", weights[2], weights[0], 1e-9)
	}
}

// The unit of absolute errors is their mean, each with its weight, of the cases that are asked
// about, whatever else the cost has.
func TestMeanDistance(t *testing.T) {
	t.Run("float64", func(t *testing.T) { testMeanDistance[float64](t, 1e-9) })
	t.Run("float32", func(t *testing.T) { testMeanDistance[float32](t, 1e-4) })
}

func testMeanDistance[T testnet.Float](t *testing.T, tolerance float64) {
	for _, unit := range []float64{1e-3, 1, 1e3} {
		n := perceptronOf[T](func(n *testnet.Net, z *gorgonia.Node) {
			n.Out = z
			n.Y = n.Scaled("y", unit, 32, 12)
			w := n.Leaf("weights", pattern(32, 0, 1, 3), 32, 1)
			e := gorgonia.Must(gorgonia.Abs(testnet.Sub(z, n.Y)))
			n.Cost = testnet.Mean(gorgonia.Must(gorgonia.BroadcastHadamardProd(e, w, nil, []byte{1})))
			n.Cost = testnet.Add(n.Cost, testnet.Sum(testnet.Square(n.Params[0])))
		})
		n.Grad(t)
		s, err := NewSolver(n.Cost, AbsoluteError(n.Out), WithoutGradientCheck())
		testnet.Check(t, err)
		c := s.engine.(*training[T])
		testnet.Check(t, c.replan(n.Params))
		_, err = c.check(&chunk[T]{})
		testnet.Check(t, err)
		m := c.plan.model
		for _, rows := range [][]int{nil, {1, 4, 5, 20}} {
			testnet.Check(t, m.forward(conditions[T]{}, rows))
			z, y := make([]float64, len(m.outputs[0].z)), testnet.Numbers(n.Y.Value())
			copy(z, m.outputs[0].z)
			var sum, weight float64
			for i := range z {
				row := i / 12
				if rows != nil {
					row = rows[row]
				}
				w := []float64{0, 1, 3}[row%3]
				sum, weight = sum+w*math.Abs(z[i]-y[row*12+i%12]), weight+w
			}
			found, err := c.graph.variances(m, rows)
			testnet.Check(t, err)
			testnet.Near(t, "mean distance", []float64{math.Sqrt(found[0].value())}, []float64{sum / weight}, tolerance)
		}
	}
}

// pattern repeats some numbers.
func pattern(n int, of ...float64) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = of[i%len(of)]
	}
	return x
}
