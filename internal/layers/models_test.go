package layers_test

import (
	"fmt"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/layers"
)

// attend mixes the positions of (cases, steps, width) by q, k, v, which are of that shape too.
func attend(q, k, v node) node {
	scores := must(gorgonia.Mul(batched(q, k, false, true), gorgonia.NewConstant(0.5)))
	return batched(must(gorgonia.SoftMax(scores, 2)), v)
}

// models are networks as people write them, with the lines of their layers: block and description.
var models = []wiring{
	{"autoencoder", func(s *sketch) node {
		h := s.input("x", cases, 8)
		for i, out := range []int{20, 10, 20} {
			h = tanh(s.dense(fmt.Sprint(i), h, out))
		}
		return s.dense("3", h, 8)
	}, `
[w0: A 9, G 20] dense layer x w + b0
[w1: A 21, G 10] dense layer x w + b1
[w2: A 11, G 20] dense layer x w + b2
[w3: A 21, G 8] dense layer x w + b3`},

	{"convolutions, one without bias, layer normalisation", func(s *sketch) node {
		h := convolve(s.input("x", cases, 3, 8, 8), s.param("filter1", 8, 3, 3, 3), 1, 2)
		h = convolve(tanh(plus(h, s.param("b1", 1, 8, 1, 1), 0, 2, 3)), s.param("filter2", 16, 8, 3, 3), 1, 2)
		rows := normalised(reshape(transpose(h, 0, 2, 3, 1), cases*4, 16))
		h = tanh(s.scaled(rows, []int{1, 16}, 0))
		return s.dense("4", tanh(s.dense("3", reshape(h, cases, 64), 16)), 10)
	}, `
[filter1: A 28, G 8] convolution 3x3, stride 2, padding 1, x * w + b1, 16 positions per case
[filter2: A 72, G 16] convolution 3x3, stride 2, padding 1, x * w, 4 positions per case
[w3: A 65, G 16] dense layer x w + b3
[w4: A 17, G 10] dense layer x w + b4
scale and shift: scale and shift of a normalisation, per channel`},

	{"recurrent net with an output at each of 7 steps", func(s *sketch) node {
		w, u, b := s.param("w", 13, 20), s.param("u", 20, 20), s.param("b", 1, 20)
		v, c := s.param("v", 20, 2), s.param("c", 1, 2)
		h := s.input("h", cases, 20)
		var outs gorgonia.Nodes
		for i := range 7 {
			h = tanh(plus(add(mul(s.input(fmt.Sprint("x", i), cases, 13), w), mul(h, u)), b, 0))
			outs = append(outs, plus(mul(h, v), c, 0))
		}
		return concat(1, outs...)
	}, `
[w: A 14, G 20] dense layer x w + b, used 7 times
[u: A 20, G 20] recurrent weight h w, 7 time steps
[v: A 21, G 2] dense layer x w + c, used 7 times`},

	{"recurrent net of 28 rows of an image", func(s *sketch) node {
		w, u, b := s.param("w", 4, 6), s.param("u", 6, 6), s.param("b", 1, 6)
		image, h := s.input("x", cases, 28*4), s.input("h", cases, 6)
		for i := range 28 {
			h = tanh(plus(add(mul(columns(image, 4*i, 4*i+4), w), mul(h, u)), b, 0))
		}
		return s.dense("2", h, 3)
	}, `
[w: A 5, G 6] dense layer x w + b, used 28 times
[u: A 6, G 6] recurrent weight h w, 28 time steps
[w2: A 7, G 3] dense layer x w + b2`},

	{"GRU", func(s *sketch) node {
		gate := func(name string) func(x, h node) node {
			w, u, b := s.param("w"+name, 3, 4), s.param("u"+name, 4, 4), s.param("b"+name, 1, 4)
			return func(x, h node) node { return plus(add(mul(x, w), mul(h, u)), b, 0) }
		}
		r, z, n := gate("r"), gate("z"), gate("n")
		h := s.input("h", cases, 4)
		for i := range 3 {
			x := s.input(fmt.Sprint("x", i), cases, 3)
			fresh := tanh(n(x, hadamard(sigmoid(r(x, h)), h)))
			h = add(fresh, hadamard(sigmoid(z(x, h)), sub(h, fresh)))
		}
		return s.weighted("v", h, 3)
	}, `
[wr: A 4, G 4] dense layer x w + br, used 3 times
[ur: A 4, G 4] recurrent weight h w, 3 time steps
[wz: A 4, G 4] dense layer x w + bz, used 3 times
[uz: A 4, G 4] recurrent weight h w, 3 time steps
[wn: A 4, G 4] dense layer x w + bn, used 3 times
[un: A 4, G 4] recurrent weight h w, 3 time steps
[v: A 4, G 3] dense layer x w`},

	{"LSTM of joined inputs and sliced gates", func(s *sketch) node {
		const hidden = 3
		w, b := s.param("w", 2+hidden, 4*hidden), s.param("b", 1, 4*hidden)
		h, c := s.input("h", cases, hidden), s.input("c", cases, hidden)
		for i := range 3 {
			gates := plus(mul(concat(1, s.input(fmt.Sprint("x", i), cases, 2), h), w), b, 0)
			part := func(k int) node { return columns(gates, k*hidden, (k+1)*hidden) }
			c = add(hadamard(sigmoid(part(0)), c), hadamard(sigmoid(part(1)), tanh(part(2))))
			h = hadamard(sigmoid(part(3)), tanh(c))
		}
		return s.dense("2", h, 2)
	}, `
[w: A 6, G 12] recurrent weight h w + b, 3 time steps
[w2: A 4, G 2] dense layer x w + b2`},

	{"self-attention of folded sequences", func(s *sketch) node {
		project := func(name string, x node, out int) node {
			return folded(x, s.param("w"+name, x.Shape()[2], out), s.param("b"+name, 1, out))
		}
		x := s.sequence()
		h := add(x, project("o", attend(project("q", x, 3), project("k", x, 3), project("v", x, 3)), 3))
		h = add(h, project("2", rectify(project("1", h, 5)), 3))
		return s.dense("3", meanOver(h, 1), 2)
	}, `
[wq: A 4, G 3] dense layer x w + bq, 4 positions per case
[wk: A 4, G 3] dense layer x w + bk, 4 positions per case
[wv: A 4, G 3] dense layer x w + bv, 4 positions per case
[wo: A 4, G 3] dense layer x w + bo, 4 positions per case, reduced
[w1: A 4, G 5] dense layer x w + b1, 4 positions per case, reduced
[w2: A 6, G 3] dense layer x w + b2, 4 positions per case, reduced
[w3: A 4, G 2] dense layer x w + b3`},

	{"self-attention of sequences not folded", func(s *sketch) node {
		x := s.sequence()
		project := func(name string, x node, out int) node { return rowsTimes(x, s.param(name, 3, out)) }
		h := attend(project("wq", x, 3), project("wk", x, 3), project("wv", x, 3))
		h = tanh(plus(project("wo", h, 2), s.param("bo", 1, 1, 2), 0, 1))
		return reshape(h, cases, steps*2)
	}, `
[wq: A 3, G 3] dense layer x w, 4 positions per case
[wk: A 3, G 3] dense layer x w, 4 positions per case
[wv: A 3, G 3] dense layer x w, 4 positions per case
[wo: A 4, G 2] dense layer x w + bo, 4 positions per case`},

	{"siamese net", func(s *sketch) node {
		w, b, u := s.param("w", 4, 3), s.param("b", 1, 3), s.param("u", 3, 3)
		twin := func(name string) node { return mul(tanh(plus(mul(s.input(name, cases, 4), w), b, 0)), u) }
		return s.dense("2", square(sub(twin("left"), twin("right"))), 1)
	}, `
[w: A 5, G 3] dense layer x w + b, used 2 times
[u: A 3, G 3] dense layer x w, used 2 times
[w2: A 4, G 1] dense layer x w + b2`},

	{"policy and value with a shared trunk", func(s *sketch) node {
		h := tanh(s.dense("1", s.input("x", cases, 4), 5))
		return concat(1, s.dense("policy", h, 3), s.dense("value", h, 1))
	}, `
[w1: A 5, G 5] dense layer x w + b1
[wpolicy: A 6, G 3] dense layer x w + bpolicy
[wvalue: A 6, G 1] dense layer x w + bvalue`},

	{"residual block with batch normalisation and global average", func(s *sketch) node {
		norm := func(name string, h node) node {
			return batchNorm(h, s.param("scale"+name, 1, 4, 1, 1), s.param("shift"+name, 1, 4, 1, 1))
		}
		x := convolve(s.input("x", cases, 2, 4, 4), s.param("filter0", 4, 2, 3, 3), 1, 1)
		h := rectify(norm("1", convolve(x, s.param("filter1", 4, 4, 3, 3), 1, 1)))
		h = norm("2", convolve(h, s.param("filter2", 4, 4, 3, 3), 1, 1))
		return s.dense("3", reshape(globalAverage(rectify(add(x, h))), cases, 4), 3)
	}, `
[filter0: A 18, G 4] convolution 3x3, stride 1, padding 1, x * w, 16 positions per case
[filter1: A 36, G 4] convolution 3x3, stride 1, padding 1, x * w, 16 positions per case
[filter2: A 36, G 4] convolution 3x3, stride 1, padding 1, x * w, 16 positions per case
[w3: A 5, G 3] dense layer x w + b3
scale1 and shift1: scale and shift of a normalisation, per channel
scale2 and shift2: scale and shift of a normalisation, per channel`},

	{"words, a hidden layer, words by the same table", func(s *sketch) node {
		table := s.param("table", 9, 4)
		h := tanh(s.dense("1", reshape(lookup(table, s.words("words", cases*2)), cases, 8), 4))
		return plus(mul(h, transpose(table)), s.param("bias", 1, 9), 0)
	}, `
[table: diagonal A 9, G 4] ` +
		`tied weight: embedding lookup, 9 rows, 2 positions per case, and its transpose: dense layer x w^T
[w1: A 9, G 4] dense layer x w + b1
bias: offset, element by element`},

	{"learned temperature behind a classifier", func(s *sketch) node {
		h := s.dense("2", tanh(s.dense("1", s.input("x", cases, 4), 5)), 3)
		return times(h, s.param("temperature", 1, 1), 0, 1)
	}, `
[w1: A 5, G 5] dense layer x w + b1
[w2: A 6, G 3] dense layer x w + b2
temperature: temperature: one number that multiplies`},

	{"autoencoder of vectors, its decoder's weight transposed", func(s *sketch) node {
		h := tanh(add(mul(s.param("w", 3, 6), s.input("x", 6)), s.param("b", 3)))
		return add(mul(transpose(s.param("v", 3, 6)), h), s.param("c", 6))
	}, `
[w: A 7, G 3] dense layer w x + b
[v: A 4, G 6] dense layer w^T x + c`},
}

func TestModels(t *testing.T) {
	for _, w := range models {
		t.Run(w.name, func(t *testing.T) {
			m, _ := build(t, w.out)
			m.approximate(layers.Approximation{MaxDim: 100})
			var lines []string
			for _, l := range m.layers {
				lines = append(lines, fmt.Sprintf("[%s] %s", l.Block(), l.Describe(m.program.Cases)))
				if want := "homogeneous coordinate of " + l.Name(); l.DescribeBias() != want {
					t.Errorf("bias described as %q, want %q", l.DescribeBias(), want)
				}
			}
			for _, e := range m.elementwise(true) {
				lines = append(lines, e.Name()+": "+e.Describe())
			}
			if got, want := strings.Join(lines, "\n"), strings.TrimSpace(w.want); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
