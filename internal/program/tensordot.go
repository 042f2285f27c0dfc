package program

import (
	"fmt"
	"slices"
)

// Tensordot contracts the axes A of the first operand with the axes B of the second.
type Tensordot struct{ A, B []int }

func (o Tensordot) String() string { return fmt.Sprintf("Tensordot%v%v", o.A, o.B) }

// tensordotRule brings the contracted axes of A last and those of B first. Then it is a matrix
// product.
type tensordotRule[T Float] struct{ Tensordot }

func (r tensordotRule[T]) perms(c *call[T]) (permA, permB []int, m, n, k int) {
	a, b := c.in[0].Shape, c.in[1].Shape
	k = 1
	for _, axis := range r.A {
		k *= a[axis]
	}
	permA = append(freeAxes(r.A, len(a)), r.A...)
	permB = append(slices.Clone(r.B), freeAxes(r.B, len(b))...)
	return permA, permB, size(a) / k, size(b) / k, k
}

// matrices are the operands, permuted into matrices of m x k and k x n. They are in the scratch
// slots first and first+1.
func (r tensordotRule[T]) matrices(c *call[T], a, b []T, first int) (ma, mb []T, m, n, k int) {
	permA, permB, m, n, k := r.perms(c)
	if a != nil {
		ma = c.buf(first, m*k)
		permute(ma, a, c.in[0].Shape, permA)
	}
	if b != nil {
		mb = c.buf(first+1, k*n)
		permute(mb, b, c.in[1].Shape, permB)
	}
	return ma, mb, m, n, k
}

func (r tensordotRule[T]) forward(c *call[T]) error {
	a, b, m, n, k := r.matrices(c, c.in[0].Data, c.in[1].Data, 0)
	product(MatMul{}, m, n, k, a, b, c.out.Data)
	return nil
}

func (r tensordotRule[T]) reverse(c *call[T], operand int, grad, dst []T) error {
	permA, permB, m, n, k := r.perms(c)
	perm := [][]int{permA, permB}[operand]
	g := c.buf(2+operand, len(dst))
	productGrad(MatMul{}, m, n, k, c.buf(0, m*k), c.buf(1, k*n), grad, g, operand)
	permuteBack(dst, g, c.in[operand].Shape, perm)
	return nil
}

func (r tensordotRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	da, db, m, n, k := r.matrices(c, tan[0], tan[1], 2)
	productTangent(MatMul{}, m, n, k, c.buf(0, m*k), c.buf(1, k*n), da, db, dst)
	return nil
}

// freeAxes are those that are not contracted.
func freeAxes(contracted []int, dims int) (axes []int) {
	for i := range dims {
		if !slices.Contains(contracted, i) {
			axes = append(axes, i)
		}
	}
	return axes
}
