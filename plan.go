package kfac

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Treatment is how a parameter's curvature is approximated.
type Treatment string

const (
	// Kronecker: the parameter belongs to a layer whose block of the Fisher matrix is A (x) G.
	Kronecker Treatment = "kronecker"
	// Full: the parameter acts element by element, and has a small block of the Fisher matrix for
	// itself, or for each of its channels with the shift that belongs to it.
	Full Treatment = "full"
	// Diagonal: the mean of squared sampled gradients, damped.
	Diagonal Treatment = "diagonal"
	// Identity: the plain gradient, where no curvature is to be had.
	Identity Treatment = "identity"
	// Unreached: none, as the cost does not depend on the parameter; see WithoutReachCheck.
	Unreached Treatment = "unreached"
)

// A Plan says what the solver does with every parameter.
type Plan struct {
	Params []ParamPlan
	Losses []string // the declared distributions, by output
	Notes  []string // what holds for the whole graph
}

// ParamPlan is the line of one parameter.
type ParamPlan struct {
	Name      string
	Shape     []int
	Treatment Treatment
	Block     string // of a Kronecker block: its layer's name and the sizes of its factors
	Reason    string
}

// String is the plan as a table.
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
