// Package initial draws initial weights from a seeded source, so that several optimizers can start
// from the same ones.
//
// Weights are in x out, as in s = a W + b with one case a row.
package initial

import (
	"math"
	"math/rand/v2"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// SparseDraws is the number of incoming weights that Sparse gives to a unit.
// Martens, "Deep learning via Hessian-free optimization" (ICML 2010), section 5.
const SparseDraws = 15

// Sparse returns weights of shape (in, out), initialised as in Martens & Grosse 2015, section 13,
// for logistic units. Each unit, a column, has SparseDraws weights drawn from N(0, 1), at inputs
// drawn with replacement. Of two draws at one input the later one stays. All other weights are 0.
func Sparse(rng *rand.Rand, in, out int) *tensor.Dense {
	w := make([]float32, in*out)
	for unit := range out {
		for range SparseDraws {
			w[rng.IntN(in)*out+unit] = float32(rng.NormFloat64())
		}
	}
	return matrix(w, in, out)
}

// Glorot returns weights of shape (in, out) drawn from N(0, 2/(in+out)): Glorot & Bengio,
// "Understanding the difficulty of training deep feedforward neural networks" (AISTATS 2010),
// equation (12).
func Glorot(rng *rand.Rand, in, out int) *tensor.Dense {
	std := math.Sqrt(2 / float64(in+out))
	w := make([]float32, in*out)
	for i := range w {
		w[i] = float32(std * rng.NormFloat64())
	}
	return matrix(w, in, out)
}

// Zeros returns a vector of n zeros, for biases.
func Zeros(n int) *tensor.Dense {
	return tensor.New(tensor.WithShape(n), tensor.Of(tensor.Float32))
}

func matrix(data []float32, in, out int) *tensor.Dense {
	return tensor.New(tensor.WithShape(in, out), tensor.WithBacking(data))
}

// GlorotN is gorgonia.GlorotN(1) with a source that can be seeded. Weights are drawn from
// N(0, 2/(in+out)). There in and out are the first two axes of the shape times the sizes of the
// others, which are those of a filter.
func GlorotN(rng *rand.Rand) gorgonia.InitWFn {
	return func(dt tensor.Dtype, shape ...int) any {
		fans := 1 + shape[0] // a vector is one column
		if len(shape) > 1 {
			fans = (shape[0] + shape[1]) * tensor.Shape(shape[2:]).TotalSize()
		}
		std := math.Sqrt(2 / float64(fans))
		data := make([]float64, tensor.Shape(shape).TotalSize())
		for i := range data {
			data[i] = std * rng.NormFloat64()
		}
		if dt == tensor.Float64 {
			return data
		}
		single := make([]float32, len(data))
		for i, v := range data {
			single[i] = float32(v)
		}
		return single
	}
}
