package main

import (
	"fmt"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
)

// A net makes the graph: the same few parameters at every character.
type net struct {
	learn.Options
	graph *gorgonia.ExprGraph
	model *learn.Model
}

// newModel returns a function that makes a recurrent net, unrolled over the characters of a
// sequence. The net reads them one-hot, one row per sequence, and at each predicts the next.
func newModel(characters, length, hidden int, lstm bool) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		n := &net{Options: o, graph: gorgonia.NewGraph(), model: &learn.Model{}}
		h := n.input("h", hidden)
		h0, c0 := h, h
		var c *gorgonia.Node
		var step func(x, h, c *gorgonia.Node) (nextH, nextC *gorgonia.Node)
		if lstm {
			c = n.input("c", hidden)
			c0 = c
			step = n.lstm(characters, hidden)
		} else {
			step = n.rnn(characters, hidden)
		}
		why := n.param("why", n.Init, hidden, characters)
		by := n.param("by", gorgonia.Zeroes(), characters)

		var logLikelihood *gorgonia.Node
		var predicts []kfac.Distribution
		for t := range length {
			x := n.input(fmt.Sprintf("x%d", t), characters)
			y := n.input(fmt.Sprintf("y%d", t), characters)
			h, c = step(x, h, c)
			logits := gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(h, why)), by, nil, []byte{0}))
			predicts = append(predicts, kfac.Categorical(logits))
			l := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sum(
				gorgonia.Must(gorgonia.HadamardProd(gorgonia.Must(gorgonia.LogSoftMax(logits)), y)), 1))))
			if t > 0 {
				l = gorgonia.Must(gorgonia.Add(logLikelihood, l))
			}
			logLikelihood = l
		}
		sum := gorgonia.Must(gorgonia.Neg(logLikelihood))
		n.model.Cost = gorgonia.Must(gorgonia.Div(sum, gorgonia.NewConstant(o.Scalar(float64(length)))))
		n.model.Predicts = kfac.Joint(predicts...) // the line for K-FAC: one prediction at each character

		n.keep(h0, h)
		if lstm {
			n.keep(c0, c)
		}
		return n.model
	}
}

// rnn is h' = tanh(x wxh + h whh + b).
func (n *net) rnn(in, hidden int) func(x, h, c *gorgonia.Node) (nextH, nextC *gorgonia.Node) {
	gate := n.gate("h", in, hidden)
	return func(x, h, _ *gorgonia.Node) (nextH, nextC *gorgonia.Node) {
		return gorgonia.Must(gorgonia.Tanh(gate(x, h))), nil
	}
}

// lstm has a gate that writes the cell, one that keeps it, and one that reads it.
func (n *net) lstm(in, hidden int) func(x, h, c *gorgonia.Node) (nextH, nextC *gorgonia.Node) {
	write, keep := n.gate("i", in, hidden), n.gate("f", in, hidden)
	read, cell := n.gate("o", in, hidden), n.gate("c", in, hidden)
	return func(x, h, c *gorgonia.Node) (nextH, nextC *gorgonia.Node) {
		written := gorgonia.Must(gorgonia.HadamardProd(
			gorgonia.Must(gorgonia.Sigmoid(write(x, h))),
			gorgonia.Must(gorgonia.Tanh(cell(x, h)))))
		kept := gorgonia.Must(gorgonia.HadamardProd(gorgonia.Must(gorgonia.Sigmoid(keep(x, h))), c))
		nextC = gorgonia.Must(gorgonia.Add(kept, written))
		nextH = gorgonia.Must(gorgonia.HadamardProd(
			gorgonia.Must(gorgonia.Sigmoid(read(x, h))),
			gorgonia.Must(gorgonia.Tanh(nextC))))
		return nextH, nextC
	}
}

// gate is x wx + h wh + b.
func (n *net) gate(name string, in, hidden int) func(x, h *gorgonia.Node) *gorgonia.Node {
	wx := n.param("wx"+name, n.Init, in, hidden)
	wh := n.param("wh"+name, n.Init, hidden, hidden)
	b := n.param("b"+name, gorgonia.Zeroes(), hidden)
	return func(x, h *gorgonia.Node) *gorgonia.Node {
		sum := gorgonia.Must(gorgonia.Add(gorgonia.Must(gorgonia.Mul(x, wx)), gorgonia.Must(gorgonia.Mul(h, wh))))
		return gorgonia.Must(gorgonia.BroadcastAdd(sum, b, nil, []byte{0}))
	}
}

func (n *net) input(name string, columns int) *gorgonia.Node {
	in := gorgonia.NewMatrix(n.graph, n.Dtype, gorgonia.WithShape(n.Batch, columns), gorgonia.WithName(name))
	n.model.Inputs = append(n.model.Inputs, in)
	return in
}

func (n *net) param(name string, init gorgonia.InitWFn, shape ...int) *gorgonia.Node {
	p := gorgonia.NewTensor(n.graph, n.Dtype, len(shape), gorgonia.WithShape(shape...),
		gorgonia.WithName(name), gorgonia.WithInit(init))
	n.model.Params = append(n.model.Params, p)
	return p
}

// keep has the next sequences begin with the state in which these end.
func (n *net) keep(first, last *gorgonia.Node) {
	s := &learn.State{In: first}
	gorgonia.Read(last, &s.Out)
	n.model.States = append(n.model.States, s)
}
