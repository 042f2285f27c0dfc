package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// Where the objective is quadratic and the batch repeats, the batch before says the same of every
// slope: a linear net with least squares.
func TestRepeatedBatchConfirmsTheSlope(t *testing.T) {
	for name, opts := range map[string][]Option{
		"default": nil, "L2": {WithL2Reg(0.05)}, "paper's rules": {WithPaperRules()},
		"without momentum": {WithoutMomentum(), WithL2Reg(0.01)},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewTrainer(t, testnet.MLP{Widths: []int{6, 3}, Cases: 40, Loss: testnet.Squares(0.5)}.Build(1),
				append(opts, WithMinStatisticsCases(6))...)
			var before noise
			for k := 1; k <= 12; k++ {
				l.Steps(t, 1)
				n := trainingOf(l).control.noise
				if k > 1 {
					slope, confirmed := n.own-fade*before.own, n.confirmed-fade*before.confirmed
					testnet.Near(t, fmt.Sprint("slope along Delta at step ", k), []float64{confirmed},
						[]float64{slope}, 1e-9)
					if st := statsOf(l); !(slope < 0) || math.Abs(st.Shrink-1) > 1e-12 {
						t.Errorf("step %d: slope %g, factor %g", k, slope, st.Shrink)
					}
				}
				before = n
			}
		})
	}
}

// In chunks it is the same.
func TestRepeatedChunksConfirmTheSlope(t *testing.T) {
	w := world{func(cases int) *testnet.Net {
		return testnet.MLP{Widths: []int{4, 3}, Cases: cases, Loss: testnet.Squares(0.5)}.Build(2)
	}, []string{"x", "y"}}
	p := w.newPair(t, 3, WithL2Reg(0.02), WithMinStatisticsCases(3))
	for range 8 {
		p.stepInChunks(t)
		n := trainingOf(p.chunked).control.noise
		if math.Abs(n.confirmed-n.own) > 1e-9*math.Abs(n.own) {
			t.Errorf("update %d: slopes %g, confirmed %g", p.update, n.own, n.confirmed)
		}
	}
	if st := statsOf(p.chunked); math.Abs(st.Shrink-1) > 1e-12 {
		t.Errorf("factor %g", st.Shrink)
	}
}

// slopes is a span of which only the slopes matter.
func slopes(own, confirmed float64) *span {
	return &span{past: true, slope: [2]float64{own, 0}, confirmed: confirmed}
}

// The factor is at least B / (B + 16) for a batch of B cases and at most 1, whatever the slopes
// are.
func TestBoundsOfTrust(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		any := rapid.OneOf(rapid.SampledFrom([]float64{0, math.NaN(), math.Inf(1), math.Inf(-1), 5e-324,
			math.MaxFloat64, -1}), rapid.Float64())
		n := noise{own: any.Draw(t, "own so far"), confirmed: any.Draw(t, "confirmed so far")}
		m := slopes(any.Draw(t, "own"), any.Draw(t, "confirmed"))
		m.past = rapid.Bool().Draw(t, "past")
		cases := rapid.IntRange(1, 100000).Draw(t, "cases")
		if got, least := n.trust(cases, m), float64(cases)/float64(cases+16); !(got >= least && got <= 1) {
			t.Errorf("factor %g, want one in [%g, 1]", got, least)
		}
	})
	for _, c := range []struct{ own, confirmed, want float64 }{
		{-2, -2, 1}, {-2, -3, 1}, {-2, -1, 0.5}, {-4, -1, 0.25}, {-10, -1, 0.2},
		{-2, 0, 0.2}, {-2, 5, 0.2}, {0, 0, 0.2}, {math.NaN(), -1, 0.2}, {-1, math.NaN(), 0.2},
	} {
		if got := (&noise{}).trust(4, slopes(c.own, c.confirmed)); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("slope %g, of which %g is confirmed: factor %g of a batch of four, want %g",
				c.own, c.confirmed, got, c.want)
		}
	}
}

