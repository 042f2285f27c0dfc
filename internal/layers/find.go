package layers

import (
	"fmt"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Rest is a parameter that belongs to no layer, and why.
type Rest struct {
	Param *program.Node
	Why   string
}

// Find finds what the parameters do in the program: layers, and those that belong to none.
// Both are in the order in which the user made the parameters, whatever their order in the list.
// oneHot tells whether the rows of a weight's input are one-hot.
func Find(p *program.Program, params []*program.Node, oneHot func(weight, input *program.Node) bool) (
	layers []*Layer, rest []Rest) {
	f := finder{p: p, isParam: map[*program.Node]bool{}, oneHot: oneHot}
	for _, n := range params {
		f.isParam[n] = true
	}
	isBias := map[*program.Node]bool{}
	for _, n := range slices.SortedFunc(slices.Values(params), byAge) {
		l, why := f.layer(n)
		if l == nil {
			rest = append(rest, Rest{n, why})
			continue
		}
		layers = append(layers, l)
		if isBias[l.Bias] { // of a sum of two layers
			l.Bias = nil
		}
		if l.Bias != nil {
			isBias[l.Bias] = true
		}
	}
	return layers, slices.DeleteFunc(rest, func(r Rest) bool { return isBias[r.Param] })
}

type finder struct {
	p       *program.Program
	isParam map[*program.Node]bool
	oneHot  func(weight, input *program.Node) bool
}

// layer finds the layer whose weight is n, or says why there is none.
func (f *finder) layer(n *program.Node) (*Layer, string) {
	uses, why := usesOf(n)
	if why != "" {
		return nil, why
	}
	// In the order of time, where the uses are steps. The first use says which way round Tied is.
	slices.SortStableFunc(uses, func(a, b use) int { return byAge(a.product, b.product) })
	l := &Layer{Weight: n}
	var both readers
	for i, u := range uses {
		s, m, why := f.site(u)
		if why != "" {
			return nil, why
		}
		if i == 0 {
			both = newReaders(l, m)
		}
		to := both.of(m)
		if to == nil {
			return nil, fmt.Sprintf("its %d uses read it as matrices of different shapes", len(uses))
		}
		s.OneHot = mayBeOneHot(s, m) && f.oneHot(n, s.Input)
		to.DiagonalA = to.DiagonalA || s.isEmbedding()
		to.Sites = append(to.Sites, s)
	}
	for _, l := range []*Layer{both.layer, both.tied} {
		l.Steps = stepsOf(l.Sites, f.p)
	}
	l.Bias = biasOf(l, f.p, f.isParam)
	both.tie()
	return l, ""
}

// site reads one use of a weight.
func (f *finder) site(u use) (s Site, m matrix, why string) {
	if _, ok := u.product.Op.(program.ByIndices); ok {
		s, m = readLookup(u)
	} else {
		s, m, why = readDense(u)
	}
	if why == "" {
		why = f.badInput(u, s)
	}
	return s, m, why
}

// badInput says why a product is none of a layer, whose input is one row or column for each case.
func (f *finder) badInput(u use, s Site) string {
	switch {
	case f.isParam[s.Input]:
		return fmt.Sprintf("multiplied with another parameter (%q)", s.Input.Name())
	case f.p.Whole == "" && u.product.CaseAxis < 0:
		return "its product does not depend on the cases"
	case f.p.Whole == "" && u.product.CaseAxis == outputAxis(u, s):
		return "its product has the cases where its outputs should be"
	}
	return ""
}
