package main

import (
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
)

// newModel predicts y from the columns of x, the last of which is all ones.
func newModel(o learn.Options) *learn.Model {
	g := gorgonia.NewGraph()
	x := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(o.Batch, columns), gorgonia.WithName("x"))
	y := gorgonia.NewVector(g, o.Dtype, gorgonia.WithShape(o.Batch), gorgonia.WithName("y"))
	theta := gorgonia.NewVector(g, o.Dtype, gorgonia.WithShape(columns),
		gorgonia.WithName("theta"), gorgonia.WithInit(o.Init))

	prediction := gorgonia.Must(gorgonia.Mul(x, theta))
	cost := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Square(gorgonia.Must(gorgonia.Sub(prediction, y))))))

	return &learn.Model{
		Inputs:   gorgonia.Nodes{x, y},
		Cost:     cost,
		Params:   gorgonia.Nodes{theta},
		Predicts: kfac.Gaussian(prediction, 1), // the line for K-FAC
	}
}
