package main

import (
	"fmt"
	"strings"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// l2 is eta, the coefficient of the L2 term (eta/2) |theta|^2 that is part of the objective
// (Martens & Grosse 2015, section 13).
const l2 = 1e-5

// methods are those of the paper's figures 9 to 11, and Adam. The others are for -grid: the
// baseline with other limits of its momentum.
var (
	methods = []string{"kfac", "kfac-tri", "kfac-nomomentum", "kfac-tri-nomomentum", "nesterov-0.99", "adam"}
	others  = []string{"nesterov-0.9", "nesterov-0.995", "nesterov-0.999"}
)

// rates are the best of the grid for the small problem on MNIST: 10,000 cases, batches of 1000,
// 200 updates.
var rates = map[string]float64{
	"adam":           1e-3,
	"nesterov-0.9":   5e-3,
	"nesterov-0.99":  5e-3,
	"nesterov-0.995": 5e-3,
	"nesterov-0.999": 5e-3,
}

// grid holds the learning rates that -grid tries.
var grid = map[string][]float64{
	"adam":           {3e-4, 5e-4, 1e-3, 2e-3, 3e-3},
	"nesterov-0.9":   {2e-3, 5e-3, 1e-2, 2e-2, 5e-2},
	"nesterov-0.99":  {2e-3, 5e-3, 1e-2, 2e-2, 5e-2},
	"nesterov-0.995": {2e-3, 5e-3, 1e-2, 2e-2, 5e-2},
	"nesterov-0.999": {2e-3, 5e-3, 1e-2, 2e-2, 5e-2},
}

// averaging is xi of the iterate average (Martens & Grosse 2015, section 8).
const averaging = 0.99

// newSolver is the only place where the methods differ.
func newSolver(e trial.Entrant, s settings, m *model, watch ...kfac.Option) (gorgonia.Solver, error) {
	switch {
	case strings.HasPrefix(e.Name, "kfac"):
		options := append(watch, kfac.WithSeed(s.Seed), kfac.WithL2Reg(l2), kfac.WithIterateAveraging(averaging, 1))
		if s.authors {
			options = append(options, authorsSettings()...)
		}
		if strings.Contains(e.Name, "-tri") {
			options = append(options, kfac.WithBlockTridiagonal())
		}
		if strings.Contains(e.Name, "-nomomentum") {
			options = append(options, kfac.WithoutMomentum())
		}
		return kfac.NewSolver(m.cost, m.distribution(), options...)
	case strings.HasPrefix(e.Name, "nesterov-"):
		var most float64
		if _, err := fmt.Sscanf(e.Name, "nesterov-%g", &most); err != nil {
			return nil, fmt.Errorf("momentum of %q: %w", e.Name, err)
		}
		return newNesterov(e.Rate, most, l2), nil
	case e.Name == "adam":
		return gorgonia.NewAdamSolver(gorgonia.WithLearnRate(e.Rate), gorgonia.WithL2Reg(l2)), nil
	}
	return nil, fmt.Errorf("no method %q", e.Name)
}

// authorsSettings are those of the authors' own code (KFAC3-MATLAB): lambda_0 = 150, gamma at
// most 1, an eighth of the batch for the statistics and all of it for the exact-Fisher products.
// Otherwise the paper's rules stand as they are.
func authorsSettings() []kfac.Option {
	return []kfac.Option{
		kfac.WithPaperRules(), kfac.WithDamping(150), kfac.WithMaxGamma(1),
		kfac.WithMinStatisticsCases(1), kfac.WithModelFraction(1),
	}
}

// accumulate takes in the gradients of a chunk that is not the last of an update. K-FAC has a
// method for it. For the other solvers the gradients add up by themselves.
func accumulate(solver gorgonia.Solver, params gorgonia.Nodes) error {
	if k, ok := solver.(*kfac.Solver); ok {
		return k.Accumulate(gorgonia.NodesToValueGrads(params))
	}
	return nil
}

// step does an update after the last of several chunks. For solvers other than K-FAC it first
// divides the sum of the chunks' gradients to make their mean.
func step(solver gorgonia.Solver, params gorgonia.Nodes, chunks int) error {
	if _, ok := solver.(*kfac.Solver); !ok && chunks > 1 {
		for _, p := range params {
			g, err := p.Grad()
			if err != nil {
				return err
			}
			for i, v := range g.Data().([]float32) {
				g.Data().([]float32)[i] = v / float32(chunks)
			}
		}
	}
	return solver.Step(gorgonia.NodesToValueGrads(params))
}
