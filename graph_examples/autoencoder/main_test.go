package main

import (
	"context"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// small has the depth of sizes, and the pixels, but few hidden units.
var small = []int{mnist.Pixels, 12, 10, 8, 5, 8, 10, 12, mnist.Pixels}

// reference is the autoencoder in plain float64 arithmetic: the logits of one case.
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
			if i != code && i != len(layers)-1 {
				s[j] = 1 / (1 + math.Exp(-s[j]))
			}
		}
		a = s
	}
	return a
}

// referenceCost is the mean over the rows of x of -log p(x|z). The pixel's log-probability is from
// whichever of p and 1-p does not cancel.
func referenceCost(layers []layer, x []float32) float64 {
	var sum float64
	cases := len(x) / mnist.Pixels
	for row := range cases {
		xs := x[row*mnist.Pixels : (row+1)*mnist.Pixels]
		for k, z := range reference(layers, xs) {
			logOn, logOff := -math.Log1p(math.Exp(-z)), -math.Log1p(math.Exp(z))
			if z < -30 {
				logOn = z
			}
			if z > 30 {
				logOff = -z
			}
			sum -= float64(xs[k])*logOn + (1-float64(xs[k]))*logOff
		}
	}
	return sum / float64(cases)
}

// randomCases fills pixels with values in [0, 1], some of them exactly 0 or 1.
func randomCases(rng *rand.Rand, pixels []float32) {
	for i := range pixels {
		pixels[i] = min(max(rng.Float32()*1.5-0.25, 0), 1)
	}
}

// TestCostAndGradient compares the graph with the reference, for ordinary logits and for logits up
// to hundreds. The reference gradient is by central differences.
func TestCostAndGradient(t *testing.T) {
	for _, scale := range []float32{1, 100} {
		rng := rand.New(rand.NewPCG(7, 7))
		layers := initialLayers(small, 7)
		last := layers[len(layers)-1]
		for i, w := range last.w.Data().([]float32) {
			last.w.Data().([]float32)[i] = w * scale
		}
		m := newModel(layers, 3)
		if _, err := gorgonia.Grad(m.cost, m.params...); err != nil {
			t.Fatal(err)
		}
		vm := gorgonia.NewTapeMachine(m.graph, gorgonia.BindDualValues(m.params...))
		defer vm.Close()
		randomCases(rng, m.pixels)
		before := slices.Clone(m.pixels)
		if err := vm.RunAll(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(before, m.pixels) {
			t.Fatal("the run changed its input")
		}
		got, want := float64(m.cost.Value().Data().(float32)), referenceCost(layers, m.pixels)
		if math.IsInf(want, 0) || math.Abs(got-want) > 1e-5*want {
			t.Errorf("scale %g: cost %.7g, want %.7g", scale, got, want)
		}

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
			for range 5 {
				k := rng.IntN(len(w))
				if want := difference(layers, m.pixels, &w[k]); math.Abs(float64(g[k])-want) > 1e-4*largest {
					t.Errorf("scale %g, parameter %d, entry %d: gradient %.7g, want %.7g (largest entry %.3g)",
						scale, i, k, g[k], want, largest)
				}
			}
		}
	}
}

// difference is the derivative of the reference cost with respect to w, by central differences with
// Richardson's extrapolation. The steps are powers of two, so that float32 weights take them
// exactly enough.
func difference(layers []layer, x []float32, w *float32) float64 {
	value := *w
	defer func() { *w = value }()
	at := func(h float32) float64 {
		*w = value + h
		right, up := *w, referenceCost(layers, x)
		*w = value - h
		return (up - referenceCost(layers, x)) / float64(right-*w)
	}
	const h = 1.0 / 1024
	return (4*at(h/2) - at(h)) / 3
}

func TestDecoder(t *testing.T) {
	_, test, err := mnist.Load("")
	if err != nil {
		t.Fatal(err)
	}
	test = test.First(decodeBatch + 3) // a full batch and a part of one
	layers := initialLayers(small, 3)
	d := newDecoder(layers)
	defer d.Close()
	digits, err := d.All(test)
	if err != nil {
		t.Fatal(err)
	}
	if len(digits) != test.Len() {
		t.Fatalf("%d reconstructions of %d digits", len(digits), test.Len())
	}
	var sum float64
	for i, x := range test.Digits() {
		for k, z := range reference(layers, x) {
			want := 1 / (1 + math.Exp(-z))
			if math.Abs(want-float64(digits[i][k])) > 1e-5 {
				t.Fatalf("digit %d, pixel %d: reconstruction %g, want %g", i, k, digits[i][k], want)
			}
			sum += (want - float64(x[k])) * (want - float64(x[k]))
		}
	}
	got, err := d.Error(test)
	if want := sum / float64(test.Len()); err != nil || math.Abs(got-want) > 1e-5*want {
		t.Errorf("error %g (%v), want %g", got, err, want)
	}
}

// TestProgram runs the whole program on a small part of the data.
func TestProgram(t *testing.T) {
	out := t.TempDir()
	args := strings.Fields("-updates-only -steps 2 -every 1 -batch 8 -cases 20 -eval 5 -out " + out)
	if status := trial.Main("autoencoder", args, defaults, run, io.Discard); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	for _, name := range []string{"error.png", "digits.png"} {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMissingData(t *testing.T) {
	s := defaults
	s.Data, s.Out = t.TempDir(), t.TempDir()
	if err := run(context.Background(), s); err == nil {
		t.Error("no error for an empty data folder")
	}
}
