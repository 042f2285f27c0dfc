package main

import (
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
	"github.com/gorgonia-kfac/kfac/internal/iris"
)

// flowers learns the species of Fisher's irises from four measurements.
var flowers = learn.Program{
	Name:     "iris",
	Loss:     "cross-entropy, nats per flower",
	Defaults: learn.WholeSet("iris", 150, 300, learn.Rates(1, 2, 0.05)), // the best rates of the grid at these settings
	Task: func(s *trial.Settings) (learn.Task, error) {
		var rows learn.Rows
		for _, f := range iris.Flowers() {
			rows.X = append(rows.X, f.Measurements())
			rows.Y = append(rows.Y, learn.OneHot(iris.Species, f.Species))
		}
		iris.Standardise(rows.X)
		return rows.Task(s, newFlowers), nil
	},
}

// newFlowers is a net with one hidden layer of 8 tanh units and a softmax output over the species.
func newFlowers(o learn.Options) *learn.Model {
	n := learn.NewNet(o)
	x, y := n.Input("x", 4), n.Input("y", iris.Species)
	hidden := gorgonia.Must(gorgonia.Tanh(n.Dense("1", x, 8)))
	logits := n.Dense("2", hidden, iris.Species)
	n.Cost = n.CrossEntropy(logits, y)
	n.Predicts = kfac.Categorical(logits)
	return n.Model
}
