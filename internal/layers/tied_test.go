package layers_test

import (
	"testing"

	"github.com/gorgonia-kfac/kfac/internal/layers"
)

var tiedWirings = []wiring{
	{"autoencoder", func(s *sketch) node {
		w := s.param("w", 4, 3)
		return mul(tanh(mul(s.input("x", cases, 4), w)), transpose(w))
	}, `
w: 4 to 3, rows [5]: tied weight: dense layer x w, and its transpose: dense layer x w^T
tied w: 3 to 4 stored out x in, rows [5]`},

	{"autoencoder of a square weight", func(s *sketch) node {
		w := s.param("w", 4, 4)
		return mul(tanh(mul(s.input("x", cases, 4), w)), transpose(w))
	}, `
w: 4 to 4, rows [5]: tied weight: dense layer x w, and its transpose: dense layer x w^T
tied w: 4 to 4 stored out x in, rows [5]`},

	// The bias behind the transpose belongs to no layer.
	{"autoencoder with biases", func(s *sketch) node {
		w, b, c := s.param("w", 4, 3), s.param("b", 1, 3), s.param("c", 1, 4)
		return plus(mul(tanh(plus(mul(s.input("x", cases, 4), w), b, 0)), transpose(w)), c, 0)
	}, `
w + b: 4 to 3, rows [5]: tied weight: dense layer x w + b, and its transpose: dense layer x w^T
tied w: 3 to 4 stored out x in, rows [5]
c: offset, element by element`},

	{"autoencoder of a vector", func(s *sketch) node {
		w := s.param("w", 3, 4)
		return mul(transpose(w), tanh(mul(w, s.input("x", 4))))
	}, `
w: 4 to 3 stored out x in, rows [1]: tied weight: dense layer w x, and its transpose: dense layer w^T x
tied w: 3 to 4, rows [1]`},

	{"words, and words by the same table", func(s *sketch) node {
		table := s.param("table", 9, 4)
		h := tanh(s.weighted("w", reshape(lookup(table, s.words("words", cases*2)), cases, 8), 4))
		return mul(h, transpose(table))
	}, `
table: 9 to 4, rows [10]: ` +
		`tied weight: embedding lookup, 9 rows, 2 positions per case, and its transpose: dense layer x w^T
tied table: 4 to 9 stored out x in, rows [5]
w: 8 to 4, rows [5]: dense layer x w`},
}

func TestTied(t *testing.T) { checkWirings(t, tiedWirings) }

// Both ways share the factors, which change places.
func TestTiedFactors(t *testing.T) {
	for _, test := range []struct {
		name, wiring, block string
		maxDim              int
		a, g                bool // diagonal
	}{
		{"whole", "autoencoder with biases", "w: A 5, G 3", 10, false, false},
		{"a large A", "autoencoder with biases", "w: diagonal A 5, G 3", 4, true, false},
		{"both large", "autoencoder with biases", "w: diagonal A 5, diagonal G 3", 2, true, true},
		{"a table", "words, and words by the same table", "table: diagonal A 9, G 4", 20, true, false},
	} {
		m, _ := build(t, named(tiedWirings, test.wiring))
		l := m.approximate(layers.Approximation{MaxDim: test.maxDim}).layers[0]
		if got := l.Block(); got != test.block || l.DiagonalA != test.a || l.DiagonalG != test.g {
			t.Errorf("%s: block %q, want %q", test.name, got, test.block)
		}
		if l.Tied.DiagonalA != test.g || l.Tied.DiagonalG != test.a {
			t.Errorf("%s: of the transpose, diagonal A %v and G %v", test.name, l.Tied.DiagonalA, l.Tied.DiagonalG)
		}
		if l.Recurrent() || l.Reduce || l.Channels > 0 || l.Patches != nil {
			t.Errorf("%s: a tied weight is none of these: %+v", test.name, l)
		}
	}
}
