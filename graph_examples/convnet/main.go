// Convnet is Gorgonia's convolutional network for the MNIST digits, with fewer channels. It trains
// with K-FAC, and with Gorgonia's Adam, Momentum and RMSProp from the same initial weights on the
// same batches. The model is in model.go.
//
//	go run ./graph_examples/convnet
package main

import (
	"flag"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// withBias gives the convolutions biases.
var withBias bool

var program = learn.Program{
	Name: "convnet",
	Loss: "cross-entropy, nats per digit, without Dropout",
	Defaults: trial.Settings{
		Steps:      100,
		Batch:      100,
		Cases:      10000,
		Eval:       2000,
		Every:      5,
		Optimizers: learn.Optimizers,
		Rates:      learn.Rates(0.01, 0.1, 0.001), // the best of the grid at these settings
		Seed:       1,
		Out:        "out/convnet",
		DataUsage:  trial.MNISTUsage,
		Dtype:      "float32",
		Flags: func(f *flag.FlagSet) {
			f.BoolVar(&withBias, "bias", false, "give the convolutions biases")
		},
	},
	Grid: map[string][]float64{
		"adam":     {2e-3, 5e-3, 1e-2, 2e-2},
		"momentum": {3e-2, 0.1, 0.2},
		"rmsprop":  {5e-4, 1e-3, 2e-3, 5e-3},
	},
	Task: task,
}

func main() { program.Main() }

func task(s *trial.Settings) (learn.Task, error) {
	digits, err := learn.Digits(s.Data, s.Cases)
	if err != nil {
		return learn.Task{}, err
	}
	return digits.Task(s, newModel), nil
}
