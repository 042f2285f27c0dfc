package kfac

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// Tests make many errors; they are not to be logged.
func init() { slog.SetDefault(slog.New(slog.DiscardHandler)) }

// Trainer is a training loop with K-FAC.
type Trainer = testnet.Trainer[*Solver]

// Declared is the declaration of what a net's cost is.
func Declared(n *testnet.Net) Distribution { return distributionOf(n.Loss) }

func distributionOf(l testnet.Loss) Distribution {
	switch l.Family {
	case testnet.NormalFamily:
		return Gaussian(l.Out, l.Variance)
	case testnet.BinaryFamily:
		return Bernoulli(l.Out)
	case testnet.ClassFamily:
		return Categorical(l.Out)
	case testnet.JointFamily:
		var heads []Distribution
		for _, h := range l.Heads {
			heads = append(heads, distributionOf(h))
		}
		return Joint(heads...)
	}
	return nil
}

// NewSolverOf makes the solver of a net.
func NewSolverOf(t testing.TB, n *testnet.Net, opts ...Option) *Solver {
	t.Helper()
	s, err := NewSolver(n.Cost, Declared(n), opts...)
	testnet.Check(t, err)
	return s
}

// NewTrainer trains a net on the machine that Gorgonia's own examples use with a solver.
func NewTrainer(t testing.TB, n *testnet.Net, opts ...Option) *Trainer {
	t.Helper()
	return NewTrainerOn(t, testnet.Machines["BindDualValues"], n, opts...)
}

// NewTrainerOn trains a net on the given machine.
func NewTrainerOn(
	t testing.TB, machine func(t testnet.TB, n *testnet.Net) testnet.Machine, n *testnet.Net, opts ...Option,
) *Trainer {
	t.Helper()
	run := machine(t, n)
	return &Trainer{Net: n, Run: run, Solver: NewSolverOf(t, n, opts...)}
}

// SameStats reports whether two Stats are the same, apart from the times. NaN is the same as NaN.
func SameStats(a, b Stats) bool {
	a.Time, b.Time = PhaseTimes{}, PhaseTimes{}
	return cmp.Equal(a, b, cmpopts.EquateNaNs())
}

// HessianOf returns the blocks of the hessian of the last update, in the user's units, and their
// width.
func HessianOf(s *Solver) (blocks []float64, width int) {
	t := s.engine.(*training[float64])
	h := t.plan.model.hessian
	for _, b := range h.blocks {
		blocks = append(blocks, b*t.graph.scales[h.heads[0]])
	}
	return blocks, h.width
}
