package main

import "testing"

// The least loss is 0.4836, the entropy of not knowing 0.637.
func TestTrain(t *testing.T) {
	for _, c := range []struct {
		adam  bool
		steps int
		below float64
	}{{false, 10, 0.484}, {true, 500, 0.5}} {
		loss, err := train(c.steps, c.adam)
		if err != nil || !(loss < c.below) {
			t.Errorf("Adam %v: loss %g after %d updates (%v), want less than %g", c.adam, loss, c.steps, err, c.below)
		}
	}
}
