package kfac

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// uncorrelatedA is A from its definition, with the mean and the covariance of the channels over all
// patches and pixels.
func uncorrelatedA(l placedLayer, patches []float64) *mat.Dense {
	n, abar := l.Channels, l.block.groups[0].shape.Abar()
	k := l.In / n // pixels
	rows := float64(len(patches) / l.In)
	mean, second := make([]float64, n), mat.NewDense(n, n, nil)
	for p := 0; p < len(patches); p += l.In {
		for pixel := range k {
			for i := range n {
				x := patches[p+i*k+pixel]
				mean[i] += x / rows / float64(k)
				for j := range n {
					second.Set(i, j, second.At(i, j)+x*patches[p+j*k+pixel]/rows/float64(k))
				}
			}
		}
	}
	a := mat.NewDense(abar, abar, nil)
	at := func(row int) (m float64, channel, pixel int) {
		if row == l.In {
			return 1, -1, -1
		}
		return mean[row/k], row / k, row % k
	}
	for r := range abar {
		for s := range abar {
			mr, cr, pr := at(r)
			ms, cs, ps := at(s)
			v := mr * ms
			if pr == ps && cr >= 0 {
				v = second.At(cr, cs)
			}
			a.Set(r, s, v)
		}
	}
	return a
}

// The direction solves the explicit Kronecker system with that A, and the trace is that of A (x) G,
// which is the same as without the approximation.
func TestUncorrelatedDirectionSolvesKroneckerSystem(t *testing.T) {
	const gamma = 0.2
	for _, bias := range []bool{false, true} {
		for _, inByOut := range []bool{false, true} {
			name := fmt.Sprintf("bias %v, in x out %v", bias, inByOut)
			c := attach(t, testnet.Images(3, bias, inByOut), WithSpatiallyUncorrelated())
			at := blockIndex[*curvature.Uncorrelated[float64]](c)
			if at < 0 {
				t.Fatalf("%s: no block of uncorrelated pixels; plan:\n%v", name, c.describe())
			}
			avg := sampledAverages(t, c)
			b, g := c.plan.blocks[at], square(avg[at].Moments[1])
			l := layerNamed(t, c, b.groups[0].params[0].name)
			patches := l.seen(c).A
			a := uncorrelatedA(l, patches)
			testnet.Near(t, name+": trace", []float64{b.Trace(avg[at])}, []float64{mat.Trace(a) * mat.Trace(g)},
				identity)
			var full float64
			for _, x := range patches {
				full += x * x / float64(len(patches)/l.In)
			}
			if l.Bias != nil {
				full++
			}
			testnet.Near(t, name+": trace of A", []float64{mat.Trace(a)}, []float64{full}, identity)

			gradients(t, c)
			directions(t, c, avg, gamma)
			testnet.Near(t, name, l.direction(c), tikhonovSolved(t, a, g, gamma, l.gradient(c)), identity)
		}
	}
}

// sampledAverages are the averages of all blocks after one sampled batch.
func sampledAverages(t rapid.TB, c *training[float64]) averages[float64] {
	t.Helper()
	rng := rand.New(rand.NewPCG(7, 7))
	err := sampled(c, 1, rng)
	testnet.Check(t, err)
	return observed(t, c)
}

// The loss falls in either kind of step.
func TestUncorrelatedTraining(t *testing.T) {
	for name, opts := range map[string][]Option{"quadratic model": nil, "learning rate": {WithLearningRate(0.1)}} {
		l := NewTrainer(t, testnet.Images(5, true, false), append(opts, WithSpatiallyUncorrelated())...)
		l.Steps(t, 1)
		first := l.Solver.Stats().Cost
		l.Steps(t, 30)
		if last := l.Solver.Stats().Cost; !(last < 0.7*first) {
			t.Errorf("%s: the cost went from %g to %g", name, first, last)
		}
	}
}
