package layers_test

import (
	"slices"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/layers"
)

func (m model) parameters() (names []string) {
	for _, n := range layers.Parameters(m.program) {
		names = append(names, n.Name())
	}
	slices.Sort(names)
	return names
}

// Where Grad was not called, what has a value for all cases at once counts as a parameter.
// The data do not.
func TestParameters(t *testing.T) {
	net := func(x, hidden int) func(s *sketch) node {
		return func(s *sketch) node { return s.dense("1", tanh(s.dense("0", s.input("x", x, 4), hidden)), 2) }
	}
	perceptron := net(cases, 3)
	for _, test := range []struct {
		name string
		out  func(s *sketch) node
		grad []string
		want []string
	}{
		{"guessed", perceptron, nil, []string{"b0", "b1", "w0", "w1"}},
		{"guessed, with lookups", named(embeddings, "lookup"), nil, []string{"table", "w"}},
		{"asked for", perceptron, []string{"w0", "b1"}, []string{"b1", "w0"}},
		// Where the cases can't be told apart only matrices are guessed.
		{"a single vector", func(s *sketch) node {
			return add(mul(s.param("w", 3, 4), s.input("x", 4)), s.param("b", 3))
		}, nil, []string{"w"}},
	} {
		s := &sketch{graph: gorgonia.NewGraph()}
		out := test.out(s)
		var asked gorgonia.Nodes
		for _, n := range s.params {
			if slices.Contains(test.grad, n.Name()) {
				asked = append(asked, n)
			}
		}
		if asked != nil {
			if _, err := gorgonia.Grad(sumOver(out), asked...); err != nil {
				t.Fatal(err)
			}
		}
		if got := find(t, s, out).parameters(); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
