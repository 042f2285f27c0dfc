package main

import (
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
	"github.com/gorgonia-kfac/kfac/internal/iris"
)

// linear predicts the petal width of Fisher's irises from their other measurements, in plain cm, by
// linear regression.
var linear = learn.Program{
	Name: "linear",
	Loss: "mean squared error, cm^2",
	// The rates are the best of the grid at these settings.
	Defaults: learn.WholeSet("linear", 150, 500, learn.Rates(0.2, 0.03, 0.005)),
	Task: func(s *trial.Settings) (learn.Task, error) {
		var flowers learn.Rows
		for _, f := range iris.Flowers() {
			flowers.X = append(flowers.X, []float64{f.SepalLength, f.SepalWidth, f.PetalLength, 1})
			flowers.Y = append(flowers.Y, []float64{f.PetalWidth})
		}
		return flowers.Task(s, newLinear), nil
	},
}

// newLinear predicts y from the columns of x: three measurements, and ones.
func newLinear(o learn.Options) *learn.Model {
	const columns = 4
	n := learn.NewNet(o)
	x, y := n.Input("x", columns), n.Input("y")
	prediction := gorgonia.Must(gorgonia.Mul(x, n.Param("theta", o.Init, columns)))
	n.Cost = n.SquaredError(prediction, y)
	n.Predicts = kfac.Gaussian(prediction, 1)
	return n.Model
}
