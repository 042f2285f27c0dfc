// Inspect trains a small network on the MNIST digits with K-FAC and draws what K-FAC knows: the
// factors A and G of the layers, how their eigenvalues fall beside the damping, and how lambda,
// gamma, alpha, mu and rho went. The network is like that of figure 2 in Martens & Grosse (2015).
//
//	go run ./graph_examples/inspect
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"text/tabwriter"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/batch"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/initial"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// side is that of a digit, of which each pixel is the mean of 2 x 2.
const side = mnist.Side / 2

// sizes are the units of the layers; the hidden ones are tanh units.
var sizes = []int{side * side, 20, 20, 20, 20, 20, mnist.Classes}

var defaults = trial.Settings{
	Steps:      200,
	Batch:      500,
	Cases:      20000,
	Eval:       10000,
	Every:      20,
	Optimizers: []string{"kfac"},
	Rates:      map[string]float64{"kfac": 0},
	Seed:       1,
	Out:        "out/inspect",
	DataUsage:  trial.MNISTUsage,
}

func main() {
	os.Exit(trial.Main("inspect", os.Args[1:], defaults, run, os.Stderr))
}

// history keeps what each step did. It is a kfac.Recorder.
type history []kfac.Stats

func (h *history) Record(s kfac.Stats) error {
	*h = append(*h, s)
	return nil
}

// A model is the network as a graph for batches of one size.
type model struct {
	pixels, labels []float32 // of the batch, read at each run
	logits, cost   *gorgonia.Node
	params         gorgonia.Nodes
}

func newModel(cases int, seed uint64) *model {
	m := &model{pixels: make([]float32, cases*sizes[0]), labels: make([]float32, cases*mnist.Classes)}
	g := gorgonia.NewGraph()
	matrix := func(name string, rows, cols int, data []float32) *gorgonia.Node {
		return gorgonia.NewMatrix(g, gorgonia.Float32, gorgonia.WithName(name),
			gorgonia.WithValue(tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))))
	}
	a, y := matrix("x", cases, sizes[0], m.pixels), matrix("y", cases, mnist.Classes, m.labels)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range len(sizes) - 1 {
		w := gorgonia.NewMatrix(g, gorgonia.Float32, gorgonia.WithName(fmt.Sprintf("w%d", i+1)),
			gorgonia.WithValue(initial.Glorot(rng, sizes[i], sizes[i+1])))
		b := gorgonia.NewVector(g, gorgonia.Float32, gorgonia.WithName(fmt.Sprintf("b%d", i+1)),
			gorgonia.WithValue(initial.Zeros(sizes[i+1])))
		m.params = append(m.params, w, b)
		if i > 0 {
			a = gorgonia.Must(gorgonia.Tanh(a))
		}
		a = gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(a, w)), b, nil, []byte{0}))
	}
	m.logits = a
	logLikelihood := gorgonia.Must(gorgonia.Sum(
		gorgonia.Must(gorgonia.HadamardProd(gorgonia.Must(gorgonia.LogSoftMax(a)), y)), 1))
	m.cost = gorgonia.Must(gorgonia.Neg(gorgonia.Must(gorgonia.Mean(logLikelihood))))
	return m
}

// fill puts cases into the batch, with digits of half the size.
func (m *model) fill(data mnist.Set, cases []int, whole []float32) {
	data.CopyPixels(whole, cases)
	data.CopyOneHot(m.labels, cases)
	for c := range cases {
		digit := whole[c*mnist.Pixels:]
		for y := range side {
			for x := range side {
				at := 2*y*mnist.Side + 2*x
				below := at + mnist.Side
				m.pixels[(c*side+y)*side+x] = (digit[at] + digit[at+1] + digit[below] + digit[below+1]) / 4
			}
		}
	}
}

// train trains the network, and returns what K-FAC has done and how its curvature is in the end.
func train(ctx context.Context, run *trial.Run, data mnist.Set, s trial.Settings) (
	steps history, layers []kfac.Inspection, err error) {
	m := newModel(s.Batch, s.Seed)
	if _, err := gorgonia.Grad(m.cost, m.params...); err != nil {
		return nil, nil, err
	}
	options := append(run.Watch(), kfac.WithSeed(s.Seed), kfac.WithRecorder(&steps))
	solver, err := kfac.NewSolver(m.cost, kfac.Categorical(m.logits), options...)
	if err != nil {
		return nil, nil, err
	}
	vm, err := trial.NewMachine(s.Machine, solver, m.cost, m.params)
	if err != nil {
		return nil, nil, err
	}
	defer vm.Close()
	batches, whole := batch.NewSampler(data.Len(), s.Batch, s.Seed), make([]float32, s.Batch*mnist.Pixels)
	if err := run.Resume(solver, func(int) { batches.Next() }); err != nil {
		return nil, nil, err
	}
	for run.More(ctx) {
		m.fill(data, batches.Next(), whole)
		run.Start()
		if err := vm.RunAll(); err != nil {
			return nil, nil, err
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(m.params)); err != nil {
			return nil, nil, err
		}
		vm.Reset()
		run.Stop()
		if run.Due(ctx) {
			if err := errors.Join(run.Record(solver.Stats().Cost, nil), run.Save(solver)); err != nil {
				return nil, nil, err
			}
		}
	}
	layers, err = solver.Inspect()
	return steps, layers, err
}

// run trains and shows what is found.
func run(ctx context.Context, s trial.Settings) error {
	data, _, err := mnist.Load(s.Data)
	if err != nil {
		return err
	}
	data = data.First(s.Cases)
	if err := s.MakeOut(); err != nil {
		return err
	}
	var steps history
	var layers []kfac.Inspection
	_, err = trial.Compare(ctx, s, s.Entrants(nil), os.Stderr, func(run *trial.Run) (err error) {
		steps, layers, err = train(ctx, run, data, s)
		return err
	})
	if err != nil || len(layers) == 0 {
		return err
	}
	if err := table(layers); err != nil {
		return err
	}
	pictures := []struct {
		name string
		draw func(file string) error
	}{
		{"factors.png", func(file string) error { return drawFactors(file, layers) }},
		{"eigenvalues.png", func(file string) error { return drawEigenvalues(file, layers) }},
		{"steps.png", func(file string) error { return drawSteps(file, steps) }},
	}
	for _, p := range pictures {
		file := filepath.Join(s.Out, p.name)
		if err := p.draw(file); err != nil {
			return err
		}
		fmt.Println(file)
	}
	return nil
}

// table prints how the factors are conditioned, and what damping makes of that.
func table(layers []kfac.Inspection) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nlayer\tfactor\trows\tcondition\tdamping\tcondition, damped\tdirections in effect\t")
	for _, l := range layers {
		for _, f := range []struct {
			name string
			*kfac.Spectrum
		}{{"A", l.A}, {"G", l.G}} {
			fmt.Fprintf(w, "%s\t%s\t%d\t%.2g\t%.2g\t%.2g\t%.1f\t\n", l.Params[0], f.name, len(f.Eigenvalues),
				f.Condition(), f.Damping, f.Damped(), f.Effective())
		}
	}
	return w.Flush()
}
