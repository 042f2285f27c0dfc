package kfac

import (
	"fmt"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A convolution is the geometry of one layer, for images of (channels, height, width). The pairs
// are of height and width.
type convolution struct {
	Height, Width, Channels, Filters int
	Kernel, Stride, Pad, Dilation    [2]int
}

// starts are where along an axis the windows begin that lie within the padded image.
func (v convolution) starts(axis int) (starts []int) {
	length, reach := [2]int{v.Height, v.Width}[axis], (v.Kernel[axis]-1)*v.Dilation[axis]
	for at := -v.Pad[axis]; at+reach < length+v.Pad[axis]; at += v.Stride[axis] {
		starts = append(starts, at)
	}
	return starts
}

// patches lists the patch of each location of an image: channel by channel, row by row, with zeros
// outside.
func (v convolution) patches(image []float64) (rows [][]float64) {
	for _, top := range v.starts(0) {
		for _, left := range v.starts(1) {
			var patch []float64
			for c := range v.Channels {
				for i := range v.Kernel[0] {
					for j := range v.Kernel[1] {
						y, x, pixel := top+i*v.Dilation[0], left+j*v.Dilation[1], 0.0
						if 0 <= y && y < v.Height && 0 <= x && x < v.Width {
							pixel = image[(c*v.Height+y)*v.Width+x]
						}
						patch = append(patch, pixel)
					}
				}
			}
			rows = append(rows, patch)
		}
	}
	return rows
}

func (v convolution) locations() int { return len(v.starts(0)) * len(v.starts(1)) }
func (v convolution) patch() int     { return v.Channels * v.Kernel[0] * v.Kernel[1] }

// The ways to write a convolution.
const (
	conv2d   = "Conv2d"
	conv1d   = "Conv1d" // for images of height 1
	unfolded = "Im2Col and Mul"
)

// apply writes the layer with parameters filter and, if bias, b. The result is (cases, filters,
// locations), or (cases, locations, filters) if unfolded.
func (v convolution) apply(
	s *testnet.Sketch, x *gorgonia.Node, form string, bias bool,
) (h *gorgonia.Node, params gorgonia.Nodes) {
	cases := x.Shape()[0]
	if form == unfolded {
		filter := s.Random("filter", v.patch(), v.Filters)
		columns := gorgonia.Must(gorgonia.Im2Col(x, v.Kernel[:], v.Pad[:], v.Stride[:], v.Dilation[:]))
		columns = testnet.Reshape(columns, cases*v.locations(), v.patch())
		h, params = testnet.Mul(columns, filter), gorgonia.Nodes{filter}
		if bias {
			b := s.Random("b", 1, v.Filters)
			h, params = testnet.AddRow(h, b), append(params, b)
		}
		return testnet.Reshape(h, cases, v.locations(), v.Filters), params
	}
	filter := s.Random("filter", v.Filters, v.Channels, v.Kernel[0], v.Kernel[1])
	params = gorgonia.Nodes{filter}
	if form == conv1d {
		h = gorgonia.Must(gorgonia.Conv1d(x, filter, v.Kernel[1], v.Pad[1], v.Stride[1], v.Dilation[1]))
	} else {
		h = testnet.Conv2d(x, filter, tensor.Shape(v.Kernel[:]), v.Pad[:], v.Stride[:], v.Dilation[:])
	}
	if bias {
		b := s.Random("b", 1, v.Filters, 1, 1)
		h, params = testnet.AddChannel(h, b), append(params, b)
	}
	return testnet.Reshape(h, cases, v.Filters, v.locations()), params
}

// net is the convolution by itself: all that it computes are the outputs of its case.
func (v convolution) net(seed uint64, cases int, form string, bias bool) *testnet.Net {
	s := testnet.NewSketch(seed)
	n := &testnet.Net{Sketch: s, X: s.Random("x", cases, v.Channels, v.Height, v.Width)}
	h, params := v.apply(s, n.X, form, bias)
	n.Out, n.Params = testnet.Reshape(h, cases, v.Filters*v.locations()), params
	n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
	return n
}

// checkConvolution compares what is captured, and the factors for a random gradient of the outputs,
// with loops over the locations. It reports whether the patches repeat each other.
func checkConvolution(t rapid.TB, v convolution, form string, bias bool) (repeated bool) {
	t.Helper()
	const cases = 2
	n := v.net(1, cases, form, bias)
	c := attach(t, n)
	all := placedLayers(c)
	if len(all) != 1 || len(c.plan.blocks) != 1 {
		t.Fatalf("not one layer:\n%v", c.describe())
	}
	locations, seed := v.locations(), testnet.NewSketch(2).Normals(n.Out.Shape().TotalSize())
	sweepFrom(t, c, seed)

	var patches, grads [][]float64
	for i := range cases {
		image := v.Channels * v.Height * v.Width
		patches = append(patches, v.patches(testnet.Data(n.X)[i*image:(i+1)*image])...)
		for at := range locations {
			var g []float64
			for f := range v.Filters {
				k := f*locations + at
				if form == unfolded {
					k = at*v.Filters + f
				}
				g = append(g, seed[i*v.Filters*locations+k])
			}
			grads = append(grads, g)
		}
	}
	if len(patches) != cases*locations {
		t.Fatalf("%d patches for %d locations", len(patches), locations)
	}
	if seen := all[0].seen(c); !slices.Equal(seen.A, slices.Concat(patches...)) ||
		!slices.Equal(seen.G, slices.Concat(grads...)) {
		t.Fatalf("captured %.3g and %.3g, want %.3g and %.3g",
			seen.A[:5], seen.G[:5], slices.Concat(patches...)[:5], slices.Concat(grads...)[:5])
	}
	if bias {
		for i := range patches {
			patches[i] = append(patches[i], 1)
		}
	}
	avg := observed(t, c)
	omega, gamma := outerProducts(patches, cases), outerProducts(grads, cases)
	a, g := all[0].factors(avg)
	testnet.Near(t, "A, the mean over cases and locations", a, scaled(omega, 1/float64(locations)), identity)
	testnet.Near(t, "G, the mean over cases of the sum over locations", g, gamma, identity)
	if v.patch()*v.Filters <= 60 {
		// KFC (Grosse & Martens 2016, section 3.1): Omega is a sum over locations, Gamma a mean
		// over them.
		var want mat.Dense
		want.Kronecker(square(omega), square(scaled(gamma, 1/float64(locations))))
		testnet.Near(t, "Omega (x) Gamma", flatOf(all[0].kronecker(avg)), flatOf(&want), identity)
	}
	return all[0].Patches != nil
}

// sweepFrom runs the model forward, and back from a gradient of its first output.
func sweepFrom(t rapid.TB, c *training[float64], seed []float64) {
	t.Helper()
	m := c.plan.model
	testnet.Check(t, m.run.Forward(nil))
	seeds := []program.Seed[float64]{{Node: m.outputs[0].node, Data: seed}}
	testnet.Check(t, m.run.Reverse(seeds, c.plan.path))
}

// seen are the rows that the layer saw in the model's run.
func (l placedLayer) seen(c *training[float64]) curvature.Rows[float64] {
	h := c.plan.hooks[l.index].(*layerHook[float64])
	return h.capture(c.plan.model.run, make([]rowBuffer[float64], len(h.layers)))[l.group]
}

// outerProducts is the sum of x x^T over the rows, divided by n.
func outerProducts(rows [][]float64, n int) []float64 {
	d := len(rows[0])
	sum := make([]float64, d*d)
	for _, x := range rows {
		for i, xi := range x {
			for j, xj := range x {
				sum[i*d+j] += xi * xj / float64(n)
			}
		}
	}
	return sum
}

func scaled(x []float64, by float64) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = by * v
	}
	return y
}

