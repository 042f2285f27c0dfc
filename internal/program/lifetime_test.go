package program

import (
	"fmt"
	"slices"
	"testing"

	"gorgonia.org/tensor"
)

// checkLifetimes checks that giving memory back early changes no bit, of the value f and of its
// derivative tan along dirs, and that a sweep after it is as before. It is part of the checks of
// every op and model.
func (s *prepared[T]) checkLifetimes(f []T, dirs [][]T, tan []T) {
	s.Helper()
	same := func(what string, got, want []T) {
		if fmt.Sprint(got) != fmt.Sprint(want) { // NaN equals NaN
			s.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	var seeds []Seed[T]
	for i, d := range dirs {
		seeds = append(seeds, Seed[T]{s.vars[i], d})
	}
	path := s.p.Path(s.vars...)
	for range 2 {
		if err := s.r.Evaluate(); err != nil {
			s.Fatal(err)
		}
		same("Evaluate", s.r.Value(s.out).Data, f)
		same("Forward after Evaluate", s.forward(nil), f)
		for range 2 {
			if err := s.r.TangentOfOutputs(seeds, path); err != nil {
				s.Fatal(err)
			}
			same("TangentOfOutputs", s.r.Directional(s.out), tan)
		}
		same("Tangent after TangentOfOutputs", s.tangent(dirs), tan)
	}
}

// An evaluation of a deep net has memory for a few of its values only. What it has given back can't
// be had, and no sweep starts from it.
func TestEvaluateGivesBack(t *testing.T) {
	b := newBuilder(tensor.Float64, 1)
	const layers, units = 20, 8
	h := b.x(10, units)
	for range layers {
		h = dense(b, h, units, 1, units)
	}
	s := prepare[float64](t, b, h)
	elements := func() (n int) {
		for i := range s.r.calls {
			if !s.r.calls[i].node.IsLeaf() {
				n += cap(s.r.calls[i].value.data) + cap(s.r.tans[i].data)
			}
		}
		for _, x := range s.r.spare.free {
			n += cap(x)
		}
		return n
	}
	for range 3 {
		if err := s.r.Evaluate(); err != nil {
			t.Fatal(err)
		}
		if got := elements(); got > 3*10*units {
			t.Errorf("an evaluation has memory for %d elements, of %d layers with %d", got, layers, 10*units)
		}
	}
	path, inner := s.p.Path(s.vars...), s.out.Kids[0]
	seed := []Seed[float64]{{s.vars[0], s.r.Value(s.vars[0]).Data}}
	panics := func(f func()) (did bool) {
		defer func() { did = recover() != nil }()
		f()
		return false
	}
	if s.r.Reverse([]Seed[float64]{{s.out, make([]float64, 10*units)}}, path) == nil ||
		s.r.Tangent(seed, path) == nil || !panics(func() { s.r.Value(inner) }) {
		t.Error("an evaluation is taken for a forward pass that has kept its values")
	}
	want := s.forward(nil)
	before := elements()
	if err := s.r.TangentOfOutputs(seed, path); err != nil {
		t.Fatal(err)
	}
	if got := elements() - before; got > 3*10*units {
		t.Errorf("tangents have memory for %d elements, of %d layers with %d", got, layers, 10*units)
	}
	if !panics(func() { s.r.Directional(inner) }) || s.r.Bend(path, false) == nil {
		t.Error("tangents that were given back are taken for those of all nodes")
	}
	if !slices.Equal(s.forward(nil), want) {
		t.Error("another value after tangents were given back")
	}
}
