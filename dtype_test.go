package kfac_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// layered makes nets of all kinds of layers in either dtype.
type layered[T float] struct {
	*net
	rng *rand.Rand
}

func newLayered[T float](seed uint64) *layered[T] {
	return &layered[T]{&net{graph: gorgonia.NewGraph()}, rand.New(rand.NewPCG(seed, 11))}
}

// leaf adds an input of normally distributed numbers.
func (m *layered[T]) leaf(name string, std float64, shape ...int) *gorgonia.Node {
	backing := make([]T, tensor.Shape(shape).TotalSize())
	for i := range backing {
		backing[i] = T(std * m.rng.NormFloat64())
	}
	value := tensor.New(tensor.WithShape(shape...), tensor.WithBacking(backing))
	return gorgonia.NewTensor(m.graph, dtype[T](), len(shape), gorgonia.WithName(name), gorgonia.WithShape(shape...), gorgonia.WithValue(value))
}

func (m *layered[T]) param(name string, shape ...int) *gorgonia.Node {
	p := m.leaf(name, 0.5, shape...)
	m.params = append(m.params, p)
	return p
}

// words adds a lookup of as many words as there are rows.
func (m *layered[T]) words(rows, vocabulary int) *gorgonia.Node {
	ids := make([]int, rows)
	for i := range ids {
		ids[i] = m.rng.IntN(vocabulary)
	}
	return gorgonia.NewVector(m.graph, tensor.Int, gorgonia.WithName("words"), gorgonia.WithShape(rows),
		gorgonia.WithValue(tensor.New(tensor.WithShape(rows), tensor.WithBacking(ids))))
}

func (m *layered[T]) dense(name string, h *gorgonia.Node, out int) *gorgonia.Node {
	return must(gorgonia.BroadcastAdd(must(gorgonia.Mul(h, m.param("w"+name, h.Shape()[1], out))), m.param("b"+name, 1, out), nil, []byte{0}))
}

// classify makes the cost of classes drawn at random.
func (m *layered[T]) classify(out *gorgonia.Node) {
	m.out = out
	rows, classes := out.Shape()[0], out.Shape()[1]
	m.y = input[T](m.graph, "y", rows, classes, oneHot(m.rng, rows, classes))
	m.cost = crossEntropy(out, m.y)
}

const manyCases = 16 // of the nets below

func inShape(a *gorgonia.Node, shape ...int) *gorgonia.Node { return must(gorgonia.Reshape(a, shape)) }

func convNet[T float]() *layered[T] {
	m := newLayered[T](1)
	h := must(gorgonia.Conv2d(m.leaf("x", 1, manyCases, 2, 6, 6), m.param("filter", 4, 2, 3, 3), tensor.Shape{3, 3}, []int{1, 1}, []int{2, 2}, []int{1, 1}))
	h = must(gorgonia.Rectify(must(gorgonia.BroadcastAdd(h, m.param("b", 1, 4, 1, 1), nil, []byte{0, 2, 3}))))
	m.classify(m.dense("2", inShape(h, manyCases, 36), 3))
	return m
}

func tiedWords[T float]() *layered[T] {
	m := newLayered[T](2)
	table := m.param("table", 10, 6)
	h := must(gorgonia.Tanh(m.dense("1", must(gorgonia.ByIndices(table, m.words(manyCases, 10), 0)), 6)))
	m.classify(must(gorgonia.BroadcastAdd(must(gorgonia.Mul(h, must(gorgonia.Transpose(table)))), m.param("bias", 1, 10), nil, []byte{0})))
	return m
}

func wordsOfCases[T float]() *layered[T] {
	m := newLayered[T](3)
	found := must(gorgonia.ByIndices(m.param("table", 20, 4), m.words(manyCases*3, 20), 0))
	m.classify(m.dense("1", inShape(found, manyCases, 12), 3))
	return m
}

func normalisedNet[T float]() *layered[T] {
	m := newLayered[T](4)
	h := m.dense("1", m.leaf("x", 1, manyCases, 5), 8)
	h, _, _, _, err := gorgonia.BatchNorm(h, m.param("scale", 1, 8), m.param("shift", 1, 8), 0.9, 1e-3)
	h = must(gorgonia.Tanh(must(h, err)))
	h = must(gorgonia.BroadcastHadamardProd(m.dense("2", h, 3), m.param("temperature", 1, 1), nil, []byte{0, 1}))
	m.classify(h)
	return m
}

func pooledNet[T float]() *layered[T] {
	m := newLayered[T](5)
	h := must(gorgonia.Tanh(m.dense("1", m.leaf("x", 1, manyCases*4, 5), 6)))
	m.classify(m.dense("2", must(gorgonia.Mean(inShape(h, manyCases, 4, 6), 1)), 3))
	return m
}

func tiedAutoencoder[T float]() *layered[T] {
	m := newLayered[T](6)
	w := m.param("w", 8, 5)
	h := must(gorgonia.Mul(m.leaf("x", 1, manyCases, 8), w))
	h = must(gorgonia.Tanh(must(gorgonia.BroadcastAdd(h, m.param("b", 1, 5), nil, []byte{0}))))
	m.classify(must(gorgonia.Mul(h, must(gorgonia.Transpose(w)))))
	return m
}

// kinds are the nets with what their plan has to say.
func kinds[T float]() map[string]struct {
	build func() *layered[T]
	says  string
} {
	type kind = struct {
		build func() *layered[T]
		says  string
	}
	return map[string]kind{
		"convolution":      {convNet[T], "convolution 3x3, stride 2, padding 1, x * w + b, 9 positions per case"},
		"tied words":       {tiedWords[T], "tied weight: embedding lookup, 10 rows, and its transpose: dense layer x w^T"},
		"words of cases":   {wordsOfCases[T], "embedding lookup, 20 rows, 3 positions per case"},
		"normalised":       {normalisedNet[T], "scale and shift: 8 of 2 x 2"},
		"pooled":           {pooledNet[T], "4 positions per case, reduced"},
		"tied autoencoder": {tiedAutoencoder[T], "and its transpose: dense layer x w^T"},
	}
}

// All kinds of layers train in both dtypes, by the quadratic model and by a learning rate, with whole factors and with diagonal ones.
func TestLayersTrain(t *testing.T) {
	t.Run("float32", layersTrain[float32])
	t.Run("float64", layersTrain[float64])
}

func layersTrain[T float](t *testing.T) {
	for name, kind := range kinds[T]() {
		for how, opts := range map[string][]kfac.Option{
			"model": nil,
			"rate":  {kfac.WithLearningRate(0.1), kfac.WithNormConstraint(0.01)},
			"small": {kfac.WithMaxDim(3), kfac.WithFullBlocks(1)},
		} {
			t.Run(fmt.Sprint(name, " ", how), func(t *testing.T) {
				m := kind.build()
				tr := newTrainer(t, m.net, kfac.Categorical(m.out), opts...)
				if plan := tr.solver.(*kfac.Solver).Plan().String(); !strings.Contains(plan, kind.says) && how != "small" {
					t.Errorf("the plan does not say %q:\n%s", kind.says, plan)
				}
				before := weights(m.params)
				tr.steps(t, 1)
				first := numbers(m.cost.Value())[0]
				moved(t, m.params, before)
				tr.steps(t, 20)
				if last := numbers(m.cost.Value())[0]; !(last < 0.8*first) {
					t.Errorf("the cost went from %.4g to %.4g", first, last)
				}
			})
		}
	}
}
