package kfac

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestGamma(t *testing.T) {
	if got, want := gamma(150, 1e-5), math.Sqrt(150+1e-5); got != want {
		t.Errorf("gamma(150, 1e-5) = %g, want %g", got, want)
	}
	if got := gamma(0.25, 0); got != 0.5 {
		t.Errorf("gamma(0.25, 0) = %g, want 0.5", got)
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
		dampA, dampG := factoredTikhonov(test.traceA, test.n, test.traceG, test.m, 0.5)
		checkNear(t, test.what, []float64{dampA, dampG}, []float64{test.dampA, test.dampG}, 1e-15)
	}
}

// The product of what is added to the two factors is lambda + eta, and their ratio that of the factors' mean diagonals.
func TestFactoredTikhonov(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		positive := rapid.Float64Range(1e-9, 1e9)
		traceA, traceG := positive.Draw(t, "tr A"), positive.Draw(t, "tr G")
		n, m := rapid.IntRange(1, 1000).Draw(t, "n"), rapid.IntRange(1, 1000).Draw(t, "m")
		lambda, eta := positive.Draw(t, "lambda"), positive.Draw(t, "eta")
		dampA, dampG := factoredTikhonov(traceA, n, traceG, m, gamma(lambda, eta))
		got := []float64{dampA * dampG, dampA / dampG}
		want := []float64{lambda + eta, traceA / float64(n) / (traceG / float64(m))}
		for i := range got {
			if math.Abs(got[i]/want[i]-1) > 1e-14 {
				t.Fatalf("product and ratio %g, want %g", got, want)
			}
		}
	})
}
