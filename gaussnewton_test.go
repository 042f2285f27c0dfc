package kfac_test

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

func byCost(z *gorgonia.Node) kfac.Distribution { return kfac.GaussNewton(z) }

func sum(n *gorgonia.Node, along ...int) *gorgonia.Node {
	return gorgonia.Must(gorgonia.Sum(n, along...))
}

func abs(n *gorgonia.Node) *gorgonia.Node { return gorgonia.Must(gorgonia.Abs(n)) }

func times(n *gorgonia.Node, by float64) *gorgonia.Node {
	return testnet.Mul(n, gorgonia.NewConstant(by))
}

func plus(n *gorgonia.Node, by float64) *gorgonia.Node {
	return testnet.Add(n, gorgonia.NewConstant(by))
}

// signs are targets of -1 and 1, which the inputs have nothing to do with.
func signs(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
	y := make([]float64, z.Shape().TotalSize())
	for i := range y {
		y[i] = float64(1 - 2*s.Rng.IntN(2))
	}
	return s.Leaf("y", y, z.Shape()...)
}

func bits01(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
	y := make([]float64, z.Shape().TotalSize())
	for i := range y {
		y[i] = float64(s.Rng.IntN(2))
	}
	return s.Leaf("y", y, z.Shape()...)
}

func squaredError(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
	return mean(testnet.Square(testnet.Sub(z, s.Random("y", z.Shape()...))))
}

// softmaxByHand is a cross-entropy of which nothing but the numbers says that it is one.
func softmaxByHand(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
	y := s.Leaf("y", testnet.OneHots(s.Rng, z.Shape()[0], z.Shape()[1]), z.Shape()...)
	logSums := gorgonia.Must(gorgonia.Log(sum(gorgonia.Must(gorgonia.Exp(z)), 1)))
	return mean(testnet.Sub(logSums, sum(testnet.Hadamard(y, z), 1)))
}

// sigmoidByHand is a binary cross-entropy by the logarithm of a quotient.
func sigmoidByHand(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
	y := bits01(s, z)
	p := gorgonia.Must(gorgonia.Inverse(plus(gorgonia.Must(gorgonia.Exp(testnet.Neg(z))), 1)))
	q := gorgonia.Must(gorgonia.Sub(gorgonia.NewConstant(1.0), p))
	other := gorgonia.Must(gorgonia.Sub(gorgonia.NewConstant(1.0), y))
	log := func(n *gorgonia.Node) *gorgonia.Node { return gorgonia.Must(gorgonia.Log(n)) }
	return testnet.Neg(mean(testnet.Add(testnet.Hadamard(y, log(p)), testnet.Hadamard(other, log(q)))))
}

// Where the cost is a negative log-likelihood its second derivatives are the Fisher matrix.
func TestHessianIsFisherMatrix(t *testing.T) {
	for name, c := range map[string]struct {
		cost   func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node
		l      likelihood.Likelihood
		factor float64 // of the cost
		width  int
	}{
		"squared error": {squaredError, likelihood.Gaussian{Variance: 0.5}, 1.0 / (48 * 3), 1},
		"classes":       {softmaxByHand, likelihood.Categorical{}, 1.0 / 48, 3},
		"bits":          {sigmoidByHand, likelihood.Bernoulli{}, 1.0 / (48 * 3), 1},
		"counts":        {lossCases["counts"].cost, likelihood.Poisson{}, 1.0 / (48 * 3), 1},
	} {
		t.Run(name, func(t *testing.T) {
			n, z := lossNet(t, lossCase{cost: c.cost})
			solver, err := kfac.NewSolver(n.Cost, kfac.GaussNewton(z))
			testnet.Check(t, err)
			var value gorgonia.Value
			gorgonia.Read(z, &value)
			vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
			defer vm.Close()
			testnet.Check(t, vm.RunAll())
			at := slices.Clone(testnet.Numbers(value))
			testnet.Check(t, solver.Step(n.ValueGrads()))
			got, width := kfac.HessianOf(solver)
			if width != c.width {
				t.Fatalf("blocks of %d, want %d", width, c.width)
			}
			unit, column := make([]float64, len(at)), make([]float64, len(at))
			for i := range at {
				clear(unit)
				unit[i] = 1
				c.l.FisherProduct(column, unit, at, 3)
				for k := range width {
					j := i/width*width + k
					if want := c.factor * column[j]; !(math.Abs(got[i*width+k]-want) <= 1e-12) {
						t.Fatalf("at %d, %d: %.15g, want %.15g", i, j, got[i*width+k], want)
					}
				}
			}
		})
	}
}

