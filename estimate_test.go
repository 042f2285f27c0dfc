package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// estimated are the averages of a run of some cases, nil for all, by the estimate of the solver's
// options, as if they were the first.
func estimated(t rapid.TB, c *training[float64], rows []int, rng *rand.Rand) averages[float64] {
	t.Helper()
	m := c.plan.model
	testnet.Check(t, m.forward(conditions[float64]{}, rows))
	for i := range c.sampler.sweeps(m) {
		testnet.Check(t, c.sampler.sweep(i, c.graph, m, c.plan.path, &c.graph.units, rows, draws{rng: rng}))
		testnet.Check(t, observe(c.plan, i > 0))
	}
	avg, err := newAverages(c.plan.blocks, 0, true)
	testnet.Check(t, err)
	return avg
}

// checkSame compares all moments of blocks, but for diagonals outside layers.
func checkSame(t *testing.T, c *training[float64], got, want averages[float64], tolerance float64) {
	t.Helper()
	for i, b := range c.plan.blocks {
		if _, ok := b.Block.(*curvature.Diagonal[float64]); ok {
			continue
		}
		for k := range want[i].Moments {
			testnet.Near(t, fmt.Sprint(b.groups[0].params[0].name, ", moment ", k), got[i].Moments[k],
				want[i].Moments[k], tolerance)
		}
	}
}

// The exact estimate is the expectation over the model's targets, for the whole batch and for some
// cases: for one case, A (x) G is the block of the dense Fisher matrix.
func TestExactFisher(t *testing.T) {
	for name, loss := range likelihoods {
		for _, opts := range [][]Option{nil, {WithBlockTridiagonal()}} {
			t.Run(fmt.Sprint(name, len(opts)), func(t *testing.T) {
				n := testnet.MLP{Widths: []int{3, 4, 5, 3}, Cases: 6, Unit: gorgonia.Tanh, Loss: loss}.Build(2)
				c := attach(t, n, append(opts, WithFisherEstimate(ExactFisher))...)
				for _, rows := range [][]int{nil, {4, 1}} {
					got := estimated(t, c, rows, rand.New(rand.NewPCG(1, 2)))
					checkSame(t, c, got, exactAverages(t, c, rows), 1e-10)
				}
			})
		}
		t.Run(name+" of one case", func(t *testing.T) {
			n := testnet.MLP{Widths: []int{3, 4, 2}, Cases: 1, Unit: gorgonia.Sigmoid, Loss: loss}.Build(3)
			c := attach(t, n, WithFisherEstimate(ExactFisher))
			avg := estimated(t, c, nil, rand.New(rand.NewPCG(1, 2)))
			checkBlocks(t, c, avg, denseFisher(t, c, jacobians(t, c)))
		})
	}
}

// So it is for weights in other places: tied, recurrent, convolutions, parameters that act element
// by element.
func TestExactFisherOfOtherBlocks(t *testing.T) {
	for _, test := range []struct {
		name string
		net  func() *testnet.Net
		opts []Option
	}{
		{"tied", func() *testnet.Net {
			return tiedCoder{In: 4, Hidden: 3, Cases: 5, Bias: true, loss: testnet.Binary}.build(1)
		}, nil},
		{"scale and shift", func() *testnet.Net {
			return elementwiseNetNamed("scale and shift").network(testnet.Classes)
		}, nil},
		{"recurrent", func() *testnet.Net { return testnet.Recurrent(2, 4, false) },
			[]Option{WithTimeCorrelation(TimeSymmetric)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := attach(t, test.net(), append(test.opts, WithFisherEstimate(ExactFisher))...)
			got := estimated(t, c, nil, rand.New(rand.NewPCG(1, 2)))
			checkSame(t, c, got, exactAverages(t, c, nil), 1e-10)
		})
	}
}

