package program

import (
	"fmt"
	"strings"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A Node of a program stands for one node of the user's graph.
type Node struct {
	Src   *gorgonia.Node // the user's node
	Op    Op
	Kids  []*Node // operands, in order
	Users []*Node // the nodes with this operand; one that has it twice is listed twice
	Shape []int   // of the whole batch
	Dtype tensor.Dtype

	// CaseAxis is the axis along which the cases of the batch lie, case after case. Its length is a
	// multiple of the program's number of cases. It is -1 if the value does not depend on which
	// cases are run.
	CaseAxis int

	index int   // position in Program.Nodes
	home  *Node // in whose memory its value lies
	last  int   // position of the last node that reads what lies in its memory
}

// IsLeaf reports whether the node is an input of the program.
func (n *Node) IsLeaf() bool { _, ok := n.Op.(Leaf); return ok }

// Name is the name of the user's node; see NameOf.
func (n *Node) Name() string { return NameOf(n.Src) }

// FormatShape writes a shape as in "(2, 4)", or as "scalar".
func FormatShape(shape []int) string {
	if len(shape) == 0 {
		return "scalar"
	}
	s := fmt.Sprint(shape)
	return "(" + strings.ReplaceAll(s[1:len(s)-1], " ", ", ") + ")"
}

// Size is the number of elements.
func (n *Node) Size() int { return size(n.Shape) }

// An Op says what a node computes. Gorgonia's ops are of unexported types. decode recognises them
// by their type's name and their String, and reads their settings, once, when a program is built.
// The types here are plain data.
type Op interface{ String() string }

// Leaf is an input: data, a parameter, a constant, or a node at which the program was cut.
type Leaf struct{}

func (Leaf) String() string { return "input" }

// Opaque is an op without a rule of this package. It is run by its own Do and differentiated by
// its own SymDiff.
type Opaque struct{ Op gorgonia.Op }

func (o Opaque) String() string { return o.Op.String() }
