// Charrnn is a character model of Isaac Newton's Opticks: a recurrent net that predicts the next
// character. It trains with K-FAC, and with Gorgonia's Adam, Momentum and RMSProp from the same
// initial weights on the same batches. Backpropagation goes through 20 characters at a time
// (-length); the state goes on. The model is in model.go.
//
//	go run ./graph_examples/charrnn
package main

import (
	"flag"
	"fmt"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/text"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// Flags of the program's own.
var (
	length int // characters of a sequence
	hidden int // units
	lstm   bool
)

var program = learn.Program{
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
	Task: task,
}

func main() { program.Main() }

func task(s *trial.Settings) (learn.Task, error) {
	if length < 1 || hidden < 1 {
		return learn.Task{}, fmt.Errorf("-length is %d and -hidden %d, both must be at least 1", length, hidden)
	}
	book, err := text.Load(s.Data)
	if err != nil {
		return learn.Task{}, err
	}
	s.Cases = min(s.Cases, (len(book.Characters)-1)/length)
	if s.Cases < s.Batch {
		return learn.Task{}, fmt.Errorf("the text holds %d sequences of %d characters, too few for a batch of %d",
			s.Cases, length, s.Batch)
	}
	book.Characters = book.Characters[:s.Cases*length+1]
	s.Eval = max(s.Eval/s.Batch, 1) * s.Batch
	batch, long := s.Batch, length
	read := func(m *learn.Model) func() { return book.Read(m, batch, long) }
	return learn.Task{
		Model:     newModel(book.Kinds, length, hidden, lstm),
		Draw:      read,
		Walk:      read,
		WalkBatch: batch, WalkBatches: s.Eval / batch,
	}, nil
}