// The factors of a classification at several positions are those of the enumeration of the classes
// at each position, with the other positions' gradients zero.
func TestExactFisherAtPositions(t *testing.T) {
	const cases, positions, classes = 3, 2, 3
	s := testnet.NewSketch(5)
	w := s.Random("w", 4, classes)
	x := s.Random("x", cases*positions, 4)
	z := gorgonia.Must(gorgonia.Reshape(gorgonia.Must(gorgonia.Mul(x, w)), []int{cases, positions, classes}))
	y := s.Leaf("y", testnet.OneHots(s.Rng, cases*positions, classes), cases, positions, classes)
	logs := gorgonia.Must(gorgonia.Log(gorgonia.Must(gorgonia.SoftMax(z, 2))))
	cost := testnet.Neg(testnet.Sum(hadamard(logs, y)))
	n := &testnet.Net{Sketch: s, Out: z, Cost: cost, Loss: testnet.Categorical(z), Params: list(w)}
	c := attach(t, n, WithFisherEstimate(ExactFisher), WithWeightSharing(Expand))
	avg := estimated(t, c, nil, rand.New(rand.NewPCG(1, 2)))
	want := mat.NewDense(classes, classes, nil)
	logits := mat.NewDense(cases*positions, classes, c.plan.model.outputs[0].z)
	for r := range cases * positions {
		f := mat.NewDense(classes, classes, plainFisher(c.plan.model.outputs[0].head, logits.RawRowView(r)))
		f.Scale(1.0/cases, f)
		want.Add(want, f)
	}
	_, g := placedLayers(c)[0].factors(avg)
	testnet.Near(t, "G", g, flatOf(want), 1e-10)
}

// With one output, curvature propagation is exact.
func TestCurvaturePropagationOfOneOutput(t *testing.T) {
	for name, loss := range map[string]testnet.Likelihood{
		"gaussian": testnet.Squares(0.37), "bernoulli": testnet.Binary,
	} {
		t.Run(name, func(t *testing.T) {
			n := testnet.MLP{Widths: []int{3, 4, 1}, Cases: 7, Unit: gorgonia.Tanh, Loss: loss}.Build(4)
			for _, samples := range []int{1, 3} {
				c := attach(t, n, WithFisherEstimate(CurvaturePropagation), WithFisherSamples(samples))
				got := estimated(t, c, nil, rand.New(rand.NewPCG(1, uint64(samples))))
				checkSame(t, c, got, exactAverages(t, c, nil), 1e-10)
			}
		})
	}
}

// Estimates that draw have the exact one as their mean, and a mean of n draws has an nth of the
// variance.
func TestEstimatesThatDrawAreUnbiased(t *testing.T) {
	const draws, samples = 1500, 4
	for _, estimate := range []FisherEstimate{SampledFisher, CurvaturePropagation} {
		for name, loss := range likelihoods {
			t.Run(fmt.Sprint(estimate, " ", name), func(t *testing.T) {
				n := testnet.MLP{Widths: []int{3, 4, 3}, Cases: 20, Unit: gorgonia.Tanh, Loss: loss}.Build(5)
				var off [2]float64 // mean squared distances from the exact moments
				for i, samples := range []int{1, samples} {
					c := attach(t, n, WithFisherEstimate(estimate), WithFisherSamples(samples))
					l := placedLayers(c)[0]
					_, g := l.factors(exactAverages(t, c, nil))
					exact := slices.Clone(g)
					rng := rand.New(rand.NewPCG(6, 7))
					var all [][]float64
					for range draws {
						avg := estimated(t, c, nil, rng)
						_, g := l.factors(avg)
						all = append(all, slices.Clone(g))
						avg.release(c.plan.blocks)
					}
					off[i] = meanSquaredDistance(all, 1, exact)
					if d := testnet.Distance(meanOf(all), exact); d > 4*math.Sqrt(off[i]/draws) {
						t.Errorf("the mean of %d draws is off by %.3g of its norm, and one by %.3g", draws, d,
							math.Sqrt(off[i]))
					}
				}
				if ratio := off[0] / off[1] / samples; ratio < 0.8 || ratio > 1.25 {
					t.Errorf("%d samples have %.3g times less variance than one", samples, ratio*samples)
				}
			})
		}
	}
}

