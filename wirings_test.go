package kfac

import (
	"fmt"
	"hash"
	"slices"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A wiring is one way to write a model, with what is to be made of it.
type wiring struct {
	name   string
	build  func(s *testnet.Sketch) (out *gorgonia.Node, params gorgonia.Nodes)
	loss   testnet.Likelihood // least squares if nil
	layers []wantLayer
	others []wantOther
	noGrad bool // Gorgonia can't differentiate it
}

// wantLayer is what matters of a layer. Rows are those of all its sites together.
type wantLayer struct {
	Weight, Bias string
	In, Out      int
	OutByIn      bool
	Sites, Rows  int
	Form         string // the reason that the plan gives
}

// wantOther is a parameter outside layers. Reason is a part of the plan's.
type wantOther struct {
	Name      string
	Treatment Treatment
	Reason    string
}

const cases = testnet.Cases // of the wirings' batches

// Short names, for nets that are written out.
var (
	mul       = testnet.Mul
	add       = testnet.Add
	hadamard  = testnet.Hadamard
	transpose = testnet.Transpose
	reshape   = testnet.Reshape
	addRow    = testnet.AddRow
	timesRow  = testnet.TimesRow
	addColumn = testnet.AddColumn
	tanh      = testnet.Tanh
	sigmoid   = testnet.Sigmoid
	rectify   = testnet.Rectify
	softMax   = testnet.SoftMax
	concat    = testnet.Concat
	convolve  = testnet.Convolve
)

func list(nodes ...*gorgonia.Node) gorgonia.Nodes { return nodes }

// dense is the layer that most of the wirings hold.
func dense(bias, form string) wantLayer {
	return wantLayer{Weight: "w", Bias: bias, In: 4, Out: 3, Sites: 1, Rows: cases, Form: "dense layer " + form}
}

// outByIn is l with its weight stored the other way round.
func (l wantLayer) outByIn() wantLayer { l.OutByIn = true; return l }

// used is l with other uses.
func (l wantLayer) used(sites, rows int) wantLayer { l.Sites, l.Rows = sites, rows; return l }

var wirings = slices.Concat(oneLayerWirings, biasWirings, sharingWirings, otherWirings, partWirings)

var oneLayerWirings = []wiring{
	{name: "Mul(x, w)", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 4, 3)
		return mul(s.Random("x", cases, 4), w), list(w)
	}, layers: []wantLayer{dense("", "x w")}},

	{name: "Mul(x, Transpose(w))", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 3, 4)
		return mul(s.Random("x", cases, 4), transpose(w)), list(w)
	}, layers: []wantLayer{dense("", "x w^T").outByIn()}},

	{name: "Mul(Transpose(columns), w)", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 4, 3)
		return mul(transpose(s.Random("x", 4, cases)), w), list(w)
	}, layers: []wantLayer{dense("", "x w")}},

	{name: "Mul(w, columns)", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 3, 4)
		return transpose(mul(w, s.Random("x", 4, cases))), list(w)
	}, layers: []wantLayer{dense("", "w x").outByIn()}},

	{name: "Mul(Transpose(w), columns)", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 4, 3)
		return transpose(mul(transpose(w), s.Random("x", 4, cases))), list(w)
	}, layers: []wantLayer{dense("", "w^T x")}},

	{name: "Mul(w, Transpose(x))", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 3, 4)
		return transpose(mul(w, transpose(s.Random("x", cases, 4)))), list(w)
	}, layers: []wantLayer{dense("", "w x").outByIn()}},

	{name: "Mul(w, vector)", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 3, 4)
		return mul(w, s.Random("x", 4)), list(w)
	}, layers: []wantLayer{dense("", "w x").outByIn().used(1, 1)}},

	{name: "Mul(vector, w)", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 4, 3)
		return mul(s.Random("x", 4), w), list(w)
	}, layers: []wantLayer{dense("", "x w").used(1, 1)}},

	{name: "weight reshaped from a vector", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 12)
		return mul(s.Random("x", cases, 4), reshape(w, 4, 3)), list(w)
	}, layers: []wantLayer{dense("", "x w")}},

	{name: "weight reshaped twice and transposed", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 3, 2, 2)
		return mul(s.Random("x", cases, 4), transpose(reshape(reshape(w, 12), 3, 4))), list(w)
	}, layers: []wantLayer{dense("", "x w^T").outByIn()}},

	{name: "positions folded into rows", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 3)
		h := addRow(mul(reshape(s.Random("x", cases, 2, 4), cases*2, 4), w), b)
		return reshape(tanh(h), cases, 6), list(w, b)
	}, layers: []wantLayer{dense("b", "x w + b, 2 positions per case").used(1, 2*cases)}},

	{name: "two layers and classes", loss: testnet.Classes,
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			w, b, v := s.Random("w", 4, 3), s.Random("b", 1, 3), s.Random("v", 2, 3)
			return mul(tanh(addRow(mul(s.Random("x", cases, 4), w), b)), transpose(v)), list(w, b, v)
		}, layers: []wantLayer{
			dense("b", "x w + b"),
			{Weight: "v", In: 3, Out: 2, OutByIn: true, Sites: 1, Rows: cases, Form: "dense layer x w^T"},
		}},

	{name: "one input, one output", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 1, 1), s.Random("b", 1, 1)
		return addRow(mul(s.Random("x", cases, 1), w), b), list(w, b)
	}, layers: []wantLayer{{Weight: "w", Bias: "b", In: 1, Out: 1, Sites: 1, Rows: cases,
		Form: "dense layer x w + b"}}},
}