// Of a squared error everything is the same, samples included.
func TestGaussNewtonTrainsAsSquaredError(t *testing.T) {
	l := lossCase{cost: squaredError, declare: kfac.SquaredError}
	want := trainedWeights(t, l, 1)
	l.declare = byCost
	closeTo(t, trainedWeights(t, l, 1), want, 1e-9)
	closeTo(t, trainedWeights(t, l, 1e5), want, 1e-9)
}

// So it is in float32, but for rounding.
func TestGaussNewtonInFloat32(t *testing.T) {
	var trained [2][]float64
	for i, declare := range []func(z *gorgonia.Node) kfac.Distribution{kfac.SquaredError, byCost} {
		n := &testnet.Net{Sketch: testnet.NewSketchOf[float32](11, 3)}
		z := lossModel(n, 3)
		n.Out, n.Cost = z, squaredError(n.Sketch, z)
		n.Grad(t)
		solver, err := kfac.NewSolver(n.Cost, declare(z))
		testnet.Check(t, err)
		costAfter(t, n, solver, 4)
		trained[i] = testnet.Weights(n.Params)
	}
	closeTo(t, trained[1], trained[0], 1e-3)
}

// So it is where a batch comes in chunks, each of which has a hessian of its own.
func TestGaussNewtonInChunks(t *testing.T) {
	var trained [2][]float64
	for i, declare := range []func(z *gorgonia.Node) kfac.Distribution{kfac.SquaredError, byCost} {
		n, z := lossNet(t, lossCase{cost: squaredError})
		solver, err := kfac.NewSolver(n.Cost, declare(z))
		testnet.Check(t, err)
		vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
		defer vm.Close()
		x := slices.Clone(testnet.Numbers(n.X.Value()))
		for step := range 6 {
			slices.Reverse(x)
			testnet.Check(t, gorgonia.Let(n.X, testnet.Tensor(tensor.Float64, slices.Clone(x), 48, 4)))
			testnet.Check(t, vm.RunAll())
			if step%2 == 0 {
				testnet.Check(t, solver.Accumulate(n.ValueGrads()))
			} else {
				testnet.Check(t, solver.Step(n.ValueGrads()))
			}
			vm.Reset()
		}
		trained[i] = testnet.Weights(n.Params)
	}
	closeTo(t, trained[1], trained[0], 1e-9)
}

// A factor of the cost does not matter, nor does a constant.
func TestGaussNewtonIsInvariant(t *testing.T) {
	for _, name := range []string{"Huber", "hinge", "softmax by hand", "focal", "root mean square"} {
		t.Run(name, func(t *testing.T) {
			l := costCases[name]
			want := trainedWeights(t, l, 1)
			closeTo(t, trainedWeights(t, l, 1000), want, 1e-7)
			inner := l.cost
			l.cost = func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node { return plus(inner(s, z), 7) }
			closeTo(t, trainedWeights(t, l, 1), want, 1e-7)
		})
	}
}

func trainedWeights(t *testing.T, l lossCase, factor float64, opts ...kfac.Option) []float64 {
	t.Helper()
	inner := l.cost
	if factor != 1 {
		l.cost = func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node { return times(inner(s, z), factor) }
	}
	n, z := lossNet(t, l)
	solver, err := kfac.NewSolver(n.Cost, l.declare(z), append(opts, kfac.WithSeed(3))...)
	testnet.Check(t, err)
	costAfter(t, n, solver, 8)
	return testnet.Weights(n.Params)
}

