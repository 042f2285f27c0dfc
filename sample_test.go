package kfac

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// sampledFactors are the averages of one draw of targets for a part of the batch, as if they were
// the first.
func sampledFactors(t *testing.T, c *training[float64], fraction float64, rng *rand.Rand) averages[float64] {
	t.Helper()
	err := sampled(c, fraction, rng)
	testnet.Check(t, err)
	return firstAverages(t, c)
}

// The factors of sampled targets converge to the exact ones, as fast as a mean of independent draws
// does.
func TestSampledFactorsConverge(t *testing.T) {
	const cases, few, many, total = 50, 16, 256, 1024 // draws of a batch: 51200 targets in all
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			c := attach(t, testnet.MLP{Widths: []int{3, 4, 2}, Cases: cases, Unit: gorgonia.Tanh, Loss: loss}.Build(1))
			avg := exactAverages(t, c, nil)
			layers := placedLayers(c)
			var exact, exactA [][]float64
			for _, l := range layers {
				a, g := l.factors(avg)
				exact, exactA = append(exact, g), append(exactA, a)
			}
			rng := rand.New(rand.NewPCG(2, 3))
			draws := make([][][]float64, len(exact)) // by layer
			for range total {
				avg = sampledFactors(t, c, 1, rng)
				for i, l := range layers {
					_, g := l.factors(avg)
					draws[i] = append(draws[i], slices.Clone(g))
				}
				if last := len(draws[0]) == total; !last {
					avg.release(c.plan.blocks)
				}
			}
			var errorFew, errorMany float64 // mean squares
			for i, l := range layers {
				if d := testnet.Distance(meanOf(draws[i]), exact[i]); d > 0.05 {
					t.Errorf("%s: G of %d targets is off by %.3g of its norm", l.Name(), total*cases, d)
				}
				a, _ := l.factors(avg)
				testnet.Near(t, "A", a, exactA[i], identity)
				errorFew += meanSquaredDistance(draws[i], few, exact[i])
				errorMany += meanSquaredDistance(draws[i], many, exact[i])
			}
			if ratio := errorFew / errorMany * few / many; ratio < 0.5 || ratio > 2 {
				t.Errorf("the mean squared error goes with the number of draws to the power %.2f, want -1",
					-math.Log(errorFew/errorMany)/math.Log(many/few))
			}
		})
	}
}

func meanOf(draws [][]float64) []float64 {
	var sum []float64
	for _, d := range draws {
		sum = plus(sum, d)
	}
	for i := range sum {
		sum[i] /= float64(len(draws))
	}
	return sum
}

// meanSquaredDistance is that of means of n draws each.
func meanSquaredDistance(draws [][]float64, n int, want []float64) (mean float64) {
	for group := range slices.Chunk(draws, n) {
		d := testnet.Distance(meanOf(group), want)
		mean += d * d * float64(n) / float64(len(draws))
	}
	return mean
}

// With one case, A (x) G of a draw is the outer product of the sampled gradient with itself.
func TestSampledFactorsOfOneCase(t *testing.T) {
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			c := attach(t, testnet.MLP{Widths: []int{3, 4, 2}, Cases: 1, Unit: gorgonia.Sigmoid, Loss: loss}.Build(4))
			avg := sampledFactors(t, c, 1, rand.New(rand.NewPCG(5, 6)))
			theta := parameterGradient(t, c, c.plan.model.run, c.sampler.seeds)
			for _, l := range placedLayers(c) {
				at := elements(c, l.Layer)
				want := make([]float64, 0, len(at)*len(at))
				for _, i := range at {
					for _, j := range at {
						want = append(want, theta[i]*theta[j])
					}
				}
				testnet.Near(t, l.Name(), flatOf(l.kronecker(avg)), want, identity)
			}
		})
	}
}

// parameterGradient sweeps back to the parameters themselves: the gradients in the order of the
// plan.
func parameterGradient(t testing.TB, c *training[float64], run *program.Run[float64],
	seeds []program.Seed[float64]) (theta []float64) {
	t.Helper()
	var leaves []*program.Node
	for _, p := range c.plan.order {
		leaves = append(leaves, p.leaf)
	}
	testnet.Check(t, run.Reverse(seeds, c.plan.model.Path(leaves...)))
	for _, leaf := range leaves {
		theta = append(theta, run.Gradient(leaf)...)
	}
	return theta
}

