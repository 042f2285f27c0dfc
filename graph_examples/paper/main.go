// Paper is the benchmark of Martens & Grosse (2015, section 13): the deep autoencoders of MNIST and
// CURVES, and one of Fashion-MNIST in place of FACES. It trains them by K-FAC with the
// block-diagonal and the block-tridiagonal inverse, each with and without momentum. Beside K-FAC
// are the paper's baseline, Nesterov's accelerated gradient, and Adam.
//
//	go run ./graph_examples/paper
//	go run ./graph_examples/paper -authors
//	go run ./graph_examples/paper -full -problem curves
//
// The first is the small problem: 10,000 digits, batches of 1000, 200 updates. The second has the
// settings of the authors' code for K-FAC. The third takes all cases, with batches that grow to the
// whole set at update 500.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/batch"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/reconstruct"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/report"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// settings are those of the command line. A batch is one RunAll; with grow an update takes several.
type settings struct {
	trial.Settings
	problem string
	authors bool
	full    bool
}

// fullAt is the update at which the growing mini-batch has become the whole training set (Martens &
// Grosse 2015, section 13).
const fullAt = 500

// goals are the errors of which the table says when they were reached.
var goals = []float64{50, 40, 30, 20, 15, 10, 8, 6, 5, 4, 3, 2, 1}

func main() {
	var s settings
	defaults := trial.Settings{
		Steps: 200, Batch: 1000, Cases: 10000, Eval: 10000, Every: 10,
		Optimizers: methods, Others: others, Rates: rates,
		Seed: 1, Out: "out/paper", DataUsage: trial.MNISTUsage, Shares: true,
		Flags: func(f *flag.FlagSet) {
			f.StringVar(&s.problem, "problem", "mnist", "mnist, curves or fashion")
			f.BoolVar(&s.authors, "authors", false, "run K-FAC with the settings of the authors' code")
			f.BoolVar(&s.full, "full", false,
				"use all cases (-cases does not count), and batches that grow to all of them at update 500")
		},
	}
	run := func(ctx context.Context, ts trial.Settings) error {
		s.Settings = ts
		return compare(ctx, s)
	}
	os.Exit(trial.Main("paper", os.Args[1:], defaults, run, os.Stderr))
}

// compare trains with one method after the other and shows what each reached, even if an error or
// an interrupt ends it.
func compare(ctx context.Context, s settings) error {
	p, err := problemNamed(s.problem)
	if err != nil {
		return err
	}
	data, test, err := p.load(s.Data)
	if err != nil {
		return err
	}
	if s.full && s.Machine == "kfac" {
		return errors.New("-full with -vm kfac: only a tape machine adds up the gradients of chunks for the baselines")
	}
	if !s.full {
		data = firstOf(data, s.Cases)
	}
	s.Cases, s.Eval = data.Len(), min(s.Eval, data.Len())
	if err := os.MkdirAll(s.Out, 0o755); err != nil {
		return fmt.Errorf("folder for journals and pictures: %w", err)
	}
	curves, err := trial.Compare(ctx, s.Settings, s.Entrants(grid), s.Bar(), func(run *trial.Run) error {
		return p.train(ctx, run, s, data, firstOf(test, s.Eval))
	})
	if !s.First() {
		return err
	}
	return errors.Join(err, show(s, curves))
}

