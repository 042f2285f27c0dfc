package text

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
)

// Two strands of four characters are read in sequences of two; then all begins again.
func TestRead(t *testing.T) {
	const rows, length = 2, 2
	text := New([]byte("cabbabcaa"))
	if want := []int{2, 0, 1, 1, 0, 1, 2, 0, 0}; text.Kinds != 3 || !slices.Equal(text.Characters, want) {
		t.Fatalf("%d kinds of character, %v, want %v", text.Kinds, text.Characters, want)
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
		input(text.Kinds)
	}
	next := text.Read(m, rows, length)
	for run, want := range [][][]int{ // x, y, x, y of the two rows
		{{2, 0}, {0, 1}, {0, 1}, {1, 2}},
		{{1, 2}, {1, 0}, {1, 0}, {0, 0}},
		{{2, 0}, {0, 1}, {0, 1}, {1, 2}},
	} {
		next()
		var got [][]int
		for _, n := range m.Inputs[1:] {
			var read []int
			for row := range slices.Chunk(n.Value().Data().([]float64), text.Kinds) {
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

func TestMissing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none.txt")
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), "-data") {
		t.Errorf("error %v", err)
	}
}