// What counts is the sum over the steps, each by fade to the number of steps since then; one
// without a step before it counts for nothing.
func TestTrustFades(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var n noise
		var own, confirmed []float64
		slope := rapid.Float64Range(-10, -0.1)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			m := slopes(slope.Draw(t, "own"), slope.Draw(t, "confirmed"))
			if m.past = rapid.IntRange(0, 9).Draw(t, "past") > 0; m.past {
				own, confirmed = append(own, m.slope[0]), append(confirmed, m.confirmed)
			}
			n.remember(m, step{})
		}
		m := slopes(slope.Draw(t, "own"), slope.Draw(t, "confirmed"))
		own, confirmed = append(own, m.slope[0]), append(confirmed, m.confirmed)
		sum := func(x []float64) (s float64) {
			for i, v := range x {
				s += v * math.Pow(0.8, float64(len(x)-1-i))
			}
			return s
		}
		want := min(max(sum(confirmed)/sum(own), 100.0/116), 1)
		if got := n.trust(100, m); math.Abs(got-want) > 1e-12 {
			t.Errorf("factor %g, want %g", got, want)
		}
	})
}

// Gradients that are a signal with independent noise are confirmed to the signal's part of their
// squared length; noise alone is not.
func TestNoiseIsNotConfirmed(t *testing.T) {
	const dim, cases = 400, 2 // least 1/9
	for _, signal := range []float64{0, 0.3, 0.7, 1} {
		rng := rand.New(rand.NewPCG(3, 3))
		mean, last := make([]float64, dim), make([]float64, dim)
		for i := range mean {
			mean[i] = math.Sqrt(signal) * rng.NormFloat64()
		}
		floats.Scale(math.Sqrt(signal*dim)/math.Max(floats.Norm(mean, 2), 1e-9), mean)
		var n noise
		var factors []float64
		for k := range 200 {
			grad := slices.Clone(mean)
			for i := range grad {
				grad[i] += math.Sqrt(1-signal) * rng.NormFloat64()
			}
			m := slopes(-floats.Dot(grad, grad), -floats.Dot(last, grad)) // Delta = -grad
			m.past = k > 0
			factors = append(factors, n.trust(cases, m))
			n.remember(m, step{})
			last = grad
		}
		if got, want := floats.Sum(factors[10:])/190, math.Max(signal, 1.0/9); math.Abs(got-want) > 0.03 {
			t.Errorf("signal %g of the squared length: factor %g on average, want %g", signal, got, want)
		}
	}
}

// Curvatures are raised to half of the update's before, and to an eighth of what they usually are
// relative to the slope; others stay as they are.
func TestSteady(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		positive := rapid.Float64Range(0, 100)
		n := noise{curvature: positive.Draw(t, "curvature"), stretch: positive.Draw(t, "stretch")}
		m := span{past: true, slope: [2]float64{-positive.Draw(t, "slope"), 3}, dots: [2][2]float64{{1, 2}, {0, 3}},
			f: [2][2]float64{{positive.Draw(t, "Delta F Delta"), -0.7}, {0, positive.Draw(t, "delta0 F delta0")}}}
		want := m
		want.f[0][0] = max(m.f[0][0], -m.slope[0]*n.stretch/8)
		want.f[1][1] = max(m.f[1][1], n.curvature/2)
		n.steady(&m)
		if m != want {
			t.Errorf("%+v, want %+v", m, want)
		}
	})
}

