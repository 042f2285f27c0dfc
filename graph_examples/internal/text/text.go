// Package text hands out the characters of a text as numbers. By default it is Isaac Newton's
// Opticks, which comes with a Go installation.
package text

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// A Text is a list of characters as numbers from 0.
type Text struct {
	Characters []int
	Kinds      int // how many different ones there are
}

// opticks is the place of Isaac Newton's Opticks in a Go installation. The text is in the public
// domain.
const opticks = "src/testdata/Isaac.Newton-Opticks.txt"

// Load reads the text in a file. An empty name stands for the Opticks.
func Load(file string) (Text, error) {
	if file == "" {
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return Text{}, fmt.Errorf("where is Go? `go env GOROOT` says: %w; give any text file by -data", err)
		}
		file = filepath.Join(strings.TrimSpace(string(root)), filepath.FromSlash(opticks))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return Text{}, fmt.Errorf("no text to learn: %w; "+
			"some packages of Go leave the Opticks out: give any text file by -data", err)
	}
	return New(data), nil
}

// New numbers the bytes that occur in data, in their order.
func New(data []byte) Text {
	kinds := slices.Compact(slices.Sorted(slices.Values(data)))
	t := Text{Kinds: len(kinds)}
	for _, b := range data {
		i, _ := slices.BinarySearch(kinds, b)
		t.Characters = append(t.Characters, i)
	}
	return t
}

// Read returns a function that writes the next characters into the inputs of m. The text is cut
// into one strand for each row of the batch, and each strand into sequences. These follow each
// other in the runs, with the state of the net, which is zero before the first run. At the end of
// the strands all begin again.
func (t Text) Read(m *learn.Model, rows, length int) func() {
	strand := (len(t.Characters) - 1) / rows
	at := strand
	return func() {
		for _, s := range m.States {
			state := s.In.Value().(*tensor.Dense)
			if at+length > strand || s.Out == nil {
				state.Zero()
			} else if err := tensor.Copy(state, s.Out.(tensor.Tensor)); err != nil {
				panic(err) // both have the shape of the state
			}
		}
		if at+length > strand {
			at = 0
		}
		for step, first := 0, len(m.States); step < length; step++ {
			for row := range rows {
				next := t.Characters[row*strand+at+step:]
				learn.Put(m.Inputs[first+2*step], row, learn.OneHot(t.Kinds, next[0])...)
				learn.Put(m.Inputs[first+2*step+1], row, learn.OneHot(t.Kinds, next[1])...)
			}
		}
		at += length
	}
}

// Task trains a model that reads sequences of a length, on the first s.Cases of the text, with a
// state that goes on. It lowers settings that are too large for the text.
func (t Text) Task(s *trial.Settings, length int, model func(learn.Options) *learn.Model) (learn.Task, error) {
	s.Cases = min(s.Cases, (len(t.Characters)-1)/length)
	if s.Cases < s.Batch {
		return learn.Task{}, fmt.Errorf("the text holds %d sequences of %d characters, too few for a batch of %d",
			s.Cases, length, s.Batch)
	}
	t.Characters = t.Characters[:s.Cases*length+1]
	s.Eval = max(s.Eval/s.Batch, 1) * s.Batch
	rows := s.Batch
	read := func(m *learn.Model) func() { return t.Read(m, rows, length) }
	return learn.Task{Model: model, Draw: read, Walk: read, WalkBatch: rows, WalkBatches: s.Eval / rows}, nil
}

// Unroll gives a net the inputs that Read writes, behind its states, and the cost of what it
// predicts at each character: logits are those for the next one.
func Unroll(n *learn.Net, kinds, length int, logits func(x *gorgonia.Node) *gorgonia.Node) {
	var costs gorgonia.Nodes
	var predicts []kfac.Distribution
	for t := range length {
		x, y := n.Input(fmt.Sprintf("x%d", t), kinds), n.Input(fmt.Sprintf("y%d", t), kinds)
		z := logits(x)
		costs = append(costs, n.CrossEntropy(z, y))
		predicts = append(predicts, kfac.Categorical(z))
	}
	n.Cost = n.Over(gorgonia.Must(gorgonia.ReduceAdd(costs)), float64(length))
	n.Predicts = kfac.Joint(predicts...)
}
