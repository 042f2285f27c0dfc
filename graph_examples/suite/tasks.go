package main

import (
	"maps"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/text"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// A task is a model, its data, and how long to train.
type task struct {
	name, about         string
	steps, batch, cases int
	eval                int       // leading cases on which the loss is measured; 0: 1000
	best                rates     // of the grid
	adam, momentum      []float64 // the grid; nil: adamRates and momentumRates
	problem             func(s *trial.Settings) (learn.Task, error)
}

// rates are learning rates of the baselines.
type rates struct{ adam, momentum float64 }

var (
	adamRates     = []float64{3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3}
	momentumRates = []float64{3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1, 3}
	// Those for the prices of houses.
	wideAdam     = []float64{3e-2, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1e3, 3e3}
	wideMomentum = []float64{1e-12, 3e-12, 1e-11, 3e-11, 1e-10, 3e-10, 1e-9, 3e-9, 1e-8, 3e-8}
)

const pixels = side * side

// tasks are of many kinds: noise from none to nearly all, a batch from one case to all,
// feed-forward and recurrent nets.
var tasks = []task{
	{
		name: "noise-16", about: "softmax regression on labels that are mostly noise; 100-10",
		steps: 400, batch: 16, cases: 20000, eval: 4000, best: rates{3e-3, 3e-3},
		problem: rows(noisyLabels, untrained(100, 10)),
	},
	{
		name: "noise-64", about: "softmax regression on labels that are mostly noise; 100-10",
		steps: 400, batch: 64, cases: 20000, eval: 4000, best: rates{3e-3, 3e-3},
		problem: rows(noisyLabels, untrained(100, 10)),
	},
	{
		name: "noise-256", about: "softmax regression on labels that are mostly noise; 100-10",
		steps: 400, batch: 256, cases: 20000, eval: 4000, best: rates{3e-3, 1e-2},
		problem: rows(noisyLabels, untrained(100, 10)),
	},
	{
		name: "noise-1024", about: "softmax regression on labels that are mostly noise; 100-10",
		steps: 400, batch: 1024, cases: 20000, eval: 4000, best: rates{1e-3, 1e-2},
		problem: rows(noisyLabels, untrained(100, 10)),
	},
	{
		name: "fresh", about: "regression with noise, each case seen once; 8-32-1, tanh",
		steps: 400, batch: 64, cases: 400 * 64, eval: 4000, best: rates{1e-2, 0.1},
		problem: rows(noisyNumbers, regression(gorgonia.Tanh, 8, 32, 1)),
	},
	{
		name: "houses", about: "least squares in dollars, metres and years; 4-1",
		steps: 200, batch: 50, cases: 1000, adam: wideAdam, momentum: wideMomentum,
		best:    rates{100, 3e-9},
		problem: rows(houses, regression(gorgonia.Tanh, 4, 1)),
	},
	{
		name: "houses-relu", about: "the same with 16 ReLUs; 4-16-1",
		steps: 200, batch: 50, cases: 1000, adam: wideAdam, momentum: wideMomentum,
		best:    rates{3, 3e-11},
		problem: rows(houses, regression(gorgonia.Rectify, 4, 16, 1)),
	},
	{
		name: "digits", about: "digits; 196-64-10, ReLU",
		steps: 400, batch: 16, cases: 4000, best: rates{1e-2, 0.1},
		problem: rows(digits(0), classifier(gorgonia.Rectify, pixels, 64, mnist.Classes)),
	},
	{
		name: "relabelled", about: "digits, half of the labels at random; 196-32-10, tanh",
		steps: 300, batch: 64, cases: 8000, best: rates{1e-2, 0.1},
		problem: rows(digits(0.5), classifier(gorgonia.Tanh, pixels, 32, mnist.Classes)),
	},
	{
		name: "batchnorm", about: "digits; 196-64-32-10, ReLU, batch normalisation",
		steps: 200, batch: 50, cases: 4000, best: rates{1e-2, 0.1},
		problem: rows(digits(0), normalised(pixels, 64, 32, mnist.Classes)),
	},
	{
		name: "dropout-0.2", about: "digits; 196-64-10, ReLU, Dropout of 0.2",
		steps: 300, batch: 64, cases: 4000, best: rates{3e-2, 0.1},
		problem: rows(digits(0), dropped(0.2, pixels, 64, mnist.Classes)),
	},
	{
		name: "dropout-0.5", about: "digits; 196-64-10, ReLU, Dropout of 0.5",
		steps: 300, batch: 64, cases: 4000, best: rates{1e-2, 0.1},
		problem: rows(digits(0), dropped(0.5, pixels, 64, mnist.Classes)),
	},
	{
		name: "deep", about: "digits; 196, eight layers of 12, 10; tanh",
		steps: 300, batch: 100, cases: 4000, best: rates{1e-2, 3e-2},
		problem: rows(digits(0), classifier(gorgonia.Tanh, pixels, 12, 12, 12, 12, 12, 12, 12, 12, mnist.Classes)),
	},
	{
		name: "autoencoder", about: "digits; 196-64-16-64-196, ReLU",
		steps: 200, batch: 100, cases: 4000, best: rates{1e-2, 1e-2},
		problem: rows(digits(0), autoencoder(gorgonia.Rectify, pixels, 64, 16, 64, pixels)),
	},
	{
		name: "one", about: "digits, one in each batch; 196-20-10, tanh",
		steps: 1000, batch: 1, cases: 2000, best: rates{1e-2, 1e-2},
		problem: rows(digits(0), classifier(gorgonia.Tanh, pixels, 20, mnist.Classes)),
	},
	{
		name: "full", about: "digits, all in each batch; 196-30-10, tanh",
		steps: 100, batch: 500, cases: 500, best: rates{0.1, 3},
		problem: rows(digits(0), classifier(gorgonia.Tanh, pixels, 30, mnist.Classes)),
	},
	{
		name: "gru", about: "characters; a GRU of 32 units over 8 of them",
		steps: 200, batch: 32, cases: 6400, best: rates{3e-2, 1},
		problem: ofSequences(8, recurrent(32)),
	},
	{
		name: "embedding", about: "characters by three before them; embeddings of 8, 64 tanh",
		steps: 300, batch: 256, cases: 20000, best: rates{3e-2, 0.3},
		problem: ofContexts(3, embedded(8, 64)),
	},
	{
		name: "attention", about: "characters by six before them; embeddings of 16, attention, 64 tanh",
		steps: 300, batch: 64, cases: 20000, best: rates{1e-2, 0.1},
		problem: ofContexts(6, attending(16, 64)),
	},
}

// grid is the one for the baselines.
func (t task) grid() map[string][]float64 {
	grid := map[string][]float64{"adam": adamRates, "momentum": momentumRates}
	if t.adam != nil {
		grid["adam"], grid["momentum"] = t.adam, t.momentum
	}
	return grid
}

// rows are tasks of cases that do not depend on each other.
func rows(
	data func(cases int) (learn.Rows, error), model func(learn.Options) *learn.Model,
) func(s *trial.Settings) (learn.Task, error) {
	return func(s *trial.Settings) (learn.Task, error) {
		r, err := data(s.Cases)
		return r.Task(s, model), err
	}
}

// A reader is a model that reads a number of characters of so many kinds.
type reader func(kinds, length int) func(learn.Options) *learn.Model

// ofContexts is a task of a model that reads a few characters and predicts the next.
func ofContexts(length int, model reader) func(s *trial.Settings) (learn.Task, error) {
	return func(s *trial.Settings) (learn.Task, error) {
		book, err := text.Load("")
		if err != nil {
			return learn.Task{}, err
		}
		return contexts(book, s.Cases, length).Task(s, model(book.Kinds, length)), nil
	}
}

// ofSequences is a task of a model that reads strands of characters with a state that goes on.
func ofSequences(length int, model reader) func(s *trial.Settings) (learn.Task, error) {
	return func(s *trial.Settings) (learn.Task, error) {
		book, err := text.Load("")
		if err != nil {
			return learn.Task{}, err
		}
		return book.Task(s, length, model(book.Kinds, length))
	}
}

// settings are those of the task, within the bounds that s sets.
func (t task) settings(s trial.Settings) trial.Settings {
	eval := t.eval
	if eval == 0 {
		eval = 1000
	}
	s.Steps, s.Cases = min(s.Steps, t.steps), min(s.Cases, t.cases)
	s.Batch, s.Eval = min(s.Batch, t.batch, s.Cases), min(s.Eval, eval, s.Cases)
	s.Rates = maps.Clone(s.Rates)
	for name, best := range map[string]float64{"adam": t.best.adam, "momentum": t.best.momentum} {
		if s.Rates[name] == 0 {
			s.Rates[name] = best
		}
	}
	if s.Grid {
		s.Every = s.Steps
	}
	return s
}
