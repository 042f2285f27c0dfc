package main

import (
	"fmt"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
)

// newAutoencoder returns a function that makes a denoising autoencoder with one hidden layer. It
// learns to restore its input, a fraction of which, drawn anew in each run, is set to 0. As in
// Gorgonia's example the decoder has the weights of the encoder, transposed. With -untied it has
// its own.
func newAutoencoder(in, hidden int, corruption float64) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		g := gorgonia.NewGraph()
		x := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(o.Batch, in), gorgonia.WithName("x"))
		w := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(in, hidden),
			gorgonia.WithName("w"), gorgonia.WithInit(o.Init))
		b := gorgonia.NewVector(g, o.Dtype, gorgonia.WithShape(hidden),
			gorgonia.WithName("b"), gorgonia.WithInit(gorgonia.Zeroes()))
		c := gorgonia.NewVector(g, o.Dtype, gorgonia.WithShape(in),
			gorgonia.WithName("c"), gorgonia.WithInit(gorgonia.Zeroes()))
		params := gorgonia.Nodes{w, b, c}
		var back *gorgonia.Node
		if untied {
			back = gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(hidden, in),
				gorgonia.WithName("v"), gorgonia.WithInit(o.Init))
			params = append(params, back)
		} else {
			back = gorgonia.Must(gorgonia.Transpose(w))
		}

		kept := gorgonia.BinomialRandomNode(g, o.Dtype, 1, 1-corruption, o.Batch, in)
		corrupted := gorgonia.Must(gorgonia.HadamardProd(kept, x))
		code := gorgonia.Must(gorgonia.Mul(corrupted, w))
		code = gorgonia.Must(gorgonia.BroadcastAdd(code, b, nil, []byte{0}))
		code = gorgonia.Must(gorgonia.Sigmoid(code))
		restored := gorgonia.Must(gorgonia.Mul(code, back))
		restored = gorgonia.Must(gorgonia.BroadcastAdd(restored, c, nil, []byte{0}))
		restored = gorgonia.Must(gorgonia.Sigmoid(restored))
		cost := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.BinaryXent(restored, x))))

		return &learn.Model{
			Inputs:   gorgonia.Nodes{x},
			Cost:     cost,
			Params:   params,
			Predicts: kfac.Bernoulli(restored), // the line for K-FAC
		}
	}
}

// newClassifier returns a function that makes the stack of the encoders with a softmax output over
// the digits.
func newClassifier(sizes []int) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		g := gorgonia.NewGraph()
		x := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(o.Batch, sizes[0]), gorgonia.WithName("x"))
		// y are the labels, one-hot.
		y := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(o.Batch, mnist.Classes), gorgonia.WithName("y"))
		var params gorgonia.Nodes
		dense := func(in *gorgonia.Node, units int) *gorgonia.Node {
			name := fmt.Sprint(len(params)/2 + 1)
			w := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(in.Shape()[1], units),
				gorgonia.WithName("w"+name), gorgonia.WithInit(o.Init))
			b := gorgonia.NewVector(g, o.Dtype, gorgonia.WithShape(units),
				gorgonia.WithName("b"+name), gorgonia.WithInit(gorgonia.Zeroes()))
			params = append(params, w, b)
			return gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(in, w)), b, nil, []byte{0}))
		}
		a := x
		for _, units := range sizes[1:] {
			a = gorgonia.Must(gorgonia.Sigmoid(dense(a, units)))
		}
		probabilities := gorgonia.Must(gorgonia.SoftMax(dense(a, mnist.Classes)))
		logLikelihood := gorgonia.Must(gorgonia.HadamardProd(gorgonia.Must(gorgonia.Log(probabilities)), y))
		cost := gorgonia.Must(gorgonia.Neg(gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sum(logLikelihood, 1))))))

		return &learn.Model{
			Inputs:   gorgonia.Nodes{x, y},
			Cost:     cost,
			Params:   params,
			Predicts: kfac.Categorical(probabilities), // the line for K-FAC
		}
	}
}
