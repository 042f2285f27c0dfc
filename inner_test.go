package kfac

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

func plain(rate float64) gorgonia.Solver {
	return gorgonia.NewVanillaSolver(gorgonia.WithLearnRate(rate))
}

// innerTolerance is that of twelve steps in the dtype of a net.
func innerTolerance(n *testnet.Net) float64 {
	if _, single := n.Cost.Value().Data().(float32); single {
		return 1e-5
	}
	return 1e-12
}

// Plain gradient descent as the inner solver, or as the caller's after Precondition, makes the
// steps of K-FAC with a learning rate, whether the norm constraint is at work or not.
func TestInnerDescentIsKFAC(t *testing.T) {
	const rate = 0.3
	for machine, train := range skipMachines(t) {
		for name, build := range skipNets() {
			for _, kappa := range []float64{1e-4, 1e3} {
				t.Run(machine+", "+name, func(t *testing.T) {
					opts := []Option{WithLearningRate(rate), WithNormConstraint(kappa), WithL2Reg(1e-3)}
					want := train(build(), append(opts, WithMomentum(0))...)
					inner := train(build(), append(opts, WithInner(plain(rate)))...)
					before := train(build(), opts...)
					shortened := false
					for range 12 {
						want.Steps(t, 1)
						inner.Steps(t, 1)
						testnet.Check(t, before.Run())
						err := before.Solver.Precondition(before.ValueGrads())
						if machine == "no BindDualValues" {
							if !errors.Is(err, ErrSharedMemory) {
								t.Fatal(err)
							}
							continue
						}
						testnet.Check(t, err)
						testnet.Check(t, plain(rate).Step(before.ValueGrads()))
						shortened = shortened || before.Solver.Stats().Shrink < 1
					}
					tol := innerTolerance(want.Net)
					testnet.Near(t, "weights by the inner solver", weightsOf(inner.Net), weightsOf(want.Net), tol)
					testnet.Near(t, "length of its step", []float64{inner.Solver.Stats().UpdateNorm},
						[]float64{want.Solver.Stats().UpdateNorm}, 100*tol)
					if machine != "no BindDualValues" {
						testnet.Near(t, "weights by the caller", weightsOf(before.Net), weightsOf(want.Net), tol)
						if shortened != (kappa < 1) {
							t.Errorf("the norm constraint was at work: %v", shortened)
						}
					}
				})
			}
		}
	}
}

// An inner solver with a state of its own is the same as that solver behind Precondition, also in
// chunks, with scalars among the parameters, and whatever the order of the list.
func TestInnerAdam(t *testing.T) {
	for name, build := range map[string]func() *testnet.Net{"MLP": skipNets()["float64 of 5"],
		"float32":     skipNets()["float32 of 5"],
		"scalars":     func() *testnet.Net { return testnet.ScaledOutputs[float64]() },
		"convolution": func() *testnet.Net { return testnet.Images(3, true, false) }} {
		t.Run(name, func(t *testing.T) {
			inner := NewTrainer(t, build(), WithLearningRate(0.01), WithInner(gorgonia.NewAdamSolver()))
			before, adam := NewTrainer(t, build(), WithLearningRate(0.01)), gorgonia.NewAdamSolver()
			for k := range 8 {
				for _, tr := range []*Trainer{inner, before} {
					testnet.Check(t, tr.Run())
					if k%3 == 2 {
						testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
						testnet.Check(t, tr.Run())
					}
				}
				list := inner.ValueGrads()
				list = append(list[k%len(list):], list[:k%len(list)]...)
				testnet.Check(t, inner.Solver.Step(list))
				testnet.Check(t, before.Solver.Precondition(before.ValueGrads()))
				testnet.Check(t, adam.Step(before.ValueGrads()))
			}
			testnet.Near(t, "weights", weightsOf(inner.Net), weightsOf(before.Net), innerTolerance(inner.Net))
		})
	}
}

// failing is a solver that changes something and fails then.
type failing struct{ panics, overflows bool }

var errFailing = errors.New("failing")

func (f failing) Step(model []gorgonia.ValueGrad) error {
	clear(model[0].Value().Data().([]float64))
	switch {
	case f.panics:
		panic(errFailing)
	case f.overflows:
		model[1].Value().Data().([]float64)[0] = math.Inf(1)
		return nil
	}
	return errFailing
}

// An inner solver that fails, or gets other parameters than before, changes nothing.
func TestInnerFails(t *testing.T) {
	build := skipNets()["float64 of 5"]
	for solver, want := range map[failing]error{
		{}: errFailing, {panics: true}: errFailing, {overflows: true}: ErrNotFinite,
	} {
		tr := NewTrainer(t, build(), WithLearningRate(1e-3), WithInner(solver))
		before := weightsOf(tr.Net)
		if err := tr.Try(); !errors.Is(err, want) {
			t.Errorf("%+v: %v", solver, err)
		}
		testnet.SameBits(t, "weights", weightsOf(tr.Net), before)
		if st := tr.Solver.Stats(); st.Step != 0 {
			t.Errorf("%+v", st)
		}
	}

	tr := NewTrainer(t, build(), WithLearningRate(0.1), WithInner(gorgonia.NewAdamSolver()))
	tr.Steps(t, 2)
	before := weightsOf(tr.Net)
	testnet.Check(t, tr.Run())
	if err := tr.Solver.Step(tr.ValueGrads()[1:]); !errors.Is(err, ErrOtherList) {
		t.Fatal(err)
	}
	testnet.SameBits(t, "weights", weightsOf(tr.Net), before)

	var state *StateError
	if err := tr.Solver.Save(&bytes.Buffer{}); !errors.Is(err, ErrInner) || !errors.As(err, &state) {
		t.Fatal(err)
	}
	file := saved(t, tr.Solver, WithoutInner())
	other := NewTrainer(t, build(), WithLearningRate(0.1))
	if err := other.Solver.Load(bytes.NewReader(file)); !errors.Is(err, ErrOtherSettings) {
		t.Fatal(err)
	}
}

// What can't go together is refused.
func TestInnerOptions(t *testing.T) {
	n := skipNets()["float64 of 5"]()
	for name, opts := range map[string][]Option{
		"no solver":         {WithLearningRate(1), WithInner(nil)},
		"momentum":          {WithLearningRate(1), WithInner(plain(1)), WithMomentum(0.5)},
		"no learning rate":  {WithInner(plain(1))},
		"a quadratic model": {WithLearningRate(1), WithInner(plain(1)), WithStepRejection()},
	} {
		var config *ConfigError
		if _, err := NewSolver(n.Cost, Declared(n), opts...); !errors.As(err, &config) {
			t.Errorf("%s: %v", name, err)
		}
	}
	tr := NewTrainer(t, n)
	testnet.Check(t, tr.Run())
	var config *ConfigError
	if err := tr.Solver.Precondition(tr.ValueGrads()); !errors.As(err, &config) {
		t.Error(err)
	}
}
