package kfac

import (
	"fmt"
	"runtime/debug"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A job is an inversion that is in progress or waits for its step.
type job[T program.Float] struct {
	averages  *curvature.Averages[T]
	inversion *curvature.Inversion[T]
	due       int           // first step that uses the inverse
	done      chan struct{} // closed when the inversion has ended
	panicked  error
	exchanged bool // all ranks know what has come of it

	collected bool
	inverse   curvature.Inverse[T] // nil if err is not nil
	err       error
}

func (j *job[T]) run() {
	defer close(j.done)
	defer func() {
		if r := recover(); r != nil {
			j.panicked = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	j.inversion.Run()
}

// collect waits for the inverse and returns it.
func (j *job[T]) collect() (curvature.Inverse[T], error) {
	<-j.done
	if !j.collected {
		j.collected = true
		if j.panicked != nil {
			j.err = j.panicked
		} else {
			j.inverse, j.err = j.inversion.Inverse()
		}
	}
	return j.inverse, j.err
}
