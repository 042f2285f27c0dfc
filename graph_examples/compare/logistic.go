package main

import (
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
	"github.com/gorgonia-kfac/kfac/internal/iris"
)

// logistic predicts from four measurements whether an iris is a versicolor.
var logistic = learn.Program{
	Name: "logistic",
	Loss: "cross-entropy, nats per flower",
	// The rates are the best of the grid at these settings.
	Defaults: learn.WholeSet("logistic", 150, 500, learn.Rates(0.5, 0.2, 0.02)),
	Task: func(s *trial.Settings) (learn.Task, error) {
		var flowers learn.Rows
		for _, f := range iris.Flowers() {
			flowers.X = append(flowers.X, f.Measurements())
			versicolor := 0.0
			if f.Species == iris.Versicolor {
				versicolor = 1
			}
			flowers.Y = append(flowers.Y, []float64{versicolor})
		}
		return flowers.Task(s, newLogistic), nil
	},
}

// newLogistic is Gorgonia's logistic regression. It has a weight for each measurement, a scalar
// bias, and the cross-entropy of the probability as its cost.
func newLogistic(o learn.Options) *learn.Model {
	const measurements = 4
	n := learn.NewNet(o)
	x, y := n.Input("x", measurements), n.Input("y")
	w := n.Param("w", o.Init, measurements)
	b := gorgonia.NewScalar(n.Graph, o.Dtype, gorgonia.WithName("bias"), gorgonia.WithValue(o.Scalar(0)))
	n.Params = append(n.Params, b)
	one := gorgonia.NewConstant(o.Scalar(1))

	probability := gorgonia.Must(gorgonia.Sigmoid(gorgonia.Must(gorgonia.Add(gorgonia.Must(gorgonia.Mul(x, w)), b))))

	// The cross-entropy -y log(p) - (1-y) log(1-p).
	yes := gorgonia.Must(gorgonia.HadamardProd(y, gorgonia.Must(gorgonia.Log(probability))))
	no := gorgonia.Must(gorgonia.HadamardProd(
		gorgonia.Must(gorgonia.Sub(one, y)),
		gorgonia.Must(gorgonia.Log(gorgonia.Must(gorgonia.Sub(one, probability))))))
	n.Cost = gorgonia.Must(gorgonia.Neg(gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Add(yes, no))))))
	n.Predicts = kfac.Bernoulli(probability)
	return n.Model
}
