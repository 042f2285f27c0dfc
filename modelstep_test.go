package kfac_test

import (
	"errors"
	"math"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
)

// TestQuadraticModelStep: every step's length and momentum are finite, the model predicts a fall, two runs have the same bits, and the loss falls further
// than by the default learning rate.
func TestQuadraticModelStep(t *testing.T) {
	t.Run("float32", testQuadraticModelStep[float32])
	t.Run("float64", testQuadraticModelStep[float64])
}

func testQuadraticModelStep[T float](t *testing.T) {
	run := func(opts ...kfac.Option) ([]float64, float64) {
		m := newMLP[T](3, shape{40, []int{6, 8, 3}}, crossEntropy)
		tr := newTrainer(t, m, kfac.Categorical(m.out), opts...)
		tr.steps(t, 25)
		st := tr.solver.(*kfac.Solver).Stats()
		if len(opts) > 0 && (st.QuadModelChange >= 0 || math.IsNaN(st.LearningRate+st.Momentum) || st.Damping <= 0) {
			t.Fatalf("Stats: %+v", st)
		}
		return weights(m.params), st.Cost
	}
	first, model := run(kfac.WithQuadraticModel())
	again, _ := run(kfac.WithQuadraticModel())
	sameBits(t, "two runs", again, first)
	if _, fixed := run(); model >= fixed {
		t.Errorf("cost %g by the model, %g by the default learning rate", model, fixed)
	}
	for _, opts := range [][]kfac.Option{{kfac.WithoutMomentum()}, {kfac.WithSameBatchRho()}, {kfac.WithStepRejection()}, {kfac.WithGammaMax(1)},
		{kfac.WithDamping(3)}, {kfac.WithNormConstraint(0.01)}, {kfac.WithSameBatchRho(), kfac.WithRhoWithoutLambda()}, {kfac.WithL2Reg(1e-3)}} {
		if w, cost := run(append(opts, kfac.WithQuadraticModel())...); math.IsNaN(cost) || distance(w, first) == 0 && len(opts) == 1 && cost != model {
			t.Errorf("cost %g", cost)
		}
	}
}

// TestQuadraticModelScale: the scale of the cost does not matter, the first damping that is found included.
func TestQuadraticModelScale(t *testing.T) {
	run := func(l loss) []float64 {
		m := newMLP[float64](3, shape{40, []int{6, 8, 3}}, l)
		newTrainer(t, m, kfac.Categorical(m.out), kfac.WithQuadraticModel()).steps(t, 12)
		return weights(m.params)
	}
	near(t, "weights", run(scaledBy(crossEntropy, 512)), run(crossEntropy), 1e-9)
}

// TestStepRejection: a step that makes the objective worse, here along a gradient of the wrong sign, is not taken.
func TestStepRejection(t *testing.T) {
	m := newMLP[float64](3, shape{40, []int{6, 8, 3}}, crossEntropy)
	tr := newTrainer(t, m, kfac.Categorical(m.out), kfac.WithQuadraticModel(), kfac.WithStepRejection(), kfac.WithGradientCheck(false), kfac.WithDamping(0.1))
	tr.steps(t, 3)
	s := tr.solver.(*kfac.Solver)
	lambda := s.Stats().Damping
	before := weights(m.params)
	if err := tr.run(); err != nil {
		t.Fatal(err)
	}
	for _, p := range m.params {
		g, err := p.Grad()
		if err != nil {
			t.Fatal(err)
		}
		d := g.Data().([]float64)
		for i := range d {
			d[i] *= -1
		}
	}
	if err := s.Step(tr.valueGrads()); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); !st.Rejected || st.UpdateNorm != 0 {
		t.Fatalf("the step was taken: %+v", st)
	}
	sameBits(t, "weights", weights(m.params), before)
	tr.steps(t, 1)
	if st := s.Stats(); st.Rejected || st.Damping <= lambda {
		t.Errorf("after a rejected step: damping %g, before %g, %+v", st.Damping, lambda, st)
	}
}

// TestModelOptions: options that would do nothing are errors.
func TestModelOptions(t *testing.T) {
	m := newMLP[float64](3, shape{4, []int{3, 2}}, crossEntropy)
	for name, opts := range map[string][]kfac.Option{
		"WithLearningRate":  {kfac.WithQuadraticModel(), kfac.WithLearningRate(0.1)},
		"WithMomentum":      {kfac.WithMomentum(0.5), kfac.WithQuadraticModel()},
		"WithoutMomentum":   {kfac.WithoutMomentum()},
		"WithGammaMax":      {kfac.WithGammaMax(1)},
		"WithModelFraction": {kfac.WithQuadraticModel(), kfac.WithModelFraction(0)},
	} {
		_, err := kfac.NewSolver(m.cost, kfac.Categorical(m.out), opts...)
		var bad *kfac.ConfigError
		if !errors.As(err, &bad) || bad.Setting != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// scaledBy is a loss times a factor.
func scaledBy(l loss, by float64) loss {
	return func(out, y *gorgonia.Node) *gorgonia.Node {
		return must(gorgonia.HadamardProd(l(out, y), gorgonia.NewConstant(by)))
	}
}
