package kfac

import (
	"fmt"
	"math"
)

// A Schedule is a value for each step; see WithSchedule. The first step is 1. It has to return the
// same value whenever it is asked for the same step, so that a training that is loaded goes on as
// if it had never stopped.
type Schedule func(step int) float64

// Constant is v at all steps.
func Constant(v float64) Schedule { return func(int) float64 { return v } }

// StepDecay begins with v, and multiplies it by factor after every so many steps, at least 1.
func StepDecay(v, factor float64, every int) Schedule {
	return func(step int) float64 { return v * math.Pow(factor, float64((step-1)/max(every, 1))) }
}

// ExponentialDecay is v at step 1, and factor times that at step 1 + steps, falling by the same
// part at each step. steps is at least 1.
func ExponentialDecay(v, factor float64, steps int) Schedule {
	return func(step int) float64 { return v * math.Pow(factor, float64(step-1)/float64(max(steps, 1))) }
}

// CosineDecay goes from v at step 1 to last at step 1 + steps along half a wave of the cosine, and
// stays there (Loshchilov & Hutter 2017, without restarts). steps is at least 1.
func CosineDecay(v, last float64, steps int) Schedule {
	return func(step int) float64 {
		part := min(float64(step-1)/float64(max(steps, 1)), 1)
		return last + (v-last)*(1+math.Cos(math.Pi*part))/2
	}
}

// WarmUp rises in a straight line over the first steps to the first value of then: at step k it is
// k/(steps+1) of that. Step steps + 1 is step 1 of then.
func WarmUp(steps int, then Schedule) Schedule {
	return func(step int) float64 {
		if step <= steps {
			return then(1) * float64(step) / float64(steps+1)
		}
		return then(step - max(steps, 0))
	}
}

// A Knob is a setting that can be turned during a training, by WithSchedule or Solver.Set.
type Knob string

const (
	// LearningRate is that of WithLearningRate. It needs a learning rate from the start.
	LearningRate Knob = "learning rate"
	// Momentum is that of WithMomentum. It needs a learning rate.
	Momentum Knob = "momentum"
	// Damping is lambda. A schedule needs a learning rate, as otherwise lambda adapts itself. Set
	// then is where lambda goes on from, in the units of Stats.Damping.
	Damping Knob = "damping"
	// NormConstraint is kappa of WithNormConstraint.
	NormConstraint Knob = "norm constraint"
	// L2Reg is eta of WithL2Reg. Without a learning rate Set needs one of WithL2Reg or WithDamping
	// from the start, because they choose the coordinates that damping counts in.
	L2Reg Knob = "L2 regularisation"
)

// A dial is what there is to know of a knob.
type dial struct {
	Knob
	option string
	byRate bool                                // it needs a learning rate
	of     func(c *config) *float64            // where it is
	check  func(v float64) func(*config) error // its option
}

var dials = []dial{
	{LearningRate, "WithLearningRate", true, func(c *config) *float64 { return &c.learningRate },
		optionOf(WithLearningRate)},
	{Momentum, "WithMomentum", true, func(c *config) *float64 { return &c.momentum }, optionOf(WithMomentum)},
	{Damping, "WithDamping", true, func(c *config) *float64 { return &c.damping }, optionOf(WithDamping)},
	{NormConstraint, "WithNormConstraint", false, func(c *config) *float64 { return &c.normLimit },
		optionOf(WithNormConstraint)},
	{L2Reg, "WithL2Reg", false, func(c *config) *float64 { return &c.l2 }, optionOf(WithL2Reg)},
}

func optionOf(option func(float64) Option) func(float64) func(*config) error {
	return func(v float64) func(*config) error { return option(v) }
}

// knobs is a number for each dial.
const knobs = 5

// dialOf is where a knob is in dials, or -1.
func dialOf(k Knob) int {
	for i := range dials {
		if dials[i].Knob == k {
			return i
		}
	}
	return -1
}

