package batch

import (
	"slices"
	"testing"
)

func TestEveryCaseOnceAnEpoch(t *testing.T) {
	for _, tc := range []struct{ cases, size int }{{12, 4}, {12, 5}, {7, 7}, {1, 1}, {3, 5}} {
		s := NewSampler(tc.cases, tc.size, 1)
		var seen []int
		for len(seen) < 20*tc.cases {
			seen = append(seen, s.Next()...)
		}
		for epoch := range 20 {
			got := slices.Clone(seen[epoch*tc.cases : (epoch+1)*tc.cases])
			slices.Sort(got)
			for i, c := range got {
				if c != i {
					t.Fatalf("%d cases in batches of %d: epoch %d has the cases %v", tc.cases, tc.size, epoch, got)
				}
			}
		}
	}
}

func TestOrder(t *testing.T) {
	draw := func(seed uint64) []int {
		s := NewSampler(100, 10, seed)
		var order []int
		for range 20 {
			order = append(order, s.Next()...)
		}
		return order
	}
	first := draw(1)
	if !slices.Equal(first, draw(1)) {
		t.Error("two samplers of one seed differ")
	}
	if slices.Equal(first, draw(2)) {
		t.Error("samplers of two seeds agree")
	}
	if slices.Equal(first[:100], first[100:]) {
		t.Error("two epochs have the same order")
	}
}