// The grid of kfac-jax's tests of patches, with dilations in addition.
func TestConvolutionGrid(t *testing.T) {
	repeated, all := 0, 0
	check := func(v convolution) {
		all++
		if checkConvolution(t, v, conv2d, true) {
			repeated++
		}
	}
	for _, side := range []int{8, 16} {
		for _, kernel := range [][2]int{{1, 2}, {3, 3}, {4, 5}} {
			for _, stride := range [][2]int{{1, 1}, {1, 2}, {1, 3}, {2, 2}, {2, 3}, {3, 3}} {
				for _, pad := range [][2]int{{0, 0}, {kernel[0] / 2, kernel[1] / 2}} {
					v := convolution{side, side, 2, 3, kernel, stride, pad, [2]int{1, 1}}
					check(v)
					if side == 8 && stride[0] == stride[1] && kernel[0] < 4 {
						for _, dilation := range [][2]int{{2, 1}, {1, 3}, {2, 2}} {
							v.Dilation = dilation
							check(v)
						}
					}
				}
			}
		}
	}
	if repeated == 0 || repeated == all { // the shortcut for them gives A
		t.Errorf("the patches of %d convolutions of %d repeat each other", repeated, all)
	}
}

// All ways to write it, with and without bias, for any geometry.
func TestConvolutions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pair := func(name string, low, high int) [2]int {
			return [2]int{rapid.IntRange(low, high).Draw(t, name+" y"), rapid.IntRange(low, high).Draw(t, name+" x")}
		}
		sides := pair("side", 1, 7)
		v := convolution{sides[0], sides[1], rapid.IntRange(1, 3).Draw(t, "channels"),
			rapid.IntRange(1, 3).Draw(t, "filters"),
			pair("kernel", 1, 4), pair("stride", 1, 3), pair("pad", 0, 3), pair("dilation", 1, 3)}
		form := rapid.SampledFrom([]string{conv2d, conv1d, unfolded}).Draw(t, "form")
		if form == conv1d {
			v.Height, v.Kernel[0], v.Stride[0], v.Pad[0], v.Dilation[0] = 1, 1, 1, 0, 1
		}
		if v.locations() == 0 {
			t.Skip("the window does not fit")
		}
		checkConvolution(t, v, form, rapid.Bool().Draw(t, "bias"))
	})
}