func closeTo(t *testing.T, got, want []float64, tolerance float64) {
	t.Helper()
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= tolerance*max(1, math.Abs(want[i]))) {
			t.Fatalf("weight %d is %.15g, want %.15g", i, got[i], want[i])
		}
	}
}

// costCases are losses that are nobody's likelihood.
var costCases = map[string]lossCase{
	"Huber": {smooth: true, cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		e := abs(testnet.Sub(z, s.Random("y", z.Shape()...)))
		over := testnet.Rectify(plus(e, -0.5)) // |e| above 0.5
		inside := testnet.Sub(e, over)
		return mean(testnet.Add(times(testnet.Square(inside), 0.5), times(over, 0.5)))
	}},
	"log-cosh": {smooth: true, cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		e := testnet.Sub(z, s.Random("y", z.Shape()...))
		return mean(testnet.Add(testnet.Softplus(times(e, -2)), e)) // but for log 2
	}},
	"hinge": {cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		return mean(testnet.Rectify(plus(testnet.Neg(testnet.Hadamard(signs(s, z), z)), 1)))
	}},
	"squared hinge": {smooth: true, cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		return mean(testnet.Square(testnet.Rectify(plus(testnet.Neg(testnet.Hadamard(signs(s, z), z)), 1))))
	}},
	"quantile": {cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		e := testnet.Sub(s.Random("y", z.Shape()...), z)
		return mean(testnet.Add(times(testnet.Rectify(e), 0.8), times(testnet.Rectify(testnet.Neg(e)), 0.2)))
	}},
	"focal": {smooth: true, cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		m := testnet.Hadamard(signs(s, z), z)
		wrong := testnet.Sigmoid(testnet.Neg(m))
		return mean(testnet.Hadamard(testnet.Square(wrong), testnet.Softplus(testnet.Neg(m))))
	}},
	"root mean square": {smooth: true, cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.Sqrt(squaredError(s, z)))
	}},
	"cosine": {cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		y := s.Random("y", z.Shape()...)
		norm := func(n *gorgonia.Node) *gorgonia.Node {
			return gorgonia.Must(gorgonia.Sqrt(plus(sum(testnet.Square(n), 1), 1e-6)))
		}
		both := testnet.Hadamard(norm(y), norm(z))
		return testnet.Neg(mean(gorgonia.Must(gorgonia.HadamardDiv(sum(testnet.Hadamard(y, z), 1), both))))
	}},
	"Dice": {cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		y, p := bits01(s, z), testnet.Sigmoid(z)
		top := plus(times(sum(testnet.Hadamard(y, p), 1), 2), 1)
		return testnet.Neg(mean(gorgonia.Must(gorgonia.HadamardDiv(top, plus(testnet.Add(sum(y, 1), sum(p, 1)), 1)))))
	}},
	"triplet": {outputs: []int{3, 2}, cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		at := func(i int) *gorgonia.Node { return gorgonia.Must(gorgonia.Slice(z, nil, gorgonia.S(i))) }
		apart := func(a, b *gorgonia.Node) *gorgonia.Node { return sum(testnet.Square(testnet.Sub(a, b)), 1) }
		closer := testnet.Sub(apart(at(0), at(1)), apart(at(0), at(2)))
		small := times(mean(testnet.Square(z)), 0.1)
		return testnet.Add(mean(testnet.Rectify(plus(closer, 1))), small)
	}},
	"softmax by hand": {cost: softmaxByHand},
	"sigmoid by hand": {cost: sigmoidByHand, smooth: true},
	"softmax by hand at positions": {cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		y := s.Leaf("y", testnet.OneHots(s.Rng, z.Shape()[0]*z.Shape()[1], z.Shape()[2]), z.Shape()...)
		logSums := gorgonia.Must(gorgonia.Log(sum(gorgonia.Must(gorgonia.Exp(z)), 2)))
		return mean(testnet.Sub(logSums, sum(testnet.Hadamard(y, z), 2)))
	}, outputs: []int{4, 3}},
}

