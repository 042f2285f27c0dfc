package trial

import (
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
)

// Machines are what -vm can name: each optimizer's usual one, Gorgonia's tape machine for all, or
// this package's for all.
var Machines = []string{"own", "tape", "kfac"}

// NewMachine makes the machine that a solver trains a model on. Grad was called before. Usually
// that is the solver's own with K-FAC, and a tape machine with Gorgonia's solvers.
func NewMachine(name string, solver gorgonia.Solver, cost *gorgonia.Node, params gorgonia.Nodes) (gorgonia.VM, error) {
	k, ok := solver.(*kfac.Solver)
	switch {
	case ok && name != "tape":
		return k.VM()
	case name == "kfac":
		return kfac.NewVM(cost)
	}
	return gorgonia.NewTapeMachine(cost.Graph(), gorgonia.BindDualValues(params...)), nil
}
