package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// Where the objective is quadratic and the batch repeats, the evidence is the objective along the
// step itself: it changes by -gain f + bend f^2 / 2 with the factor f on the step.
func TestEvidenceOnAQuadratic(t *testing.T) {
	const eta = 0.05
	for name, opts := range map[string][]Option{"default": nil, "L2": {WithL2Reg(eta)},
		"without momentum": {WithoutMomentum(), WithL2Reg(eta)}} {
		t.Run(name, func(t *testing.T) {
			l := NewTrainer(t, testnet.MLP{Widths: []int{6, 3}, Cases: 40, Loss: testnet.Squares(0.5)}.Build(1),
				append(opts, WithMinStatisticsCases(6), WithNormConstraint(math.Inf(1)))...)
			objective := func(weights []float64) float64 {
				h := statsOf(l).Cost / statsOf(l).Scale / 40
				if name != "default" {
					h += eta / 2 * floats.Dot(weights, weights)
				}
				return h
			}
			var before noise
			var costBefore float64
			for k := 1; k <= 12; k++ {
				weights := testnet.Weights(l.Params)
				l.Steps(t, 1)
				n := trainingOf(l).control.noise
				if k > 1 {
					keep := 1 - 1/(60+float64(before.evidence.steps)/2)
					gain := n.evidence.gain - keep*before.evidence.gain
					bend := n.evidence.bend - keep*before.evidence.bend
					f := before.factor
					testnet.Near(t, fmt.Sprint("objective after step ", k-1),
						[]float64{costBefore - gain*f + bend*f*f/2}, []float64{objective(weights)}, 1e-12)
					if !(bend > 0) || n.evidence.steps != k { // the first is the halves of the first batch
						t.Errorf("step %d: curvature %g, %d steps", k, bend, n.evidence.steps)
					}
				}
				before, costBefore = n, objective(weights)
			}
			if st := statsOf(l); st.Shrink != 1 {
				t.Errorf("factor %g, though every step was confirmed", st.Shrink)
			}
		})
	}
}

// In chunks it is the same.
func TestEvidenceInChunks(t *testing.T) {
	w := world{func(cases int) *testnet.Net {
		return testnet.MLP{Widths: []int{4, 3}, Cases: cases, Loss: testnet.Squares(0.5)}.Build(2)
	}, []string{"x", "y"}}
	p := w.newPair(t, 3, WithL2Reg(0.02), WithMinStatisticsCases(3))
	for range 8 {
		p.stepInChunks(t)
	}
	if st, e := statsOf(p.chunked), trainingOf(p.chunked).control.noise.evidence; e.steps != 8 || e.gain < e.bend ||
		st.Shrink != 1 {
		t.Errorf("%+v, factor %g", e, st.Shrink)
	}
}

// The factor is B / (B + 16) for the first batch, of B cases, and in [1/200, 1] then, whatever the
// sums are. What is not finite, or has no curvature, is no evidence.
func TestBoundsOfShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		any := rapid.OneOf(rapid.SampledFrom([]float64{0, math.NaN(), math.Inf(1), math.Inf(-1), 5e-324,
			math.MaxFloat64, -1}), rapid.Float64())
		cases := rapid.IntRange(1, 100000).Draw(t, "cases")
		var e evidence
		if got, want := e.share(cases, 1), float64(cases)/float64(cases+16); got != want {
			t.Errorf("factor %g on the first step, want %g", got, want)
		}
		for range rapid.IntRange(0, 5).Draw(t, "steps") {
			gain, bend := any.Draw(t, "gain"), any.Draw(t, "bend")
			next := e.with(gain, bend, rapid.Float64Range(1e-300, math.Inf(1)).Draw(t, "limit"))
			if finite := gain - gain + bend - bend; next != e && (finite != 0 || bend <= 0) {
				t.Errorf("gain %g and curvature %g are evidence", gain, bend)
			}
			e = next
		}
		if got := e.share(cases, 1); e.bend > 0 && !(got >= 1.0/200 && got <= 1) {
			t.Errorf("factor %g by %+v, want one in [1/200, 1]", got, e)
		}
	})
}