func init() {
	for name, l := range costCases {
		l.declare = byCost
		costCases[name] = l
		lossCases[name] = l
	}
}

// heteroscedastic is the negative log-likelihood of a normal distribution of learned variance: of
// its mean and the logarithm of its variance.
func heteroscedastic(s *testnet.Sketch, mu, logVar *gorgonia.Node) *gorgonia.Node {
	e := testnet.Square(testnet.Sub(s.Random("y", mu.Shape()...), mu))
	scaled := testnet.Hadamard(e, gorgonia.Must(gorgonia.Exp(testnet.Neg(logVar))))
	return times(mean(testnet.Add(logVar, scaled)), 0.5)
}

// Outputs that are declared together train as if they were one.
func TestGaussNewtonOfSeveralOutputs(t *testing.T) {
	var parts []*gorgonia.Node
	l := lossCase{outputs: []int{2}, declare: byCost, cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
		parts = nil
		for i := range 2 {
			parts = append(parts, gorgonia.Must(gorgonia.Slice(z, nil, gorgonia.S(i))))
		}
		return heteroscedastic(s, parts[0], parts[1])
	}}
	// With these the coordinates are the weights' own, whatever the output is.
	opts := []kfac.Option{kfac.WithLearningRate(0.1), kfac.WithDamping(0.1)}
	want := trainedWeights(t, l, 1, opts...)
	l.declare = func(*gorgonia.Node) kfac.Distribution { return kfac.GaussNewton(parts...) }
	closeTo(t, trainedWeights(t, l, 1, opts...), want, 1e-9)
}

// Second derivatives are those of finite differences of Gorgonia's gradients. Negative ones count
// by their absolute value.
func TestHessianByDifferences(t *testing.T) {
	for _, name := range []string{"Huber", "log-cosh", "squared hinge", "focal", "softmax by hand", "sigmoid by hand"} {
		t.Run(name, func(t *testing.T) {
			l := costCases[name]
			n, z := lossNet(t, l)
			var value gorgonia.Value
			gorgonia.Read(z, &value)
			solver, err := kfac.NewSolver(n.Cost, byCost(z))
			testnet.Check(t, err)
			vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
			defer vm.Close()
			testnet.Check(t, vm.RunAll())
			at := slices.Clone(testnet.Numbers(value))
			testnet.Check(t, solver.Step(n.ValueGrads()))
			blocks, width := kfac.HessianOf(solver)
			gradient := gradientAt(t, l, z.Shape())
			for i := range 12 {
				const h = 1e-5
				x := slices.Clone(at)
				x[i] += h
				up := gradient(x)
				x[i] -= 2 * h
				down := gradient(x)
				for k := range width {
					j := i/width*width + k
					want := math.Abs(up[j]-down[j]) / (2 * h)
					got := math.Abs(blocks[i*width+k])
					if want > 1e-9 && !(math.Abs(got-want) <= 1e-8) {
						t.Errorf("at %d, %d: %.10g, differences say %.10g", i, j, got, want)
					}
				}
			}
		})
	}
}

// A kink is rounded off on both of its sides: cases on the flat one, which have no gradient, have
// the curvature of the others. Where it is none, as in a squared hinge, flat cases have none.
func TestKinksHaveTwoSides(t *testing.T) {
	for name, bent := range map[string]bool{"hinge": true, "squared hinge": false} {
		l := costCases[name]
		n, z := lossNet(t, l)
		var value gorgonia.Value
		gorgonia.Read(z, &value)
		solver, err := kfac.NewSolver(n.Cost, byCost(z))
		testnet.Check(t, err)
		vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
		defer vm.Close()
		testnet.Check(t, vm.RunAll())
		gradient := gradientAt(t, l, z.Shape())(slices.Clone(testnet.Numbers(value)))
		testnet.Check(t, solver.Step(n.ValueGrads()))
		blocks, _ := kfac.HessianOf(solver)
		steep, flat := 0.0, 0.0
		for i, g := range gradient {
			if g == 0 {
				flat = max(flat, blocks[i])
			} else {
				steep = max(steep, blocks[i])
			}
		}
		want := 0.0
		if bent {
			want = steep
		}
		if steep == 0 || math.Abs(flat-want) > 1e-12 {
			t.Errorf("%s: curvature %g, and %g on the flat side", name, steep, flat)
		}
	}
}

