package kfac

import (
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// diagonalOf is where the diagonal block of the parameter with the given name is among the plan's.
func diagonalOf(t testing.TB, c *training[float64], name string) int {
	t.Helper()
	for i, b := range c.plan.blocks {
		if _, ok := b.Block.(*curvature.Diagonal[float64]); ok && b.groups[0].params[0].name == name {
			return i
		}
	}
	t.Fatalf("no diagonal block for %s; plan:\n%v", name, c.describe())
	return -1
}

// expectedDiagonal is the expectation of the diagonal over all targets that the listed cases can
// have together, one by one.
func expectedDiagonal(t *testing.T, c *training[float64], name string, rows []int) []float64 {
	t.Helper()
	at := diagonalOf(t, c, name)
	run, o := c.plan.model.run, c.plan.model.outputs[0]
	testnet.Check(t, run.Forward(rows))
	z := slices.Clone(run.Value(o.node).Data)
	var expected []float64
	var visit func(y []float64, prob float64)
	visit = func(y []float64, prob float64) {
		if len(y) < len(z) {
			for _, one := range outcomes(o.head, z[len(y):len(y)+o.cols]) {
				visit(slices.Concat(y, one.Y), prob*one.Prob)
			}
			return
		}
		seed := make([]float64, len(z))
		o.Residual(seed, y, z, o.cols)
		testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: o.node, Data: seed}}, c.plan.path))
		avg := firstAverages(t, c)
		diagonal := slices.Clone(avg[at].Moments[0])
		floats.Scale(prob, diagonal)
		expected = plus(expected, diagonal)
		avg.release(c.plan.blocks)
	}
	visit(nil, 1)
	return expected
}

// fisherDiagonal is the diagonal of the dense Fisher matrix for one parameter.
func fisherDiagonal(t *testing.T, c *training[float64], name string) (diagonal []float64) {
	t.Helper()
	fisher := denseFisher(t, c, jacobians(t, c))
	offset := 0
	for _, p := range c.plan.order {
		for i := range p.grad {
			if p.name == name {
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
			testnet.Near(t, "scale", expectedDiagonal(t, c, "scale", nil), fisherDiagonal(t, c, "scale"), identity)
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
			testnet.Near(t, "whole batch", expectedDiagonal(t, c, "offset", nil), mean(0, 1, 2), identity)
			testnet.Near(t, "two rows", expectedDiagonal(t, c, "offset", []int{2, 0}), mean(2, 0), identity)
			testnet.Near(t, "one row", expectedDiagonal(t, c, "offset", []int{1}), mean(1), identity)
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
	testnet.Near(t, "scale", expectedDiagonal(t, c, "scale", rows), expectedDiagonal(t, d, "scale", nil), identity)
}

// The sampler's draws have the same mean.
func TestSampledDiagonalConverges(t *testing.T) {
	const draws = 4000
	c := attach(t, testnet.ScaledCases(10, testnet.Binary))
	at := diagonalOf(t, c, "scale")
	rng := rand.New(rand.NewPCG(2, 2))
	mean := make([]float64, 2)
	for range draws {
		err := sampled(c, 1, rng)
		testnet.Check(t, err)
		avg := firstAverages(t, c)
		floats.AddScaled(mean, 1.0/draws, avg[at].Moments[0])
		avg.release(c.plan.blocks)
	}
	testnet.Near(t, "scale", mean, fisherDiagonal(t, c, "scale"), 0.05)
}

// The direction is the gradient divided by diagonal plus gamma^2, entry by entry, which repeat over
// the cases of a parameter with entries of its own for each.
func TestDiagonalDirections(t *testing.T) {
	c := attach(t, testnet.ScaledCases(3, testnet.Squares(1)))
	gradients(t, c)
	avg := exactAverages(t, c, nil)
	for _, name := range []string{"scale", "offset"} {
		copy(avg[diagonalOf(t, c, name)].Moments[0], []float64{0.5, 3})
	}
	directions(t, c, avg, 0.1)
	for _, name := range []string{"scale", "offset"} {
		p := c.plan.blocks[diagonalOf(t, c, name)].groups[0].params[0]
		for i, v := range p.grad {
			want := v / ([]float64{0.5, 3}[i%2] + 0.01)
			testnet.Near(t, name, p.direction[i:i+1], []float64{want}, identity)
		}
	}
}

// Where there is no curvature the direction is the gradient.
func TestIdentityDirection(t *testing.T) {
	s := testnet.NewSketch(4)
	n := &testnet.Net{Sketch: s, X: s.Random("x", 5, 3)}
	h := gorgonia.Must(gorgonia.ApplyOp(testnet.Cube{}, n.Layer(n.X, 0, 3, 4, true, false)))
	c := attach(t, n.Ends(n.Layer(h, 1, 4, 2, true, false), testnet.Squares(1)))
	if blockIndex[*curvature.Identity[float64]](c) < 0 {
		t.Fatalf("no identity; plan:\n%v", c.describe())
	}
	for _, p := range c.plan.order {
		p.given = true
		copy(p.grad, s.Normals(p.size()))
	}
	directions(t, c, exactAverages(t, c, nil), 0.1)
	for _, p := range c.plan.order {
		if c.plan.blocksOf[p][0].name == "identity" {
			testnet.Near(t, p.name, p.direction, p.grad, 0)
		}
	}
}
