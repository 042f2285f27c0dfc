package layers_test

import (
	"testing"

	"gorgonia.org/gorgonia"
)

// rowsFrom are the rows of a from one on, up to another.
func rowsFrom(a node, from, to int) node { return must(gorgonia.Slice(a, gorgonia.S(from, to))) }

// gate is x times columns of w, plus elements of b.
func gate(x, w, b node, from, to int) node {
	return plus(mul(x, columns(w, from, to)), rowsFrom(b, from, to), 0)
}

var partWirings = []wiring{
	{"gates of one parameter", func(s *sketch) node {
		x, w, b := s.input("x", cases, 4), s.param("w", 4, 5), s.param("b", 5)
		return concat(1, tanh(gate(x, w, b, 0, 3)), sigmoid(gate(x, w, b, 3, 5)))
	}, `
w[:, 0:3] + b[0:3]: 4 to 3, rows [5]: dense layer x w + b[0:3]
w[:, 3:5] + b[3:5]: 4 to 2, rows [5]: dense layer x w + b[3:5]`},

	{"gates of one parameter, unrolled", func(s *sketch) node {
		w, b, h := s.param("w", 2, 4), s.param("b", 4), s.input("h", cases, 2)
		for range 3 {
			h = hadamard(tanh(gate(h, w, b, 0, 2)), sigmoid(gate(h, w, b, 2, 4)))
		}
		return h
	}, `
w[:, 0:2] + b[0:2]: 2 to 2, rows [5 5 5]: recurrent weight h w + b[0:2], 3 time steps
w[:, 2:4] + b[2:4]: 2 to 2, rows [5 5 5]: recurrent weight h w + b[2:4], 3 time steps`},

	{"rows for two inputs", func(s *sketch) node {
		w := s.param("w", 6, 3)
		return add(mul(s.input("x", cases, 4), rowsFrom(w, 0, 4)), mul(s.input("h", cases, 2), rowsFrom(w, 4, 6)))
	}, `
w[0:4]: 4 to 3, rows [5]: dense layer x w
w[4:6]: 2 to 3, rows [5]: dense layer x w`},

	{"one slice used twice, another not at all", func(s *sketch) node {
		w, x := s.param("w", 4, 5), s.input("x", cases, 4)
		return add(mul(x, columns(w, 0, 3)), mul(tanh(x), columns(w, 0, 3)))
	}, `
w[:, 0:3]: 4 to 3, rows [5 5]: dense layer x w, used 2 times
w at [3 4 8 9 13 14 18 19] is no weight: the outputs do not depend on them`},

	{"a slice that takes all", func(s *sketch) node {
		return mul(s.input("x", cases, 4), columns(s.param("w", 4, 3), 0, 3))
	}, "w: 4 to 3, rows [5]: dense layer x w"},

	{"every second row", func(s *sketch) node {
		return mul(s.input("x", cases, 2), must(gorgonia.Slice(s.param("w", 4, 3), gorgonia.S(0, 4, 2))))
	}, `
w[0:4:2]: 2 to 3, rows [5]: dense layer x w
w at [3 4 5 9 10 11] is no weight: the outputs do not depend on them`},

	{"a matrix of a tensor", func(s *sketch) node {
		w := s.param("w", 2, 4, 3)
		return mul(s.input("x", cases, 4), must(gorgonia.Slice(w, gorgonia.S(1))))
	}, `
w[1]: 4 to 3, rows [5]: dense layer x w
w at [0 1 2 3 4 5 6 7 8 9 10 11] is no weight: the outputs do not depend on them`},

	{"all weights in one vector", func(s *sketch) node {
		theta := s.param("theta", 21)
		w1, b1 := reshape(rowsFrom(theta, 0, 12), 4, 3), rowsFrom(theta, 12, 15)
		w2 := reshape(rowsFrom(theta, 15, 21), 2, 3)
		return mul(tanh(plus(mul(s.input("x", cases, 4), w1), b1, 0)), transpose(w2))
	}, `
theta[0:12] + theta[12:15]: 4 to 3, rows [5]: dense layer x w + theta[12:15]
theta[15:21]: 3 to 2 stored out x in, rows [5]: dense layer x w^T`},

	{"a scale in the vector of all weights", func(s *sketch) node {
		theta := s.param("theta", 9)
		x := times(s.input("x", cases, 3), reshape(rowsFrom(theta, 6, 9), 1, 3), 0)
		return mul(x, reshape(rowsFrom(theta, 0, 6), 3, 2))
	}, `
theta[0:6]: 3 to 2, rows [5]: dense layer x w
theta at [6 7 8] is no weight: used by ⊙, which is no matrix product`},

	{"slices that overlap", func(s *sketch) node {
		w, x := s.param("w", 4, 5), s.input("x", cases, 4)
		return add(mul(x, columns(w, 0, 3)), mul(tanh(x), columns(w, 2, 5)))
	}, "w is no weight: its uses read parts of it that overlap"},

	{"a slice of what is also used whole", func(s *sketch) node {
		w, x := s.param("w", 4, 4), s.input("x", cases, 4)
		return concat(1, mul(x, columns(w, 0, 3)), mul(x, w))
	}, "w is no weight: its uses read parts of it that overlap"},

	{"a slice of what is also used otherwise", func(s *sketch) node {
		w := s.param("w", 4, 3)
		return plus(mul(s.input("x", cases, 4), columns(w, 0, 2)), rowsFrom(tanh(sumOver(w, 0)), 0, 2), 0)
	}, "w is no weight: used by Sum[0], which is no matrix product"},

	{"slices of two parameters", func(s *sketch) node {
		w := mul(rowsFrom(s.param("u", 6, 2), 0, 4), columns(s.param("v", 2, 5), 0, 3))
		return mul(s.input("x", cases, 4), w)
	}, `
u is no weight: multiplied with another parameter ("the slice of a slice")
v is no weight: multiplied with another parameter ("the slice of u")`},

	{"a bias whose slices are added at several places", func(s *sketch) node {
		x, w, b := s.input("x", cases, 4), s.param("w", 4, 3), s.param("b", 6)
		h := plus(mul(x, w), rowsFrom(b, 0, 3), 0)
		return plus(h, tanh(rowsFrom(b, 0, 3)), 0)
	}, `
w: 4 to 3, rows [5]: dense layer x w
b is no weight: used by +, which is no matrix product`},

	{"a stack", func(s *sketch) node {
		return sumOver(batched(s.input("x", 2, cases, 4), s.param("w", 2, 4, 3)), 0)
	}, `
w[0]: 4 to 3, rows [5]: dense layer x w
w[1]: 4 to 3, rows [5]: dense layer x w`},

	{"a stack with a stack of biases", func(s *sketch) node {
		h := plus(batched(s.input("x", 2, cases, 4), s.param("w", 2, 4, 3)), s.param("b", 2, 1, 3), 1)
		return sumOver(tanh(h), 0)
	}, `
w[0] + b[0]: 4 to 3, rows [5]: dense layer x w + b[0]
w[1] + b[1]: 4 to 3, rows [5]: dense layer x w + b[1]`},

	{"a stack with one bias for all", func(s *sketch) node {
		h := plus(batched(s.input("x", 2, cases, 4), s.param("w", 2, 4, 3)), s.param("b", 1, 1, 3), 0, 1)
		return sumOver(tanh(h), 0)
	}, `
w[0]: 4 to 3, rows [5]: dense layer x w
w[1]: 4 to 3, rows [5]: dense layer x w
b: offset, element by element`},

	{"a stack times columns", func(s *sketch) node {
		h := batched(s.param("w", 2, 3, 4), s.input("x", 2, 4, cases))
		return transpose(sumOver(h, 0))
	}, `
w[0]: 4 to 3 stored out x in, rows [5]: dense layer w x
w[1]: 4 to 3 stored out x in, rows [5]: dense layer w x`},

	{"a transposed stack, at several positions", func(s *sketch) node {
		h := batched(s.input("x", 2, cases*2, 4), s.param("w", 2, 3, 4), false, true)
		return reshape(sumOver(tanh(h), 0), cases, 6)
	}, `
w[0]: 4 to 3 stored out x in, rows [10]: dense layer x w^T, 2 positions per case
w[1]: 4 to 3 stored out x in, rows [10]: dense layer x w^T, 2 positions per case`},

	{"a matrix for each case", func(s *sketch) node {
		return reshape(batched(s.input("x", cases, 1, 4), s.param("w", cases, 4, 3)), cases, 3)
	}, "w is no weight: a stack of matrices, one for each case"},

	{"heads: a matrix whose axes are moved to a stack", func(s *sketch) node {
		w := transpose(reshape(s.param("w", 4, 6), 4, 2, 3), 1, 0, 2)
		return sumOver(batched(s.input("x", 2, cases, 4), w), 0)
	}, `
w[0]: 4 to 3, rows [5]: dense layer x w
w[1]: 4 to 3, rows [5]: dense layer x w`},

	{"groups of a convolution", func(s *sketch) node {
		x, w := s.input("x", cases, 4, 6, 6), s.param("w", 6, 2, 3, 3)
		first := convolve(columns(x, 0, 2), rowsFrom(w, 0, 3), 1, 1)
		return globalAverage(concat(1, first, convolve(columns(x, 2, 4), rowsFrom(w, 3, 6), 1, 1)))
	}, `
w[0:3]: 18 to 3 stored out x in, rows [180]: convolution 3x3, stride 1, padding 1, x * w, 36 positions per case
w[3:6]: 18 to 3 stored out x in, rows [180]: convolution 3x3, stride 1, padding 1, x * w, 36 positions per case`},

	{"depthwise convolution", func(s *sketch) node {
		x, w := s.input("x", cases, 2, 6, 6), s.param("w", 2, 1, 3, 3)
		var channels []node
		for i := range 2 {
			one := reshape(columns(x, i, i+1), cases, 1, 6, 6)
			channels = append(channels, convolve(one, reshape(rowsFrom(w, i, i+1), 1, 1, 3, 3), 1, 1))
		}
		return reshape(concat(1, channels...), cases, 72)
	}, `
w[0]: 9 to 1 stored out x in, rows [180]: convolution 3x3, stride 1, padding 1, x * w, 36 positions per case
w[1]: 9 to 1 stored out x in, rows [180]: convolution 3x3, stride 1, padding 1, x * w, 36 positions per case`},

	{"upsampled before a convolution", func(s *sketch) node {
		x := must(gorgonia.Upsample2D(s.input("x", cases, 2, 3, 3), 2))
		return reshape(convolve(x, s.param("w", 3, 2, 3, 3), 1, 1), cases, 108)
	}, "w: 18 to 3 stored out x in, rows [180]: convolution 3x3, stride 1, padding 1, x * w, 36 positions per case"},
}

func TestParts(t *testing.T) { checkWirings(t, partWirings) }

// Parts that were others before are none, and the slice of a bias that was moved is noticed.
func TestMovedSlices(t *testing.T) {
	s := &sketch{graph: gorgonia.NewGraph(), moving: []string{"w"}}
	out := named(partWirings, "rows for two inputs")(s)
	if got, want := find(t, s, out).lines(), "w is no weight: the parts of it that are used change"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	s = &sketch{graph: gorgonia.NewGraph()}
	w := s.param("w", 6, 2)
	part := rowsFrom(w, 0, 4)
	l := find(t, s, mul(s.input("x", cases, 4), part)).layers[0]
	if l.Moved() {
		t.Error("moved before it was")
	}
	for _, from := range []int{1, 0} {
		if err := gorgonia.UnsafeLet(part, gorgonia.S(from, from+4)); err != nil {
			t.Fatal(err)
		}
		if got, want := l.Moved(), from != 0; got != want {
			t.Errorf("moved to %d: %v, want %v", from, got, want)
		}
	}
}
