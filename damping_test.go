package kfac

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

func TestGamma(t *testing.T) {
	if got, want := startOfGamma(150, 1e-5), math.Sqrt(150+1e-5); got != want {
		t.Errorf("startOfGamma(150, 1e-5) = %g, want %g", got, want)
	}
	if got := startOfGamma(0.25, 0); got != 0.5 {
		t.Errorf("startOfGamma(0.25, 0) = %g, want 0.5", got)
	}
}

func TestFactoredTikhonovGolden(t *testing.T) {
	for _, test := range []struct {
		what         string
		traceA       float64
		n            int
		traceG       float64
		m            int
		dampA, dampG float64 // for gamma = 0.5
	}{
		{"diag(1,2,0,1) and ones(2,2)", 4, 4, 2, 2, 0.5, 0.5},
		{"means 4 and 1: pi = 2", 12, 3, 5, 5, 1, 0.25},
		{"means 1 and 4: pi = 1/2", 3, 3, 20, 5, 0.25, 1},
		{"1 x 1 factors: pi = 3", 9, 1, 1, 1, 1.5, 0.5 / 3},
		{"A zero", 0, 3, 5, 5, 0.5, 0.5},
		{"G zero", 3, 3, 0, 5, 0.5, 0.5},
		{"both zero", 0, 3, 0, 5, 0.5, 0.5},
		{"negative by rounding", -1e-18, 3, 5, 5, 0.5, 0.5},
		{"both negative by rounding", -1e-18, 3, -5, 5, 0.5, 0.5},
		{"pi would overflow", 1e300, 1, 5e-324, 1, 0.5, 0.5},
		{"pi would underflow", 5e-324, 1, 1e300, 1, 0.5, 0.5},
		{"A not a number", math.NaN(), 3, 5, 5, 0.5, 0.5},
		{"G infinite", 3, 3, math.Inf(1), 5, 0.5, 0.5},
	} {
		dampA, dampG := tikhonov(0.5).Split(test.traceA, test.n, test.traceG, test.m)
		testnet.Near(t, test.what, []float64{dampA, dampG}, []float64{test.dampA, test.dampG}, 1e-15)
	}
}

// The product of what is added to the two factors is lambda + eta, and their ratio that of the
// factors' mean diagonals.
func TestFactoredTikhonov(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		positive := rapid.Float64Range(1e-9, 1e9)
		traceA, traceG := positive.Draw(t, "tr A"), positive.Draw(t, "tr G")
		n, m := rapid.IntRange(1, 1000).Draw(t, "n"), rapid.IntRange(1, 1000).Draw(t, "m")
		lambda, eta := positive.Draw(t, "lambda"), positive.Draw(t, "eta")
		dampA, dampG := tikhonov(startOfGamma(lambda, eta)).Split(traceA, n, traceG, m)
		got := []float64{dampA * dampG, dampA / dampG}
		want := []float64{lambda + eta, traceA / float64(n) / (traceG / float64(m))}
		for i := range got {
			if math.Abs(got[i]/want[i]-1) > 1e-14 {
				t.Fatalf("product and ratio %g, want %g", got, want)
			}
		}
	})
}

func TestAdaptLambda(t *testing.T) {
	const lambda, omega = 8, 0.5
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct{ rho, want float64 }{
		{-inf, 16}, {nan, 16}, {-1, 16}, {0, 16}, {0.24, 16},
		{0.25, 8}, {0.5, 8}, {0.75, 8},
		{0.76, 4}, {1, 4}, {7, 4}, {inf, 4},
	} {
		if got := adaptLambda(lambda, c.rho, omega); got != c.want {
			t.Errorf("rho %g: lambda %g, want %g", c.rho, got, c.want)
		}
	}
}

func TestReductionRatio(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name          string
		before, after float64
		change        float64
		without       bool // lambda 0.5, squared norm 4
		want          float64
	}{
		{"as predicted", 3, 1, -2, false, 1},
		{"half of it", 3, 2, -2, false, 0.5},
		{"more than predicted", 3, 0, -2, false, 1.5},
		{"without lambda", 3, 1.5, -2, true, 0.5},
		{"no change", 3, 3, -2, false, 0},
		{"a rise", 3, 3.1, -2, false, -inf},
		{"a rise, without lambda", 3, 3.1, -2, true, -inf},
		{"overflow", 3, nan, -2, false, -inf},
		{"overflow before", nan, 3, -2, false, -inf},
	} {
		if got := reductionRatio(c.before, c.after, step{change: c.change, squares: 4}, 0.5, c.without); got != c.want {
			t.Errorf("%s: %g, want %g", c.name, got, c.want)
		}
	}
	if got := reductionRatio(3, 3, step{}, 0.5, false); !math.IsNaN(got) {
		t.Errorf("nothing predicted, nothing done: %g, want NaN", got)
	}
}

