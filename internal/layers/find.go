package layers

import (
	"fmt"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Rest is a parameter that belongs to no layer, or the elements that layers leave of it, and why.
type Rest struct {
	Param *program.Node
	At    []int // nil for all of it
	Why   string
}

// Asked is what is asked about the values that the graph alone does not tell.
type Asked struct {
	// OneHot tells whether the rows of a weight's input are one-hot.
	OneHot func(weight, input *program.Node) bool
	// Stays tells whether a parameter is divided into the parts named as it was before. A slice may
	// be moved from step to step, and be another in another graph.
	Stays func(param *program.Node, parts string) bool
}

// Find finds what the parameters do in the program: layers, and those that belong to none.
// Both are in the order in which the user made the parameters, whatever their order in the list.
func Find(p *program.Program, params []*program.Node, asked Asked) (layers []*Layer, rest []Rest) {
	f := finder{p: p, asked: asked, isParam: map[*program.Node]bool{}, taken: map[*program.Node]*taken{}}
	for _, n := range params {
		f.isParam[n] = true
		f.taken[n] = &taken{}
	}
	params = slices.SortedFunc(slices.Values(params), byAge)
	for _, n := range params {
		found, why := f.layers(n)
		f.taken[n].why = why
		layers = append(layers, found...)
	}
	for _, l := range layers {
		f.findBias(l)
	}
	for _, n := range params {
		if at, some := f.taken[n].left(); some {
			rest = append(rest, Rest{n, at, f.taken[n].why})
		}
	}
	return layers, rest
}

type finder struct {
	p       *program.Program
	asked   Asked
	isParam map[*program.Node]bool
	taken   map[*program.Node]*taken // by parameter
}

// taken says what layers have of a parameter.
type taken struct {
	all  bool
	some []bool // by element; nil if they have none
	why  string // why not the rest
}

// take takes elements, nil for all of size. It reports false if there was one that is taken.
func (t *taken) take(at []int, size int) bool {
	if t.all || at == nil && t.some != nil || t.overlaps(at) {
		return false
	}
	if at == nil {
		t.all = true
		return true
	}
	if t.some == nil {
		t.some = make([]bool, size)
	}
	for _, i := range at {
		t.some[i] = true
	}
	return true
}

func (t *taken) overlaps(at []int) bool {
	return t.some != nil && slices.ContainsFunc(at, func(i int) bool { return t.some[i] })
}

// left lists the elements that are left, nil for all. some reports whether there are any.
func (t *taken) left() (at []int, some bool) {
	if t.all || t.some == nil {
		return nil, !t.all
	}
	for i, is := range t.some {
		if !is {
			at = append(at, i)
		}
	}
	return at, len(at) > 0
}

// A reading is a product as one of a weight: which operand is the input, and how everything lies.
type reading struct {
	site Site
	as   matrix
	view view // of the weight
}

// layers finds the layers whose weights are n or parts of it, or says why there is none.
// Of a parameter with parts it says why the other elements belong to none.
func (f *finder) layers(n *program.Node) (found []*Layer, why string) {
	all := usesOf(n)
	why = "the outputs do not depend on it"
	if len(all.others) > 0 {
		why = all.others[0].why
	}
	if len(all.products) == 0 {
		return nil, why
	}
	var parts parts
	// In the order of time, where the uses are steps. The first use says which way round Tied is.
	slices.SortStableFunc(all.products, func(a, b use) int { return byAge(a.product, b.product) })
	for _, u := range all.products {
		readings, bad := f.read(u)
		if bad != "" {
			return nil, bad
		}
		for _, r := range readings {
			parts.add(r)
		}
	}
	if !parts.disjoint(n, all.others) {
		if len(all.others) == 0 {
			why = "its uses read parts of it that overlap"
		}
		return nil, why
	}
	if !f.asked.Stays(n, parts.String()) {
		return nil, "the parts of it that are used change"
	}
	for _, p := range parts {
		l, bad := f.layer(n, p)
		if bad != "" {
			return nil, bad
		}
		found = append(found, l)
	}
	for _, l := range found {
		f.taken[n].take(l.WeightAt, n.Size())
	}
	if len(all.others) == 0 {
		why = "the outputs do not depend on them"
	}
	return found, why
}

// layer makes the layer of one part of a parameter, or says why it is none.
func (f *finder) layer(n *program.Node, p *part) (*Layer, string) {
	l := &Layer{Weight: n, WeightAt: p.at, part: p.readings[0].view.name()}
	var both readers
	for i, r := range p.readings {
		if i == 0 {
			both = newReaders(l, r.as)
		}
		to := both.of(r.as)
		if to == nil {
			return nil, fmt.Sprintf("its %d uses read it as matrices of different shapes", len(p.readings))
		}
		s := r.site
		s.OneHot = mayBeOneHot(s, r.as) && f.asked.OneHot(n, s.Input)
		to.DiagonalA = to.DiagonalA || s.isEmbedding()
		to.Sites = append(to.Sites, s)
		l.seen = append(l.seen, r.view.slices()...)
	}
	for _, l := range []*Layer{both.layer, both.tied} {
		l.Steps = stepsOf(l.Sites, f.p)
	}
	both.tie()
	return l, ""
}

// findBias finds the bias that every use of a layer adds, unless another layer has it.
func (f *finder) findBias(l *Layer) {
	v, ok := biasOf(l, f.p, f.isParam)
	if !ok {
		return
	}
	var at []int
	if v.key() != "" {
		at = v.elements()
	}
	if f.taken[v.param].take(at, v.param.Size()) {
		l.Bias, l.BiasAt, l.biasPart = v.param, at, v.name()
		l.seen = append(l.seen, v.slices()...)
	}
}

// read reads one use of a weight, or each matrix of a stack.
func (f *finder) read(u use) (all []reading, why string) {
	var s Site
	var m matrix
	if _, ok := u.product.Op.(program.ByIndices); ok {
		s, m = readLookup(u)
	} else {
		s, m, why = readDense(u)
	}
	if why == "" {
		why = f.badInput(u, s)
	}
	if why != "" {
		return nil, why
	}
	if s.Stack == 0 {
		return []reading{{s, m, u.view}}, ""
	}
	for i := range s.Stack {
		s.Place = i
		all = append(all, reading{s, m, u.view.of(s.Stack, i)})
	}
	return all, ""
}

// badInput says why a product is none of a layer, whose input is one row or column for each case.
func (f *finder) badInput(u use, s Site) string {
	_, isView := viewAt(s.Input, f.isParam)
	switch {
	case f.isParam[s.Input], isView && u.view.key() != "":
		return fmt.Sprintf("multiplied with another parameter (%q)", s.Input.Name())
	case f.p.Whole == "" && u.product.CaseAxis < 0:
		return "its product does not depend on the cases"
	case f.p.Whole == "" && u.product.CaseAxis == outputAxis(u, s):
		return "its product has the cases where its outputs should be"
	case f.p.Whole == "" && u.product.CaseAxis < len(u.product.Shape)-2 && s.Stack > 0:
		return "a stack of matrices, one for each case"
	}
	return ""
}
