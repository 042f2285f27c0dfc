package kfac

import (
	"fmt"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
)

// identity is the tolerance for what is equal but for the rounding of float64.
const identity = 1e-12

// checkBlocks demands that A (x) G of every layer is the block of the dense Fisher matrix on its diagonal.
func checkBlocks(t *testing.T, c *conductor[float64], fisher *mat.Dense) {
	t.Helper()
	for _, b := range layerBlocks(c) {
		want := pick(fisher, elements(c, b.layer))
		checkNear(t, b.layer.Name(), flatOf(kronecker(b.factors)), flatOf(want), identity)
	}
}

// In a deep linear net with a Gaussian likelihood, g does not depend on the case, so A (x) G is exact.
func TestLinearNetIsExact(t *testing.T) {
	for _, variance := range []float64{1, 0.37} {
		for _, noBias := range []bool{false, true} {
			for _, outByIn := range []bool{false, true} {
				t.Run(fmt.Sprintf("variance=%g noBias=%v outByIn=%v", variance, noBias, outByIn), func(t *testing.T) {
					n := mlp{widths: []int{4, 3, 5, 2}, cases: 7, noBias: noBias, outByIn: outByIn, loss: squares(variance)}.build(1)
					c := attach(t, n)
					if got := len(layerBlocks(c)); got != 3 {
						t.Fatalf("%d layers, want 3", got)
					}
					observeExactly(t, c, nil)
					checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
				})
			}
		}
	}
}

// The empirical Fisher matrix, with the targets of the data in place of the model's own, is another matrix.
func TestEmpiricalGradientsAreNotExact(t *testing.T) {
	n := mlp{widths: []int{4, 3, 2}, cases: 7, loss: squares(1)}.build(1)
	c := attach(t, n)
	y := input(n, "y")
	observeSeeded(t, c, nil, func(*output) int { return 1 }, func(o *output, z []float64, _ int) []float64 {
		seed := make([]float64, len(z))
		o.head.Residual(seed, data(y), z, o.cols)
		return seed
	})
	fisher := denseFisher(t, c, jacobians(t, c))
	for _, b := range layerBlocks(c) {
		if d := distance(flatOf(kronecker(b.factors)), flatOf(pick(fisher, elements(c, b.layer)))); d < 0.1 {
			t.Errorf("%s: only %g away from the Fisher matrix", b.layer.Name(), d)
		}
	}
}

var units = map[string]func(*gorgonia.Node) (*gorgonia.Node, error){
	"tanh": gorgonia.Tanh, "sigmoid": gorgonia.Sigmoid, "relu": gorgonia.Rectify,
}

var likelihoods = map[string]lossFunc{
	"gaussian": squares(0.37), "bernoulli": binary, "categorical": classes, "joint": twoHeads,
}

// twoHeads reads the output twice, through fixed weights, with different shares in the cost.
func twoHeads(s *sketch, out *gorgonia.Node) (*gorgonia.Node, Distribution) {
	width, fixed := out.Shape()[1], newSketch(13)
	z1 := must(gorgonia.Mul(out, s.leaf("head 1", fixed.normals(width*2), width, 2)))
	z2 := must(gorgonia.Mul(out, s.leaf("head 2", fixed.normals(width*3), width, 3)))
	error1 := must(gorgonia.Sum(must(gorgonia.Square(must(gorgonia.Sub(z1, s.random("y1", z1.Shape()...)))))))
	cost1 := must(gorgonia.Mul(error1, gorgonia.NewConstant(0.2/float64(casesOf(out)))))
	cost2, dist2 := classes(s, z2)
	return must(gorgonia.Add(cost1, cost2)), Joint(Gaussian(z1, 1), dist2)
}

// The heads' weights are their shares in the cost relative to the first's: 2 * 0.2 and 1.
func TestJointWeights(t *testing.T) {
	c := attach(t, mlp{widths: []int{3, 2}, cases: 5, loss: twoHeads}.build(1))
	checkNear(t, "scale and weights", []float64{c.scale, c.outputs[0].weight, c.outputs[1].weight}, []float64{0.4 / 5, 1, 2.5}, identity)
}

// With one case, the expectations over cases are that case.
func TestOneCaseIsExact(t *testing.T) {
	for unit, f := range units {
		for name, loss := range likelihoods {
			t.Run(unit+" "+name, func(t *testing.T) {
				c := attach(t, mlp{widths: []int{3, 4, 5, 2}, cases: 1, unit: f, loss: loss}.build(2))
				observeExactly(t, c, nil)
				fisher := denseFisher(t, c, jacobians(t, c))
				checkBlocks(t, c, fisher)
				if rounded := mat.Norm(fisher, 2); rounded < 1e-3 {
					t.Errorf("the Fisher matrix is next to nothing: norm %g", rounded)
				}
			})
		}
	}
}

