package main

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// Both solvers end at the least-squares fit, K-FAC after a few updates.
func TestTrain(t *testing.T) {
	xs, ys := measurements()
	x, y := mat.NewDense(len(ys), 4, xs), mat.NewVecDense(len(ys), ys)
	var theta, residuals mat.VecDense
	if err := theta.SolveVec(x, y); err != nil {
		t.Fatal(err)
	}
	residuals.MulVec(x, &theta)
	residuals.SubVec(&residuals, y)
	least := mat.Dot(&residuals, &residuals) / float64(len(ys))
	for _, c := range []struct {
		adam  bool
		steps int
	}{{false, 10}, {true, 1000}} {
		loss, err := train(c.steps, c.adam)
		if err != nil || !(math.Abs(loss-least) < 1e-4*least) {
			t.Errorf("Adam %v: loss %g (%v), the least is %g", c.adam, loss, err, least)
		}
	}
}
