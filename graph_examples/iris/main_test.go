package main

import (
	"testing"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn/learntest"
)

func TestLossFalls(t *testing.T) { learntest.Falls(t, program, "-steps", "10") }

func TestProgram(t *testing.T) {
	learntest.Runs(t, program, []string{"iris"}, "-steps", "2", "-batch", "300", "-cases", "640")
}

func TestMachines(t *testing.T) { learntest.SameOnMachines(t, program, "-steps", "4") }
