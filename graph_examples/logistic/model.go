package main

import (
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
)

// newModel is Gorgonia's logistic regression. It has a weight for each measurement, a scalar bias,
// and the cross-entropy of the probability as its cost.
func newModel(o learn.Options) *learn.Model {
	g := gorgonia.NewGraph()
	x := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(o.Batch, measurements), gorgonia.WithName("x"))
	y := gorgonia.NewVector(g, o.Dtype, gorgonia.WithShape(o.Batch), gorgonia.WithName("y"))
	w := gorgonia.NewVector(g, o.Dtype, gorgonia.WithShape(measurements),
		gorgonia.WithName("w"), gorgonia.WithInit(o.Init))
	b := gorgonia.NewScalar(g, o.Dtype, gorgonia.WithName("bias"), gorgonia.WithValue(o.Scalar(0)))
	one := gorgonia.NewConstant(o.Scalar(1))

	probability := gorgonia.Must(gorgonia.Sigmoid(gorgonia.Must(gorgonia.Add(gorgonia.Must(gorgonia.Mul(x, w)), b))))

	// The cross-entropy -y log(p) - (1-y) log(1-p).
	yes := gorgonia.Must(gorgonia.HadamardProd(y, gorgonia.Must(gorgonia.Log(probability))))
	no := gorgonia.Must(gorgonia.HadamardProd(
		gorgonia.Must(gorgonia.Sub(one, y)),
		gorgonia.Must(gorgonia.Log(gorgonia.Must(gorgonia.Sub(one, probability))))))
	cost := gorgonia.Must(gorgonia.Neg(gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Add(yes, no))))))

	return &learn.Model{
		Inputs:   gorgonia.Nodes{x, y},
		Cost:     cost,
		Params:   gorgonia.Nodes{w, b},
		Predicts: kfac.Bernoulli(probability), // the line for K-FAC
	}
}
