package layers

import (
	"slices"
	"strings"

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
	s := e.Params[0].Name()
	for _, n := range e.Params[1:] {
		s += " and " + n.Name()
	}
	return s
}

// Describe says what the parameters do, in the words of the model.
func (e Elementwise) Describe() string {
	role := e.role()
	switch shape := e.Params[0].Shape; {
	case size(shape) == 1:
		return role.ofOneNumber()
	case isAfterNormalisation(shape, e.Uses[0]):
		return string(role) + " of a normalisation, per channel"
	}
	return string(role) + ", element by element"
}

// A role is what all uses of parameters have in common.
type role string

const (
	scale         role = "scale"
	divisor       role = "divisor"
	offset        role = "offset"
	scaleAndShift role = "scale and shift"
)

// ofOneNumber says what a parameter of one element does.
func (r role) ofOneNumber() string {
	switch r {
	case scale:
		return "temperature: one number that multiplies"
	case divisor:
		return "temperature: one number that divides"
	case offset:
		return "offset: one number that is added or subtracted"
	case scaleAndShift:
		return "scale and shift: one number each"
	}
	return string(r) + ": one number"
}

func (e Elementwise) role() role {
	if len(e.Params) == 2 {
		return scaleAndShift
	}
	var all []string
	for _, u := range e.Uses[0] {
		if r := string(roleIn(u)); !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	if len(all) == 1 {
		return role(all[0])
	}
	slices.Sort(all)
	slices.Reverse(all) // a scale before an offset
	return role(strings.Join(all, " and ") + " at once")
}

// roleIn is what one use makes of a parameter.
func roleIn(u program.Use) role {
	op := u.Node.Op.(program.Binary)
	first := u.Operand == 0
	switch op.Kind {
	case "⊙":
		return scale
	case "+", "-":
		return offset
	case "÷":
		if first {
			return "dividend"
		}
		return divisor
	case "^":
		if first {
			return "base of a power"
		}
		return "exponent"
	}
	return role("operand of " + op.Kind)
}