func TestGammas(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		gamma, omega, lowest, highest float64
		want                          []float64
	}{
		{2, 0.5, 0, inf, []float64{1, 2, 4}},
		{2, 0.5, 1.5, inf, []float64{1.5, 2, 4}},
		{2, 0.5, 2, inf, []float64{2, 4}}, // at the lower limit, sqrt(eta)
		{2, 0.5, 3, inf, []float64{2, 4}},
		{2, 0.5, 0, 3, []float64{1, 2, 3}},
		{2, 0.5, 0, 2, []float64{1, 2, 2}},
		// the authors' code at its start: 4.39 ...
		{7.333, math.Pow(19.0/20, 10), 0, 1, []float64{7.333 * math.Pow(19.0/20, 10), 7.333, 1}},
	} {
		if got := gammas(c.gamma, c.omega, c.lowest, c.highest); !slices.Equal(got, c.want) {
			t.Errorf("gammas(%g, %g, %g, %g) = %v, want %v", c.gamma, c.omega, c.lowest, c.highest, got, c.want)
		}
	}
	if lower := gammas(7.333, math.Pow(19.0/20, 10), 0, 1)[0]; math.Abs(lower-4.39) > 0.005 {
		t.Errorf("lower candidate %g, want 4.39", lower)
	}
}

func TestStartOfLambda(t *testing.T) {
	// valley is convex in log lambda, lowest at 10^at.
	valley := func(at, bottom float64) func(float64) float64 {
		return func(lambda float64) float64 { d := math.Log10(lambda) - at; return bottom + d*d }
	}
	for _, c := range []struct {
		name   string
		start  float64
		before float64
		try    func(float64) float64
		want   float64
	}{
		{"at the bottom", 1, 5, valley(0, 1), 1},
		{"above the bottom", 1, 20, valley(-2, 1), 1e-2},
		{"a step to the bottom that is not worth it", 1, 500, valley(-3, 1), 1e-2},
		{"between the tries", 1, 5, valley(-1.7, 1), 1e-2},
		{"below the bottom, but better than before", 1, 50, valley(3, 1), 1},
		{"worse at the start", 1, 2, valley(3, 1.5), 1e3},
		{"infinite at the start", 1e-2, 2, func(l float64) float64 {
			if l < 5 {
				return math.Inf(1)
			}
			return 1
		}, 10},
		{"the lower the better, without end", 1, 5, func(l float64) float64 { return 4 - 5*math.Log10(1/l) }, 1e-12},
	} {
		calls := 0
		got, _ := startOfLambda(c.start, c.before, func(l float64) float64 { calls++; return c.try(l) })
		if math.Abs(got-c.want) > 1e-9*c.want {
			t.Errorf("%s: %g, want %g", c.name, got, c.want)
		}
		if calls > 14 {
			t.Errorf("%s: %d tries", c.name, calls)
		}
	}
	for name, value := range map[string]float64{"infinite everywhere": math.Inf(1), "NaN everywhere": math.NaN(),
		"no change anywhere": 3} {
		if got, ok := startOfLambda(0.7, 3, func(float64) float64 { return value }); got != 0.7 || ok {
			t.Errorf("%s: %g, want that of the start", name, got)
		}
	}
}

// From wherever lambda has got to, the steps count again within fifty updates.
func TestLambdaComesBack(t *testing.T) {
	for _, lambda := range []float64{1e-30, 1e12, 1e200} {
		for _, widths := range [][]int{{4, 2}, {4, 6, 2}} {
			build := func() *Trainer {
				return NewTrainer(t, testnet.MLP{Widths: widths, Cases: 30, Loss: testnet.Squares(1)}.Build(3))
			}
			l, twin := build(), build()
			l.Steps(t, 2)
			before := statsOf(l).Cost
			trainingOf(l).control.lambda, trainingOf(l).control.gamma = lambda, math.Sqrt(lambda)
			l.Steps(t, 50)
			twin.Steps(t, 52)
			if got, want := statsOf(l).Cost, statsOf(twin).Cost; got-want > (before-want)/100 {
				t.Errorf("lambda %g, layers of %v: cost %v after fifty updates, %v without, %v before",
					lambda, widths, got, want, before)
			}
		}
	}
}
