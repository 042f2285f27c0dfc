package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
)

// A text is a list of characters as numbers from 0.
type text struct {
	characters []int
	kinds      int
}

// opticks is the place of Isaac Newton's Opticks in a Go installation. The text is in the public
// domain.
const opticks = "src/testdata/Isaac.Newton-Opticks.txt"

// load reads the text in a file. An empty name stands for the Opticks.
func load(file string) (text, error) {
	if file == "" {
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return text{}, fmt.Errorf("where is Go? `go env GOROOT` says: %w; give any text file by -data", err)
		}
		file = filepath.Join(strings.TrimSpace(string(root)), filepath.FromSlash(opticks))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return text{}, fmt.Errorf("no text to learn: %w; "+
			"some packages of Go leave the Opticks out: give any text file by -data", err)
	}
	return newText(data), nil
}

// newText numbers the bytes that occur in data, in their order.
func newText(data []byte) text {
	kinds := slices.Compact(slices.Sorted(slices.Values(data)))
	t := text{kinds: len(kinds)}
	for _, b := range data {
		i, _ := slices.BinarySearch(kinds, b)
		t.characters = append(t.characters, i)
	}
	return t
}

// read returns a function that writes the next characters into the inputs of m. The text is cut
// into one strand for each row of the batch, and each strand into sequences. These follow each
// other in the runs, with the state of the net. At the end of the strands all begin again.
func (t text) read(m *learn.Model, rows, length int) func() {
	strand := (len(t.characters) - 1) / rows
	at := strand
	return func() {
		for _, s := range m.States {
			state := s.In.Value().(*tensor.Dense)
			if at+length > strand {
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
				next := t.characters[row*strand+at+step:]
				learn.Put(m.Inputs[first+2*step], row, learn.OneHot(t.kinds, next[0])...)
				learn.Put(m.Inputs[first+2*step+1], row, learn.OneHot(t.kinds, next[1])...)
			}
		}
		at += length
	}
}
