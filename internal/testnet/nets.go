package testnet

import (
	"fmt"
	"math"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Cases is the batch size of the nets that do not ask for one.
const Cases = 5

// Columns has the cases along the columns.
func Columns(cases int) *Net {
	s := NewSketch(9)
	n := &Net{Sketch: s, X: s.Random("columns", 4, cases)}
	w0, b0, w1 := s.Random("w0", 3, 4), s.Random("b0", 3, 1), s.Random("w1", 2, 3)
	h := AddColumn(Mul(w0, n.X), b0)
	n.Params = gorgonia.Nodes{w0, b0, w1}
	return n.Ends(Transpose(Mul(w1, Tanh(h))), Binary)
}

// Convolution is a convolution of 2 to 3 channels on images of 4 x 4, tanh, and a dense layer.
func Convolution(cases int) *Net {
	s := NewSketch(7)
	n := &Net{Sketch: s, X: s.Random("x", cases, 2, 4, 4)}
	filter, w := s.Random("filter", 3, 2, 2, 2), s.Random("w", 3*3*3, 2)
	h := Convolve(n.X, filter, 0, 1)
	h = Reshape(Tanh(h), cases, 27)
	n.Params = gorgonia.Nodes{filter, w}
	return n.Ends(Mul(h, w), Binary)
}

// Sequence applies the same two layers at each of three positions of every case, and predicts at
// each.
func Sequence(cases int, unit Unit) *Net {
	const positions = 3
	s := NewSketch(8)
	n := &Net{Sketch: s, X: s.Random("x", cases, positions, 4)}
	h := Reshape(n.X, cases*positions, 4)
	h = n.Layer(h, 0, 4, 5, true, false)
	if unit != nil {
		h = must(unit(h))
	}
	h = n.Layer(h, 1, 5, 2, true, false)
	return n.Ends(Reshape(h, cases, positions*2), Squares(1))
}

// TiedLayers uses one weight in two layers, one of them transposed.
func TiedLayers(cases int) *Net {
	s := NewSketch(11)
	n := &Net{Sketch: s, X: s.Random("x", cases, 4)}
	w, b := s.Random("w", 4, 3), s.Random("b", 1, 4)
	h := Tanh(Mul(n.X, w))
	n.Params = gorgonia.Nodes{w, b}
	return n.Ends(AddRow(Mul(h, Transpose(w)), b), Binary)
}

// ScaledCases has the parameters w of a dense layer, a scale for each of its outputs, and an offset
// for each entry of the batch.
func ScaledCases(cases int, loss Likelihood) *Net {
	s := NewSketch(1)
	n := &Net{Sketch: s, X: s.Random("x", cases, 3)}
	w, scale, offset := s.Random("w", 3, 2), s.Random("scale", 1, 2), s.Random("offset", cases, 2)
	h := TimesRow(Tanh(Mul(n.X, w)), Tanh(scale))
	n.Params = gorgonia.Nodes{w, scale, offset}
	return n.Ends(Add(h, offset), loss)
}

// Language looks words up in a table and predicts words by the same table transposed.
func Language(seed uint64, rows, width int, ids []int) *Net {
	s := NewSketch(seed)
	n := &Net{Sketch: s}
	table, w := s.Random("table", rows, width), s.Random("w", width, width)
	h := Tanh(Mul(Rows(table, s.Words("words", ids...)), w))
	n.Params = gorgonia.Nodes{table, w}
	return n.Ends(Mul(h, Transpose(table)), Classes)
}

// Lookup looks up words in a table of the given size, by ByIndices or by products with one-hot
// rows, and adds a bias.
func Lookup(vocabulary int, byProduct bool, words []int) *Net {
	s := NewSketch(8)
	n := &Net{Sketch: s}
	table, b, v := s.Random("table", vocabulary, 3), s.Random("b", 1, 3), s.Random("v", 3, 2)
	var h *gorgonia.Node
	if byProduct {
		x := make([]float64, len(words)*vocabulary)
		for row, w := range words {
			x[row*vocabulary+w] = 1
		}
		h = Mul(s.Leaf("x", x, len(words), vocabulary), table)
	} else {
		h = Rows(table, s.Words("words", words...))
	}
	n.Params = gorgonia.Nodes{table, b, v}
	return n.Ends(Mul(Tanh(AddRow(h, b)), v), Squares(1))
}

// Offsets is the model out = x w + a + b with a and b of an entry for each case and output.
func Offsets() *Net {
	const cases, in, out = 12, 3, 2
	m := &Net{Sketch: NewSketchOf[float64](8, 8)}
	m.X = m.Random("x", cases, in)
	m.Targets(m.Random("y", cases, out))
	w, a, b := m.Random("w", in, out), m.Random("a", cases, out), m.Random("b", cases, out)
	m.Params = gorgonia.Nodes{w, a, b}
	return m.Ends(Add(Add(Mul(m.X, w), a), b), SquaredError)
}

// ScaledOutputs is the model y = (X theta + beta) gain: a vector of parameters and two scalars.
func ScaledOutputs[T Float]() *Net {
	const cases, inputs = 20, 3
	m := &Net{Sketch: NewSketchOf[T](3, 3)}
	m.X, m.Y = m.Random("x", cases, inputs), m.Random("y", cases)
	theta, beta, gain := m.Random("theta", inputs), m.Scalar("beta", 0.5), m.Scalar("gain", 2)
	m.Params = gorgonia.Nodes{theta, beta, gain}
	m.Out = Hadamard(Add(Mul(m.X, theta), beta), gain)
	m.Cost, m.Loss = Mean(Square(Sub(m.Out, m.Y))), Normal(m.Out)
	return m
}

// Recurrent is a network of the given number of time steps, with its recurrent weight stored either
// way, written as users write one.
func Recurrent(seed uint64, steps int, outByIn bool) *Net {
	s := NewSketch(seed)
	w, u, b, v := s.Random("w", 2, 3), s.Random("u", 3, 3), s.Random("b", 1, 3), s.Random("v", 3, 2)
	h := s.Random("h", Cases, 3)
	for t := range steps {
		left := u
		if outByIn {
			left = Transpose(u)
		}
		h = Tanh(AddRow(Add(Mul(s.Random(fmt.Sprint("x", t), Cases, 2), w), Mul(h, left)), b))
	}
	n := &Net{Sketch: s, Params: gorgonia.Nodes{w, u, b, v}}
	return n.Ends(Mul(h, v), Squares(1))
}

// Text looks the words of each case up in a table of the given number of rows, and feeds what it
// finds to two layers. oneHot writes the lookup as a product.
func Text(seed uint64, rows, cases int, ids []int, oneHot bool, loss Likelihood) *Net {
	const width = 3
	s := NewSketch(seed)
	n := &Net{Sketch: s}
	table, w, b, v := s.Random("table", rows, width), s.Random("w", len(ids)/cases*width, 4), s.Random("b", 1, 4),
		s.Random("v", 4, 2)
	var found *gorgonia.Node
	if oneHot {
		x := s.Leaf("words", make([]float64, len(ids)*rows), len(ids), rows)
		for i, id := range ids {
			Data(x)[i*rows+id] = 1
		}
		found = Mul(x, table)
	} else {
		found = Rows(table, s.Words("words", ids...))
	}
	h := Tanh(AddRow(Mul(Reshape(found, cases, len(ids)/cases*width), w), b))
	n.Params = gorgonia.Nodes{table, w, b, v}
	return n.Ends(Mul(h, v), loss)
}

// WordsOf draws n row numbers of a table, always the same.
func WordsOf(n, rows int) []int { return NewSketch(4).SomeWords(n, rows) }

// Images is a convolution of 2 channels with 3 filters, by Conv2d or with its weight stored the
// other way round, and a dense layer.
func Images(seed uint64, bias, inByOut bool) *Net {
	s := NewSketch(seed)
	x, v := s.Random("x", Cases, 2, 4, 4), s.Random("v", 27, 2)
	n := &Net{Sketch: s}
	var h *gorgonia.Node
	if inByOut {
		patches := must(gorgonia.Im2Col(x, []int{2, 2}, []int{0, 0}, []int{1, 1}, []int{1, 1}))
		f := s.Random("f", 8, 3)
		h, n.Params = Mul(Reshape(patches, Cases*9, 8), f), gorgonia.Nodes{f, v}
		if bias {
			b := s.Random("b", 1, 3)
			h, n.Params = AddRow(h, b), append(n.Params, b)
		}
	} else {
		f := s.Random("f", 3, 2, 2, 2)
		h, n.Params = Convolve(x, f, 0, 1), gorgonia.Nodes{f, v}
		if bias {
			b := s.Random("b", 1, 3, 1, 1)
			h, n.Params = AddChannel(h, b), append(n.Params, b)
		}
	}
	return n.Ends(Mul(Reshape(Tanh(h), Cases, 27), v), Squares(1))
}

// WordsAndOthers looks up words, has a weight that is not being trained and an input that all cases
// share, scales its outputs, and adds a term of the user's own to the cost. Table and scale are
// trained if others is true.
func WordsAndOthers(cases int, others bool) *Net {
	s := NewSketch(2)
	table, frozen, shared, scale := s.Random("table", 5, 3), s.Random("frozen", 4, 4), s.Random("shared", 1, 3),
		s.Random("scale", 1, 2)
	words := s.Words("words", s.SomeWords(2*cases, 5)...)
	n := &Net{Sketch: s}
	if others {
		n.Params = gorgonia.Nodes{table, scale}
	}
	h := AddRow(Rows(table, words), shared)
	h = Tanh(n.Layer(Reshape(h, cases, 6), 0, 6, 4, true, false))
	h = n.Layer(Tanh(Mul(h, frozen)), 1, 4, 2, true, true)
	n.Ends(TimesRow(h, Tanh(scale)), Squares(1))
	w0 := n.Params[len(n.Params)-4]
	n.Cost = Add(n.Cost, Mul(Sum(Square(w0)), gorgonia.NewConstant(0.05)))
	return n
}

// Parts is a net with weights and biases that are parts of parameters: gates, a stack of matrices,
// and all that the last layer has in one vector.
func Parts(cases int) *Net {
	n := NewNet(4)
	n.X = n.Random("x", cases, 4)
	slice := func(p *gorgonia.Node, cuts ...tensor.Slice) *gorgonia.Node { return must(gorgonia.Slice(p, cuts...)) }
	w, b := n.Param("w", 4, 6), n.Param("b", 6)
	gate := func(from, to int) *gorgonia.Node {
		return AddRow(Mul(n.X, slice(w, nil, gorgonia.S(from, to))), slice(b, gorgonia.S(from, to)))
	}
	h := Hadamard(Tanh(gate(0, 3)), Sigmoid(gate(3, 6)))
	stack := Concat(0, Reshape(h, 1, cases, 3), Reshape(Tanh(h), 1, cases, 3))
	h = Sum(Tanh(must(gorgonia.BatchedMatMul(stack, n.Param("u", 2, 3, 2)))), 0)
	theta := n.Param("theta", 11)
	h = TimesRow(h, Reshape(slice(theta, gorgonia.S(9, 11)), 1, 2))
	out := AddRow(Mul(h, Reshape(slice(theta, gorgonia.S(0, 6)), 2, 3)), slice(theta, gorgonia.S(6, 9)))
	return n.Ends(out, Squares(1))
}

// WideScales is a net with a scale and a shift, and a gain, of many elements.
func WideScales(cases int) *Net {
	n := NewNet(5)
	n.X = n.Random("x", cases, 4)
	h := TimesRow(Tanh(n.Dense("0", n.X, 36)), n.Param("scale", 1, 36))
	h = Tanh(AddRow(h, n.Param("shift", 1, 36)))
	return n.Ends(n.Dense("1", TimesRow(h, n.Param("gain", 1, 36)), 2), Squares(1))
}

// FourLayers is a net whose layers have their turns at different steps.
func FourLayers() *Net {
	return MLP{Widths: []int{4, 6, 5, 3, 2}, Cases: 20, Unit: gorgonia.Tanh, Loss: Squares(0.5)}.Build(3)
}

// Teacher is a perceptron that is to learn what another one says.
func Teacher[T Float](widths []int, cases int) *Net {
	n := &Net{Sketch: NewSketchOf[T](8, 8)}
	n.X = n.Random("x", cases, widths[0])
	says := func(who string) *gorgonia.Node {
		h := n.X
		for i, out := range widths[1:] {
			if i > 0 {
				h = Tanh(h)
			}
			in := widths[i]
			w := n.Scaled(fmt.Sprint(who, "w", i), 1/math.Sqrt(float64(in)), in, out)
			b := n.Scaled(fmt.Sprint(who, "b", i), 0.1, 1, out)
			if who == "" {
				n.Params = append(n.Params, w, b)
			}
			h = AddRow(Mul(h, w), b)
		}
		return h
	}
	n.Out = says("")
	n.Loss = Normal(n.Out)
	n.Cost = Mean(Sum(Square(Sub(n.Out, says("teacher's "))), 1))
	return n
}

// DeepAutoencoder is the MNIST autoencoder of Martens & Grosse 2015, section 13, on random images,
// in float32. Its initialisation is sparse: 15 inputs per unit.
func DeepAutoencoder(batch int) *Net {
	widths := []int{784, 1000, 500, 250, 30, 250, 500, 1000, 784}
	n := &Net{Sketch: NewSketchOf[float32](1, 1)}
	pixels := make([]float64, batch*widths[0])
	for i := range pixels {
		pixels[i] = float64(n.Rng.Float32())
	}
	n.X = n.Targets(n.Leaf("x", pixels, batch, widths[0]))
	h := n.X
	for i, out := range widths[1:] {
		in := widths[i]
		weights := make([]float64, in*out)
		for j := range out {
			for range 15 {
				weights[n.Rng.IntN(in)*out+j] = n.Rng.NormFloat64()
			}
		}
		w, b := n.Leaf(fmt.Sprint("w", i), weights, in, out), n.Constant(fmt.Sprint("b", i), 0, 1, out)
		n.Params = append(n.Params, w, b)
		h = AddRow(Mul(h, w), b)
		if last := i == len(widths)-2; !last && out != 30 { // the code layer is linear
			h = Sigmoid(h)
		}
	}
	return n.Ends(h, BinaryCrossEntropy)
}
