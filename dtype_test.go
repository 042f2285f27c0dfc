package kfac_test

import (
	"fmt"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

func newLayered[T testnet.Float](seed uint64) *testnet.Net {
	return &testnet.Net{Sketch: testnet.NewSketchOf[T](seed, 11)}
}

const manyCases = 16 // of the nets below

func convNet[T testnet.Float]() *testnet.Net {
	m := newLayered[T](1)
	h := testnet.Conv2d(m.Random("x", manyCases, 2, 6, 6), m.Param("filter", 4, 2, 3, 3),
		tensor.Shape{3, 3}, []int{1, 1}, []int{2, 2}, []int{1, 1})
	h = testnet.Rectify(gorgonia.Must(gorgonia.BroadcastAdd(h, m.Param("b", 1, 4, 1, 1), nil, []byte{0, 2, 3})))
	return m.Ends(m.Dense("2", testnet.Reshape(h, manyCases, 36), 3), testnet.CrossEntropy)
}

func tiedWords[T testnet.Float]() *testnet.Net {
	m := newLayered[T](2)
	table := m.Param("table", 10, 6)
	h := testnet.Tanh(m.Dense("1", testnet.Rows(table, m.Words("words", m.SomeWords(manyCases, 10)...)), 6))
	return m.Ends(testnet.AddRow(testnet.Mul(h, testnet.Transpose(table)), m.Param("bias", 1, 10)),
		testnet.CrossEntropy)
}

func wordsOfCases[T testnet.Float]() *testnet.Net {
	m := newLayered[T](3)
	found := testnet.Rows(m.Param("table", 20, 4), m.Words("words", m.SomeWords(manyCases*3, 20)...))
	return m.Ends(m.Dense("1", testnet.Reshape(found, manyCases, 12), 3), testnet.CrossEntropy)
}

func normalisedNet[T testnet.Float]() *testnet.Net {
	m := newLayered[T](4)
	h := m.Dense("1", m.Random("x", manyCases, 5), 8)
	h, _, _, _, err := gorgonia.BatchNorm(h, m.Param("scale", 1, 8), m.Param("shift", 1, 8), 0.9, 1e-3)
	h = testnet.Tanh(gorgonia.Must(h, err))
	h = gorgonia.Must(gorgonia.BroadcastHadamardProd(m.Dense("2", h, 3), m.Param("temperature", 1, 1), nil,
		[]byte{0, 1}))
	return m.Ends(h, testnet.CrossEntropy)
}

func pooledNet[T testnet.Float]() *testnet.Net {
	m := newLayered[T](5)
	h := testnet.Tanh(m.Dense("1", m.Random("x", manyCases*4, 5), 6))
	return m.Ends(m.Dense("2", testnet.Mean(testnet.Reshape(h, manyCases, 4, 6), 1), 3), testnet.CrossEntropy)
}

func tiedAutoencoder[T testnet.Float]() *testnet.Net {
	m := newLayered[T](6)
	w := m.Param("w", 8, 5)
	h := testnet.Mul(m.Random("x", manyCases, 8), w)
	h = testnet.Tanh(testnet.AddRow(h, m.Param("b", 1, 5)))
	return m.Ends(testnet.Mul(h, testnet.Transpose(w)), testnet.CrossEntropy)
}

// kinds are the nets with what their plan has to say.
func kinds[T testnet.Float]() map[string]struct {
	build func() *testnet.Net
	says  string
} {
	type kind = struct {
		build func() *testnet.Net
		says  string
	}
	return map[string]kind{
		"convolution": {convNet[T], "convolution 3x3, stride 2, padding 1, x * w + b, 9 positions per case"},
		"tied words": {tiedWords[T],
			"tied weight: embedding lookup, 10 rows, and its transpose: dense layer x w^T"},
		"words of cases": {wordsOfCases[T], "embedding lookup, 20 rows, 3 positions per case"},
		"normalised": {normalisedNet[T],
			"scale and shift: 16 x 16  scale and shift of a normalisation, per channel"},
		"pooled": {pooledNet[T], "4 positions per case, reduced"},
		"tied autoencoder": {tiedAutoencoder[T],
			"tied weight: dense layer x w + b, and its transpose: dense layer x w^T"},
	}
}

// All kinds of layers train in both dtypes, by the quadratic model and by a learning rate, with
// whole factors and with diagonal ones.
func TestLayersTrain(t *testing.T) {
	t.Run("float32", layersTrain[float32])
	t.Run("float64", layersTrain[float64])
}

func layersTrain[T testnet.Float](t *testing.T) {
	for name, kind := range kinds[T]() {
		for how, opts := range map[string][]kfac.Option{
			"model": nil,
			"rate":  {kfac.WithLearningRate(0.1), kfac.WithNormConstraint(0.01)},
			"small": {kfac.WithMaxDim(3), kfac.WithFullBlocks(1)},
		} {
			t.Run(fmt.Sprint(name, " ", how), func(t *testing.T) {
				m := kind.build()
				tr := kfac.NewTrainer(t, m, opts...)
				if plan := tr.Solver.Plan().String(); !strings.Contains(plan, kind.says) && how != "small" {
					t.Errorf("the plan does not say %q:\n%s", kind.says, plan)
				}
				before := testnet.Weights(m.Params)
				tr.Steps(t, 1)
				first := testnet.Numbers(m.Cost.Value())[0]
				testnet.Moved(t, m.Params, before)
				tr.Steps(t, 20)
				if last := testnet.Numbers(m.Cost.Value())[0]; !(last < 0.8*first) {
					t.Errorf("the cost went from %.4g to %.4g", first, last)
				}
			})
		}
	}
}
