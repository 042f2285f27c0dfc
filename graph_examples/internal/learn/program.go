package learn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/report"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// A Program compares optimizers on a task.
type Program struct {
	Name     string
	Loss     string // what is measured, with its unit
	Defaults trial.Settings
	Grid     map[string][]float64 // the learning rates that -grid tries; nil: many
	Task     func(s *trial.Settings) (Task, error)
}

// Optimizers are what every program offers.
var Optimizers = []string{"kfac", "adam", "momentum", "rmsprop"}

// Rates are learning rates for the baselines; K-FAC has its default.
func Rates(adam, momentum, rmsprop float64) map[string]float64 {
	return map[string]float64{"kfac": 0, "adam": adam, "momentum": momentum, "rmsprop": rmsprop}
}

// WholeSet are settings for training on a small set of cases, all of them in every batch.
func WholeSet(name string, cases, steps int, rates map[string]float64) trial.Settings {
	return trial.Settings{
		Steps:      steps,
		Batch:      cases,
		Cases:      cases,
		Eval:       cases,
		Every:      1,
		Optimizers: Optimizers,
		Rates:      rates,
		Seed:       1,
		Out:        "out/" + name,
		Dtype:      "float32",
	}
}

// manyRates suit a training that takes no time.
var manyRates = map[string][]float64{
	"adam":     {1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1},
	"momentum": {1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.5, 1, 2, 5},
	"rmsprop":  {1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2},
}

// Main is the whole of a program's main.
func (p Program) Main() {
	os.Exit(trial.Main(p.Name, os.Args[1:], p.Defaults, p.Run, os.Stderr))
}

// Run compares, and shows what each optimizer reached, also after an error or an interrupt.
func (p Program) Run(ctx context.Context, s trial.Settings) error {
	task, err := p.Task(&s)
	if err != nil {
		return err
	}
	_, err = p.Compare(ctx, s, task, p.Name)
	return err
}

// Compare trains the model of task with every optimizer of s, prints a table and writes a plot,
// NAME.png. It returns the model with the lowest loss.
func (p Program) Compare(ctx context.Context, s trial.Settings, task Task, name string) (*Model, error) {
	if err := s.MakeOut(); err != nil {
		return nil, err
	}
	if name != p.Name { // one of several tasks, of which each has a file, as far as it has begun
		s.Save, s.Resume = fileOf(s.Save, name), fileOf(s.Resume, name)
		if _, err := os.Stat(s.Resume); errors.Is(err, os.ErrNotExist) {
			s.Resume = ""
		}
	}
	grid := p.Grid
	if grid == nil {
		grid = manyRates
	}
	best, curves, err := task.Curves(ctx, s, s.Entrants(grid), s.Bar())
	if !s.First() {
		return best, err
	}
	return best, errors.Join(err, show(os.Stdout, s, curves, name, p.Loss))
}

// fileOf is the file of a task, or "" if there is none.
func fileOf(path, task string) string {
	if path == "" {
		return ""
	}
	return path + "." + task
}

// Curves trains the model of t with each of the entrants. It returns the model with the lowest loss
// at the end, and the curves of the losses. Progress bars go to bar.
func (t Task) Curves(
	ctx context.Context, s trial.Settings, entrants []trial.Entrant, bar io.Writer,
) (*Model, []*trial.Curve, error) {
	var best *Model
	lowest := math.Inf(1)
	curves, err := trial.Compare(ctx, s, entrants, bar, func(run *trial.Run) error {
		m, loss, err := t.Train(ctx, run, s)
		if loss < lowest {
			best, lowest = m, loss
		}
		return err
	})
	return best, curves, err
}

func show(w io.Writer, s trial.Settings, curves []*trial.Curve, name, loss string) error {
	fmt.Fprintf(w, "\n%s: training loss (%s) on the first %d of %d cases; batch %d, %s, seed %d%s\n\n",
		name, loss, s.Eval, s.Cases, s.Batch, s.Dtype, s.Seed, s.Processes())
	if s.Grid {
		return errors.Join(report.Grid(w, curves), bestRates(w, curves))
	}
	if err := report.Losses(w, curves); err != nil {
		return err
	}
	file := filepath.Join(s.Out, name+".png")
	fmt.Fprintf(w, "\nLoss against updates and seconds: %s\n", file)
	return report.Plot(file, fmt.Sprintf("%s, batches of %d, %s", name, s.Batch, s.Dtype), loss, curves)
}

// bestRates names, for each optimizer of a grid, the learning rate with the lowest loss at the end.
func bestRates(w io.Writer, curves []*trial.Curve) error {
	winners := map[string]*trial.Curve{}
	for _, c := range curves {
		last, ok := c.Last()
		if !ok || c.Diverged {
			continue
		}
		if lead := winners[c.Name]; lead != nil {
			if leader, _ := lead.Last(); leader.Error <= last.Error {
				continue
			}
		}
		winners[c.Name] = c
	}
	fmt.Fprint(w, "\nBest:")
	for _, name := range slices.Sorted(maps.Keys(winners)) {
		fmt.Fprintf(w, " %s=%g", name, winners[name].Rate)
	}
	_, err := fmt.Fprintln(w)
	return err
}
