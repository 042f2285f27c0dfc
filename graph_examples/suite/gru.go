package main

import (
	"fmt"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
)

// recurrent is a GRU, unrolled over the characters of a sequence. It reads them one-hot, and
// predicts the next at each. Its state goes on.
func recurrent(hidden int) reader {
	return func(kinds, length int) func(learn.Options) *learn.Model {
		return func(o learn.Options) *learn.Model {
			n := newNet(o)
			first := n.input("h", hidden)
			reset, update := n.gate("r", kinds, hidden), n.gate("z", kinds, hidden)
			fresh := n.gate("n", kinds, hidden)
			out, bias := n.param("why", o.Init, hidden, kinds), n.param("by", gorgonia.Zeroes(), kinds)
			h := first
			var costs gorgonia.Nodes
			var predicts []kfac.Distribution
			for t := range length {
				x := n.input(fmt.Sprintf("x%d", t), kinds)
				y := n.input(fmt.Sprintf("y%d", t), kinds)
				r := gorgonia.Must(gorgonia.Sigmoid(reset(x, h)))
				z := gorgonia.Must(gorgonia.Sigmoid(update(x, h)))
				next := gorgonia.Must(gorgonia.Tanh(fresh(x, gorgonia.Must(gorgonia.HadamardProd(r, h)))))
				change := gorgonia.Must(gorgonia.HadamardProd(z, gorgonia.Must(gorgonia.Sub(next, h))))
				h = gorgonia.Must(gorgonia.Add(h, change))
				logits := gorgonia.Must(gorgonia.Mul(h, out))
				logits = gorgonia.Must(gorgonia.BroadcastAdd(logits, bias, nil, []byte{0}))
				costs = append(costs, n.crossEntropy(logits, y))
				predicts = append(predicts, kfac.Categorical(logits))
			}
			sum := gorgonia.Must(gorgonia.ReduceAdd(costs))
			n.model.Cost = gorgonia.Must(gorgonia.Div(sum, gorgonia.NewConstant(o.Scalar(float64(length)))))
			n.model.Predicts = kfac.Joint(predicts...)
			last := &learn.State{In: first}
			gorgonia.Read(h, &last.Out)
			n.model.States = append(n.model.States, last)
			return n.model
		}
	}
}

// gate is x wx + h wh + b.
func (n *net) gate(name string, in, hidden int) func(x, h *gorgonia.Node) *gorgonia.Node {
	wx, wh := n.param("wx"+name, n.Init, in, hidden), n.param("wh"+name, n.Init, hidden, hidden)
	b := n.param("b"+name, gorgonia.Zeroes(), hidden)
	return func(x, h *gorgonia.Node) *gorgonia.Node {
		sum := gorgonia.Must(gorgonia.Add(gorgonia.Must(gorgonia.Mul(x, wx)), gorgonia.Must(gorgonia.Mul(h, wh))))
		return gorgonia.Must(gorgonia.BroadcastAdd(sum, b, nil, []byte{0}))
	}
}