// The share is the factor that is best for the steps, on average over cases that they have not
// seen, whatever the size of the batch, the number of parameters and the noise of the targets:
// least squares on normal inputs, of which each step fits its own batch.
func TestShareIsTheBestFactor(t *testing.T) {
	const dim = 30
	for _, batch := range []int{1, 4, 30, 300} {
		for _, noise := range []float64{0, 0.3, 3} {
			rng := rand.New(rand.NewPCG(uint64(batch), 4))
			off := make([]float64, dim) // weights minus the right ones
			for i := range off {
				off[i] = rng.NormFloat64() / math.Sqrt(dim)
			}
			draw := func() (x [][]float64, r []float64) { // inputs, and residuals
				for range batch {
					row := make([]float64, dim)
					for i := range row {
						row[i] = rng.NormFloat64()
					}
					x, r = append(x, row), append(r, floats.Dot(row, off)+noise*rng.NormFloat64())
				}
				return x, r
			}
			var e evidence
			var gain, bend float64 // by the true gradient, off, and the true curvature, 1
			for range max(30000/batch, 300) {
				x, r := draw()
				d := make([]float64, dim)
				for i, row := range x {
					floats.AddScaled(d, -r[i]/float64(batch), row)
				}
				own := func(x [][]float64, v []float64) (f float64) {
					for _, row := range x {
						f += math.Pow(floats.Dot(row, v), 2) / float64(batch)
					}
					return f
				}
				floats.Scale(floats.Dot(d, d)/own(x, d), d) // the minimum along -grad by the batch itself
				gain, bend = gain-floats.Dot(off, d), bend+floats.Dot(d, d)
				x, r = draw()
				var slope float64
				for i, row := range x {
					slope += r[i] * floats.Dot(row, d) / float64(batch)
				}
				e.gain, e.bend, e.steps = e.gain-slope, e.bend+own(x, d), e.steps+1
			}
			unit := floats.Dot(off, off) + noise*noise // variance of the residuals
			got, want := e.share(batch, unit), min(gain/bend, 1)
			if deviation := math.Sqrt(unit / (bend * float64(batch))); math.Abs(got-want) > 3*deviation {
				t.Errorf("batches of %d, noise %g: share %.3f, best factor %.3f, standard error %.3f",
					batch, noise, got, want, deviation)
			}
		}
	}
}

// A heading along which the gradient says that its updates were wrong by far more than noise may
// say is given up: the evidence is what it is with the previous update as the only one.
func TestHeadingRestarts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := func(name string, least, most float64) float64 {
			return rapid.Float64Range(least, most).Draw(t, name)
		}
		n := noise{factor: number("factor", 0.005, 1),
			evidence: evidence{fit: number("fit", 0, 10), weight: number("weight", 0, 1)}}
		m := span{past: true, f: [2][2]float64{{1, 0}, {0, number("bend", 1e-3, 10)}},
			slope: [2]float64{-1, number("slope", -10, 10)}, heading: number("heading", -10, 10) * 1000}
		unit, cases := number("unit", 0.1, 10), rapid.IntRange(1, 1000).Draw(t, "cases")
		got, restart := n.seen(&m, math.Inf(1), unit, cases)

		alone, from := n, m
		alone.evidence, from.heading = evidence{}, m.slope[1]
		anew, _ := alone.seen(&from, math.Inf(1), unit, cases)
		f := n.factor
		whole := m.f[1][1] / (f * f)
		gain := ((1-f)*n.evidence.fit + m.f[1][1] - m.heading) / ((1-f)*n.evidence.weight + f)
		switch {
		case restart != (gain < -5*(whole+math.Sqrt(unit*whole/float64(cases)))):
			t.Errorf("restart is %v where the gain is %g, the curvature %g", restart, gain, whole)
		case restart && got != anew:
			t.Errorf("%+v, with the previous update alone %+v", got, anew)
		case !restart:
			testnet.Near(t, "gain", []float64{got.gain}, []float64{max(gain, -whole/2)}, 1e-12)
		}
	})
}

