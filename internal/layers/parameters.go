package layers

import (
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Parameters lists the leaves of p that are to be trained: those that Grad was called for.
// Where it was called for none, as with a LispMachine, they are guessed.
func Parameters(p *program.Program) []*program.Node {
	var asked, guessed []*program.Node
	for _, n := range p.Nodes {
		if !n.IsLeaf() || n.Src.Op() != nil || n.Dtype != p.Dtype() {
			continue
		}
		if n.Src.Deriv() != nil {
			asked = append(asked, n)
		}
		if looksTrained(n, p) {
			guessed = append(guessed, n)
		}
	}
	if len(asked) > 0 {
		return asked
	}
	return guessed
}

// looksTrained guesses that an input which holds one value for all cases is a parameter.
// Where the cases can't be told apart, a matrix is one, and anything smaller may be data.
func looksTrained(n *program.Node, p *program.Program) bool {
	if p.Whole == "" {
		return n.CaseAxis < 0
	}
	return len(n.Shape) >= 2
}
