package main

import (
	"strings"
	"testing"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn/learntest"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

func TestLossFalls(t *testing.T) {
	defer func() { withBias = false }()
	few := func(cases int) learn.Program {
		p := program
		p.Task = func(s *trial.Settings) (learn.Task, error) {
			return learntest.Rows(cases, mnist.Pixels, mnist.Classes).Task(s, newModel), nil
		}
		return p
	}
	small := few(16)
	args := []string{"-steps", "4", "-every", "4", "-batch", "16", "-cases", "16", "-eval", "16",
		"-lr", "momentum=0.01,rmsprop=0.0002"}
	learntest.Falls(t, small, args...)
	learntest.Falls(t, small, append(args, "-bias", "-optimizers", "kfac")...)

	// A handful of images, of which Dropout draws other units for each pass.
	learntest.Falls(t, few(4), strings.Fields("-steps 8 -every 8 -batch 4 -cases 4 -eval 4 -optimizers kfac")...)
}

func TestProgram(t *testing.T) {
	learntest.Runs(t, program, []string{"convnet"}, "-steps", "1", "-batch", "4", "-cases", "8", "-eval", "4")
}
