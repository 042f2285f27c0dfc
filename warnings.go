package kfac

import "fmt"

// A Warning says what is legal and likely wrong. A solver makes each one once: see
// [Solver.Warnings].
type Warning struct {
	Kind  WarningKind
	Step  int    // at which it was noticed
	Param string // the parameter that it is about; empty if none
	What  string // what was seen, and what to try
}

// WarningKind says what a Warning is about.
type WarningKind string

const (
	// RecorderFailed: a Recorder has returned an error or panicked. The step was made. It is told
	// about the steps that follow too.
	RecorderFailed WarningKind = "recorder failed"
	// VanishingSteps: 20 updates in a row were shortened to a hundredth or less, or rejected
	// (Stats.Shrink, Stats.Rejected).
	VanishingSteps WarningKind = "vanishing steps"
	// LambdaAtBound: lambda was within twice its lowest or its highest value 20 times in a row,
	// where these were computed. It is between 1e-8 of the mean eigenvalue of the curvature and 1e4
	// times the largest sum of all that was seen.
	LambdaAtBound WarningKind = "lambda at a bound"
	// NoInputs: all inputs of a layer were zero in 20 RunAlls in a row, in the cases that its
	// factor A was estimated from.
	NoInputs WarningKind = "no inputs"
	// NoGradients: all sampled gradients at the outputs of a layer were zero in 20 RunAlls in a
	// row, in the cases that its factor G was estimated from. The layer is dead.
	NoGradients WarningKind = "no gradients"
	// OffsetInputs: the mean of a layer's inputs is a hundred times their spread, or more. It is
	// about inputs that are data, where they are not standardised; see WithDamping.
	OffsetInputs WarningKind = "offset inputs"
)

// meanings says what a kind of warning is, with its detail.
var meanings = map[WarningKind]string{
	VanishingSteps: "20 updates in a row were shortened to a hundredth or less, or rejected: the gradients are " +
		"mostly noise (take larger batches), or WithNormConstraint is too small%s",
	LambdaAtBound: "lambda has stayed at its bound, %s: nothing is left to gain, or the gradients are not those of " +
		"the cost; at the lowest, the scales of inputs or weights may differ by many orders",
	NoInputs: "all its inputs were zero in 20 batches in a row: is what is before it dead, or the data empty?%s",
	NoGradients: "no gradient has reached it in 20 batches in a row: are all rectifiers behind it off, or is a " +
		"weight behind it zero?%s",
	OffsetInputs: "the mean of its inputs is %s times their spread: subtract the mean from the data, or leave out " +
		"the option that keeps inputs from being standardised (see WithDamping)",
}

func (w Warning) String() string {
	if w.Param != "" {
		return fmt.Sprintf("parameter %q: %s", w.Param, w.What)
	}
	return w.What
}
