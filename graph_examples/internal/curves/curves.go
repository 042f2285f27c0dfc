// Package curves makes grey images that each show one smooth curve through three random points.
//
// They take the place of the data set CURVES of Hinton & Salakhutdinov, "Reducing the
// dimensionality of data with neural networks" (Science 313, 2006), which is made from three random
// points as well. An image is a function of 6 numbers, so the code of its autoencoders has 6 units.
// It is a stand-in: we do not know how the original curves were drawn, and use none of them. Here
// the points are uniform in a square, the curve is the parabola
//
//	p(t) = (1-t)(1-2t) p0 + 4t(1-t) p1 + t(2t-1) p2,  0 <= t <= 1,
//
// which passes p0, p1 and p2 at t = 0, 1/2 and 1, and a pixel at the distance d from it is ink
// exp(-d^2 / (2 width^2)), on a background of 0. No draw is rejected: some curves are nearly
// straight, short, or folded like a hairpin.
//
// Three constants are free: margin, ink and width. They are set so that three figures agree with
// those of the original, as far as the log that comes with the code of Martens & Grosse (2015)
// tells them:
//
//	                                        Make(20000, 1)    their log
//	variance, summed over the pixels                 16.90        16.91
//	cross-entropy of the mean image, nats            124.9        125.0
//	entropy of the pixels, nats                       54.0         54.3
//
// The log has the first two figures at the plateau (iteration 100), as the squared error and as
// minus the log-likelihood per case. At the plateau an autoencoder predicts about the mean image,
// whatever the case. The third is minus the log-likelihood at the end, where the error is 0.07. The
// pixels are grey, so no prediction has a cross-entropy below their entropy. The log's likelihoods
// include the L2 penalty, which is small.
package curves

import (
	"math"
	"math/rand/v2"
)

const (
	// Side is the height and the width of an image in pixels.
	Side = 28
	// Pixels is the number of pixels of an image.
	Pixels = Side * Side
)

const (
	// margin is the least distance of a point from the edges of the image, in pixels. The curve
	// itself stays 2.1 away.
	margin = 4.5
	ink    = 0.795     // value of a pixel in the middle of the stroke
	width  = 0.9       // standard deviation of the stroke, across it, in pixels
	reach  = 5 * width // pixels further from the curve are 0; they would be less than 3e-6
	// pieces is the number of straight pieces that a curve is drawn in, less than 0.01 pixels off.
	// It is even, so that p1 is a joint.
	pieces = 64
)

// A Set is a list of images.
type Set struct {
	pixels []float32 // row-major, one image of Pixels values a row
}

// A point lies x pixels right of the left edge and y below the upper one. The middle of the first
// pixel is {0.5, 0.5}.
type point struct{ x, y float64 }

// Make returns n images, 0 or more. Equal seeds give equal images, to the bit on one kind of
// processor. A shorter set is the beginning of a longer one, so training and test cases need two
// seeds.
func Make(n int, seed uint64) Set {
	s := Set{pixels: make([]float32, n*Pixels)}
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range n {
		draw(s.pixels[i*Pixels:(i+1)*Pixels], randomPoints(rng))
	}
	return s
}

func randomPoints(rng *rand.Rand) [3]point {
	coordinate := func() float64 { return margin + (Side-2*margin)*rng.Float64() }
	var p [3]point
	for i := range p {
		p[i] = point{x: coordinate(), y: coordinate()}
	}
	return p
}

// draw writes the image of the curve through p into dst, Pixels values.
func draw(dst []float32, p [3]point) {
	var squared [Pixels]float64 // distance from the curve
	for k := range squared {
		squared[k] = math.Inf(1)
	}
	from := p[0]
	for i := range pieces {
		to := at(p, float64(i+1)/pieces)
		approach(&squared, from, to)
		from = to
	}
	for k, d := range squared {
		dst[k] = 0
		if d < reach*reach {
			dst[k] = float32(ink * math.Exp(-d/(2*width*width)))
		}
	}
}

// at is the point of the curve through p at t.
func at(p [3]point, t float64) point {
	a, b, c := (1-t)*(1-2*t), 4*t*(1-t), t*(2*t-1)
	return point{x: a*p[0].x + b*p[1].x + c*p[2].x, y: a*p[0].y + b*p[1].y + c*p[2].y}
}

// approach takes the straight piece between two points into the squared distances: it lowers those
// of the pixels within reach to their distances from the piece.
func approach(squared *[Pixels]float64, from, to point) {
	left, right := span(from.x, to.x)
	top, bottom := span(from.y, to.y)
	along := point{x: to.x - from.x, y: to.y - from.y}
	length := along.x*along.x + along.y*along.y // squared
	for row := top; row < bottom; row++ {
		for col := left; col < right; col++ {
			x, y := float64(col)+0.5-from.x, float64(row)+0.5-from.y
			if length > 0 {
				t := min(max((x*along.x+y*along.y)/length, 0), 1)
				x, y = x-t*along.x, y-t*along.y
			}
			k := row*Side + col
			squared[k] = min(squared[k], x*x+y*y)
		}
	}
}

// span is the range of pixels, in one direction, that can lie within reach of a piece between the
// coordinates a and b.
func span(a, b float64) (first, end int) {
	return max(int(min(a, b)-reach), 0), min(int(max(a, b)+reach)+1, Side)
}

// Len is the number of images in s.
func (s Set) Len() int { return len(s.pixels) / Pixels }

// First is the set of the first n images of s, or of all if there are fewer.
func (s Set) First(n int) Set { return Set{pixels: s.pixels[:min(n, s.Len())*Pixels]} }

// Range lists the n cases of s from the first on, or fewer at the end of s.
func (s Set) Range(first, n int) []int {
	var cases []int
	for i := first; i < min(first+n, s.Len()); i++ {
		cases = append(cases, i)
	}
	return cases
}

// CopyPixels writes the given cases into the leading rows of dst, row-major. A row is one case of
// Pixels values in [0, 1].
func (s Set) CopyPixels(dst []float32, cases []int) {
	for row, i := range cases {
		copy(dst[row*Pixels:(row+1)*Pixels], s.pixels[i*Pixels:(i+1)*Pixels])
	}
}