// The sign of each case makes what all cases have added to the gradient of a parameter have the
// right second moment in expectation: that of a diagonal block.
func TestDiagonalByExactFisherIsUnbiased(t *testing.T) {
	const draws = 4000
	s := testnet.NewSketch(8)
	w := s.Random("w", 4, 3)
	n := (&testnet.Net{Sketch: s, Params: list(w)}).Ends(mul(s.Random("x", 6, 4), testnet.Tanh(w)), testnet.Classes)
	c := attach(t, n, WithFisherEstimate(ExactFisher))
	i := blockIndex[*curvature.Diagonal[float64]](c)
	rng := rand.New(rand.NewPCG(8, 9))
	var all [][]float64
	for range draws {
		avg := estimated(t, c, nil, rng)
		all = append(all, slices.Clone(avg[i].Moments[0]))
		avg.release(c.plan.blocks)
	}
	fisher := denseFisher(t, c, jacobians(t, c))
	var want []float64
	for k := range 12 {
		want = append(want, fisher.At(k, k))
	}
	testnet.Near(t, "diagonal", meanOf(all), want, 0.05)
}

// The empirical estimate is the mean of the outer products of the gradients of the data: for one
// case A (x) G is the outer product of the objective's gradient, which the outputs' weights enter
// by their roots.
func TestEmpiricalFisher(t *testing.T) {
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			n := testnet.MLP{Widths: []int{3, 4, 3}, Cases: 6, Unit: gorgonia.Tanh, Loss: loss}.Build(6)
			c := attach(t, n, WithFisherEstimate(EmpiricalFisher))
			for _, rows := range [][]int{nil, {5, 2, 3}} {
				if outputs := c.plan.model.outputs; len(outputs) == 1 { // the gradients of several meet
					o := outputs[0]
					once := func(*output) int { return 1 }
					got := estimated(t, c, rows, rand.New(rand.NewPCG(1, 2)))
					y := targetsOf(n, o, rows)
					want := seededAverages(t, c, rows, once, func(o *output, z []float64, _ int) []float64 {
						seed := make([]float64, len(z))
						o.Residual(seed, y, z, o.cols)
						return seed
					})
					checkSame(t, c, got, want, 1e-10)
				}
			}
		})
		t.Run(name+" of one case", func(t *testing.T) {
			n := testnet.MLP{Widths: []int{3, 4, 3}, Cases: 1, Unit: gorgonia.Tanh, Loss: loss}.Build(7)
			c := attach(t, n, WithFisherEstimate(EmpiricalFisher))
			avg := estimated(t, c, nil, rand.New(rand.NewPCG(1, 2)))
			theta := parameterGradient(t, c, c.plan.model.run, c.sampler.seeds)
			gradients(t, c)
			var objective []float64
			for _, p := range c.plan.order {
				objective = append(objective, p.grad...)
			}
			if len(c.plan.model.outputs) == 1 {
				sign := math.Copysign(1, theta[0]*objective[0]) // that of the case
				for i := range theta {
					theta[i] *= sign
				}
				testnet.Near(t, "gradient", theta, objective, 1e-10)
			}
			for _, l := range placedLayers(c) {
				at := elements(c, l.Layer)
				var want []float64
				for _, i := range at {
					for _, j := range at {
						want = append(want, theta[i]*theta[j])
					}
				}
				testnet.Near(t, l.Name(), flatOf(l.kronecker(avg)), want, 1e-10)
			}
		})
	}
}

// targetsOf are those of the listed cases.
func targetsOf(n *testnet.Net, o *output, rows []int) (y []float64) {
	all := testnet.Data(n.Input("y"))
	if rows == nil {
		return all
	}
	for _, r := range rows {
		y = append(y, all[r*o.cols:(r+1)*o.cols]...)
	}
	return y
}

