package curves

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func drawn(p ...point) []float32 {
	image := make([]float32, Pixels)
	draw(image, [3]point(p))
	return image
}

// apart is the largest difference between two images.
func apart(a, b []float32) float64 {
	var d float64
	for k := range a {
		d = max(d, math.Abs(float64(a[k])-float64(b[k])))
	}
	return d
}

func TestMake(t *testing.T) {
	s := Make(200, 1)
	if s.Len() != 200 || len(s.pixels) != 200*784 {
		t.Fatalf("%d images, %d values, want 200 of 784", s.Len(), len(s.pixels))
	}
	if low, high := slices.Min(s.pixels), slices.Max(s.pixels); low != 0 || high > ink || high < 0.99*ink {
		t.Errorf("values from %g to %g, want 0 to about %g", low, high, ink)
	}
	if !slices.Equal(s.pixels, Make(200, 1).pixels) {
		t.Error("one seed gives two sets")
	}
	if !slices.Equal(s.First(70).pixels, Make(70, 1).pixels) {
		t.Error("Make(70, 1) is not the first 70 images of Make(200, 1)")
	}
	other := Make(200, 2)
	for i := range s.Len() {
		for j := range other.Len() {
			if slices.Equal(s.pixels[i*Pixels:(i+1)*Pixels], other.pixels[j*Pixels:(j+1)*Pixels]) {
				t.Errorf("image %d of seed 1 is image %d of seed 2", i, j)
			}
		}
	}
	if n := s.First(300).Len(); n != 200 {
		t.Errorf("First(300) of 200 images has %d", n)
	}
	if n := Make(0, 1).Len(); n != 0 {
		t.Errorf("Make(0, 1) has %d images", n)
	}
}

func TestCurvePassesItsPoints(t *testing.T) {
	s := Make(2000, 1)
	rng := rand.New(rand.NewPCG(1, 0))
	for i := range s.Len() {
		image := s.pixels[i*Pixels : (i+1)*Pixels]
		for j, p := range randomPoints(rng) {
			if min(p.x, p.y) < margin || max(p.x, p.y) > Side-margin {
				t.Fatalf("image %d: point %d is %v, within %g of the edge", i, j, p, margin)
			}
			// The curve goes through the point. So from the middle of the point's pixel the curve
			// is at most as far as the point.
			dx, dy := p.x-math.Floor(p.x)-0.5, p.y-math.Floor(p.y)-0.5
			least := ink * math.Exp(-(dx*dx+dy*dy)/(2*width*width))
			if got := float64(image[int(p.y)*Side+int(p.x)]); got < least-1e-6 {
				t.Errorf("image %d: the pixel at point %d, %v, is %g, want %g or more", i, j, p, got, least)
			}
		}
	}
}

// A straight stroke has a closed form. If the middle point is half way between the other two, these
// are the ends, at t = 0 and 1.
func TestStraight(t *testing.T) {
	const left, right, y = 6.3, 20.9, 13.2
	image := drawn(point{left, y}, point{(left + right) / 2, y}, point{right, y})
	for k, got := range image {
		col, row := float64(k%Side)+0.5, float64(k/Side)+0.5
		squared := (row - y) * (row - y)
		if beyond := max(left-col, col-right); beyond > 0 {
			squared += beyond * beyond
		}
		want := ink * math.Exp(-squared/(2*width*width))
		if math.Abs(float64(got)-want) > 4e-6 {
			t.Errorf("row %d, column %d: %g, want %g", k/Side, k%Side, got, want)
		}
	}
}