// Padding on one side only, as by joining zeros to the image, and images that are not square.
func TestConvolutionOfJoinedZeros(t *testing.T) {
	const cases = 3
	s := testnet.NewSketch(3)
	x, zeros := s.Random("x", cases, 2, 9, 6), s.Leaf("zeros", make([]float64, cases*2*9*5), cases, 2, 9, 5)
	wide := testnet.Concat(3, x, zeros)
	v := convolution{9, 11, 2, 2, [2]int{2, 2}, [2]int{2, 2}, [2]int{0, 0}, [2]int{1, 1}}
	h, params := v.apply(s, wide, conv2d, false)
	n := &testnet.Net{Sketch: s, X: x, Out: testnet.Reshape(h, cases, v.Filters*v.locations()), Params: params}
	n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
	c := attach(t, n)
	a, _ := placedLayers(c)[0].factors(exactAverages(t, c, nil))
	var patches [][]float64
	for i := range cases {
		var image []float64
		for row := range 2 * 9 {
			from := (i*2*9 + row) * 6
			image = append(append(image, testnet.Data(x)[from:from+6]...), 0, 0, 0, 0, 0)
		}
		patches = append(patches, v.patches(image)...)
	}
	testnet.Near(t, "A", a, outerProducts(patches, cases*v.locations()), identity)
}

// A convolution of which one location remains is a dense layer of the pixels.
func TestConvolutionOverTheWholeImage(t *testing.T) {
	checkConvolution(t, convolution{3, 4, 2, 3, [2]int{3, 4}, [2]int{1, 1}, [2]int{0, 0}, [2]int{1, 1}}, conv2d, true)
}

// linearConvolutions are a convolution and one of 1 x 1 behind it; the loss is a sum over
// locations.
func linearConvolutions(form string, bias bool) *testnet.Net {
	const cases = 3
	s := testnet.NewSketch(4)
	first := convolution{4, 3, 2, 3, [2]int{2, 2}, [2]int{1, 1}, [2]int{1, 0}, [2]int{1, 1}}
	n := &testnet.Net{Sketch: s, X: s.Random("x", cases, 2, 4, 3)}
	h, params := first.apply(s, n.X, form, bias)
	t := first.locations()
	w := s.Random("w", 2, first.Filters, 1, 1)
	if form == unfolded {
		h = gorgonia.Must(gorgonia.Transpose(h, 0, 2, 1))
	}
	h = testnet.Convolve(testnet.Reshape(h, cases, first.Filters, t, 1), w, 0, 1)
	n.Params = append(params, w)
	if bias {
		b := s.Random("b2", 1, 2, 1, 1)
		h, n.Params = testnet.AddChannel(h, b), append(n.Params, b)
	}
	n.Out = testnet.Reshape(h, cases, 2*t)
	n.Cost, n.Loss = testnet.Squares(0.7)(s, n.Out)
	return n
}

