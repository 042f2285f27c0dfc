package layers_test

import (
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/layers"
)

// A geometry is that of a convolution of images (cases, channels, height, width).
// Pairs are of height and width.
type geometry struct {
	channels, height, width int
	kernel                  [2]int
	pad, stride, dilation   [2]int
}

// filtered is a convolution by Conv2d with 3 filters.
func (g geometry) filtered(s *sketch) node {
	x := s.input("x", cases, g.channels, g.height, g.width)
	filter := s.param("filter", 3, g.channels, g.kernel[0], g.kernel[1])
	return flat(must(gorgonia.Conv2d(x, filter, tensor.Shape(g.kernel[:]), g.pad[:], g.stride[:], g.dilation[:])))
}

// flat makes a row of the values of each case.
func flat(h node) node { return reshape(h, h.Shape()[0], h.Shape().TotalSize()/h.Shape()[0]) }

var (
	one  = [2]int{1, 1}
	none = [2]int{0, 0}
)

var convolutionWirings = []wiring{
	{"Conv2d", geometry{2, 3, 3, [2]int{2, 2}, none, one, one}.filtered,
		"filter: 8 to 3 stored out x in, rows [20]: convolution 2x2, stride 1, x * w, 4 positions per case"},
	{"padding and stride", geometry{2, 8, 8, [2]int{3, 3}, one, [2]int{2, 2}, one}.filtered,
		"filter: 18 to 3 stored out x in, rows [80]: " +
			"convolution 3x3, stride 2, padding 1, x * w, 16 positions per case"},
	{"different along height and width",
		geometry{1, 9, 8, [2]int{3, 2}, [2]int{1, 0}, [2]int{2, 1}, [2]int{1, 2}}.filtered,
		"filter: 6 to 3 stored out x in, rows [150]: " +
			"convolution 3x2, stride 2x1, padding 1x0, dilation 1x2, x * w, 30 positions per case"},
	{"dilation", geometry{1, 7, 7, [2]int{3, 3}, [2]int{2, 2}, one, [2]int{2, 2}}.filtered,
		"filter: 9 to 3 stored out x in, rows [245]: " +
			"convolution 3x3, stride 1, padding 2, dilation 2, x * w, 49 positions per case"},
	{"pixels", geometry{4, 3, 3, one, none, one, one}.filtered,
		"filter: 4 to 3 stored out x in, rows [45]: convolution 1x1, stride 1, x * w, 9 positions per case"},
	{"the whole image", geometry{2, 3, 4, [2]int{3, 4}, none, one, one}.filtered,
		"filter: 24 to 3 stored out x in, rows [5]: convolution 3x4, stride 1, x * w"},
	{"a row of images", geometry{2, 3, 8, [2]int{1, 3}, none, one, one}.filtered,
		"filter: 6 to 3 stored out x in, rows [90]: convolution 1x3, stride 1, x * w, 18 positions per case"},

	{"Conv1d", func(s *sketch) node {
		return flat(must(gorgonia.Conv1d(s.input("x", cases, 2, 1, 9), s.param("filter", 3, 2, 1, 3), 3, 1, 2, 1)))
	}, "filter: 6 to 3 stored out x in, rows [25]: convolution 3, stride 2, padding 1, x * w, 5 positions per case"},
	{"Conv1d, dilated", func(s *sketch) node {
		return flat(must(gorgonia.Conv1d(s.input("x", cases, 2, 1, 9), s.param("filter", 3, 2, 1, 3), 3, 0, 1, 2)))
	}, "filter: 6 to 3 stored out x in, rows [25]: convolution 3, stride 1, dilation 2, x * w, 5 positions per case"},

	{"bias of channels", func(s *sketch) node {
		h := convolve(s.input("x", cases, 2, 3, 3), s.param("f", 3, 2, 2, 2), 0, 1)
		return reshape(tanh(plus(h, s.param("b", 1, 3, 1, 1), 0, 2, 3)), cases, 12)
	}, "f + b: 8 to 3 stored out x in, rows [20]: convolution 2x2, stride 1, x * w + b, 4 positions per case"},

	{"Im2Col and Mul", func(s *sketch) node {
		x := s.input("x", cases, 2, 4, 4)
		patches := must(gorgonia.Im2Col(x, []int{2, 2}, []int{0, 0}, []int{1, 1}, []int{1, 1}))
		h := plus(mul(reshape(patches, cases*9, 8), s.param("f", 8, 3)), s.param("b", 1, 3), 0)
		return reshape(h, cases, 27)
	}, "f + b: 8 to 3, rows [45]: convolution 2x2, stride 1, x * w + b, 9 positions per case"},

	{"two images", func(s *sketch) node {
		f := s.param("f", 3, 2, 2, 2)
		left, right := convolve(s.input("x", cases, 2, 3, 3), f, 0, 1), convolve(s.input("y", cases, 2, 3, 3), f, 0, 1)
		return reshape(sub(left, right), cases, 12)
	}, "f: 8 to 3 stored out x in, rows [20 20]: convolution 2x2, stride 1, x * w, used 2 times, 8 positions per case"},

	{"two images with different strides", func(s *sketch) node {
		f := s.param("f", 3, 2, 2, 2)
		left, right := convolve(s.input("x", cases, 2, 2, 2), f, 0, 1), convolve(s.input("y", cases, 2, 2, 2), f, 0, 2)
		return flat(add(left, right))
	}, "f: 8 to 3 stored out x in, rows [5 5]: dense layer x w^T, used 2 times"},

	{"patches that are not unfolded from an image", func(s *sketch) node {
		return reshape(mul(reshape(s.input("patches", cases, 9, 8), cases*9, 8), s.param("f", 8, 3)), cases, 27)
	}, "f: 8 to 3, rows [45]: dense layer x w, 9 positions per case"},
}

