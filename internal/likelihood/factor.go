package likelihood

import "math"

// Factored is a Likelihood with a closed form of B, a factor of its Fisher matrix: B B^T = F_R.
type Factored interface {
	Likelihood
	// FisherFactor writes B v, row by row. B is cols x cols. dst must alias neither v nor z.
	FisherFactor(dst, v, z []float64, cols int)
}

var _ = []Factored{Categorical{}, Bernoulli{}, Poisson{}, Gaussian{}, Laplace{}, Heteroscedastic{}, StudentT{},
	NegativeBinomial{}}

// FisherFactor has B = diag(sqrt(p)) - p sqrt(p)^T.
func (Categorical) FisherFactor(dst, v, z []float64, cols int) {
	for i := 0; i < len(z); i += cols {
		d, w := dst[i:i+cols], v[i:i+cols]
		_, sum := expShifted(d, z[i:i+cols])
		var along float64 // sqrt(p)^T v
		for k, e := range d {
			d[k] = e / sum
			along += math.Sqrt(d[k]) * w[k]
		}
		for k, p := range d {
			d[k] = math.Sqrt(p)*w[k] - p*along
		}
	}
}

// FisherFactor has a diagonal B, as all distributions of independent entries.
func (Bernoulli) FisherFactor(dst, v, z []float64, _ int) {
	for i, zi := range z {
		e := math.Exp(-math.Abs(zi) / 2)
		dst[i] = v[i] * e / (1 + e*e)
	}
}

func (Poisson) FisherFactor(dst, v, z []float64, _ int) {
	for i, zi := range z {
		dst[i] = v[i] * math.Sqrt(rate(zi))
	}
}

func (g Gaussian) FisherFactor(dst, v, _ []float64, _ int) {
	for i, vi := range v {
		dst[i] = vi / math.Sqrt(g.Variance)
	}
}

func (l Laplace) FisherFactor(dst, v, _ []float64, _ int) {
	for i, vi := range v {
		dst[i] = vi / l.Scale
	}
}

// A Factor multiplies with a factor B of the Fisher matrix of any Likelihood. It is scratch for
// those that have no closed form of it.
type Factor struct{ fisher, unit, column []float64 }

// Product writes B v, row by row. dst must alias neither v nor z.
func (f *Factor) Product(l Likelihood, dst, v, z []float64, cols int) {
	if l, ok := l.(Factored); ok {
		l.FisherFactor(dst, v, z, cols)
		return
	}
	for i := 0; i < len(z); i += cols {
		f.read(l, z[i:i+cols])
		for r := range cols {
			dst[i+r] = 0
			for k := range r + 1 {
				dst[i+r] += f.fisher[r*cols+k] * v[i+k]
			}
		}
	}
}

// read makes the lower triangle of fisher a factor of F_R at z, by Cholesky. F_R may be singular.
// Then a pivot is zero but for rounding, and so is its column.
func (f *Factor) read(l Likelihood, z []float64) {
	n := len(z)
	if len(f.unit) != n {
		f.fisher, f.unit, f.column = make([]float64, n*n), make([]float64, n), make([]float64, n)
	}
	a, most := f.fisher, 0.0
	for k := range n {
		clear(f.unit)
		f.unit[k] = 1
		l.FisherProduct(f.column, f.unit, z, n)
		for r, x := range f.column {
			a[r*n+k] = x
		}
		most = max(most, f.column[k])
	}
	for k := range n {
		pivot := a[k*n+k]
		if !(pivot > float64(n)*0x1p-50*most) {
			for r := k; r < n; r++ {
				a[r*n+k] = 0
			}
			continue
		}
		for r := k; r < n; r++ {
			a[r*n+k] /= math.Sqrt(pivot)
		}
		for r := k + 1; r < n; r++ {
			for c := k + 1; c <= r; c++ {
				a[r*n+c] -= a[r*n+k] * a[c*n+k]
			}
		}
	}
}
