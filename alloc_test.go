package kfac_test

import (
	"runtime"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// bytesOfStep is what a Step allocates, in the mean of so many.
func bytesOfStep(t *testing.T, tr *kfac.Trainer, list []gorgonia.ValueGrad, steps int) (sum uint64) {
	t.Helper()
	var before, after runtime.MemStats
	for range steps {
		testnet.Check(t, tr.Run())
		runtime.ReadMemStats(&before)
		testnet.Check(t, tr.Solver.Step(list))
		runtime.ReadMemStats(&after)
		sum += after.TotalAlloc - before.TotalAlloc
	}
	return sum / uint64(steps)
}

// TestStepAllocations: in steady state a Step allocates little, and no more later than earlier,
// nothing of the size of the model or of the batch; and one with new inverses little beside the
// matrices. Nearly all of it are closures that are handed to the processors.
func TestStepAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a while")
	}
	tr := kfac.NewTrainer(t, testnet.DeepAutoencoder(64),
		kfac.WithInverseUpdatePeriod(13), kfac.WithGammaAdaptation(1000, 0.95))
	list := tr.ValueGrads()
	bytesOf := func(steps int) uint64 { return bytesOfStep(t, tr, list, steps) }
	bytesOf(4) // buffers, checks and the first inverses
	early, late, inverting := bytesOf(4), bytesOf(4), bytesOf(1)
	const most = 1 << 20 // the model has 11 MB of weights, its factors 26 MB
	if late > most || late > early+early/4 {
		t.Errorf("a step allocates %d and, later, %d bytes; want at most %d", early, late, most)
	}
	if inverting > 6*most {
		t.Errorf("a step with new inverses allocates %d bytes, want at most %d", inverting, 6*most)
	}
}

// TestHeapDoesNotGrow: what is in use after 10,000 more steps is what was in use before them, with
// inverses in the background too.
func TestHeapDoesNotGrow(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a while")
	}
	for name, opts := range map[string][]kfac.Option{
		"default":     nil,
		"tridiagonal": {kfac.WithBlockTridiagonal()},
		"EKFAC":       {kfac.WithEKFAC()},
		"background":  {kfac.WithBackgroundInverses(5)},
		"rate":        {kfac.WithLearningRate(1e-3), kfac.WithIterateAveraging(0.99, 1)},
	} {
		m := testnet.NewMLP[float32](1, testnet.Shape{Cases: 8, Widths: []int{6, 5, 4, 3}}, testnet.CrossEntropy)
		tr := kfac.NewTrainer(t, m, opts...)
		inUse := func(steps int) int64 {
			tr.Steps(t, steps)
			runtime.GC()
			runtime.GC() // what the first has found in pools
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := inUse(200)
		if grown := inUse(10000) - before; grown > 1<<14 {
			t.Errorf("%s: %d bytes more in use after 10,000 steps", name, grown)
		}
	}
}

// TestGaussNewtonAllocates: in steady state a step with the curvature of the cost, and one with the
// scale of absolute errors, allocates nothing of the size of the batch.
func TestGaussNewtonAllocates(t *testing.T) {
	for name, c := range map[string]lossCase{
		"numbers": costCases["Huber"], "rows": costCases["softmax by hand"], "coupled": costCases["root mean square"],
		"kinks": costCases["hinge"], "absolute error": lossCases["absolute error of unknown scale"],
	} {
		n := &testnet.Net{Sketch: testnet.NewSketch(11)}
		z := lossModelOf(n, 4096, 3)
		n.Out, n.Cost = z, c.cost(n.Sketch, z)
		n.Grad(t)
		solver, err := kfac.NewSolver(n.Cost, c.declare(z), kfac.WithInverseUpdatePeriod(1000),
			kfac.WithGammaAdaptation(1000, 0.95))
		testnet.Check(t, err)
		tr := &kfac.Trainer{Net: n, Run: testnet.Machines["BindDualValues"](t, n), Solver: solver}
		list := tr.ValueGrads()
		bytesOf := func(steps int) uint64 { return bytesOfStep(t, tr, list, steps) }
		bytesOf(9)              // buffers, and the checks of the first, second, fourth and eighth step
		const column = 8 * 4096 // a number of each case
		if most := bytesOf(3); most > column {
			t.Errorf("%s: a step allocates %d bytes, want at most %d", name, most, column)
		}
	}
}
