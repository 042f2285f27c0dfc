package program

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// MatMul is op(A) op(B) of two matrices.
type MatMul struct{ TransA, TransB bool }

func (o MatMul) String() string { return "Mul" + marks(o.TransA, o.TransB) }

// BatchedMatMul is MatMul for each index of the leading axes.
type BatchedMatMul struct{ TransA, TransB bool }

func (o BatchedMatMul) String() string { return "BatchedMatMul" + marks(o.TransA, o.TransB) }

// MatVec is op(A) b.
type MatVec struct{ TransA bool }

func (o MatVec) String() string { return "Mul(matrix, vector)" }

// VecDot is the inner product of two vectors.
type VecDot struct{}

func (VecDot) String() string { return "Mul(vector, vector)" }

// OuterProd is a b^T of two vectors.
type OuterProd struct{}

func (OuterProd) String() string { return "OuterProd" }

func marks(a, b bool) string {
	switch {
	case a && b:
		return "(AT, BT)"
	case a:
		return "(AT, B)"
	case b:
		return "(A, BT)"
	}
	return ""
}

// matMulDims are the sizes of op(A) op(B) = C: C is m x n, and the products run over k.
func matMulDims(a, c []int, transA bool) (m, n, k int) {
	k = a[1]
	if transA {
		k = a[0]
	}
	return c[0], c[1], k
}

// product computes C = op(A) op(B).
func product[T Float](op MatMul, m, n, k int, a, b, c []T) {
	linalg.Gemm(op.TransA, op.TransB, m, n, k, 1, a, b, 0, c)
}

// productGrad computes the gradient of operand 0 or 1 of C = op(A) op(B) from that of C: dA = dC
// op(B)^T and dB = op(A)^T dC, each transposed if the operand is.
func productGrad[T Float](op MatMul, m, n, k int, a, b, grad, dst []T, operand int) {
	switch {
	case operand == 0 && !op.TransA:
		linalg.Gemm(false, !op.TransB, m, k, n, 1, grad, b, 0, dst)
	case operand == 0:
		linalg.Gemm(op.TransB, true, k, m, n, 1, b, grad, 0, dst)
	case !op.TransB:
		linalg.Gemm(!op.TransA, false, k, n, m, 1, a, grad, 0, dst)
	default:
		linalg.Gemm(true, op.TransA, n, k, m, 1, grad, a, 0, dst)
	}
}

// productTangent computes dA op(B) + op(A) dB. nil stands for zero.
func productTangent[T Float](op MatMul, m, n, k int, a, b, da, db, dst []T) {
	beta := T(0)
	if da != nil {
		linalg.Gemm(op.TransA, op.TransB, m, n, k, 1, da, b, 0, dst)
		beta = 1
	}
	if db != nil {
		linalg.Gemm(op.TransA, op.TransB, m, n, k, 1, a, db, beta, dst)
	}
}

type matMulRule[T Float] struct{ MatMul }

func (r matMulRule[T]) forward(c *call[T]) error {
	m, n, k := matMulDims(c.in[0].Shape, c.out.Shape, r.TransA)
	product(r.MatMul, m, n, k, c.in[0].Data, c.in[1].Data, c.out.Data)
	return nil
}

func (r matMulRule[T]) reverse(c *call[T], operand int, grad, dst []T) error {
	m, n, k := matMulDims(c.in[0].Shape, c.out.Shape, r.TransA)
	productGrad(r.MatMul, m, n, k, c.in[0].Data, c.in[1].Data, grad, dst, operand)
	return nil
}

func (r matMulRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	m, n, k := matMulDims(c.in[0].Shape, c.out.Shape, r.TransA)
	productTangent(r.MatMul, m, n, k, c.in[0].Data, c.in[1].Data, tan[0], tan[1], dst)
	return nil
}

type batchedMatMulRule[T Float] struct{ BatchedMatMul }

