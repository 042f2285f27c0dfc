package kfac

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// diagonalOf is the block of the parameter with the given name.
func diagonalOf(t testing.TB, c *conductor[float64], name string) *diagonalBlock[float64] {
	t.Helper()
	for _, b := range c.blocks {
		if b, ok := b.(*diagonalBlock[float64]); ok && b.param.name() == name {
			return b
		}
	}
	t.Fatalf("no diagonal block for %s; plan:\n%v", name, c.plan)
	return nil
}

// expectedDiagonal is the expectation of next over all targets that the listed cases can have
// together, one by one.
func expectedDiagonal(t *testing.T, c *conductor[float64], b *diagonalBlock[float64], rows []int) []float64 {
	t.Helper()
	run, o := c.sampler.run, c.outputs[0]
	testnet.Check(t, run.Forward(rows))
	z := slices.Clone(run.Value(o.node).Data)
	expected := make([]float64, len(b.mean.next))
	var visit func(y []float64, prob float64)
	visit = func(y []float64, prob float64) {
		if len(y) < len(z) {
			for _, one := range outcomes(o.head, z[len(y):len(y)+o.cols]) {
				visit(slices.Concat(y, one.y), prob*one.prob)
			}
			return
		}
		seed := make([]float64, len(z))
		o.head.residual(seed, y, z, o.cols)
		testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: o.node, Data: seed}}, c.sampler.path))
		b.updates = 0
		observed(t, b, run)
		for i, v := range b.mean.next {
			expected[i] += prob * v
		}
	}
	visit(nil, 1)
	return expected
}

// fisherDiagonal is the diagonal of the dense Fisher matrix for one parameter.
func fisherDiagonal(t *testing.T, c *conductor[float64], name string) (diagonal []float64) {
	t.Helper()
	fisher := denseFisher(t, c, jacobians(t, c))
	offset := 0
	for _, p := range c.order {
		for i := range p.grad {
			if p.name() == name {
				diagonal = append(diagonal, fisher.At(offset+i, offset+i))
			}
		}
		offset += len(p.grad)
	}
	return diagonal
}

var diagonalLosses = map[string]testnet.Likelihood{"gaussian": testnet.Squares(0.37), "bernoulli": testnet.Binary,
	"categorical": testnet.Classes}

// The square of a sum of sampled gradients has the expectation of the sum of their squares.
func TestDiagonalIsExactInExpectation(t *testing.T) {
	for name, loss := range diagonalLosses {
		t.Run(name, func(t *testing.T) {
			c := attach(t, testnet.ScaledCases(3, loss))
			got := expectedDiagonal(t, c, diagonalOf(t, c, "scale"), nil)
			testnet.Near(t, "scale", got, fisherDiagonal(t, c, "scale"), identity)
		})
	}
}

// A parameter with entries of its own for each case has one diagonal for all cases: the mean of
// theirs.
func TestDiagonalOfEntriesPerCase(t *testing.T) {
	for name, loss := range diagonalLosses {
		t.Run(name, func(t *testing.T) {
			const cases = 3
			c := attach(t, testnet.ScaledCases(cases, loss))
			all := fisherDiagonal(t, c, "offset")
			mean := func(rows ...int) []float64 {
				m := make([]float64, 2)
				for _, row := range rows {
					for k := range m {
						m[k] += all[row*2+k] / float64(len(rows))
					}
				}
				return m
			}
			b := diagonalOf(t, c, "offset")
			testnet.Near(t, "whole batch", expectedDiagonal(t, c, b, nil), mean(0, 1, 2), identity)
			testnet.Near(t, "two rows", expectedDiagonal(t, c, b, []int{2, 0}), mean(2, 0), identity)
			testnet.Near(t, "one row", expectedDiagonal(t, c, b, []int{1}), mean(1), identity)
		})
	}
}

// The diagonal of some rows is that of a batch that holds no others.
func TestDiagonalOfRows(t *testing.T) {
	whole, small := testnet.ScaledCases(5, testnet.Binary), testnet.ScaledCases(2, testnet.Binary)
	rows := []int{3, 1}
	copy(testnet.Data(small.Params[0]), testnet.Data(whole.Params[0]))
	copy(testnet.Data(small.Params[1]), testnet.Data(whole.Params[1]))
	copyCases(small.X, whole.X, rows)
	copyCases(small.Params[2], whole.Params[2], rows)
	c, d := attach(t, whole), attach(t, small)
	testnet.Near(t, "scale", expectedDiagonal(t, c, diagonalOf(t, c, "scale"), rows),
		expectedDiagonal(t, d, diagonalOf(t, d, "scale"), nil), identity)
}

// The sampler's draws have the same mean.
func TestSampledDiagonalConverges(t *testing.T) {
	const draws = 4000
	c := attach(t, testnet.ScaledCases(10, testnet.Binary))
	b := diagonalOf(t, c, "scale")
	rng := rand.New(rand.NewPCG(2, 2))
	var all [][]float64
	for range draws {
		testnet.Check(t, c.sampler.sample(c.model, 1, 1, rng))
		b.updates = 0
		observed(t, b, c.sampler.run)
		all = append(all, slices.Clone(b.mean.next))
	}
	testnet.Near(t, "scale", meanOf(all), fisherDiagonal(t, c, "scale"), 0.05)
}

// The running average of squared gradients decays like that of the factors.
func TestDiagonalAverage(t *testing.T) {
	c := attach(t, testnet.ScaledCases(4, testnet.Squares(1)))
	b := diagonalOf(t, c, "scale")
	rng := rand.New(rand.NewPCG(3, 3))
	want := make([]float64, 2)
	for k := 1; k <= 25; k++ {
		testnet.Check(t, c.sampler.sample(c.model, 1, 1, rng))
		eps := min(1-1/float64(k), 0.9)
		g := slices.Clone(c.sampler.run.Gradient(b.param.leaf))
		for i := range want {
			want[i] = eps*want[i] + (1-eps)*g[i]*g[i]/4
		}
		testnet.Check(t, b.observe(c.sampler.run))
		testnet.Check(t, b.average(0.9, true))
		testnet.Near(t, fmt.Sprint("update ", k), b.mean.next, want, identity)
		b.keep(false)
	}
}

// The direction is the gradient divided by diagonal plus gamma^2, entry by entry; without curvature
// it is the gradient.
func TestDiagonalAndIdentityDirections(t *testing.T) {
	c := attach(t, testnet.ScaledCases(3, testnet.Squares(1)))
	gradients(t, c)
	for name, cols := range map[string]int{"scale": 2, "offset": 2} {
		b := diagonalOf(t, c, name)
		copy(b.mean.next, []float64{0.5, 3})
		b.precondition(0.1, true)
		for i, v := range b.param.grad {
			want := v / ([]float64{0.5, 3}[i%cols] + 0.01)
			testnet.Near(t, name, b.param.dir[i:i+1], []float64{want}, identity)
		}
		(&identityBlock[float64]{b.param}).precondition(0.1, true)
		testnet.Near(t, name+", identity", b.param.dir, b.param.grad, 0)
	}
}
