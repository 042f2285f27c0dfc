// Iris learns the species of Fisher's irises from four measurements with K-FAC, and with Gorgonia's
// Adam, Momentum and RMSProp from the same initial weights on the same batches. The model is in
// model.go.
//
//	go run ./graph_examples/iris
package main

import (
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
	"github.com/gorgonia-kfac/kfac/internal/iris"
)

var program = learn.Program{
	Name:     "iris",
	Loss:     "cross-entropy, nats per flower",
	Defaults: learn.WholeSet("iris", 150, 300, learn.Rates(1, 2, 0.05)), // the best rates of the grid at these settings
	Task:     task,
}

func main() { program.Main() }

func task(s *trial.Settings) (learn.Task, error) {
	var flowers learn.Rows
	for _, f := range iris.Flowers() {
		flowers.X = append(flowers.X, f.Measurements())
		flowers.Y = append(flowers.Y, learn.OneHot(iris.Species, f.Species))
	}
	iris.Standardise(flowers.X)
	return flowers.Task(s, newModel), nil
}
