package kfac

import (
	"fmt"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// identity is the tolerance for what is equal but for the rounding of float64.
const identity = 1e-12

// checkBlocks demands that A (x) G of every layer is the block of the dense Fisher matrix on its
// diagonal.
func checkBlocks(t *testing.T, c *training[float64], avg averages[float64], fisher *mat.Dense) {
	t.Helper()
	for _, l := range placedLayers(c) {
		want := pick(fisher, elements(c, l.Layer))
		testnet.Near(t, l.Name(), flatOf(l.kronecker(avg)), flatOf(want), identity)
	}
}

// In a deep linear net with a Gaussian likelihood, g does not depend on the case, so A (x) G is
// exact.
func TestLinearNetIsExact(t *testing.T) {
	for _, variance := range []float64{1, 0.37} {
		for _, noBias := range []bool{false, true} {
			for _, outByIn := range []bool{false, true} {
				t.Run(fmt.Sprintf("variance=%g noBias=%v outByIn=%v", variance, noBias, outByIn), func(t *testing.T) {
					n := testnet.MLP{Widths: []int{4, 3, 5, 2}, Cases: 7, NoBias: noBias, OutByIn: outByIn,
						Loss: testnet.Squares(variance)}.Build(1)
					c := attach(t, n)
					if got := len(placedLayers(c)); got != 3 {
						t.Fatalf("%d layers, want 3", got)
					}
					checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
				})
			}
		}
	}
}

// The empirical Fisher matrix, with the targets of the data in place of the model's own, is another
// matrix.
func TestEmpiricalGradientsAreNotExact(t *testing.T) {
	n := testnet.MLP{Widths: []int{4, 3, 2}, Cases: 7, Loss: testnet.Squares(1)}.Build(1)
	c := attach(t, n)
	y := n.Input("y")
	once := func(*output) int { return 1 }
	avg := seededAverages(t, c, nil, once, func(o *output, z []float64, _ int) []float64 {
		seed := make([]float64, len(z))
		o.Residual(seed, testnet.Data(y), z, o.cols)
		return seed
	})
	fisher := denseFisher(t, c, jacobians(t, c))
	for _, l := range placedLayers(c) {
		if d := testnet.Distance(flatOf(l.kronecker(avg)), flatOf(pick(fisher, elements(c, l.Layer)))); d < 0.1 {
			t.Errorf("%s: only %g away from the Fisher matrix", l.Name(), d)
		}
	}
}

var nonlinearities = map[string]testnet.Unit{
	"tanh": gorgonia.Tanh, "sigmoid": gorgonia.Sigmoid, "relu": testnet.Rectifier,
}

var likelihoods = map[string]testnet.Likelihood{
	"gaussian": testnet.Squares(0.37), "bernoulli": testnet.Binary, "categorical": testnet.Classes,
	"joint": testnet.TwoHeads,
}

// The heads' weights are their shares in the cost, 2 * 0.2 and 1, relative to the largest.
func TestJointWeights(t *testing.T) {
	c := attach(t, testnet.MLP{Widths: []int{3, 2}, Cases: 5, Loss: testnet.TwoHeads}.Build(1))
	testnet.Near(t, "scale and weights", append([]float64{c.graph.scale()}, c.graph.weights...),
		[]float64{1.0 / 5, 0.4, 1}, identity)
}

// With one case, the expectations over cases are that case.
func TestOneCaseIsExact(t *testing.T) {
	for unit, f := range nonlinearities {
		for name, loss := range likelihoods {
			t.Run(unit+" "+name, func(t *testing.T) {
				c := attach(t, testnet.MLP{Widths: []int{3, 4, 5, 2}, Cases: 1, Unit: f, Loss: loss}.Build(2))
				fisher := denseFisher(t, c, jacobians(t, c))
				checkBlocks(t, c, exactAverages(t, c, nil), fisher)
				if rounded := mat.Norm(fisher, 2); rounded < 1e-3 {
					t.Errorf("the Fisher matrix is next to nothing: norm %g", rounded)
				}
			})
		}
	}
}

// One case of a larger batch is as exact as one by itself, and the Jacobians may as well come from
// finite differences of what Gorgonia's own machine computes.
func TestOneRowIsExactByFiniteDifferences(t *testing.T) {
	for name, loss := range map[string]testnet.Likelihood{"bernoulli": testnet.Binary, "categorical": testnet.Classes} {
		t.Run(name, func(t *testing.T) {
			n := testnet.MLP{Widths: []int{3, 4, 2}, Cases: 3, Unit: gorgonia.Tanh, Loss: loss}.Build(3)
			c := attach(t, n)
			numeric := differences(t, n)
			for i, j := range jacobians(t, c) {
				testnet.Near(t, fmt.Sprint("Jacobian of case ", i), flatOf(j), flatOf(numeric[i]), 1e-10)
			}
			for row := range 3 {
				avg := exactAverages(t, c, []int{row})
				only := caseFisher(t, c, numeric[row], row)
				for _, l := range placedLayers(c) {
					want := pick(only, elements(c, l.Layer))
					what := fmt.Sprint(l.Name(), " of case ", row)
					testnet.Near(t, what, flatOf(l.kronecker(avg)), flatOf(want), 1e-9)
				}
			}
		})
	}
}

// caseFisher is J^T F_R J of one case.
func caseFisher(t *testing.T, c *training[float64], j *mat.Dense, row int) *mat.Dense {
	t.Helper()
	o := c.plan.model.outputs[0]
	z := c.plan.model.run.Value(o.node).Data
	if len(z) != o.cols {
		t.Fatalf("case %d: the run holds %d numbers, want %d", row, len(z), o.cols)
	}
	var f mat.Dense
	f.Product(j.T(), mat.NewDense(o.cols, o.cols, plainFisher(o.head, z)), j)
	return &f
}

// The root of F_R and the possible targets with their probabilities give the same factors.
func TestFactorsByEnumerationOfTargets(t *testing.T) {
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			c := attach(t, testnet.MLP{Widths: []int{4, 3, 3}, Cases: 6, Unit: gorgonia.Tanh, Loss: loss}.Build(4))
			want := exactAverages(t, c, nil)
			got := seededAverages(t, c, nil, func(o *output) int {
				return len(outcomes(o.head, make([]float64, o.cols)))
			}, targetSeeds)
			for _, l := range placedLayers(c) {
				sum, exact := got[l.index].Moments, want[l.index].Moments
				testnet.Near(t, l.Name(), slices.Concat(sum...), slices.Concat(exact...), identity)
			}
		})
	}
}

