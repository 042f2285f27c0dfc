package program

import (
	"fmt"
	"math"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// A normaliser standardises sets of elements, y = (x - mean)/sqrt(variance + epsilon), with the biased variance. Each set consists
// of runs of n neighbouring elements, and the runs of all sets alternate: run r of set i starts at (r sets + i) n.
type normaliser struct {
	sets, runs, n int
	fixed         bool // mean and variance are given, not those of the elements
	mean, inv     []float64
	s1, s2        []float64 // scratch
}

// normaliserOf is the normaliser that a call keeps, set up for this run.
func normaliserOf[T Float](c *call[T], sets, runs, n int) *normaliser {
	m, ok := c.state.(*normaliser)
	if !ok || len(m.mean) != sets {
		m = &normaliser{mean: make([]float64, sets), inv: make([]float64, sets), s1: make([]float64, sets), s2: make([]float64, sets)}
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
		m.inv[i] = 1 / math.Sqrt(s/m.count()+epsilon)
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

// jacobian multiplies src by the derivative of y with respect to x, which is symmetric: (I - (1 1^T + y y^T)/count)/sqrt(variance +
// epsilon) in each set, without the second term if the statistics are given.
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

// normRule holds the derivatives that the two normalisations share.
type normRule[T Float] struct{}

func (normRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	jacobian(c.state.(*normaliser), c.out.Data, grad, dst)
	return nil
}

func (normRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	jacobian(c.state.(*normaliser), c.out.Data, tan[0], dst)
	return nil
}

// batchNormRule standardises each channel of (B,C) or (B,C,H,W): while training by the statistics of the cases being run, else by the
// running statistics of the user's op, which it reads and never writes.
type batchNormRule[T Float] struct {
	BatchNorm
	normRule[T]
}

func (r batchNormRule[T]) forward(c *call[T]) error {
	x, shape := c.in[0].Data, c.in[0].Shape
	m := normaliserOf(c, shape[1], shape[0], size(shape[2:]))
	if r.Training() {
		measure(m, x, r.Epsilon)
	} else if err := r.running(c, m); err != nil {
		return err
	}
	normalise(m, x, c.out.Data)
	return nil
}

// running takes the running statistics of the user's op.
func (r batchNormRule[T]) running(c *call[T], m *normaliser) error {
	mean, variance := r.Op.Stats()
	for i, v := range []gorgonia.Value{mean, variance} {
		data, err := floats[T](v, []int{m.sets})
		if err != nil {
			return fmt.Errorf("running statistics: %w", err)
		}
		for j, s := range data {
			if i == 0 {
				m.mean[j] = float64(s)
			} else {
				m.inv[j] = 1 / math.Sqrt(float64(s)+r.Epsilon)
			}
		}
	}
	m.fixed = true
	return nil
}

// groupNormRule standardises each group of channels of each case.
type groupNormRule[T Float] struct {
	GroupNorm
	normRule[T]
}

func (r groupNormRule[T]) forward(c *call[T]) error {
	x, shape := c.in[0].Data, c.in[0].Shape
	if r.Groups < 1 || shape[1]%r.Groups != 0 {
		return fmt.Errorf("%d channels can't be divided into %d groups", shape[1], r.Groups)
	}
	m := normaliserOf(c, shape[0]*r.Groups, 1, size(shape[1:])/r.Groups)
	measure(m, x, r.Epsilon)
	normalise(m, x, c.out.Data)
	return nil
}
