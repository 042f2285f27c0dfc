// Classifier trains a network with two hidden layers on the MNIST digits with K-FAC, and with
// Gorgonia's Adam and Momentum from the same initial weights on the same batches.
//
//	go run ./graph_examples/classifier
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/batch"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/initial"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/report"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// sizes are the units of the layers; the hidden ones are tanh units.
var sizes = []int{mnist.Pixels, 500, 500, mnist.Classes}

var defaults = trial.Settings{
	Steps:      250,
	Batch:      500,
	Cases:      60000,
	Eval:       10000,
	Every:      20,
	Optimizers: []string{"kfac", "adam", "momentum"},
	// For the baselines the best of the grid at these settings; K-FAC keeps its default.
	Rates:     map[string]float64{"kfac": 0, "adam": 3e-3, "momentum": 3e-1},
	Seed:      1,
	Out:       "out/classifier",
	DataUsage: trial.MNISTUsage,
	Shares:    true,
}

// grid holds the learning rates that -grid tries.
var grid = map[string][]float64{
	"adam":     {1e-3, 2e-3, 3e-3, 5e-3, 8e-3},
	"momentum": {1e-1, 2e-1, 3e-1, 5e-1},
}

// goals are the test errors, in percent, of which the table says when they were reached.
var goals = []float64{10, 5, 4, 3, 2.5, 2}

// shown is the number of digits in a row of the picture.
const shown = 12

func main() {
	os.Exit(trial.Main("classifier", os.Args[1:], defaults, run, os.Stderr))
}

// A layer is the parameters of s = a W + b, one case a row.
type layer struct {
	w *tensor.Dense // in x out
	b *tensor.Dense // out
}

// initialLayers draws the initial weights; the biases are 0.
func initialLayers(sizes []int, seed uint64) []layer {
	rng := rand.New(rand.NewPCG(seed, 1))
	layers := make([]layer, len(sizes)-1)
	for i := range layers {
		layers[i] = layer{w: initial.Glorot(rng, sizes[i], sizes[i+1]), b: initial.Zeros(sizes[i+1])}
	}
	return layers
}

// A model is the network as a graph for batches of one size.
type model struct {
	graph  *gorgonia.ExprGraph
	pixels []float32      // of the batch, read at each run: batch x pixels, row-major
	labels []float32      // of the batch, one-hot, read at each run: batch x classes, row-major
	logits *gorgonia.Node // batch x classes
	cost   *gorgonia.Node // negative log-likelihood per case, in nats
	params gorgonia.Nodes // share their values with the layers
}

func newModel(layers []layer, batch int) *model {
	in, classes := layers[0].w.Shape()[0], layers[len(layers)-1].w.Shape()[1]
	m := &model{
		graph:  gorgonia.NewGraph(),
		pixels: make([]float32, batch*in),
		labels: make([]float32, batch*classes),
	}
	x := gorgonia.NewMatrix(m.graph, gorgonia.Float32, gorgonia.WithName("x"),
		gorgonia.WithValue(tensor.New(tensor.WithShape(batch, in), tensor.WithBacking(m.pixels))))
	y := gorgonia.NewMatrix(m.graph, gorgonia.Float32, gorgonia.WithName("y"),
		gorgonia.WithValue(tensor.New(tensor.WithShape(batch, classes), tensor.WithBacking(m.labels))))

	a := x
	for i, l := range layers {
		w := gorgonia.NewMatrix(m.graph, gorgonia.Float32, gorgonia.WithName(fmt.Sprintf("w%d", i+1)),
			gorgonia.WithValue(l.w))
		b := gorgonia.NewVector(m.graph, gorgonia.Float32, gorgonia.WithName(fmt.Sprintf("b%d", i+1)),
			gorgonia.WithValue(l.b))
		m.params = append(m.params, w, b)
		a = gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(a, w)), b, nil, []byte{0}))
		if i < len(layers)-1 {
			a = gorgonia.Must(gorgonia.Tanh(a))
		}
	}
	m.logits = a

	logLikelihood := gorgonia.Must(gorgonia.Sum(
		gorgonia.Must(gorgonia.HadamardProd(gorgonia.Must(gorgonia.LogSoftMax(m.logits)), y)), 1))
	m.cost = gorgonia.Must(gorgonia.Neg(gorgonia.Must(gorgonia.Mean(logLikelihood))))
	return m
}

