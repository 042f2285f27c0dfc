package kfac

import (
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

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
// Grad was not called for them. After Attach another VM is needed. A solver of [New] finds its
// graph by the first of the nodes, as in solver.VM(cost). What it trains are the inputs that Grad
// was called for; without Grad, those among the nodes.
//
// The errors are those of [NewVM].
func (s *Solver) VM(nodes ...*gorgonia.Node) (vm *VM, err error) {
	defer recovered("VM", &err)
	err = s.alone("VM", func() (err error) {
		vm, err = s.makeVM(nodes)
		return err
	})
	return vm, err
}

// makeVM does the work of VM.
func (s *Solver) makeVM(nodes []*gorgonia.Node) (_ *VM, err error) {
	back := func() {}
	if s.infers && len(nodes) > 0 && nodes[0] != nil {
		_, inputs := splitInputs(nodes[1:])
		if back, err = s.follow("VM", append(nodes[:1:1], inputs...)); err != nil {
			return nil, err
		}
	}
	if s.engine == nil {
		return nil, &ConfigError{"VM", "no node, and a Solver of New that has no graph yet", "solver.VM(cost)"}
	}
	engine, err := s.engine.vm(nodes)
	if err != nil {
		back()
		return nil, err
	}
	return &VM{engine: engine, mode: program.Training}, nil
}

// solverVM is the engine of a solver's VM.
type solverVM[T program.Float] struct {
	training *training[T]
	graph    *graph[T]
	nodes    []*gorgonia.Node // further values that are wanted
	params   []*gorgonia.Node // inputs whose gradients are, though Grad was not called for them
	machine  *machine[T]
}

// vm makes the VM of the graph that the solver is attached to.
func (t *training[T]) vm(nodes []*gorgonia.Node) (vmEngine, error) {
	if err := t.calling.begin("VM"); err != nil {
		return nil, err
	}
	defer t.calling.end()
	g := t.graph
	for _, n := range nodes {
		if n == nil || n.Graph() != g.cost.Graph() {
			return nil, &ConfigError{"VM", "nil or a node of another graph", "nodes of the graph of the cost"}
		}
	}
	v := &solverVM[T]{training: t, graph: g}
	v.nodes, v.params = splitInputs(nodes)
	for _, n := range v.params {
		if err := g.trainable(n); err != nil {
			return nil, err
		}
	}
	return v, v.build()
}

// build makes the machine for the model that the plan has now.
func (v *solverVM[T]) build() error {
	whole := v.training.plan.model.whole
	want := program.Wanted{Cost: v.graph.cost, Params: v.params, Values: slices.Clone(v.nodes), Reads: true}
	for _, h := range v.graph.heads {
		want.Values = append(want.Values, h.as().Nodes...)
	}
	run, err := program.NewMachine(whole, want)
	if err != nil {
		return vmError(err)
	}
	v.machine = &machine[T]{cost: v.graph.cost, run: run, of: whole}
	v.graph.machine = v.machine
	return nil
}

// runAll runs the graph for the next chunk of the update.
func (v *solverVM[T]) runAll(mode program.Mode, _ uint64) error {
	t := v.training
	if err := t.calling.begin("RunAll"); err != nil {
		return err
	}
	defer t.calling.end()
	if v.graph != t.graph || v.graph.machine != v.machine {
		return &ConfigError{"RunAll", "the VM of a graph that the solver was attached to before, or an earlier VM",
			"that of the last call of VM after Attach"}
	}
	model := t.plan.model
	if v.machine.of != model.whole { // the first Step has settled what a vector output means
		if err := v.build(); err != nil {
			return err
		}
	}
	seed := chunkRandom(&t.cfg, len(t.chunks), t.steps).Uint64()
	model.held = held{}
	if err := v.machine.runAll(seed, mode); err != nil {
		return graphError(err)
	}
	model.held = held{v.machine.ran, seed}
	return nil
}