// momentsOf are the factors that one run on the listed rows gives, layer by layer.
func momentsOf(t *testing.T, c *training[float64], rows []int) (moments [][]float64) {
	t.Helper()
	avg := exactAverages(t, c, rows)
	for _, l := range placedLayers(c) {
		a, g := l.factors(avg)
		moments = append(moments, a, g)
	}
	return moments
}

func checkMoments(t *testing.T, what string, got, want [][]float64) {
	t.Helper()
	for i := range want {
		testnet.Near(t, fmt.Sprintf("%s: factor %d", what, i), got[i], want[i], identity)
	}
}

// copied is a batch of a network with the listed rows of its own.
func copied(t *testing.T, m testnet.MLP, seed uint64, rows []int) *training[float64] {
	t.Helper()
	n := m.Build(seed)
	from, width := testnet.Data(n.X), m.Widths[0]
	small := m
	small.Cases = len(rows)
	s := small.Build(seed)
	for i, p := range s.Params {
		copy(testnet.Data(p), testnet.Data(n.Params[i]))
	}
	for i, row := range rows {
		copy(testnet.Data(s.X)[i*width:(i+1)*width], from[row*width:(row+1)*width])
	}
	return attach(t, s)
}

// Factors are means over cases: copies of one case count as that case.
func TestCopiesChangeNothing(t *testing.T) {
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			m := testnet.MLP{Widths: []int{4, 3, 2}, Cases: 3, Unit: gorgonia.Tanh, Loss: loss}
			want := momentsOf(t, copied(t, m, 5, []int{1}), nil)
			checkMoments(t, "nine copies", momentsOf(t, copied(t, m, 5, []int{1, 1, 1, 1, 1, 1, 1, 1, 1}), nil), want)
			pair := momentsOf(t, copied(t, m, 5, []int{2, 1}), nil)
			checkMoments(t, "pairs", momentsOf(t, copied(t, m, 5, []int{1, 2, 2, 1, 1, 2}), nil), pair)
		})
	}
}