// A vector of outputs is one case's, unless no parameter would have cases if it held one number for
// each case.
func TestTellCases(t *testing.T) {
	vector := func(s *testnet.Sketch, z *gorgonia.Node, params ...*gorgonia.Node) *testnet.Net {
		n := &testnet.Net{Sketch: s, Out: z, Params: params}
		n.Cost, n.Loss = testnet.Squares(1)(s, z)
		return n
	}
	s := testnet.NewSketch(13)
	theta := s.Random("theta", 4)
	each := vector(s, mul(s.Random("x", cases, 4), theta), theta)
	s = testnet.NewSketch(14)
	w, b := s.Random("w", 3, 4), s.Random("b", 3)
	single := vector(s, add(mul(w, s.Random("x", 4)), b), w, b)
	s = testnet.NewSketch(15)
	v := s.Random("v", 4, 3)
	row := &testnet.Net{Sketch: s, Out: mul(s.Random("x", 4), v), Params: list(v)}
	row.Loss = testnet.Categorical(row.Out)
	logp := testnet.LogSoftMax(row.Out)
	row.Cost = testnet.Neg(testnet.Sum(hadamard(logp, s.Leaf("y", []float64{0, 1, 0}, 3))))
	for _, test := range []struct {
		what        string
		n           *testnet.Net
		cases, cols int
	}{
		{"Mul(x, theta)", each, cases, 1},
		{"Mul(w, vector) + b", single, 1, 3},
		{"classes of one case", row, 1, 3},
		{"matrix", testnet.MLP{Widths: []int{4, 3}, Cases: cases, Loss: testnet.Binary}.Build(1), cases, 3},
		{"one row", testnet.MLP{Widths: []int{4, 3}, Cases: 1, Loss: testnet.Binary}.Build(1), 1, 3},
	} {
		c := attach(t, test.n)
		m := c.plan.model
		if got := m.outputs[0].cols; m.Cases != test.cases || got != test.cols {
			t.Errorf("%s: %d cases of %d numbers, want %d of %d", test.what, m.Cases, got, test.cases, test.cols)
		}
	}
}

// The chosen cases are distinct, and as many as were asked for.
func TestChoose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cases := rapid.IntRange(2, 60).Draw(t, "cases")
		fraction := rapid.Float64Range(0.01, 1).Draw(t, "fraction")
		atLeast := rapid.IntRange(1, 80).Draw(t, "at least")
		s := sampler[float64]{}
		p := &program.Program{Cases: cases}
		rng := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "seed")))
		want := max(int(math.Ceil(fraction*float64(cases))), atLeast)
		for range 3 { // the memory of one choice serves the next
			rows := s.randomCases(p, fraction, atLeast, rng)
			if want >= cases {
				if rows != nil {
					t.Fatalf("%d of %d cases, want nil for all", len(rows), cases)
				}
				continue
			}
			sorted := slices.Sorted(slices.Values(rows))
			if len(rows) != want || len(slices.Compact(sorted)) != want || sorted[0] < 0 || sorted[want-1] >= cases {
				t.Fatalf("rows %v, want %d different ones of %d", rows, want, cases)
			}
		}
	})
}

// Every case is chosen equally often.
func TestChooseIsUniform(t *testing.T) {
	const cases, share, times = 12, 4, 9000
	s := sampler[float64]{}
	rng := rand.New(rand.NewPCG(7, 8))
	var count [cases]float64
	for range times {
		for _, row := range s.randomCases(&program.Program{Cases: cases}, 1.0/3, 1, rng) {
			count[row]++
		}
	}
	mean, p := float64(times)*share/cases, float64(share)/cases
	for row, n := range count {
		if deviations := (n - mean) / math.Sqrt(times*p*(1-p)); math.Abs(deviations) > 4 {
			t.Errorf("case %d was chosen %g times, want %g: %.1f standard deviations off", row, n, mean, deviations)
		}
	}
}

