package kfac

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A GroupOption is a setting of a group of parameters; see [WithGroup].
type GroupOption func(*own) error

// GroupRate sets a factor on the learning rate of a group, in (0, 1e30]: its part of the
// preconditioned gradient is multiplied by it. With the quadratic model, which finds the length of
// the whole step, only the ratio of the groups' factors matters. Parameters with one block, as a
// weight with its bias, need the same factor. Default 1.
func GroupRate(factor float64) GroupOption {
	return groupNumber("GroupRate", factor, factor > 0 && factor <= largest, "a number in (0, 1e30]",
		func(o *own) { o.rate = factor })
}

// GroupLambda sets a factor on lambda for a group, in (0, 1e30], in the quadratic model and, with
// gamma, in the inverses. Parameters with one block need the same factor. Default 1.
func GroupLambda(factor float64) GroupOption {
	return groupNumber("GroupLambda", factor, factor > 0 && factor <= largest, "a number in (0, 1e30]",
		func(o *own) { o.lambda = factor })
}

// GroupL2 sets eta of a group, in [0, 1e30], in place of that of WithL2Reg and its schedule.
// Inverses are damped by the eta of a layer's weight. Default: that of all.
func GroupL2(eta float64) GroupOption {
	return groupNumber("GroupL2", eta, eta >= 0 && eta <= largest, "a number in [0, 1e30]",
		func(o *own) { o.l2 = &eta })
}

// GroupDecay sets the weight decay of a group, in [0, 1), in place of that of WithWeightDecay and
// its schedule. Default: that of all.
func GroupDecay(fraction float64) GroupOption {
	return groupNumber("GroupDecay", fraction, fraction >= 0 && fraction < 1, "a number in [0, 1)",
		func(o *own) { o.decay = &fraction })
}

// GroupTreatment sets the kind of block of a group: [Diagonal] or [Identity]. Default: as the graph
// has it; see [Plan].
func GroupTreatment(t Treatment) GroupOption {
	return func(o *own) error {
		if t != Diagonal && t != Identity {
			return &ConfigError{"GroupTreatment", fmt.Sprintf("%q", t), "Diagonal or Identity"}
		}
		o.treatment = t
		return nil
	}
}

// GroupFrozen leaves a group as it is: no weight changes, no gradient is read, and there is no
// curvature and no state. Gradients of frozen parameters that Step is given are zeroed. Save writes
// their weights. It goes with no other setting of a group.
func GroupFrozen() GroupOption { return func(o *own) error { o.frozen = true; return nil } }

// GroupSolver has another solver step a group, such as gorgonia.NewAdamSolver(); K-FAC steps the
// others. What it sees is the gradient in the solver's units: that of the mean over cases of the
// negative log-likelihood. Learning rate, weight decay and so on are its own. It steps with each
// Step of this solver that is not rejected, from the same gradients. What [WithInner] says about
// lists, failures and Save holds for it too. It goes with no other setting of a group, and not with
// Precondition.
func GroupSolver(solver gorgonia.Solver) GroupOption {
	return func(o *own) error {
		if solver == nil {
			return &ConfigError{"GroupSolver", "nil", "a gorgonia.Solver"}
		}
		o.solver = &solver
		return nil
	}
}

func groupNumber(name string, v float64, inRange bool, want string, set func(*own)) GroupOption {
	return func(o *own) error {
		if !inRange { // as NaN is not
			return &ConfigError{name, fmt.Sprint(v), want}
		}
		set(o)
		return nil
	}
}

// own are the settings of a parameter that its group may have for itself.
type own struct {
	lambda, rate float64  // factors
	l2, decay    *float64 // nil: that of all
	treatment    Treatment
	frozen       bool
	solver       *gorgonia.Solver // that makes its steps; nil: this one
}

func asAll() own { return own{lambda: 1, rate: 1} }

// eta is that of a parameter, where all others have this.
func (o *own) eta(all float64) float64 {
	switch {
	case o.solver != nil:
		return 0
	case o.l2 != nil:
		return *o.l2
	}
	return all
}

// decayOr is the weight decay of a parameter, where all others have this.
func (o *own) decayOr(all float64) float64 {
	switch {
	case o.solver != nil:
		return 0
	case o.decay != nil:
		return *o.decay
	}
	return all
}