func TestConvolution(t *testing.T) { checkWirings(t, convolutionWirings) }

// What row ky+1 of a kernel sees at a position is what row ky sees Shift positions further down.
func TestGrid(t *testing.T) {
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		pair := func(name string, from, to int) [2]int {
			return [2]int{rapid.IntRange(from, to).Draw(t, name+" y"), rapid.IntRange(from, to).Draw(t, name+" x")}
		}
		g := geometry{channels: rapid.IntRange(1, 3).Draw(t, "channels"), height: 9, width: 8,
			kernel: pair("kernel", 1, 3), pad: pair("pad", 0, 1),
			stride: pair("stride", 1, 2), dilation: pair("dilation", 1, 2)}
		s := &sketch{graph: gorgonia.NewGraph()}
		l := find(t, s, g.filtered(s)).approximate(whole).layers[0]
		grid := l.Patches
		outHeight := (g.height+2*g.pad[0]-g.dilation[0]*(g.kernel[0]-1)-1)/g.stride[0] + 1
		repeats := g.kernel[0] > 1 && g.dilation[0]%g.stride[0] == 0 && outHeight >= 4*(g.dilation[0]/g.stride[0])
		if (grid != nil) != repeats {
			t.Fatalf("%v: grid %v, want one: %v", g, grid, repeats)
		}
		if grid == nil {
			return
		}
		taken++
		positions := grid.Height * grid.Width
		if grid.KernelRows != g.kernel[0] || positions != l.Positions(cases) || len(grid.Place) != l.In {
			t.Fatalf("%v: %+v", g, *grid)
		}
		// A patch lists channels, rows and columns of the kernel; sorted, it lists rows first.
		at := make([]int, l.In)
		for i, p := range grid.Place {
			at[p] = i
		}
		perRow := l.In / g.kernel[0]
		for i := range l.In - perRow {
			if at[i+perRow] != at[i]+g.kernel[1] {
				t.Errorf("%v: elements %d and %d follow each other in a column of the kernel", g, at[i], at[i+perRow])
			}
		}
		for y := range grid.Height - grid.Shift {
			for ky := range g.kernel[0] - 1 {
				if (y+grid.Shift)*g.stride[0]+ky*g.dilation[0] != y*g.stride[0]+(ky+1)*g.dilation[0] {
					t.Fatalf("%v: row %d at %d is not row %d at %d", g, ky, y+grid.Shift, ky+1, y)
				}
			}
		}
	})
	if taken == 0 {
		t.Error("no convolution had a grid")
	}
}

// No grid where the patches are not all there is to A.
func TestNoGrid(t *testing.T) {
	g := geometry{2, 9, 8, [2]int{3, 3}, one, one, one}
	for name, a := range map[string]layers.Approximation{
		"whole":        whole,
		"diagonal A":   {MaxDim: 17, Sharing: layers.Expand},
		"reduced":      {MaxDim: 100, Sharing: layers.Reduce},
		"uncorrelated": {MaxDim: 100, Sharing: layers.Expand, Uncorrelated: true},
	} {
		s := &sketch{graph: gorgonia.NewGraph()}
		l := find(t, s, g.filtered(s)).approximate(a).layers[0]
		if (l.Patches != nil) != (name == "whole") {
			t.Errorf("%s: grid %v", name, l.Patches)
		}
	}
}

// Pixels are taken to be uncorrelated where that makes a factor smaller and nothing is against it.
func TestUncorrelated(t *testing.T) {
	kernel := func(k, channels int) func(s *sketch) node {
		return geometry{channels, 4, 4, [2]int{k, k}, none, one, one}.filtered
	}
	pooled := func(s *sketch) node {
		h := convolve(s.input("x", cases, 2, 4, 4), s.param("filter", 3, 2, 2, 2), 0, 1)
		return reshape(globalAverage(h), cases, 3)
	}
	for _, test := range []struct {
		name     string
		out      func(s *sketch) node
		a        layers.Approximation
		channels int
		block    string
	}{
		{"kernel of 2 x 2", kernel(2, 2), layers.Approximation{MaxDim: 100}, 2, "filter: A 2 channels, G 3"},
		{"kernel of one pixel", kernel(1, 2), layers.Approximation{MaxDim: 100}, 0, "filter: A 2, G 3"},
		{"a larger whole factor", kernel(2, 2), layers.Approximation{MaxDim: 3}, 2, "filter: A 2 channels, G 3"},
		{"too many channels", kernel(2, 3), layers.Approximation{MaxDim: 3}, 0, "filter: diagonal A 12, G 3"},
		{"too many filters", kernel(2, 1), layers.Approximation{MaxDim: 2}, 0, "filter: diagonal A 4, diagonal G 3"},
		{"reduced", pooled, layers.Approximation{MaxDim: 100}, 0, "filter: A 8, G 3"},
		{"pooled, expanded", pooled, layers.Approximation{MaxDim: 100, Sharing: layers.Expand}, 2,
			"filter: A 2 channels, G 3"},
	} {
		test.a.Uncorrelated = true
		m, _ := build(t, test.out)
		l := m.approximate(test.a).layers[0]
		if l.Channels != test.channels || l.Block() != test.block {
			t.Errorf("%s: %d channels, block %q, want %d, %q",
				test.name, l.Channels, l.Block(), test.channels, test.block)
		}
	}
	m, _ := build(t, kernel(2, 2))
	got := m.approximate(layers.Approximation{MaxDim: 100, Uncorrelated: true}).layers[0].Describe(cases)
	if want := "convolution 2x2, stride 1, x * w, 9 positions per case, pixels uncorrelated"; got != want {
		t.Errorf("described as %q, want %q", got, want)
	}
}
