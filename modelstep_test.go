package kfac_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// byRate is a fixed learning rate, and other options.
func byRate(opts ...kfac.Option) []kfac.Option {
	return append([]kfac.Option{kfac.WithLearningRate(0.1)}, opts...)
}

// The quadratic model is to reach the targets in fewer updates than the default learning rate.
func TestQuadraticModelNeedsFewerUpdates(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for seconds")
	}
	images := digits(t, 300)
	x, y := teacher(256, []int{8, 12, 12, 2})
	flowers, species := irises()
	autoencoder := []int{49, 32, 16, 6, 16, 32, 49}
	for _, tk := range []task{
		{"autoencoder, whole batches", images, images, autoencoder, testnet.BinaryCrossEntropy, 300, 11.3, 160},
		{"autoencoder, small batches", images, images, autoencoder, testnet.BinaryCrossEntropy, 100, 11.6, 160},
		{"teacher and student", x, y, []int{8, 16, 16, 2}, testnet.SquaredError, 64, 0.016, 160},
		{"iris", flowers, species, []int{4, 8, 3}, testnet.CrossEntropy, 150, 0.04, 100},
	} {
		t.Run(tk.name, func(t *testing.T) {
			n := map[string]int{}
			for _, mode := range []string{"learning rate", "quadratic model"} {
				var opts []kfac.Option
				if mode == "learning rate" {
					opts = byRate()
				}
				steps, loss := tk.updates(t, ours(t, mode, opts...), 1, tk.limit)
				if !(loss <= tk.target) {
					t.Errorf("%s: loss %g after %d updates, %g wanted", mode, loss, steps, tk.target)
				}
				n[mode] = steps
			}
			t.Logf("updates to %g: %v", tk.target, n)
			if n["quadratic model"] >= n["learning rate"] {
				t.Errorf("updates to %g: %v", tk.target, n)
			}
		})
	}
}

// Both dtypes train, by both rules for lambda.
func TestQuadraticModelTrains(t *testing.T) {
	t.Run("float64", testModelTrains[float64])
	t.Run("float32", testModelTrains[float32])
}

func testModelTrains[T testnet.Float](t *testing.T) {
	for name, opts := range map[string][]kfac.Option{
		"default": nil, "same batch": {kfac.WithPaperRules()}, "without momentum": {kfac.WithoutMomentum()},
		"rejection":              {kfac.WithStepRejection()},
		"part of the batch":      {kfac.WithMinModelCases(8), kfac.WithModelFraction(0.5)},
		"L2 and norm constraint": {kfac.WithL2Reg(1e-5), kfac.WithNormConstraint(0.5)},
	} {
		t.Run(name, func(t *testing.T) {
			m := testnet.NewMLP[T](1, testnet.Shape{Cases: 64, Widths: small.Widths}, testnet.CrossEntropy)
			tr := kfac.NewTrainer(t, m, opts...)
			tr.Steps(t, 1)
			start := tr.Solver.Stats()
			tr.Steps(t, 64)
			end := tr.Solver.Stats()
			if !(end.Cost < 0.6*start.Cost) { // the labels are random
				t.Errorf("the cost went from %g to %g", start.Cost, end.Cost)
			}
			if start.QuadModelChange >= 0 || start.Damping <= 0 || start.LearningRate == 0 {
				t.Errorf("no step of the quadratic model: %+v", start)
			}
		})
	}
}

func TestQuadraticModelIsReproducible(t *testing.T) {
	opts := []kfac.Option{kfac.WithMinModelCases(8), kfac.WithMinStatisticsCases(8), kfac.WithStepRejection()}
	testnet.SameBits(t, "weights", trained(t, 25, opts...), trained(t, 25, opts...))
	if d := testnet.Distance(trained(t, 25, opts...), trained(t, 25, append(opts, kfac.WithSeed(2))...)); d < 1e-6 {
		t.Errorf("another seed makes a difference of no more than %g", d)
	}
}

