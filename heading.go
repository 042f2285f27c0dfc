package kfac

import (
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A heading is the fading sum of a parameter's updates. An update by the factor f of what the
// quadratic model had proposed is made of signal by about f. So the weights have still 1 - f of the
// way to go that older updates pointed at, and the heading keeps as much of them. Where steps are
// made whole, it is the previous update alone; where a hundredth is signal, it is that of the last
// hundred steps. Their noise cancels, so that the next gradient's slope along the heading tells
// signal from noise about ten times as well as the slope along the previous update.
type heading[T program.Float] struct {
	apart bool // it is not the previous update
	sum   []T  // where it is apart
}

// turn brings the heading on by an update that is made by a factor of what was proposed. A factor
// of 0 says that the update is none of the model's.
func (h *heading[T]) turn(update, previous []T, factor float64) {
	if factor == 1 {
		h.apart = false
		return
	}
	if !h.apart {
		h.sum, h.apart = append(h.sum[:0], previous...), true
	}
	if factor == 0 {
		return
	}
	parallel.For(len(update), parallel.Grain, func(from, to int) {
		linalg.Scale(T(1-factor), h.sum[from:to])
		linalg.Axpy(1, update[from:to], h.sum[from:to])
	})
}

// along returns the heading.
func (h *heading[T]) along(previous []T) []T {
	if h.apart {
		return h.sum
	}
	return previous
}
