// Suite trains small models of many kinds with K-FAC as it is by default, and with Gorgonia's Adam
// and Momentum at the learning rates that are the best for each: the same initial weights, batches
// and seed. It prints a table of the training losses, updates and seconds in Markdown. The tasks
// are in tasks.go, with the best rates; -grid finds these again.
//
//	go run ./graph_examples/suite
//	go run ./graph_examples/suite -grid
//	go run ./graph_examples/suite -tasks dropout,gru
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/report"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

const most = 1 << 20 // more than any task has of anything

var names string // of the tasks to run, separated by commas

// defaults are upper bounds: each task has settings of its own.
var defaults = trial.Settings{
	Steps:      most,
	Batch:      most,
	Cases:      most,
	Eval:       most,
	Every:      5,
	Optimizers: []string{"kfac", "adam", "momentum"},
	Rates:      map[string]float64{"kfac": 0, "adam": 0, "momentum": 0},
	Seed:       1,
	Out:        "out/suite",
	Dtype:      "float32",
	Flags: func(f *flag.FlagSet) {
		f.StringVar(&names, "tasks", "", "tasks to run, by how their names begin (default: all)")
		f.VisitAll(func(bound *flag.Flag) {
			if bound.DefValue == strconv.Itoa(most) {
				bound.DefValue = "that of each task, which is also the most"
			}
		})
	},
}

func main() { os.Exit(trial.Main("suite", os.Args[1:], defaults, run, os.Stderr)) }

// run trains on every task, and shows what was reached, also after an error or an interrupt.
func run(ctx context.Context, s trial.Settings) error {
	if err := s.MakeOut(); err != nil {
		return err
	}
	var results []result
	err := each(func(t task) error {
		if ctx.Err() != nil {
			return nil
		}
		r, err := t.run(ctx, s)
		results = append(results, r)
		return err
	})
	if len(results) == 0 {
		return err
	}
	show := markdown
	if s.Grid {
		show = grid
	}
	return errors.Join(err, show(os.Stdout, results))
}

// each calls do with the tasks that are asked for, until the first error.
func each(do func(task) error) error {
	wanted := strings.Split(names, ",")
	found := false
	for _, t := range tasks {
		if !slices.ContainsFunc(wanted, func(prefix string) bool { return strings.HasPrefix(t.name, prefix) }) {
			continue
		}
		found = true
		if err := do(t); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	if !found {
		var all []string
		for _, t := range tasks {
			all = append(all, t.name)
		}
		return fmt.Errorf("-tasks: no task has a name that begins with any of %s; there are %s", names,
			strings.Join(all, ", "))
	}
	return nil
}

// run trains with every optimizer and draws the losses.
func (t task) run(ctx context.Context, s trial.Settings) (result, error) {
	own := t.settings(s)
	problem, err := t.problem(&own)
	if err != nil {
		return result{}, err
	}
	_, curves, err := problem.Curves(ctx, own, own.Entrants(t.grid()), io.Discard)
	r := result{task: t, settings: own, curves: curves}
	if err != nil || s.Grid {
		return r, err
	}
	title := fmt.Sprintf("%s, batches of %d", t.name, own.Batch)
	return r, report.Plot(filepath.Join(s.Out, t.name+".png"), title, "training loss", curves)
}