// A program that can only be run whole is.
func TestChooseWhole(t *testing.T) {
	s := sampler[float64]{}
	if rows := s.randomCases(&program.Program{Cases: 8, Whole: "it mixes cases"}, 0.5, 1,
		rand.New(rand.NewPCG(1, 1))); rows != nil {
		t.Errorf("rows %v, want nil for all", rows)
	}
}

// The statistics of random parts of the batch have the whole batch's as their mean.
func TestStatisticsOfPartsAreUnbiased(t *testing.T) {
	const draws = 4000
	c := attach(t, testnet.MLP{Widths: []int{3, 2}, Cases: 9, Loss: testnet.Squares(1)}.Build(9))
	l := placedLayers(c)[0]
	exactA, exactG := l.factors(exactAverages(t, c, nil))
	rng := rand.New(rand.NewPCG(10, 11))
	var a, g [][]float64
	for range draws {
		avg := sampledFactors(t, c, 1.0/3, rng)
		if n := c.plan.model.run.Cases(); n != 3 {
			t.Fatalf("%d cases, want 3", n)
		}
		drawnA, drawnG := l.factors(avg)
		a, g = append(a, slices.Clone(drawnA)), append(g, slices.Clone(drawnG))
		avg.release(c.plan.blocks)
	}
	testnet.Near(t, "A", meanOf(a), exactA, 0.03)
	testnet.Near(t, "G", meanOf(g), exactG, 0.05)
}

func TestSampleOfOutputNotFinite(t *testing.T) {
	n := testnet.MLP{Widths: []int{3, 2}, Cases: 4, Loss: testnet.Binary}.Build(12)
	c := attach(t, n)
	testnet.Data(n.X)[7] = math.NaN()
	err := sampled(c, 1, rand.New(rand.NewPCG(1, 1)))
	var graph *GraphError
	if !errors.Is(err, ErrNotFinite) || !errors.As(err, &graph) || graph.Node != program.NameOf(n.Out) {
		t.Errorf("error %v, want a GraphError of %q that wraps ErrNotFinite", err, program.NameOf(n.Out))
	}
}

// The statistics take whole what the quadratic model takes whole, up to twice as many cases as they
// take otherwise.
func TestLeastStatistics(t *testing.T) {
	for _, test := range []struct {
		opts        []Option
		cases, want int
	}{
		{nil, 20, 20}, {nil, 128, 128}, {nil, 256, 256}, {nil, 257, 128}, {nil, 4000, 128},
		{[]Option{WithLearningRate(0.1)}, 256, 128},
		{[]Option{WithMinModelCases(200)}, 256, 128},
		{[]Option{WithMinModelCases(200)}, 200, 200},
		{[]Option{WithModelFraction(1)}, 256, 256},
		{[]Option{WithModelFraction(1)}, 300, 128},
		{[]Option{WithMinStatisticsCases(30)}, 200, 30},
		{[]Option{WithMinStatisticsCases(300)}, 200, 300},
	} {
		cfg := defaults()
		for _, o := range test.opts {
			testnet.Check(t, o(&cfg))
		}
		if got := leastStatistics(&cfg, test.cases); got != test.want {
			t.Errorf("%d options, %d cases: at least %d, want %d", len(test.opts), test.cases, got, test.want)
		}
	}
}

// The variance of the residuals of a part of the batch is that of their differences from the
// targets, in units of the declared variance, whatever the scale of the cost.
func TestVariancesOfResiduals(t *testing.T) {
	for _, rows := range [][]int{nil, {3}, {4, 0, 6}} {
		n := testnet.MLP{Widths: []int{3, 2}, Cases: 7, Loss: testnet.Times(testnet.Squares(0.3), 50)}.Build(3)
		c := attach(t, n)
		testnet.Check(t, c.plan.model.forward(conditions[float64]{}, rows))
		found, err := c.graph.variances(c.plan.model, rows)
		testnet.Check(t, err)
		all := rows
		if rows == nil {
			all = []int{0, 1, 2, 3, 4, 5, 6}
		}
		var want float64
		for i, row := range all {
			for j := range 2 {
				r := c.plan.model.outputs[0].z[2*i+j] - testnet.Data(n.Input("y"))[2*row+j]
				want += r * r / 0.3 / float64(2*len(all))
			}
		}
		testnet.Near(t, "variance", values(found), []float64{want}, identity)
	}
}
