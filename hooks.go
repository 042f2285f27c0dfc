package kfac

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A layer is a weight matrix with all its uses, and the bias that is added to each of their products. In the paper's terms
// it computes s = W^T abar, where abar is the input a with a homogeneous coordinate 1 behind it if there is a bias.
type layer struct {
	weight *program.Node // the parameter; its elements are a matrix
	bias   *program.Node // nil if there is none
	in     int           // inputs, without the homogeneous coordinate
	out    int
	// outByIn: the weight is stored out x in, as in Mul(x, Transpose(w)) and Mul(w, x), not in x out as in Mul(x, w).
	outByIn bool
	sites   []site
	// tied holds the uses that read the weight the other way round, as Transpose(w) after w; nil if there are none.
	tied *layer

	diagonalA, diagonalG bool       // of the factor only the diagonal is kept
	reduce               bool       // KFAC-reduce, not KFAC-expand
	patches              *patchGrid // of a convolution whose patches repeat each other; else nil
	channels             int        // of a convolution whose pixels are taken to be uncorrelated; else 0
}

// A layout is what the factors of a layer depend on, besides its parameters.
type layout struct {
	in, out                             int
	outByIn, tied, diagonalA, diagonalG bool
	channels                            int
}

func (l *layer) layout() layout {
	return layout{l.in, l.out, l.outByIn, l.tied != nil, l.diagonalA, l.diagonalG, l.channels}
}

// A site is one use of a layer's weight: a matrix product.
type site struct {
	input  *program.Node
	output *program.Node // the product: the gradient is captured here
	// The input (output) has one column, not one row, per position.
	inputColumns, outputColumns bool
	rows                        int  // positions in the whole batch: a multiple of the number of cases
	lookup                      bool // the input lists rows of the weight: ByIndices
	oneHot                      bool // the input's rows are one-hot, which makes the product a lookup
}

// abar is the size of the layer's input with the homogeneous coordinate.
func (l *layer) abar() int {
	if l.bias != nil {
		return l.in + 1
	}
	return l.in
}

func (l *layer) name() string { return l.weight.Name() }

// outputs are the products of all uses: the gradients are captured there.
func (l *layer) outputs() (nodes []*program.Node) {
	for _, s := range l.sites {
		nodes = append(nodes, s.output)
	}
	if l.tied != nil {
		nodes = append(nodes, l.tied.outputs()...)
	}
	return nodes
}

// positions is how often the layer is used per case.
func (l *layer) positions(cases int) int {
	n := 0
	for _, s := range l.sites {
		n += s.rows
	}
	return n / cases
}

// minVocabulary is the number of inputs from which on one-hot inputs are taken as lookups: A is diagonal then, and there is no homogeneous coordinate, so that it
// stays so. Below that A is kept whole, which costs little and holds the bias.
const minVocabulary = 256

// hookup finds what the parameters do in the program: layers, and those that belong to none, with the reason why. oneHot tells whether an input's rows are
// one-hot, for a weight's name.
func hookup(p *program.Program, params []*program.Node, oneHot func(weight string, input *program.Node) bool) (layers []*layer, rest map[*program.Node]string) {
	f := finder{p: p, isParam: map[*program.Node]bool{}, path: p.Path(params...), oneHot: oneHot}
	for _, n := range params {
		f.isParam[n] = true
	}
	rest = map[*program.Node]string{}
	biasOf := map[*program.Node]*layer{}
	byAge := func(a, b *program.Node) int { return cmp.Compare(a.Src.ID(), b.Src.ID()) } // so that the order of the list does not matter
	for _, n := range slices.SortedFunc(slices.Values(params), byAge) {
		l, why := f.layer(n)
		if l == nil {
			rest[n] = why
			continue
		}
		layers = append(layers, l)
		switch {
		case l.bias == nil:
		case biasOf[l.bias] != nil: // of a sum of two layers
			l.bias = nil
		default:
			biasOf[l.bias] = l
		}
	}
	for n := range rest {
		if biasOf[n] != nil {
			delete(rest, n)
		}
	}
	return layers, rest
}

type finder struct {
	p       *program.Program
	isParam map[*program.Node]bool
	path    program.Path
	oneHot  func(weight string, input *program.Node) bool
}

