package trial

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/schollz/progressbar/v3"
)

// A Run accompanies the training loop of one optimizer:
//
//	run.Record(firstError)
//	for run.More(ctx) {
//		... // fetch the batch
//		run.Start()
//		... // one update
//		run.Stop()
//		if run.Due(ctx) {
//			run.Record(...)
//		}
//	}
//	curve := run.Finish()
//
// It counts the updates, takes the time between Start and Stop, and keeps a progress bar.
type Run struct {
	settings Settings

	// State.
	curve   Curve
	started time.Time
	bar     *progressbar.ProgressBar
}

// NewRun begins the run of the named optimizer at the given learning rate; the progress bar goes to bar.
func NewRun(s Settings, optimizer string, rate float64, bar io.Writer) *Run {
	return &Run{
		settings: s,
		curve:    Curve{Name: optimizer, Rate: rate},
		bar: progressbar.NewOptions(s.Steps,
			progressbar.OptionSetWriter(bar),
			progressbar.OptionSetWidth(30),
			progressbar.OptionSetDescription(optimizer),
			progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(200*time.Millisecond),
		),
	}
}

// More reports whether another update is to follow: neither updates nor seconds are used up, the error is finite, and ctx
// is not done.
func (r *Run) More(ctx context.Context) bool {
	return ctx.Err() == nil && !r.curve.Diverged && !r.spent()
}

func (r *Run) spent() bool {
	s := r.settings
	return r.curve.Updates >= s.Steps || s.Seconds > 0 && r.curve.Seconds >= s.Seconds
}

// Start starts the watch at the beginning of an update.
func (r *Run) Start() { r.started = time.Now() }

// Stop stops the watch and counts the update.
func (r *Run) Stop() {
	r.curve.Seconds += time.Since(r.started).Seconds()
	r.curve.Updates++
	_ = r.bar.Add(1) // a bar that cannot be drawn is no reason to stop training
}

// Due reports whether the error is to be measured now: at every s.Every updates and after the last one.
func (r *Run) Due(ctx context.Context) bool {
	return r.curve.Updates%r.settings.Every == 0 || !r.More(ctx)
}

// Record adds a measured error to the curve. One that is infinite or not a number ends the run.
func (r *Run) Record(err float64) {
	if math.IsNaN(err) || math.IsInf(err, 0) {
		r.curve.Diverged = true
		return
	}
	r.curve.Points = append(r.curve.Points, Point{Updates: r.curve.Updates, Seconds: r.curve.Seconds, Error: err})
	r.bar.Describe(fmt.Sprintf("%s, error %.4g", r.curve.Name, err))
}

// Finish ends the progress bar and returns the curve.
func (r *Run) Finish() *Curve {
	_ = r.bar.Exit()
	return &r.curve
}
