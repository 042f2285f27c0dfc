package program

import "gorgonia.org/tensor"

// A rule computes one op and its derivatives. The slices that it is given have the right sizes. It
// writes its results over whatever dst holds.
type rule[T Float] interface {
	// forward computes c.out from c.in.
	forward(c *call[T]) error
	// reverse computes the gradient of operand k from the gradient of the result.
	reverse(c *call[T], k int, grad, dst []T) error
	// tangent computes the tangent of the result from those of the operands. nil stands for zero;
	// at least one is not nil.
	tangent(c *call[T], tan [][]T, dst []T) error
}

// A viewer is a rule whose result has the elements of an operand in the same order, so that nothing
// need be copied.
type viewer[T Float] interface {
	view(c *call[T]) []T
}

// A passer is a rule that may pass the gradient of its result on as it is.
type passer[T Float] interface {
	passes(c *call[T], k int) bool
}

// passes reports whether the gradient of operand k has the elements of that of the result in the
// same order, so that nothing need be copied.
func (c *call[T]) passes(k int) bool {
	if _, ok := c.rule.(viewer[T]); ok {
		return true
	}
	p, ok := c.rule.(passer[T])
	return ok && p.passes(c, k)
}

// A batch is what the calls of a run have in common.
type batch struct {
	dtype tensor.Dtype // of the program's floats
	all   int          // cases there are
	cases int          // cases being run
	rows  []int        // which these are; nil for all
	seed  uint64       // of Dropout and random nodes
	mode  Mode
}

// A Mode says how Dropout and BatchNorm run: as while training, as in an evaluation, or, by
// default, as the user's op is set at each run.
type Mode uint8

const (
	AsSet Mode = iota
	Training
	Evaluation
)

// training reports whether an op trains that is set so or not.
func (m Mode) training(set bool) bool { return m == Training || m == AsSet && set }

// A call is one node's place in a run: its operands, its result, and what its rule keeps between
// the sweeps.
type call[T Float] struct {
	node  *Node
	batch *batch
	rule  rule[T] // nil for a leaf

	in    []Array[T]
	out   Array[T]
	value buffer[T]
	bound []T // a leaf's value given by Run.Bind

	picked buffer[T] // of Run.Pick

	ints    []int       // the value if it is not of the program's dtype
	bufs    []buffer[T] // scratch of the rule, by slot
	intBufs [][]int
	state   any       // other state of the rule
	sumBuf  []float64 // of sums
}

// resize sets the shape of the result for the number of cases being run.
func (c *call[T]) resize() {
	c.out.Shape = append(c.out.Shape[:0], c.node.Shape...)
	if a := c.node.CaseAxis; a >= 0 {
		c.out.Shape[a] = c.node.Shape[a] / c.batch.all * c.batch.cases
	}
}

// holdsFloats reports whether the result is of the program's dtype.
func (c *call[T]) holdsFloats() bool { return c.node.Dtype == c.batch.dtype }

// allocate gives the result its memory.
func (c *call[T]) allocate() {
	n := size(c.out.Shape)
	if c.holdsFloats() {
		c.out.Data = c.value.sized(n)
		return
	}
	if cap(c.ints) < n {
		c.ints = make([]int, n)
	}
	c.out.Ints = c.ints[:n]
}

// buf is scratch of n elements that lasts from sweep to sweep. Each slot is another one.
func (c *call[T]) buf(slot, n int) []T {
	for len(c.bufs) <= slot {
		c.bufs = append(c.bufs, buffer[T]{})
	}
	return c.bufs[slot].sized(n)
}

// sums is scratch of n float64.
func (c *call[T]) sums(n int) []float64 {
	if cap(c.sumBuf) < n {
		c.sumBuf = make([]float64, n)
	}
	return c.sumBuf[:n]
}

// intBuf is buf for integers.
func (c *call[T]) intBuf(slot, n int) []int {
	for len(c.intBufs) <= slot {
		c.intBufs = append(c.intBufs, nil)
	}
	if cap(c.intBufs[slot]) < n {
		c.intBufs[slot] = make([]int, n)
	}
	c.intBufs[slot] = c.intBufs[slot][:n]
	return c.intBufs[slot]
}

func (c *call[T]) fail(what string, err error) error {
	return &OpError{c.node.Op.String(), c.node.Name(), what, err}
}
