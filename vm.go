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

// VM makes a VM for the graph that the solver is attached to, in place of gorgonia.NewTapeMachine:
//
//	vm, err := solver.VM()
//	...
//	err = vm.RunAll()
//	err = solver.Step(gorgonia.NodesToValueGrads(params))
//
// Step then does not run the model again: the forward pass of RunAll serves the gradient, the
// statistics and the quadratic model, and there is no gradient check. What Dropout and random nodes
// draw comes from WithSeed and the number of the step, and all of a step sees the same.
//
// nodes are further nodes whose values are wanted, and inputs whose gradients are wanted although
// Grad was not called for them. After Attach another VM is needed.
//
// The errors are those of [NewVM].
func (s *Solver) VM(nodes ...*gorgonia.Node) (_ *VM, err error) {
	defer recovered("VM", &err)
	if err := s.made("VM"); err != nil {
		return nil, err
	}
	engine, err := s.engine.vm(nodes)
	if err != nil {
		return nil, err
	}
	return &VM{engine: engine, mode: program.Training}, nil
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

// A machine is the solver's own VM of a graph, with what Step has to know about its last run.
type machine[T program.Float] struct {
	training *training[T]
	graph    *graph[T]
	nodes    []*gorgonia.Node // further values that are wanted
	params   []*gorgonia.Node // inputs whose gradients are, though Grad was not called for them

	of  *model[T] // that run runs
	run *program.Machine[T]

	ran    bool // at least once
	spent  bool // a Step or Accumulate has taken in the last run
	seed   uint64
	errors bool // the model's run holds the gradients of the last run
}

// vm makes the machine of the graph that the solver is attached to.
func (t *training[T]) vm(nodes []*gorgonia.Node) (vmEngine, error) {
	if err := t.calling.begin("VM"); err != nil {
		return nil, err
	}
	defer t.calling.end()
	g := t.graph
	m := &machine[T]{training: t, graph: g}
	for _, n := range nodes {
		if n == nil || n.Graph() != g.cost.Graph() {
			return nil, &ConfigError{"VM", "nil or a node of another graph", "nodes of the graph of the cost"}
		}
	}
	m.nodes, m.params = splitInputs(nodes)
	for _, n := range m.params {
		if err := g.trainable(n); err != nil {
			return nil, err
		}
	}
	if err := m.build(); err != nil {
		return nil, err
	}
	g.machine = m
	return m, nil
}

// build makes the machine for the model that the plan has now.
func (m *machine[T]) build() error {
	model := m.training.plan.model
	want := program.Wanted{Cost: m.graph.cost, Params: m.params, Values: slices.Clone(m.nodes), Reads: true}
	for _, h := range m.graph.heads {
		want.Values = append(want.Values, h.output())
	}
	run, err := program.NewMachine(model.whole, want)
	if err != nil {
		return vmError(err)
	}
	m.of, m.run = model, run
	return nil
}

// runAll runs the graph for the next chunk of the update.
func (m *machine[T]) runAll(mode program.Mode, _ uint64) error {
	t := m.training
	if err := t.calling.begin("RunAll"); err != nil {
		return err
	}
	defer t.calling.end()
	if m.graph != t.graph || m.graph.machine != m {
		return &ConfigError{"RunAll", "the VM of a graph that the solver was attached to before, or an earlier VM",
			"that of the last call of VM after Attach"}
	}
	if m.of != t.plan.model {
		if err := m.build(); err != nil {
			return err
		}
	}
	m.ran, m.spent, m.errors = false, false, false
	m.of.held.on = false
	m.seed = chunkRandom(&t.cfg, len(t.chunks), t.steps).Uint64()
	if err := m.run.Run(m.seed, mode); err != nil {
		return graphError(err)
	}
	if mode == program.Training {
		m.run.Remember()
		m.ran, m.errors = true, true
		m.of.held = held{true, m.seed}
	}
	return nil
}

// left reports whether the last VM that has run this graph is the machine, with these parameters'
// gradients.
func (m *machine[T]) left(params []*parameter[T]) bool {
	if m == nil || !m.run.Left(m.graph.cost) {
		return false
	}
	for _, p := range params {
		if !m.run.Left(p.src) {
			return false
		}
	}
	return true
}

// fresh returns an error if the machine's last run is not one of what the graph holds now, or has
// been taken in already.
func (m *machine[T]) fresh() error {
	const op = "comparing the graph with the last RunAll of the solver's VM"
	if !m.ran || m.spent {
		return &GraphError{Node: program.NameOf(m.graph.cost), What: op, Err: ErrStale,
			Hint: "call RunAll, not in EvalMode, before each Step or Accumulate"}
	}
	if n := m.run.Changed(); n != nil {
		return &GraphError{Node: program.NameOf(n), What: op, Err: ErrStale,
			Hint: "its value has changed since then: put the next batch in after Step, not before it"}
	}
	return nil
}

// finish notes that a Step or Accumulate has taken in the run, and changed what it was one of.
func (m *machine[T]) finish() {
	if m != nil {
		m.spent, m.errors = true, false
		m.of.held.on = false
	}
}