// newSolver is the only place where the optimizers differ.
func newSolver(e trial.Entrant, seed uint64, m *model, watch ...kfac.Option) (gorgonia.Solver, error) {
	switch e.Name {
	case "kfac":
		options := append(watch, kfac.WithSeed(seed))
		if e.Rate > 0 {
			options = append(options, kfac.WithLearningRate(e.Rate))
		}
		return kfac.NewSolver(m.cost, kfac.Categorical(m.logits), options...)
	case "adam":
		return gorgonia.NewAdamSolver(gorgonia.WithLearnRate(e.Rate)), nil
	case "momentum":
		return gorgonia.NewMomentum(gorgonia.WithLearnRate(e.Rate), gorgonia.WithMomentum(0.9)), nil
	}
	return nil, fmt.Errorf("no optimizer %q", e.Name)
}

// train runs the training loop of one optimizer, which changes the layers in place.
func train(ctx context.Context, run *trial.Run, layers []layer, data, test mnist.Set, s trial.Settings) error {
	m := newModel(layers, s.OwnBatch())
	if _, err := gorgonia.Grad(m.cost, m.params...); err != nil {
		return err
	}
	solver, err := newSolver(run.Entrant, s.Seed, m, run.Watch()...)
	if err != nil {
		return err
	}
	vm, err := trial.NewMachine(s.Machine, solver, m.cost, m.params)
	if err != nil {
		return err
	}
	defer vm.Close()

	classifier := newClassifier(layers)
	defer classifier.Close()
	batches := batch.NewSampler(data.Len(), s.Batch, s.Seed)
	if err := run.Resume(solver, func(int) { batches.Next() }); err != nil {
		return err
	}
	if err := run.Record(classifier.Error(test)); err != nil {
		return err
	}
	for run.More(ctx) {
		cases := trial.Share(s, batches.Next())
		data.CopyPixels(m.pixels, cases)
		data.CopyOneHot(m.labels, cases)
		run.Start()
		if err := vm.RunAll(); err != nil {
			return err
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(m.params)); err != nil {
			return err
		}
		vm.Reset()
		run.Stop()
		if run.Due(ctx) {
			if err := errors.Join(run.Record(classifier.Error(test)), run.Save(solver)); err != nil {
				return err
			}
		}
	}
	return nil
}

// run trains with one optimizer after the other and shows what each reached, even if an error or an
// interrupt ends it.
func run(ctx context.Context, s trial.Settings) error {
	data, test, err := mnist.Load(s.Data)
	if err != nil {
		return err
	}
	data, test = data.First(s.Cases), test.First(s.Eval)
	s.Cases, s.Eval = data.Len(), test.Len()
	if err := s.MakeOut(); err != nil {
		return err
	}
	var rows []report.Row
	curves, err := trial.Compare(ctx, s, s.Entrants(grid), s.Bar(), func(run *trial.Run) error {
		layers := initialLayers(sizes, s.Seed)
		if err := train(ctx, run, layers, data, test, s); err != nil {
			return err
		}
		wrong, err := mistakes(layers, test)
		rows = append(rows, report.Row{Name: run.Name, Digits: wrong.First(shown).Digits()})
		return err
	})
	if !s.First() {
		return err
	}
	return errors.Join(err, show(s, curves, rows))
}

// show prints the table and writes the pictures.
func show(s trial.Settings, curves []*trial.Curve, rows []report.Row) error {
	fmt.Printf("\nTest error, %% of the first %d of the 10000 test cases; batch %d of %d training cases, seed %d%s\n\n",
		s.Eval, s.Batch, s.Cases, s.Seed, s.Processes())
	if s.Grid {
		return report.Grid(os.Stdout, curves)
	}
	if err := report.Table(os.Stdout, goals, curves); err != nil {
		return err
	}
	fmt.Println()
	for _, c := range curves {
		if last, ok := c.Last(); ok {
			fmt.Printf("Accuracy of %s on the test cases: %.2f %%\n", c.Name, 100-last.Error)
		}
	}
	plot, picture := filepath.Join(s.Out, "error.png"), filepath.Join(s.Out, "mistakes.png")
	fmt.Printf("Error against updates and seconds: %s\nTest digits that each gets wrong: %s\n", plot, picture)
	title := fmt.Sprintf("MNIST classifier, batches of %d", s.Batch)
	return errors.Join(report.Plot(plot, title, "test error, %", curves), report.Digits(picture, rows))
}
