package program

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// always draws the same values.
func always(x ...float64) law {
	return func(_ *rand.Rand, n int) []float64 { return slices.Clone(x[:n]) }
}

// TestTies: where several elements take a maximum, the rules say which of them has the derivative.
func TestTies(t *testing.T) {
	seed := []float64{1}
	for _, c := range []struct {
		name  string
		graph func(b *builder) *gorgonia.Node
		want  [][]float64 // gradients
	}{
		{"max-pooling: the first", func(b *builder) *gorgonia.Node {
			return must(gorgonia.MaxPool2D(b.input(always(1, 3, 3, 2), 1, 1, 2, 2),
				tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
		}, [][]float64{{0, 1, 0, 0}}},
		{"maximum along an axis: each", func(b *builder) *gorgonia.Node {
			return must(gorgonia.Max(b.input(always(1, 3, 3), 3)))
		}, [][]float64{{0, 1, 1}}},
		{"maximum of two: half to each", func(b *builder) *gorgonia.Node {
			return must(gorgonia.MaxBetween(b.input(always(3), 1), b.input(always(3), 1)))
		}, [][]float64{{0.5}, {0.5}}},
		{"absolute value of zero: none", func(b *builder) *gorgonia.Node {
			return must(gorgonia.Abs(b.input(always(0), 1)))
		}, [][]float64{{0}}},
	} {
		b := newBuilder(tensor.Float64, 1)
		s := prepare[float64](t, b, c.graph(b))
		s.forward(nil)
		for i, g := range s.reverse(seed) {
			compare(t, c.name, g, c.want[i], 0)
		}
		dirs := make([][]float64, len(c.want))
		var slope float64
		for i, w := range c.want {
			dirs[i] = random[float64](b.rng, len(w))
			slope += dot(dirs[i], w)
		}
		compare(t, c.name+": tangent", s.tangent(dirs), []float64{slope}, 1e-15)
	}
}

// TestNaN: no rule hides a value that is not a number.
func TestNaN(t *testing.T) {
	nan := math.NaN()
	for name, graph := range map[string]func(b *builder) *gorgonia.Node{
		"max-pooling": func(b *builder) *gorgonia.Node {
			return must(gorgonia.MaxPool2D(b.input(always(1, nan, 3, 2), 1, 1, 2, 2),
				tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
		},
		"maximum": func(b *builder) *gorgonia.Node { return must(gorgonia.Max(b.input(always(1, nan, 3), 3))) },
		"MaxBetween": func(b *builder) *gorgonia.Node {
			return must(gorgonia.MaxBetween(b.input(always(nan), 1), b.input(always(1), 1)))
		},
		"MinBetween": func(b *builder) *gorgonia.Node {
			return must(gorgonia.MinBetween(b.input(always(nan), 1), b.input(always(1), 1)))
		},
		"softmax":   func(b *builder) *gorgonia.Node { return must(gorgonia.SoftMax(b.input(always(1, nan), 2))) },
		"sparsemax": func(b *builder) *gorgonia.Node { return must(gorgonia.Sparsemax(b.input(always(1, nan), 2))) },
		"batch norm": func(b *builder) *gorgonia.Node {
			x, scale, shift := b.input(always(1, nan), 2, 1), b.input(always(1), 1, 1), b.input(always(1), 1, 1)
			y, _, _, _, err := gorgonia.BatchNorm(x, scale, shift, 0.9, 0.1)
			return must(y, err)
		},
		"relu": func(b *builder) *gorgonia.Node { return must(gorgonia.Rectify(b.input(always(nan), 1))) },
	} {
		b := newBuilder(tensor.Float64, 1)
		s := prepare[float64](t, b, graph(b))
		if y := s.forward(nil); !slices.ContainsFunc(y, math.IsNaN) {
			t.Errorf("%s: %v", name, y)
		}
	}
}
