package kfac_test

import (
	"fmt"
	"math"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// regression is a linear model of zero weights, with noisy targets, and its squared error times a
// factor. The targets are those of one unit, in another.
func regression(unit, factor float64) *testnet.Net {
	s := testnet.NewSketch(3)
	x := s.Random("x", 40, 4)
	n := &testnet.Net{Sketch: s, X: x}
	w, b := s.Leaf("w", make([]float64, 8), 4, 2), s.Leaf("b", make([]float64, 2), 1, 2)
	n.Params = gorgonia.Nodes{w, b}
	n.Out = gorgonia.Must(gorgonia.BroadcastAdd(testnet.Mul(x, w), b, nil, []byte{0}))
	y := s.Normals(80)
	for i := range y {
		y[i] = unit * (3 + y[i] + 2*testnet.Data(x)[i/2*4])
	}
	squares := gorgonia.Must(gorgonia.Square(testnet.Sub(n.Out, s.Leaf("y", y, 40, 2))))
	n.Cost = testnet.Mul(gorgonia.Must(gorgonia.Sum(squares)), gorgonia.NewConstant(factor))
	return n
}

// course trains for some steps and returns the weights after each, in the unit, and the figures of
// the last step.
func course(t *testing.T, n *testnet.Net, unit float64, steps int, dist kfac.Distribution) (
	w []float64, st kfac.Stats) {
	t.Helper()
	n.Grad(t)
	solver, err := kfac.NewSolver(n.Cost, dist)
	testnet.Check(t, err)
	vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
	defer vm.Close()
	for range steps {
		testnet.Check(t, vm.RunAll())
		testnet.Check(t, solver.Step(n.ValueGrads()))
		vm.Reset()
		for _, v := range testnet.Weights(n.Params) {
			w = append(w, v/unit)
		}
	}
	return w, solver.Stats()
}

// The unit of the targets of a squared error does not matter to the course of a linear regression,
// and neither does a factor on the cost. The figures that count in nats are the same too.
func TestUnitsDoNotMatter(t *testing.T) {
	const steps = 45
	n := regression(1, 1)
	want, wantStats := course(t, n, 1, steps, kfac.SquaredError(n.Out))
	for _, unit := range []float64{1e-6, 1e-3, 1e3, 1e6} {
		for _, factor := range []float64{1e-6, 1, 1e6} {
			t.Run(fmt.Sprint(unit, " ", factor), func(t *testing.T) {
				n := regression(unit, factor)
				got, st := course(t, n, unit, steps, kfac.SquaredError(n.Out))
				testnet.Near(t, "weights", got, want, 1e-8)
				damping := st.Damping / (unit * unit)
				if math.Abs(damping/wantStats.Damping-1) > 1e-6 || math.Abs(st.Shrink-wantStats.Shrink) > 1e-6 {
					t.Errorf("figures %v, want those of %v", st, wantStats)
				}
			})
		}
	}
}

// The variance of a squared error is not known: Gaussian(mean, 0) says the same. KL is in nats by
// the residuals' variance.
func TestSquaredErrorIsAGaussian(t *testing.T) {
	n := regression(10, 0.5)
	want, st := course(t, n, 1, 1, kfac.SquaredError(n.Out))
	var squares float64
	for _, r := range testnet.Data(regressionTargets(n)) { // the first predictions are zero
		squares += r * r
	}
	n = regression(10, 0.5)
	got, _ := course(t, n, 1, 1, kfac.Gaussian(n.Out, 0))
	testnet.SameBits(t, "weights", got, want)

	n = regression(10, 0.5)
	_, known := course(t, n, 1, 1, kfac.Gaussian(n.Out, squares/80))
	if math.Abs(st.KL/known.KL-1) > 1e-9 {
		t.Errorf("KL %g, by the known variance %g", st.KL, known.KL)
	}
}

func regressionTargets(n *testnet.Net) *gorgonia.Node {
	for _, leaf := range n.Graph.Inputs() {
		if leaf.Name() == "y" {
			return leaf
		}
	}
	return nil
}

// The loss check finds the scale of a cost to float32's precision, however large the targets are
// beside the first outputs.
func TestScaleOfLargeTargets(t *testing.T) {
	for _, size := range []float64{1e-6, 1, 1e4, 1e7, 1e8, 1e12} {
		s := testnet.NewSketchOf[float32](1, 3)
		n := &testnet.Net{Sketch: s, X: s.Random("x", 8, 3)}
		w, y := s.Random("w", 3, 2), s.Normals(16)
		for i := range y {
			y[i] *= size
		}
		n.Params = gorgonia.Nodes{w}
		n.Out = testnet.Mul(n.X, w)
		squares := gorgonia.Must(gorgonia.Square(testnet.Sub(n.Out, s.Leaf("y", y, 8, 2))))
		n.Cost = gorgonia.Must(gorgonia.Mean(squares))
		_, st := course(t, n, 1, 1, kfac.SquaredError(n.Out))
		if want := 2.0 / 16; math.Abs(st.Scale/want-1) > 1e-5 {
			t.Errorf("targets of %g: scale %g, want %g", size, st.Scale, want)
		}
	}
}

// policyAndValue is a net of a policy and a value, with their weights in the cost, and the value's
// targets in a unit. Its value starts at zero.
func policyAndValue[T testnet.Float](policy, value, unit float64) (n *testnet.Net, classes, mean *gorgonia.Node) {
	s := testnet.NewSketchOf[T](5, 3)
	const cases, in, hidden = 24, 4, 6
	n = &testnet.Net{Sketch: s, X: s.Random("x", cases, in)}
	w, b := s.Random("w", in, hidden), s.Leaf("b", make([]float64, hidden), 1, hidden)
	h := gorgonia.Must(gorgonia.Tanh(gorgonia.Must(gorgonia.BroadcastAdd(testnet.Mul(n.X, w), b, nil, []byte{0}))))
	wp, wv := s.Random("policy", hidden, 3), s.Leaf("value", make([]float64, hidden), hidden, 1)
	n.Params = gorgonia.Nodes{w, b, wp, wv}
	classes, mean = testnet.Mul(h, wp), testnet.Mul(h, wv)
	n.Out = mean
	y := s.Leaf("y", testnet.OneHots(s.Rng, cases, 3), cases, 3)
	logLikelihood := testnet.Sum(testnet.Hadamard(testnet.LogSoftMax(classes), y))
	targets := s.Normals(cases)
	for i := range targets {
		targets[i] *= unit
	}
	squares := testnet.Sum(testnet.Square(testnet.Sub(mean, s.Leaf("v", targets, cases, 1))))
	number := func(x float64) *gorgonia.Node { return gorgonia.NewConstant(T(x)) }
	n.Cost = testnet.Sub(testnet.Hadamard(squares, number(value)), testnet.Hadamard(logLikelihood, number(policy)))
	return n, classes, mean
}

// The order of the parts of a Joint does not matter, to the last bit, whatever the weights.
func TestOrderOfPartsDoesNotMatter(t *testing.T) {
	t.Run("float64", orderOfParts[float64])
	t.Run("float32", orderOfParts[float32])
}

func orderOfParts[T testnet.Float](t *testing.T) {
	for _, weights := range [][2]float64{{1, 1}, {1, 1e-4}, {1e-4, 1}} {
		var want []float64
		for order := range 2 {
			n, classes, mean := policyAndValue[T](weights[0], weights[1], 1)
			parts := []kfac.Distribution{kfac.Categorical(classes), kfac.SquaredError(mean)}
			got, _ := course(t, n, 1, 12, kfac.Joint(parts[order], parts[1-order]))
			if order == 1 {
				testnet.SameBits(t, fmt.Sprint("weights of ", weights), got, want)
			}
			want = got
		}
	}
}

// affine is a tanh net with biases and its squared error: of inputs factor x + shift for x, and
// likewise of targets. The first weights are such that the function is the same, in these units.
func affine(factorX, shiftX, factorY, shiftY, cost float64) *testnet.Net {
	s := testnet.NewSketch(9)
	const cases, in, hidden = 30, 4, 5
	x, y := s.Normals(cases*in), s.Normals(cases)
	for i := range y {
		y[i] = factorY*(math.Sin(x[in*i])+0.1*y[i]) + shiftY
	}
	w, b := s.Normals(in*hidden), s.Normals(hidden)
	for i := range w {
		w[i] /= factorX
		b[i%hidden] -= w[i] * shiftX
	}
	for i := range x {
		x[i] = factorX*x[i] + shiftX
	}
	v := s.Normals(hidden)
	for i := range v {
		v[i] *= factorY
	}
	n := &testnet.Net{Sketch: s, X: s.Leaf("x", x, cases, in)}
	n.Params = gorgonia.Nodes{s.Leaf("w", w, in, hidden), s.Leaf("b", b, 1, hidden), s.Leaf("v", v, hidden, 1),
		s.Leaf("c", []float64{shiftY}, 1, 1)}
	dense := func(h, w, b *gorgonia.Node) *gorgonia.Node {
		return gorgonia.Must(gorgonia.BroadcastAdd(testnet.Mul(h, w), b, nil, []byte{0}))
	}
	h := gorgonia.Must(gorgonia.Tanh(dense(n.X, n.Params[0], n.Params[1])))
	n.Out = dense(h, n.Params[2], n.Params[3])
	squares := testnet.Sum(testnet.Square(testnet.Sub(n.Out, s.Leaf("y", y, cases, 1))))
	n.Cost = testnet.Mul(squares, gorgonia.NewConstant(cost))
	return n
}

// outputs trains for some steps and returns the outputs before each, as those of targets without
// factor and shift.
func outputs(t *testing.T, n *testnet.Net, factor, shift float64, steps int) (z []float64) {
	t.Helper()
	n.Grad(t)
	var out gorgonia.Value
	gorgonia.Read(n.Out, &out)
	solver, err := kfac.NewSolver(n.Cost, kfac.SquaredError(n.Out))
	testnet.Check(t, err)
	vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
	defer vm.Close()
	for range steps {
		testnet.Check(t, vm.RunAll())
		testnet.Check(t, solver.Step(n.ValueGrads()))
		for _, v := range testnet.Numbers(out) {
			z = append(z, (v-shift)/factor)
		}
		vm.Reset()
	}
	return z
}

// Units of inputs and targets, and the points that they are counted from, do not matter to the
// course of a nonlinear net either, nor does the scale of the cost.
func TestUnitsOfNonlinearNets(t *testing.T) {
	const steps = 45
	want := outputs(t, affine(1, 0, 1, 0, 1), 1, 0, steps)
	for _, test := range [][5]float64{
		{1e-6, 0, 1, 0, 1}, {1e6, 0, 1, 0, 1}, {-10, 0, 1, 0, 1}, {1, 30, 1, 0, 1}, {0.1, -2, 1, 0, 1},
		{1, 0, 1e-6, 0, 1}, {1, 0, 1e6, 0, 1}, {1, 0, -10, 0, 1}, {1, 0, 1, 30, 1}, {1, 0, 1, 0, 1e-6},
		{1, 0, 1, 0, 1e6}, {1e3, 1e3, 1e-3, 1, 1e3},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			n := affine(test[0], test[1], test[2], test[3], test[4])
			testnet.Near(t, "outputs", outputs(t, n, test[2], test[3], steps), want, 1e-8)
		})
	}
}