// Statistics of some rows are those of a batch that holds no others, and chunks average to the
// whole.
func TestRowsAndChunks(t *testing.T) {
	models := map[string]func(cases int) *testnet.Net{
		"mlp": func(cases int) *testnet.Net {
			return testnet.MLP{Widths: []int{4, 3, 2}, Cases: cases, Unit: gorgonia.Tanh,
				Loss: testnet.Classes}.Build(6)
		},
		"convolution":    testnet.Convolution,
		"sequence":       func(cases int) *testnet.Net { return testnet.Sequence(cases, gorgonia.Tanh) },
		"case by column": testnet.Columns,
	}
	for name, build := range models {
		t.Run(name, func(t *testing.T) {
			whole := build(6)
			c := attach(t, whole)
			if why := c.plan.model.Whole; why != "" {
				t.Fatal(why)
			}
			some, rest := []int{4, 1, 3}, []int{0, 5, 2}
			part, other, all := momentsOf(t, c, some), momentsOf(t, c, rest), momentsOf(t, c, nil)
			small := build(3)
			small.CopyParams(whole)
			copyCases(small.X, whole.X, some)
			checkMoments(t, "a batch of these rows", momentsOf(t, attach(t, small), nil), part)
			for i := range all {
				mean := make([]float64, len(all[i]))
				for k := range mean {
					mean[k] = (part[i][k] + other[i][k]) / 2
				}
				testnet.Near(t, fmt.Sprint("mean of two chunks, factor ", i), mean, all[i], identity)
			}
		})
	}
}

// copyCases copies the listed cases, which lie along the first axis, or along the last if the input
// is of columns.
func copyCases(dst, src *gorgonia.Node, rows []int) {
	if src.Name() == "columns" {
		from, to := src.Shape()[1], dst.Shape()[1]
		for i := range src.Shape()[0] {
			for k, row := range rows {
				testnet.Data(dst)[i*to+k] = testnet.Data(src)[i*from+row]
			}
		}
		return
	}
	one := len(testnet.Data(src)) / src.Shape()[0]
	for k, row := range rows {
		copy(testnet.Data(dst)[k*one:(k+1)*one], testnet.Data(src)[row*one:])
	}
}

// In a linear net whose loss is a sum over positions the average over cases and positions of A and
// the sum over positions of G are exact, too.
func TestLinearSequenceIsExact(t *testing.T) {
	c := attach(t, testnet.Sequence(6, nil))
	checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
}

// The same where a weight is used in several products, one for each position.
func TestLinearSharedWeightIsExact(t *testing.T) {
	s := testnet.NewSketch(10)
	w, b := s.Random("w", 4, 3), s.Random("b", 1, 3)
	var parts gorgonia.Nodes
	for i := range 3 {
		x := s.Random(fmt.Sprint("x", i), 5, 4)
		parts = append(parts, testnet.AddRow(testnet.Mul(x, w), b))
	}
	n := &testnet.Net{Sketch: s, Params: gorgonia.Nodes{w, b}}
	n.Ends(testnet.Concat(1, parts...), testnet.Squares(1))
	c := attach(t, n)
	if all := placedLayers(c); len(all) != 1 || len(all[0].Sites) != 3 {
		t.Fatalf("want one layer of three sites; plan:\n%v", c.describe())
	}
	checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
}
