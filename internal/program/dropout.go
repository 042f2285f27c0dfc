package program

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/kernels"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// Dropout zeroes elements with the probability prob and scales the others by 1/(1-prob), if it is
// training. Its settings are read at each run.
type Dropout struct {
	Settings func() (prob float64, training bool)
}

func (Dropout) String() string { return "Dropout" }

// dropoutRule multiplies by a mask. While training it is drawn from the run's seed: 0 with the op's
// probability p, else 1/(1-p). The user's op and its random generator are not touched.
type dropoutRule[T Float] struct{ Dropout }

func (r dropoutRule[T]) forward(c *call[T]) error {
	mask := c.buf(0, len(c.out.Data))
	p, training := r.Settings()
	if !c.batch.mode.training(training) || p == 0 {
		for i := range mask {
			mask[i] = 1
		}
	} else {
		kept, key := T(1/(1-p)), streamOf(c)
		threshold := uint64(math.Ceil((1 - p) * 0x1p53))
		c.pieces(func(from, to, at int) {
			parallel.For(to-from, parallel.Grain, func(lo, hi int) {
				var s stream
				for i := from + lo; i < from+hi; i++ {
					s.start(key, at+i-from)
					// kept if uniform() < 1-p, without a jump that nobody can foresee
					mask[i] = kept * T((s.Uint64()>>11-threshold)>>63)
				}
			})
		})
	}
	return r.reverse(c, 0, c.in[0].Data, c.out.Data)
}

func (r dropoutRule[T]) reverse(c *call[T], k int, grad, dst []T) error {
	mask := c.buf(0, len(grad))
	kernels.Mul(dst, mask, grad)
	if linalg.Finite(dst) {
		return nil
	}
	for i, m := range mask {
		if m == 0 { // a dropped infinity is dropped
			dst[i] = 0
		}
	}
	return nil
}

func (r dropoutRule[T]) tangent(c *call[T], tan [][]T, dst []T) error {
	return r.reverse(c, 0, tan[0], dst) // the Jacobian is diagonal
}
