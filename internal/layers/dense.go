package layers

import "github.com/gorgonia-kfac/kfac/internal/program"

// matrix is how a use reads the weight: as a matrix of in x out, stored that way or out x in.
type matrix struct {
	in, out int
	outByIn bool
}

// readDense reads one use of a weight: which operand is the input, and how everything lies.
func readDense(u use) (s Site, m matrix, why string) {
	weight, input := u.weight(), u.input()
	s = Site{Input: input, Output: u.product}
	switch op := u.product.Op.(type) {
	case program.MatMul:
		m = s.matrixProduct(u, op)
	case program.BatchedMatMul:
		if n := size(weight.Shape[:len(weight.Shape)-2]); n > 1 {
			s.Stack = n
		}
		m = s.matrixProduct(u, program.MatMul(op))
	case program.MatVec:
		if u.operand == 1 { // a vector of weights, of one output
			s.InputColumns, s.Rows = op.TransA, u.product.Size()
			m = matrix{in: weight.Size(), out: 1}
		} else {
			s.Rows = 1
			m = matrix{in: input.Size(), out: u.product.Size(), outByIn: op.TransA == u.transposed}
		}
	case program.VecDot:
		s.Rows = 1
		m = matrix{in: weight.Size(), out: 1}
	case program.Tensordot:
		m, why = s.contraction(u, op)
	}
	return s, m, why
}

// matrixProduct reads a product of matrices, or one of a stack of them, whose leading axes are its.
func (s *Site) matrixProduct(u use, op program.MatMul) matrix {
	shape := u.product.Shape
	rows, cols := shape[len(shape)-2], shape[len(shape)-1]
	inputs := s.Input.Size() / max(s.Stack, 1)
	if u.operand == 1 { // rows of the input times the weight
		s.InputColumns, s.Rows = op.TransA, rows
		return matrix{in: inputs / rows, out: cols, outByIn: op.TransB}
	}
	// The weight times columns of the input.
	s.InputColumns, s.OutputColumns, s.Rows = !op.TransB, true, cols
	return matrix{in: inputs / cols, out: rows, outByIn: !op.TransA}
}

// contraction reads a product of the input's last axes with the weight's first or last.
func (s *Site) contraction(u use, op program.Tensordot) (m matrix, why string) {
	weight := u.weight()
	n, dims := len(op.B), len(weight.Shape)
	trailing := consecutive(op.B, dims-n)
	if u.operand != 1 || !consecutive(op.A, len(s.Input.Shape)-n) || !trailing && !consecutive(op.B, 0) {
		return m, "contracted along axes that are neither the first nor the last"
	}
	in := 1
	for _, a := range op.B {
		in *= weight.Shape[a]
	}
	s.Rows = s.Input.Size() / in
	return matrix{in: in, out: weight.Size() / in, outByIn: trailing && n < dims}, ""
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

// outputAxis is the axis of a product's outputs, or -1 if it has none.
func outputAxis(u use, s Site) int {
	switch u.product.Op.(type) {
	case program.MatMul, program.BatchedMatMul:
		return s.features()
	case program.MatVec:
		if u.operand == 0 {
			return 0
		}
	}
	return -1
}
