package kfac

import (
	"fmt"
	"go/token"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/infer"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// inferCost finds the cost of the graph of some parameters.
func inferCost(params []*gorgonia.Node) (*gorgonia.Node, error) {
	for _, n := range params {
		if n.Graph() == nil || n.Graph() != params[0].Graph() {
			return nil, &ParamError{Param: program.NameOf(n), Op: "looking it up in the graph", Err: ErrForeign,
				Hint: "it belongs to another graph than the first in the list; give Step the parameters of one graph"}
		}
	}
	costs := infer.Costs(params)
	if len(costs) > 1 {
		costs = trainedCosts(costs, params)
	}
	if len(costs) == 1 {
		return costs[0], nil
	}
	e := &InferenceError{
		Found: "no scalar depends on the parameters",
		Hint:  "make the cost in their graph and call gorgonia.Grad(cost, params...) before the VM is made",
	}
	if len(costs) > 0 {
		e.Found = fmt.Sprintf("%d scalars depend on the parameters, and which has the gradients that they have can't "+
			"be told", len(costs))
		e.Hint = "say which is the cost: solver, err := kfac.NewSolver(cost, kfac.Categorical(logits)), with the " +
			"distribution that fits; or, for a solver that is made already, solver.Attach of the same"
		if costs[0].Deriv() == nil {
			e.Hint = "a LispMachine adds up the gradients of all scalars that it runs: give it the cost alone, " +
				"gorgonia.NewLispMachine(graph.SubgraphRoots(cost)). Or " + e.Hint
		}
		for _, n := range costs {
			e.Outputs = append(e.Outputs, program.NameOf(n))
		}
	}
	return nil, e
}

// trainedCosts is that of the costs whose gradients the parameters have; all, where that is none of
// them or several.
func trainedCosts(costs, params []*gorgonia.Node) []*gorgonia.Node {
	has := hasGradients[float64]
	if costs[0].Dtype() == tensor.Float32 {
		has = hasGradients[float32]
	}
	var trained []*gorgonia.Node
	for _, n := range costs {
		if has(n, params) {
			trained = append(trained, n)
		}
	}
	if len(trained) != 1 {
		return costs
	}
	return trained
}

// hasGradients reports whether the gradients that parameters have are those of a cost.
func hasGradients[T program.Float](cost *gorgonia.Node, params []*gorgonia.Node) bool {
	p, err := program.New([]*gorgonia.Node{cost})
	if err != nil {
		return false
	}
	c := comparison[T]{}
	for _, n := range params {
		v, err := n.Grad()
		if err != nil || v == nil {
			return false
		}
		grad, err := flatten[T](v, nil)
		if err != nil {
			return false
		}
		if leaf := p.Node(n); leaf != nil {
			c.leaves = append(c.leaves, leaf)
			c.params = append(c.params, &parameter[T]{place: place[T]{grad: grad.data}})
		}
	}
	c.path = p.Path(c.leaves...)
	if p.CheckDifferentiable(c.path) != nil {
		return false
	}
	if c.run, err = program.NewRun[T](p, 0); err != nil {
		return false
	}
	return c.run.Forward(nil) == nil && c.compare() == nil
}

// inferDistribution finds what the model predicts, in the way that its cost is written.
func inferDistribution(cost *gorgonia.Node, params []*gorgonia.Node) (Distribution, error) {
	p, err := program.New([]*gorgonia.Node{cost})
	if err != nil {
		return nil, graphError(err)
	}
	trained := differentiated(cost, params)
	if len(trained) == 0 {
		return nil, &InferenceError{
			Cost: program.NameOf(cost), Found: "gorgonia.Grad was not called for it, so what is trained is not known",
			Hint: "call gorgonia.Grad(cost, params...) before, or name them: solver.VM(append(gorgonia.Nodes{cost}, " +
				"params...)...)",
		}
	}
	found := infer.Outputs(p, trained)
	var parts joint
	for _, o := range found.Outputs {
		h := partsOf(declaration(o))[0]
		h.found = o.How
		parts = append(parts, h)
	}
	if len(found.Unknown) == 0 && len(parts) > 0 {
		return parts, nil
	}
	return nil, notInferred(cost, found)
}

// differentiated are those of the nodes that Grad was called for, if it was called for the cost: an
// input that is listed with the parameters is none of them. Otherwise they are all but the computed
// ones.
func differentiated(cost *gorgonia.Node, nodes []*gorgonia.Node) []*gorgonia.Node {
	if cost.Deriv() == nil {
		_, inputs := splitInputs(nodes)
		return inputs
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n *gorgonia.Node) bool { return n.Deriv() == nil })
}

// declaration is what the user would write for an output.
func declaration(o infer.Output) Distribution {
	switch o.Family {
	case infer.Categorical:
		return categorical(o.Node.Src, o.Last)
	case infer.AbsoluteError:
		return AbsoluteError(o.Node.Src)
	case infer.Heteroscedastic:
		return Heteroscedastic(o.Node.Src, o.Beside.Src)
	case infer.Bernoulli:
		return Bernoulli(o.Node.Src)
	case infer.Poisson:
		return Poisson(o.Node.Src)
	}
	return SquaredError(o.Node.Src)
}

// notInferred says which terms are nothing that is known, and what to write.
func notInferred(cost *gorgonia.Node, found infer.Found) error {
	const known = "the square or the absolute value of a difference from targets, the logarithm of a softmax or of a " +
		"sigmoid, or the exp of a log rate"
	e := &InferenceError{Cost: program.NameOf(cost), Found: "no term of it is " + known}
	if len(found.Unknown) > 0 {
		var terms []string
		for _, n := range found.Unknown {
			terms = append(terms, n.Name())
		}
		e.Found = fmt.Sprintf("%s: not %s", strings.Join(terms, "; "), known)
	}
	candidates := found.Guesses
	line := "kfac.Categorical(z)"
	if len(found.Outputs) > 0 {
		var parts []string
		for _, o := range found.Outputs {
			names := variable(o.Node.Src)
			if o.Beside != nil {
				names += ", " + variable(o.Beside.Src)
			}
			parts = append(parts, fmt.Sprintf("kfac.%s(%s)", partsOf(declaration(o))[0].kind, names))
			for _, n := range []*program.Node{o.Node, o.Beside} {
				if n != nil && !slices.Contains(candidates, n) {
					candidates = append(candidates, n)
				}
			}
		}
		line = strings.Join(parts, ", ")
		if len(parts) > 1 {
			line = "kfac.Joint(" + line + ")"
		}
	}
	for _, n := range candidates {
		e.Outputs = append(e.Outputs, fmt.Sprintf("%s of shape %s", n.Name(), program.FormatShape(n.Shape)))
	}
	e.Hint = fmt.Sprintf("declare what the model predicts, by the distribution that fits and the nodes of its "+
		"outputs: kfac.NewSolver(cost, %s), or solver.Attach(cost, %s) for a solver that is made already. "+
		"kfac.Policy(kfac.Categorical(z)) is for policy gradients, whose cost is no likelihood, and "+
		"kfac.GaussNewton(z) takes any other cost, such as a Huber or a hinge loss, by its second derivatives",
		line, line)
	return e
}

// variable is what a node may be called in a program: by its name, if that is one of Go's.
func variable(n *gorgonia.Node) string {
	if token.IsIdentifier(n.Name()) {
		return n.Name()
	}
	return "z"
}
