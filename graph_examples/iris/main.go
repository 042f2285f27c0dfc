// Iris learns the species of Fisher's irises from four measurements with K-FAC, and with Gorgonia's Adam, Momentum and RMSProp from the same
// initial weights on the same batches. The model is in model.go.
//
//	go run ./graph_examples/iris
package main

import (
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
	"github.com/gorgonia-kfac/kfac/internal/iris"
)

var program = learn.Program{
	Name: "iris",
	Loss: "cross-entropy, nats per flower",
	Defaults: trial.Settings{
		Steps:      300,
		Batch:      150,
		Cases:      150,
		Eval:       150,
		Every:      1,
		Optimizers: learn.Optimizers,
		Rates:      learn.Rates(1, 2, 0.05), // the best of the grid at these settings
		Seed:       1,
		Out:        "out/iris",
		Dtype:      "float32",
	},
	Task: task,
}

func main() { program.Main() }

func task(s *trial.Settings) (learn.Task, error) {
	var flowers learn.Rows
	for _, f := range iris.Flowers() {
		flowers.X = append(flowers.X, []float64{f.SepalLength, f.SepalWidth, f.PetalLength, f.PetalWidth})
		flowers.Y = append(flowers.Y, learn.OneHot(iris.Species, f.Species))
	}
	learn.Standardise(flowers.X)
	return flowers.Task(s, newModel), nil
}
