package testnet

import (
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
)

// A Machine runs a net forward and backward once.
type Machine func() error

// DualTape is the machine that Gorgonia's own examples use with a solver.
func DualTape(n *Net) Machine { return Tape(n, gorgonia.BindDualValues(n.Params...)) }

// Tape is a tape machine, which is reset before each run.
func Tape(n *Net, opts ...gorgonia.VMOpt) Machine {
	vm := gorgonia.NewTapeMachine(n.Graph, opts...)
	return func() error { vm.Reset(); return vm.RunAll() }
}

// Compiled is a tape machine that runs only what cost and gradients need. Grad was called before.
func Compiled(t TB, n *Net) Machine {
	t.Helper()
	inputs := slices.DeleteFunc(n.Graph.Inputs(), func(in *gorgonia.Node) bool { return in.Op() != nil })
	outputs := gorgonia.Nodes{n.Cost}
	for _, p := range n.Params {
		outputs = append(outputs, p.Deriv())
	}
	prog, locMap, err := gorgonia.CompileFunction(n.Graph, inputs, outputs)
	Check(t, err)
	return Tape(n, gorgonia.WithPrecompiled(prog, locMap), gorgonia.BindDualValues(n.Params...))
}

// Lisp is a LispMachine, which does without Grad. Each run is by a new one: a second RunAll of one
// does nothing.
func Lisp(n *Net) Machine {
	return func() error { return gorgonia.NewLispMachine(n.Graph).RunAll() }
}

// Machines make all machines by name, Grad included.
var Machines = map[string]func(t TB, n *Net) Machine{
	"BindDualValues":    func(t TB, n *Net) Machine { n.Grad(t); return DualTape(n) },
	"no BindDualValues": func(t TB, n *Net) Machine { n.Grad(t); return Tape(n) },
	"CompileFunction":   func(t TB, n *Net) Machine { n.Grad(t); return Compiled(t, n) },
	"LispMachine":       func(_ TB, n *Net) Machine { return Lisp(n) },
}

// A Trainer is a training loop: run the machine, step.
type Trainer[S gorgonia.Solver] struct {
	*Net
	Run    Machine
	Solver S
	values map[string]gorgonia.Value // of the parameters of all nets; see Share
}

// Try does one iteration.
func (tr *Trainer[S]) Try() error {
	if err := tr.Run(); err != nil {
		return err
	}
	return tr.Solver.Step(tr.ValueGrads())
}

// Step does one iteration, which may not fail. It returns the cost before the update.
func (tr *Trainer[S]) Step(t TB) float64 {
	t.Helper()
	Check(t, tr.Try())
	return Numbers(tr.Cost.Value())[0]
}

// Steps does n iterations, none of which may fail.
func (tr *Trainer[S]) Steps(t TB, n int) {
	t.Helper()
	for i := range n {
		if err := tr.Try(); err != nil {
			t.Fatalf("iteration %d: %v", i+1, err)
		}
	}
}

// Falls demands that training lowers the cost at least to the given part of what it was.
func (tr *Trainer[S]) Falls(t TB, steps int, to float64) {
	t.Helper()
	first := tr.Step(t)
	tr.Steps(t, steps-1)
	if last := tr.Step(t); !(last < to*first) {
		t.Errorf("the cost went from %.4g to %.4g in %d steps, want at most %g of it", first, last, steps, to)
	}
}

// Share puts the parameters of a net on the tensors that those with the same names and shapes have
// had so far.
func (tr *Trainer[S]) Share(t TB, n *Net) {
	t.Helper()
	if tr.values == nil {
		tr.values = map[string]gorgonia.Value{}
	}
	for _, net := range []*Net{tr.Net, n} {
		for _, p := range net.Params {
			key := fmt.Sprint(p.Name(), p.Shape())
			if v := tr.values[key]; v != nil {
				Check(t, gorgonia.Let(p, v))
			} else {
				tr.values[key] = p.Value()
			}
		}
	}
}