// String lists what is not as for all, as a state tells it.
func (o own) String() string {
	var all []string
	add := func(is bool, what string, v any) {
		if is {
			all = append(all, strings.TrimSpace(fmt.Sprintln(what, v)))
		}
	}
	add(o.rate != 1, "rate", o.rate)
	add(o.lambda != 1, "lambda", o.lambda)
	if o.l2 != nil {
		add(true, "L2", *o.l2)
	}
	if o.decay != nil {
		add(true, "decay", *o.decay)
	}
	add(o.treatment != "", "treatment", o.treatment)
	add(o.frozen, "frozen", "")
	if o.solver != nil {
		add(true, "solver", fmt.Sprintf("%T", *o.solver))
	}
	return strings.Join(all, ", ")
}

// A paramGroup is a group of parameters, by a pattern or by nodes.
type paramGroup struct {
	option  string // for errors
	pattern string
	nodes   gorgonia.Nodes
	own
}

// with gives a group its settings.
func (g paramGroup) with(settings []GroupOption) (paramGroup, error) {
	g.own = asAll()
	for _, set := range settings {
		if set == nil {
			return g, &ConfigError{g.option, "a setting that is nil", "settings of this package"}
		}
		if err := set(&g.own); err != nil {
			return g, err
		}
	}
	alone := asAll()
	if alone.frozen = g.frozen; !g.frozen {
		alone.solver = g.solver
	}
	switch {
	case g.own == asAll():
		return g, &ConfigError{g.option, "no setting of its own", "GroupRate, GroupLambda, GroupL2, GroupDecay, " +
			"GroupTreatment, GroupFrozen or GroupSolver"}
	case g.own != alone && (g.frozen || g.solver != nil):
		return g, &ConfigError{g.option, g.own.String(), "GroupFrozen or GroupSolver alone"}
	}
	return g, nil
}

// has reports whether a node is in the group.
func (g *paramGroup) has(n *gorgonia.Node) bool {
	if g.nodes == nil {
		match, _ := path.Match(g.pattern, program.NameOf(n))
		return match
	}
	return slices.ContainsFunc(g.nodes, func(m *gorgonia.Node) bool {
		return m == n || m.Graph() != n.Graph() && m.Name() == n.Name() && m.Shape().Eq(n.Shape())
	})
}

// paramGroups are groups that have no parameter in common.
type paramGroups []paramGroup

// of are the settings of a parameter.
func (all paramGroups) of(n *gorgonia.Node) own {
	for i := range all {
		if all[i].has(n) {
			return all[i].own
		}
	}
	return asAll()
}

// frozen reports whether a parameter is to stay as it is.
func (all paramGroups) frozen(n *gorgonia.Node) bool { return all.of(n).frozen }

// hasL2 reports whether a group has an eta.
func (all paramGroups) hasL2() bool {
	return slices.ContainsFunc(all, func(g paramGroup) bool { return g.eta(0) > 0 })
}

// String tells the groups as a state does.
func (all paramGroups) String() string {
	var list []string
	for _, g := range all {
		list = append(list, g.option+" "+g.own.String())
	}
	return strings.Join(list, "; ")
}

// distinct reports parameters that are in two groups and, if complete, a group without parameters.
func (all paramGroups) distinct(params []*gorgonia.Node, complete bool) error {
	for i := range all {
		g := &all[i]
		var both, names []string
		var other string
		found := false
		for _, n := range params {
			names = append(names, fmt.Sprintf("%q", program.NameOf(n)))
			if !g.has(n) {
				continue
			}
			found = true
			for j := range all[:i] {
				if all[j].has(n) {
					both, other = append(both, fmt.Sprintf("%q", program.NameOf(n))), all[j].option
				}
			}
		}
		switch {
		case both != nil:
			return &ConfigError{g.option, fmt.Sprintf("%s, in %s too", strings.Join(both, ", "), other),
				"each parameter in one group"}
		case !found && complete:
			return &ConfigError{g.option, "none of the parameters " + strings.Join(names, ", "),
				"one of the parameters that Step is given"}
		}
	}
	return nil
}

func (o *own) sameFactors(p *own) bool { return o.lambda == p.lambda && o.rate == p.rate }
