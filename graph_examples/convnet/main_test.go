package main

import "testing"

// Guessing errs on 90 %.
func TestTrain(t *testing.T) {
	for _, c := range []struct {
		adam  bool
		steps int
		below float64
	}{{false, 5, 60}, {true, 10, 80}} {
		wrong, err := train(c.steps, c.adam)
		if err != nil || !(wrong < c.below) {
			t.Errorf("Adam %v: %g %% wrong after %d updates (%v), limit %g", c.adam, wrong, c.steps, err, c.below)
		}
	}
}
