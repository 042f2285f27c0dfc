package kfac_test

import (
	"runtime"
	"testing"

	"github.com/gorgonia-kfac/kfac"
)

// TestStepAllocations: in steady state a Step allocates little, and no more later than earlier, nothing of the size of the model or of the batch.
// Nearly all of it is gonum's: its parallel GEMM makes lists of tiles.
func TestStepAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a while")
	}
	m := newDeepAutoencoder(t, 64)
	s, err := kfac.NewSolver(m.cost, kfac.Bernoulli(m.logits), kfac.WithInverseUpdatePeriod(1000))
	if err != nil {
		t.Fatal(err)
	}
	bytesOf := func(steps int) uint64 {
		var sum uint64
		var before, after runtime.MemStats
		for range steps {
			if err := m.vm.RunAll(); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&before)
			if err := s.Step(m.list); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			sum += after.TotalAlloc - before.TotalAlloc
			m.vm.Reset()
		}
		return sum / uint64(steps)
	}
	bytesOf(4) // buffers, checks and the first inverses
	early, late := bytesOf(4), bytesOf(4)
	const most = 1 << 20 // the model has 11 MB of weights, its factors 52 MB
	if late > most || late > early+early/4 {
		t.Errorf("a step allocates %d and, later, %d bytes; want at most %d", early, late, most)
	}
}
