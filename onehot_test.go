package kfac

import (
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// lookupNet looks up words in a table of the given size, by ByIndices or by products with one-hot rows, and adds a bias.
func lookupNet(vocabulary int, byProduct bool, words []int) *network {
	s := newSketch(8)
	n := &network{sketch: s}
	table, b, v := s.random("table", vocabulary, 3), s.random("b", 1, 3), s.random("v", 3, 2)
	var h *gorgonia.Node
	if byProduct {
		x := make([]float64, len(words)*vocabulary)
		for row, w := range words {
			x[row*vocabulary+w] = 1
		}
		h = mul(s.leaf("x", x, len(words), vocabulary), table)
	} else {
		h = must(gorgonia.ByIndices(table, gorgonia.NewVector(s.graph, tensor.Int, gorgonia.WithName("words"), gorgonia.WithShape(len(words)),
			gorgonia.WithValue(tensor.New(tensor.WithShape(len(words)), tensor.WithBacking(words)))), 0))
	}
	n.params, n.out = list(table, b, v), mul(tanh(addRow(h, b)), v)
	n.cost, n.dist = squares(1)(s, n.out)
	return n
}

// Products with one-hot rows are lookups: no factor of the vocabulary's size squared, the same course of training, and words that do not occur stay as they are.
func TestOneHotProductsAreLookups(t *testing.T) {
	words := []int{3, 299, 7, 3, 0}
	product, lookup := newLoop(t, lookupNet(300, true, words)), newLoop(t, lookupNet(300, false, words))
	before := product.weights()
	product.steps(t, 8)
	lookup.steps(t, 8)
	checkNear(t, "weights", product.weights(), lookup.weights(), 1e-9)
	for i := range 300 * 3 {
		if occurs := i/3 == 3 || i/3 == 299 || i/3 == 7 || i/3 == 0; (before[i] != product.weights()[i]) != occurs {
			t.Errorf("row %d: was %g, is %g", i/3, before[i], product.weights()[i])
		}
	}
	for _, l := range []*loop{product, lookup} {
		if row := l.solver.Plan().Params[0]; row.Block != "table: diagonal A 300, G 3" {
			t.Errorf("plan of the table: %v", row)
		}
	}
}

// Rows that are not one-hot, and small vocabularies, keep a whole factor.
func TestOneHotIsSeenInTheInputs(t *testing.T) {
	for name, n := range map[string]*network{"small": lookupNet(100, true, []int{1, 2, 3}), "two ones": lookupNet(300, true, []int{1, 2, 3})} {
		want := "table: A 101, G 3"
		if name == "two ones" {
			want = "table: A 301, G 3"
			x := input(n, "x")
			data(x)[5] = 1
		}
		if row := attach(t, n).plan.Params[0]; row.Block != want {
			t.Errorf("%s: block %q, want %q", name, row.Block, want)
		}
	}
}