// train runs the training loop of one method.
func (p problem) train(ctx context.Context, run *trial.Run, s settings, data, test reconstruct.Images) error {
	layers := initialLayers(p.sizes, s.Seed)
	m := p.newModel(layers, s.OwnBatch())
	if _, err := gorgonia.Grad(m.cost, m.params...); err != nil {
		return err
	}
	solver, err := newSolver(run.Entrant, s, m, run.Watch()...)
	if err != nil {
		return err
	}
	vm, err := trial.NewMachine(s.Machine, solver, m.cost, m.params)
	if err != nil {
		return err
	}
	defer vm.Close()
	journal, err := newJournal(s, run.Name)
	if err != nil {
		return err
	}
	defer journal.close()
	decoder := p.newDecoder(layers)
	defer decoder.Close()
	measured := firstOf(data, s.Eval)
	growing := kfac.GrowingBatch{First: s.Batch, All: data.Len(), FullAt: fullAt}
	batches := batch.NewSampler(data.Len(), s.Batch, s.Seed)
	chunksOf := func(update int) int {
		if s.full {
			return growing.Chunks(update, s.Batch)
		}
		return 1
	}
	first := 1
	if err := run.Resume(solver, func(update int) {
		for range chunksOf(update) {
			batches.Next()
		}
		first = update + 1
	}); err != nil {
		return err
	}
	if err := run.Record(decoder.Error(measured)); err != nil {
		return err
	}
	for update := first; run.More(ctx); update++ {
		chunks := chunksOf(update)
		var cost float64
		for chunk := range chunks {
			data.CopyPixels(m.pixels, trial.Share(s.Settings, batches.Next()))
			run.Start()
			if err := vm.RunAll(); err != nil {
				return err
			}
			cost += float64(m.cost.Value().Data().(float32)) / float64(chunks)
			if chunk < chunks-1 {
				err = accumulate(solver, m.params)
			} else {
				err = step(solver, m.params, chunks)
			}
			if err != nil {
				return err
			}
			vm.Reset()
			if chunk < chunks-1 {
				run.Pause()
			}
		}
		run.Stop()
		r := newRow(update, chunks*s.Batch, cost, solver)
		r.seconds = run.Seconds()
		if run.Due(ctx) {
			if err := measure(&r, solver, decoder, measured, test); err != nil {
				return err
			}
			if err := errors.Join(run.Record(r.trainError, nil), run.Save(solver)); err != nil {
				return err
			}
		}
		if err := journal.write(r); err != nil {
			return err
		}
	}
	return nil
}

// measure fills in the errors, with the weights being trained and with the averaged ones.
func measure(r *row, solver gorgonia.Solver, decoder *reconstruct.Decoder, data, test reconstruct.Images) (err error) {
	if r.trainError, err = decoder.Error(data); err != nil {
		return err
	}
	if r.testError, err = decoder.Error(test); err != nil {
		return err
	}
	k, ok := solver.(*kfac.Solver)
	if !ok {
		return nil
	}
	restore, err := k.UseAverage()
	if err != nil {
		return err
	}
	defer restore()
	if r.averageTrain, err = decoder.Error(data); err != nil {
		return err
	}
	r.averageTestError, err = decoder.Error(test)
	return err
}

// show prints the tables and writes the plot.
func show(s settings, curves []*trial.Curve) error {
	size := fmt.Sprintf("batches of %d", s.Batch)
	if s.full {
		size = fmt.Sprintf("batches from %d cases to all %d at update %d", s.Batch, s.Cases, fullAt)
	}
	fmt.Printf("\n%s: squared reconstruction error per case on the first %d of %d training cases; %s, seed %d%s\n\n",
		s.problem, s.Eval, s.Cases, size, s.Seed, s.Processes())
	if s.Grid {
		return report.Grid(os.Stdout, curves)
	}
	if err := report.Table(os.Stdout, goals, curves); err != nil {
		return err
	}
	fmt.Println()
	if err := besideAuthors(os.Stdout, s.problem, s.full, curves); err != nil {
		return err
	}
	plot := filepath.Join(s.Out, s.problem+".png")
	title := fmt.Sprintf("%s autoencoder, %s", strings.ToUpper(s.problem), size)
	const quantity = "squared reconstruction error per case"
	seconds, err := report.Seconds(filepath.Join(s.Out, s.problem+"-seconds"), title, quantity, curves)
	fmt.Printf("\nError against updates and seconds: %s\nAgainst seconds alone: %s\nEvery update of every method: %s\n",
		plot, strings.Join(seconds, ", "), filepath.Join(s.Out, "*.csv"))
	return errors.Join(err, report.Plot(plot, title, quantity, curves))
}
