package main

import (
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
)

// A net is a model in the making. Its first input is x, with one case a row, and y its last.
type net struct{ *learn.Net }

func newNet(o learn.Options) net { return net{learn.NewNet(o)} }

// normalise is batch normalisation.
func (n net) normalise(name string, x *gorgonia.Node) *gorgonia.Node {
	scale := n.Param("scale"+name, gorgonia.Ones(), 1, x.Shape()[1])
	shift := n.Param("shift"+name, gorgonia.Zeroes(), 1, x.Shape()[1])
	out, _, _, _, err := gorgonia.BatchNorm(x, scale, shift, 0.9, 1e-5)
	return gorgonia.Must(out, err)
}

// classes has logits predict a class for each case.
func (n net) classes(logits *gorgonia.Node) *learn.Model {
	n.Cost = n.CrossEntropy(logits, n.Input("y", logits.Shape()[1]))
	n.Predicts = kfac.Categorical(logits)
	return n.Model
}

// numbers has mean predict real numbers.
func (n net) numbers(mean *gorgonia.Node) *learn.Model {
	y := n.Input("y", mean.Shape()[1])
	n.Cost = n.SquaredError(mean, y)
	n.Predicts = kfac.SquaredError(mean)
	return n.Model
}

// pixels has logits predict numbers between 0 and 1: log(1 + exp z) - y z of each.
func (n net) pixels(logits, y *gorgonia.Node) *learn.Model {
	each := gorgonia.Must(gorgonia.Sub(
		gorgonia.Must(gorgonia.Softplus(logits)), gorgonia.Must(gorgonia.HadamardProd(logits, y))))
	n.Cost = gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sum(each, 1))))
	n.Predicts = kfac.Bernoulli(logits)
	return n.Model
}

// An activation is what the units of a layer do.
type activation func(*gorgonia.Node) (*gorgonia.Node, error)

// layers puts dense layers with so many units on x, and f behind all but the last.
func (n net) layers(x *gorgonia.Node, f activation, units ...int) *gorgonia.Node {
	names := "123456789"
	for i, k := range units {
		x = n.Dense(names[i:i+1], x, k)
		if i < len(units)-1 {
			x = gorgonia.Must(f(x))
		}
	}
	return x
}

// classifier is a feed-forward net: widths are those of the inputs, the layers and the classes.
func classifier(f activation, widths ...int) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		n := newNet(o)
		return n.classes(n.layers(n.Input("x", widths[0]), f, widths[1:]...))
	}
}

// untrained is a softmax regression that begins with no weights at all.
func untrained(inputs, classes int) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		o.Init = gorgonia.Zeroes()
		return classifier(gorgonia.Tanh, inputs, classes)(o)
	}
}

// regression is as classifier, for real numbers.
func regression(f activation, widths ...int) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		n := newNet(o)
		return n.numbers(n.layers(n.Input("x", widths[0]), f, widths[1:]...))
	}
}

// autoencoder predicts its own input.
func autoencoder(f activation, widths ...int) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		n := newNet(o)
		x := n.Input("x", widths[0])
		return n.pixels(n.layers(x, f, widths[1:]...), x)
	}
}

// normalised has batch normalisation in front of its ReLUs.
func normalised(inputs, hidden1, hidden2, classes int) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		n := newNet(o)
		h := n.Input("x", inputs)
		h = gorgonia.Must(gorgonia.Rectify(n.normalise("1", n.Dense("1", h, hidden1))))
		h = gorgonia.Must(gorgonia.Rectify(n.normalise("2", n.Dense("2", h, hidden2))))
		return n.classes(n.Dense("3", h, classes))
	}
}

// dropped loses hidden units with probability p while it trains.
func dropped(p float64, inputs, hidden, classes int) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		n := newNet(o)
		h := gorgonia.Must(gorgonia.Rectify(n.Dense("1", n.Input("x", inputs), hidden)))
		if o.Training {
			h = gorgonia.Must(gorgonia.Dropout(h, p))
		}
		return n.classes(n.Dense("2", h, classes))
	}
}

// embedded predicts a character from those before it, each by a row of a table.
func embedded(size, hidden int) reader {
	return func(kinds, length int) func(learn.Options) *learn.Model {
		return func(o learn.Options) *learn.Model {
			n := newNet(o)
			rows := gorgonia.Must(gorgonia.ByIndices(n.Param("table", o.Init, kinds, size), n.IDs(length), 0))
			h := gorgonia.Must(gorgonia.Reshape(rows, tensor.Shape{o.Batch, length * size}))
			return n.classes(n.layers(h, gorgonia.Tanh, hidden, kinds))
		}
	}
}

// attending does so by attention of each character to all.
func attending(size, hidden int) reader {
	return func(kinds, length int) func(learn.Options) *learn.Model {
		return func(o learn.Options) *learn.Model {
			n := newNet(o)
			rows := gorgonia.Must(gorgonia.ByIndices(n.Param("table", o.Init, kinds, size), n.IDs(length), 0))
			project := func(name string) *gorgonia.Node {
				flat := gorgonia.Must(gorgonia.Mul(rows, n.Param("w"+name, o.Init, size, size)))
				return gorgonia.Must(gorgonia.Reshape(flat, tensor.Shape{o.Batch, length, size}))
			}
			scores := gorgonia.Must(gorgonia.BatchedMatMul(project("query"), project("key"), false, true))
			mixed := gorgonia.Must(gorgonia.BatchedMatMul(gorgonia.Must(gorgonia.SoftMax(scores, 2)), project("value")))
			h := gorgonia.Must(gorgonia.Reshape(mixed, tensor.Shape{o.Batch, length * size}))
			return n.classes(n.layers(h, gorgonia.Tanh, hidden, kinds))
		}
	}
}
