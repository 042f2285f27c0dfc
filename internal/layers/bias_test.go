package layers_test

import (
	"testing"

	"gorgonia.org/gorgonia"
)

// behind adds to x w, whose parameters are w and b, what f says.
func behind(rows int, bias []int, f func(h, b node) node) func(s *sketch) node {
	return func(s *sketch) node {
		w, b := s.param("w", 4, 3), s.param("b", bias...)
		return f(mul(s.input("x", rows, 4), w), b)
	}
}

const noBias = "w: 4 to 3, rows [5]: dense layer x w\n"

var biasWirings = []wiring{
	{"bias (out)", behind(cases, []int{3}, func(h, b node) node { return plus(h, b, 0) }),
		"w + b: 4 to 3, rows [5]: dense layer x w + b"},

	{"bias (1, out)", behind(cases, []int{1, 3}, func(h, b node) node { return plus(h, b, 0) }),
		"w + b: 4 to 3, rows [5]: dense layer x w + b"},

	{"bias first", behind(cases, []int{1, 3}, func(h, b node) node {
		return must(gorgonia.BroadcastAdd(b, h, []byte{0}, nil))
	}), "w + b: 4 to 3, rows [5]: dense layer x w + b"},

	{"bias reshaped by the user", behind(cases, []int{3}, func(h, b node) node {
		return plus(h, reshape(b, 1, 3), 0)
	}), "w + b: 4 to 3, rows [5]: dense layer x w + b"},

	{"bias with a transposed weight", func(s *sketch) node {
		w, b := s.param("w", 3, 4), s.param("b", 1, 3)
		return plus(mul(s.input("x", cases, 4), transpose(w)), b, 0)
	}, "w + b: 4 to 3 stored out x in, rows [5]: dense layer x w^T + b"},

	{"bias behind another summand and moved axes", func(s *sketch) node {
		w, v, b := s.param("w", 4, 3), s.param("v", 2, 3), s.param("b", 3, 1)
		h := add(mul(s.input("x", cases, 4), w), mul(s.input("y", cases, 2), v))
		return transpose(plus(transpose(h), b, 1))
	}, `
w + b: 4 to 3, rows [5]: dense layer x w + b
v: 2 to 3, rows [5]: dense layer x w`},

	{"Add in a batch of one", behind(1, []int{1, 3}, add), "w + b: 4 to 3, rows [1]: dense layer x w + b"},

	{"BroadcastAdd in a batch of one", behind(1, []int{3}, func(h, b node) node { return plus(h, b, 0) }),
		"w + b: 4 to 3, rows [1]: dense layer x w + b"},

	{"bias of a vector", func(s *sketch) node {
		return add(mul(s.param("w", 3, 4), s.input("x", 4)), s.param("b", 3))
	}, "w + b: 4 to 3 stored out x in, rows [1]: dense layer w x + b"},

	{"bias of columns", func(s *sketch) node {
		return transpose(plus(mul(s.param("w", 3, 4), s.input("x", 4, cases)), s.param("b", 3, 1), 1))
	}, "w + b: 4 to 3 stored out x in, rows [5]: dense layer w x + b"},

	{"bias by a column of ones", func(s *sketch) node {
		return mul(concat(1, s.input("x", cases, 3), s.input("ones", cases, 1)), s.param("w", 4, 3))
	}, noBias},

	{"as many cases as outputs", behind(3, []int{1, 3}, func(h, b node) node { return plus(h, b, 0) }),
		"w + b: 4 to 3, rows [3]: dense layer x w + b"},

	{"as many cases as outputs, one number for each case", behind(3, []int{3, 1}, func(h, b node) node {
		return plus(h, b, 1)
	}), `
w: 4 to 3, rows [3]: dense layer x w
b is no weight: used by +, which is no matrix product`},

	{"a number for each case and output", behind(cases, []int{cases, 3}, add),
		noBias + "b is no weight: used by +, which is no matrix product"},

	{"one number for all", behind(cases, []int{1, 1}, func(h, b node) node { return plus(h, b, 0, 1) }),
		noBias + "b: offset: one number that is added or subtracted"},

	{"outer sum in a batch of one", behind(1, []int{3, 1}, func(h, b node) node {
		return reshape(tanh(must(gorgonia.BroadcastAdd(h, b, []byte{0}, []byte{1}))), 1, 9)
	}), "w: 4 to 3, rows [1]: dense layer x w\nb: offset, element by element"},

	{"bias subtracted", behind(cases, []int{1, 3}, func(h, b node) node {
		return must(gorgonia.BroadcastSub(h, b, nil, []byte{0}))
	}), noBias + "b: offset, element by element"},

	{"bias added twice", behind(cases, []int{1, 3}, func(h, b node) node {
		return plus(tanh(plus(h, b, 0)), b, 0)
	}), noBias + "b: offset, element by element"},

	{"bias used elsewhere", behind(cases, []int{1, 3}, func(h, b node) node {
		return times(plus(h, b, 0), tanh(b), 0)
	}), noBias + "b is no weight: used by +, which is no matrix product"},

	{"product used beside the bias", behind(cases, []int{1, 3}, func(h, b node) node {
		return hadamard(plus(h, b, 0), sigmoid(h))
	}), noBias + "b: offset, element by element"},

	{"function of a bias", behind(cases, []int{1, 3}, func(h, b node) node {
		return plus(h, tanh(b), 0)
	}), noBias + "b is no weight: used by tanh, which is no matrix product"},

	{"bias shared by two layers", func(s *sketch) node {
		w, v, b := s.param("w", 4, 3), s.param("v", 3, 3), s.param("b", 1, 3)
		return plus(mul(tanh(plus(mul(s.input("x", cases, 4), w), b, 0)), v), b, 0)
	}, noBias + "v: 3 to 3, rows [5]: dense layer x w\nb: offset, element by element"},

	{"bias of a sum of two layers", func(s *sketch) node {
		w, v, b := s.param("w", 4, 3), s.param("v", 2, 3), s.param("b", 1, 3)
		return plus(add(mul(s.input("x", cases, 4), w), mul(s.input("y", cases, 2), v)), b, 0)
	}, `
w + b: 4 to 3, rows [5]: dense layer x w + b
v: 2 to 3, rows [5]: dense layer x w`},

	{"frozen bias", func(s *sketch) node {
		return plus(mul(s.input("x", cases, 4), s.param("w", 4, 3)), s.input("b", 1, 3), 0)
	}, noBias},

	{"frozen weight", func(s *sketch) node {
		return plus(mul(s.input("x", cases, 4), s.input("w", 4, 3)), s.param("b", 1, 3), 0)
	}, "b: offset, element by element"},
}

func TestBias(t *testing.T) { checkWirings(t, biasWirings) }

// A product that is a declared output itself has a gradient of its own.
// The bias behind it has not.
func TestBiasOfAnOutput(t *testing.T) {
	s := &sketch{graph: gorgonia.NewGraph()}
	z := mul(s.input("x", cases, 4), s.param("w", 4, 3))
	m := find(t, s, z, plus(z, s.param("b", 1, 3), 0))
	if got, want := m.lines(), noBias+"b: offset, element by element"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Two outputs with losses of their own are two uses of one layer.
func TestTwoOutputs(t *testing.T) {
	s := &sketch{graph: gorgonia.NewGraph()}
	w, b := s.param("w", 4, 3), s.param("b", 1, 3)
	tower := func(name string) node { return plus(mul(s.input(name, cases, 4), w), b, 0) }
	m := find(t, s, tower("x"), tower("y"))
	if got, want := m.lines(), "w + b: 4 to 3, rows [5 5]: dense layer x w + b, used 2 times"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
