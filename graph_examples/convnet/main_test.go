package main

import (
	"testing"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn/learntest"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

func TestLossFalls(t *testing.T) {
	defer func() { withBias = false }()
	small := program
	small.Task = func(s *trial.Settings) (learn.Task, error) {
		return learntest.Rows(16, mnist.Pixels, mnist.Classes).Task(s, newModel), nil
	}
	args := []string{"-steps", "4", "-every", "4", "-batch", "16", "-cases", "16", "-eval", "16", "-lr", "momentum=0.01,rmsprop=0.0002"}
	learntest.Falls(t, small, args...)
	learntest.Falls(t, small, append(args, "-bias", "-optimizers", "kfac")...)
}

func TestProgram(t *testing.T) {
	learntest.Runs(t, program, []string{"convnet"}, "-steps", "1", "-batch", "4", "-cases", "8", "-eval", "4")
}
