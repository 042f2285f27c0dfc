// Linear is the linear regression of Gorgonia's iris example. It predicts the petal width of
// Fisher's irises from their other measurements, in plain cm. It trains with K-FAC, and with
// Gorgonia's Adam, Momentum and RMSProp from the same initial weights on the same batches. The
// model is in model.go.
//
//	go run ./graph_examples/linear
package main

import (
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
	"github.com/gorgonia-kfac/kfac/internal/iris"
)

// columns are sepal length, sepal width, petal length, and ones.
const columns = 4

var program = learn.Program{
	Name: "linear",
	Loss: "mean squared error, cm^2",
	// The rates are the best of the grid at these settings.
	Defaults: learn.WholeSet("linear", 150, 500, learn.Rates(0.2, 0.03, 0.005)),
	Task:     task,
}

func main() { program.Main() }

func task(s *trial.Settings) (learn.Task, error) {
	var flowers learn.Rows
	for _, f := range iris.Flowers() {
		flowers.X = append(flowers.X, []float64{f.SepalLength, f.SepalWidth, f.PetalLength, 1})
		flowers.Y = append(flowers.Y, []float64{f.PetalWidth})
	}
	return flowers.Task(s, newModel), nil
}