// What is remembered: the curvature of the last step, the longest step, by 0.95 shorter with every
// step since, and the fading mean of the curvature along Delta relative to the slope, of which one
// that is not finite is no part.
func TestRemember(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var n noise
		var lengths, stretches []float64
		var last step
		number := rapid.Float64Range(0.01, 10)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m := slopes(-number.Draw(t, "slope"), -number.Draw(t, "confirmed"))
			m.f[0][0] = number.Draw(t, "curvature along Delta")
			switch rapid.IntRange(0, 12).Draw(t, "kind") {
			case 0:
				m.slope[0] = 0
			case 1:
				m.f[0][0], m.slope[0] = 0, 0
			default:
				stretches = append(stretches, -m.f[0][0]/m.slope[0])
			}
			last = step{curvature: number.Draw(t, "curvature"), squares: number.Draw(t, "squares")}
			lengths = append(lengths, math.Sqrt(last.squares))
			n.remember(m, last)
		}
		var reach, stretch float64
		for i, length := range lengths {
			reach = max(reach, length*math.Pow(0.95, float64(len(lengths)-1-i)))
		}
		for i, s := range stretches {
			weight := math.Pow(0.8, float64(len(stretches)-1-i))
			if i > 0 {
				weight *= 0.2
			}
			stretch += weight * math.Log(s)
		}
		geometric := 0.0
		if len(stretches) > 0 {
			geometric = math.Exp(stretch)
		}
		testnet.Near(t, "curvature, reach, stretch", []float64{n.curvature, n.reach, n.stretch},
			[]float64{last.curvature, reach, geometric}, 1e-12)
	})
}

func TestBold(t *testing.T) {
	for _, c := range []struct {
		reach, length float64
		want          bool
	}{
		{0, 1e9, false}, // the first step is
		{1, 2.9, false}, {1, 3.1, true}, {1, 0.1, false}, {1e-3, 4e-3, true}, {1, 0, false}, {1, math.NaN(), false},
	} {
		n := noise{reach: c.reach}
		want := 0.0
		if c.want {
			want = 0.25
		}
		if least, tried := n.leastRho(step{squares: c.length * c.length}, 17); tried != c.want || least != want {
			t.Errorf("a step of length %g after ones of %g: tried %v, least rho %g", c.length, c.reach, tried, least)
		}
		if least, tried := n.leastRho(step{squares: c.length * c.length}, 16); !tried || least != want {
			t.Errorf("a step of length %g after ones of %g, from 16 cases: tried %v, least rho %g",
				c.length, c.reach, tried, least)
		}
	}
}

// A bold step keeps at least a quarter of what the model promises on its own batch. One that is not
// bold, or by the paper's rules, may keep nothing.
func TestBoldStepsAreShortened(t *testing.T) {
	course := func(seed uint64, reach float64, opts ...Option) (least float64, halved bool) {
		n := testnet.MLP{Widths: []int{3, 8, 2}, Cases: 30, Unit: gorgonia.Tanh,
			Loss: testnet.Squares(0.01)}.Build(seed)
		l := NewTrainer(t, n, append(opts, WithDamping(1e-6), WithNormConstraint(math.Inf(1)),
			WithDampingAdaptation(1, 0.99))...)
		least = math.Inf(1)
		for range 15 {
			trainingOf(l).control.noise.reach = reach
			l.Steps(t, 1)
			least = min(least, statsOf(l).Rho)
			halved = halved || statsOf(l).Shrink < 30.0/46-1e-9
		}
		return least, halved
	}
	bad := 0
	for seed := range uint64(16) {
		without, halved := course(seed, 0)
		if halved {
			t.Error("a step that is not bold was shortened")
		}
		if without < 0.25 {
			bad++
		}
		if rho, halved := course(seed, 1e-9); rho < 0.25 || without < 0.25 && !halved {
			t.Errorf("rho %g, want 1/4 at least, and %g without being shortened; halved: %v", rho, without, halved)
		}
	}
	if bad < 5 {
		t.Errorf("%d courses have a bad step", bad)
	}
	if rho, halved := course(4, 1e-9, WithPaperRules()); rho >= 0.25 || halved {
		t.Errorf("by the paper's rules: rho %g, halved: %v", rho, halved)
	}
}

// risings counts the steps at which a trend is seen to rise, and tells the first from step from on,
// or -1.
func risings(objective func(k int) float64, steps, from int) (n, first int) {
	var tr trend
	first = -1
	for k := range steps {
		tr.see(objective(k))
		if tr.rising() {
			n++
			if k >= from && first < 0 {
				first = k
			}
		}
	}
	return n, first
}

