package layers

import (
	"fmt"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// use is a product that a parameter is an operand of.
// Before it the parameter may have been sliced, reshaped to a matrix, or transposed.
type use struct {
	view       view // what the product reads, before it is transposed
	product    *program.Node
	operand    int
	transposed bool // by a node of its own, not by a mark of the product
}

func (u use) weight() *program.Node { return u.product.Kids[u.operand] }
func (u use) input() *program.Node  { return u.product.Kids[1-u.operand] }

// other is a use of a view that is no product of a weight, and why.
type other struct {
	view view
	why  string
}

// uses are those of a parameter.
type uses struct {
	products []use
	others   []other
}

// usesOf lists the uses of a parameter.
func usesOf(n *program.Node) (all uses) {
	all.of(view{param: n}, n)
	return all
}

// of adds the uses of a node that holds a view.
func (all *uses) of(v view, n *program.Node) {
	for _, u := range distinct(n.Users) {
		all.by(u, v, n)
	}
}

// by adds what a user of the node n makes of the view that n holds.
func (all *uses) by(u *program.Node, v view, n *program.Node) {
	switch op := u.Op.(type) {
	case program.Transpose:
		if slices.Equal(op.Perm, []int{1, 0}) {
			all.ofTransposed(v, u)
			return
		}
		all.of(v.behind(u), u)
	case program.Reshape, program.Slice:
		all.of(v.behind(u), u)
	case program.MatMul, program.BatchedMatMul, program.MatVec, program.VecDot, program.Tensordot:
		for k, kid := range u.Kids {
			if kid == n {
				all.products = append(all.products, use{view: v, product: u, operand: k})
			}
		}
	case program.ByIndices:
		if op.Axis != 0 {
			all.others = append(all.others, other{v, fmt.Sprintf("picked from along axis %d, not the first", op.Axis)})
			return
		}
		all.products = append(all.products, use{view: v, product: u})
	case program.SizeOf:
	default:
		all.others = append(all.others, other{v, fmt.Sprintf("used by %v, which is no matrix product", u.Op)})
	}
}

// ofTransposed adds the uses of Transpose(w). Those that are products with a vector read w itself.
// Before a product of matrices the program has turned the transpose into a mark of the product.
func (all *uses) ofTransposed(v view, n *program.Node) {
	for _, u := range distinct(n.Users) {
		switch op := u.Op.(type) {
		case program.MatVec:
			if u.Kids[0] == n {
				all.products = append(all.products, use{view: v, product: u, transposed: true})
				continue
			}
		case program.Transpose:
			if slices.Equal(op.Perm, []int{1, 0}) { // back
				all.of(v, u)
				continue
			}
		}
		all.by(u, v.behind(n), n)
	}
}
