package main

import (
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
)

// newModel is Gorgonia's convnet with fewer channels. It has two convolutions with max pooling, a
// hidden layer with Dropout, and a softmax output. As in Gorgonia's, convolutions have no biases,
// unless -bias asks for them.
func newModel(o learn.Options) *learn.Model {
	const channels1, channels2, hidden = 8, 16, 64
	g := gorgonia.NewGraph()
	x := gorgonia.NewTensor(g, o.Dtype, 4,
		gorgonia.WithShape(o.Batch, 1, mnist.Side, mnist.Side), gorgonia.WithName("x"))
	y := gorgonia.NewMatrix(g, o.Dtype, gorgonia.WithShape(o.Batch, mnist.Classes), gorgonia.WithName("y")) // one-hot

	m := &learn.Model{Inputs: gorgonia.Nodes{x, y}}
	param := func(name string, init gorgonia.InitWFn, shape ...int) *gorgonia.Node {
		p := gorgonia.NewTensor(g, o.Dtype, len(shape), gorgonia.WithShape(shape...),
			gorgonia.WithName(name), gorgonia.WithInit(init))
		m.Params = append(m.Params, p)
		return p
	}
	conv := func(name string, in *gorgonia.Node, channels int) *gorgonia.Node {
		w := param("w"+name, o.Init, channels, in.Shape()[1], 5, 5)
		out := gorgonia.Must(gorgonia.Conv2d(in, w, tensor.Shape{5, 5}, []int{2, 2}, []int{1, 1}, []int{1, 1}))
		if withBias {
			b := param("b"+name, gorgonia.Zeroes(), 1, channels, 1, 1)
			out = gorgonia.Must(gorgonia.BroadcastAdd(out, b, nil, []byte{0, 2, 3}))
		}
		out = gorgonia.Must(gorgonia.Rectify(out))
		return gorgonia.Must(gorgonia.MaxPool2D(out, tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
	}
	dense := func(name string, in *gorgonia.Node, units int) *gorgonia.Node {
		w := param("w"+name, o.Init, in.Shape()[1], units)
		b := param("b"+name, gorgonia.Zeroes(), units)
		return gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(in, w)), b, nil, []byte{0}))
	}

	pooled := conv("2", conv("1", x, channels1), channels2)
	flat := gorgonia.Must(gorgonia.Reshape(pooled, tensor.Shape{o.Batch, pooled.Shape()[1:].TotalSize()}))
	a := gorgonia.Must(gorgonia.Rectify(dense("3", flat, hidden)))
	if o.Training {
		// Gorgonia v0.9.18 has the right gradient for no other probability than 1/2.
		a = gorgonia.Must(gorgonia.Dropout(a, 0.5))
	}
	logits := dense("4", a, mnist.Classes)

	logProbs := gorgonia.Must(gorgonia.LogSoftMax(logits))
	logLikelihood := gorgonia.Must(gorgonia.Sum(gorgonia.Must(gorgonia.HadamardProd(logProbs, y)), 1))
	m.Cost = gorgonia.Must(gorgonia.Neg(gorgonia.Must(gorgonia.Mean(logLikelihood))))
	m.Predicts = kfac.Categorical(logits) // the line for K-FAC
	return m
}