// An objective that falls by a tenth of the noise from step to step never rises.
func TestFallingTrend(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 5))
		if n, _ := risings(func(k int) float64 { return 100 - 0.1*float64(k) + rng.NormFloat64() }, 300, 0); n > 0 {
			t.Errorf("seed %d: %d of 300 steps rise", seed, n)
		}
	}
}

// One that has fallen and then rises by a tenth of the noise from step to step, or once by four
// times of it, is found out within a few tens of steps.
func TestRisingTrend(t *testing.T) {
	for seed := range uint64(200) {
		for name, rise := range map[string]func(k float64) float64{
			"slow": func(k float64) float64 { return 0.1 * k }, "sudden": func(float64) float64 { return 4 },
		} {
			rng := rand.New(rand.NewPCG(seed, 6))
			_, first := risings(func(k int) float64 {
				h := 50 - 0.1*float64(min(k, 200)) + rng.NormFloat64()
				if k > 200 {
					h += rise(float64(k - 200))
				}
				return h
			}, 300, 200)
			if first < 0 || first > 250 {
				t.Errorf("seed %d, %s rise at step 200: found out at step %d", seed, name, first)
			}
		}
	}
}

// Noise about a level is no rise.
func TestFlatTrend(t *testing.T) {
	rises := 0
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 7))
		n, _ := risings(func(int) float64 { return 1 + 0.3*rng.NormFloat64() }, 300, 0)
		rises += n
	}
	if share := float64(rises) / (100 * 300); share > 0.05 {
		t.Errorf("%.0f %% of the steps are seen to rise", 100*share)
	}
}

// A new level is a rise, and after some hundred steps no longer. Noise that alternates leaves the
// mean where it is.
func TestTrendForgets(t *testing.T) {
	var tr trend
	see := func(level float64, steps int) {
		for k := range steps {
			tr.see(level + 0.1*float64(1-k%2*2))
		}
	}
	for _, c := range []struct {
		level  float64
		steps  int
		rising bool
	}{{1, 100, false}, {2, 30, true}, {2, 100, true}, {2, 1200, false}, {1, 30, false}, {1.5, 60, true},
		{0.5, 60, false}, {1, 60, true}} {
		see(c.level, c.steps)
		if got := tr.rising(); got != c.rising {
			t.Errorf("after %d steps at %g: rising %v, want %v", c.steps, c.level, got, c.rising)
		}
	}
}

// There is no trend in ten steps, and what is not finite is not seen.
func TestTrendOfFewSteps(t *testing.T) {
	var tr trend
	for k := range trendFrom {
		tr.see(float64(k * k))
		if tr.rising() {
			t.Errorf("rising after %d steps", k+1)
		}
	}
	for k := range 20 {
		tr.see(1000 * float64(k+1))
	}
	if !tr.rising() {
		t.Error("not rising")
	}
	before := tr
	for _, h := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		tr.see(h)
	}
	if tr != before {
		t.Errorf("%+v after what is not finite, before %+v", tr, before)
	}
}

