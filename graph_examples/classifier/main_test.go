package main

import (
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

var small = []int{mnist.Pixels, 9, 7, mnist.Classes}

// reference is the classifier in plain float64 arithmetic: the logits of one case.
func reference(layers []layer, x []float32) []float64 {
	a := make([]float64, len(x))
	for k, v := range x {
		a[k] = float64(v)
	}
	for i, l := range layers {
		w, b := l.w.Data().([]float32), l.b.Data().([]float32)
		s := make([]float64, len(b))
		for j := range s {
			s[j] = float64(b[j])
			for k, v := range a {
				s[j] += v * float64(w[k*len(b)+j])
			}
			if i < len(layers)-1 {
				s[j] = math.Tanh(s[j])
			}
		}
		a = s
	}
	return a
}

// referenceCost is the mean of -log softmax(z) at the labels.
func referenceCost(layers []layer, data mnist.Set) float64 {
	var sum float64
	for i, x := range data.Digits() {
		z := reference(layers, x)
		var norm float64
		for _, v := range z {
			norm += math.Exp(v - z[data.Label(i)])
		}
		sum += math.Log(norm)
	}
	return sum / float64(data.Len())
}

// TestCostAndGradient compares the graph with the reference, the gradient by central differences.
func TestCostAndGradient(t *testing.T) {
	data, _, err := mnist.Load("")
	if err != nil {
		t.Fatal(err)
	}
	data = data.First(6)
	layers := initialLayers(small, 7)
	m := newModel(layers, data.Len())
	if _, err := gorgonia.Grad(m.cost, m.params...); err != nil {
		t.Fatal(err)
	}
	vm := gorgonia.NewTapeMachine(m.graph, gorgonia.BindDualValues(m.params...))
	defer vm.Close()
	data.CopyPixels(m.pixels, data.Range(0, data.Len()))
	data.CopyOneHot(m.labels, data.Range(0, data.Len()))
	if err := vm.RunAll(); err != nil {
		t.Fatal(err)
	}
	got, want := float64(m.cost.Value().Data().(float32)), referenceCost(layers, data)
	if math.Abs(got-want) > 1e-5*want {
		t.Errorf("cost %.7g, want %.7g", got, want)
	}

	rng := rand.New(rand.NewPCG(7, 7))
	for i, p := range m.params {
		grad, err := p.Grad()
		if err != nil {
			t.Fatal(err)
		}
		g, w := grad.Data().([]float32), p.Value().Data().([]float32)
		var largest float64
		for _, v := range g {
			largest = max(largest, math.Abs(float64(v)))
		}
		for range 10 {
			k := rng.IntN(len(w))
			if want := difference(layers, data, &w[k]); math.Abs(float64(g[k])-want) > 1e-4*largest {
				t.Errorf("parameter %d, entry %d: gradient %.7g, want %.7g (largest entry %.3g)",
					i, k, g[k], want, largest)
			}
		}
	}
}

// difference is the derivative of the reference cost with respect to w, by central differences with
// Richardson's extrapolation.
func difference(layers []layer, data mnist.Set, w *float32) float64 {
	value := *w
	defer func() { *w = value }()
	at := func(h float32) float64 {
		*w = value + h
		right, up := *w, referenceCost(layers, data)
		*w = value - h
		return (up - referenceCost(layers, data)) / float64(right-*w)
	}
	const h = 1.0 / 128
	return (4*at(h/2) - at(h)) / 3
}

func TestClassifier(t *testing.T) {
	_, test, err := mnist.Load("")
	if err != nil {
		t.Fatal(err)
	}
	test = test.First(evalBatch + 3) // a full batch and a part of one
	layers := initialLayers(small, 3)
	var wrong []int
	for i, x := range test.Digits() {
		best, z := 0, reference(layers, x)
		for class, v := range z {
			if v > z[best] {
				best = class
			}
		}
		if best != test.Label(i) {
			wrong = append(wrong, i)
		}
	}
	c := newClassifier(layers)
	defer c.Close()
	got, err := c.Error(test)
	if want := 100 * float64(len(wrong)) / float64(test.Len()); err != nil || got != want {
		t.Errorf("error %g %% (%v), want %g %%", got, err, want)
	}
	set, err := mistakes(layers, test)
	if err != nil || set.Len() != len(wrong) {
		t.Fatalf("%d mistakes (%v), want %d", set.Len(), err, len(wrong))
	}
	for j, i := range wrong {
		if set.Label(j) != test.Label(i) {
			t.Fatalf("mistake %d shows a %d, want a %d", j, set.Label(j), test.Label(i))
		}
	}
	layers[0].w.Data().([]float32)[300*small[1]] = float32(math.NaN())
	if got, err := c.Error(test); err != nil || !math.IsNaN(got) {
		t.Errorf("error %g (%v) with a weight that is not a number, want NaN", got, err)
	}
}

// TestProgram runs the whole program on a small part of the data.
func TestProgram(t *testing.T) {
	out := t.TempDir()
	args := strings.Fields("-updates-only -steps 2 -every 1 -batch 8 -cases 20 -eval 5 -out " + out)
	if status := trial.Main("classifier", args, defaults, run, io.Discard); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	for _, name := range []string{"error.png", "mistakes.png"} {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
