package program

import (
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A Program is the private copy of the ancestors of some outputs. It is immutable, and holds no
// values.
type Program struct {
	Nodes   []*Node // operands before their users
	Outputs []*Node // in the order given to New
	Cuts    []*Node // the inputs in the place of the cuts, in their order; nil where one is no ancestor

	// Cases is the number of cases in the batch: the length of the outputs' first axis, or 1 if
	// they have none.
	Cases int
	// VectorCases says that an output with one axis holds one number for each case.
	VectorCases bool
	// Whole says why the program can't be run on a part of the batch. It is empty if it can.
	Whole string

	outputs, cuts []Output

	bySrc map[*gorgonia.Node]*Node
	dtype tensor.Dtype
}

// New copies the ancestors of the outputs, which belong to one graph. The nodes in cuts become
// inputs: their operands are left out, and each run has to be given their values ([Run.Bind]). An
// output that is a vector holds the numbers of a single case; see [Program.WithVectorCases].
func New(outputs []*gorgonia.Node, cuts ...*gorgonia.Node) (*Program, error) {
	return build(plain(outputs), plain(slices.Clone(cuts)), false)
}

// NewOf is New of outputs, and of cuts, that need not be nodes as they are.
func NewOf(outputs []Output, cuts ...Output) (*Program, error) {
	return build(outputs, slices.Clone(cuts), false)
}

// WithVectorCases is the program in which an output that is a vector holds one number for each case
// (on), or the numbers of a single case (off). That is p itself if p is such a program already.
// Otherwise it is a new program, with other nodes, of the same outputs and cuts.
func (p *Program) WithVectorCases(on bool) (*Program, error) {
	if p.VectorCases == on {
		return p, nil
	}
	return build(p.outputs, p.cuts, on)
}

func build(outputs, cuts []Output, vectorCases bool) (*Program, error) {
	roots := nodesOf(outputs)
	if err := checkOutputs(roots); err != nil {
		return nil, err
	}
	p := &Program{
		VectorCases: vectorCases,
		outputs:     outputs,
		cuts:        cuts,
		bySrc:       make(map[*gorgonia.Node]*Node),
		dtype:       roots[0].Dtype(),
	}
	copies, err := copyAncestors(roots, nodesOf(cuts), p.dtype)
	if err != nil {
		return nil, err
	}
	simplify(copies.nodes)
	for _, o := range cuts {
		p.Cuts = append(p.Cuts, o.cut(copies.bySrc))
	}
	for _, o := range outputs {
		n := o.join(copies.bySrc)
		p.Outputs = append(p.Outputs, n)
		p.list(n)
	}
	p.findLifetimes()
	p.Cases, p.Whole = findCases(p.Nodes, p.Outputs, vectorCases)
	return p, nil
}

// nodesOf are the user's nodes of outputs.
func nodesOf(outputs []Output) (nodes []*gorgonia.Node) {
	for _, o := range outputs {
		nodes = append(nodes, o.Nodes...)
	}
	return nodes
}

func checkOutputs(outputs []*gorgonia.Node) error {
	if len(outputs) == 0 || outputs[0] == nil {
		return fmt.Errorf("program: no output node given")
	}
	g := outputs[0].Graph()
	if g == nil {
		return fmt.Errorf("program: output %q is in no graph", outputs[0].Name())
	}
	for _, n := range outputs {
		if n == nil || n.Graph() != g {
			return fmt.Errorf("program: the outputs are not all nodes of one graph")
		}
	}
	if dt := outputs[0].Dtype(); dt != tensor.Float32 && dt != tensor.Float64 {
		return fmt.Errorf("program: output %q has dtype %v, float32 or float64 expected", outputs[0].Name(), dt)
	}
	return nil
}

// list adds n and the operands that it still needs to the program's nodes, operands first, and
// finds the users of each.
func (p *Program) list(n *Node) {
	if p.bySrc[n.Src] != nil {
		return
	}
	p.bySrc[n.Src] = n
	for _, k := range n.Kids {
		p.list(k)
		k.Users = append(k.Users, n)
	}
	n.index = len(p.Nodes)
	p.Nodes = append(p.Nodes, n)
}

// Dtype is the element type of the program's floats.
func (p *Program) Dtype() tensor.Dtype { return p.dtype }

// Node is the program's copy of a user's node. It is nil if that is no ancestor of the outputs, or
// has been merged into its users.
func (p *Program) Node(src *gorgonia.Node) *Node { return p.bySrc[src] }
