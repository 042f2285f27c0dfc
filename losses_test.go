package kfac_test

import (
	"math"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A lossCase is a loss as people write it, with its declaration.
type lossCase struct {
	cost    func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node
	declare func(z *gorgonia.Node) kfac.Distribution
	outputs []int // shape of a case's output; nil: (3)
	smooth  bool  // and convex: half of the updates are enough
	opts    []kfac.Option
}

func mean(n *gorgonia.Node) *gorgonia.Node { return gorgonia.Must(gorgonia.Mean(n)) }

// counts are Poisson targets, whose rates depend on the inputs.
func counts(s *testnet.Sketch, shape ...int) []float64 {
	y := make([]float64, tensor.Shape(shape).TotalSize())
	for i := range y {
		for left := math.Exp(1 + s.Rng.NormFloat64()/2); left > 0; left -= s.Rng.ExpFloat64() {
			y[i]++
		}
	}
	return y
}

var lossCases = map[string]lossCase{
	"counts": {
		cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
			y := s.Leaf("y", counts(s, z.Shape()...), z.Shape()...)
			return mean(testnet.Sub(gorgonia.Must(gorgonia.Exp(z)), testnet.Hadamard(y, z)))
		},
		declare: kfac.Poisson,
	},
	"absolute error": {
		cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
			return mean(gorgonia.Must(gorgonia.Abs(testnet.Sub(z, s.Random("y", z.Shape()...)))))
		},
		declare: func(z *gorgonia.Node) kfac.Distribution { return kfac.Laplace(z, 0.5) },
	},
	"absolute error of unknown scale": {
		cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
			return mean(gorgonia.Must(gorgonia.Abs(testnet.Sub(z, s.Random("y", z.Shape()...)))))
		},
		declare: kfac.AbsoluteError,
	},
	"classes at positions": {
		cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
			rows := z.Shape()[0] * z.Shape()[1]
			y := s.Leaf("y", testnet.OneHots(s.Rng, rows, z.Shape()[2]), z.Shape()...)
			logs := gorgonia.Must(gorgonia.Log(gorgonia.Must(gorgonia.SoftMax(z, 2))))
			return gorgonia.Must(gorgonia.Neg(mean(testnet.Hadamard(logs, y))))
		},
		declare: kfac.Categorical,
		outputs: []int{4, 3},
		smooth:  true,
	},
}

// halved makes a loss of two outputs, a mean and the logarithm of a variance, which are slices of
// one layer.
func halved(cost func(s *testnet.Sketch, mean, logVariance *gorgonia.Node) *gorgonia.Node, outputs int) lossCase {
	var parts [2]*gorgonia.Node
	return lossCase{
		cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
			for i := range parts {
				at := gorgonia.S(i*outputs, (i+1)*outputs)
				parts[i] = gorgonia.Must(gorgonia.Slice(z, nil, at))
			}
			return cost(s, parts[0], parts[1])
		},
		declare: func(*gorgonia.Node) kfac.Distribution { return kfac.Heteroscedastic(parts[0], parts[1]) },
		outputs: []int{2 * outputs},
	}
}

// weighted makes a loss of classes whose log-likelihoods are multiplied by these weights.
func weighted(weights func(s *testnet.Sketch, rows int) []float64, outputs ...int) lossCase {
	l := lossCase{declare: kfac.Categorical, outputs: outputs, smooth: true}
	l.cost = func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		shape := z.Shape()
		classes := shape[len(shape)-1]
		rows := shape.TotalSize() / classes
		y, w := testnet.OneHots(s.Rng, rows, classes), weights(s, rows)
		for i := range y {
			y[i] *= w[i/classes]
		}
		logs := gorgonia.Must(gorgonia.Log(gorgonia.Must(gorgonia.SoftMax(z, len(shape)-1))))
		return gorgonia.Must(gorgonia.Neg(mean(testnet.Hadamard(logs, s.Leaf("y", y, shape...)))))
	}
	return l
}