var biasWirings = []wiring{
	{name: "bias (out)", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 3)
		return addRow(mul(s.Random("x", cases, 4), w), b), list(w, b)
	}, layers: []wantLayer{dense("b", "x w + b")}},

	{name: "bias (1, out)", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
		return addRow(mul(s.Random("x", cases, 4), w), b), list(b, w) // the order of the list does not matter
	}, layers: []wantLayer{dense("b", "x w + b")}},

	{name: "bias first", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
		return gorgonia.Must(gorgonia.BroadcastAdd(b, mul(s.Random("x", cases, 4), w), []byte{0}, nil)), list(w, b)
	}, layers: []wantLayer{dense("b", "x w + b")}},

	{name: "bias reshaped by the user", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 3)
		return addRow(mul(s.Random("x", cases, 4), w), reshape(b, 1, 3)), list(w, b)
	}, layers: []wantLayer{dense("b", "x w + b")}},

	{name: "bias with a transposed weight", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 3, 4), s.Random("b", 1, 3)
		return addRow(mul(s.Random("x", cases, 4), transpose(w)), b), list(w, b)
	}, layers: []wantLayer{dense("b", "x w^T + b").outByIn()}},

	{name: "Add in a batch of one", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
		return add(mul(s.Random("x", 1, 4), w), b), list(w, b)
	}, layers: []wantLayer{dense("b", "x w + b").used(1, 1)}},

	{name: "BroadcastAdd in a batch of one", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 3)
		return addRow(mul(s.Random("x", 1, 4), w), b), list(w, b)
	}, layers: []wantLayer{dense("b", "x w + b").used(1, 1)}},

	{name: "bias of a vector", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 3, 4), s.Random("b", 3)
		return add(mul(w, s.Random("x", 4)), b), list(w, b)
	}, layers: []wantLayer{dense("b", "w x + b").outByIn().used(1, 1)}},

	{name: "bias of columns", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 3, 4), s.Random("b", 3, 1)
		return transpose(addColumn(mul(w, s.Random("x", 4, cases)), b)), list(w, b)
	}, layers: []wantLayer{dense("b", "w x + b").outByIn()}},

	{name: "bias by a column of ones", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 4, 3)
		return mul(gorgonia.Must(gorgonia.Concat(1, s.Random("x", cases, 3), s.Ones("ones", cases, 1))), w), list(w)
	}, layers: []wantLayer{dense("", "x w")}},

	{name: "as many cases as outputs", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
		return addRow(mul(s.Random("x", 3, 4), w), b), list(w, b)
	}, layers: []wantLayer{dense("b", "x w + b").used(1, 3)}},

	{name: "as many cases as outputs, one number for each case",
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			w, b := s.Random("w", 4, 3), s.Random("b", 3, 1)
			return addColumn(mul(s.Random("x", 3, 4), w), b), list(w, b)
		}, layers: []wantLayer{dense("", "x w").used(1, 3)},
		others: []wantOther{{"b", Diagonal, "used by +, which is no matrix product"}}},

	{name: "a number for each case and output", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", cases, 3)
		return add(mul(s.Random("x", cases, 4), w), b), list(w, b)
	}, layers: []wantLayer{dense("", "x w")}, others: []wantOther{{"b", Diagonal, "used by +"}}},

	{name: "one number for all", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 1)
		return gorgonia.Must(gorgonia.BroadcastAdd(mul(s.Random("x", cases, 4), w), b, nil, []byte{0, 1})), list(w, b)
	}, layers: []wantLayer{dense("", "x w")},
		others: []wantOther{{"b", Full, "offset: one number that is added or subtracted"}}},

	{name: "outer sum in a batch of one", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 3, 1)
		h := gorgonia.Must(gorgonia.BroadcastAdd(mul(s.Random("x", 1, 4), w), b, []byte{0}, []byte{1}))
		return reshape(tanh(h), 1, 9), list(w, b)
	}, layers: []wantLayer{dense("", "x w").used(1, 1)},
		others: []wantOther{{"b", Full, "offset, element by element"}}},

	{name: "bias subtracted", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
		return gorgonia.Must(gorgonia.BroadcastSub(mul(s.Random("x", cases, 4), w), b, nil, []byte{0})), list(w, b)
	}, layers: []wantLayer{dense("", "x w")}, others: []wantOther{{"b", Full, "offset, element by element"}}},

	{name: "bias added twice", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
		return addRow(tanh(addRow(mul(s.Random("x", cases, 4), w), b)), b), list(w, b)
	}, layers: []wantLayer{dense("", "x w")}, others: []wantOther{{"b", Full, "offset, element by element"}}},

	{name: "bias used elsewhere", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
		h := addRow(mul(s.Random("x", cases, 4), w), b)
		return gorgonia.Must(gorgonia.BroadcastHadamardProd(h, tanh(b), nil, []byte{0})), list(w, b)
	}, layers: []wantLayer{dense("", "x w")}, others: []wantOther{{"b", Diagonal, "used by"}}},

	{name: "product used beside the bias", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
		h := mul(s.Random("x", cases, 4), w)
		return hadamard(addRow(h, b), sigmoid(h)), list(w, b)
	}, layers: []wantLayer{dense("", "x w")}, others: []wantOther{{"b", Full, "offset, element by element"}}},

	{name: "function of a bias", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
		return addRow(mul(s.Random("x", cases, 4), w), tanh(b)), list(w, b)
	}, layers: []wantLayer{dense("", "x w")}, others: []wantOther{{"b", Diagonal, "used by tanh"}}},

	{name: "bias shared by two layers", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, v, b := s.Random("w", 4, 3), s.Random("v", 3, 3), s.Random("b", 1, 3)
		return addRow(mul(tanh(addRow(mul(s.Random("x", cases, 4), w), b)), v), b), list(w, v, b)
	}, layers: []wantLayer{dense("", "x w"), {Weight: "v", In: 3, Out: 3, Sites: 1, Rows: cases,
		Form: "dense layer x w"}},
		others: []wantOther{{"b", Full, "offset, element by element"}}},

	{name: "frozen bias", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
		return addRow(mul(s.Random("x", cases, 4), w), b), list(w)
	}, layers: []wantLayer{dense("", "x w")}},

	{name: "frozen weight", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
		return addRow(mul(s.Random("x", cases, 4), w), b), list(b)
	}, others: []wantOther{{"b", Full, "offset, element by element"}}},
}

