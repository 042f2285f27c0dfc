package iris

import (
	"math"
	"testing"
)

// The means that Fisher gives in his table II, in cm.
func TestFlowers(t *testing.T) {
	var count [Species]float64
	var sums [Species][4]float64
	for _, f := range Flowers() {
		count[f.Species]++
		for k, v := range f.Measurements() {
			sums[f.Species][k] += v
		}
	}
	for species, want := range [Species][4]float64{
		{5.006, 3.428, 1.462, 0.246},
		{5.936, 2.770, 4.260, 1.326},
		{6.588, 2.974, 5.552, 2.026},
	} {
		if count[species] != 50 {
			t.Errorf("%g flowers of species %d, want 50", count[species], species)
		}
		for k := range want {
			if got := sums[species][k] / 50; math.Abs(got-want[k]) > 1e-9 {
				t.Errorf("species %d, measurement %d: mean %g, want %g", species, k, got, want[k])
			}
		}
	}
}
