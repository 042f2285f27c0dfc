package program

// A rule computes one op and its derivatives. The slices it is given have the right sizes, and all results are written over
// whatever dst holds.
type rule[T Float] interface {
	// forward computes c.out from c.in.
	forward(c *call[T]) error
	// reverse computes the gradient of operand k from the gradient of the result.
	reverse(c *call[T], k int, grad, dst []T) error
	// tangent computes the tangent of the result from those of the operands, nil standing for zero; at least one is not nil.
	tangent(c *call[T], tan [][]T, dst []T) error
}

// A viewer is a rule whose result has the elements of an operand in the same order, so that nothing need be copied.
type viewer[T Float] interface {
	view(c *call[T]) []T
}

// A call is one node's place in a run: its operands, its result, and what its rule keeps between the sweeps.
type call[T Float] struct {
	node *Node
	run  *Run[T]
	rule rule[T]

	in    []Array[T]
	out   Array[T]
	value buffer[T]
	bound []T // a leaf's value given by Bind

	picked buffer[T] // of Pick

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
		c.out.Shape[a] = c.node.Shape[a] / c.run.p.Cases * c.run.cases
	}
}

// allocate gives the result its memory.
func (c *call[T]) allocate() {
	n := size(c.out.Shape)
	if c.node.Dtype == c.run.p.dtype {
		c.out.Data = c.value.sized(n)
		return
	}
	if cap(c.ints) < n {
		c.ints = make([]int, n)
	}
	c.out.Ints = c.ints[:n]
}

// buf is scratch of n elements that lasts from sweep to sweep; each slot is another one.
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

// ruleFor is the rule of an op.
func ruleFor[T Float](op Op) rule[T] {
	switch op := op.(type) {
	case Leaf:
		return nil
	case Unary:
		return unaryRule[T]{unaries[T]()[op.Kind]}
	case Binary:
		return binaryRule[T]{op.Kind, binaries[T]()[op.Kind]}
	case MatMul:
		return matMulRule[T]{op}
	case BatchedMatMul:
		return batchedMatMulRule[T]{op}
	case MatVec:
		return matVecRule[T]{op}
	case VecDot:
		return vecDotRule[T]{}
	case OuterProd:
		return outerProdRule[T]{}
	case Tensordot:
		return tensordotRule[T]{op}
	case Reshape:
		return reshapeRule[T]{}
	case Transpose:
		return transposeRule[T]{op}
	case Repeat:
		return repeatRule[T]{op}
	case SizeOf:
		return sizeOfRule[T]{op}
	case Sum:
		return sumRule[T]{op}
	case Max:
		return maxRule[T]{op}
	case Slice:
		return sliceRule[T]{op}
	case Concat:
		return concatRule[T]{op}
	case SoftMax:
		return softMaxRule[T]{op}
	case Sparsemax:
		return sparsemaxRule[T]{op}
	case ByIndices:
		return byIndicesRule[T]{op}
	case At:
		return atRule[T]{op}
	case Im2Col:
		return im2ColRule[T]{op}
	case MaxPool:
		return maxPoolRule[T]{op}
	case AvgPool:
		return avgPoolRule[T]{op}
	case GlobalAvgPool:
		return globalAvgPoolRule[T]{}
	case Upsample:
		return upsampleRule[T]{op}
	case BatchNorm:
		return batchNormRule[T]{BatchNorm: op}
	case GroupNorm:
		return groupNormRule[T]{GroupNorm: op}
	case Dropout:
		return dropoutRule[T]{op}
	case Random:
		return randomRule[T]{op}
	case Opaque:
		return &opaqueRule[T]{op: op.Op}
	}
	panic("program: no rule for " + op.String())
}

// strides are the row-major strides of a shape.
func strides(shape []int) []int {
	s := make([]int, len(shape))
	for i, d := len(shape)-1, 1; i >= 0; i-- {
		s[i] = d
		d *= shape[i]
	}
	return s
}

// split cuts a shape at an axis: the numbers of elements before, along and after it.
func split(shape []int, axis int) (outer, n, inner int) {
	return size(shape[:axis]), shape[axis], size(shape[axis+1:])
}
