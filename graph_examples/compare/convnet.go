package main

import (
	"flag"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// withBias gives the convolutions biases.
var withBias bool

// convnet is Gorgonia's convolutional network for the MNIST digits, with fewer channels.
var convnet = learn.Program{
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
		Shares:     true,
		Flags: func(f *flag.FlagSet) {
			f.BoolVar(&withBias, "bias", false, "give the convolutions biases")
		},
	},
	Grid: map[string][]float64{
		"adam":     {2e-3, 5e-3, 1e-2, 2e-2},
		"momentum": {3e-2, 0.1, 0.2},
		"rmsprop":  {5e-4, 1e-3, 2e-3, 5e-3},
	},
	Task: func(s *trial.Settings) (learn.Task, error) {
		digits, err := learn.Digits(s.Data, s.Cases)
		if err != nil {
			return learn.Task{}, err
		}
		return digits.Task(s, newConvnet), nil
	},
}

// newConvnet has two convolutions with max pooling, a hidden layer with Dropout, and a softmax
// output. As in Gorgonia's, convolutions have no biases, unless -bias asks for them.
func newConvnet(o learn.Options) *learn.Model {
	const channels1, channels2, hidden = 8, 16, 64
	n := learn.NewNet(o)
	x, y := n.Input("x", 1, mnist.Side, mnist.Side), n.Input("y", mnist.Classes)
	conv := func(name string, in *gorgonia.Node, channels int) *gorgonia.Node {
		w := n.Param("w"+name, o.Init, channels, in.Shape()[1], 5, 5)
		out := gorgonia.Must(gorgonia.Conv2d(in, w, tensor.Shape{5, 5}, []int{2, 2}, []int{1, 1}, []int{1, 1}))
		if withBias {
			b := n.Param("b"+name, gorgonia.Zeroes(), 1, channels, 1, 1)
			out = gorgonia.Must(gorgonia.BroadcastAdd(out, b, nil, []byte{0, 2, 3}))
		}
		out = gorgonia.Must(gorgonia.Rectify(out))
		return gorgonia.Must(gorgonia.MaxPool2D(out, tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
	}
	pooled := conv("2", conv("1", x, channels1), channels2)
	flat := gorgonia.Must(gorgonia.Reshape(pooled, tensor.Shape{o.Batch, pooled.Shape()[1:].TotalSize()}))
	a := gorgonia.Must(gorgonia.Rectify(n.Dense("3", flat, hidden)))
	if o.Training {
		// Gorgonia v0.9.18 has the right gradient for no other probability than 1/2.
		a = gorgonia.Must(gorgonia.Dropout(a, 0.5))
	}
	logits := n.Dense("4", a, mnist.Classes)
	n.Cost = n.CrossEntropy(logits, y)
	n.Predicts = kfac.Categorical(logits)
	return n.Model
}
