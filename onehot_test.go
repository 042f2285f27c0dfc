package kfac

import (
	"testing"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// Products with one-hot rows are lookups: no factor of the vocabulary's size squared, the same
// course of training, and words that do not occur stay as they are.
func TestOneHotProductsAreLookups(t *testing.T) {
	words := []int{3, 299, 7, 3, 0}
	product, lookup := NewTrainer(t, testnet.Lookup(300, true, words)), NewTrainer(t, testnet.Lookup(300, false, words))
	before := testnet.Weights(product.Params)
	product.Steps(t, 8)
	lookup.Steps(t, 8)
	testnet.Near(t, "weights", testnet.Weights(product.Params), testnet.Weights(lookup.Params), 1e-9)
	for i := range 300 * 3 {
		if occurs := i/3 == 3 || i/3 == 299 || i/3 == 7 ||
			i/3 == 0; (before[i] != testnet.Weights(product.Params)[i]) != occurs {
			t.Errorf("row %d: was %g, is %g", i/3, before[i], testnet.Weights(product.Params)[i])
		}
	}
	for _, l := range []*Trainer{product, lookup} {
		if row := l.Solver.Plan().Params[0]; row.Block != "table: diagonal A 300, G 3" {
			t.Errorf("plan of the table: %v", row)
		}
	}
}

// Rows that are not one-hot, and small vocabularies, keep a whole factor.
func TestOneHotIsSeenInTheInputs(t *testing.T) {
	for name, n := range map[string]*testnet.Net{"small": testnet.Lookup(100, true, []int{1, 2, 3}),
		"two ones": testnet.Lookup(300, true, []int{1, 2, 3})} {
		want := "table: A 101, G 3"
		if name == "two ones" {
			want = "table: A 301, G 3"
			x := n.Input("x")
			testnet.Data(x)[5] = 1
		}
		if row := attach(t, n).describe().Params[0]; row.Block != want {
			t.Errorf("%s: block %q, want %q", name, row.Block, want)
		}
	}
}
