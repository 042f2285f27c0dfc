package main

import "testing"

// The loss before training is about the logarithm of the number of characters, 4.5.
func TestTrain(t *testing.T) {
	for _, c := range []struct {
		adam  bool
		steps int
		below float64
	}{{false, 20, 3.2}, {true, 20, 3.4}} {
		loss, err := train("", c.steps, c.adam)
		if err != nil || !(loss < c.below) {
			t.Errorf("Adam %v: loss %g after %d updates (%v), want less than %g", c.adam, loss, c.steps, err, c.below)
		}
	}
}
