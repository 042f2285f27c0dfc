package layers

import (
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A Layer is a weight matrix with all its uses, and the bias that is added to each product.
// It computes s = W^T abar (Martens & Grosse 2015, section 2).
// Here abar is the input a, with a homogeneous coordinate 1 behind it if there is a bias.
type Layer struct {
	Weight *program.Node // the parameter; its elements are a matrix
	Bias   *program.Node // nil if there is none
	In     int           // inputs, without the homogeneous coordinate
	Out    int
	// OutByIn: the weight is stored out x in, as in Mul(x, Transpose(w)) and Mul(w, x).
	// Else it is stored in x out, as in Mul(x, w).
	OutByIn bool
	// WeightAt and BiasAt list the elements of the parameters that the weight and the bias are, in
	// their order. nil stands for all, as they lie.
	WeightAt, BiasAt []int
	Sites            []Site // in the order of the graph's construction
	// Tied holds the uses that read the weight the other way round, as Transpose(w) after w.
	// It is nil if there are none.
	Tied *Layer
	// Steps is the number of time steps of a recurrent weight, and else 1.
	// It is the length of the longest chain of uses each of which depends on the one before.
	Steps int

	// The form of the factors, set by Approximate. Find makes A of an embedding diagonal.
	DiagonalA, DiagonalG bool  // of the factor only the diagonal is kept
	Reduce               bool  // KFAC-reduce, not KFAC-expand
	Patches              *Grid // of a convolution whose patches repeat each other; else nil
	Channels             int   // of a convolution whose pixels are taken to be uncorrelated; else 0

	part, biasPart string // behind the names of weight and bias, if they are parts of parameters
	seen           []seen // the slices on the way to them
}

// Moved reports whether the user has moved a slice that the weight or the bias is.
func (l *Layer) Moved() bool { return slices.ContainsFunc(l.seen, seen.moved) }

// A Site is one use of a layer's weight: a matrix product.
type Site struct {
	Input  *program.Node
	Output *program.Node // the product
	// InputColumns: the input has one column, not one row, per position.
	// OutputColumns: so has the output.
	InputColumns, OutputColumns bool
	Rows                        int // positions in the whole batch, as many in each case
	// Stack is the number of products that the node makes of a stack of matrices, of which this is
	// that at Place. 0: it makes this one only.
	Stack, Place int
	Lookup       bool // the input lists rows of the weight: ByIndices
	OneHot       bool // the input's rows are one-hot, so that the product is a lookup
}

// Abar is the size of the layer's input with the homogeneous coordinate.
func (l *Layer) Abar() int {
	if l.Bias != nil {
		return l.In + 1
	}
	return l.In
}

// Name is the name of the weight, and BiasName that of the bias.
func (l *Layer) Name() string     { return l.Weight.Name() + l.part }
func (l *Layer) BiasName() string { return l.Bias.Name() + l.biasPart }

// Outputs are the products of all uses.
func (l *Layer) Outputs() (nodes []*program.Node) {
	for _, s := range l.Sites {
		nodes = append(nodes, s.Output)
	}
	if l.Tied != nil {
		nodes = append(nodes, l.Tied.Outputs()...)
	}
	return nodes
}

// Positions is how often the layer is used per case.
func (l *Layer) Positions(cases int) int {
	n := 0
	for _, s := range l.Sites {
		n += s.Rows
	}
	return n / cases
}

// features is the axis of the product's outputs.
func (s Site) features() int {
	if s.OutputColumns {
		return len(s.Output.Shape) - 2
	}
	return len(s.Output.Shape) - 1
}

// Of is what the product has of the values of a node before or behind it: all, or those of its
// place in the stack.
func Of[E any](s Site, values []E) []E {
	if s.Stack == 0 {
		return values
	}
	n := len(values) / s.Stack
	return values[s.Place*n : (s.Place+1)*n]
}

// groups is the number of groups that the rows lie in, of as many for each case, case after case.
func (s Site) groups() int {
	if s.OutputColumns {
		return 1
	}
	return size(s.Output.Shape[:max(s.Output.CaseAxis, 0)]) / max(s.Stack, 1)
}