// A step that fails leaves no trace: the training goes on as that of a twin which has not seen it.
// Steps 5 and 6 adapt lambda, step 20 searches for gamma.
func TestQuadraticModelAfterAFailure(t *testing.T) {
	for name, opts := range map[string][]kfac.Option{"default": nil,
		"same batch": {kfac.WithPaperRules(), kfac.WithStepRejection()}} {
		for _, done := range []int{0, 1, 4, 5, 19} {
			for _, s := range []slip{
				{name: "before RunAll", spoil: setInput(math.NaN())},
				{name: "after RunAll", spoilAfter: setInput(math.NaN())}, // found by the private run
			} {
				t.Run(fmt.Sprintf("%s/%s/step %d", name, s.name, done+1), func(t *testing.T) {
					options := append(slices.Clone(opts), kfac.WithMinModelCases(8), kfac.WithMinStatisticsCases(8))
					tr, twin := classifier(t, options...), classifier(t, options...)
					tr.Steps(t, done)
					twin.Steps(t, done)
					var repair func()
					if s.spoil != nil {
						repair = s.spoil(t, tr)
					}
					if err := tr.Run(); err != nil {
						t.Fatal(err)
					}
					if s.spoilAfter != nil {
						repair = s.spoilAfter(t, tr)
					}
					solver := tr.Solver
					before := stateOf(twin.Params, tr, solver)
					refused(t, attempt(t, func() error { return solver.Step(tr.ValueGrads()) }), kfac.ErrNotFinite)
					before.unchanged(t, twin.Params, tr, solver)
					repair()
					testnet.ZeroGradients(tr.Params)
					for range 7 {
						tr.Steps(t, 1)
						twin.Steps(t, 1)
						testnet.SameBits(t, "after the repair, weights", testnet.Weights(tr.Params),
							testnet.Weights(twin.Params))
						a, b := solver.Stats(), twin.Solver.Stats()
						if !kfac.SameStats(a, b) {
							t.Fatalf("after the repair: %+v, want %+v", a, b)
						}
					}
				})
			}
		}
	}
}

// Gradients of the wrong sign make every step a rise, which is not taken: the weights stay, lambda
// goes up, and momentum starts anew.
func TestStepRejection(t *testing.T) {
	tr := classifier(t, kfac.WithStepRejection(), kfac.WithoutGradientCheck(), kfac.WithDamping(0.1))
	solver := tr.Solver
	tr.Steps(t, 2)
	if st := solver.Stats(); st.Rejected {
		t.Fatalf("a good step was rejected: %+v", st)
	}
	for range 3 {
		if err := tr.Run(); err != nil {
			t.Fatal(err)
		}
		for _, p := range tr.Params {
			g, err := p.Grad()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := g.(*tensor.Dense).MulScalar(-1.0, true, tensor.UseUnsafe()); err != nil {
				t.Fatal(err)
			}
		}
		before, steps := testnet.Weights(tr.Params), solver.Stats().Step
		damping := solver.Stats().Damping
		if err := solver.Step(tr.ValueGrads()); err != nil {
			t.Fatal(err)
		}
		testnet.SameBits(t, "weights", testnet.Weights(tr.Params), before)
		st := solver.Stats()
		if !st.Rejected || !math.IsInf(st.Rho, -1) || st.UpdateNorm != 0 || st.Step != steps+1 || st.Damping < damping {
			t.Errorf("not rejected: %+v", st)
		}
		for _, g := range testnet.Gradients(t, tr.Params) {
			if g != 0 {
				t.Fatal("a gradient was left, which the next RunAll adds to")
			}
		}
	}
	rejected := solver.Stats()
	tr.Steps(t, 1)
	if st := solver.Stats(); st.Rejected || st.Damping <= rejected.Damping || st.Momentum != 0 {
		t.Errorf("after a rejection lambda was to be above %g, and no momentum left: %+v", rejected.Damping, st)
	}
}

// A thousandfold cost is the same problem, with the damping found by itself too.
func TestQuadraticModelKnowsNoLossScale(t *testing.T) {
	path := func(factor float64) (all []float64) {
		m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
		if factor != 1 {
			m.Cost = testnet.Hadamard(m.Cost, gorgonia.NewConstant(factor))
		}
		tr := kfac.NewTrainer(t, m, kfac.WithL2Reg(1e-3), kfac.WithStepRejection())
		for range 12 {
			tr.Steps(t, 1)
			st := tr.Solver.Stats()
			all = append(append(all, testnet.Weights(m.Params)...), st.Damping, st.LearningRate, st.Momentum, st.Rho)
		}
		return all
	}
	testnet.Near(t, "path", path(1000), path(1), 1e-9)
}

