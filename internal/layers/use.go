package layers

import (
	"fmt"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// use is a product that a parameter is an operand of.
// Before it the parameter may have been reshaped to a matrix, or transposed.
type use struct {
	product    *program.Node
	operand    int
	transposed bool // by a node of its own, not by a mark of the product
}

func (u use) weight() *program.Node { return u.product.Kids[u.operand] }
func (u use) input() *program.Node  { return u.product.Kids[1-u.operand] }

// usesOf lists the uses of a parameter, or says why it is no weight.
func usesOf(n *program.Node) (uses []use, why string) {
	for _, u := range distinct(n.Users) {
		switch op := u.Op.(type) {
		case program.Reshape:
			inner, why := usesOf(u)
			if why != "" {
				return nil, why
			}
			uses = append(uses, inner...)
		case program.Transpose:
			inner, why := usesOfTransposed(u, op)
			if why != "" {
				return nil, why
			}
			uses = append(uses, inner...)
		case program.MatMul, program.BatchedMatMul, program.MatVec, program.VecDot, program.Tensordot:
			for k, kid := range u.Kids {
				if kid == n {
					uses = append(uses, use{product: u, operand: k})
				}
			}
		case program.ByIndices:
			if op.Axis != 0 {
				return nil, fmt.Sprintf("picked from along axis %d, not the first", op.Axis)
			}
			uses = append(uses, use{product: u})
		case program.SizeOf:
		default:
			return nil, noProduct(u)
		}
	}
	if len(uses) == 0 {
		return nil, "the outputs do not depend on it"
	}
	return uses, ""
}

func noProduct(n *program.Node) string {
	return fmt.Sprintf("used by %v, which is no matrix product", n.Op)
}

// usesOfTransposed lists the uses of Transpose(w), which are products with a vector.
// Before a product of matrices the program has turned the transpose into a mark of the product.
func usesOfTransposed(n *program.Node, op program.Transpose) (uses []use, why string) {
	if !slices.Equal(op.Perm, []int{1, 0}) {
		return nil, noProduct(n)
	}
	for _, u := range distinct(n.Users) {
		switch inner := u.Op.(type) {
		case program.MatVec:
			if u.Kids[0] != n {
				return nil, noProduct(n)
			}
			uses = append(uses, use{product: u, transposed: true})
		case program.Transpose:
			if !slices.Equal(inner.Perm, []int{1, 0}) {
				return nil, noProduct(n)
			}
			back, why := usesOf(u)
			if why != "" {
				return nil, why
			}
			uses = append(uses, back...)
		case program.SizeOf:
		default:
			return nil, noProduct(n)
		}
	}
	return uses, ""
}