func TestSymmetries(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 0))
	for range 100 {
		p := randomPoints(rng)
		image := drawn(p[:]...)
		if d := apart(image, drawn(p[2], p[1], p[0])); d > 1e-6 {
			t.Errorf("%v: the curve from the other end differs by %g", p, d)
		}
		mirrored, transposed, shifted := p, p, p
		for i := range p {
			mirrored[i].x = Side - p[i].x
			transposed[i] = point{p[i].y, p[i].x}
			shifted[i].x++
		}
		m, tr, sh := drawn(mirrored[:]...), drawn(transposed[:]...), drawn(shifted[:]...)
		for row := range Side {
			for col := range Side {
				want := float64(image[row*Side+col])
				if got := float64(m[row*Side+Side-1-col]); math.Abs(got-want) > 1e-6 {
					t.Fatalf("%v: mirrored, the pixel at row %d, column %d is %g, want %g", p, row, col, got, want)
				}
				if got := float64(tr[col*Side+row]); math.Abs(got-want) > 1e-6 {
					t.Fatalf("%v: transposed, the pixel at row %d, column %d is %g, want %g", p, row, col, got, want)
				}
				if col+1 == Side {
					continue
				}
				if got := float64(sh[row*Side+col+1]); math.Abs(got-want) > 4e-6 {
					t.Fatalf("%v: shifted, the pixel at row %d, column %d is %g, want %g", p, row, col, got, want)
				}
			}
		}
	}
}

// An image is a smooth function of the points. The slope of a pixel is at most that of the profile,
// ink/(width sqrt(e)). The curve moves by at most 5/4 of what its points move, the largest sum of
// the weights' sizes.
func TestSmooth(t *testing.T) {
	const step = 0.01
	bound := 1.25 * math.Sqrt2 * step * ink / (width * math.Sqrt(math.E))
	rng := rand.New(rand.NewPCG(4, 0))
	for range 200 {
		p := randomPoints(rng)
		moved := p
		for i := range p {
			moved[i].x += step * float64(2*rng.IntN(2)-1)
			moved[i].y += step * float64(2*rng.IntN(2)-1)
		}
		if d := apart(drawn(p[:]...), drawn(moved[:]...)); d == 0 || d > bound+4e-6 {
			t.Errorf("%v moved by %g a coordinate: a pixel changes by %g, want at most %g", p, step, d, bound)
		}
	}
}

func TestOnePoint(t *testing.T) {
	image := drawn(point{9.5, 14.5}, point{9.5, 14.5}, point{9.5, 14.5})
	if got := image[14*Side+9]; got != float32(ink) {
		t.Errorf("three equal points give %g in their pixel, want %g", got, ink)
	}
}

// The figures that the package doc gives, and those of the original that they are set to.
func TestCalibration(t *testing.T) {
	const cases = 20000
	s := Make(cases, 1)
	entropy := func(v float64) float64 {
		if v == 0 {
			return 0
		}
		return -v*math.Log(v) - (1-v)*math.Log1p(-v)
	}
	var variance, ofMean, ofPixels float64
	for k := range Pixels {
		var sum, squares float64
		for i := range cases {
			v := float64(s.pixels[i*Pixels+k])
			sum += v
			squares += v * v
			ofPixels += entropy(v) / cases
		}
		mean := sum / cases
		variance += squares/cases - mean*mean
		ofMean += entropy(mean)
	}
	t.Logf("variance %.3f, cross-entropy of the mean image %.2f, entropy of the pixels %.2f",
		variance, ofMean, ofPixels)
	for _, c := range []struct {
		name                  string
		got, original, within float64
	}{
		{"variance", variance, 16.91, 0.05},
		{"cross-entropy of the mean image", ofMean, 125.0, 0.3},
		{"entropy of the pixels", ofPixels, 54.3, 0.5},
	} {
		if math.Abs(c.got-c.original) > c.within {
			t.Errorf("%s: %g, want %g +- %g", c.name, c.got, c.original, c.within)
		}
	}
}

func TestCopyPixels(t *testing.T) {
	s := Make(9, 1)
	rows := make([]float32, 4*Pixels)
	for k := range rows {
		rows[k] = -1
	}
	cases := []int{7, 0, 7}
	s.CopyPixels(rows, cases)
	for row, i := range cases {
		if !slices.Equal(rows[row*Pixels:(row+1)*Pixels], s.pixels[i*Pixels:(i+1)*Pixels]) {
			t.Errorf("row %d is not case %d", row, i)
		}
	}
	if slices.Max(rows[3*Pixels:]) != -1 {
		t.Error("a row past the cases was written")
	}
}

func TestRange(t *testing.T) {
	if got := Make(3, 1).Range(1, 5); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("Range(1, 5) of 3 cases = %v, want [1 2]", got)
	}
}