// However wrong some steps were, twenty that are confirmed make up for them.
func TestDebtOfEvidence(t *testing.T) {
	var e evidence
	for range 30 {
		e = e.with(-1e9, 1, 1)
	}
	if e.share(1e9, 1) != leastPart {
		t.Errorf("steps that were all wrong are confirmed: %+v", e)
	}
	for range 20 {
		e = e.with(1, 1, 1)
	}
	if part := e.share(1e9, 1); part < 0.1 {
		t.Errorf("after twenty steps that are confirmed the share is %g", part)
	}
}

// Where the first steps throw a saturated net about, they don't hold back those after them for
// long, which are as the quadratic model says: after a hundred updates no net is above the loss of
// guessing, log 2. Inputs of 300 make the nets certain and wrong at first.
func TestAfterAWildStart(t *testing.T) {
	for _, seed := range []uint64{0, 2, 5, 6, 7, 8, 9} {
		n := testnet.MLP{Widths: []int{10, 16, 16, 3}, Cases: 64, Unit: gorgonia.Rectify,
			Loss: testnet.Classes}.Build(seed)
		x, y := testnet.Data(n.Input("x")), testnet.Data(n.Input("y"))
		clear(y)
		for c := range 64 {
			class := 0
			if x[10*c] > 0 {
				class = 1
			}
			y[3*c+class] = 1
		}
		for i := range x {
			x[i] += 300
		}
		l := NewTrainer(t, n)
		l.Steps(t, 100)
		if cost := statsOf(l).Cost; cost > math.Ln2 {
			t.Errorf("seed %d: the loss is %.3g", seed, cost)
		}
	}
}

// Older steps fade, the more slowly the more there are, and a huge one counts as one at the limit.
func TestEvidenceFades(t *testing.T) {
	var e evidence
	for range 1000 {
		e = e.with(1, 1, 1)
	}
	for range 500 {
		e = e.with(0, 1, 1)
	}
	if part := e.share(1e9, 1); math.Abs(part-math.Pow(1120.0/1620, 3)) > 1e-3 {
		t.Errorf("of 1000 confirmed steps and 500 that were not, %g is confirmed", part)
	}
	e = evidence{}.with(1e6, 1e6, 1)
	for range 40 {
		e = e.with(0, 1, 1)
	}
	if part := e.share(1e9, 1); part > 0.05 {
		t.Errorf("of a huge step and 40 that were not confirmed, %g is confirmed", part)
	}
}

// A step that the next batch does not confirm is taken back. With the same cases and the opposite
// residuals, nothing is left of it.
func TestTakesBack(t *testing.T) {
	n := testnet.MLP{Widths: []int{5, 2}, Cases: 60, Loss: testnet.Squares(1)}.Build(3)
	l := NewTrainer(t, n)
	y := testnet.Data(l.Net.Input("y"))
	start := testnet.Weights(l.Params)
	predicted := make([]float64, len(y)) // x W + b, by hand
	for c := range 60 {
		for k := range 2 {
			predicted[c*2+k] = start[10+k]
			for i := range 5 {
				predicted[c*2+k] += testnet.Data(l.X)[c*5+i] * start[i*2+k]
			}
		}
	}
	l.Steps(t, 1)
	moved := testnet.Weights(l.Params)
	for i := range y {
		y[i] = 2*predicted[i] - y[i]
	}
	l.Steps(t, 1)
	left := floats.Distance(testnet.Weights(l.Params), start, 2) / floats.Distance(moved, start, 2)
	if st := statsOf(l); left > 0.05 || st.Momentum > -0.9 {
		t.Errorf("%.3g of the step is left; %v", left, st)
	}
	l.Steps(t, 1)
	if e := trainingOf(l).control.noise.evidence; e.steps != 2 { // the halves of the first batch, and the first step
		t.Errorf("a step back is evidence: %+v", e)
	}
}

