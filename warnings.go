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
)

func (w Warning) String() string {
	if w.Param != "" {
		return fmt.Sprintf("parameter %q: %s", w.Param, w.What)
	}
	return w.What
}
