package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/text"
)

// source draws the data. They are the same whatever -seed is.
func source() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }

func normals(rng *rand.Rand, n int, deviation float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = deviation * rng.NormFloat64()
	}
	return v
}

// noisyLabels are classes of which the inputs tell little: a softmax regression of small weights
// draws them.
func noisyLabels(cases int) (learn.Rows, error) {
	const inputs, classes = 100, 10
	rng := source()
	teacher := normals(rng, inputs*classes, 0.05)
	var r learn.Rows
	for range cases {
		x := normals(rng, inputs, 1)
		odds := make([]float64, classes)
		var sum float64
		for j := range odds {
			for i, v := range x {
				odds[j] += v * teacher[i*classes+j]
			}
			odds[j] = math.Exp(odds[j])
			sum += odds[j]
		}
		label, rest := 0, rng.Float64()*sum
		for ; rest >= odds[label] && label < classes-1; label++ {
			rest -= odds[label]
		}
		r.X, r.Y = append(r.X, x), append(r.Y, learn.OneHot(classes, label))
	}
	return r, nil
}

// noisyNumbers are a smooth function of 8 inputs with noise of variance 1/4.
func noisyNumbers(cases int) (learn.Rows, error) {
	rng := source()
	var r learn.Rows
	for range cases {
		x := normals(rng, 8, 1)
		y := math.Sin(x[0]) + 0.5*x[1]*x[2] - 0.3*x[3] + 0.5*rng.NormFloat64()
		r.X, r.Y = append(r.X, x), append(r.Y, []float64{y})
	}
	return r, nil
}

// houses are prices by floor area in square metres, year, distance to the town in metres and number
// of rooms.
func houses(cases int) (learn.Rows, error) {
	rng := source()
	var r learn.Rows
	for range cases {
		area := 120 * math.Exp(0.3*rng.NormFloat64())
		year := 1900 + 120*rng.Float64()
		distance := 15000 * rng.Float64()
		rooms := math.Round(area/30 + 0.5*rng.NormFloat64())
		price := 150000 + 2500*area + 800*(year-1960) - 12*distance + 9000*rooms + 20000*rng.NormFloat64()
		r.X, r.Y = append(r.X, []float64{area, year, distance, rooms}), append(r.Y, []float64{price})
	}
	return r, nil
}

// side is that of the digits here: each pixel is the mean of four.
const side = mnist.Side / 2

// smallDigits are MNIST's first, made smaller: as many as any task has.
var smallDigits = sync.OnceValues(func() (learn.Rows, error) {
	r, err := learn.Digits("", 8000)
	for i, x := range r.X {
		r.X[i] = halved(x)
	}
	return r, err
})

// digits are the first of them. Of those, part has a label at random.
func digits(part float64) func(cases int) (learn.Rows, error) {
	return func(cases int) (learn.Rows, error) {
		all, err := smallDigits()
		if err != nil {
			return learn.Rows{}, err
		}
		r := learn.Rows{X: all.X[:cases], Y: slices.Clone(all.Y[:cases])}
		rng := source()
		for i := range r.Y {
			if rng.Float64() < part {
				r.Y[i] = learn.OneHot(mnist.Classes, rng.IntN(mnist.Classes))
			}
		}
		return r, nil
	}
}

func halved(x []float64) []float64 {
	small := make([]float64, side*side)
	for i, v := range x {
		small[i/mnist.Side/2*side+i%mnist.Side/2] += v / 4
	}
	return small
}

// contexts are sequences of characters from all over the text, as numbers, and the character that
// follows each.
func contexts(t text.Text, cases, length int) learn.Rows {
	rng := source()
	var r learn.Rows
	for range cases {
		at := rng.IntN(len(t.Characters) - length)
		var x []float64
		for _, c := range t.Characters[at : at+length] {
			x = append(x, float64(c))
		}
		r.X, r.Y = append(r.X, x), append(r.Y, learn.OneHot(t.Kinds, t.Characters[at+length]))
	}
	return r
}
