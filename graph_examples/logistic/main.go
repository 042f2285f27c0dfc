// Logistic is Gorgonia's logistic regression. It predicts from four measurements whether an iris is
// a versicolor. It trains with K-FAC, and with Gorgonia's Adam, Momentum and RMSProp from the same
// initial weights on the same batches. The model is in model.go.
//
//	go run ./graph_examples/logistic
package main

import (
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
	"github.com/gorgonia-kfac/kfac/internal/iris"
)

const measurements = 4

var program = learn.Program{
	Name: "logistic",
	Loss: "cross-entropy, nats per flower",
	// The rates are the best of the grid at these settings.
	Defaults: learn.WholeSet("logistic", 150, 500, learn.Rates(0.5, 0.2, 0.02)),
	Task:     task,
}

func main() { program.Main() }

func task(s *trial.Settings) (learn.Task, error) {
	var flowers learn.Rows
	for _, f := range iris.Flowers() {
		flowers.X = append(flowers.X, f.Measurements())
		versicolor := 0.0
		if f.Species == iris.Versicolor {
			versicolor = 1
		}
		flowers.Y = append(flowers.Y, []float64{versicolor})
	}
	return flowers.Task(s, newModel), nil
}