// Where the gradient is zero there is nothing to do, and that is no error.
func TestQuadraticModelAtTheOptimum(t *testing.T) {
	m := testnet.NewMLP[float64](1, testnet.Shape{Cases: 6, Widths: []int{2, 3}}, testnet.SquaredError)
	for _, n := range append(gorgonia.Nodes{m.Y}, m.Params...) {
		n.Value().(*tensor.Dense).Zero()
	}
	before := testnet.Weights(m.Params)
	tr := kfac.NewTrainer(t, m, kfac.WithStepRejection())
	tr.Steps(t, 22)
	testnet.SameBits(t, "weights", testnet.Weights(m.Params), before)
	if st := tr.Solver.Stats(); math.IsNaN(st.Damping) || math.IsInf(st.Damping, 0) || st.Rejected {
		t.Errorf("%+v", st)
	}
}

// Options that can't be had together, and values out of range.
func TestBadOptionsOfTheQuadraticModel(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		setting string
		opts    []kfac.Option
	}{
		{"WithMomentum", []kfac.Option{kfac.WithMomentum(0.9)}},
		{"WithoutMomentum", byRate(kfac.WithoutMomentum())},
		{"WithModelFraction", byRate(kfac.WithModelFraction(0.5))},
		{"WithMinModelCases", byRate(kfac.WithMinModelCases(5))},
		{"WithMaxGamma", byRate(kfac.WithMaxGamma(1))},
		{"WithStepRejection", byRate(kfac.WithStepRejection())},
		{"WithStepRejection", []kfac.Option{kfac.WithStepRejection(), kfac.WithLearningRate(0.1)}},
		{"WithPaperRules", byRate(kfac.WithPaperRules())},
		{"WithUndampedRho", byRate(kfac.WithUndampedRho())},
		{"WithDampingAdaptation", byRate(kfac.WithDampingAdaptation(5, 0.9))},
		{"WithGammaAdaptation", byRate(kfac.WithGammaAdaptation(20, 0.9))},
		{"WithDampingAdaptation", []kfac.Option{kfac.WithDampingAdaptation(0, 0.9)}},
		{"WithDampingAdaptation", []kfac.Option{kfac.WithDampingAdaptation(5, 1)}},
		{"WithDampingAdaptation", []kfac.Option{kfac.WithDampingAdaptation(1_000_000_000, 0.9)}},
		{"WithGammaAdaptation", []kfac.Option{kfac.WithGammaAdaptation(1_000_000_000, 0.9)}},
		{"WithDamping", []kfac.Option{kfac.WithDamping(1e31)}},
		{"WithL2Reg", []kfac.Option{kfac.WithL2Reg(1e61)}},
		{"WithGammaAdaptation", []kfac.Option{kfac.WithGammaAdaptation(-1, 0.9)}},
		{"WithGammaAdaptation", []kfac.Option{kfac.WithGammaAdaptation(5, nan)}},
		{"WithIterateAveraging", []kfac.Option{kfac.WithIterateAveraging(1, 1)}},
		{"WithIterateAveraging", []kfac.Option{kfac.WithIterateAveraging(0.9, 0)}},
		{"WithModelFraction", []kfac.Option{kfac.WithModelFraction(0)}},
		{"WithModelFraction", []kfac.Option{kfac.WithModelFraction(1.1)}},
		{"WithModelFraction", []kfac.Option{kfac.WithModelFraction(nan)}},
		{"WithMinModelCases", []kfac.Option{kfac.WithMinModelCases(0)}},
		{"WithMaxGamma", []kfac.Option{kfac.WithMaxGamma(0)}},
		{"WithMaxGamma", []kfac.Option{kfac.WithMaxGamma(nan)}},
	} {
		m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
		s, err := kfac.NewSolver(m.Cost, kfac.Categorical(m.Out), c.opts...)
		var ce *kfac.ConfigError
		if s != nil || !errors.As(err, &ce) || ce.Setting != c.setting || ce.Got == "" || ce.Want == "" {
			t.Errorf("%s: solver %v, error %v", c.setting, s, err)
		}
	}
}