// Curvatures are raised to half of the update's before, and to an eighth of what they usually are
// relative to the approximation; others stay as they are.
func TestSteady(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		positive := rapid.Float64Range(0, 100)
		n := noise{curvature: positive.Draw(t, "curvature"), stretch: positive.Draw(t, "stretch")}
		m := span{past: true, slope: [2]float64{-positive.Draw(t, "slope"), 3}, dots: [2][2]float64{{1, 2}, {0, 3}},
			f: [2][2]float64{{positive.Draw(t, "Delta F Delta"), -0.7}, {0, positive.Draw(t, "delta0 F delta0")}}}
		m.metric = -m.slope[0]
		want := m
		want.f[0][0] = max(m.f[0][0], m.metric*n.stretch/8)
		want.f[1][1] = max(m.f[1][1], n.curvature/2)
		n.steady(&m)
		if m != want {
			t.Errorf("%+v, want %+v", m, want)
		}
	})
}

// Between the two directions curvatures are raised too, by no more than is needed: of those of f
// relative to g the lowest becomes least, and the other one stays.
func TestRaised(t *testing.T) {
	number := rapid.Float64Range(-3, 3)
	positive := func(t *rapid.T, least float64) [2][2]float64 { // R^T R + least
		a, b, c := number.Draw(t, "a"), number.Draw(t, "b"), number.Draw(t, "c")
		return [2][2]float64{{a*a + least, a * b}, {0, b*b + c*c + least}}
	}
	rapid.Check(t, func(t *rapid.T) {
		f, g := positive(t, 0), positive(t, 0.1)
		least := rapid.Float64Range(0, 4).Draw(t, "least")
		got := raised(f, g, least)
		f[0][0] = max(f[0][0], least*g[0][0])
		low, high := relative(f, g)
		gotLow, gotHigh := relative(got, g)
		testnet.Near(t, "relative curvatures", []float64{gotLow, gotHigh},
			[]float64{max(low, least), max(high, least)}, 1e-9)
		for range 10 {
			v := step{alpha: number.Draw(t, "alpha"), mu: number.Draw(t, "mu")}
			if more := v.form(&got) - v.form(&f); more < -1e-9 {
				t.Errorf("along %g Delta + %g delta0 it falls by %g", v.alpha, v.mu, -more)
			}
		}
	})
}

// relative returns the eigenvalues of g^-1 f, the lower one first.
func relative(f, g [2][2]float64) (low, high float64) {
	symmetric := func(m [2][2]float64) *mat.SymDense {
		return mat.NewSymDense(2, []float64{m[0][0], m[0][1], 0, m[1][1]})
	}
	var chol mat.Cholesky
	chol.Factorize(symmetric(g))
	var l mat.TriDense
	chol.LTo(&l)
	var x, y mat.Dense
	x.Solve(&l, symmetric(f))
	y.Solve(&l, x.T())
	var eigen mat.EigenSym
	eigen.Factorize(symmetric([2][2]float64{{y.At(0, 0), y.At(0, 1)}, {0, y.At(1, 1)}}), false)
	values := eigen.Values(nil)
	return values[0], values[1]
}

// A batch in which nothing tells an update from the direction, but by the approximation they
// differ, makes no long step between them.
func TestNoLongStepBetweenTheDirections(t *testing.T) {
	n := noise{stretch: 1, curvature: 1, approximate: 1}
	m := span{past: true, metric: 1, slope: [2]float64{-1, -0.5}, f: [2][2]float64{{1, 0.999999}, {0, 1}}}
	wild := m.minimise(0, true)
	n.steady(&m)
	if s := m.minimise(0, true); math.Abs(s.mu) > 8 || math.Abs(wild.mu) < 1e4 {
		t.Errorf("mu %g, and %g where it is not raised", s.mu, wild.mu)
	}
}

