package kfac

import (
	"fmt"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"

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
	if len(costs) == 1 {
		return costs[0], nil
	}
	e := &InferenceError{
		Found: "no scalar depends on the parameters",
		Hint:  "make the cost in their graph and call gorgonia.Grad(cost, params...) before the VM is made",
	}
	if len(costs) > 0 {
		e.Found = fmt.Sprintf("%d scalars depend on the parameters, and each may be the cost", len(costs))
		e.Hint = "say which it is: solver, err := kfac.NewSolver(cost, kfac.Categorical(logits)), with the " +
			"distribution that fits; or, for a solver that is made already, solver.Attach of the same"
		for _, n := range costs {
			e.Outputs = append(e.Outputs, program.NameOf(n))
		}
	}
	return nil, e
}

// inferDistribution finds what the model predicts, in the way that its cost is written.
func inferDistribution(cost *gorgonia.Node, params []*gorgonia.Node) (Distribution, error) {
	p, err := program.New([]*gorgonia.Node{cost})
	if err != nil {
		return nil, graphError(err)
	}
	found := infer.Outputs(p, differentiated(cost, params))
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
// input that is listed with the parameters is none of them.
func differentiated(cost *gorgonia.Node, nodes []*gorgonia.Node) []*gorgonia.Node {
	if cost.Deriv() == nil {
		return nodes
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n *gorgonia.Node) bool { return n.Deriv() == nil })
}

// declaration is what the user would write for an output.
func declaration(o infer.Output) Distribution {
	switch o.Family {
	case infer.Categorical:
		return Categorical(o.Node.Src)
	case infer.Bernoulli:
		return Bernoulli(o.Node.Src)
	}
	return SquaredError(o.Node.Src)
}

// notInferred says which terms are nothing that is known, and what to write.
func notInferred(cost *gorgonia.Node, found infer.Found) error {
	e := &InferenceError{Cost: program.NameOf(cost), Found: "no term of it is the square of a difference from " +
		"targets, or the logarithm of a softmax or of a sigmoid"}
	if len(found.Unknown) > 0 {
		var terms []string
		for _, n := range found.Unknown {
			terms = append(terms, fmt.Sprintf("%q", n.Name()))
		}
		e.Found = fmt.Sprintf("these terms are no square of a difference from targets, and no logarithm of a "+
			"softmax or of a sigmoid: %s", strings.Join(terms, ", "))
	}
	candidates := found.Guesses
	known := make([]string, len(found.Outputs))
	for i, o := range found.Outputs {
		known[i] = "kfac." + partsOf(declaration(o))[0].name()
		if !slices.Contains(candidates, o.Node) {
			candidates = append(candidates, o.Node)
		}
	}
	for _, n := range candidates {
		e.Outputs = append(e.Outputs, fmt.Sprintf("%q of shape %s", n.Name(), program.FormatShape(n.Shape)))
	}
	line := "kfac.Categorical(output)"
	switch len(known) {
	case 0:
	case 1:
		line = known[0]
	default:
		line = "kfac.Joint(" + strings.Join(known, ", ") + ")"
	}
	e.Hint = fmt.Sprintf("declare what the model predicts, with the node of the output and the distribution that "+
		"fits: kfac.NewSolver(cost, %s), or solver.Attach(cost, %s) for a solver that is made already", line, line)
	return e
}