// gradientAt returns the gradient of a loss with respect to its output, by Gorgonia.
func gradientAt(t *testing.T, l lossCase, shape []int) func(z []float64) []float64 {
	n := testnet.NewNet(11)
	lossModel(n, 3)
	leaf := gorgonia.NewMatrix(n.Graph, tensor.Float64, gorgonia.WithName("leaf"), gorgonia.WithShape(shape...))
	cost := l.cost(n.Sketch, leaf)
	_, err := gorgonia.Grad(cost, leaf)
	testnet.Check(t, err)
	var grad gorgonia.Value
	gorgonia.Read(leaf.Deriv(), &grad)
	return func(z []float64) []float64 {
		testnet.Check(t, gorgonia.Let(leaf, testnet.Tensor(leaf.Dtype(), z, shape...)))
		vm := gorgonia.NewTapeMachine(n.Graph)
		defer vm.Close()
		testnet.Check(t, vm.RunAll())
		return slices.Clone(testnet.Numbers(grad))
	}
}

// A training that is saved and loaded goes on to the last bit.
func TestGaussNewtonIsSaved(t *testing.T) {
	for _, name := range []string{"softmax by hand", "root mean square"} {
		var trained [2][]float64
		for i := range 2 {
			n, z := lossNet(t, costCases[name])
			solver, err := kfac.NewSolver(n.Cost, byCost(z))
			testnet.Check(t, err)
			costAfter(t, n, solver, 3)
			if i == 1 {
				var state bytes.Buffer
				testnet.Check(t, solver.Save(&state))
				n, z = lossNet(t, costCases[name])
				solver, err = kfac.NewSolver(n.Cost, byCost(z))
				testnet.Check(t, err)
				testnet.Check(t, solver.Load(&state))
			}
			kfac.ZeroGradients(n.ValueGrads())
			costAfter(t, n, solver, 3)
			trained[i] = testnet.Weights(n.Params)
		}
		testnet.SameBits(t, name, trained[1], trained[0])
	}
}

// The plan says what was met.
func TestPlanOfGaussNewton(t *testing.T) {
	for name, want := range map[string]string{
		"Huber":            "blocks of 1 by 1",
		"softmax by hand":  "blocks of 3 by 3",
		"hinge":            "kinks count as rounded off",
		"focal":            "absolute value",
		"root mean square": "outside the blocks",
		"triplet":          "blocks of 6 by 6",
		// A row along the last axis is less than a case.
		"softmax by hand at positions": "blocks of 3 by 3",
	} {
		n, z := lossNet(t, costCases[name])
		solver, err := kfac.NewSolver(n.Cost, byCost(z))
		testnet.Check(t, err)
		costAfter(t, n, solver, 2)
		if plan := solver.Plan().String(); !strings.Contains(plan, want) {
			t.Errorf("%s: no %q in\n%s", name, want, plan)
		}
	}
}

// What can't be is said.
func TestGaussNewtonIsChecked(t *testing.T) {
	n, z := lossNet(t, costCases["Huber"])
	for name, c := range map[string]struct {
		dist kfac.Distribution
		opts []kfac.Option
		want string
	}{
		"none":     {dist: kfac.GaussNewton(), want: "no output"},
		"nil":      {dist: kfac.GaussNewton(nil), want: "nil"},
		"a policy": {dist: kfac.Policy(byCost(z)), want: "policy"},
		"weights":  {dist: kfac.Weighted(byCost(z), z), want: "weights"},
		"exact":    {byCost(z), []kfac.Option{kfac.WithFisherEstimate(kfac.ExactFisher)}, "ExactFisher"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kfac.NewSolver(n.Cost, c.dist, c.opts...)
			refused(t, err, nil, c.want)
		})
	}
}