var sharingWirings = []wiring{
	{name: "weight used twice", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 4, 3)
		return add(tanh(mul(s.Random("x1", cases, 4), w)), mul(s.Random("x2", cases, 4), w)), list(w)
	}, layers: []wantLayer{dense("", "x w, used 2 times").used(2, 2*cases)}},

	{name: "weight and bias used twice", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 3)
		h1, h2 := mul(s.Random("x1", cases, 4), w), mul(s.Random("x2", cases, 4), w)
		return add(tanh(addRow(h1, b)), addRow(h2, b)), list(w, b)
	}, layers: []wantLayer{dense("b", "x w + b, used 2 times").used(2, 2*cases)}},

	{name: "weight used twice, bias once", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 4, 3), s.Random("b", 3)
		h1, h2 := mul(s.Random("x1", cases, 4), w), mul(s.Random("x2", cases, 4), w)
		return hadamard(addRow(h1, b), h2), list(w, b)
	}, layers: []wantLayer{dense("", "x w, used 2 times").used(2, 2*cases)},
		others: []wantOther{{"b", Full, "offset, element by element"}}},

	{name: "weight used twice with two biases", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b1, b2 := s.Random("w", 4, 3), s.Random("b1", 3), s.Random("b2", 3)
		h1, h2 := mul(s.Random("x1", cases, 4), w), mul(s.Random("x2", cases, 4), w)
		return add(tanh(addRow(h1, b1)), addRow(h2, b2)), list(w, b1, b2)
	}, layers: []wantLayer{dense("", "x w, used 2 times").used(2, 2*cases)},
		others: []wantOther{{"b1", Full, "offset, element by element"}, {"b2", Full, "offset, element by element"}}},

	{name: "weight used twice with two biases, one of them used twice",
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			w, b1, b2 := s.Random("w", 4, 3), s.Random("b1", 3), s.Random("b2", 3)
			h1, h2 := mul(s.Random("x1", cases, 4), w), mul(s.Random("x2", cases, 4), w)
			return add(tanh(addRow(h1, b1)), addRow(tanh(addRow(h2, b2)), b2)), list(w, b1, b2)
		}, layers: []wantLayer{dense("", "x w, used 2 times").used(2, 2*cases)},
		others: []wantOther{{"b1", Full, "offset, element by element"}, {"b2", Full, "offset, element by element"}}},

	{name: "recurrent weight", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, u, b := s.Random("w", 4, 3), s.Random("u", 3, 3), s.Random("b", 1, 3)
		h := s.Random("h", cases, 3)
		for i := range 3 {
			sum := add(mul(s.Random(fmt.Sprint("x", i), cases, 4), w), mul(h, u))
			h = tanh(addRow(sum, b))
		}
		return h, list(w, u, b)
	}, layers: []wantLayer{
		dense("b", "x w + b, used 3 times").used(3, 3*cases),
		{Weight: "u", In: 3, Out: 3, Sites: 3, Rows: 3 * cases,
			Form: "recurrent weight h w, 3 time steps"},
	}},

	{name: "weight used with a vector and in another product",
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			w, b := s.Random("w", 3, 3), s.Random("b", 3)
			return add(mul(w, tanh(add(mul(w, s.Random("x", 3)), b))), b), list(w, b)
		}, layers: []wantLayer{{Weight: "w", Bias: "b", In: 3, Out: 3, OutByIn: true, Sites: 2, Rows: 2,
			Form: "recurrent weight w h + b, 2 time steps"}}},

	{name: "tied weights", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 4, 3)
		return mul(tanh(mul(s.Random("x", cases, 4), w)), transpose(w)), list(w)
	}, layers: []wantLayer{{Weight: "w", In: 4, Out: 3, Sites: 1, Rows: cases,
		Form: "tied weight: dense layer x w, and its transpose: dense layer x w^T"}}},

	{name: "tied square weights", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 4, 4)
		return mul(tanh(mul(s.Random("x", cases, 4), w)), transpose(w)), list(w)
	}, layers: []wantLayer{{Weight: "w", In: 4, Out: 4, Sites: 1, Rows: cases,
		Form: "tied weight: dense layer x w, and its transpose: dense layer x w^T"}}},

	{name: "weight in a product and elsewhere", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, x := s.Random("w", 4, 3), s.Random("x", cases, 4)
		return add(mul(x, w), mul(x, tanh(w))), list(w)
	}, others: []wantOther{{"w", Diagonal, "used by tanh, which is no matrix product"}}},

	{name: "product of two parameters", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, v := s.Random("w", 4, 2), s.Random("v", 2, 3)
		return mul(s.Random("x", cases, 4), mul(w, v)), list(w, v)
	}, others: []wantOther{{"w", Diagonal, `multiplied with another parameter ("v")`},
		{"v", Diagonal, `multiplied with another parameter ("w")`}}},
}