// What is remembered: the curvature of the last step, its factor unless it took back another, and
// the fading mean of the curvature along Delta relative to the approximate one, of which one that
// is not finite is no part.
func TestRemember(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var n noise
		var stretches []float64
		var last step
		var factor float64
		number := rapid.Float64Range(0.01, 10)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m := &span{slope: [2]float64{-number.Draw(t, "slope")}}
			if rapid.Bool().Draw(t, "took back") {
				m.back = -number.Draw(t, "back")
			}
			m.f[0][0] = number.Draw(t, "curvature along Delta")
			switch rapid.IntRange(0, 12).Draw(t, "kind") {
			case 0:
				m.slope[0] = 0
			case 1:
				m.f[0][0], m.slope[0] = 0, 0
			default:
				stretches = append(stretches, -m.f[0][0]/m.slope[0])
			}
			m.metric = -m.slope[0]
			last = step{curvature: number.Draw(t, "curvature")}
			n.remember(m, last, 0.3)
			if factor = 0.3; m.back < 0 {
				factor = 0
			}
		}
		var stretch float64
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
		testnet.Near(t, "curvature, factor, stretch", []float64{n.curvature, n.factor, n.stretch},
			[]float64{last.curvature, factor, geometric}, 1e-12)
	})
}

func TestAdaptLambdaByShare(t *testing.T) {
	const lambda, omega = 8, 0.5
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		rho   float64
		share float64 // of lambda in the step's curvature
		want  float64
	}{
		// The paper's rule, but lambda does not fall to where it makes no difference.
		{1, 1, 4}, {0.5, 1, 8}, {0.1, 1, 16}, {nan, 1, 16}, {-inf, 1, 16}, {1, 0.051, 4}, {1, 0.049, 8},
		{0.5, 0.01, 8}, {0.1, 0.01, 16}, {nan, 1e-9, 16}, {1, 9.9, 4}, {1, nan, 4}, {0.1, nan, 16},
		// Where it outweighs the curvature by far, it falls to where it does not, but by 1/1000 at
		// most.
		{1, 50, 1.6}, {1, 1e3, 0.08}, {1, 1e9, 0.008}, {1, inf, 0.008}, {0.5, 1e9, 8}, {0.1, 1e9, 16},
	} {
		s := step{squares: 2, curvature: lambda * 2 / c.share}
		if math.IsNaN(c.share) {
			s = step{} // a zero step
		}
		if got := adaptLambdaByShare(lambda, c.rho, omega, s); math.Abs(got-c.want) > 1e-9*c.want {
			t.Errorf("rho %g, share %g: lambda %g, want %g", c.rho, c.share, got, c.want)
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
		trainingOf(l).control.noise = noise{evidence{odd(), odd(), rng.IntN(100), odd(), odd()}, odd(), odd(), odd(),
			odd(), odd()}
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
	trainingOf(l).control.noise.evidence = evidence{gain: 2, bend: 1,
		steps: 1000} // as if there had been steps before the first
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

// gamma^2 is at least a tenth of lambda + eta. By the paper's rules it is not.
func TestBoundOfGamma(t *testing.T) {
	course := func(opts ...Option) (gamma float64) {
		n := testnet.MLP{Widths: []int{4, 6, 3}, Cases: 8, Unit: gorgonia.Tanh, Loss: testnet.Squares(0.001)}.Build(7)
		l := NewTrainer(t, n, append(opts, WithDamping(100), WithGammaAdaptation(1, 0.5), WithL2Reg(1e-4))...)
		gamma = math.Inf(1)
		for range 40 {
			l.Steps(t, 1)
			c := trainingOf(l).control
			gamma = min(gamma, (c.gamma*c.gamma-1e-4)/c.lambda)
		}
		return gamma
	}
	if gamma := course(); gamma < 0.1-1e-9 {
		t.Errorf("gamma^2 is %g of lambda at least, want 0.1", gamma)
	}
	if gamma := course(WithPaperRules()); gamma >= 0.09 {
		t.Errorf("by the paper's rules gamma^2 is %g of lambda: this tests nothing", gamma)
	}
}

// A step from 8 cases changes the predictive distribution by 8/(8+16) of a nat per variable at
// most, where a variable's variance is the larger one of the declared variance and that of the
// residuals, and that of the residuals where none is declared. Outputs count with their weights.
func TestBoundOfSteps(t *testing.T) {
	for _, test := range []struct {
		h         head
		residuals []float64
		want      []float64 // variance that counts
	}{
		{Gaussian(nil, 0.5).(head), []float64{0.1, 1, 30}, []float64{1, 1, 30}},
		{SquaredError(nil).(head), []float64{0.1, 1, 30}, []float64{0.1, 1, 30}},
		{Bernoulli(nil).(head), []float64{1}, []float64{1}},
	} {
		for i, residual := range test.residuals {
			k := chunk[float64]{graph: &graph[float64]{}, plan: &planned[float64]{model: &model[float64]{}}, cases: 8}
			other := Bernoulli(nil).(head)
			k.plan.model.outputs = []*output{{head: test.h, cols: 3, rows: 1}, {head: other, cols: 4, rows: 1}}
			k.weights, k.variances = []float64{1, 0.25}, []float64{residual, 1}
			nats := normLimit(&config{}, 8, batch[float64]{k}.predicted()) / 2
			if want := (3*test.want[i] + 0.25*4) * 8 / (8 + 16); math.Abs(nats/want-1) > identity {
				t.Errorf("%s with residuals of %g: %g nats, want %g", test.h.kind, residual, nats, want)
			}
		}
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

// gamma stays near lambda.
func TestGammaFollowsLambda(t *testing.T) {
	for name, opts := range map[string][]Option{"default": nil, "paper's rules": {WithPaperRules()}} {
		l := NewTrainer(t, testnet.MLP{Widths: []int{4, 3}, Cases: 8, Loss: testnet.Squares(1)}.Build(7),
			append(opts, WithDamping(1))...)
		l.Steps(t, 4)
		c := trainingOf(l)
		c.control.gamma = 0.01
		l.Steps(t, 1)
		lambda, gamma := c.control.lambda, c.control.gamma
		if name == "default" && (lambda == 1 || math.Abs(gamma*gamma-lambda/10) > 1e-12) || name != "default" &&
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
		cost: costValue(c.graph.cost), variances: []float64{1}}}
	own := update.likelihood()
	a := c.attempt(2, update, update.tally(), nil, false, &PhaseTimes{}, &stopwatch{})
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
		got, err := a.objectiveBefore(objective{others: true}, test.change, &next)
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
	along := func(curvature float64) *span { return &span{f: [2][2]float64{{curvature}}, metric: 1} }
	var n noise
	for range 30 {
		n.remember(along(100), step{}, 1)
	}
	n.remember(along(1e8), step{}, 1)
	n.remember(along(0), step{}, 1) // tells nothing
	for k := range 10 {
		m := along(100)
		n.steady(m)
		if raised := m.f[0][0]; raised < 100 || k == 0 && raised > 250 || k > 2 && raised > 100 {
			t.Errorf("%d steps after a curvature of 1e8, one of 100 is raised to %g", k+1, raised)
		}
		n.remember(along(100), step{}, 1)
	}
	if low := along(1); func() float64 { n.steady(low); return low.f[0][0] }() < leastMean*99 {
		t.Errorf("a curvature of 1, after many of 100, is only raised to %g", low.f[0][0])
	}
}

// A step back never raises the quadratic model along the previous update, and is none where the
// batch confirms it.
func TestBackNeverRaisesTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Float64Range(-10, 10)
		m := span{slope: [2]float64{-1, number.Draw(t, "slope")}}
		m.f[1][1], m.dots[1][1] = math.Abs(number.Draw(t, "curvature"))+1e-3, 1
		const c = 0.1
		wanted := rapid.Float64Range(-1, -0.5).Draw(t, "wanted")
		back := m.takesBack(wanted, c)
		if change := back*m.slope[1] + back*back/2*(m.f[1][1]+c); change > 1e-9 {
			t.Errorf("%g of the update raises the model by %g", back, change)
		}
		if (m.slope[1] <= 0) != (back == 0) || back < -2 {
			t.Errorf("slope %g: %g of the update", m.slope[1], back)
		}
	})
}

