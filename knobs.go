package kfac

import (
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
	// WeightDecay is that of WithWeightDecay.
	WeightDecay Knob = "weight decay"
)

// knobs is a number for each dial.
const knobs = 6

// largest bounds settings that have a unit. Their products with numbers near 1 are finite in
// float32.
const largest = 1e30
