// Package learn is the frame of the example programs whose Gorgonia models are written as users
// write them. It feeds a model with batches, trains it with K-FAC and with Gorgonia's solvers from
// the same initial weights, and shows the training losses.
package learn

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// A Model is a graph for batches of one size.
type Model struct {
	Inputs gorgonia.Nodes // read at each run, such as x and y
	Cost   *gorgonia.Node
	Params gorgonia.Nodes
	States []*State // of a recurrent net

	// Predicts declares the distribution that Cost is the negative log-likelihood of. Only K-FAC
	// needs it.
	Predicts kfac.Distribution
}

// A State goes from one run to the next: In, an input, takes on the value that Out then has.
type State struct {
	In  *gorgonia.Node
	Out gorgonia.Value
}

// Options say which model is to be built.
type Options struct {
	Dtype    tensor.Dtype
	Batch    int
	Init     gorgonia.InitWFn // of weights; models that are built with the same seed begin with the same ones
	Training bool             // or else to measure the loss: without Dropout
}

// NewSolver is the only place where the optimizers differ.
func NewSolver(e trial.Entrant, seed uint64, m *Model, watch ...kfac.Option) (gorgonia.Solver, error) {
	switch e.Name {
	case "kfac":
		options := append(watch, kfac.WithSeed(seed))
		if e.Rate > 0 {
			options = append(options, kfac.WithLearningRate(e.Rate))
		}
		return kfac.NewSolver(m.Cost, m.Predicts, options...)
	case "adam":
		return gorgonia.NewAdamSolver(gorgonia.WithLearnRate(e.Rate)), nil
	case "momentum":
		return gorgonia.NewMomentum(gorgonia.WithLearnRate(e.Rate), gorgonia.WithMomentum(0.9)), nil
	case "rmsprop":
		return gorgonia.NewRMSPropSolver(gorgonia.WithLearnRate(e.Rate)), nil
	}
	return nil, fmt.Errorf("no optimizer %q", e.Name)
}

// dtype is the one of that name.
func dtype(name string) tensor.Dtype {
	if name == "float64" {
		return tensor.Float64
	}
	return tensor.Float32
}

// allocate gives every input a value.
func (m *Model) allocate() error {
	for _, n := range m.Inputs {
		if err := gorgonia.Let(n, tensor.New(tensor.Of(n.Dtype()), tensor.WithShape(n.Shape()...))); err != nil {
			return err
		}
	}
	return nil
}

// Put writes one case into a row of an input.
func Put(input *gorgonia.Node, row int, values ...float64) {
	first := row * len(values)
	switch data := input.Value().Data().(type) {
	case []float64:
		copy(data[first:first+len(values)], values)
	case []float32:
		for k, v := range values {
			data[first+k] = float32(v)
		}
	case []int:
		for k, v := range values {
			data[first+k] = int(v)
		}
	}
}

// Numbers are the elements of a value.
func Numbers(v gorgonia.Value) []float64 {
	switch data := v.Data().(type) {
	case []float64:
		return data
	case []float32:
		numbers := make([]float64, len(data))
		for i, x := range data {
			numbers[i] = float64(x)
		}
		return numbers
	case float64:
		return []float64{data}
	case float32:
		return []float64{float64(data)}
	}
	panic(fmt.Sprintf("%T holds no numbers", v.Data()))
}

// Scalar is x in the dtype of the model.
func (o Options) Scalar(x float64) any {
	if o.Dtype == tensor.Float64 {
		return x
	}
	return float32(x)
}