// A declared variance that is far from that of the residuals makes no difference to the first
// steps: what is noise is measured.
func TestDeclaredVarianceIsNoNoise(t *testing.T) {
	var want []float64
	for _, variance := range []float64{1, 1e-6, 1e6} {
		n := testnet.MLP{Widths: []int{5, 2}, Cases: 60, Loss: testnet.Squares(variance)}.Build(3)
		l := NewTrainer(t, n)
		var got []float64
		for range 4 {
			l.Steps(t, 1)
			got = append(got, statsOf(l).Shrink)
		}
		if want == nil {
			want = got
		}
		testnet.Near(t, fmt.Sprint("factors with the variance ", variance), got, want, 1e-6)
	}
}

// The curvature of a step by the approximation is that of its two directions, by their products
// with F0: F0 Delta = -grad, and that of the previous step is known.
func TestApproximateCurvature(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 4
		vector := func(label string) []float64 {
			return rapid.SliceOfN(rapid.Float64Range(-1, 1), size, size).Draw(t, label)
		}
		f0 := make([]float64, size) // a diagonal F0
		for i := range f0 {
			f0[i] = rapid.Float64Range(0.1, 10).Draw(t, "F0")
		}
		form := func(v []float64) (sum float64) {
			for i, x := range v {
				sum += x * x * f0[i]
			}
			return sum
		}
		previous, grad, delta := vector("previous"), vector("gradient"), make([]float64, size)
		for i, g := range grad {
			delta[i] = -g / f0[i]
		}
		s := step{alpha: rapid.Float64Range(0, 2).Draw(t, "alpha"), mu: rapid.Float64Range(-2, 2).Draw(t, "mu")}
		m := span{slope: [2]float64{floats.Dot(grad, delta), floats.Dot(grad, previous)}, metric: form(delta)}
		n := noise{approximate: form(previous)}
		n.remember(&m, s, 1)
		update := make([]float64, size)
		floats.AddScaledTo(update, update, s.alpha, delta)
		floats.AddScaled(update, s.mu, previous)
		testnet.Near(t, "curvature", []float64{n.approximate}, []float64{form(update)}, 1e-9)
	})
}

// Where layers are saturated and a batch shows what others do not, steps turn out to be far too
// long for gamma, and it rises until they are not.
func TestGammaRisesWhereTheApproximationIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	for seed := range uint64(3) {
		n := testnet.MLP{Widths: []int{4, 2, 128, 128, 1}, Cases: 32, Unit: gorgonia.Tanh, NoBias: true,
			Loss: testnet.SquaredError}.Build(seed + 1)
		x, y := testnet.Data(n.Input("x")), testnet.Data(n.Input("y"))
		rng := rand.New(rand.NewPCG(seed, 9))
		l := NewTrainer(t, n)
		var last, first float64
		for k := range 500 {
			for i := range x {
				x[i] = float64(rng.IntN(10))
			}
			for i := range y {
				y[i] = x[4*i] - x[4*i+1]
			}
			l.Steps(t, 1)
			switch cost := statsOf(l).Cost; {
			case k < 10:
				first += cost / 10
			case k >= 480:
				last += cost / 20
			}
		}
		if last > first/20 {
			t.Errorf("seed %d: %.3g of %.3g is left; gamma is %g, fresh %g", seed, last, first, statsOf(l).Gamma,
				trainingOf(l).control.noise.fresh)
		}
	}
}
