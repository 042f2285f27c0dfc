package layers

import (
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Chains finds the chains among the layers: lists of two or more, each of which feeds the next and
// nothing else, by a path on which no other layer lies.
// Only layers that are used once for each case take part.
// The moments of neighbours pair their rows, case by case.
func Chains(p *program.Program, layers []*Layer) (chains [][]*Layer) {
	before, feeds := neighbours(p, layers)
	next := map[*Layer]*Layer{}
	for _, l := range layers {
		if b := before[l]; len(b) == 1 && feeds[b[0]] == 1 && l.oncePerCase(p) && b[0].oncePerCase(p) {
			next[b[0]] = l
		}
	}
	for _, l := range layers {
		if first := len(before[l]) != 1 || next[before[l][0]] != l; !first || next[l] == nil {
			continue
		}
		var chain []*Layer
		for ; l != nil; l = next[l] {
			chain = append(chain, l)
		}
		chains = append(chains, chain)
	}
	return chains
}

// neighbours lists the layers before each one, with none in between.
// It counts those that each one feeds.
func neighbours(p *program.Program, layers []*Layer) (before map[*Layer][]*Layer, feeds map[*Layer]int) {
	before, feeds = map[*Layer][]*Layer{}, map[*Layer]int{}
	at := map[*program.Node][]*Layer{} // by the product that is their output
	for _, l := range layers {
		for _, n := range l.Outputs() {
			at[n] = append(at[n], l)
		}
	}
	// sources are the layers that a node depends on with no other in between.
	// Of a layer's product it is that layer.
	sources := map[*program.Node][]*Layer{}
	for _, n := range p.Nodes {
		var from []*Layer
		for _, k := range n.Kids {
			for _, l := range sources[k] {
				if !slices.Contains(from, l) {
					from = append(from, l)
				}
			}
		}
		for _, l := range at[n] {
			for _, f := range from {
				if !slices.Contains(before[l], f) {
					before[l] = append(before[l], f)
					feeds[f]++
				}
			}
		}
		if at[n] != nil {
			from = at[n]
		}
		sources[n] = from
	}
	return before, feeds
}

// oncePerCase reports whether a layer is used once for each case and has whole factors.
// Its rows are the cases then.
func (l *Layer) oncePerCase(p *program.Program) bool {
	return len(l.Sites) == 1 && l.Sites[0].Stack == 0 && l.Sites[0].Rows == p.Cases &&
		l.Tied == nil && l.Channels == 0 && !l.DiagonalA && !l.DiagonalG
}