var otherWirings = []wiring{
	{name: "convolution", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		f, b := s.Random("f", 3, 2, 2, 2), s.Random("b", 1, 3, 1, 1)
		h := testnet.Conv2d(s.Random("x", cases, 2, 3, 3), f, []int{2, 2}, []int{0, 0}, []int{1, 1}, []int{1, 1})
		h = gorgonia.Must(gorgonia.BroadcastAdd(h, b, nil, []byte{0, 2, 3}))
		return reshape(tanh(h), cases, 12), list(f, b)
	}, layers: []wantLayer{{Weight: "f", Bias: "b", In: 8, Out: 3, OutByIn: true, Sites: 1, Rows: 4 * cases,
		Form: "convolution 2x2, stride 1, x * w + b, 4 positions per case"}}},

	{name: "embedding", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		table, w := s.Random("table", 7, 4), s.Random("w", 4, 3)
		words := gorgonia.NewVector(s.Graph, tensor.Int, gorgonia.WithName("words"), gorgonia.WithShape(cases),
			gorgonia.WithValue(tensor.New(tensor.WithShape(cases), tensor.WithBacking([]int{3, 1, 6, 1, 0}))))
		return mul(testnet.Rows(table, words), w), list(table, w)
	}, layers: []wantLayer{{Weight: "table", In: 7, Out: 4, Sites: 1, Rows: cases, Form: "embedding lookup, 7 rows"},
		dense("", "x w")}},

	{name: "batch normalisation", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, scale, shift, v := s.Random("w", 4, 3), s.Random("scale", 1, 3), s.Random("shift", 1, 3), s.Random("v", 3, 2)
		h, _, _, _, err := gorgonia.BatchNorm(mul(s.Random("x", cases, 4), w), scale, shift, 0.9, 1e-5)
		if err != nil {
			panic(err)
		}
		return mul(tanh(h), v), list(w, scale, shift, v)
	}, layers: []wantLayer{dense("", "x w"), {Weight: "v", In: 3, Out: 2, Sites: 1, Rows: cases,
		Form: "dense layer x w"}},
		others: []wantOther{{"scale", Full, "scale and shift of a normalisation, per channel"},
			{"shift", Full, "scale and shift of a normalisation, per channel"}}},

	{name: "one number for each case", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		theta := s.Random("theta", 4)
		return mul(s.Random("x", cases, 4), theta), list(theta)
	}, layers: []wantLayer{{Weight: "theta", In: 4, Out: 1, Sites: 1, Rows: cases, Form: "dense layer x w"}}},

	{name: "batched product with a stack of one matrix",
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			w, b := s.Random("w", 1, 4, 3), s.Random("b", 3)
			h := gorgonia.Must(gorgonia.BatchedMatMul(s.Random("x", 1, cases*2, 4), w))
			return reshape(tanh(addRow(reshape(h, cases*2, 3), b)), cases, 6), list(w, b)
		}, layers: []wantLayer{dense("b", "x w + b, 2 positions per case").used(1, 2*cases)}},

	{name: "contraction", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 2, 2, 3), s.Random("b", 1, 3)
		h := gorgonia.Must(gorgonia.Tensordot([]int{1, 2}, []int{0, 1}, s.Random("x", cases, 2, 2), w))
		return addRow(h, b), list(w, b)
	}, layers: []wantLayer{dense("b", "x w + b")}},

	{name: "input that is the same for all cases", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, v := s.Random("w", 4, 3), s.Random("v", 2, 3)
		return addRow(mul(s.Random("x", cases, 4), w), mul(s.Random("context", 1, 2), v)), list(w, v)
	}, layers: []wantLayer{dense("", "x w")},
		others: []wantOther{{"v", Diagonal, "its product does not depend on the cases"}}},

	{name: "rows of a parameter for cases", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		mix := s.Random("mix", cases, 4)
		return mul(mix, s.Random("basis", 4, 3)), list(mix)
	}, others: []wantOther{{"mix", Diagonal, "its product has the cases where its outputs should be"}}},

	{name: "operation without a derivative", noGrad: true,
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			w, b, v := s.Random("w", 4, 3), s.Random("b", 1, 3), s.Random("v", 3, 2)
			h := gorgonia.Must(gorgonia.ApplyOp(rounding10{}, addRow(mul(s.Random("x", cases, 4), w), b)))
			return mul(h, v), list(w, b, v)
		}, layers: []wantLayer{{Weight: "v", In: 3, Out: 2, Sites: 1, Rows: cases, Form: "dense layer x w"}},
		others: []wantOther{{"w", Identity, "rounding10"}, {"b", Identity, "rounding10"}}},
}

// rounding10 is an op of a user that has no SymDiff: it rounds to tenths.
type rounding10 struct{}

func (rounding10) Arity() int    { return 1 }
func (rounding10) Type() hm.Type { return hm.NewFnType(hm.TypeVariable('a'), hm.TypeVariable('a')) }
func (rounding10) InferShape(in ...gorgonia.DimSizer) (tensor.Shape, error) {
	return in[0].(tensor.Shape).Clone(), nil
}
func (rounding10) ReturnsPtr() bool      { return false }
func (rounding10) CallsExtern() bool     { return false }
func (rounding10) OverwritesInput() int  { return -1 }
func (rounding10) WriteHash(h hash.Hash) { fmt.Fprint(h, "rounding10") }
func (rounding10) Hashcode() uint32      { return 10 }
func (rounding10) String() string        { return "rounding10" }
func (rounding10) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	return in[0].(*tensor.Dense).Apply(func(x float64) float64 { return float64(int(x*10)) / 10 })
}