func init() {
	lossCases["mean and variance"] = halved(heteroscedastic, 3)
	lossCases["mean and variance of one number"] = halved(heteroscedastic, 1)
	lossCases["Student's t"] = lossCase{
		cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
			e := testnet.Sub(z, s.Random("y", z.Shape()...))
			return mean(gorgonia.Must(gorgonia.Log1p(times(testnet.Square(e), 1/(3*0.5*0.5)))))
		},
		declare: func(z *gorgonia.Node) kfac.Distribution { return kfac.StudentT(z, 3, 0.5) },
	}
	lossCases["counts of larger variance"] = lossCase{
		cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
			y := s.Leaf("y", counts(s, z.Shape()...), z.Shape()...)
			logs := gorgonia.Must(gorgonia.Log1p(times(gorgonia.Must(gorgonia.Exp(z)), 1/4.0)))
			return mean(testnet.Sub(testnet.Hadamard(plus(y, 4), logs), testnet.Hadamard(y, z)))
		},
		declare: func(z *gorgonia.Node) kfac.Distribution { return kfac.NegativeBinomial(z, 4) },
	}
	lossCases["class weights"] = weighted(func(s *testnet.Sketch, rows int) (w []float64) {
		for range rows {
			w = append(w, []float64{0.2, 1, 4}[s.Rng.IntN(3)])
		}
		return w
	})
	lossCases["soft labels that sum to two"] = weighted(func(s *testnet.Sketch, rows int) []float64 {
		return slices.Repeat([]float64{2}, rows)
	})
	lossCases["padded positions"] = weighted(func(s *testnet.Sketch, rows int) []float64 {
		w := make([]float64, rows)
		for i := range w {
			if i%4 < 1+i/4%4 && i >= 16 { // all of the first four sequences is padding
				w[i] = 1
			}
		}
		return w
	}, 4, 3)
	lossCases["weight of the positive class"] = lossCase{
		cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
			bits := make([]float64, z.Shape().TotalSize())
			for i := range bits {
				bits[i] = float64(s.Rng.IntN(2))
			}
			y := s.Leaf("y", bits, z.Shape()...)
			likely := testnet.Mul(testnet.Hadamard(y, testnet.Softplus(testnet.Neg(z))), gorgonia.NewConstant(5.0))
			unlikely := testnet.Hadamard(testnet.Sub(gorgonia.NewConstant(1.0), y), testnet.Softplus(z))
			return mean(testnet.Add(likely, unlikely))
		},
		declare: kfac.Bernoulli,
		smooth:  true,
	}
	lossCases["weights of outputs, missing targets"] = lossCase{
		cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
			w := make([]float64, z.Shape().TotalSize())
			for i := range w {
				w[i] = []float64{1, 10, 0.1}[i%3]
				if s.Rng.IntN(4) == 0 {
					w[i] = 0
				}
			}
			residual := testnet.Sub(z, s.Random("y", z.Shape()...))
			return mean(testnet.Hadamard(testnet.Square(residual), s.Leaf("weights", w, z.Shape()...)))
		},
		declare: func(z *gorgonia.Node) kfac.Distribution {
			return kfac.Weighted(kfac.SquaredError(z), z.Graph().ByName("weights")[0])
		},
		smooth: true,
	}
}

// lossNet is a perceptron that learns its inputs by heart, of one loss.
func lossNet(t *testing.T, l lossCase) (n *testnet.Net, z *gorgonia.Node) {
	t.Helper()
	n = testnet.NewNet(11)
	outputs := l.outputs
	if outputs == nil {
		outputs = []int{3}
	}
	width := tensor.Shape(outputs).TotalSize()
	z = lossModel(n, width)
	if len(outputs) > 1 {
		z = gorgonia.Must(gorgonia.Reshape(z, append(tensor.Shape{z.Shape()[0]}, outputs...)))
	}
	n.Out, n.Cost = z, l.cost(n.Sketch, z)
	n.Grad(t)
	return n, z
}

// lossModel makes a perceptron of so many outputs.
func lossModel(n *testnet.Net, width int) (z *gorgonia.Node) { return lossModelOf(n, 48, width) }

// lossModelOf makes one for so many cases.
func lossModelOf(n *testnet.Net, cases, width int) (z *gorgonia.Node) {
	n.X = n.Random("x", cases, 4)
	w1, b1 := n.Random("w1", 4, 8), n.Random("b1", 1, 8)
	w2, b2 := n.Random("w2", 8, width), n.Random("b2", 1, width)
	n.Params = gorgonia.Nodes{w1, b1, w2, b2}
	affine := func(x, w, b *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastAdd(testnet.Mul(x, w), b, nil, []byte{0}))
	}
	return affine(gorgonia.Must(gorgonia.Tanh(affine(n.X, w1, b1))), w2, b2)
}

// costAfter returns the cost after as many updates.
func costAfter(t *testing.T, n *testnet.Net, solver gorgonia.Solver, updates int) float64 {
	t.Helper()
	vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
	defer vm.Close()
	for range updates {
		testnet.Check(t, vm.RunAll())
		testnet.Check(t, solver.Step(n.ValueGrads()))
		vm.Reset()
	}
	testnet.Check(t, vm.RunAll())
	return testnet.Numbers(n.Cost.Value())[0]
}

// Every loss trains: no worse than Adam at the best rate of a grid, after as many updates, and
// after half as many where it is smooth.
func TestLossesTrain(t *testing.T) {
	for name, l := range lossCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const updates = 30
			best := math.Inf(1)
			for _, rate := range []float64{0.3, 0.1, 0.03, 0.01} {
				n, _ := lossNet(t, l)
				best = min(best, costAfter(t, n, gorgonia.NewAdamSolver(gorgonia.WithLearnRate(rate)), updates))
			}
			n, z := lossNet(t, l)
			solver, err := kfac.NewSolver(n.Cost, l.declare(z), l.opts...)
			testnet.Check(t, err)
			of := updates
			if l.smooth {
				of = updates / 2
			}
			if got := costAfter(t, n, solver, of); !(got <= best) {
				t.Errorf("the cost is %.5g after %d updates, Adam's %.5g after %d", got, of, best, updates)
			} else {
				t.Logf("%.5g, Adam %.5g", got, best)
			}
		})
	}
}
