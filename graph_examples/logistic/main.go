// Logistic is Gorgonia's logistic regression: whether an iris is a versicolor, from its four measurements. It trains with K-FAC, and with
// Gorgonia's Adam, Momentum and RMSProp from the same initial weights on the same batches. The model is in model.go.
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
	Defaults: trial.Settings{
		Steps:      500,
		Batch:      150,
		Cases:      150,
		Eval:       150,
		Every:      1,
		Optimizers: learn.Optimizers,
		Rates:      learn.Rates(0.5, 0.2, 0.02), // the best of the grid at these settings
		Seed:       1,
		Out:        "out/logistic",
		Dtype:      "float32",
	},
	Task: task,
}

func main() { program.Main() }

func task(s *trial.Settings) (learn.Task, error) {
	var flowers learn.Rows
	for _, f := range iris.Flowers() {
		flowers.X = append(flowers.X, []float64{f.SepalLength, f.SepalWidth, f.PetalLength, f.PetalWidth})
		versicolor := 0.0
		if f.Species == iris.Versicolor {
			versicolor = 1
		}
		flowers.Y = append(flowers.Y, []float64{versicolor})
	}
	return flowers.Task(s, newModel), nil
}
