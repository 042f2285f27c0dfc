package layers_test

import (
	"testing"

	"gorgonia.org/gorgonia"
)

var embeddings = []wiring{
	{"lookup", func(s *sketch) node {
		table, w := s.param("table", 7, 4), s.param("w", 4, 3)
		return mul(lookup(table, s.words("words", cases)), w)
	}, `
table: 7 to 4, rows [5]: embedding lookup, 7 rows
w: 4 to 3, rows [5]: dense layer x w`},

	{"several words per case", func(s *sketch) node {
		return s.weighted("w", reshape(lookup(s.param("table", 20, 4), s.words("words", cases*3)), cases, 12), 2)
	}, `
table: 20 to 4, rows [15]: embedding lookup, 20 rows, 3 positions per case
w: 12 to 2, rows [5]: dense layer x w`},

	{"rows of several axes", func(s *sketch) node {
		return reshape(lookup(s.param("table", 7, 2, 3), s.words("words", cases)), cases, 6)
	}, "table: 7 to 6, rows [5]: embedding lookup, 7 rows"},

	{"several lookups", func(s *sketch) node {
		table := s.param("table", 7, 4)
		return add(lookup(table, s.words("words", cases)), tanh(lookup(table, s.words("others", cases))))
	}, "table: 7 to 4, rows [5 5]: embedding lookup, 7 rows, used 2 times"},

	// The homogeneous coordinate would take the diagonal form from A.
	{"what is added to the rows is no bias", func(s *sketch) node {
		return plus(lookup(s.param("table", 5, 3), s.words("words", cases)), s.param("b", 1, 3), 0)
	}, `
table: 5 to 3, rows [5]: embedding lookup, 5 rows
b: offset, element by element`},

	{"columns picked from a weight", func(s *sketch) node {
		return must(gorgonia.ByIndices(transpose(s.param("table", 3, 7)), s.words("words", cases), 0))
	}, "table: 7 to 3, rows [5]: embedding lookup, 7 rows"},

	{"another axis", func(s *sketch) node {
		return transpose(must(gorgonia.ByIndices(s.param("table", 3, 7), s.words("words", cases), 1)))
	}, "table is no weight: picked from along axis 1, not the first"},

	{"one-hot rows", func(s *sketch) node {
		s.oneHot = []string{"table"}
		return plus(mul(s.input("x", cases, 300), s.param("table", 300, 3)), s.param("b", 1, 3), 0)
	}, `
table: 300 to 3, rows [5]: embedding by one-hot rows x w
b: offset, element by element`},

	{"one-hot rows and a table stored the other way round", func(s *sketch) node {
		s.oneHot = []string{"table"}
		return mul(s.input("x", cases, 300), transpose(s.param("table", 3, 300)))
	}, "table: 300 to 3 stored out x in, rows [5]: embedding by one-hot rows x w^T"},

	{"one-hot rows of a small vocabulary", func(s *sketch) node {
		s.oneHot = []string{"table"}
		return plus(mul(s.input("x", cases, 255), s.param("table", 255, 3)), s.param("b", 1, 3), 0)
	}, "table + b: 255 to 3, rows [5]: dense layer x w + b"},

	{"one-hot columns", func(s *sketch) node {
		s.oneHot = []string{"table"}
		return transpose(mul(s.param("table", 3, 300), s.input("x", 300, cases)))
	}, "table: 300 to 3 stored out x in, rows [5]: dense layer w x"},

	{"rows that are not one-hot", func(s *sketch) node {
		s.oneHot = []string{"v"}
		return mul(s.input("x", cases, 300), s.param("w", 300, 3))
	}, "w: 300 to 3, rows [5]: dense layer x w"},
}

func TestEmbedding(t *testing.T) { checkWirings(t, embeddings) }

// The factor A of an embedding is diagonal, however large it may be.
func TestEmbeddingBlock(t *testing.T) {
	for name, want := range map[string]string{
		"lookup":                               "table: diagonal A 7, G 4",
		"one-hot rows":                         "table: diagonal A 300, G 3",
		"one-hot rows of a small vocabulary":   "table: A 256, G 3",
		"what is added to the rows is no bias": "table: diagonal A 5, G 3",
	} {
		m, _ := build(t, named(embeddings, name))
		if got := m.approximate(whole).layers[0].Block(); got != want {
			t.Errorf("%s: block %q, want %q", name, got, want)
		}
	}
}
