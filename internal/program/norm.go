package program

import (
	"fmt"
	"math"
	"slices"

	"gorgonia.org/gorgonia"
)

// BatchNorm normalises each channel: by the statistics of the batch while training, else by the
// op's running ones.
type BatchNorm struct {
	Op       *gorgonia.BatchNormOp
	Epsilon  float64
	Momentum float64     // of the running statistics: the weight of the batch's
	Training func() bool // read at each run
}

func (BatchNorm) String() string { return "BatchNorm" }

// GroupNorm normalises groups of channels of each case.
type GroupNorm struct {
	Groups  int
	Epsilon float64
}

func (GroupNorm) String() string { return "GroupNorm" }

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

// batchNormRule standardises each channel of (B,C) or (B,C,H,W). While training it does so by the
// statistics of the cases being run, else by the running statistics of the user's op. Only
// move writes to these.
type batchNormRule[T Float] struct {
	BatchNorm
	normRule[T]
}

func (r batchNormRule[T]) forward(c *call[T]) error {
	x, shape := c.in[0].Data, c.in[0].Shape
	m := normaliserOf(c, shape[1], shape[0], size(shape[2:]))
	if c.batch.mode.training(r.Training()) {
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

// move moves the running statistics of the user's op towards those of the last forward pass, as the
// op itself does while training.
func (r batchNormRule[T]) move(c *call[T]) error {
	m, ok := c.state.(*normaliser)
	if !ok || m.fixed {
		return nil
	}
	mean, variance := r.Op.Stats()
	means, err := floats[T](mean, []int{m.sets})
	if err != nil {
		return fmt.Errorf("running statistics: %w", err)
	}
	variances, err := floats[T](variance, []int{m.sets})
	if err != nil {
		return fmt.Errorf("running statistics: %w", err)
	}
	if !nonzero(means) && !nonzero(variances) { // not used yet: a VM of Gorgonia's starts them so
		for i := range variances {
			variances[i] = 1
		}
	}
	for i := range means {
		unbiased := m.variance[i] * m.count() / max(m.count()-1, 1)
		means[i] += T(r.Momentum * (m.mean[i] - float64(means[i])))
		variances[i] += T(r.Momentum * (unbiased - float64(variances[i])))
	}
	return nil
}

func nonzero[T Float](x []T) bool { return slices.ContainsFunc(x, func(v T) bool { return v != 0 }) }

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
