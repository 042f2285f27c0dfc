package kfac

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// eachImageNet calls f with the uncorrelated block of every kind of convolution, its statistics
// taken, and the patches that it saw.
func eachImageNet(t *testing.T, f func(name string, c *conductor[float64], b *uncorrelatedBlock[float64],
	patches []float64)) {
	t.Helper()
	for _, bias := range []bool{false, true} {
		for _, inByOut := range []bool{false, true} {
			c := attach(t, testnet.Images(3, bias, inByOut), WithSpatiallyUncorrelated())
			testnet.Check(t, c.sampler.sample(c.model, 1, cases, rand.New(rand.NewPCG(7, 7))))
			for _, block := range c.blocks {
				testnet.Check(t, block.observe(c.sampler.run))
				testnet.Check(t, block.average(0.95, true))
				if b, ok := block.(*uncorrelatedBlock[float64]); ok {
					var buf captured[float64]
					f(fmt.Sprintf("bias %v, in x out %v", bias, inByOut), c, b, capture(b.layer, c.sampler.run, &buf).a)
				}
			}
		}
	}
}

// uncorrelatedA is A from its definition, with the mean and the covariance of the channels over all
// patches and pixels.
func uncorrelatedA(b *uncorrelatedBlock[float64], patches []float64) *mat.Dense {
	l, k, n := b.layer, b.pixels, b.channels
	rows := float64(len(patches) / l.in)
	mean, second := make([]float64, n), mat.NewDense(n, n, nil)
	for p := 0; p < len(patches); p += l.in {
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
	a := mat.NewDense(l.abar(), l.abar(), nil)
	at := func(row int) (m float64, channel, pixel int) {
		if row == l.in {
			return 1, -1, -1
		}
		return mean[row/k], row / k, row % k
	}
	for r := range l.abar() {
		for s := range l.abar() {
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
	found := 0
	eachImageNet(t, func(name string, c *conductor[float64], b *uncorrelatedBlock[float64], patches []float64) {
		found++
		l, a := b.layer, uncorrelatedA(b, patches)
		g := b.factors.g.next
		trace := mat.Trace(a) * mat.Trace(square(g))
		testnet.Near(t, name+": trace", []float64{b.trace()}, []float64{trace}, identity)
		var full float64
		for _, x := range patches {
			full += x * x / float64(len(patches)/l.in)
		}
		if l.bias != nil {
			full++
		}
		testnet.Near(t, name+": trace of A", []float64{mat.Trace(a)}, []float64{full}, identity)

		gradients(t, c)
		first, _ := b.inversions(gamma)
		parallel.Jobs(first)
		raised, err := b.inverted()
		if testnet.Check(t, err); raised != 0 {
			t.Fatalf("%s: damping raised", name)
		}
		b.precondition(gamma, true)
		pi := math.Sqrt(mat.Trace(a) / float64(l.abar()) / (mat.Trace(square(g)) / float64(l.out)))
		want := solved(t, flatOf(a), g, pi*gamma, gamma/pi, gathered(b.layerBlock, gradientOf))
		testnet.Near(t, name, gathered(b.layerBlock, directionOf), want, identity)
	})
	if found != 4 {
		t.Errorf("%d convolutions found, want 4", found)
	}
}

// The loss falls, and a stashed inverse and a fresh one do not mix.
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
