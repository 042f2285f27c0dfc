package main

import "testing"

// Both solvers learn to balance the pole, K-FAC in fewer episodes, all seeds together.
func TestTrain(t *testing.T) {
	played := map[bool]int{}
	for seed := uint64(1); seed <= 4; seed++ {
		for _, adam := range []bool{false, true} {
			mean, episodes := train(seed, 1000, adam, 0.02)
			if mean < balanced {
				t.Errorf("seed %d, Adam %v: it stands for %.0f pushes after %d episodes", seed, adam, mean, episodes)
			}
			played[adam] += episodes
		}
	}
	t.Logf("%d episodes, Adam %d", played[false], played[true])
	if played[false] >= played[true] {
		t.Errorf("K-FAC took %d episodes, Adam %d", played[false], played[true])
	}
}

// A cart that nobody pushes loses its pole, and so does one that is pushed to one side only.
func TestPush(t *testing.T) {
	for _, force := range []float64{0, 10, -10} {
		s, n := state{0, 0, 0.01, 0}, 0
		for ; !s.falls() && n < longest; n++ {
			s = s.push(force)
		}
		if n == longest {
			t.Errorf("with force %g the pole stands", force)
		}
		if force != 0 && s[0]*force <= 0 {
			t.Errorf("force %g has moved the cart to %g", force, s[0])
		}
	}
}