func TestAdaptWithProvisions(t *testing.T) {
	const lambda, omega = 8, 0.5
	falling, rising := trend{count: 50, mean: 1, best: 1, variance: 0.01},
		trend{count: 50, mean: 3, best: 1, variance: 0.01}
	if falling.rising() || !rising.rising() {
		t.Fatal("the trends are not what they are called")
	}
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		trend trend
		rho   float64
		share float64 // of lambda in the step's curvature
		want  float64
	}{
		// The paper's rule, but lambda does not fall to where it makes no difference.
		{falling, 1, 1, 4}, {falling, 0.5, 1, 8}, {falling, 0.1, 1, 16}, {falling, nan, 1, 16}, {falling, -inf, 1, 16},
		{falling, 1, 0.051, 4}, {falling, 1, 0.049, 8}, {falling, 0.5, 0.01, 8}, {falling, 0.1, 0.01, 16},
		{falling, nan, 1e-9, 16},
		{falling, 1, 9.9, 4}, {falling, 1, nan, 4}, {falling, 0.1, nan, 16},
		// Where it outweighs the curvature by far, it falls to where it does not, but by 1/1000 at
		// most.
		{falling, 1, 50, 1.6}, {falling, 1, 1e3, 0.08}, {falling, 1, 1e9, 0.008}, {falling, 1, inf, 0.008},
		{falling, 0.5, 1e9, 8}, {falling, 0.1, 1e9, 16}, {rising, 1, 200, 0.4}, {rising, 1, inf, 0.008},
		// Up, whatever the batch says, from there at least, until the steps are short.
		{rising, 1, 1, 32}, {rising, 0.5, 1, 32}, {rising, 0.1, 1, 32}, {rising, nan, 9.9, 32},
		{rising, 1, 0.05, 32}, {rising, 1, 0.005, 320}, {rising, 1, 5e-8, 3.2e7},
		{rising, 1, 10.1, 8}, {rising, 0.1, 50, 8}, {rising, 1, 99, 8}, {rising, 1, nan, 8},
	} {
		n := noise{trend: c.trend}
		s := step{squares: 2, curvature: lambda * 2 / c.share}
		if math.IsNaN(c.share) {
			s = step{} // a zero step
		}
		if got := adaptLambdaByTrend(lambda, c.rho, omega, s, n.trend.rising()); math.Abs(got-c.want) > 1e-9*c.want {
			t.Errorf("rising %v, rho %g, share %g: lambda %g, want %g", c.trend.rising(), c.rho, c.share, got, c.want)
		}
	}
}

// With the paper's rules nothing that is remembered matters.
func TestPaperRulesForgetTheNoise(t *testing.T) {
	m := testnet.MLP{Widths: []int{3, 5, 2}, Cases: 10, Unit: gorgonia.Tanh, Loss: testnet.Classes}
	opts := []Option{WithPaperRules(), WithDamping(0.3), WithMinStatisticsCases(5), WithMinModelCases(5)}
	l, twin := NewTrainer(t, m.Build(5), opts...), NewTrainer(t, m.Build(5), opts...)
	rng := rand.New(rand.NewPCG(8, 8))
	for k := range 45 {
		odd := func() float64 {
			return []float64{0, -1, 1e9, math.NaN(), math.Inf(1), math.Inf(-1), rng.NormFloat64()}[rng.IntN(7)]
		}
		trainingOf(l).control.noise = noise{odd(), odd(), odd(), odd(), odd(),
			trend{rng.IntN(100), odd(), odd(), odd()}}
		l.Steps(t, 1)
		twin.Steps(t, 1)
		checkTwins(t, l, twin)
		if t.Failed() {
			t.Fatalf("step %d", k+1)
		}
	}
}

// Where the batch repeats and the objective is quadratic, the provisions change nothing from the
// second step on, as long as lambda and gamma are not at their bounds.
func TestProvisionsAreInertOnAQuadratic(t *testing.T) {
	n := testnet.MLP{Widths: []int{6, 3}, Cases: 40, Loss: testnet.Squares(0.5)}
	opts := []Option{WithDamping(3), WithMinStatisticsCases(6), WithL2Reg(0.01), WithNormConstraint(math.Inf(1)),
		WithGammaAdaptation(100, 0.95), // no search in these steps, since the paper's rules have none that is early
		WithInverseUpdatePeriod(20)}
	l, paper := NewTrainer(t, n.Build(6), opts...), NewTrainer(t, n.Build(6), append(opts, WithPaperRules())...)
	// as if there had been a step before the first
	trainingOf(l).control.noise.own, trainingOf(l).control.noise.confirmed = -1, -1
	for k := 1; k <= 12; k++ {
		l.Steps(t, 1)
		paper.Steps(t, 1)
		testnet.Near(t, fmt.Sprint("weights after step ", k), testnet.Weights(l.Params), testnet.Weights(paper.Params),
			1e-9)
		a, b := trainingOf(l).control, trainingOf(paper).control
		testnet.Near(t, fmt.Sprint("lambda and gamma after step ", k), []float64{a.lambda, a.gamma},
			[]float64{b.lambda, b.gamma}, identity)
	}
	if trainingOf(l).control.lambda == 3 {
		t.Error("lambda has not been adapted")
	}
}

