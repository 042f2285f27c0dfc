package kfac

import (
	"errors"
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

var _ gorgonia.VM = (*VM)(nil)

// A VM runs a graph by this package's own program, in place of gorgonia.NewTapeMachine. It is
// several times as fast, and its gradients are right where Gorgonia v0.9.18's are not.
//
// After RunAll these have their values (Node.Value): the cost, the nodes that the VM was made with,
// and those with a gorgonia.Read, whose target is written too. Other nodes have none. With a cost,
// these have their gradients (Node.Grad, NodesToValueGrads): the inputs that gorgonia.Grad was
// called for, and the inputs that the VM was made with. BindDualValues is not needed. Values and
// gradients stay until the next RunAll, which computes both anew: gradients are not added up.
//
// A VM with gradients trains: Dropout drops, and BatchNorm takes the batch's statistics and moves
// its running ones. Without, and after [VM.EvalMode], it evaluates: Dropout does not drop, and
// BatchNorm takes the running ones. The settings that Gorgonia's VMs make for these ops do not
// count.
//
// A VM is not for concurrent use.
type VM struct {
	engine vmEngine
	mode   program.Mode
	runs   uint64
}

// vmEngine is a machine of either dtype, or that of a solver.
type vmEngine interface {
	runAll(mode program.Mode, run uint64) error
}

// NewVM makes a VM without a solver, for an evaluation or for another optimizer. It computes the
// outputs and what they depend on. The first output that is a scalar, and that Grad was called for
// or for which inputs are among the outputs, is the cost:
//
//	vm, err := kfac.NewVM(cost, logits) // trains, if there was a Grad(cost, params...)
//	vm, err := kfac.NewVM(logits)       // evaluates
//
// Random numbers come from a fixed seed and the number of the run.
//
// The errors are *ConfigError for an argument, and *GraphError for a graph that can't be run or
// differentiated here, as with an op of the user's own that has no SymDiff, or with gorgonia.Set.
// It names the node; a tape machine may still run it.
func NewVM(outputs ...*gorgonia.Node) (_ *VM, err error) {
	defer recovered("NewVM", &err)
	if len(outputs) == 0 || slices.Contains(outputs, nil) {
		return nil, &ConfigError{"NewVM", "no node, or nil", "the nodes whose values are wanted, the cost first"}
	}
	computed, inputs := splitInputs(outputs)
	if len(computed) == 0 {
		return nil, &ConfigError{"NewVM", "inputs only", "a node that is computed, such as the cost"}
	}
	want := program.Wanted{Params: inputs, Values: computed}
	for _, n := range computed {
		if want.Cost == nil && n.Shape().TotalSize() == 1 && n.Dims() == 0 && (n.Deriv() != nil || len(inputs) > 0) {
			want.Cost, want.Reads = n, true
		}
	}
	if len(inputs) > 0 && want.Cost == nil {
		return nil, &ConfigError{"NewVM", fmt.Sprintf("input %q without a cost", program.NameOf(inputs[0])),
			"a scalar node, whose gradient is left with the input"}
	}
	v := &VM{mode: program.Training}
	if want.Cost == nil {
		v.mode = program.Evaluation
	}
	if computed[0].Dtype() == tensor.Float32 {
		v.engine, err = newFreeVM[float32](computed, want)
	} else {
		v.engine, err = newFreeVM[float64](computed, want)
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// splitInputs parts the nodes that are computed from the graph's inputs.
func splitInputs(nodes []*gorgonia.Node) (computed, inputs []*gorgonia.Node) {
	for _, n := range nodes {
		if n.Op() == nil {
			inputs = append(inputs, n)
		} else {
			computed = append(computed, n)
		}
	}
	return computed, inputs
}

// EvalMode makes the VM evaluate from the next RunAll on, as in a validation of the cost: see [VM].
// A VM that evaluates computes no gradients.
func (v *VM) EvalMode() { v.mode = program.Evaluation }

// RunAll runs the graph on what its inputs hold. If it returns an error it has changed nothing. The
// errors are *GraphError, *ConfigError for a call during another one or after [Solver.Attach], and
// *PanicError where an op panics.
func (v *VM) RunAll() (err error) {
	defer recovered("RunAll", &err)
	if v == nil || v.engine == nil {
		return &ConfigError{"RunAll", "a VM that is closed, or that was not made", "one of NewVM or Solver.VM"}
	}
	v.runs++
	return v.engine.runAll(v.mode, v.runs)
}

// Reset does nothing: there is nothing to be reset. It is here because loops call it.
func (v *VM) Reset() {}

// Close lets go of the memory.
func (v *VM) Close() error {
	v.engine = nil
	return nil
}

// freeVM is the machine of a VM without a solver.
type freeVM[T program.Float] struct{ *program.Machine[T] }

func newFreeVM[T program.Float](outputs []*gorgonia.Node, want program.Wanted) (*freeVM[T], error) {
	p, err := program.New(outputs)
	if err != nil {
		return nil, vmError(err)
	}
	if err := nothingEmpty(p); err != nil {
		return nil, err
	}
	for _, n := range want.Params {
		if p.Node(n) == nil {
			return nil, &ParamError{Param: program.NameOf(n), Op: "making the VM", Err: ErrForeign,
				Hint: "the outputs do not depend on it"}
		}
	}
	run, err := program.NewRun[T](p, 0)
	if err != nil {
		return nil, vmError(err)
	}
	m, err := program.NewMachine(run, want)
	if err != nil {
		return nil, vmError(err)
	}
	return &freeVM[T]{m}, nil
}

func (f *freeVM[T]) runAll(mode program.Mode, run uint64) error {
	return graphError(f.Run(run, mode))
}

// vmError is graphError with what helps while a VM is made.
func vmError(err error) error {
	var op *program.OpError
	if !errors.As(err, &op) {
		return graphError(err)
	}
	return &GraphError{Node: op.Node, What: fmt.Sprintf("making the VM: %s of %s", op.What, op.Op), Err: op.Err,
		Hint: "keep the tape machine for this graph: vm := gorgonia.NewTapeMachine(graph, " +
			"gorgonia.BindDualValues(params...))"}
}
