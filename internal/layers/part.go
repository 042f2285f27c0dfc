package layers

import (
	"slices"
	"strings"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A part of a parameter is a matrix by itself: a slice, one of a stack, or all of it.
type part struct {
	key      string
	at       []int // its elements; nil for all, as they lie
	readings []reading
}

// parts are in the order of their first uses.
type parts []*part

// add adds a reading to its part.
func (all *parts) add(r reading) {
	key := r.view.key()
	i := slices.IndexFunc(*all, func(p *part) bool { return p.key == key })
	if i < 0 {
		i = len(*all)
		*all = append(*all, &part{key: key})
	}
	(*all)[i].readings = append((*all)[i].readings, r)
}

// whole reports whether the parameter is not divided.
func (all parts) whole() bool { return len(all) == 1 && all[0].key == "" }

func (all parts) String() string {
	var keys []string
	for _, p := range all {
		keys = append(keys, p.key)
	}
	return strings.Join(keys, "; ")
}

// disjoint finds the elements of the parts. It reports false if two have one in common, or one and
// another use.
func (all parts) disjoint(n *program.Node, others []other) bool {
	var t taken
	if all.whole() {
		return len(others) == 0
	}
	of := map[string][]int{} // by the key of what was divided further into a stack
	for _, p := range all {
		v := p.readings[0].view
		stack := v.of(0, 0)
		at, ok := of[stack.key()]
		if !ok {
			at = stack.elements()
			of[stack.key()] = at
		}
		if p.at = v.pieceOf(at); !t.take(p.at, n.Size()) {
			return false
		}
	}
	return !slices.ContainsFunc(others, func(o other) bool { return t.overlaps(o.view.elements()) })
}
