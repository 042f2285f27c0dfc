package infer

import (
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A Family is a kind of predictive distribution.
type Family int

// The families that can be told from a cost.
const (
	Categorical Family = iota + 1
	Bernoulli
	SquaredError
	Poisson
	AbsoluteError
	Heteroscedastic
)

// An Output is what a model predicts the targets with.
type Output struct {
	Family Family
	Node   *program.Node // of the natural parameters
	Beside *program.Node // of the logarithms of the variances, for Heteroscedastic
	Last   int           // the axis of the classes, where it is not the last one; else 0
	How    string        // it was found, e.g. "log of a sigmoid"
}

// Found is what a cost was found to be.
type Found struct {
	Outputs []Output
	Unknown []*program.Node // terms that depend on parameters and data in another way
	Guesses []*program.Node // nodes on the way to them that may be outputs
}

// Outputs finds the outputs of a program whose only output is the cost, given parameters that are
// trained.
func Outputs(p *program.Program, params []*gorgonia.Node) Found {
	s := newSearch(p, params)
	s.again(false)
	s.again(false) // what is before an output is the model's, and no term of the cost
	unknown, guesses := s.unknown()
	if len(unknown) > 0 {
		// A probability whose logarithm is missing: the loss check says so.
		if outputs := s.outputs; s.again(true) {
			if unknown, guesses = s.unknown(); len(unknown) > 0 {
				s.outputs = outputs
				unknown, guesses = s.unknown()
			}
		}
	}
	slices.SortStableFunc(s.outputs, func(a, b Output) int { return int(a.Node.Src.ID() - b.Node.Src.ID()) })
	return Found{s.outputs, unknown, guesses}
}

// A search goes from the cost down to the outputs.
type search struct {
	p       *program.Program
	trained program.Path // what depends on parameters
	data    program.Path // what depends on data
	outputs []Output
	known   []*program.Node // outputs of the searches before
	weak    bool            // takes a probability for one that a logarithm was meant to be taken of
	seen    map[visit]bool
}

// A visit is that of a node, inside a logarithm or not.
type visit struct {
	n   *program.Node
	log bool
}

func newSearch(p *program.Program, params []*gorgonia.Node) *search {
	s := &search{p: p}
	var trained, tensors, data []*program.Node
	for _, n := range p.Nodes {
		switch {
		case !n.IsLeaf(): // computed
		case n.Src.Op() != nil: // a constant
			if n.Size() > 1 {
				tensors = append(tensors, n)
			}
		case slices.Contains(params, n.Src) || n.Src.Deriv() != nil:
			trained = append(trained, n)
		default:
			data = append(data, n)
			if n.Size() > 1 { // one number may be the weight of a term
				tensors = append(tensors, n)
			}
		}
	}
	s.trained = p.Path(trained...)
	if s.data = p.Path(tensors...); !s.data.Has(p.Outputs[0]) {
		s.data = p.Path(data...)
	}
	return s
}

// again searches from the cost to the outputs found so far and to others, and reports whether it
// has found any.
func (s *search) again(weak bool) bool {
	s.known = nil
	for _, o := range s.outputs {
		s.known = append(s.known, o.Node)
		if o.Beside != nil {
			s.known = append(s.known, o.Beside)
		}
	}
	before := s.outputs
	s.outputs, s.weak, s.seen = nil, weak, map[visit]bool{}
	s.term(s.p.Outputs[0])
	if weak { // beside those that are known
		found := s.outputs
		s.outputs = before
		for _, o := range found {
			s.put(o)
		}
	}
	return len(s.outputs) > 0
}

// add adds an output, if there is something in it to train.
func (s *search) add(f Family, n *program.Node, how string) {
	s.put(Output{Family: f, Node: n, How: how})
}

func (s *search) put(o Output) {
	if s.trained.Has(o.Node) && !s.isOutput(o.Node) {
		s.outputs = append(s.outputs, o)
	}
}

// addClasses adds an output whose classes lie along an axis.
func (s *search) addClasses(n *program.Node, axis int, how string) {
	o := Output{Family: Categorical, Node: n, How: how}
	if axis > 0 && axis < len(n.Shape)-1 {
		o.Last = axis
	}
	s.put(o)
}

// matters reports whether a node depends on parameters and data. Others are constant, or a penalty
// on weights.
func (s *search) matters(n *program.Node) bool { return s.trained.Has(n) && s.data.Has(n) }

// enter reports whether a node is to be visited.
func (s *search) enter(n *program.Node, log bool) bool {
	v := visit{n, log}
	if s.seen[v] || !s.matters(n) || slices.Contains(s.known, n) {
		return false
	}
	s.seen[v] = true
	return true
}

// term searches a node that the cost is linear in, or would be if its logarithms and squares were.
func (s *search) term(n *program.Node) {
	if !s.enter(n, false) {
		return
	}
	if d := squared(n); d != nil {
		s.add(SquaredError, s.predicted(d), "square of a difference")
		return
	}
	if d, logVariance := s.scaledSquare(n); d != nil {
		s.put(Output{Family: Heteroscedastic, Node: s.predicted(d), Beside: logVariance,
			How: "square of a difference over the exp of another output"})
		return
	}
	switch op := n.Op.(type) {
	case program.Unary:
		s.unary(op.Kind, n.Kids[0])
	case program.SoftMax:
		switch {
		case op.Log:
			s.addClasses(n.Kids[0], op.Axis, "log-softmax")
		case s.weak:
			s.addClasses(n.Kids[0], op.Axis, "softmax")
		}
	default:
		for _, k := range summands(n, s.weighs) {
			s.term(k)
		}
	}
}

// weighs reports whether a node may be the weight of a term.
func (s *search) weighs(n *program.Node) bool { return !s.matters(n) || countsOnly(n) }

// scaledSquare is d and s where n is the square of d over the exp of s, by whatever products, but
// for weights; else nil.
func (s *search) scaledSquare(n *program.Node) (d, logVariance *program.Node) {
	over, under := s.factors(n)
	var rest []*program.Node
	for _, f := range over {
		if inner := squared(f); inner != nil && d == nil {
			d = inner
		} else {
			rest = append(rest, f)
		}
	}
	switch {
	case d == nil || len(rest)+len(under) != 1:
	case len(under) == 1 && is(under[0], "exp"):
		return d, under[0].Kids[0]
	case len(rest) == 1 && is(rest[0], "exp") && is(rest[0].Kids[0], "neg"):
		return d, rest[0].Kids[0].Kids[0]
	}
	return nil, nil
}

// factors are those of a product and of what it is divided by, without weights.
func (s *search) factors(n *program.Node) (over, under []*program.Node) {
	switch {
	case !s.matters(n):
		return nil, nil
	case squared(n) != nil:
		return []*program.Node{n}, nil
	case is(n, "neg"):
		return s.factors(n.Kids[0])
	case is(n, "inv"):
		under, over = s.factors(n.Kids[0])
		return over, under
	case isBinary(n, "⊙") || isBinary(n, "÷"):
		over, under = s.factors(n.Kids[0])
		more, less := s.factors(n.Kids[1])
		if isBinary(n, "÷") {
			more, less = less, more
		}
		return append(over, more...), append(under, less...)
	}
	if inner := beforeShaping(n); inner != n {
		return s.factors(inner)
	}
	return []*program.Node{n}, nil
}

// unary searches a function of k that the cost has as a term.
func (s *search) unary(kind string, k *program.Node) {
	switch kind {
	case "softplus":
		s.add(Bernoulli, unsigned(k), "softplus")
	case "abs":
		s.add(AbsoluteError, s.predicted(k), "absolute value of a difference")
	case "exp":
		if !s.isLogProbability(k) { // else it is a ratio of probabilities
			s.add(Poisson, k, "exp of a log rate")
		}
	case "ln", "log2":
		s.logarithm(k)
	case "log1p":
		if is(k, "exp") {
			s.add(Bernoulli, unsigned(k.Kids[0]), "log of 1 + exp")
		} else {
			s.logarithm(k)
		}
	case "neg", "sqrt": // of a root the loss check says what is wrong
		s.term(k)
	case "sigmoid":
		if s.weak {
			s.add(Bernoulli, unsigned(k), "sigmoid")
		}
	}
}

// isLogProbability reports whether a node is a sum of logarithms of probabilities.
func (s *search) isLogProbability(n *program.Node) bool {
	if !s.matters(n) {
		return false
	}
	if _, ok := n.Op.(program.SoftMax); ok || is(n, "ln") || is(n, "softplus") {
		return true
	}
	return slices.ContainsFunc(summands(n, s.weighs), s.isLogProbability)
}

// logarithm searches a node of which the cost has the logarithm as a term.
func (s *search) logarithm(n *program.Node) {
	if !s.enter(n, true) {
		return
	}
	switch op := n.Op.(type) {
	case program.SoftMax:
		s.addClasses(n.Kids[0], op.Axis, "log of a softmax")
	case program.Sum:
		if k := beforeShaping(n.Kids[0]); is(k, "exp") {
			axis := 0
			if len(op.Along) == 1 {
				axis = op.Along[0]
			}
			s.addClasses(beforeShift(k.Kids[0]), axis, "log of a sum of exp")
		} else {
			s.logarithm(n.Kids[0])
		}
	case program.Unary:
		switch op.Kind {
		case "sigmoid":
			s.add(Bernoulli, unsigned(n.Kids[0]), "log of a sigmoid")
		case "exp":
			s.term(n.Kids[0])
		case "inv", "neg":
			s.logarithm(n.Kids[0])
		}
	case program.Binary:
		s.binaryLogarithm(op.Kind, n)
	default:
		for _, k := range movedFrom(n) {
			s.logarithm(k)
		}
	}
}

// binaryLogarithm searches a sum, a product or the like of which the cost has the logarithm.
func (s *search) binaryLogarithm(kind string, n *program.Node) {
	for i, k := range n.Kids {
		other := n.Kids[1-i]
		switch {
		case kind == "+" && is(k, "exp") && !s.matters(other):
			s.add(Bernoulli, unsigned(k.Kids[0]), "log of 1 + exp")
		case kind == "^" && i == 1:
		case slices.Contains([]string{"+", "-", "⊙", "÷", "^", "max", "min"}, kind):
			s.logarithm(k)
		}
	}
}

// predicted is the output in a difference from targets: the side that is trained. Without targets
// it is the difference itself, or a node that only a factor stands before.
func (s *search) predicted(d *program.Node) *program.Node {
	switch op := d.Op.(type) {
	case program.Reshape, program.Repeat:
		return s.predicted(d.Kids[0])
	case program.Unary:
		if op.Kind == "neg" || op.Kind == "abs" {
			return s.predicted(d.Kids[0])
		}
	case program.Binary:
		for i, k := range d.Kids {
			other := d.Kids[1-i]
			if s.trained.Has(other) || !s.trained.Has(k) {
				continue
			}
			switch {
			case op.Kind == "-" || op.Kind == "+" && s.data.Has(other):
				return k
			case op.Kind == "⊙" || op.Kind == "÷" && i == 0:
				if inner := s.predicted(k); inner != k {
					return inner
				}
			}
		}
	}
	return d
}

// unknown are the terms that still depend on parameters and data when the outputs are cut off, or
// that are entropies of outputs, and nodes on the way to them that may be outputs.
func (s *search) unknown() (terms, guesses []*program.Node) {
	open, probabilities := s.open(), s.probabilities()
	seen := map[*program.Node]bool{}
	var look func(n *program.Node)
	look = func(n *program.Node) {
		if seen[n] || s.isOutput(n) || !s.matters(n) {
			return
		}
		seen[n] = true
		kids := summands(n, s.weighs)
		if s.addsBias(n) {
			kids = nil
		}
		switch {
		case isEntropy(n, probabilities):
			terms = append(terms, n)
		case len(kids) == 0 && open[n]:
			terms = append(terms, n)
			guesses = s.guess(guesses, n, seen)
		}
		for _, k := range kids {
			look(k)
		}
	}
	look(s.p.Outputs[0])
	return terms, guesses
}

// open are the nodes that depend on parameters when the outputs are cut off.
func (s *search) open() map[*program.Node]bool {
	open := map[*program.Node]bool{}
	for _, n := range s.p.Nodes {
		if s.trained.Has(n) && !s.isOutput(n) {
			open[n] = n.IsLeaf() || slices.ContainsFunc(n.Kids, func(k *program.Node) bool { return open[k] })
		}
	}
	return open
}

// probabilities are the nodes that are computed from the softmax of an output.
func (s *search) probabilities() program.Path {
	var from []*program.Node
	for _, n := range s.p.Nodes {
		if _, ok := n.Op.(program.SoftMax); ok && s.isOutput(n.Kids[0]) {
			from = append(from, n)
		}
	}
	return s.p.Path(from...)
}

func (s *search) isOutput(n *program.Node) bool {
	return slices.ContainsFunc(s.outputs, func(o Output) bool { return o.Node == n || o.Beside == n })
}

// isEntropy reports whether a node is a product of two functions of probabilities.
func isEntropy(n *program.Node, probabilities program.Path) bool {
	return isBinary(n, "⊙") && squared(n) == nil && probabilities.Has(n.Kids[0]) && probabilities.Has(n.Kids[1])
}

// guess adds the outputs of layers that n is an elementwise function of.
func (s *search) guess(guesses []*program.Node, n *program.Node, seen map[*program.Node]bool) []*program.Node {
	if isLayer(n) || s.addsBias(n) {
		return append(guesses, n)
	}
	for _, k := range n.Kids {
		if s.matters(k) && !seen[k] {
			seen[k] = true
			guesses = s.guess(guesses, k, seen)
		}
	}
	return guesses
}

// addsBias reports whether a node is a layer with its bias.
func (s *search) addsBias(n *program.Node) bool {
	return isBinary(n, "+") && n.Size() > 1 && slices.ContainsFunc(n.Kids, func(k *program.Node) bool {
		k = beforeShaping(k)
		return k.IsLeaf() && s.trained.Has(k)
	})
}
