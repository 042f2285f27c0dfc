package layers_test

import (
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/layers"
)

// A factor of MaxDim rows is whole, and a larger one diagonal.
func TestMaxDim(t *testing.T) {
	for _, test := range []struct {
		maxDim int
		bias   bool
		want   string
	}{
		{5, true, "w: A 5, G 3"},
		{4, true, "w: diagonal A 5, G 3"},
		{4, false, "w: A 4, G 3"},
		{3, true, "w: diagonal A 5, G 3"},
		{2, true, "w: diagonal A 5, diagonal G 3"},
	} {
		m, _ := build(t, func(s *sketch) node {
			h := s.weighted("w", s.input("x", cases, 4), 3)
			if test.bias {
				h = plus(h, s.param("b", 1, 3), 0)
			}
			return h
		})
		l := m.approximate(layers.Approximation{MaxDim: test.maxDim}).layers[0]
		if got := l.Block(); got != test.want {
			t.Errorf("MaxDim %d, bias %v: %q, want %q", test.maxDim, test.bias, got, test.want)
		}
	}
}

// Outputs are the products of all uses, those of the transpose among them.
func TestOutputs(t *testing.T) {
	s := &sketch{graph: gorgonia.NewGraph()}
	w := s.param("w", 4, 3)
	inner := mul(s.input("x", cases, 4), w)
	outer := mul(tanh(inner), transpose(w))
	again := mul(tanh(outer), w)
	got := find(t, s, again).layers[0].Outputs()
	if len(got) != 3 || got[0].Src != inner || got[1].Src != again || got[2].Src != outer {
		t.Errorf("outputs %v, want the three products", got)
	}
}
