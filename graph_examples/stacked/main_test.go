package main

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn/learntest"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

func TestLossFalls(t *testing.T) {
	defer func() { untied = false }()
	args := []string{"-steps", "4", "-every", "4", "-batch", "8", "-cases", "8", "-eval", "8",
		"-lr", "momentum=0.1,rmsprop=0.001"}
	const pixels = 30
	for _, c := range []struct {
		model func(learn.Options) *learn.Model
		args  []string
	}{
		{newAutoencoder(pixels, 6, 0.1), args},
		{newAutoencoder(pixels, 6, 0.1), append(args, "-untied")},
		{newClassifier([]int{pixels, 6, 5}), args},
	} {
		small := program
		small.Task = func(s *trial.Settings) (learn.Task, error) {
			return learntest.Rows(8, pixels, mnist.Classes).Task(s, c.model), nil
		}
		untied = false
		learntest.Falls(t, small, c.args...)
	}
}

// The rows of codes are those of the graph's encoder.
func TestEncode(t *testing.T) {
	got := encode([][]float64{{1, 2}, {0, -1}}, []float64{1, 2, 3, 4, 5, 6}, []float64{-9, 1, 0})
	for i, want := range [][]float64{{0, 13, 15}, {-13, -4, -6}} {
		for k, z := range want {
			if p := 1 / (1 + math.Exp(-z)); math.Abs(got[i][k]-p) > 1e-15 {
				t.Errorf("code %d of row %d is %g, want %g", k, i, got[i][k], p)
			}
		}
	}
}

func TestProgram(t *testing.T) {
	before := sizes
	defer func() { sizes = before }()
	sizes = []int{sizes[0], 5, 4, 3}
	out := t.TempDir()
	args := []string{"-steps", "2", "-every", "1", "-batch", "8", "-cases", "16", "-eval", "8", "-out", out}
	if status := trial.Main("stacked", args, program.Defaults, run, os.Stderr); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	for _, name := range []string{"layer1", "layer2", "layer3", "stacked"} {
		if info, err := os.Stat(filepath.Join(out, name+".png")); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
