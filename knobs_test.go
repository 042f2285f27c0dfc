package kfac

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// Schedules go through the values that their descriptions give.
func TestSchedules(t *testing.T) {
	var got, want []float64
	is := func(s Schedule, step int, v float64) { got, want = append(got, s(step)), append(want, v) }
	for _, k := range []int{1, 2, 1000} {
		is(Constant(3), k, 3)
	}
	steps := StepDecay(8, 0.5, 10)
	is(steps, 1, 8)
	is(steps, 10, 8)
	is(steps, 11, 4)
	is(steps, 31, 1)
	falling := ExponentialDecay(2, 1.0/16, 20)
	is(falling, 1, 2)
	is(falling, 6, 1)
	is(falling, 21, 1.0/8)
	is(falling, 41, 1.0/128)
	wave := CosineDecay(3, 1, 12)
	is(wave, 1, 3)
	is(wave, 5, 2.5)
	is(wave, 7, 2)
	is(wave, 13, 1)
	is(wave, 100, 1)
	warm := WarmUp(3, wave)
	is(warm, 1, 0.75)
	is(warm, 3, 2.25)
	is(warm, 4, 3)
	is(warm, 8, 2.5)
	testnet.Near(t, "schedules", got, want, 1e-15)
}

// turning is a knob, with the option that sets it and other options that it needs.
var turning = map[Knob]struct {
	option func(float64) Option
	with   []Option
	values [2]float64
}{
	LearningRate:   {WithLearningRate, []Option{WithNormConstraint(1)}, [2]float64{0.1, 0.02}},
	Momentum:       {WithMomentum, []Option{WithLearningRate(0.02)}, [2]float64{0.9, 0}},
	Damping:        {WithDamping, []Option{WithLearningRate(0.02), WithInverseUpdatePeriod(1)}, [2]float64{0.1, 1}},
	NormConstraint: {WithNormConstraint, []Option{WithLearningRate(0.5)}, [2]float64{1e-2, 1e-4}},
	L2Reg:          {WithL2Reg, []Option{WithLearningRate(0.02)}, [2]float64{1e-2, 0.1}},
	WeightDecay:    {WithWeightDecay, nil, [2]float64{1e-2, 0.1}},
}

// A constant schedule is the option; a schedule that changes a value at a step is Set before that
// step, and a training that was saved there and loaded into a solver of the other value.
func TestKnobs(t *testing.T) {
	for k, of := range turning {
		for name, build := range skipNets() {
			t.Run(fmt.Sprint(k, ", ", name), func(t *testing.T) {
				with := func(o Option) []Option { return append([]Option{o}, of.with...) }
				first, second := of.values[0], of.values[1]
				option := NewTrainer(t, build(), with(of.option(first))...)
				constant := NewTrainer(t, build(), with(WithSchedule(k, Constant(first)))...)
				changes := func(step int) float64 {
					if step < 5 {
						return first
					}
					return second
				}
				scheduled := NewTrainer(t, build(), with(WithSchedule(k, changes))...)
				for _, tr := range []*Trainer{option, constant, scheduled} {
					tr.Steps(t, 4)
					sameTraining(t, tr, option)
				}
				loaded := NewTrainer(t, build(), with(of.option(second))...)
				testnet.Check(t, loaded.Solver.Load(bytes.NewReader(saved(t, option.Solver)), WithOtherSettings()))
				testnet.Check(t, option.Solver.Set(k, second))
				again := NewTrainer(t, build(), with(of.option(first))...)
				testnet.Check(t, again.Solver.Load(bytes.NewReader(saved(t, option.Solver))))
				half := NewTrainer(t, build(), with(WithSchedule(k, changes))...)
				testnet.Check(t, half.Solver.Load(bytes.NewReader(saved(t, scheduled.Solver))))
				for _, tr := range []*Trainer{option, scheduled, loaded, again, half} {
					tr.Steps(t, 4)
					sameTraining(t, tr, option)
				}
				constant.Steps(t, 4)
				if SameStats(statsOf(constant), statsOf(option)) {
					t.Error("the knob makes no difference")
				}
			})
		}
	}
}

// With the quadratic model lambda goes on from where it is set, and L2 and the norm constraint can
// be turned.
func TestKnobsOfTheModel(t *testing.T) {
	tr := NewTrainer(t, skipNets()["float64 of 12"](), WithL2Reg(1e-3))
	var config *ConfigError
	for _, k := range []Knob{LearningRate, Momentum, Damping, "another"} {
		if err := tr.Solver.Set(k, 0.5); !errors.As(err, &config) {
			t.Errorf("%s: %v", k, err)
		}
	}
	tr.Steps(t, 2)
	testnet.Check(t, tr.Solver.Set(Damping, 7))
	testnet.Check(t, tr.Solver.Set(NormConstraint, 1e-6))
	testnet.Check(t, tr.Solver.Set(L2Reg, 0))
	tr.Steps(t, 1)
	st := tr.Solver.Stats()
	testnet.Near(t, "lambda", []float64{st.Damping}, []float64{7}, 0)
	if !(st.KL <= 0.5e-6*(1+1e-9)) {
		t.Errorf("KL %g", st.KL)
	}
	if err := NewTrainer(t, skipNets()["float64 of 12"]()).Solver.Set(L2Reg, 1); !errors.As(err, &config) {
		t.Error(err)
	}
}

// Values that the options refuse are refused, and change nothing.
func TestBadKnobs(t *testing.T) {
	n := skipNets()["float64 of 5"]()
	var config *ConfigError
	for _, o := range []Option{WithSchedule("another", Constant(1)), WithSchedule(L2Reg, nil),
		WithSchedule(Momentum, Constant(0.5)), WithSchedule(Damping, Constant(0.5)),
		WithSchedule(LearningRate, Constant(0)), WithSchedule(L2Reg, Constant(math.NaN()))} {
		if _, err := NewSolver(n.Cost, Declared(n), o); !errors.As(err, &config) {
			t.Error(err)
		}
	}
	falls := func(step int) float64 { return float64(3 - step) }
	tr := NewTrainer(t, n, WithSchedule(LearningRate, falls))
	tr.Steps(t, 2)
	before, file := weightsOf(n), saved(t, tr.Solver)
	for range 2 {
		if err := tr.Try(); !errors.As(err, &config) {
			t.Fatal(err)
		}
		ZeroGradients(tr.ValueGrads())
	}
	testnet.SameBits(t, "weights", weightsOf(n), before)
	if !bytes.Equal(saved(t, tr.Solver), file) {
		t.Error("a step that has failed has changed the state")
	}
	if err := tr.Solver.Set(LearningRate, 1); !errors.As(err, &config) {
		t.Error(err)
	}
	if err := tr.Solver.Set(L2Reg, -1); !errors.As(err, &config) {
		t.Error(err)
	}
}