// Weights of cases count in each estimate as in the expectation: a case of weight 2 as twice the
// case, one of weight 0 not at all.
func TestEstimatesWithWeights(t *testing.T) {
	for _, estimate := range []FisherEstimate{EmpiricalFisher, ExactFisher} {
		t.Run(string(estimate), func(t *testing.T) {
			factors := func(w []float64, rows [][]float64) []float64 {
				s := testnet.NewSketch(8)
				weight, b := s.Random("w", 3, 2), s.Random("b", 1, 2)
				var x []float64
				for _, r := range rows {
					x = append(x, r...)
				}
				out := addRow(mul(s.Leaf("x", x, len(rows), 3), weight), b)
				each := gorgonia.Must(gorgonia.Sum(testnet.Square(out), 1)) // targets of 0
				cost := testnet.Sum(hadamard(each, s.Leaf("weights", w, len(w))))
				n := &testnet.Net{Sketch: s, Out: out, Cost: cost, Loss: testnet.Gaussian(out, 1),
					Params: list(weight, b)}
				c := attach(t, n, WithFisherEstimate(estimate))
				avg := estimated(t, c, c.graph.weighting.cases, rand.New(rand.NewPCG(1, 2)))
				_, g := placedLayers(c)[0].factors(avg)
				return g
			}
			a, b, z := []float64{1, 0.5, -1}, []float64{0.2, -0.3, 0.4}, []float64{7, 7, 7}
			weighted := factors([]float64{2, 1, 0}, [][]float64{a, b, z})
			repeated := factors([]float64{1, 1, 1}, [][]float64{a, a, b})
			testnet.Near(t, "G", weighted, repeated, 1e-10)
		})
	}
}

// Each estimate trains, from chunks too, and the same seed gives the same bits.
func TestEstimatesTrain(t *testing.T) {
	for _, opts := range [][]Option{
		{WithFisherEstimate(EmpiricalFisher)},
		{WithFisherEstimate(ExactFisher)},
		{WithFisherEstimate(CurvaturePropagation)},
		{WithFisherSamples(3)},
		{WithFisherSamples(3), WithBlockTridiagonal()},
	} {
		build := func() *Trainer {
			return NewTrainer(t, testnet.MLP{Widths: []int{3, 4, 3}, Cases: 20, Unit: gorgonia.Tanh,
				Loss: testnet.Classes}.Build(9), opts...)
		}
		first, second := build(), build()
		first.Falls(t, 20, 0.8)
		second.Falls(t, 20, 0.8)
		for i, p := range first.Params {
			testnet.Near(t, p.Name(), testnet.Data(p), testnet.Data(second.Params[i]), 0)
		}
	}
}

func TestEstimateOptions(t *testing.T) {
	n := testnet.MLP{Widths: []int{3, 2}, Cases: 4, Loss: testnet.Classes}.Build(1)
	for _, test := range []struct {
		option string
		opts   []Option
	}{
		{"WithFisherEstimate", []Option{WithFisherEstimate("best")}},
		{"WithFisherSamples", []Option{WithFisherSamples(0)}},
		{"WithFisherSamples", []Option{WithFisherSamples(1001)}},
		{"WithFisherSamples", []Option{WithFisherSamples(math.MaxInt)}},
		{"WithFisherSamples", []Option{WithFisherSamples(2), WithFisherEstimate(ExactFisher)}},
	} {
		_, err := NewSolver(n.Cost, Declared(n), test.opts...)
		var config *ConfigError
		if !errors.As(err, &config) || config.Setting != test.option {
			t.Errorf("error %v, want a ConfigError of %s", err, test.option)
		}
	}
	_, err := NewSolver(n.Cost, Policy(Declared(n)), WithFisherEstimate(EmpiricalFisher))
	var config *ConfigError
	if !errors.As(err, &config) {
		t.Errorf("error %v, want a ConfigError of the policy", err)
	}
}
