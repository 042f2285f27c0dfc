package main

import (
	"flag"
	"fmt"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/text"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// Flags of charrnn.
var (
	length int // characters of a sequence
	hidden int // units
	lstm   bool
)

// charrnn is a character model of Isaac Newton's Opticks: a recurrent net that predicts the next
// character. Backpropagation goes through 20 characters at a time; the state goes on.
var charrnn = learn.Program{
	Name: "charrnn",
	Loss: "cross-entropy, nats per character",
	Defaults: trial.Settings{
		Steps:      200,
		Batch:      32,
		Cases:      24000, // sequences
		Eval:       320,
		Every:      10,
		Optimizers: learn.Optimizers,
		Rates:      learn.Rates(0.02, 0.2, 0.002), // the best of the grid at these settings
		Seed:       1,
		Out:        "out/charrnn",
		Dtype:      "float32",
		DataUsage:  "text file (default: the Opticks that come with Go)",
		Flags: func(f *flag.FlagSet) {
			f.IntVar(&length, "length", 20, "characters of a sequence")
			f.IntVar(&hidden, "hidden", 64, "hidden units")
			f.BoolVar(&lstm, "lstm", false, "an LSTM in place of a plain recurrent net")
		},
	},
	Grid: map[string][]float64{
		"adam":     {5e-3, 1e-2, 2e-2, 4e-2},
		"momentum": {0.05, 0.1, 0.2, 0.5},
		"rmsprop":  {1e-3, 2e-3, 5e-3},
	},
	Task: func(s *trial.Settings) (learn.Task, error) {
		if length < 1 || hidden < 1 {
			return learn.Task{}, fmt.Errorf("-length is %d and -hidden %d, both must be at least 1", length, hidden)
		}
		book, err := text.Load(s.Data)
		if err != nil {
			return learn.Task{}, err
		}
		return book.Task(s, length, newCharRNN(book.Kinds, length, hidden, lstm))
	},
}

// newCharRNN returns a function that makes a recurrent net, unrolled over the characters of a
// sequence. The net reads them one-hot, one row per sequence, and at each predicts the next.
func newCharRNN(characters, length, hidden int, lstm bool) func(learn.Options) *learn.Model {
	return func(o learn.Options) *learn.Model {
		n := learn.NewNet(o)
		h := n.Input("h", hidden)
		h0, c0 := h, h
		var c *gorgonia.Node
		var step func(x, h, c *gorgonia.Node) (nextH, nextC *gorgonia.Node)
		if lstm {
			c = n.Input("c", hidden)
			c0 = c
			step = newLSTM(n, characters, hidden)
		} else {
			step = newRNN(n, characters, hidden)
		}
		why := n.Param("why", n.Init, hidden, characters)
		by := n.Param("by", gorgonia.Zeroes(), characters)
		text.Unroll(n, characters, length, func(x *gorgonia.Node) *gorgonia.Node {
			h, c = step(x, h, c)
			return gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(h, why)), by, nil, []byte{0}))
		})
		n.Keep(h0, h)
		if lstm {
			n.Keep(c0, c)
		}
		return n.Model
	}
}

// newRNN is h' = tanh(x wxh + h whh + b).
func newRNN(n *learn.Net, in, hidden int) func(x, h, c *gorgonia.Node) (nextH, nextC *gorgonia.Node) {
	gate := n.Gate("h", in, hidden)
	return func(x, h, _ *gorgonia.Node) (nextH, nextC *gorgonia.Node) {
		return gorgonia.Must(gorgonia.Tanh(gate(x, h))), nil
	}
}

// newLSTM has a gate that writes the cell, one that keeps it, and one that reads it.
func newLSTM(n *learn.Net, in, hidden int) func(x, h, c *gorgonia.Node) (nextH, nextC *gorgonia.Node) {
	write, keep := n.Gate("i", in, hidden), n.Gate("f", in, hidden)
	read, cell := n.Gate("o", in, hidden), n.Gate("c", in, hidden)
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
