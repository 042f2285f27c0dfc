package learn

import (
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/batch"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// Rows are cases that do not depend on each other. A row of X and one of Y are the values of a case
// in the first and the second input.
type Rows struct {
	X, Y [][]float64
}

// meterBatch is the number of cases that the loss is measured on at once.
const meterBatch = 250

// Task trains a model on the first s.Cases of r and measures the loss on the first s.Eval of them,
// in whole batches. It lowers settings that are too large for r.
func (r Rows) Task(s *trial.Settings, model func(Options) *Model) Task {
	s.Cases = min(s.Cases, len(r.X))
	s.Batch = min(s.Batch, s.Cases)
	s.Eval = min(s.Eval, s.Cases)
	t := Task{Model: model, WalkBatch: min(s.Eval, meterBatch)}
	t.WalkBatches = s.Eval / t.WalkBatch
	s.Eval = t.WalkBatch * t.WalkBatches
	settings := *s
	t.Draw = func(m *Model) func() {
		batches := batch.NewSampler(settings.Cases, settings.Batch, settings.Seed)
		return func() { r.load(m, trial.Share(settings, batches.Next())) }
	}
	t.Walk = func(m *Model) func() {
		first := 0
		return func() {
			cases := make([]int, t.WalkBatch)
			for i := range cases {
				cases[i] = first + i
			}
			r.load(m, cases)
			first += len(cases)
		}
	}
	return t
}

func (r Rows) load(m *Model, cases []int) {
	for row, i := range cases {
		Put(m.Inputs[0], row, r.X[i]...)
		if len(m.Inputs) > 1 {
			Put(m.Inputs[1], row, r.Y[i]...)
		}
	}
}

// OneHot is the unit vector of n numbers with its 1 at i.
func OneHot(n, i int) []float64 {
	v := make([]float64, n)
	v[i] = 1
	return v
}

// Digits are the first n MNIST training digits, 28 x 28 pixels in [0, 1] in a row, with one-hot
// labels. An empty dir stands for the files that come with the module.
func Digits(dir string, n int) (Rows, error) {
	train, _, err := mnist.Load(dir)
	if err != nil {
		return Rows{}, err
	}
	var r Rows
	train = train.First(n)
	for i, pixels := range train.Digits() {
		row := make([]float64, len(pixels))
		for k, v := range pixels {
			row[k] = float64(v)
		}
		r.X = append(r.X, row)
		r.Y = append(r.Y, OneHot(mnist.Classes, train.Label(i)))
	}
	return r, nil
}
