package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// sizes are the units of the layers of stacked. corruptions are the fractions of their inputs that
// are set to 0 in pretraining.
var (
	sizes       = []int{mnist.Pixels, 200, 100, 50}
	corruptions = []float64{0.1, 0.2, 0.3}
)

// untied gives the decoders weights of their own.
var untied bool

// stacked is Gorgonia's stacked denoising autoencoder on MNIST. First each layer learns to restore
// what the layers before it make of a digit. Then all together, with a softmax output, learn to
// name the digit. The best of each stage goes on to the next.
var stacked = learn.Program{
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

func runStacked(ctx context.Context, s trial.Settings) error {
	digits, err := learn.Digits(s.Data, s.Cases)
	if err != nil {
		return err
	}
	var encoders []gorgonia.Value
	features := digits.X
	for i, corruption := range corruptions {
		task := learn.Rows{X: features}.Task(&s, newAutoencoder(sizes[i], sizes[i+1], corruption))
		m, err := stacked.Compare(ctx, s, task, fmt.Sprintf("layer%d", i+1))
		if err != nil || ctx.Err() != nil || m == nil {
			return err
		}
		w, b := m.Params[0].Value(), m.Params[1].Value()
		encoders = append(encoders, w, b)
		features = encode(features, learn.Numbers(w), learn.Numbers(b))
	}
	task := digits.Task(&s, newClassifier(sizes))
	task.Start = encoders
	classifier := stacked
	classifier.Loss = "cross-entropy, nats per digit"
	if maps.Equal(s.Rates, stacked.Defaults.Rates) {
		s.Rates = classifierRates
	}
	_, err = classifier.Compare(ctx, s, task, stacked.Name)
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

// newAutoencoder returns a function that makes a denoising autoencoder with one hidden layer. It
// learns to restore its input, a fraction of which, drawn anew in each run, is set to 0. As in
// Gorgonia's example the decoder has the weights of the encoder, transposed. With -untied it has
// its own.
func newAutoencoder(in, hidden int, corruption float64) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		n := learn.NewNet(o)
		x := n.Input("x", in)
		w := n.Param("w", o.Init, in, hidden)
		b, c := n.Param("b", gorgonia.Zeroes(), hidden), n.Param("c", gorgonia.Zeroes(), in)
		var back *gorgonia.Node
		if untied {
			back = n.Param("v", o.Init, hidden, in)
		} else {
			back = gorgonia.Must(gorgonia.Transpose(w))
		}

		kept := gorgonia.BinomialRandomNode(n.Graph, o.Dtype, 1, 1-corruption, o.Batch, in)
		corrupted := gorgonia.Must(gorgonia.HadamardProd(kept, x))
		code := gorgonia.Must(gorgonia.Mul(corrupted, w))
		code = gorgonia.Must(gorgonia.BroadcastAdd(code, b, nil, []byte{0}))
		code = gorgonia.Must(gorgonia.Sigmoid(code))
		restored := gorgonia.Must(gorgonia.Mul(code, back))
		restored = gorgonia.Must(gorgonia.BroadcastAdd(restored, c, nil, []byte{0}))
		restored = gorgonia.Must(gorgonia.Sigmoid(restored))
		n.Cost = gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.BinaryXent(restored, x))))
		n.Predicts = kfac.Bernoulli(restored)
		return n.Model
	}
}

// newClassifier returns a function that makes the stack of the encoders with a softmax output over
// the digits.
func newClassifier(sizes []int) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		n := learn.NewNet(o)
		x, y := n.Input("x", sizes[0]), n.Input("y", mnist.Classes)
		a := x
		for i, units := range sizes[1:] {
			a = gorgonia.Must(gorgonia.Sigmoid(n.Dense(fmt.Sprint(i+1), a, units)))
		}
		probabilities := gorgonia.Must(gorgonia.SoftMax(n.Dense(fmt.Sprint(len(sizes)), a, mnist.Classes)))
		logLikelihood := gorgonia.Must(gorgonia.HadamardProd(gorgonia.Must(gorgonia.Log(probabilities)), y))
		mean := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sum(logLikelihood, 1))))
		n.Cost = gorgonia.Must(gorgonia.Neg(mean))
		n.Predicts = kfac.Categorical(probabilities)
		return n.Model
	}
}