// In a linear net of convolutions that do not mix locations after the first, with the loss a sum
// over locations, KFC is exact.
func TestLinearConvolutionIsExact(t *testing.T) {
	for _, form := range []string{conv2d, unfolded} {
		for _, bias := range []bool{false, true} {
			t.Run(fmt.Sprint(form, " bias=", bias), func(t *testing.T) {
				n := linearConvolutions(form, bias)
				c := attach(t, n)
				if len(placedLayers(c)) != 2 || len(c.plan.blocks) != 2 {
					t.Fatalf("not two layers:\n%v", c.describe())
				}
				checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
			})
		}
	}
}

// With one case and one location, any net is.
func TestConvolutionOfOneLocationIsExact(t *testing.T) {
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			s := testnet.NewSketch(5)
			v := convolution{2, 2, 2, 3, [2]int{2, 2}, [2]int{1, 1}, [2]int{0, 0}, [2]int{1, 1}}
			n := &testnet.Net{Sketch: s, X: s.Random("x", 1, 2, 2, 2)}
			h, params := v.apply(s, n.X, conv2d, true)
			w := s.Random("w", 3, 2)
			n.Out, n.Params = testnet.Mul(testnet.Tanh(testnet.Reshape(h, 1, 3)), w), append(params, w)
			n.Cost, n.Loss = loss(s, n.Out)
			c := attach(t, n)
			checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
		})
	}
}

// The Jacobians of a convolutional net are those that finite differences of Gorgonia's own machine
// give.
func TestConvolutionByFiniteDifferences(t *testing.T) {
	s := testnet.NewSketch(6)
	v := convolution{4, 4, 1, 2, [2]int{3, 2}, [2]int{2, 1}, [2]int{1, 1}, [2]int{1, 2}}
	n := &testnet.Net{Sketch: s, X: s.Random("x", 2, 1, 4, 4)}
	h, params := v.apply(s, n.X, conv2d, true)
	w := s.Random("w", v.Filters*v.locations(), 2)
	n.Out, n.Params = testnet.Mul(testnet.Tanh(testnet.Reshape(h, 2, v.Filters*v.locations())), w), append(params, w)
	n.Cost, n.Loss = testnet.Classes(s, n.Out)
	numeric := differences(t, n)
	for i, j := range jacobians(t, attach(t, n)) {
		testnet.Near(t, fmt.Sprint("case ", i), flatOf(j), flatOf(numeric[i]), 1e-9)
	}
}

// A 1 x 1 convolution is a dense layer applied to every pixel.
func TestConvolutionOfPixels(t *testing.T) {
	const cases, side, channels, filters = 3, 3, 4, 2
	v := convolution{side, side, channels, filters, [2]int{1, 1}, [2]int{1, 1}, [2]int{0, 0}, [2]int{1, 1}}
	conv := v.net(7, cases, conv2d, true)
	s := testnet.NewSketch(8)
	w, b := s.Random("w", channels, filters), s.Random("b", 1, filters)
	x := s.Random("x", cases, side*side, channels)
	for i := range cases {
		for c := range channels {
			for k := range side * side {
				testnet.Data(x)[(i*side*side+k)*channels+c] = testnet.Data(conv.X)[(i*channels+c)*side*side+k]
			}
		}
	}
	dense := &testnet.Net{Sketch: s, Params: gorgonia.Nodes{w, b}}
	h := testnet.AddRow(testnet.Mul(testnet.Reshape(x, cases*side*side, channels), w), b)
	dense.Out = testnet.Reshape(h, cases, side*side*filters)
	dense.Cost, dense.Loss = testnet.Squares(1)(s, dense.Out)
	factors := func(n *testnet.Net) (a, g []float64) {
		c := attach(t, n)
		return placedLayers(c)[0].factors(exactAverages(t, c, nil))
	}
	gotA, gotG := factors(conv)
	wantA, wantG := factors(dense)
	testnet.Near(t, "A", gotA, wantA, identity)
	testnet.Near(t, "G", gotG, wantG, identity)
}

