package layers_test

import (
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

var denseWirings = []wiring{
	{"Mul(x, w)", func(s *sketch) node {
		return mul(s.input("x", cases, 4), s.param("w", 4, 3))
	}, "w: 4 to 3, rows [5]: dense layer x w"},

	{"Mul(x, Transpose(w))", func(s *sketch) node {
		return mul(s.input("x", cases, 4), transpose(s.param("w", 3, 4)))
	}, "w: 4 to 3 stored out x in, rows [5]: dense layer x w^T"},

	{"Mul(Transpose(columns), w)", func(s *sketch) node {
		return mul(transpose(s.input("x", 4, cases)), s.param("w", 4, 3))
	}, "w: 4 to 3, rows [5]: dense layer x w"},

	{"Mul(w, columns)", func(s *sketch) node {
		return transpose(mul(s.param("w", 3, 4), s.input("x", 4, cases)))
	}, "w: 4 to 3 stored out x in, rows [5]: dense layer w x"},

	{"Mul(Transpose(w), columns)", func(s *sketch) node {
		return transpose(mul(transpose(s.param("w", 4, 3)), s.input("x", 4, cases)))
	}, "w: 4 to 3, rows [5]: dense layer w^T x"},

	{"Mul(w, Transpose(x))", func(s *sketch) node {
		return transpose(mul(s.param("w", 3, 4), transpose(s.input("x", cases, 4))))
	}, "w: 4 to 3 stored out x in, rows [5]: dense layer w x"},

	{"Mul(w, vector)", func(s *sketch) node {
		return mul(s.param("w", 3, 4), s.input("x", 4))
	}, "w: 4 to 3 stored out x in, rows [1]: dense layer w x"},

	{"Mul(Transpose(w), vector)", func(s *sketch) node {
		return mul(transpose(s.param("w", 4, 3)), s.input("x", 4))
	}, "w: 4 to 3, rows [1]: dense layer w^T x"},

	{"Mul(Transpose(Transpose(w)), vector)", func(s *sketch) node {
		return mul(transpose(transpose(s.param("w", 3, 4))), s.input("x", 4))
	}, "w: 4 to 3 stored out x in, rows [1]: dense layer w x"},

	{"Mul(Transpose(w), vector), reshaped, with a bias", func(s *sketch) node {
		w, b := s.param("w", 12), s.param("b", 3)
		return tanh(add(mul(transpose(reshape(w, 4, 3)), s.input("x", 4)), b))
	}, "w + b: 4 to 3, rows [1]: dense layer w^T x + b"},

	{"Mul(vector, w)", func(s *sketch) node {
		return mul(s.input("x", 4), s.param("w", 4, 3))
	}, "w: 4 to 3, rows [1]: dense layer x w"},

	{"Mul(vector, Transpose(w))", func(s *sketch) node {
		return mul(s.input("x", 4), transpose(s.param("w", 3, 4)))
	}, "w: 4 to 3 stored out x in, rows [1]: dense layer x w^T"},

	{"axes of a tensor moved before a vector", func(s *sketch) node {
		w := transpose(s.param("w", 3, 2, 2), 2, 1, 0)
		return mul(reshape(w, 4, 3), s.input("x", 3))
	}, "w: 3 to 4 stored out x in, rows [1]: dense layer w x"},

	{"transpose that is used otherwise", func(s *sketch) node {
		w := transpose(s.param("w", 3, 4))
		return add(mul(w, s.input("x", 3)), reshape(sumOver(tanh(w), 1), 4))
	}, "w is no weight: used by tanh, which is no matrix product"},

	{"weight reshaped from a vector", func(s *sketch) node {
		return mul(s.input("x", cases, 4), reshape(s.param("w", 12), 4, 3))
	}, "w: 4 to 3, rows [5]: dense layer x w"},

	{"weight reshaped twice and transposed", func(s *sketch) node {
		return mul(s.input("x", cases, 4), transpose(reshape(reshape(s.param("w", 3, 2, 2), 12), 3, 4)))
	}, "w: 4 to 3 stored out x in, rows [5]: dense layer x w^T"},

	{"positions folded into rows", func(s *sketch) node {
		w, b := s.param("w", 4, 3), s.param("b", 3)
		return reshape(tanh(folded(s.input("x", cases, 2, 4), w, b)), cases, 6)
	}, "w + b: 4 to 3, rows [10]: dense layer x w + b, 2 positions per case"},

	{"two layers", func(s *sketch) node {
		w, b, v := s.param("w", 4, 3), s.param("b", 1, 3), s.param("v", 2, 3)
		return mul(tanh(plus(mul(s.input("x", cases, 4), w), b, 0)), transpose(v))
	}, `
w + b: 4 to 3, rows [5]: dense layer x w + b
v: 3 to 2 stored out x in, rows [5]: dense layer x w^T`},

	{"one input, one output", func(s *sketch) node {
		return s.dense("", s.input("x", cases, 1), 1)
	}, "w + b: 1 to 1, rows [5]: dense layer x w + b"},

	{"one number for each case", func(s *sketch) node {
		s.vectorCases = true
		return mul(s.input("x", cases, 4), s.param("theta", 4))
	}, "theta: 4 to 1, rows [5]: dense layer x w"},

	{"one number for a single case", func(s *sketch) node {
		return mul(s.param("theta", 4), s.input("x", 4))
	}, "theta: 4 to 1, rows [1]: dense layer x w"},

	{"batched product with a stack of one matrix", func(s *sketch) node {
		w, b := s.param("w", 1, 4, 3), s.param("b", 3)
		h := reshape(batched(s.input("x", 1, cases*2, 4), w), cases*2, 3)
		return reshape(tanh(plus(h, b, 0)), cases, 6)
	}, "w + b: 4 to 3, rows [10]: dense layer x w + b, 2 positions per case"},

	{"contraction", func(s *sketch) node {
		w, b := s.param("w", 2, 2, 3), s.param("b", 1, 3)
		return plus(must(gorgonia.Tensordot([]int{1, 2}, []int{0, 1}, s.input("x", cases, 2, 2), w)), b, 0)
	}, "w + b: 4 to 3, rows [5]: dense layer x w + b"},

	{"contraction of the weight's last axis", func(s *sketch) node {
		return must(gorgonia.Tensordot([]int{1}, []int{1}, s.input("x", cases, 4), s.param("w", 3, 4)))
	}, "w: 4 to 3 stored out x in, rows [5]: dense layer x w^T"},

	{"contraction of a middle axis", func(s *sketch) node {
		return must(gorgonia.Tensordot([]int{1}, []int{1}, s.input("x", cases, 4), s.param("w", 2, 4, 3)))
	}, "w is no weight: contracted along axes that are neither the first nor the last"},

	{"weight in a product and elsewhere", func(s *sketch) node {
		w, x := s.param("w", 4, 3), s.input("x", cases, 4)
		return add(mul(x, w), mul(x, tanh(w)))
	}, "w is no weight: used by tanh, which is no matrix product"},

	{"product of two parameters", func(s *sketch) node {
		return mul(s.input("x", cases, 4), mul(s.param("w", 4, 2), s.param("v", 2, 3)))
	}, `
w is no weight: multiplied with another parameter ("v")
v is no weight: multiplied with another parameter ("w")`},

	{"input that is the same for all cases", func(s *sketch) node {
		w, v := s.param("w", 4, 3), s.param("v", 2, 3)
		return plus(mul(s.input("x", cases, 4), w), mul(s.input("context", 1, 2), v), 0)
	}, `
w: 4 to 3, rows [5]: dense layer x w
v is no weight: its product does not depend on the cases`},

	{"rows of a parameter for cases", func(s *sketch) node {
		return mul(s.param("mix", cases, 4), s.input("basis", 4, 3))
	}, "mix is no weight: its product has the cases where its outputs should be"},

	{"slice of a weight", func(s *sketch) node {
		w := must(gorgonia.Slice(s.param("w", 6, 3), gorgonia.S(1, 5), nil))
		return mul(s.input("x", cases, 4), w)
	}, `
w[1:5]: 4 to 3, rows [5]: dense layer x w
w at [0 1 2 15 16 17] is no weight: the outputs do not depend on them`},

	{"matrices of different shapes", func(s *sketch) node {
		w, x := s.param("w", 12), s.input("x", cases, 4)
		return concat(1, mul(x, reshape(w, 4, 3)), mul(s.input("y", cases, 2), reshape(w, 2, 6)))
	}, "w is no weight: its 2 uses read it as matrices of different shapes"},
}

func TestDense(t *testing.T) { checkWirings(t, denseWirings) }

// Parameters without names are told by their shapes.
func TestUnnamed(t *testing.T) {
	m, _ := build(t, func(s *sketch) node {
		h := plus(mul(s.input("x", cases, 4), s.unnamed(4, 3)), s.unnamed(1, 3), 0)
		gain := gorgonia.NewScalar(s.graph, tensor.Float64)
		s.params = append(s.params, gain)
		return must(gorgonia.Mul(tanh(h), gain))
	})
	l := m.layers[0]
	if got, want := l.Describe(cases), "dense layer x w + unnamed (1, 3)"; got != want {
		t.Errorf("described as %q, want %q", got, want)
	}
	if got, want := l.Block(), "unnamed (4, 3): A 5, G 3"; got != want {
		t.Errorf("block %q, want %q", got, want)
	}
	if got, want := l.DescribeBias(), "homogeneous coordinate of unnamed (4, 3)"; got != want {
		t.Errorf("bias described as %q, want %q", got, want)
	}
	if got, want := m.elementwise(true)[0].Name(), "unnamed scalar"; got != want {
		t.Errorf("scale named %q, want %q", got, want)
	}
}
