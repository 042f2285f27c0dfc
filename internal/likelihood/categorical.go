package likelihood

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/gorgonia-kfac/kfac/internal/kernels"
)

// Categorical is the distribution of one of cols >= 2 classes: P(class k) = softmax(z)_k. Targets
// are one-hot rows, or class probabilities.
type Categorical struct{}

var _ Likelihood = Categorical{}

func (Categorical) Variables(int) int { return 1 }

func (Categorical) Discrete() bool { return true }

func (Categorical) Mean(dst, z []float64, cols int) {
	for i := 0; i < len(z); i += cols {
		p := dst[i : i+cols]
		_, sum := expShifted(p, z[i:i+cols])
		for k := range p {
			p[k] /= sum
		}
	}
}

// Sample inverts the distribution function: one uniform number and no division per row.
func (Categorical) Sample(y, z []float64, cols int, rng *rand.Rand) {
	for i := 0; i < len(z); i += cols {
		row := y[i : i+cols]
		_, sum := expShifted(row, z[i:i+cols])
		left := rng.Float64() * sum
		var class int
		for k, e := range row {
			if e > 0 { // rounding must not draw a class of probability zero
				class = k
			}
			if left -= e; left < 0 {
				break
			}
		}
		clear(row)
		row[class] = 1
	}
}

func (Categorical) Residual(r, y, z []float64, cols int) {
	eachPiece(cols, len(z), func(p []float64, from, to int) {
		Categorical{}.Mean(p, z[from:to], cols)
		kernels.Sub(r[from:to], p, y[from:to])
	})
}

// FisherProduct computes (diag(p) - p p^T) v. A constant added to v does not change it. The entry
// of the likeliest class is subtracted, which keeps full precision where p is nearly one-hot.
func (Categorical) FisherProduct(dst, v, z []float64, cols int) {
	for i := 0; i < len(z); i += cols {
		d, w := dst[i:i+cols], v[i:i+cols]
		top, sum := expShifted(d, z[i:i+cols])
		shift, pv := w[top], 0.0
		for k := range d {
			d[k] /= sum
			pv += d[k] * (w[k] - shift)
		}
		for k := range d {
			d[k] *= w[k] - shift - pv
		}
	}
}

func (Categorical) NegLogLikelihood(y, z []float64, cols int) float64 {
	var total float64
	for i := 0; i < len(z); i += cols {
		row := z[i : i+cols]
		top, rest := expRest(row)
		nll := math.Log1p(rest)
		for k, zk := range row {
			if t := y[i+k]; t != 0 {
				nll += t * (row[top] - zk)
			}
		}
		total += nll
	}
	return total
}

// ImpliedTarget is Residual: the map from y to softmax(z) - y is its own inverse.
func (c Categorical) ImpliedTarget(y, r, z []float64, cols int) { c.Residual(y, r, z, cols) }

func (Categorical) CheckTarget(y []float64, cols int, tol float64) error {
	for i := 0; i < len(y); i += cols {
		var sum float64
		for k, t := range y[i : i+cols] {
			if !(t >= -tol) {
				return impossibleTarget(i+k, cols, t, "a probability, at least 0")
			}
			sum += t
		}
		if !(math.Abs(sum-1) <= tol) {
			return fmt.Errorf("the target of row %d sums to %.6g over its %d columns, where 1 is needed: a one-hot "+
				"row or class probabilities", i/cols, sum, cols)
		}
	}
	return nil
}

// expShifted writes exp(z_k - max z) to dst, which may alias z. It returns where the maximum is
// and the sum.
func expShifted(dst, z []float64) (top int, sum float64) {
	top = largest(z)
	shift := z[top]
	for k, zk := range z {
		dst[k] = zk - shift
	}
	kernels.Exp(dst, dst)
	for _, e := range dst {
		sum += e
	}
	return top, sum
}

// expRest returns where the maximum of z is, and the sum of exp(z_k - max z) over all other k:
// log sum_k exp(z_k) = z_top + log1p(rest).
func expRest(z []float64) (top int, rest float64) {
	top = largest(z)
	shift := z[top]
	for k, zk := range z {
		if k != top {
			rest += math.Exp(zk - shift)
		}
	}
	return top, rest
}

// largest returns where the first maximum of z is.
func largest(z []float64) int {
	top := 0
	for k, zk := range z {
		if zk > z[top] {
			top = k
		}
	}
	return top
}
