package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

func TestShortText(t *testing.T) {
	file := filepath.Join(t.TempDir(), "short.txt")
	var out strings.Builder
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	status := trial.Main("charrnn", []string{"-data", file}, program.Defaults, program.Run, &out)
	if status != 1 || !strings.Contains(out.String(), "too few") {
		t.Errorf("exit status %d, %q", status, out.String())
	}
}