// layer finds the layer whose weight is n, or says why there is none.
func (f *finder) layer(n *program.Node) (*layer, string) {
	uses, why := f.uses(n)
	if why != "" {
		return nil, why
	}
	l, tied := &layer{weight: n}, &layer{weight: n}
	for i, u := range uses {
		s, shape, why := f.site(u)
		if why != "" {
			return nil, why
		}
		if i == 0 {
			l.in, l.out, l.outByIn = shape.in, shape.out, shape.outByIn
			tied.in, tied.out, tied.outByIn = l.out, l.in, !l.outByIn
		}
		to := fits(shape, l, tied)
		if to == nil {
			return nil, fmt.Sprintf("its %d uses read it as matrices of different shapes", len(uses))
		}
		s.oneHot = !s.inputColumns && !s.lookup && to.in >= minVocabulary && f.oneHot(n.Name(), s.input)
		to.diagonalA = to.diagonalA || s.lookup || s.oneHot
		to.sites = append(to.sites, s)
	}
	for _, l := range []*layer{l, tied} { // in the order of time, where the uses are steps
		slices.SortStableFunc(l.sites, func(a, b site) int { return cmp.Compare(a.output.Src.ID(), b.output.Src.ID()) })
	}
	l.bias = f.biasOfAll(l)
	if len(tied.sites) > 0 {
		l.tied = tied
		l.diagonalA, tied.diagonalG = l.diagonalA || tied.diagonalG, l.diagonalA || tied.diagonalG
		l.diagonalG, tied.diagonalA = l.diagonalG || tied.diagonalA, l.diagonalG || tied.diagonalA
	}
	return l, ""
}

// fits is that of the layers which reads the weight in the given shape.
func fits(shape layer, layers ...*layer) *layer {
	for _, l := range layers {
		if shape.in == l.in && shape.out == l.out && shape.outByIn == l.outByIn {
			return l
		}
	}
	return nil
}

// use is a product that a parameter is an operand of, possibly reshaped to a matrix before.
type use struct {
	product *program.Node
	operand int
}

func (f *finder) uses(n *program.Node) (uses []use, why string) {
	for _, u := range distinct(n.Users) {
		switch op := u.Op.(type) {
		case program.Reshape:
			inner, why := f.uses(u)
			if why != "" {
				return nil, why
			}
			uses = append(uses, inner...)
		case program.MatMul, program.BatchedMatMul, program.MatVec, program.VecDot, program.Tensordot:
			for k, kid := range u.Kids {
				if kid == n {
					uses = append(uses, use{u, k})
				}
			}
		case program.ByIndices:
			if op.Axis != 0 {
				return nil, fmt.Sprintf("picked from along axis %d, not the first", op.Axis)
			}
			uses = append(uses, use{u, 0})
		case program.SizeOf:
		default:
			return nil, fmt.Sprintf("used by %v, which is no matrix product", u.Op)
		}
	}
	if len(uses) == 0 {
		return nil, "the outputs do not depend on it"
	}
	return uses, ""
}

