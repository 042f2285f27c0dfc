// Autoencoder trains the deep autoencoder of Martens & Grosse (2015, section 13) on MNIST with
// K-FAC, and with Gorgonia's Adam and Momentum from the same initial weights on the same batches.
//
//	go run ./graph_examples/autoencoder
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
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/reconstruct"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/report"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// sizes are the units of the layers. The hidden units are logistic, except for the smallest layer,
// the code: it is linear.
var sizes = []int{mnist.Pixels, 1000, 500, 250, 30, 250, 500, 1000, mnist.Pixels}

// code is the layer of weights that computes the code.
const code = 3

var defaults = trial.Settings{
	Steps:      100,
	Batch:      256,
	Cases:      60000,
	Eval:       1000,
	Every:      10,
	Optimizers: []string{"kfac", "adam", "momentum"},
	// For the baselines the best of the grid at these settings; K-FAC keeps its default.
	Rates:     map[string]float64{"kfac": 0, "adam": 1e-3, "momentum": 5e-3},
	Seed:      1,
	Out:       "out/autoencoder",
	DataUsage: trial.MNISTUsage,
	Shares:    true,
}

// grid holds the learning rates that -grid tries.
var grid = map[string][]float64{
	"adam":     {5e-4, 1e-3, 2e-3, 4e-3},
	"momentum": {2e-3, 3e-3, 5e-3, 1e-2, 2e-2},
}

// goals are the errors of which the table says when they were reached.
var goals = []float64{50, 40, 30, 25, 20, 15, 10, 7, 5}

// shown is the number of digits in a row of the picture.
const shown = 12

func main() {
	os.Exit(trial.Main("autoencoder", os.Args[1:], defaults, run, os.Stderr))
}

// A layer is the parameters of s = a W + b, one case a row.
type layer struct {
	w *tensor.Dense // in x out
	b *tensor.Dense // out
}

// initialLayers draws the sparse initial weights; the biases are 0.
func initialLayers(sizes []int, seed uint64) []layer {
	rng := rand.New(rand.NewPCG(seed, 1))
	layers := make([]layer, len(sizes)-1)
	for i := range layers {
		layers[i] = layer{w: initial.Sparse(rng, sizes[i], sizes[i+1]), b: initial.Zeros(sizes[i+1])}
	}
	return layers
}

// A model is the autoencoder as a graph for batches of one size.
type model struct {
	graph  *gorgonia.ExprGraph
	pixels []float32      // of the batch, read at each run: batch x pixels, row-major
	logits *gorgonia.Node // of the reconstruction: batch x pixels
	cost   *gorgonia.Node // negative log-likelihood per case, in nats
	params gorgonia.Nodes // share their values with the layers
}

func newModel(layers []layer, batch int) *model {
	g := gorgonia.NewGraph()
	in := layers[0].w.Shape()[0]
	pixels := make([]float32, batch*in)
	x := gorgonia.NewMatrix(g, gorgonia.Float32, gorgonia.WithName("x"),
		gorgonia.WithValue(tensor.New(tensor.WithShape(batch, in), tensor.WithBacking(pixels))))

	var params gorgonia.Nodes
	a := x
	for i, l := range layers {
		w := gorgonia.NewMatrix(g, gorgonia.Float32, gorgonia.WithName(fmt.Sprintf("w%d", i+1)),
			gorgonia.WithValue(l.w))
		b := gorgonia.NewVector(g, gorgonia.Float32, gorgonia.WithName(fmt.Sprintf("b%d", i+1)),
			gorgonia.WithValue(l.b))
		params = append(params, w, b)
		a = gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(a, w)), b, nil, []byte{0}))
		if i != code && i != len(layers)-1 {
			a = gorgonia.Must(gorgonia.Sigmoid(a))
		}
	}
	logits := a

	// -log p(x|z) = softplus(z) - x z for a Bernoulli pixel with logit z. No exponential overflows,
	// and there is no logarithm of 0.
	nll := gorgonia.Must(gorgonia.Sub(
		gorgonia.Must(gorgonia.Softplus(logits)),
		gorgonia.Must(gorgonia.HadamardProd(logits, x))))
	cost := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sum(nll, 1))))
	return &model{graph: g, pixels: pixels, logits: logits, cost: cost, params: params}
}

