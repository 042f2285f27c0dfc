package program

import (
	"fmt"
	"slices"
)

// findLifetimes finds, for each node, the one in whose memory its value lies, and of these the last
// node that reads it. The outputs are read after all nodes.
func (p *Program) findLifetimes() {
	for i, n := range p.Nodes {
		n.home, n.last = n, i
		if _, ok := n.Op.(Reshape); ok {
			n.home = n.Kids[0].home
		}
		for _, k := range n.Kids {
			k.home.last = i
		}
	}
	for _, n := range p.Outputs {
		n.home.last = len(p.Nodes)
	}
}

// spare is memory that was given back, for other nodes.
type spare[T Float] struct{ free [][]T }

// take makes a buffer large enough for n elements: by the smallest memory that is.
func (s *spare[T]) take(b *buffer[T], n int) {
	best := -1
	for i, x := range s.free {
		if cap(x) >= n && (best < 0 || cap(x) < cap(s.free[best])) {
			best = i
		}
	}
	if b.lent || cap(b.data) >= n || best < 0 {
		return
	}
	s.give(b)
	b.data = s.free[best]
	s.free = slices.Delete(s.free, best, best+1)
}

// give takes a buffer's memory.
func (s *spare[T]) give(b *buffer[T]) {
	if cap(b.data) > 0 {
		s.free = append(s.free, b.data[:0])
	}
	b.data, b.set = nil, false
}

// eachDead calls f for the nodes that nothing reads after node n: n itself, or some of its
// operands.
func eachDead(n *Node, f func(*Node)) {
	for i, k := range n.Kids {
		if h := k.home; h.last == n.index && !h.IsLeaf() && !slices.Contains(n.Kids[:i], k) {
			f(h)
		}
	}
	if n.home == n && n.last == n.index && !n.IsLeaf() {
		f(n)
	}
}

// Evaluate is Forward for the whole batch, and keeps the values of the outputs only: the others'
// memory is given back after their last use. No sweep can follow.
func (r *Run[T]) Evaluate() error {
	r.evaluates = true
	return r.forward(nil)
}

// TangentOfOutputs is Tangent, and keeps the derivatives of the outputs only.
func (r *Run[T]) TangentOfOutputs(directions []Seed[T], path Path) error {
	return r.sweepTangents(directions, path, true)
}

// mustKeep panics if what a sweep has found for n was given back.
func (r *Run[T]) mustKeep(outputsOnly bool, n *Node) {
	if outputsOnly && !n.IsLeaf() && !slices.Contains(r.p.Outputs, n) {
		panic(fmt.Sprintf("program: what was found for %q was not kept", n.Name()))
	}
}

var errEvaluated = fmt.Errorf("program: a sweep after Evaluate, which keeps no values for it")
