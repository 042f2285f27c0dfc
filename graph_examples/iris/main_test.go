package main

import "testing"

// The loss before training is about log 3 = 1.1.
func TestTrain(t *testing.T) {
	for _, c := range []struct {
		adam  bool
		steps int
		below float64
	}{{false, 50, 1e-3}, {true, 50, 0.2}} {
		loss, err := train(c.steps, c.adam)
		if err != nil || !(loss < c.below) {
			t.Errorf("Adam %v: loss %g after %d updates (%v), want less than %g", c.adam, loss, c.steps, err, c.below)
		}
	}
}
