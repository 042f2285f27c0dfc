// Stacked is Gorgonia's stacked denoising autoencoder on MNIST. First each layer learns to restore
// what the layers before it make of a digit. Then all together, with a softmax output, learn to
// name the digit. Each stage trains with K-FAC, and with Gorgonia's Adam, Momentum and RMSProp from
// the same initial weights on the same batches. The best goes on to the next stage. The models are
// in model.go.
//
//	go run ./graph_examples/stacked
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// sizes are the units of the layers. corruptions are the fractions of their inputs that are set
// to 0 in pretraining.
var (
	sizes       = []int{mnist.Pixels, 200, 100, 50}
	corruptions = []float64{0.1, 0.2, 0.3}
)

// untied gives the decoders weights of their own.
var untied bool

var program = learn.Program{
	Name: "stacked",
	Loss: "cross-entropy, nats per pixel or unit",
	Defaults: trial.Settings{
		Steps:      150,
		Batch:      100,
		Cases:      5000,
		Eval:       1000,
		Every:      10,
		Optimizers: learn.Optimizers,
		Rates:      learn.Rates(0.02, 5, 0.01), // the best of the grid at these settings, in pretraining
		Seed:       1,
		Out:        "out/stacked",
		Dtype:      "float32",
		DataUsage:  trial.MNISTUsage,
		Flags: func(f *flag.FlagSet) {
			f.BoolVar(&untied, "untied", false, "give the decoders weights of their own")
		},
	},
	Grid: map[string][]float64{
		"adam":     {5e-3, 1e-2, 2e-2, 5e-2},
		"momentum": {1, 5, 20},
		"rmsprop":  {3e-3, 1e-2, 3e-2},
	},
}

// classifierRates are the best of the grid for the classifier; -lr overrules these too.
var classifierRates = learn.Rates(0.02, 1, 0.003)

func main() {
	os.Exit(trial.Main(program.Name, os.Args[1:], program.Defaults, run, os.Stderr))
}

func run(ctx context.Context, s trial.Settings) error {
	digits, err := learn.Digits(s.Data, s.Cases)
	if err != nil {
		return err
	}
	var encoders []gorgonia.Value
	features := digits.X
	for i, corruption := range corruptions {
		task := learn.Rows{X: features}.Task(&s, newAutoencoder(sizes[i], sizes[i+1], corruption))
		m, err := program.Compare(ctx, s, task, fmt.Sprintf("layer%d", i+1))
		if err != nil || ctx.Err() != nil || m == nil {
			return err
		}
		w, b := m.Params[0].Value(), m.Params[1].Value()
		encoders = append(encoders, w, b)
		features = encode(features, learn.Numbers(w), learn.Numbers(b))
	}
	task := digits.Task(&s, newClassifier(sizes))
	task.Start = encoders
	classifier := program
	classifier.Loss = "cross-entropy, nats per digit"
	if maps.Equal(s.Rates, program.Defaults.Rates) {
		s.Rates = classifierRates
	}
	_, err = classifier.Compare(ctx, s, task, program.Name)
	return err
}

// encode is sigmoid(x w + b) for every row x.
func encode(rows [][]float64, w, b []float64) [][]float64 {
	in, units := len(rows[0]), len(b)
	x := mat.NewDense(len(rows), in, nil)
	for i, r := range rows {
		x.SetRow(i, r)
	}
	var codes mat.Dense
	codes.Mul(x, mat.NewDense(in, units, w))
	codes.Apply(func(_, k int, v float64) float64 { return 1 / (1 + math.Exp(-v-b[k])) }, &codes)
	encoded := make([][]float64, len(rows))
	for i := range encoded {
		encoded[i] = codes.RawRowView(i)
	}
	return encoded
}
