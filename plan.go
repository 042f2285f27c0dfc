package kfac

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Treatment says how the curvature of a parameter is approximated.
type Treatment string

const (
	// Kronecker: the parameter belongs to a layer with the block A (x) G of the Fisher matrix.
	Kronecker Treatment = "kronecker"
	// Full: the parameter acts element by element. It has a small full block of the Fisher matrix,
	// or one for each channel, together with the shift of the channel.
	Full Treatment = "full"
	// Diagonal: the parameter has a diagonal block, the mean of squared sampled gradients, damped.
	Diagonal Treatment = "diagonal"
	// Identity: no curvature is available. The direction is the plain gradient.
	Identity Treatment = "identity"
	// Frozen: the parameter stays as it is; see GroupFrozen.
	Frozen Treatment = "frozen"
	// Excluded: another solver steps the parameter; see GroupSolver.
	Excluded Treatment = "excluded"
	// Unreached: the cost does not depend on the parameter, so it stays unchanged; see
	// WithoutReachCheck.
	Unreached Treatment = "unreached"
)

// A Plan says what the solver does with every parameter.
type Plan struct {
	Params []ParamPlan
	Losses []string // by output: its declared distribution, e.g. "Categorical(logits)"
	Notes  []string // remarks on the whole graph
}

// ParamPlan is the plan for one parameter.
type ParamPlan struct {
	Name      string
	Shape     []int
	Treatment Treatment
	Block     string // for Kronecker and Full: the name of the block and its sizes; otherwise empty
	Reason    string // why this treatment
}

// clone is a copy that the user may change.
func (p Plan) clone() Plan {
	p.Params, p.Losses, p.Notes = slices.Clone(p.Params), slices.Clone(p.Losses), slices.Clone(p.Notes)
	for i := range p.Params {
		p.Params[i].Shape = slices.Clone(p.Params[i].Shape)
	}
	return p
}

// String returns the plan as a table, followed by the losses and the notes.
func (p Plan) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "PARAMETER\tSHAPE\tTREATMENT\tBLOCK\tWHY")
	for _, r := range p.Params {
		shape := program.FormatShape(r.Shape)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, shape, r.Treatment, r.Block, r.Reason)
	}
	w.Flush()
	for _, l := range p.Losses {
		fmt.Fprintf(&b, "loss: %s\n", l)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return b.String()
}
