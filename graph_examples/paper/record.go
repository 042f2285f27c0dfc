package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
)

// A row is one update of a method. What is not known is NaN, and empty in the file.
type row struct {
	update, cases                  int
	seconds                        float64 // of training so far, measurements excluded
	cost                           float64 // of the mini-batch, before the update
	alpha, mu, gamma, lambda, rho  float64 // of K-FAC
	trainError, testError          float64 // after the update: squared error per case
	averageTrain, averageTestError float64 // the same with the averaged weights
}

var header = []string{"update", "cases", "seconds", "cost", "alpha", "mu", "gamma", "lambda", "rho",
	"train_error", "test_error", "train_error_averaged", "test_error_averaged"}

func (r row) fields() []string {
	fields := []string{strconv.Itoa(r.update), strconv.Itoa(r.cases)}
	for _, v := range []float64{
		r.seconds, r.cost, r.alpha, r.mu, r.gamma, r.lambda, r.rho,
		r.trainError, r.testError, r.averageTrain, r.averageTestError,
	} {
		text := ""
		if !math.IsNaN(v) {
			text = strconv.FormatFloat(v, 'g', 6, 64)
		}
		fields = append(fields, text)
	}
	return fields
}

// newRow is a row of an update that was made by solver.
func newRow(update, cases int, cost float64, solver gorgonia.Solver) row {
	nan := math.NaN()
	r := row{update: update, cases: cases, cost: cost, alpha: nan, mu: nan, gamma: nan, lambda: nan, rho: nan,
		trainError: nan, testError: nan, averageTrain: nan, averageTestError: nan}
	if k, ok := solver.(*kfac.Solver); ok {
		st := k.Stats()
		r.alpha, r.mu, r.gamma, r.lambda = st.LearningRate, st.Momentum, st.Gamma, st.Damping
		if st.Rho != 0 {
			r.rho = st.Rho
		}
	}
	return r
}

// A journal writes the rows of a method to a file, as they come.
type journal struct {
	file *os.File
	csv  *csv.Writer
}

func newJournal(s settings, method string) (*journal, error) {
	path := filepath.Join(s.Out, method+".csv")
	if !s.First() {
		path = os.DevNull
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &journal{f, csv.NewWriter(f)}
	return j, j.csv.Write(header)
}

func (j *journal) write(r row) error {
	if err := j.csv.Write(r.fields()); err != nil {
		return err
	}
	j.csv.Flush()
	return j.csv.Error()
}

func (j *journal) close() error { return errors.Join(j.csv.Error(), j.file.Close()) }
