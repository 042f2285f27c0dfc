package trial

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/tensorboard"
)

// train runs a training loop, with an event file where there is to be one.
func (r *Run) train(loop func(*Run) error) (err error) {
	if r.settings.Board != "" && r.settings.First() {
		name := r.Name
		if r.settings.Grid {
			name = fmt.Sprintf("%s-%g", r.Name, r.Rate)
		}
		if r.board, err = tensorboard.Create(filepath.Join(r.settings.Board, name)); err != nil {
			return fmt.Errorf("event file: %w", err)
		}
		defer func() { err = errors.Join(err, r.board.Close()) }()
	}
	return loop(r)
}

// Watch returns the options by which a run sees what K-FAC does: for the progress bar, for
// warnings, and for TensorBoard; and by which K-FAC knows the other processes.
func (r *Run) Watch() []kfac.Option {
	options := []kfac.Option{kfac.WithRecorder(watching{r})}
	if r.settings.world != nil {
		options = append(options, kfac.WithCommunicator(r.settings.world))
	}
	if r.board != nil {
		options = append(options, kfac.WithRecorder(r.board))
	}
	if r.settings.Board != "" {
		options = append(options, kfac.WithLayerStats(r.settings.Every))
	}
	return options
}

// watching shows a run what each step did.
type watching struct{ run *Run }

func (w watching) Record(s kfac.Stats) error {
	w.run.describe(fmt.Sprintf("loss %.4g, lambda %.2g", s.Cost, s.Damping))
	for _, warning := range s.Warnings {
		fmt.Fprintf(w.run.out, "\n%s: warning at step %d: %v\n", w.run.Name, warning.Step, warning)
	}
	return nil
}

// describe writes in front of the progress bar.
func (r *Run) describe(what string) {
	if r.until == 0 {
		r.bar.Describe(r.Name + ", " + what)
	}
}