// decodeBatch is the number of digits that a decoder reconstructs at once.
const decodeBatch = 250

// newDecoder makes a second graph with the same weights, to see what they reconstruct.
func newDecoder(layers []layer) *reconstruct.Decoder {
	m := newModel(layers, decodeBatch)
	return reconstruct.NewDecoder(m.pixels, gorgonia.Must(gorgonia.Sigmoid(m.logits)))
}

// newSolver is the only place where the optimizers differ.
func newSolver(e trial.Entrant, seed uint64, m *model, watch ...kfac.Option) (gorgonia.Solver, error) {
	switch e.Name {
	case "kfac":
		options := append(watch, kfac.WithSeed(seed))
		if e.Rate > 0 {
			options = append(options, kfac.WithLearningRate(e.Rate))
		}
		return kfac.NewSolver(m.cost, kfac.Bernoulli(m.logits), options...)
	case "adam":
		return gorgonia.NewAdamSolver(gorgonia.WithLearnRate(e.Rate)), nil
	case "momentum":
		return gorgonia.NewMomentum(gorgonia.WithLearnRate(e.Rate), gorgonia.WithMomentum(0.9)), nil
	}
	return nil, fmt.Errorf("no optimizer %q", e.Name)
}

// train runs the training loop of one optimizer, which changes the layers in place.
func train(ctx context.Context, run *trial.Run, layers []layer, data mnist.Set, s trial.Settings) error {
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

	decoder := newDecoder(layers)
	defer decoder.Close()
	batches := batch.NewSampler(data.Len(), s.Batch, s.Seed)
	if err := run.Resume(solver, func(int) { batches.Next() }); err != nil {
		return err
	}
	if err := run.Record(decoder.Error(data.First(s.Eval))); err != nil {
		return err
	}
	for run.More(ctx) {
		data.CopyPixels(m.pixels, trial.Share(s, batches.Next()))
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
			if err := errors.Join(run.Record(decoder.Error(data.First(s.Eval))), run.Save(solver)); err != nil {
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
	data, test = data.First(s.Cases), test.First(shown)
	s.Cases, s.Eval = data.Len(), min(s.Eval, data.Len())
	if err := s.MakeOut(); err != nil {
		return err
	}
	rows := []report.Row{{Name: "test digit", Digits: test.Digits()}}
	curves, err := trial.Compare(ctx, s, s.Entrants(grid), s.Bar(), func(run *trial.Run) error {
		layers := initialLayers(sizes, s.Seed)
		if err := train(ctx, run, layers, data, s); err != nil {
			return err
		}
		decoder := newDecoder(layers)
		defer decoder.Close()
		digits, err := decoder.All(test)
		rows = append(rows, report.Row{Name: run.Name, Digits: digits})
		return err
	})
	if !s.First() {
		return err
	}
	return errors.Join(err, show(s, curves, rows))
}

// show prints the table and writes the pictures.
func show(s trial.Settings, curves []*trial.Curve, rows []report.Row) error {
	fmt.Printf("\nSquared reconstruction error per case on the first %d of %d training cases; batch %d, seed %d%s\n\n",
		s.Eval, s.Cases, s.Batch, s.Seed, s.Processes())
	if s.Grid {
		return report.Grid(os.Stdout, curves)
	}
	if err := report.Table(os.Stdout, goals, curves); err != nil {
		return err
	}
	plot, picture := filepath.Join(s.Out, "error.png"), filepath.Join(s.Out, "digits.png")
	fmt.Printf("\nError against updates and seconds: %s\nDigits and their reconstructions: %s\n", plot, picture)
	title := fmt.Sprintf("MNIST autoencoder, batches of %d", s.Batch)
	return errors.Join(report.Plot(plot, title, "squared reconstruction error per case", curves),
		report.Digits(picture, rows))
}
