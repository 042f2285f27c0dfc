package kfac

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// The numbers in this file are those that the tests of tensorflow/kfac and gpauloski/kfac-pytorch
// expect.

// diag(1, 2, 0, 1) and a matrix of ones have pi = 1, so that both are damped alike.
func TestPiGolden(t *testing.T) {
	dampA, dampG := tikhonov(0.7).Split(4, 4, 2, 2)
	testnet.Near(t, "damping", []float64{dampA, dampG}, []float64{0.7, 0.7}, identity)
}

func TestNormConstraintGolden(t *testing.T) {
	v, u := []float64{1, 2, 3, 4, 2, 3, 4, 5}, []float64{3, 4, 5, 6, 7, 8, 9, 10}
	vu := floats.Dot(v, u)
	if vu != 174 {
		t.Fatalf("V.U = %g, want 174", vu)
	}
	for kappa, want := range map[float64]float64{0.5: .5360562674, 10: 1} {
		if got := normConstraint(kappa, 0.1, vu); math.Abs(got-want) > 1e-9 {
			t.Errorf("kappa %g: %.10g, want %.10g", kappa, got, want)
		}
	}
}
