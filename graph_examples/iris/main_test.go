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

func TestMain(m *testing.M) { learntest.Main(m, program) }

func TestKilled(t *testing.T) { learntest.Killed(t, 4, "-steps", "150", "-batch", "50") }
