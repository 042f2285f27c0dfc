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
				if math.Abs(st.Damping/wantStats.Damping-1) > 1e-6 || math.Abs(st.Shrink-wantStats.Shrink) > 1e-6 {
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
