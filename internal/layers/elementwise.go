package layers

import (
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// An Elementwise is one or two parameters that act element by element: a learned scale, temperature
// or offset, or the scale and the shift of the same channels.
type Elementwise struct {
	Params []*program.Node
	Uses   [][]program.Use // of each
}

// FindElementwise finds them among the given parameters.
// If pairs, it takes a scale and its shift together.
func FindElementwise(p *program.Program, params []*program.Node, pairs bool) (found []Elementwise) {
	for _, n := range params {
		if uses, ok := p.ElementwiseUses(n); ok && n.CaseAxis < 0 {
			found = append(found, Elementwise{[]*program.Node{n}, [][]program.Use{uses}})
		}
	}
	if !pairs {
		return found
	}
	for i := range found {
		scale := &found[i]
		for j := range found {
			if shift := &found[j]; isScaleAndShift(*scale, *shift) {
				scale.Params = append(scale.Params, shift.Params...)
				scale.Uses = append(scale.Uses, shift.Uses...)
				shift.Params = nil
				break
			}
		}
	}
	return slices.DeleteFunc(found, func(e Elementwise) bool { return e.Params == nil })
}

// isScaleAndShift reports whether shift is added to the product with scale and to nothing else.
// Both have to lie along the same axes.
func isScaleAndShift(scale, shift Elementwise) bool {
	if len(scale.Params) != 1 || len(shift.Params) != 1 || len(scale.Uses[0]) > 1 || len(shift.Uses[0]) > 1 {
		return false
	}
	s, b := scale.Uses[0][0], shift.Uses[0][0]
	product, sum := s.Node, b.Node
	return isBinary(product, "⊙") && isBinary(sum, "+") &&
		len(product.Users) == 1 && product.Users[0] == sum && slices.Equal(product.Shape, sum.Shape) &&
		slices.Equal(product.Kids[s.Operand].Shape, sum.Kids[b.Operand].Shape)
}

// Name is that of the parameters.
func (e Elementwise) Name() string {
	s := name(e.Params[0])
	for _, n := range e.Params[1:] {
		s += " and " + name(n)
	}
	return s
}

// Describe says what the parameters do.
func (e Elementwise) Describe() string {
	what, where := e.role(), ", element by element"
	if len(e.Params) == 1 && e.Params[0].Size() == 1 {
		return oneNumber[what]
	}
	if isAfterNormalisation(e.Params[0].Shape, e.Uses[0]) {
		where = " of a normalisation, per channel"
	}
	return what + where
}

// The words for what a parameter does by its uses.
const (
	scale         = "scale"
	divisor       = "divisor"
	offset        = "offset"
	scaleAndShift = "scale and shift"
	mixed         = "parameter"
)

// oneNumber says what a parameter of one element does.
var oneNumber = map[string]string{
	scale:   "temperature: one number that multiplies",
	divisor: "temperature: one number that divides",
	offset:  "offset: one number that is added or subtracted",
	mixed:   "one number",
}

// role is what all uses of the parameters have in common.
func (e Elementwise) role() string {
	if len(e.Params) == 2 {
		return scaleAndShift
	}
	all := ""
	for _, u := range e.Uses[0] {
		r := mixed
		switch {
		case isBinary(u.Node, "⊙"):
			r = scale
		case isBinary(u.Node, "÷") && u.Operand == 1:
			r = divisor
		case isBinary(u.Node, "+"), isBinary(u.Node, "-") && u.Operand == 1:
			r = offset
		}
		if all != "" && r != all {
			return mixed
		}
		all = r
	}
	return all
}
