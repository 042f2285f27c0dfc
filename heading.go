package kfac

import (
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// The heading is the fading sum of a parameter's updates. An update by the factor f of what the
// quadratic model had proposed is made of signal by about f. So the weights have still 1 - f of the
// way to go that older updates pointed at, and the heading keeps as much of them. Where steps are
// made whole, it is the previous update alone; where a hundredth is signal, it is that of the last
// hundred steps. Their noise cancels, so that the next gradient's slope along the heading tells the
// signal from the noise about ten times as well as the slope along the previous update.

// turn brings the heading on by an update that is made by a factor of what was proposed. A factor
// of 0 says that the update is none of the model's.
func (p *parameter[T]) turn(update []T, factor float64) {
	if factor == 1 {
		p.giveBack(p.heading)
		p.heading = nil
		return
	}
	if p.heading == nil { // it was the previous update
		p.heading = p.borrow()
		copy(p.heading, p.previous)
	}
	if factor == 0 {
		return
	}
	parallel.For(len(update), parallel.Grain, func(from, to int) {
		linalg.Scale(T(1-factor), p.heading[from:to])
		linalg.Axpy(1, update[from:to], p.heading[from:to])
	})
}

// stop forgets the previous update and the heading.
func (p *parameter[T]) stop() {
	clear(p.previous)
	p.giveBack(p.heading)
	p.heading = nil
}

// slopeOfHeading returns grad^T heading.
func slopeOfHeading[T program.Float](params []*parameter[T]) (slope float64) {
	for _, p := range params {
		if !p.given {
			continue
		}
		along := p.heading
		if along == nil {
			along = p.previous
		}
		slope += linalg.Sum(len(along), func(from, to int) float64 {
			return linalg.Dot64(p.grad[from:to], along[from:to])
		})
	}
	return slope
}
