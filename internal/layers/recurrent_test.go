package layers_test

import (
	"fmt"
	"testing"

	"github.com/gorgonia-kfac/kfac/internal/layers"
)

// recurrence is a recurrent net with a weight for the inputs and one for the states.
func recurrence(times int) func(s *sketch) node {
	return func(s *sketch) node {
		w, u, b := s.param("w", 4, 3), s.param("u", 3, 3), s.param("b", 1, 3)
		h := s.input("h", cases, 3)
		for i := range times {
			h = tanh(plus(add(mul(s.input(fmt.Sprint("x", i), cases, 4), w), mul(h, u)), b, 0))
		}
		return h
	}
}

var recurrentWirings = []wiring{
	{"recurrent net", recurrence(3), `
w + b: 4 to 3, rows [5 5 5]: dense layer x w + b, used 3 times
u: 3 to 3, rows [5 5 5]: recurrent weight h w, 3 time steps`},

	{"recurrent net of a single step", recurrence(1), `
w + b: 4 to 3, rows [5]: dense layer x w + b
u: 3 to 3, rows [5]: dense layer x w`},

	{"joined inputs", func(s *sketch) node {
		w, b := s.param("w", 5, 3), s.param("b", 1, 3)
		h := s.input("h", cases, 3)
		for i := range 3 {
			h = tanh(plus(mul(concat(1, s.input(fmt.Sprint("x", i), cases, 2), h), w), b, 0))
		}
		return h
	}, "w + b: 5 to 3, rows [5 5 5]: recurrent weight h w + b, 3 time steps"},

	{"two sequences", func(s *sketch) node {
		u := s.param("u", 3, 3)
		last := func(name string) node {
			h := s.input(name, cases, 3)
			for range 3 {
				h = tanh(mul(h, u))
			}
			return h
		}
		return sub(last("left"), last("right"))
	}, "u: 3 to 3, rows [5 5 5 5 5 5]: recurrent weight h w, 3 time steps, used 6 times"},

	{"a vector", func(s *sketch) node {
		w, b := s.param("w", 3, 3), s.param("b", 3)
		return add(mul(w, tanh(add(mul(w, s.input("x", 3)), b))), b)
	}, "w + b: 3 to 3 stored out x in, rows [1 1]: recurrent weight w h + b, 2 time steps"},

	{"weight used twice", func(s *sketch) node {
		w := s.param("w", 4, 3)
		return add(tanh(mul(s.input("x", cases, 4), w)), mul(s.input("y", cases, 4), w))
	}, "w: 4 to 3, rows [5 5]: dense layer x w, used 2 times"},

	{"weight and bias used twice", func(s *sketch) node {
		w, b := s.param("w", 4, 3), s.param("b", 3)
		h1, h2 := mul(s.input("x", cases, 4), w), mul(s.input("y", cases, 4), w)
		return add(tanh(plus(h1, b, 0)), plus(h2, b, 0))
	}, "w + b: 4 to 3, rows [5 5]: dense layer x w + b, used 2 times"},

	{"weight used twice, bias once", func(s *sketch) node {
		w, b := s.param("w", 4, 3), s.param("b", 3)
		h1, h2 := mul(s.input("x", cases, 4), w), mul(s.input("y", cases, 4), w)
		return hadamard(plus(h1, b, 0), h2)
	}, `
w: 4 to 3, rows [5 5]: dense layer x w, used 2 times
b: offset, element by element`},

	{"weight used twice with two biases", func(s *sketch) node {
		w, b, c := s.param("w", 4, 3), s.param("b", 3), s.param("c", 3)
		h1, h2 := mul(s.input("x", cases, 4), w), mul(s.input("y", cases, 4), w)
		return add(tanh(plus(h1, b, 0)), plus(h2, c, 0))
	}, `
w: 4 to 3, rows [5 5]: dense layer x w, used 2 times
b: offset, element by element
c: offset, element by element`},

	{"weight used twice with two biases, one of them used twice", func(s *sketch) node {
		w, b, c := s.param("w", 4, 3), s.param("b", 3), s.param("c", 3)
		h1, h2 := mul(s.input("x", cases, 4), w), mul(s.input("y", cases, 4), w)
		return add(tanh(plus(h1, b, 0)), plus(tanh(plus(h2, c, 0)), c, 0))
	}, `
w: 4 to 3, rows [5 5]: dense layer x w, used 2 times
b: offset, element by element
c: offset, element by element`},

	{"uses at several positions each", func(s *sketch) node {
		w := s.param("w", 3, 3)
		h := folded(tanh(folded(s.input("x", cases, 2, 3), w, nil)), w, nil)
		return reshape(h, cases, 6)
	}, "w: 3 to 3, rows [10 10]: recurrent weight h w, 2 time steps, 4 positions per case"},
}

func TestRecurrentWeights(t *testing.T) { checkWirings(t, recurrentWirings) }

// Sites are in the order of time, whatever the order in which the outputs depend on them.
func TestSitesInOrderOfTime(t *testing.T) {
	m, _ := build(t, func(s *sketch) node {
		w := s.param("w", 4, 3)
		var h []node
		for i := range 4 {
			h = append(h, mul(s.input(fmt.Sprint("x", i), cases, 4), w))
		}
		return concat(1, h[2], h[0], h[3], h[1])
	})
	for i, s := range m.layers[0].Sites {
		if got, want := s.Input.Name(), fmt.Sprint("x", i); got != want {
			t.Errorf("site %d has the input %s, want %s", i, got, want)
		}
	}
}

// Time steps are paired where all have as many rows, and the factors are whole.
func TestRecurrent(t *testing.T) {
	unlike := func(s *sketch) node {
		w := s.param("w", 3, 2)
		return concat(1, reshape(folded(s.input("x", cases, 2, 3), w, nil), cases, 4), mul(s.input("y", cases, 3), w))
	}
	for _, test := range []struct {
		name string
		out  func(s *sketch) node
		a    layers.Approximation
		want bool
	}{
		{"three steps", recurrence(3), whole, true},
		{"one step", recurrence(1), whole, false},
		{"diagonal A", recurrence(3), layers.Approximation{MaxDim: 4}, false},
		{"different numbers of rows", unlike, whole, false},
		{"tied", named(tiedWirings, "autoencoder"), whole, false},
		{"reduced", recurrence(3), layers.Approximation{MaxDim: 10, Sharing: layers.Reduce}, false},
	} {
		m, _ := build(t, test.out)
		if got := m.approximate(test.a).layers[0].Recurrent(); got != test.want {
			t.Errorf("%s: recurrent %v, want %v", test.name, got, test.want)
		}
	}
}
