package trial

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/gorgonia-kfac/kfac/tensorboard"
)

// A Run accompanies the training loop of one entrant:
//
//	run.Record(measure())
//	for run.More(ctx) {
//		... // fetch the batch
//		run.Start()
//		... // one update
//		run.Stop()
//		if run.Due(ctx) {
//			run.Record(measure())
//		}
//	}
//
// It counts the updates, takes the time between Start and Stop, and keeps a progress bar, which
// tells the seconds left. By Watch it sees what K-FAC does.
type Run struct {
	Entrant
	settings Settings

	// State.
	curve   Curve
	started time.Time
	until   float64     // seconds of training that it goes on to after its updates; 0 before
	wait    func() bool // until until is set; false: it is not to go on
	bar     *progressbar.ProgressBar
	out     io.Writer           // of the bar
	board   *tensorboard.Writer // nil if there is none
}

func newRun(s Settings, e Entrant, bar io.Writer) *Run {
	return &Run{
		Entrant:  e,
		settings: s,
		curve:    Curve{Entrant: e, Steps: s.Steps},
		bar: progressbar.NewOptions(s.Steps,
			progressbar.OptionSetWriter(bar),
			progressbar.OptionSetWidth(30),
			progressbar.OptionSetDescription(e.Name),
			progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(200*time.Millisecond),
		),
		out: bar,
	}
}

// More reports whether another update is to follow. It does while neither updates nor seconds are
// used up, the error is finite, and ctx is not done. When the updates are used up it waits until
// the others have made theirs, since a run may then go on.
func (r *Run) More(ctx context.Context) bool {
	if r.ended(ctx) || !r.spent() {
		return !r.ended(ctx)
	}
	return r.until == 0 && r.wait() && !r.ended(ctx) && !r.spent()
}

func (r *Run) ended(ctx context.Context) bool { return ctx.Err() != nil || r.curve.Diverged }

func (r *Run) spent() bool {
	s := r.settings
	if s.Seconds > 0 && r.curve.Seconds >= s.Seconds {
		return true
	}
	if r.until > 0 {
		return r.curve.Seconds >= r.until
	}
	return r.curve.Updates >= s.Steps
}

// Start starts the watch.
func (r *Run) Start() { r.started = time.Now() }

// Pause stops the watch, in the middle of an update that goes on with Start.
func (r *Run) Pause() { r.curve.Seconds += time.Since(r.started).Seconds() }

// Stop stops the watch and counts the update.
func (r *Run) Stop() {
	r.Pause()
	r.curve.Updates++
	if r.until == 0 {
		_ = r.bar.Add(1) // a bar that cannot be drawn is no reason to stop training
	}
}

// atFirst is the number of updates after each of which the error is measured.
const atFirst = 10

// Due reports whether the error is to be measured now: after each of the first updates, every
// s.Every updates, and after the last one.
func (r *Run) Due(ctx context.Context) bool {
	updates := r.curve.Updates
	return updates <= atFirst || updates%r.settings.Every == 0 || r.ended(ctx) || r.spent()
}

// Record adds a measured error to the curve. If an error prevented the measurement, it passes that
// on. A value that is infinite or NaN ends the run.
func (r *Run) Record(value float64, err error) error {
	switch {
	case err != nil:
		return err
	case math.IsNaN(value) || math.IsInf(value, 0):
		r.curve.Diverged = true
		return nil
	}
	r.curve.Points = append(r.curve.Points, Point{Updates: r.curve.Updates, Seconds: r.curve.Seconds, Error: value})
	r.describe(fmt.Sprintf("error %.4g", value))
	if r.board != nil {
		return r.board.Scalar("error", r.curve.Updates, value)
	}
	return nil
}

// Seconds is the training time so far.
func (r *Run) Seconds() float64 { return r.curve.Seconds }