func distinct(nodes []*program.Node) (out []*program.Node) {
	for _, n := range nodes {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// site reads one use of a weight: which operand is the input, and which way round everything lies.
func (f *finder) site(u use) (s site, shape layer, why string) {
	weight, input := u.product.Kids[u.operand], u.product.Kids[1-u.operand]
	s = site{input: input, output: u.product}
	switch op := u.product.Op.(type) {
	case program.MatMul:
		shape = s.matrixProduct(u, op)
	case program.BatchedMatMul:
		if n := len(weight.Shape); size(weight.Shape[:n-2]) != 1 {
			return s, shape, fmt.Sprintf("a stack of matrices, of shape %v", weight.Shape)
		}
		shape = s.matrixProduct(u, program.MatMul(op))
	case program.MatVec:
		if u.operand == 1 { // a vector of weights, of one output
			s.inputColumns, s.rows = op.TransA, u.product.Size()
			shape = layer{in: weight.Size(), out: 1}
		} else {
			s.rows = 1
			shape = layer{in: input.Size(), out: u.product.Size(), outByIn: !op.TransA}
		}
	case program.VecDot:
		s.rows = 1
		shape = layer{in: weight.Size(), out: 1}
	case program.ByIndices:
		s.rows, s.lookup = input.Size(), true
		shape = layer{in: weight.Shape[0], out: size(weight.Shape[1:])}
	case program.Tensordot:
		if why := s.contraction(u, op, &shape); why != "" {
			return s, shape, why
		}
	}
	return s, shape, f.badInput(u, s)
}

// matrixProduct reads a product of matrices, behind leading axes of length 1.
func (s *site) matrixProduct(u use, op program.MatMul) layer {
	rows, cols := u.product.Shape[len(u.product.Shape)-2], u.product.Shape[len(u.product.Shape)-1]
	if u.operand == 1 { // rows of the input times the weight
		s.inputColumns, s.rows = op.TransA, rows
		return layer{in: s.input.Size() / rows, out: cols, outByIn: op.TransB}
	}
	s.inputColumns, s.outputColumns, s.rows = !op.TransB, true, cols // the weight times columns of the input
	return layer{in: s.input.Size() / cols, out: rows, outByIn: !op.TransA}
}

// contraction reads a product of the last axes of the input with the first or the last of the weight.
func (s *site) contraction(u use, op program.Tensordot, shape *layer) (why string) {
	weight := u.product.Kids[u.operand]
	ofInput, ofWeight := op.A, op.B
	n, dims := len(ofWeight), len(weight.Shape)
	trailing := consecutive(ofWeight, dims-n)
	if u.operand != 1 || !consecutive(ofInput, len(s.input.Shape)-n) || !trailing && !consecutive(ofWeight, 0) {
		return "contracted along axes that are neither the first nor the last"
	}
	in := 1
	for _, a := range ofWeight {
		in *= weight.Shape[a]
	}
	s.rows = s.input.Size() / in
	*shape = layer{in: in, out: weight.Size() / in, outByIn: trailing && n < dims}
	return ""
}

// consecutive reports whether the axes are first, first+1, ...
func consecutive(axes []int, first int) bool {
	for i, a := range axes {
		if a != first+i {
			return false
		}
	}
	return true
}

func (f *finder) badInput(u use, s site) string {
	features := -1 // the axis of the product's outputs, if it has one
	switch u.product.Op.(type) {
	case program.MatMul, program.BatchedMatMul:
		features = len(u.product.Shape) - 1
		if s.outputColumns {
			features--
		}
	case program.MatVec:
		if u.operand == 0 {
			features = 0
		}
	}
	switch {
	case f.isParam[s.input]:
		return fmt.Sprintf("multiplied with another parameter (%q)", s.input.Name())
	case f.p.Whole == "" && u.product.CaseAxis < 0:
		return "its product does not depend on the cases"
	case f.p.Whole == "" && u.product.CaseAxis == features:
		return "its product has the cases where its outputs should be"
	}
	return ""
}

// biasOfAll is the bias that every use of the layer adds, or nil.
func (f *finder) biasOfAll(l *layer) *program.Node {
	var bias *program.Node
	for i, s := range l.sites {
		b := f.bias(s, l.out)
		if b == nil || s.lookup || s.oneHot || i > 0 && b != bias {
			return nil
		}
		bias = b
	}
	if used := distinct(f.leafUsers(bias)); len(used) != len(l.sites) {
		return nil // it is added elsewhere too
	}
	return bias
}

// leafUsers are the users of a parameter, seen through reshapes.
func (f *finder) leafUsers(n *program.Node) (users []*program.Node) {
	for _, u := range n.Users {
		if _, ok := u.Op.(program.Reshape); ok {
			users = append(users, f.leafUsers(u)...)
		} else {
			users = append(users, u)
		}
	}
	return users
}

// bias is the parameter of one element per output that is added to a product, at every position alike. Other things may be added too, and the axes be
// moved in between, but the sum has to be all that depends on the product, so that the gradients of the two are the same.
func (f *finder) bias(s site, out int) *program.Node {
	n, features := s.output, len(s.output.Shape)-1
	if s.outputColumns {
		features--
	}
	for len(n.Users) == 1 && !slices.Contains(f.p.Outputs, n) {
		user := n.Users[0]
		switch op := user.Op.(type) {
		case program.Reshape:
			features = reshaped(n.Shape, features, user.Shape)
		case program.Transpose:
			features = slices.Index(op.Perm, features)
		case program.Binary:
			other := user.Kids[0]
			if other == n {
				other = user.Kids[1]
			}
			if op.Kind != "+" || other == n || user.Size() != n.Size() {
				return nil
			}
			if b := f.biasParameter(other); b != nil && other.Size() == out && (s.rows == 1 || onAxis(other, features, user)) {
				return b
			}
		default:
			return nil
		}
		if features < 0 {
			return nil
		}
		n = user
	}
	return nil
}

// biasParameter is the parameter that a summand is, perhaps reshaped, or nil.
func (f *finder) biasParameter(n *program.Node) *program.Node {
	for !f.isParam[n] {
		if _, ok := n.Op.(program.Reshape); !ok {
			return nil
		}
		n = n.Kids[0]
	}
	return n
}

// reshaped is the axis of the shape to that an axis of the shape from has become, or -1.
func reshaped(from []int, axis int, to []int) int {
	inner := size(from[axis+1:])
	for i := range to {
		if to[i] == from[axis] && size(to[i+1:]) == inner {
			return i
		}
	}
	return -1
}

// onAxis reports whether the summand's elements lie along the given axis of the sum.
func onAxis(summand *program.Node, axis int, sum *program.Node) bool {
	if summand.Size() == 1 {
		return true
	}
	return len(summand.Shape) == len(sum.Shape) && summand.Shape[axis] == summand.Size()
}

// captured holds what a layer's sites saw in one private run: rows of inputs a and of backpropagated sampled-target gradients g.
type captured[T program.Float] struct {
	a, g    []T   // rows x in, rows x out
	lookups []int // for lookups, in place of rows of a: where the one of the one-hot row is
	cases   int

	meanA, sumG []T // of reduced
}

// capture collects a layer's inputs and gradients from a run after its sampled backward sweep. Where they do not lie in one piece
// they are gathered into buf.
func capture[T program.Float](l *layer, run *program.Run[T], buf *captured[T]) captured[T] {
	buf.cases = run.Cases()
	if l.reduce {
		buf.reduce(l, run)
		return captured[T]{a: buf.meanA, g: buf.sumG, cases: buf.cases}
	}
	if s := l.sites[0]; len(l.sites) == 1 && !s.inputColumns && !s.outputColumns && !s.lookup {
		return captured[T]{a: run.Value(s.input).Data, g: run.Gradient(s.output), cases: buf.cases}
	}
	buf.a, buf.g, buf.lookups = buf.a[:0], buf.g[:0], buf.lookups[:0]
	for _, s := range l.sites {
		buf.append(l, s, run)
	}
	return *buf
}

// append adds the rows of one site.
func (c *captured[T]) append(l *layer, s site, run *program.Run[T]) {
	g := run.Gradient(s.output)
	rows := len(g) / l.out
	if s.lookup {
		c.lookups = append(c.lookups, run.Value(s.input).Ints...)
	} else {
		c.a = appendRows(c.a, run.Value(s.input).Data, rows, l.in, s.inputColumns)
	}
	c.g = appendRows(c.g, g, rows, l.out, s.outputColumns)
}

// reduce computes the mean of a and the sum of g over the positions of each case.
func (c *captured[T]) reduce(l *layer, run *program.Run[T]) {
	c.meanA, c.sumG = zeros(c.meanA, c.cases*l.in), zeros(c.sumG, c.cases*l.out)
	positions := 0
	for _, s := range l.sites {
		c.a, c.g = c.a[:0], c.g[:0]
		c.append(l, s, run)
		rows := len(c.g) / l.out
		perCase := rows / c.cases
		positions += perCase
		for r := range rows {
			n := r / perCase
			linalg.Axpy(1, c.a[r*l.in:(r+1)*l.in], c.meanA[n*l.in:(n+1)*l.in])
			linalg.Axpy(1, c.g[r*l.out:(r+1)*l.out], c.sumG[n*l.out:(n+1)*l.out])
		}
	}
	linalg.Scale(1/T(positions), c.meanA)
}

// zeros is linalg.Resized with all elements zero.
func zeros[T program.Float](buf []T, n int) []T {
	buf = linalg.Resized(buf, n)
	clear(buf)
	return buf
}

// appendRows appends a matrix of rows x cols to dst; transposed says that src holds cols x rows.
func appendRows[T program.Float](dst, src []T, rows, cols int, transposed bool) []T {
	n := len(dst)
	dst = append(dst, src...)
	if transposed {
		linalg.Transpose(dst[n:], src, cols, rows)
	}
	return dst
}

// parameters lists the leaves of p that are to be trained: those that Grad was called for, or, where Grad was not called
// for any (as with a LispMachine), the float inputs that hold one value for all cases.
func parameters(p *program.Program) []*program.Node {
	var asked, guessed []*program.Node
	for _, n := range p.Nodes {
		if !n.IsLeaf() || n.Src.Op() != nil || n.Dtype != p.Dtype() {
			continue
		}
		if n.Src.Deriv() != nil {
			asked = append(asked, n)
		}
		if p.Whole == "" && n.CaseAxis < 0 || p.Whole != "" && isWeightLike(n) {
			guessed = append(guessed, n)
		}
	}
	if len(asked) > 0 {
		return asked
	}
	return guessed
}

// isWeightLike guesses, where the cases can't be told apart, that a matrix is a parameter and anything smaller may be data.
func isWeightLike(n *program.Node) bool { return len(n.Shape) >= 2 }
