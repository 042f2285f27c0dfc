package curvature

import (
	"math"
	"slices"
	"testing"
)

// image is the geometry of a convolution.
type image struct {
	channels, height, width       int
	kernel, stride, dilation, pad [2]int
}

func drawImage(s source) image {
	pair := func(from, to int) [2]int { return [2]int{s.between(from, to), s.between(from, to)} }
	return image{
		channels: s.between(1, 3), height: 9, width: 8,
		kernel: pair(1, 3), stride: pair(1, 2), dilation: pair(1, 2), pad: pair(0, 1),
	}
}

// starts are where along an axis the windows begin that lie within the padded image.
func (im image) starts(axis int) (starts []int) {
	length, reach := [2]int{im.height, im.width}[axis], (im.kernel[axis]-1)*im.dilation[axis]
	for at := -im.pad[axis]; at+reach < length+im.pad[axis]; at += im.stride[axis] {
		starts = append(starts, at)
	}
	return starts
}

func (im image) locations() int { return len(im.starts(0)) * len(im.starts(1)) }
func (im image) patch() int     { return im.channels * im.kernel[0] * im.kernel[1] }

// rows draws images, and returns their patches: channel by channel, row by row, with zeros outside.
func (im image) rows(s source, cases int) (rows []float64) {
	for range cases {
		pixels := s.normals(im.channels * im.height * im.width)
		for _, top := range im.starts(0) {
			for _, left := range im.starts(1) {
				rows = append(rows, im.patchAt(pixels, top, left)...)
			}
		}
	}
	return rows
}

func (im image) patchAt(pixels []float64, top, left int) (patch []float64) {
	for c := range im.channels {
		for i := range im.kernel[0] {
			for j := range im.kernel[1] {
				y, x, pixel := top+i*im.dilation[0], left+j*im.dilation[1], 0.0
				if 0 <= y && y < im.height && 0 <= x && x < im.width {
					pixel = pixels[(c*im.height+y)*im.width+x]
				}
				patch = append(patch, pixel)
			}
		}
	}
	return patch
}

// grid is nil where patches do not repeat each other.
func (im image) grid() *Grid {
	g := &Grid{
		KernelRows: im.kernel[0], Height: len(im.starts(0)), Width: len(im.starts(1)),
		Shift: im.dilation[0] / im.stride[0],
	}
	if g.KernelRows < 2 || im.dilation[0]%im.stride[0] != 0 || g.Height < 2*g.Shift {
		return nil
	}
	for c := range im.channels {
		for ky := range im.kernel[0] {
			for kx := range im.kernel[1] {
				g.Place = append(g.Place, (ky*im.channels+c)*im.kernel[1]+kx)
			}
		}
	}
	return g
}

// The shortcut for patches that repeat each other gives the sums over all patches, whatever the
// geometry, with a homogeneous coordinate or without.
func TestPatchSums(t *testing.T) {
	taken := 0
	for seed := range uint64(200) {
		s := newSource(seed)
		im := drawImage(s)
		grid, cases := im.grid(), s.between(1, 3)
		if grid == nil {
			continue
		}
		taken++
		l := Shape{In: im.patch(), Out: 2, Bias: s.coin()}
		r := Rows[float64]{A: im.rows(s, cases), G: s.normals(cases * im.locations() * 2), Cases: cases}
		want := seen[float64](t, NewKronecker[float64](l), []Rows[float64]{r})
		r.Patches = grid
		got := seen[float64](t, NewKronecker[float64](l), []Rows[float64]{r})
		checkNear(t, "A", got.Moments[0], want.Moments[0], rounding)
		if !slices.Equal(got.Moments[1], want.Moments[1]) {
			t.Error("G is another")
		}
	}
	if taken < 50 {
		t.Errorf("only %d geometries had patches that repeat each other", taken)
	}
}

// A block may see patches that repeat each other in one run, and others in the next.
func TestPatchesInSomeRuns(t *testing.T) {
	k := patchKind()
	s, b, plain := newSource(1), k.double(), k.double()
	for i := range 5 {
		rows := k.rows(s, 2)
		same := slices.Clone(rows)
		same[0].Patches = nil
		if i%2 == 0 {
			rows[0].Patches = nil
		}
		check(t, b.Observe(rows))
		check(t, plain.Observe(same))
		b.Update(0.9)
		plain.Update(0.9)
	}
	checkNear(t, "A", b.Copy().Moments[0], plain.Copy().Moments[0], rounding)
}

// Where the border of an image dwarfs the rest, subtracting it would leave nothing but rounding. So
// in float32 every entry of A stays as near to what it is as the naive sum of products, whatever
// rows hold the large numbers.
func TestBrightBorder(t *testing.T) {
	im := image{
		channels: 3, height: 12, width: 12,
		kernel: [2]int{3, 3}, stride: [2]int{1, 1}, dilation: [2]int{1, 1}, pad: [2]int{1, 1},
	}
	const cases = 8
	for _, line := range []int{0, 1, 5, 11} {
		for _, bright := range []float64{0, 1e2, -9999, 1e6} {
			s := newSource(1)
			var x []float64
			for range cases {
				pixels := s.normals(im.channels * im.height * im.width)
				for c := range im.channels {
					for i := range im.width {
						pixels[(c*im.height+line)*im.width+i] += bright
					}
				}
				for _, top := range im.starts(0) {
					for _, left := range im.starts(1) {
						x = append(x, im.patchAt(pixels, top, left)...)
					}
				}
			}
			rows := cases * im.locations()
			r := Rows[float32]{A: converted[float32](x), G: make([]float32, rows*2), Cases: cases, Patches: im.grid()}
			l := Shape{In: im.patch(), Out: 2, Bias: true}
			got := seen[float32](t, NewKronecker[float32](l), []Rows[float32]{r}).Moments[0]
			exact := Rows[float64]{A: converted[float64](r.A), G: make([]float64, rows*2), Cases: cases}
			want := seen[float64](t, NewKronecker[float64](l), []Rows[float64]{exact}).Moments[0]
			n := l.Abar()
			for i := range n {
				for j := range n {
					unit := math.Sqrt(want[i*n+i] * want[j*n+j])
					if miss := math.Abs(float64(got[i*n+j])-want[i*n+j]) / unit; !(miss <= 3e-5) {
						t.Fatalf("row %d bright by %g: A(%d, %d) is off by %.3g of its size", line, bright, i, j, miss)
					}
				}
			}
		}
	}
}
