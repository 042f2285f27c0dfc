package main

import (
	"fmt"
	"math/rand/v2"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/initial"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/reconstruct"
)

// A layer is the parameters of s = a W + b, one case a row.
type layer struct {
	w *tensor.Dense // in x out
	b *tensor.Dense // out
}

// initialLayers draws the sparse initial weights; the biases are 0.
func initialLayers(sizes []int, seed uint64) []layer {
	rng := rand.New(rand.NewPCG(seed, 1))
	layers := make([]layer, len(sizes)-1)
	for i := range layers {
		layers[i] = layer{w: initial.Sparse(rng, sizes[i], sizes[i+1]), b: initial.Zeros(sizes[i+1])}
	}
	return layers
}

// A model is an autoencoder as a graph for batches of one size.
type model struct {
	graph  *gorgonia.ExprGraph
	pixels []float32 // of the batch, read at each run: batch x pixels, row-major
	output *gorgonia.Node
	cost   *gorgonia.Node // negative log-likelihood per case, in nats, but for a constant
	params gorgonia.Nodes // share their values with the layers
	linear bool
}

func (p problem) newModel(layers []layer, batch int) *model {
	m := &model{graph: gorgonia.NewGraph(), pixels: make([]float32, batch*p.sizes[0]), linear: p.linear}
	x := gorgonia.NewMatrix(m.graph, gorgonia.Float32, gorgonia.WithName("x"),
		gorgonia.WithValue(tensor.New(tensor.WithShape(batch, p.sizes[0]), tensor.WithBacking(m.pixels))))
	a := x
	for i, l := range layers {
		w := gorgonia.NewMatrix(m.graph, gorgonia.Float32, gorgonia.WithName(fmt.Sprintf("w%d", i+1)),
			gorgonia.WithValue(l.w))
		b := gorgonia.NewVector(m.graph, gorgonia.Float32, gorgonia.WithName(fmt.Sprintf("b%d", i+1)),
			gorgonia.WithValue(l.b))
		m.params = append(m.params, w, b)
		a = gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(a, w)), b, nil, []byte{0}))
		if i != p.code && i != len(layers)-1 {
			a = gorgonia.Must(gorgonia.Sigmoid(a))
		}
	}
	m.output = a
	m.cost = gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sum(m.negLogLikelihood(x), 1))))
	return m
}

// negLogLikelihood is that of each pixel: softplus(z) - x z for a logistic output with logit z,
// (z-x)^2/2 for a linear one.
func (m *model) negLogLikelihood(x *gorgonia.Node) *gorgonia.Node {
	if m.linear {
		squares := gorgonia.Must(gorgonia.Square(gorgonia.Must(gorgonia.Sub(m.output, x))))
		return gorgonia.Must(gorgonia.HadamardProd(squares, gorgonia.NewConstant(float32(0.5))))
	}
	return gorgonia.Must(gorgonia.Sub(
		gorgonia.Must(gorgonia.Softplus(m.output)),
		gorgonia.Must(gorgonia.HadamardProd(m.output, x))))
}

// distribution is what the model predicts, for K-FAC.
func (m *model) distribution() kfac.Distribution {
	if m.linear {
		return kfac.Gaussian(m.output, 1)
	}
	return kfac.Bernoulli(m.output)
}

// decodeBatch is the number of images that a decoder reconstructs at once.
const decodeBatch = 500

// newDecoder makes a second graph with the same weights, to measure errors with.
func (p problem) newDecoder(layers []layer) *reconstruct.Decoder {
	m := p.newModel(layers, decodeBatch)
	mean := m.output
	if !m.linear {
		mean = gorgonia.Must(gorgonia.Sigmoid(mean))
	}
	return reconstruct.NewDecoder(m.pixels, mean)
}