// One case of a larger batch is as exact as one by itself, and the Jacobians may as well come from finite differences of what
// Gorgonia's own machine computes.
func TestOneRowIsExactByFiniteDifferences(t *testing.T) {
	for name, loss := range map[string]lossFunc{"bernoulli": binary, "categorical": classes} {
		t.Run(name, func(t *testing.T) {
			n := mlp{widths: []int{3, 4, 2}, cases: 3, unit: gorgonia.Tanh, loss: loss}.build(3)
			c := attach(t, n)
			numeric := differences(t, n)
			for i, j := range jacobians(t, c) {
				checkNear(t, fmt.Sprint("Jacobian of case ", i), flatOf(j), flatOf(numeric[i]), 1e-10)
			}
			for row := range 3 {
				observeExactly(t, c, []int{row})
				only := caseFisher(t, c, numeric[row], row)
				for _, b := range layerBlocks(c) {
					want := pick(only, elements(c, b.layer))
					checkNear(t, fmt.Sprint(b.layer.Name(), " of case ", row), flatOf(kronecker(b.factors)), flatOf(want), 1e-9)
				}
			}
		})
	}
}

// caseFisher is J^T F_R J of one case.
func caseFisher(t *testing.T, c *conductor[float64], j *mat.Dense, row int) *mat.Dense {
	t.Helper()
	o := c.outputs[0]
	z := c.sampler.run.Value(o.node).Data
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
			c := attach(t, mlp{widths: []int{4, 3, 3}, cases: 6, unit: gorgonia.Tanh, loss: loss}.build(4))
			observeExactly(t, c, nil)
			var want [][]float64
			for _, b := range layerBlocks(c) {
				want = append(want, slices.Concat(b.factors.a.next, b.factors.g.next))
			}
			observeSeeded(t, c, nil, func(o *output) int { return len(outcomes(o.head, make([]float64, o.cols))) }, targetSeeds)
			for i, b := range layerBlocks(c) {
				checkNear(t, b.layer.Name(), slices.Concat(b.factors.a.next, b.factors.g.next), want[i], identity)
			}
		})
	}
}

// momentsOf are the factors that one run on the listed rows gives, layer by layer.
func momentsOf(t *testing.T, c *conductor[float64], rows []int) (moments [][]float64) {
	t.Helper()
	observeExactly(t, c, rows)
	for _, b := range layerBlocks(c) {
		moments = append(moments, slices.Clone(b.factors.a.next), slices.Clone(b.factors.g.next))
	}
	return moments
}

func checkMoments(t *testing.T, what string, got, want [][]float64) {
	t.Helper()
	for i := range want {
		checkNear(t, fmt.Sprintf("%s: factor %d", what, i), got[i], want[i], identity)
	}
}

// copied is a batch of a network with the listed rows of its own.
func copied(t *testing.T, m mlp, seed uint64, rows []int) *conductor[float64] {
	t.Helper()
	n := m.build(seed)
	from, width := data(n.x), m.widths[0]
	small := m
	small.cases = len(rows)
	s := small.build(seed)
	for i, p := range s.params {
		copy(data(p), data(n.params[i]))
	}
	for i, row := range rows {
		copy(data(s.x)[i*width:(i+1)*width], from[row*width:(row+1)*width])
	}
	return attach(t, s)
}

// Factors are means over cases: copies of one case count as that case.
func TestCopiesChangeNothing(t *testing.T) {
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			m := mlp{widths: []int{4, 3, 2}, cases: 3, unit: gorgonia.Tanh, loss: loss}
			want := momentsOf(t, copied(t, m, 5, []int{1}), nil)
			checkMoments(t, "nine copies", momentsOf(t, copied(t, m, 5, []int{1, 1, 1, 1, 1, 1, 1, 1, 1}), nil), want)
			pair := momentsOf(t, copied(t, m, 5, []int{2, 1}), nil)
			checkMoments(t, "pairs", momentsOf(t, copied(t, m, 5, []int{1, 2, 2, 1, 1, 2}), nil), pair)
		})
	}
}

// Statistics of some rows are those of a batch that holds no others, and chunks average to the whole.
func TestRowsAndChunks(t *testing.T) {
	models := map[string]func(cases int) *network{
		"mlp": func(cases int) *network {
			return mlp{widths: []int{4, 3, 2}, cases: cases, unit: gorgonia.Tanh, loss: classes}.build(6)
		},
		"convolution":    convolutionNet,
		"sequence":       func(cases int) *network { return sequenceNet(cases, gorgonia.Tanh) },
		"case by column": columnNet,
	}
	for name, build := range models {
		t.Run(name, func(t *testing.T) {
			whole := build(6)
			c := attach(t, whole)
			if c.model.Whole != "" {
				t.Fatal(c.model.Whole)
			}
			some, rest := []int{4, 1, 3}, []int{0, 5, 2}
			part, other, all := momentsOf(t, c, some), momentsOf(t, c, rest), momentsOf(t, c, nil)
			small := build(3)
			copyParams(small, whole)
			copyCases(small.x, whole.x, some)
			checkMoments(t, "a batch of these rows", momentsOf(t, attach(t, small), nil), part)
			for i := range all {
				mean := make([]float64, len(all[i]))
				for k := range mean {
					mean[k] = (part[i][k] + other[i][k]) / 2
				}
				checkNear(t, fmt.Sprint("mean of two chunks, factor ", i), mean, all[i], identity)
			}
		})
	}
}

