package kfac

import "math"

// evidence sums up how long the steps should have been, by the batches after them.
//
// A step fits the noise of its own batch in two ways: the gradient contains it, and Delta, which
// is made from this gradient, has a large curvature on just these cases. The two errors are in
// opposite directions, and neither is small if a batch has fewer cases than the model has
// parameters. The next batch is independent of the step. By the quadratic model, its gradient
// where the step delta0 began has the slope grad^T delta0 - delta0^T F delta0 along it. So the best
// multiple of delta0 is 1 - grad^T delta0 / delta0^T F delta0. Both numbers are at hand, because
// delta0 is a direction of the next step (section 7).
//
// The sums are about the steps as the quadratic model had proposed them, before they were
// multiplied by a factor: gain is minus the slope, and bend the curvature. gain / bend is the best
// factor on all of them. It is the part of the steps that is signal: James & Stein's factor.
type evidence struct {
	gain, bend float64
	steps      int // that were summed up

	// The gradient's slope is taken along the heading, the fading sum of the steps, which has the
	// sum of the factors as its weight. fit is what the weights have of the noise in it: the
	// curvature of the updates along themselves.
	fit, weight float64
}

// turned returns the evidence with an update in the heading that has this curvature and was made by
// this factor; see turn.
func (e evidence) turned(bend, factor float64) evidence {
	e.fit = (1-factor)*e.fit + bend
	e.weight = (1-factor)*e.weight + factor
	return e
}

// stepped returns the evidence after a step of alpha, which takes back as much of the fit too, and
// after this curvature of the previous update, a number up to 0, that was taken back.
func (e evidence) stepped(alpha, back float64) evidence {
	e.fit = (e.fit + back) * (1 - math.Max(0, math.Min(alpha, 1)))
	return e
}

// stop forgets the heading.
func (e *evidence) stop() { e.fit, e.weight = 0, 0 }

// Older steps count less: the sums are about the last half of the steps, or shortWindow of them. A
// shorter window sees sooner that there is nothing but noise left, and is too careful for the steps
// that fit the data: what is best for the next step is less than what is best for a training.
const shortWindow = 60

// with returns the evidence with one more step. No step counts as one of a larger curvature than
// limit, and the gain does not fall below a part of the curvature, so that a few huge steps at the
// start do not outweigh all others.
func (e evidence) with(gain, bend, limit float64) evidence {
	if !(bend > 0) || math.IsInf(bend, 0) || math.IsNaN(gain) || math.IsInf(gain, 0) {
		return e
	}
	weight := math.Min(1, limit/bend)
	keep := 1 - 1/(shortWindow+float64(e.steps)/2)
	e.gain, e.bend, e.steps = keep*e.gain+weight*gain, keep*e.bend+weight*bend, e.steps+1
	e.gain = math.Max(e.gain, -mostDebt*e.bend)
	return e
}

// tooWrong returns how far below zero the gain of a heading may be where the step before has this
// curvature. Noise hardly ever gets there: it has the standard deviation that is beside the
// curvature here. Beyond, the heading has updates for which the quadratic model did not hold: they
// have thrown the net over a kink or onto a plateau. That says nothing about the steps from there.
func tooWrong(bend, unit float64, cases int) float64 {
	return astray * (bend + math.Sqrt(unit*bend/float64(cases)))
}

// share returns the part of a step from a batch with this number of cases that is signal. The
// first steps are on the safe side by a standard error, which is divided by their number. A slope
// has the variance unit * bend / cases: unit is the variance of the residuals, where F has 1.
func (e evidence) share(cases int, unit float64) float64 {
	if !(e.bend > 0) {
		return trustedPart(cases)
	}
	deviation := math.Sqrt(unit * e.bend / float64(cases))
	part := (e.gain - deviation/float64(e.steps)) / e.bend
	if !(part > leastPart) { // true for NaN too
		return leastPart
	}
	return math.Min(part, 1)
}

// trustedPart returns the factor on a step of which nothing is known but its number of cases.
func trustedPart(cases int) float64 { return float64(cases) / (float64(cases) + halfTrusted) }

const (
	halfTrusted = 16.0      // a first step from this many cases is made by half
	leastPart   = 1.0 / 200 // smallest factor on a step
	mostDebt    = 1.0 / 2   // part of the curvature that the gain may be below zero
	astray      = 5.0       // times a step's curvature and its slope's standard deviation are no noise
)
