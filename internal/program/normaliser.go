package program

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// A normaliser standardises sets of elements: y = (x - mean)/sqrt(variance + epsilon), with the
// biased variance. Each set consists of runs of n neighbouring elements. The runs of all sets
// alternate: run r of set i starts at (r sets + i) n.
type normaliser struct {
	sets, runs, n int
	fixed         bool // mean and variance are given, not those of the elements
	mean, inv     []float64
	variance      []float64 // of the elements
	s1, s2        []float64 // scratch
}

// normaliserOf is the normaliser that a call keeps, set up for this run.
func normaliserOf[T Float](c *call[T], sets, runs, n int) *normaliser {
	m, ok := c.state.(*normaliser)
	if !ok || len(m.mean) != sets {
		m = &normaliser{
			mean: make([]float64, sets),
			inv:  make([]float64, sets),

			variance: make([]float64, sets),

			s1: make([]float64, sets),
			s2: make([]float64, sets),
		}
		c.state = m
	}
	m.sets, m.runs, m.n, m.fixed = sets, runs, n, false
	return m
}

// each calls f for every run, for several sets at the same time.
func (m *normaliser) each(f func(set, from, to int)) {
	parallel.Rows(m.sets, m.runs*m.n, func(lo, hi int) {
		for r := range m.runs {
			for i := lo; i < hi; i++ {
				from := (r*m.sets + i) * m.n
				f(i, from, from+m.n)
			}
		}
	})
}

func (m *normaliser) count() float64 { return float64(m.runs * m.n) }

// measure finds the statistics of x.
func measure[T Float](m *normaliser, x []T, epsilon float64) {
	clear(m.mean)
	clear(m.s2)
	m.each(func(i, from, to int) {
		var sum float64
		for _, v := range x[from:to] {
			sum += float64(v)
		}
		m.mean[i] += sum
	})
	for i := range m.mean {
		m.mean[i] /= m.count()
	}
	m.each(func(i, from, to int) {
		mean, sum := m.mean[i], 0.0
		for _, v := range x[from:to] {
			d := float64(v) - mean
			sum += d * d
		}
		m.s2[i] += sum
	})
	for i, s := range m.s2 {
		m.variance[i] = s / m.count()
		m.inv[i] = 1 / math.Sqrt(m.variance[i]+epsilon)
	}
}

func normalise[T Float](m *normaliser, x, y []T) {
	m.each(func(i, from, to int) {
		mean, inv := m.mean[i], m.inv[i]
		for j := from; j < to; j++ {
			y[j] = T((float64(x[j]) - mean) * inv)
		}
	})
}

// jacobian multiplies src by the derivative of y with respect to x, which is symmetric. In each set
// that is (I - (1 1^T + y y^T)/count)/sqrt(variance + epsilon). If the statistics are given it is
// only the first term, I/sqrt(variance + epsilon).
func jacobian[T Float](m *normaliser, y, src, dst []T) {
	clear(m.s1)
	clear(m.s2)
	if !m.fixed {
		m.each(func(i, from, to int) {
			var s1, s2 float64
			for j := from; j < to; j++ {
				s1 += float64(src[j])
				s2 += float64(src[j]) * float64(y[j])
			}
			m.s1[i] += s1
			m.s2[i] += s2
		})
	}
	m.each(func(i, from, to int) {
		a, b, inv := m.s1[i]/m.count(), m.s2[i]/m.count(), m.inv[i]
		for j := from; j < to; j++ {
			dst[j] = T((float64(src[j]) - a - b*float64(y[j])) * inv)
		}
	})
}
