package main

import (
	"fmt"
	"strings"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// period is the longest T3. Within it K-FAC does all that it does not do at every step.
const period = 20

// optimizerNames are Gorgonia's, on its tape machine, and K-FAC on its own VM, with parts of it on
// and off. Those that end with -vm and -tape run on the other of the two.
var optimizerNames = []string{
	"adam", "adam-vm", "momentum",
	"kfac", "kfac-tape", "kfac-rate", "kfac-tri", "kfac-rate-tri", "kfac-nomomentum", "kfac-background",
}

// machineOf parts a name in the optimizer's and the machine's.
func machineOf(name string) (optimizer, machine string) {
	if base, ok := strings.CutSuffix(name, "-vm"); ok {
		return base, "kfac"
	}
	if base, ok := strings.CutSuffix(name, "-tape"); ok {
		return base, "tape"
	}
	return name, "own"
}

// newSolver makes an optimizer. The rates do not change the time: they are so small that no model
// diverges.
func newSolver(name string, m *model, seed uint64, options ...kfac.Option) (gorgonia.Solver, error) {
	options = append(options, kfac.WithSeed(seed))
	switch name {
	case "adam":
		return gorgonia.NewAdamSolver(gorgonia.WithLearnRate(1e-5)), nil
	case "momentum":
		return gorgonia.NewMomentum(gorgonia.WithLearnRate(1e-5), gorgonia.WithMomentum(0.9)), nil
	case "kfac":
	case "kfac-rate":
		options = append(options, kfac.WithLearningRate(1e-3))
	case "kfac-tri":
		options = append(options, kfac.WithBlockTridiagonal())
	case "kfac-rate-tri":
		options = append(options, kfac.WithLearningRate(1e-3), kfac.WithBlockTridiagonal())
	case "kfac-background":
		options = append(options, kfac.WithBackgroundInverses(period/4))
	case "kfac-nomomentum":
		options = append(options, kfac.WithoutMomentum())
	default:
		return nil, fmt.Errorf("no optimizer %q", name)
	}
	return kfac.NewSolver(m.cost, m.dist, options...)
}

// A trainer is an optimizer at work on a model of its own.
type trainer struct {
	name   string
	model  *model
	vm     gorgonia.VM
	list   []gorgonia.ValueGrad
	solver gorgonia.Solver
}

func newTrainer(name string, m *model, seed uint64, options ...kfac.Option) (*trainer, error) {
	if _, err := gorgonia.Grad(m.cost, m.params...); err != nil {
		return nil, err
	}
	optimizer, machine := machineOf(name)
	solver, err := newSolver(optimizer, m, seed, options...)
	if err != nil {
		return nil, err
	}
	vm, err := trial.NewMachine(machine, solver, m.cost, m.params)
	if err != nil {
		return nil, err
	}
	return &trainer{name, m, vm, gorgonia.NodesToValueGrads(m.params), solver}, nil
}

func (t *trainer) close() { _ = t.vm.Close() }

// stats are those of the last step, if the optimizer is K-FAC.
func (t *trainer) stats() (kfac.Stats, bool) {
	if k, ok := t.solver.(*kfac.Solver); ok {
		return k.Stats(), true
	}
	return kfac.Stats{}, false
}
