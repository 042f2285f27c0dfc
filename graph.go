package kfac

import (
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A graph is the solver's hold on one graph of the user's. All else that a Solver has goes on from graph to graph: the parameters and their blocks, which
// the graph's plan refers to, damping and counters. A chunk keeps the graph that its cases ran through.
type graph[T program.Float] struct {
	cost    *gorgonia.Node
	whole   *program.Program // of the cost, for the checks and the objective
	model   *program.Program // of the outputs, under the meaning in force
	outputs []*output
	run     *program.Run[T] // of the model
	means   [2]meaning[T]   // model and run where an output that is a vector holds a single case, and a number for each case
	seed    uint64
	costRun *program.Run[T] // of the cost; made when first needed

	used   bool         // a RunAll of it was taken in
	tail   *lossTail[T] // of the cost; made by the first RunAll
	scales []float64    // c of each output, by the first RunAll; before, those of the graph before
	scale  float64      // c of the first output

	planned[T]
	unreached []*gorgonia.Node     // in the list given last, but not on the way to the cost
	saved     []*program.Inputs[T] // of the chunks of an update
}

// A meaning is the program of the outputs under one meaning of an output that is a vector, with its run. It is made when first needed.
type meaning[T program.Float] struct {
	model *program.Program
	run   *program.Run[T]
}

// mean makes sure that there are the model and the run under one meaning, and puts it in force: an output that is a vector holds a number
// for each case if on.
func (g *graph[T]) mean(on bool) (err error) {
	m := &g.means[0]
	if on {
		m = &g.means[1]
	}
	if m.model == nil {
		var made meaning[T]
		if made.model, err = g.model.WithVectorCases(on); err != nil {
			return graphError(err)
		}
		if made.run, err = program.NewRun[T](made.model, g.seed); err != nil {
			return graphError(err)
		}
		*m = made
	}
	g.model, g.run = m.model, m.run
	for i, o := range g.outputs {
		o.node = g.model.Outputs[i]
		o.cols = columns(g.model, o.node)
	}
	return nil
}

// leaves are the program's copies of the given nodes that the outputs depend on.
func (g *graph[T]) leaves(nodes []*gorgonia.Node) (leaves []*program.Node) {
	for _, n := range nodes {
		if leaf := g.model.Node(n); leaf != nil {
			leaves = append(leaves, leaf)
		}
	}
	return leaves
}

// A place is what a parameter is in one graph.
type place[T program.Float] struct {
	src  *gorgonia.Node
	leaf *program.Node // in the program of the outputs; nil if they do not depend on it
	// reached: the outputs can be differentiated by it, so that it takes part in the exact Fisher products.
	reached bool
	block   block[T] // that it belongs to
}

// A key is what a parameter is known by from graph to graph.
type key struct{ name, shape string }

func keyOf(n *gorgonia.Node) key { return key{n.Name(), shapeString(n.Shape())} }

func newGraph[T program.Float](cost *gorgonia.Node, heads []head, seed uint64) (*graph[T], error) {
	g := &graph[T]{cost: cost, seed: seed}
	var err error
	if g.whole, err = program.New([]*gorgonia.Node{cost}); err != nil {
		return nil, graphError(err)
	}
	nodes := make([]*gorgonia.Node, len(heads))
	for i, h := range heads {
		nodes[i] = h.output()
	}
	if g.model, err = program.New(nodes); err != nil {
		return nil, graphError(err)
	}
	for i, h := range heads {
		o := &output{head: h, node: g.model.Outputs[i], weight: 1}
		if g.whole.Node(nodes[i]) == nil {
			return nil, notInCost(o)
		}
		g.outputs = append(g.outputs, o)
	}
	return g, g.mean(false)
}

// variables is the number of target variables of a case.
func (g *graph[T]) variables() (n int) {
	for _, o := range g.outputs {
		n += o.head.variables(o.cols)
	}
	return n
}

// attach goes on with another graph; see Solver.Attach.
func (c *conductor[T]) attach(cost *gorgonia.Node, heads []head) (err error) {
	if got, want := heads[0].output().Dtype(), c.model.Dtype(); got != want {
		return &ConfigError{heads[0].name(), fmt.Sprintf("an output of %v", got), fmt.Sprintf("%v, as in the graph before", want)}
	}
	g, err := newGraph[T](cost, heads, c.cfg.seed)
	if err != nil {
		return err
	}
	g.scales = c.scales
	before, rebuilt := c.graph, c.rebuilt
	defer func() {
		if err != nil {
			c.graph, c.rebuilt = before, rebuilt
			c.adopt(before.planned)
		}
	}()
	c.graph, c.rebuilt = g, true
	if !c.settled() {
		return c.makePlan(c.guessParameters())
	}
	nodes, err := c.carryOver(before)
	if err != nil {
		return err
	}
	return c.makePlan(nodes)
}

// settled reports whether the user has said which the parameters are.
func (c *conductor[T]) settled() bool { return c.runs > 0 }

// carryOver finds the parameters that there were before in the graph, by name and shape.
func (c *conductor[T]) carryOver(before *graph[T]) (nodes []*gorgonia.Node, err error) {
	c.absent = slices.Concat(before.order, before.absent)
	c.params = map[*gorgonia.Node]*parameter[T]{}
	if err := distinctNames(nodesOf(before.order)); err != nil {
		return nil, err
	}
	leaves := map[key]*gorgonia.Node{}
	for _, n := range c.whole.Nodes {
		if !n.IsLeaf() || n.Src.Op() != nil {
			continue
		}
		k := keyOf(n.Src)
		if leaves[k] != nil && slices.ContainsFunc(c.absent, func(p *parameter[T]) bool { return p.key == k }) {
			return nil, sameName(k.name)
		}
		leaves[k] = n.Src
	}
	for _, p := range c.absent {
		if n := leaves[p.key]; n != nil {
			c.params[n] = p
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == 0 {
		return nil, &GraphError{Node: c.cost.Name(), What: "looking for the parameters trained so far among the inputs of its graph", Err: ErrForeign,
			Hint: fmt.Sprintf("none of them has name and shape of one of the old graph (%s); give a parameter the same name in every graph", names(before.order))}
	}
	return nodes, nil
}

func nodesOf[T program.Float](params []*parameter[T]) []*gorgonia.Node {
	nodes := make([]*gorgonia.Node, len(params))
	for i, p := range params {
		nodes[i] = p.src
	}
	return nodes
}

// names lists the first few parameters.
func names[T program.Float](params []*parameter[T]) (s string) {
	for i, p := range params {
		switch {
		case i == 3:
			return s + ", ..."
		case i > 0:
			s += ", "
		}
		s += fmt.Sprintf("%q of shape %s", p.key.name, p.key.shape)
	}
	return s
}

// distinctNames reports two parameters of one name, as an error: state could not tell them apart in another graph.
func distinctNames(nodes []*gorgonia.Node) error {
	seen := map[string]bool{}
	for _, n := range nodes {
		if seen[n.Name()] {
			return sameName(n.Name())
		}
		seen[n.Name()] = true
	}
	return nil
}

func sameName(name string) error {
	return &ParamError{Param: name, Op: "carrying state from graph to graph", Err: ErrSameName,
		Hint: "parameters are known by their names: give each one its own, with gorgonia.WithName, in every graph"}
}
