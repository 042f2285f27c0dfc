package kfac

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// The numbers in this file are those that the tests of tensorflow/kfac and gpauloski/kfac-pytorch
// expect.

// Identity statistics and lambda = 1/2 leave 2/3 of the gradient of a full block.
func TestFullBlockGolden(t *testing.T) {
	c := attach(t, elementwiseNetNamed("sum").network(testnet.Squares(1)))
	gradients(t, c)
	blocks, _ := elementwiseBlocks(c)
	b := blocks[0]
	copy(b.mean.next, []float64{1, 0, 0, 0, 1, 0, 0, 0, 1})
	b.precondition(gamma(0.5, 0), true)
	testnet.Near(t, "direction", b.params[0].dir, scaled(b.params[0].grad, 2.0/3), identity)
}

// diag(1, 2, 0, 1) and a matrix of ones have pi = 1, so that both are damped alike.
func TestPiGolden(t *testing.T) {
	dampA, dampG := factoredTikhonov(4, 4, 2, 2, 0.7)
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

// A cross moment is not symmetric.
func TestCrossMomentGolden(t *testing.T) {
	x, y := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9}, []float64{9, 8, 7, 6, 5, 4, 3, 2, 1}
	f := newMoment[float64](3, 3)
	f.observe(columnsOf(nil, x, 3, 3, false), columnsOf(nil, y, 3, 3, false), 3, 2)
	f.average(0, true)
	testnet.Near(t, "moment", f.next, []float64{27, 21, 15, 36, 28.5, 21, 45, 36, 27}, identity)
}