// Factors have the rank that the geometry leaves: of one image, no more than there are locations
// or, where the dilation lets only the middle of each patch lie within it, channels.
func TestConvolutionRank(t *testing.T) {
	for _, test := range []struct {
		name  string
		v     convolution
		wantA int
	}{
		{"four locations", convolution{3, 3, 1, 2, [2]int{3, 3}, [2]int{2, 2}, [2]int{1, 1}, [2]int{1, 1}}, 4},
		{"pixels of nine channels", convolution{3, 3, 9, 2, [2]int{1, 1}, [2]int{1, 1}, [2]int{0, 0}, [2]int{1, 1}}, 9},
		{"six locations", convolution{4, 3, 1, 2, [2]int{3, 3}, [2]int{2, 1}, [2]int{1, 1}, [2]int{1, 1}}, 6},
		{"dilated beyond the image", convolution{3, 3, 2, 2, [2]int{3, 3}, [2]int{1, 1}, [2]int{3, 3}, [2]int{3, 3}},
			2},
	} {
		n := test.v.net(9, 1, conv2d, false)
		c := attach(t, n)
		a, _ := placedLayers(c)[0].factors(exactAverages(t, c, nil))
		if got := rank(a); got != test.wantA {
			t.Errorf("%s: rank %d of A, want %d", test.name, got, test.wantA)
		}
	}
}

// rank is the number of singular values above rounding.
func rank(x []float64) (n int) {
	var svd mat.SVD
	svd.Factorize(square(x), mat.SVDNone)
	values := svd.Values(nil)
	for _, v := range values {
		if v > 1e-10*values[0] {
			n++
		}
	}
	return n
}

// What tensorflow/kfac expects of the gradients 1 to 16 of two cases with 2 x 2 locations and 2
// channels: the second moment as a mean over all eight rows, averaged with the identity. Ours is
// the sum over locations, four times as much.
func TestConvolutionGolden(t *testing.T) {
	v := convolution{2, 2, 1, 2, [2]int{1, 1}, [2]int{1, 1}, [2]int{0, 0}, [2]int{1, 1}}
	n := v.net(10, 2, unfolded, true)
	c := attach(t, n)
	seed := make([]float64, 16)
	for i := range seed {
		seed[i] = float64(i + 1)
	}
	// so that the pixels have the moments of the rows 1 and 2
	copy(testnet.Data(n.X), []float64{1, 1, 1, 1, 2, 2, 2, 2})
	sweepFrom(t, c, seed)
	a, g := placedLayers(c)[0].factors(observed(t, c))
	testnet.Near(t, "A", a, []float64{2.5, 1.5, 1.5, 1}, identity)
	got := scaled(g, 0.5/4)
	got[0], got[3] = got[0]+0.5, got[3]+0.5
	testnet.Near(t, "G", got, []float64{43, 46.5, 46.5, 51.5}, identity)
}

// Identity statistics of four locations and lambda = 1/2 leave 1 / (4 (1 + sqrt(1/8))^2) of the
// gradient, as in tensorflow/kfac. There damping goes to the mean over locations of G and is a
// fourth, here to the sum: it comes to the same.
func TestConvolutionDirectionGolden(t *testing.T) {
	n := convolution{3, 3, 1, 2, [2]int{2, 2}, [2]int{1, 1}, [2]int{0, 0}, [2]int{1, 1}}.net(11, 2, conv2d, true)
	c := attach(t, n)
	gradients(t, c)
	avg, l := currentAverages(c), placedLayers(c)[0] // zero
	a, g := l.factors(avg)
	for i := range 5 {
		a[i*5+i] = 1
	}
	for i := range 2 {
		g[i*2+i] = 4
	}
	directions(t, c, avg, startOfGamma(0.5, 0))
	testnet.Near(t, "direction", l.direction(c), scaled(l.gradient(c), .1364549286), 1e-9)
}