// gamma^2 is at least a tenth of lambda + eta, and a step from 8 cases changes the predictive
// distribution by 8/(8+16) of a nat per variable at most. By the paper's rules neither holds.
func TestBoundsOfGammaAndOfSteps(t *testing.T) {
	course := func(opts ...Option) (gamma, nats float64) {
		n := testnet.MLP{Widths: []int{4, 6, 3}, Cases: 8, Unit: gorgonia.Tanh, Loss: testnet.Squares(0.001)}.Build(7)
		l := NewTrainer(t, n, append(opts, WithDamping(100), WithGammaAdaptation(1, 0.5), WithL2Reg(1e-4))...)
		gamma = math.Inf(1)
		for range 40 {
			l.Steps(t, 1)
			c := trainingOf(l).control
			gamma, nats = min(gamma, (c.gamma*c.gamma-1e-4)/c.lambda), max(nats, statsOf(l).KL/3)
		}
		return gamma, nats
	}
	if gamma, nats := course(); gamma < 0.1-1e-9 || math.Abs(nats-1.0/3) > 1e-9 {
		t.Errorf("gamma^2 is %g of lambda at least, and steps are of %g nats at most; want 0.1 and 1/3", gamma, nats)
	}
	if gamma, nats := course(WithPaperRules()); gamma >= 0.09 || nats < 1.5 {
		t.Errorf("by the paper's rules gamma^2 is %g of lambda, steps are of %g nats at most: this tests nothing",
			gamma, nats)
	}
}

// A step promises to lower the negative log-likelihood of classes by no more than twice what there
// is of it, and that is where steps stop which would promise more. The objective of real targets
// knows no such bound.
func TestBoundOfPromises(t *testing.T) {
	most := func(loss testnet.Likelihood, opts ...Option) (ratio float64) {
		l := NewTrainer(t, testnet.MLP{Widths: []int{4, 3}, Cases: 20, Loss: loss}.Build(7),
			append(opts, WithDamping(1e-6), WithNormConstraint(math.Inf(1)))...)
		for i := range testnet.Data(l.Params[0]) {
			testnet.Data(l.Params[0])[i] *= 30 // sure of wrong classes, where the Fisher matrix is small
		}
		for range 20 {
			testnet.Check(t, l.Run())
			if err := l.Solver.Step(l.ValueGrads()); errors.Is(err, ErrNotFinite) && math.IsNaN(costValue(l.Cost)) {
				break // it has gone too far
			} else {
				testnet.Check(t, err)
			}
			ratio = max(ratio, -statsOf(l).QuadModelChange/statsOf(l).Cost)
		}
		return ratio
	}
	if r := most(testnet.Classes); math.Abs(r-2) > 1e-6 {
		t.Errorf("a step promises %g of the objective, want 2", r)
	}
	if r := most(testnet.Classes, WithPaperRules()); r < 3 {
		t.Errorf("by the paper's rules a step promises %g of the objective: the test tests nothing", r)
	}
	shifted := func(by float64) []float64 {
		n := testnet.MLP{Widths: []int{4, 3}, Cases: 8,
			Loss: func(s *testnet.Sketch, out *gorgonia.Node) (*gorgonia.Node, testnet.Loss) {
				cost, dist := testnet.Squares(1)(s, out)
				return testnet.Sub(cost, gorgonia.NewConstant(by)), dist
			}}.Build(7)
		l := NewTrainer(t, n)
		l.Steps(t, 6)
		return testnet.Weights(l.Params)
	}
	testnet.Near(t, "weights with a cost below zero", shifted(1e3), shifted(0), 1e-8)
}