func copyParams(dst, src *network) {
	for i, p := range dst.params {
		copy(data(p), data(src.params[i]))
	}
}

// copyCases copies the listed cases, which lie along the first axis, or along the last if the input is of columns.
func copyCases(dst, src *gorgonia.Node, rows []int) {
	if src.Name() == "columns" {
		from, to := src.Shape()[1], dst.Shape()[1]
		for i := range src.Shape()[0] {
			for k, row := range rows {
				data(dst)[i*to+k] = data(src)[i*from+row]
			}
		}
		return
	}
	one := len(data(src)) / src.Shape()[0]
	for k, row := range rows {
		copy(data(dst)[k*one:(k+1)*one], data(src)[row*one:])
	}
}

// convolutionNet is a convolution of 2 to 3 channels on images of 4 x 4, a rectifier, and a dense layer.
func convolutionNet(cases int) *network {
	s := newSketch(7)
	n := &network{sketch: s, x: s.random("x", cases, 2, 4, 4)}
	filter, w := s.random("filter", 3, 2, 2, 2), s.random("w", 3*3*3, 2)
	h := must(gorgonia.Conv2d(n.x, filter, []int{2, 2}, []int{0, 0}, []int{1, 1}, []int{1, 1}))
	h = must(gorgonia.Reshape(must(gorgonia.Tanh(h)), []int{cases, 27}))
	n.out = must(gorgonia.Mul(h, w))
	n.params = gorgonia.Nodes{filter, w}
	n.cost, n.dist = binary(s, n.out)
	return n
}

// sequenceNet applies the same two layers at each of three positions of every case, and predicts at each.
func sequenceNet(cases int, unit func(*gorgonia.Node) (*gorgonia.Node, error)) *network {
	const positions = 3
	s := newSketch(8)
	n := &network{sketch: s, x: s.random("x", cases, positions, 4)}
	h := must(gorgonia.Reshape(n.x, []int{cases * positions, 4}))
	h = n.layer(h, 0, 4, 5, true, false)
	if unit != nil {
		h = must(unit(h))
	}
	h = n.layer(h, 1, 5, 2, true, false)
	n.out = must(gorgonia.Reshape(h, []int{cases, positions * 2}))
	n.cost, n.dist = squares(1)(s, n.out)
	return n
}

// columnNet has the cases along the columns.
func columnNet(cases int) *network {
	s := newSketch(9)
	n := &network{sketch: s, x: s.random("columns", 4, cases)}
	w0, b0, w1 := s.random("w0", 3, 4), s.random("b0", 3, 1), s.random("w1", 2, 3)
	h := must(gorgonia.BroadcastAdd(must(gorgonia.Mul(w0, n.x)), b0, nil, []byte{1}))
	n.out = must(gorgonia.Transpose(must(gorgonia.Mul(w1, must(gorgonia.Tanh(h))))))
	n.params = gorgonia.Nodes{w0, b0, w1}
	n.cost, n.dist = binary(s, n.out)
	return n
}

// In a linear net whose loss is a sum over positions the average over cases and positions of A and the sum over positions of G
// are exact, too.
func TestLinearSequenceIsExact(t *testing.T) {
	c := attach(t, sequenceNet(6, nil))
	observeExactly(t, c, nil)
	checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
}

// The same where a weight is used in several products, one for each position.
func TestLinearSharedWeightIsExact(t *testing.T) {
	s := newSketch(10)
	w, b := s.random("w", 4, 3), s.random("b", 1, 3)
	var parts gorgonia.Nodes
	for i := range 3 {
		x := s.random(fmt.Sprint("x", i), 5, 4)
		parts = append(parts, must(gorgonia.BroadcastAdd(must(gorgonia.Mul(x, w)), b, nil, []byte{0})))
	}
	n := &network{sketch: s, out: must(gorgonia.Concat(1, parts...)), params: gorgonia.Nodes{w, b}}
	n.cost, n.dist = squares(1)(s, n.out)
	c := attach(t, n)
	if blocks := layerBlocks(c); len(blocks) != 1 || len(blocks[0].layer.Sites) != 3 {
		t.Fatalf("want one layer of three sites; plan:\n%v", c.plan)
	}
	observeExactly(t, c, nil)
	checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
}
