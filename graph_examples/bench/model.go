package main

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// A model is a graph with random weights and random batches, made by a sketch.
type model struct {
	cost   *gorgonia.Node
	dist   kfac.Distribution
	params gorgonia.Nodes
	inputs []func() // that fill the data anew
}

// nextBatch draws other data. On the same data again and again a model is soon so sure of its
// predictions that its gradients are only rounding.
func (m *model) nextBatch() {
	for _, fill := range m.inputs {
		fill()
	}
}

// models are those that can be measured. Each has the batches that it is measured at unless others
// are asked for.
var models = map[string]struct {
	what    string
	batches []int
	build   func(s *sketch)
}{
	"autoencoder": {
		"784-1000-500-250-30-250-500-1000-784, logistic units (Martens & Grosse 2015)",
		[]int{256, 1000},
		func(s *sketch) { s.autoencoder(784, 1000, 500, 250, 30, 250, 500, 1000, 784) },
	},
	"classifier": {"784-500-500-10, tanh", []int{500}, func(s *sketch) { s.classifier(784, 500, 500, 10) }},
	"convnet":    {"28x28, 16 and 32 filters of 5x5 with pooling, dense 10", []int{128}, (*sketch).convnet},
	"wide": {
		"784-2048-2048-2048-2048-10, tanh",
		[]int{256},
		func(s *sketch) { s.classifier(784, 2048, 2048, 2048, 2048, 10) },
	},
	"relu": {
		"784-256-256-10, rectifiers",
		[]int{128, 16},
		func(s *sketch) { s.rectifiers(0, 784, 256, 256, 10) },
	},
	"dropout": {
		"the same with Dropout 0.5 and weight decay",
		[]int{128},
		func(s *sketch) { s.rectifiers(0.5, 784, 256, 256, 10) },
	},
	"rnn": {"128 recurrent tanh units over 10 characters of 64", []int{64}, (*sketch).rnn},
}

func modelNames() []string { return slices.Sorted(maps.Keys(models)) }

// A sketch builds a model with batches of a size in a dtype.
type sketch struct {
	model
	graph *gorgonia.ExprGraph
	dtype tensor.Dtype
	batch int
	small int // divides the units of hidden layers
	rng   *rand.Rand
}

func newModel(dtype string, batch, shrink int, seed uint64, build func(*sketch)) *model {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := &sketch{graph: gorgonia.NewGraph(), dtype: tensor.Float32, batch: batch, small: shrink, rng: rng}
	if dtype == "float64" {
		s.dtype = tensor.Float64
	}
	build(s)
	return &s.model
}

// node is a leaf with a value that f gives element by element.
func (s *sketch) node(name string, f func(i int) float64, shape ...int) *gorgonia.Node {
	t := tensor.New(tensor.WithShape(shape...), tensor.Of(s.dtype))
	fill(t, f)
	return gorgonia.NewTensor(s.graph, s.dtype, len(shape), gorgonia.WithName(name),
		gorgonia.WithShape(shape...), gorgonia.WithValue(t))
}

// input is a node whose value is another in each batch.
func (s *sketch) input(name string, f func(i int) float64, shape ...int) *gorgonia.Node {
	n := s.node(name, f, shape...)
	s.inputs = append(s.inputs, func() { fill(n.Value(), f) })
	return n
}

func fill(v gorgonia.Value, f func(i int) float64) {
	switch data := v.Data().(type) {
	case []float32:
		for i := range data {
			data[i] = float32(f(i))
		}
	case []float64:
		for i := range data {
			data[i] = f(i)
		}
	}
}

// weight is a parameter with elements of N(0, 1/in).
func (s *sketch) weight(in int, shape ...int) *gorgonia.Node {
	draw := func(int) float64 { return s.rng.NormFloat64() / math.Sqrt(float64(in)) }
	w := s.node(fmt.Sprint("w", len(s.params)), draw, shape...)
	s.params = append(s.params, w)
	return w
}

func (s *sketch) images(shape ...int) *gorgonia.Node {
	return s.input("x", func(int) float64 { return s.rng.Float64() }, shape...)
}

// oneHot is a batch of classes.
func (s *sketch) oneHot(name string, classes int) *gorgonia.Node {
	var class int
	return s.input(name, func(i int) float64 {
		if i%classes == 0 {
			class = s.rng.IntN(classes)
		}
		if i%classes == class {
			return 1
		}
		return 0
	}, s.batch, classes)
}

func (s *sketch) dense(x *gorgonia.Node, out int) *gorgonia.Node {
	in := x.Shape()[1]
	w := s.weight(in, in, out)
	return s.biased(gorgonia.Must(gorgonia.Mul(x, w)))
}

func (s *sketch) biased(x *gorgonia.Node) *gorgonia.Node {
	b := s.node(fmt.Sprint("b", len(s.params)), func(int) float64 { return 0 }, 1, x.Shape()[1])
	s.params = append(s.params, b)
	return gorgonia.Must(gorgonia.BroadcastAdd(x, b, nil, []byte{0}))
}