func TestWhenGammaIsSearchedFor(t *testing.T) {
	for name, test := range map[string]struct {
		opts []Option
		want []int
	}{
		"default":    {nil, []int{5, 10, 20, 40, 80}},
		"background": {[]Option{WithBackgroundInverses(5)}, []int{5, 10, 20}},
		"asked for":  {[]Option{WithGammaAdaptation(40, 0.95)}, []int{10, 20, 40, 80, 120}},
		"at every step": {[]Option{WithGammaAdaptation(1, 0.95)}, slices.Collect(func(yield func(int) bool) {
			for k := 1; k < 130 && yield(k); k++ {
			}
		})},
		"paper's rules": {[]Option{WithPaperRules()}, []int{20, 40, 60, 80, 100, 120}},
	} {
		c := attach(t, testnet.FourLayers(), test.opts...)
		var got []int
		for k := 1; k < 130; k++ {
			if searchesGamma(&c.cfg, k) {
				got = append(got, k)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: at steps %v, want %v", name, got, test.want)
		}
	}
}

// When lambda goes up it takes gamma along.
func TestGammaFollowsLambda(t *testing.T) {
	for name, opts := range map[string][]Option{"default": nil, "paper's rules": {WithPaperRules()}} {
		l := NewTrainer(t, testnet.MLP{Widths: []int{4, 3}, Cases: 8, Loss: testnet.Squares(1)}.Build(7),
			append(opts, WithDamping(1))...)
		l.Steps(t, 4)
		c := trainingOf(l)
		c.control.gamma = 0.01
		c.control.noise.trend = trend{count: 50, mean: 3, best: 1, variance: 1e-9}
		l.Steps(t, 1)
		lambda, gamma := c.control.lambda, c.control.gamma
		if name == "default" && (lambda <= 1 || math.Abs(gamma*gamma-lambda/10) > 1e-12) || name != "default" &&
			gamma != 0.01 {
			t.Errorf("%s: lambda %g, gamma %g", name, lambda, gamma)
		}
	}
}

// A smallProblem is to tell three classes of points, a tenth of which are mislabelled, by batches.
type smallProblem struct{ x, y []float64 }

const smallCases, smallInputs, smallClasses = 200, 5, 3

func newSmallProblem() *smallProblem {
	s := testnet.NewSketch(9)
	p := &smallProblem{s.Normals(smallCases * smallInputs), make([]float64, smallCases*smallClasses)}
	teacher := s.Normals(smallInputs * smallClasses)
	for n := range smallCases {
		scores := make([]float64, smallClasses)
		for i := range smallInputs {
			floats.AddScaled(scores, p.x[n*smallInputs+i], teacher[i*smallClasses:(i+1)*smallClasses])
		}
		class := floats.MaxIdx(scores)
		if s.Rng.IntN(10) == 0 {
			class = s.Rng.IntN(smallClasses)
		}
		p.y[n*smallClasses+class] = 1
	}
	return p
}

// train is the loss of the whole training set before and after so many updates from batches. The
// latter is infinite if training has come to an error.
func (p *smallProblem) train(t *testing.T, batch, updates int, seed uint64, opts ...Option) (start, end float64) {
	t.Helper()
	build := func(cases int) *testnet.Net {
		return testnet.MLP{Widths: []int{smallInputs, 8, smallClasses}, Cases: cases, Unit: gorgonia.Tanh,
			Loss: testnet.Classes}.Build(seed)
	}
	whole := build(smallCases)
	copy(testnet.Data(whole.X), p.x)
	copy(testnet.Data(whole.Input("y")), p.y)
	l := NewTrainer(t, build(batch), opts...)
	l.Net.CopyParams(whole)
	evaluate := testnet.Machines["no BindDualValues"](t, whole)
	loss := func() float64 {
		whole.CopyParams(l.Net)
		testnet.Check(t, evaluate())
		return whole.Cost.Value().Data().(float64)
	}
	start = loss()
	rng := rand.New(rand.NewPCG(seed, 9))
	var left []int
	for range updates {
		if len(left) < batch {
			left = rng.Perm(smallCases)
		}
		for row, n := range left[:batch] {
			copy(testnet.Data(l.X)[row*smallInputs:], p.x[n*smallInputs:(n+1)*smallInputs])
			copy(testnet.Data(l.Net.Input("y"))[row*smallClasses:], p.y[n*smallClasses:(n+1)*smallClasses])
		}
		left = left[batch:]
		testnet.Check(t, l.Run())
		if err := l.Solver.Step(l.ValueGrads()); err != nil {
			return start, math.Inf(1)
		}
	}
	return start, loss()
}

// Batches of one, of four and of sixteen cases train, with either inverse. By the paper's rules
// alone they do not: the loss ends far above its start, or there is an overflow.
func TestSmallBatchesTrain(t *testing.T) {
	p := newSmallProblem()
	for _, batch := range []int{1, 4, 16} {
		for seed := range uint64(2) {
			for name, opts := range map[string][]Option{"block-diagonal": nil,
				"block-tridiagonal": {WithBlockTridiagonal()}} {
				if start, end := p.train(t, batch, 300, seed, opts...); !(end < 0.6*start) {
					t.Errorf("batches of %d, %s, seed %d: the loss went from %.3g to %.3g",
						batch, name, seed, start, end)
				}
			}
			if start, end := p.train(t, batch, 300, seed, WithPaperRules()); end < start {
				t.Errorf("batches of %d, seed %d: by the paper's rules too the loss went from %.3g to %.3g",
					batch, seed, start, end)
			}
		}
	}
}

// The objective before a step is the VM's where the step promises far more than that has been found
// to be off by; else it is computed, and what it is off by remembered.
func TestObjectiveBefore(t *testing.T) {
	l := NewTrainer(t, testnet.MLP{Widths: []int{6, 3}, Cases: 8, Loss: testnet.Binary}.Build(1))
	l.Steps(t, 1)
	c := trainingOf(l)
	if off := c.control.mismatch; !(off > 0) || off > 1e-12 {
		t.Fatalf("the VM's objective is off by %v after the first step, want rounding", off)
	}
	testnet.Check(t, l.Run())
	update := batch[float64]{{graph: c.graph, units: c.graph.units, plan: c.plan, cases: 8,
		cost: costValue(c.graph.cost)}}
	own := update.likelihood()
	a := c.attempt(2, update, nil, false, &PhaseTimes{}, &stopwatch{})
	a.vmObjective = own * (1 + 1e-4) // as if the VM had lost digits
	for _, test := range []struct {
		off, change, want, wantOff float64
	}{
		{0, -1e9, own, 1e-4},                     // never compared
		{1e-7, -1e-4 * own, a.vmObjective, 1e-7}, // ten times the threshold
		{1e-7, -1e-6 * own, own, 1e-4},           // a tenth of it
		{1e-2, -1e-6 * own, own, 1e-2},           // it has been worse
	} {
		next := control{mismatch: test.off}
		got, err := a.objectiveBefore(test.change, &next)
		testnet.Check(t, err)
		if math.Abs(got/test.want-1) > 1e-12 || math.Abs(next.mismatch/test.wantOff-1) > 1e-6 {
			t.Errorf("off by %g, a promise of %g: objective %v, off by %g; want %v and %g",
				test.off, test.change, got, next.mismatch, test.want, test.wantOff)
		}
	}
}

// A single step along a direction of enormous curvature does not hold the steps after it down for
// long: the usual stretch is a geometric mean.
func TestStretchForgetsOutliers(t *testing.T) {
	along := func(curvature float64) *span { return &span{f: [2][2]float64{{curvature}}, slope: [2]float64{-1}} }
	var n noise
	for range 30 {
		n.remember(along(100), step{})
	}
	n.remember(along(1e8), step{})
	n.remember(along(0), step{}) // tells nothing
	for k := range 10 {
		m := along(100)
		n.steady(m)
		if raised := m.f[0][0]; raised < 100 || k == 0 && raised > 250 || k > 2 && raised > 100 {
			t.Errorf("%d steps after a curvature of 1e8, one of 100 is raised to %g", k+1, raised)
		}
		n.remember(along(100), step{})
	}
	if low := along(1); func() float64 { n.steady(low); return low.f[0][0] }() < leastMean*99 {
		t.Errorf("a curvature of 1, after many of 100, is only raised to %g", low.f[0][0])
	}
}