// valid reports a value that the knob's option would refuse.
func (d *dial) valid(call string, v float64) error {
	var scratch config
	if err := d.check(v)(&scratch); err != nil {
		refused := err.(*ConfigError)
		return &ConfigError{call, refused.Got, refused.Want}
	}
	return nil
}

// WithSchedule has a knob follow a schedule: at step k it is s(k), in place of what its own option
// says. Values are those that this option takes; another one is a *ConfigError of the Step that it
// is for, which changes nothing. Of LearningRate it takes the place of WithLearningRate. With
// Precondition and WithInner, the schedule of the other solver is the caller's matter. The default
// is no schedule.
//
// A training that is loaded goes on at its step, by the schedules of the solver that it is loaded
// into. Save writes only which knobs have one.
func WithSchedule(k Knob, s Schedule) Option {
	return func(c *config) error {
		i := dialOf(k)
		if i < 0 || s == nil {
			return &ConfigError{"WithSchedule", fmt.Sprintf("knob %q, schedule nil: %v", k, s == nil),
				"LearningRate, Momentum, Damping, NormConstraint or L2Reg, and a schedule"}
		}
		d := &dials[i]
		v := s(1)
		if err := d.valid(fmt.Sprintf("WithSchedule of %s at step 1", k), v); err != nil {
			return err
		}
		c.schedules[i] = s
		if k == Momentum || k == Damping {
			c.rateOptions = append(c.rateOptions, d.option)
		}
		*d.of(c) = v
		return nil
	}
}

// turned is a knob that Set has turned.
type turned struct {
	is    bool
	value float64
}

// Set turns a knob, from the next Step on. Save writes it down. The value is one that the knob's
// option takes; see [Knob] for when it can be turned. The error is a *ConfigError, also for a knob
// that has a schedule.
func (s *Solver) Set(k Knob, v float64) error {
	if err := s.attached("Set"); err != nil {
		return err
	}
	return s.engine.set(k, v)
}

func (t *training[T]) set(k Knob, v float64) error {
	if err := t.calling.begin("Set"); err != nil {
		return err
	}
	defer t.calling.end()
	call := fmt.Sprintf("Set of %s", k)
	i := dialOf(k)
	if i < 0 {
		return &ConfigError{call, "no such knob", "LearningRate, Momentum, Damping, NormConstraint or L2Reg"}
	}
	if err := dials[i].valid(call, v); err != nil {
		return err
	}
	byRate := t.cfg.learningRate > 0
	switch {
	case t.cfg.schedules[i] != nil:
		return &ConfigError{call, "a knob with a schedule", "one or the other"}
	case k == Momentum && t.inner != nil:
		return &ConfigError{call, "a solver with WithInner", "the inner solver's own momentum"}
	case k == Damping && !byRate && t.control.lambda == 0:
		return &ConfigError{call, "a solver before its first step", "WithDamping"}
	case k == Damping && !byRate:
		t.control.lambda, t.control.gamma = v, startOfGamma(v, t.cfg.l2)
		return nil
	case dials[i].byRate && !byRate:
		return &ConfigError{call, "a solver without WithLearningRate", "that option from the start"}
	case k == L2Reg && t.cfg.standardises:
		return &ConfigError{call, "a solver without WithL2Reg, WithDamping and WithLearningRate",
			"one of these from the start"}
	}
	t.turned[i] = turned{true, v}
	return nil
}

// turn puts the knobs where they are to be at step k.
func (t *training[T]) turn(k int) error {
	for i := range dials {
		d := &dials[i]
		at := d.of(&t.cfg)
		switch s := t.cfg.schedules[i]; {
		case s != nil:
			v := s(k)
			if err := d.valid(fmt.Sprintf("WithSchedule of %s at step %d", d.Knob, k), v); err != nil {
				return err
			}
			*at = v
		case t.turned[i].is:
			*at = t.turned[i].value
		default:
			*at = *d.of(&t.start)
		}
	}
	if t.cfg.learningRate > 0 {
		t.control.lambda, t.control.gamma = t.cfg.damping, startOfGamma(t.cfg.damping, t.cfg.l2)
	}
	return nil
}