// each calls f for each matrix product of the batch, with the offsets of its matrices in A, B and
// C.
func (r batchedMatMulRule[T]) each(c *call[T], f func(op MatMul, m, n, k, a, b, out int)) {
	nd := len(c.out.Shape)
	m, n, k := matMulDims(c.in[0].Shape[nd-2:], c.out.Shape[nd-2:], r.TransA)
	for i := range size(c.out.Shape[:nd-2]) {
		f(MatMul(r.BatchedMatMul), m, n, k, i*m*k, i*k*n, i*m*n)
	}
}

func (r batchedMatMulRule[T]) forward(c *call[T]) error {
	r.each(c, func(op MatMul, m, n, k, a, b, out int) {
		product(op, m, n, k, c.in[0].Data[a:a+m*k], c.in[1].Data[b:b+k*n], c.out.Data[out:out+m*n])
	})
	return nil
}

func (r batchedMatMulRule[T]) reverse(c *call[T], operand int, grad, dst []T) error {
	r.each(c, func(op MatMul, m, n, k, a, b, out int) {
		at, length := a, m*k
		if operand == 1 {
			at, length = b, k*n
		}
		productGrad(op, m, n, k, c.in[0].Data[a:a+m*k], c.in[1].Data[b:b+k*n],
			grad[out:out+m*n], dst[at:at+length], operand)
	})
	return nil
}

func (r batchedMatMulRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	part := func(t []T, at, n int) []T {
		if t == nil {
			return nil
		}
		return t[at : at+n]
	}
	r.each(c, func(op MatMul, m, n, k, a, b, out int) {
		productTangent(op, m, n, k, c.in[0].Data[a:a+m*k], c.in[1].Data[b:b+k*n],
			part(tan[0], a, m*k), part(tan[1], b, k*n), dst[out:out+m*n])
	})
	return nil
}

// matVecRule is a matrix product with a second operand of one column.
type matVecRule[T Float] struct{ MatVec }

func (r matVecRule[T]) sizes(c *call[T]) (op MatMul, m, n, k int) {
	return MatMul{TransA: r.TransA}, len(c.out.Data), 1, len(c.in[1].Data)
}

func (r matVecRule[T]) forward(c *call[T]) error {
	op, m, n, k := r.sizes(c)
	product(op, m, n, k, c.in[0].Data, c.in[1].Data, c.out.Data)
	return nil
}

func (r matVecRule[T]) reverse(c *call[T], operand int, grad, dst []T) error {
	op, m, n, k := r.sizes(c)
	productGrad(op, m, n, k, c.in[0].Data, c.in[1].Data, grad, dst, operand)
	return nil
}

func (r matVecRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	op, m, n, k := r.sizes(c)
	productTangent(op, m, n, k, c.in[0].Data, c.in[1].Data, tan[0], tan[1], dst)
	return nil
}

type vecDotRule[T Float] struct{}

func (vecDotRule[T]) forward(c *call[T]) error {
	c.out.Data[0] = linalg.Dot(c.in[0].Data, c.in[1].Data)
	return nil
}

func (vecDotRule[T]) reverse(c *call[T], operand int, grad, dst []T) error {
	for i, v := range c.in[1-operand].Data {
		dst[i] = grad[0] * v
	}
	return nil
}

func (vecDotRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	dst[0] = 0
	for operand, t := range tan {
		if t != nil {
			dst[0] += linalg.Dot(t, c.in[1-operand].Data)
		}
	}
	return nil
}

// outerProdRule is a matrix product over k = 1.
type outerProdRule[T Float] struct{}

func (outerProdRule[T]) forward(c *call[T]) error {
	product(MatMul{}, len(c.in[0].Data), len(c.in[1].Data), 1, c.in[0].Data, c.in[1].Data, c.out.Data)
	return nil
}

func (outerProdRule[T]) reverse(c *call[T], operand int, grad, dst []T) error {
	a, b := c.in[0].Data, c.in[1].Data
	productGrad(MatMul{}, len(a), len(b), 1, a, b, grad, dst, operand)
	return nil
}

func (outerProdRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	a, b := c.in[0].Data, c.in[1].Data
	productTangent(MatMul{}, len(a), len(b), 1, a, b, tan[0], tan[1], dst)
	return nil
}
