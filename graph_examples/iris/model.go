package main

import (
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/internal/iris"
)

// newModel is a net with one hidden layer of 8 tanh units and a softmax output over the species.
func newModel(o learn.Options) *learn.Model {
	g := gorgonia.NewGraph()
	x := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(o.Batch, 4), gorgonia.WithName("x"))
	y := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(o.Batch, iris.Species), gorgonia.WithName("y")) // one-hot

	w1 := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(4, 8), gorgonia.WithName("w1"), gorgonia.WithInit(o.Init))
	b1 := gorgonia.NewVector(g, o.Dtype, gorgonia.WithShape(8),
		gorgonia.WithName("b1"), gorgonia.WithInit(gorgonia.Zeroes()))
	w2 := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(8, iris.Species),
		gorgonia.WithName("w2"), gorgonia.WithInit(o.Init))
	b2 := gorgonia.NewVector(g, o.Dtype, gorgonia.WithShape(iris.Species),
		gorgonia.WithName("b2"), gorgonia.WithInit(gorgonia.Zeroes()))

	hidden := gorgonia.Must(gorgonia.Mul(x, w1))
	hidden = gorgonia.Must(gorgonia.BroadcastAdd(hidden, b1, nil, []byte{0}))
	hidden = gorgonia.Must(gorgonia.Tanh(hidden))
	logits := gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(hidden, w2)), b2, nil, []byte{0}))

	logProbs := gorgonia.Must(gorgonia.LogSoftMax(logits))
	logLikelihood := gorgonia.Must(gorgonia.Sum(gorgonia.Must(gorgonia.HadamardProd(logProbs, y)), 1))
	cost := gorgonia.Must(gorgonia.Neg(gorgonia.Must(gorgonia.Mean(logLikelihood))))

	return &learn.Model{
		Inputs:   gorgonia.Nodes{x, y},
		Cost:     cost,
		Params:   gorgonia.Nodes{w1, b1, w2, b2},
		Predicts: kfac.Categorical(logits), // the line for K-FAC
	}
}
