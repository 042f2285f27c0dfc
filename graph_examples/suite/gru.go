package main

import (
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/text"
)

// recurrent is a GRU, unrolled over the characters of a sequence. It reads them one-hot, and
// predicts the next at each. Its state goes on.
func recurrent(hidden int) reader {
	return func(kinds, length int) func(learn.Options) *learn.Model {
		return func(o learn.Options) *learn.Model {
			n := learn.NewNet(o)
			first := n.Input("h", hidden)
			reset, update := n.Gate("r", kinds, hidden), n.Gate("z", kinds, hidden)
			fresh := n.Gate("n", kinds, hidden)
			out, bias := n.Param("why", o.Init, hidden, kinds), n.Param("by", gorgonia.Zeroes(), kinds)
			h := first
			text.Unroll(n, kinds, length, func(x *gorgonia.Node) *gorgonia.Node {
				r := gorgonia.Must(gorgonia.Sigmoid(reset(x, h)))
				z := gorgonia.Must(gorgonia.Sigmoid(update(x, h)))
				next := gorgonia.Must(gorgonia.Tanh(fresh(x, gorgonia.Must(gorgonia.HadamardProd(r, h)))))
				change := gorgonia.Must(gorgonia.HadamardProd(z, gorgonia.Must(gorgonia.Sub(next, h))))
				h = gorgonia.Must(gorgonia.Add(h, change))
				return gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(h, out)), bias, nil, []byte{0}))
			})
			n.Keep(first, h)
			return n.Model
		}
	}
}
