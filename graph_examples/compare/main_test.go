package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn/learntest"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
	"github.com/gorgonia-kfac/kfac/internal/iris"
)

// smallText has charrnn train on little.
const smallText = "-steps 12 -every 12 -batch 16 -cases 320 -eval 64 -length 4 -hidden 6 -lr momentum=0.1,rmsprop=0.003"

// smallDigits has the models of MNIST train on little.
const smallDigits = "-every 4 -steps 4 "

func TestLossFalls(t *testing.T) {
	learntest.Falls(t, linear, strings.Fields("-steps 100")...)
	learntest.Falls(t, logistic, strings.Fields("-steps 10")...)
	learntest.Falls(t, flowers, strings.Fields("-steps 10")...)
	// A handful of sequences: K-FAC must not be carried away by the first of them.
	few := smallText + " -steps 5 -every 5 -batch 8 -optimizers kfac"
	for _, args := range []string{smallText, smallText + " -lstm", few, few + " -lstm"} {
		learntest.Falls(t, charrnn, strings.Fields(args)...)
	}
}

func TestLossOfConvnetFalls(t *testing.T) {
	defer func() { withBias = false }()
	few := func(cases int) learn.Program {
		p := convnet
		p.Task = func(s *trial.Settings) (learn.Task, error) {
			return learntest.Rows(cases, mnist.Pixels, mnist.Classes).Task(s, newConvnet), nil
		}
		return p
	}
	args := smallDigits + "-batch 16 -cases 16 -eval 16 -lr momentum=0.01,rmsprop=0.0002"
	learntest.Falls(t, few(16), strings.Fields(args)...)
	learntest.Falls(t, few(16), strings.Fields(args+" -bias -optimizers kfac")...)

	// A handful of images, of which Dropout draws other units for each pass.
	learntest.Falls(t, few(4), strings.Fields("-steps 8 -every 8 -batch 4 -cases 4 -eval 4 -optimizers kfac")...)
}

func TestLossOfStackedFalls(t *testing.T) {
	defer func() { untied = false }()
	const pixels = 30
	args := smallDigits + "-batch 8 -cases 8 -eval 8 -lr momentum=0.1,rmsprop=0.001"
	for _, c := range []struct {
		model func(learn.Options) *learn.Model
		args  string
	}{
		{newAutoencoder(pixels, 6, 0.1), args},
		{newAutoencoder(pixels, 6, 0.1), args + " -untied"},
		{newClassifier([]int{pixels, 6, 5}), args},
	} {
		small := stacked
		small.Task = func(s *trial.Settings) (learn.Task, error) {
			return learntest.Rows(8, pixels, mnist.Classes).Task(s, c.model), nil
		}
		untied = false
		learntest.Falls(t, small, strings.Fields(c.args)...)
	}
}

func TestMachines(t *testing.T) {
	for _, p := range []learn.Program{linear, logistic, flowers} {
		learntest.SameOnMachines(t, p, "-steps", "4")
	}
	few := strings.Fields(smallText + " -steps 4")
	learntest.SameOnMachines(t, charrnn, few...)
	learntest.SameOnMachines(t, charrnn, append(few, "-lstm")...)
}

// Each model can be asked for by its name, and draws a picture.
func TestPrograms(t *testing.T) {
	before := sizes
	defer func() { sizes = before }()
	sizes = []int{sizes[0], 5, 4, 3}
	digits := "-steps 2 -every 1 -batch 8 -cases 16 -eval 8"
	args := map[string]string{
		"linear": "-steps 2 -batch 300 -cases 640", "logistic": "-steps 2", "iris": "-steps 2",
		"charrnn": smallText, "convnet": digits, "stacked": digits,
	}
	pictures := map[string][]string{"stacked": {"layer1", "layer2", "layer3"}}
	for _, m := range models {
		out := t.TempDir()
		all := slices.Concat([]string{m.Name, "-out", out}, strings.Fields(args[m.Name]))
		if status := run(all, os.Stderr); status != 0 {
			t.Fatalf("%s: exit status %d", m.Name, status)
		}
		for _, name := range append(pictures[m.Name], m.Name) {
			if info, err := os.Stat(filepath.Join(out, name+".png")); err != nil || info.Size() == 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, args := range [][]string{nil, {"perceptron"}} {
		var out bytes.Buffer
		if status := run(args, &out); status != 2 || !strings.Contains(out.String(), "charrnn") {
			t.Errorf("%q: exit status %d, %q", args, status, out.String())
		}
	}
}

// The programs that stand alone have the flowers of package iris.
func TestIrises(t *testing.T) {
	var want []string
	for _, f := range iris.Flowers() {
		word := ""
		for _, cm := range f.Measurements() {
			word += fmt.Sprintf("%02.0f", 10*cm)
		}
		want = append(want, word)
	}
	for _, name := range []string{"linear", "logistic", "iris"} {
		source, err := os.ReadFile(filepath.Join("..", name, "main.go"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(source), "const irises = `")
		table, _, _ := strings.Cut(rest, "`")
		if got := strings.Fields(table); !slices.Equal(got, want) {
			t.Errorf("%s has %d flowers, not those of Fisher", name, len(got))
		}
	}
}

func TestShortText(t *testing.T) {
	file := filepath.Join(t.TempDir(), "short.txt")
	var out bytes.Buffer
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	status := run([]string{"charrnn", "-data", file}, &out)
	if status != 1 || !strings.Contains(out.String(), "too few") {
		t.Errorf("exit status %d, %q", status, out.String())
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

func TestMain(m *testing.M) { learntest.Main(m, flowers) }

func TestKilled(t *testing.T) { learntest.Killed(t, 4, "-steps", "150", "-batch", "50") }
