package main

import (
	"math"
	"testing"
)

// The loss of guessing is log 10.
func TestTrain(t *testing.T) {
	for _, adam := range []bool{false, true} {
		if loss := train(10, adam); !(loss < math.Log(classes)) {
			t.Errorf("Adam %v: loss %g after 10 updates", adam, loss)
		}
	}
}
