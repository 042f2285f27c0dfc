package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn/learntest"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

var small = strings.Fields("-steps 12 -every 12 -batch 16 -cases 320 -eval 64 -length 4 -hidden 6 " +
	"-lr momentum=0.1,rmsprop=0.003")

func TestLossFalls(t *testing.T) {
	learntest.Falls(t, program, small...)
	learntest.Falls(t, program, append(slices.Clone(small), "-lstm")...)

	// A handful of sequences: K-FAC must not be carried away by the first of them.
	few := append(slices.Clone(small), strings.Fields("-steps 5 -every 5 -batch 8 -optimizers kfac")...)
	learntest.Falls(t, program, few...)
	learntest.Falls(t, program, append(few, "-lstm")...)
}

func TestMachines(t *testing.T) {
	few := append(slices.Clone(small[2:]), "-steps", "4")
	learntest.SameOnMachines(t, program, few...)
	learntest.SameOnMachines(t, program, append(few, "-lstm")...)
}

func TestProgram(t *testing.T) { learntest.Runs(t, program, []string{"charrnn"}, small...) }

// Two strands of four characters are read in sequences of two; then all begins again.
func TestRead(t *testing.T) {
	const rows, length = 2, 2
	text := newText([]byte("cabbabcaa"))
	if want := []int{2, 0, 1, 1, 0, 1, 2, 0, 0}; text.kinds != 3 || !slices.Equal(text.characters, want) {
		t.Fatalf("%d kinds of character, %v, want %v", text.kinds, text.characters, want)
	}
	g := gorgonia.NewGraph()
	m := &learn.Model{}
	input := func(columns int) *gorgonia.Node {
		n := gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithName(fmt.Sprint(len(m.Inputs))),
			gorgonia.WithShape(rows, columns), gorgonia.WithInit(gorgonia.Zeroes()))
		m.Inputs = append(m.Inputs, n)
		return n
	}
	state := tensor.New(tensor.WithShape(rows, 1), tensor.WithBacking([]float64{7, 8}))
	m.States = []*learn.State{{In: input(1), Out: state}}
	for range 2 * length {
		input(text.kinds)
	}
	next := text.read(m, rows, length)
	for run, want := range [][][]int{ // x, y, x, y of the two rows
		{{2, 0}, {0, 1}, {0, 1}, {1, 2}},
		{{1, 2}, {1, 0}, {1, 0}, {0, 0}},
		{{2, 0}, {0, 1}, {0, 1}, {1, 2}},
	} {
		next()
		var got [][]int
		for _, n := range m.Inputs[1:] {
			var read []int
			for row := range slices.Chunk(n.Value().Data().([]float64), text.kinds) {
				read = append(read, slices.Index(row, 1))
			}
			got = append(got, read)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("run %d: characters %v, want %v", run, got, want)
		}
		state := []float64{0, 0}
		if run == 1 {
			state = []float64{7, 8}
		}
		if got := m.Inputs[0].Value().Data(); !reflect.DeepEqual(got, state) {
			t.Errorf("run %d: state %v, want %v", run, got, state)
		}
	}
}

func TestMissingText(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none.txt")
	if _, err := load(file); err == nil || !strings.Contains(err.Error(), "-data") {
		t.Errorf("error %v", err)
	}
	var out strings.Builder
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	status := trial.Main("charrnn", []string{"-data", file}, program.Defaults, program.Run, &out)
	if status != 1 || !strings.Contains(out.String(), "too few") {
		t.Errorf("exit status %d, %q", status, out.String())
	}
}