// stack is dense layers with f between them.
func (s *sketch) stack(sizes []int, f func(*gorgonia.Node) (*gorgonia.Node, error)) (x, out *gorgonia.Node) {
	x = s.images(s.batch, sizes[0])
	h := x
	for _, size := range sizes[1 : len(sizes)-1] {
		h = gorgonia.Must(f(s.dense(h, max(2, size/s.small))))
	}
	return x, s.dense(h, sizes[len(sizes)-1])
}

func (s *sketch) autoencoder(sizes ...int) {
	x, z := s.stack(sizes, gorgonia.Sigmoid)
	s.dist = kfac.Bernoulli(z)
	nll := gorgonia.Must(gorgonia.Sub(gorgonia.Must(gorgonia.Softplus(z)), gorgonia.Must(gorgonia.HadamardProd(x, z))))
	s.cost = gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sum(nll, 1))))
}

func (s *sketch) classifier(sizes ...int) {
	_, z := s.stack(sizes, gorgonia.Tanh)
	s.dist = kfac.Categorical(z)
	s.cost = s.crossEntropy(z, s.oneHot("y", z.Shape()[1]))
}

// rectifiers is a classifier. With dropout it has a weight decay in the cost too.
func (s *sketch) rectifiers(dropout float64, sizes ...int) {
	_, z := s.stack(sizes, func(h *gorgonia.Node) (*gorgonia.Node, error) {
		h, err := gorgonia.Rectify(h)
		if err != nil || dropout == 0 {
			return h, err
		}
		return gorgonia.Dropout(h, dropout)
	})
	s.dist = kfac.Categorical(z)
	s.cost = s.crossEntropy(z, s.oneHot("y", z.Shape()[1]))
	if dropout > 0 {
		s.decay(1e-4)
	}
}

// decay adds rate/2 times the sum of the matrices' squares to the cost.
func (s *sketch) decay(rate float64) {
	var half any = rate / 2
	if s.dtype == tensor.Float32 {
		half = float32(rate / 2)
	}
	for _, w := range s.params {
		if w.Shape()[0] > 1 {
			squares := gorgonia.Must(gorgonia.Sum(gorgonia.Must(gorgonia.Square(w))))
			term := gorgonia.Must(gorgonia.HadamardProd(squares, gorgonia.NewConstant(half)))
			s.cost = gorgonia.Must(gorgonia.Add(s.cost, term))
		}
	}
}

// crossEntropy is the mean over cases.
func (s *sketch) crossEntropy(logits, y *gorgonia.Node) *gorgonia.Node {
	logProbs := gorgonia.Must(gorgonia.LogSoftMax(logits))
	logLikelihood := gorgonia.Must(gorgonia.Sum(gorgonia.Must(gorgonia.HadamardProd(logProbs, y)), 1))
	return gorgonia.Must(gorgonia.Neg(gorgonia.Must(gorgonia.Mean(logLikelihood))))
}

func (s *sketch) convnet() {
	h := s.images(s.batch, 1, 28, 28)
	for _, filters := range []int{max(2, 16/s.small), max(2, 32/s.small)} {
		in := h.Shape()[1]
		w := s.weight(25*in, filters, in, 5, 5)
		h = gorgonia.Must(gorgonia.Conv2d(h, w, tensor.Shape{5, 5}, []int{2, 2}, []int{1, 1}, []int{1, 1}))
		h = gorgonia.Must(gorgonia.Rectify(h))
		h = gorgonia.Must(gorgonia.MaxPool2D(h, tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
	}
	features := h.Shape().TotalSize() / s.batch
	z := s.dense(gorgonia.Must(gorgonia.Reshape(h, tensor.Shape{s.batch, features})), 10)
	s.dist = kfac.Categorical(z)
	s.cost = s.crossEntropy(z, s.oneHot("y", 10))
}

// rnn predicts each of ten characters from those before it.
func (s *sketch) rnn() {
	const characters, length = 64, 10
	units := max(2, 128/s.small)
	wx := s.weight(characters, characters, units)
	wh := s.weight(units, units, units)
	wy := s.weight(units, units, characters)
	b := s.node("b", func(int) float64 { return 0 }, 1, units)
	s.params = append(s.params, b)
	h := s.node("h", func(int) float64 { return 0 }, s.batch, units)
	var parts []kfac.Distribution
	for t := range length {
		x := s.oneHot(fmt.Sprint("x", t), characters)
		sum := gorgonia.Must(gorgonia.Add(gorgonia.Must(gorgonia.Mul(x, wx)), gorgonia.Must(gorgonia.Mul(h, wh))))
		h = gorgonia.Must(gorgonia.Tanh(gorgonia.Must(gorgonia.BroadcastAdd(sum, b, nil, []byte{0}))))
		z := gorgonia.Must(gorgonia.Mul(h, wy))
		parts = append(parts, kfac.Categorical(z))
		c := s.crossEntropy(z, s.oneHot(fmt.Sprint("y", t), characters))
		if s.cost == nil {
			s.cost = c
		} else {
			s.cost = gorgonia.Must(gorgonia.Add(s.cost, c))
		}
	}
	s.dist = kfac.Joint(parts...)
}
