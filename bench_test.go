package kfac_test

import (
	"fmt"
	"testing"
	"time"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// BenchmarkAutoencoder times iterations (RunAll, Step, Reset) of K-FAC over whole inverse update
// periods, with an iteration of Adam after each, so that the ratio it reports is of one run. Beside
// it, the milliseconds of a K-FAC step by phase.
//
//	go test -run '^$' -bench Autoencoder -benchtime 2x .
func BenchmarkAutoencoder(b *testing.B) {
	for _, batch := range []int{256, 1000} {
		for _, mode := range []struct {
			name string
			opts []kfac.Option
		}{
			{"default", nil},
			{"rate", []kfac.Option{kfac.WithLearningRate(0.1)}},
			{"tridiagonal", []kfac.Option{kfac.WithBlockTridiagonal()}},
		} {
			b.Run(fmt.Sprintf("batch=%d/%s", batch, mode.name), func(b *testing.B) {
				benchmarkAutoencoder(b, batch, mode.opts...)
			})
		}
	}
}

func benchmarkAutoencoder(b *testing.B, batch int, opts ...kfac.Option) {
	net := testnet.DeepAutoencoder(batch)
	adam := gorgonia.NewAdamSolver(gorgonia.WithLearnRate(1e-4))
	theirs := &testnet.Trainer[gorgonia.Solver]{Net: net, Run: testnet.Machines["BindDualValues"](b, net), Solver: adam}
	ours := kfac.NewTrainer(b, testnet.DeepAutoencoder(batch), opts...)
	const period = 20
	for range 3 { // the checks, and the inverses of the first three steps
		ours.Steps(b, 1)
	}
	var tKFAC, tAdam time.Duration
	var phases kfac.PhaseTimes
	b.ReportAllocs()
	for b.Loop() {
		for range period {
			start := time.Now()
			ours.Steps(b, 1)
			tKFAC += time.Since(start)
			add(&phases, ours.Solver.Stats().Time)
			start = time.Now()
			theirs.Steps(b, 1)
			tAdam += time.Since(start)
		}
	}
	n := float64(b.N * period)
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 / n }
	b.ReportMetric(tKFAC.Seconds()/tAdam.Seconds(), "kfac/adam")
	b.ReportMetric(ms(tAdam), "ms/adam")
	b.ReportMetric(ms(tKFAC), "ms/kfac")
	b.ReportMetric(ms(phases.Gradients), "ms/gradients")
	b.ReportMetric(ms(phases.Capture), "ms/capture")
	b.ReportMetric(ms(phases.Factors), "ms/factors")
	b.ReportMetric(ms(phases.Inverses), "ms/inverses")
	b.ReportMetric(ms(phases.Precondition), "ms/precondition")
	b.ReportMetric(ms(phases.Model), "ms/model")
	b.ReportMetric(ms(phases.Rho), "ms/rho")
	b.ReportMetric(ms(phases.Update), "ms/update")
}

func add(sum *kfac.PhaseTimes, t kfac.PhaseTimes) {
	sum.Gradients += t.Gradients
	sum.Capture += t.Capture
	sum.Factors += t.Factors
	sum.Inverses += t.Inverses
	sum.Precondition += t.Precondition
	sum.Model += t.Model
	sum.Rho += t.Rho
	sum.Update += t.Update
}

// BenchmarkConvolution measures the statistics of a convolution of 64 channels, 3 x 3, on 28 x 28
// images, batch 64, all cases used, beside the convolution's own forward and backward pass (metric:
// factors/pass).
func BenchmarkConvolution(b *testing.B) {
	const batch, channels, size = 64, 64, 28
	g := gorgonia.NewGraph()
	x := gorgonia.NewTensor(g, tensor.Float32, 4, gorgonia.WithShape(batch, channels, size, size),
		gorgonia.WithName("x"), gorgonia.WithInit(gorgonia.Gaussian(0, 1)))
	w := gorgonia.NewTensor(g, tensor.Float32, 4, gorgonia.WithShape(channels, channels, 3, 3), gorgonia.WithName("w"),
		gorgonia.WithInit(gorgonia.Gaussian(0, 0.05)))
	y := gorgonia.NewTensor(g, tensor.Float32, 4, gorgonia.WithShape(batch, channels, size, size),
		gorgonia.WithName("y"), gorgonia.WithInit(gorgonia.Gaussian(0, 1)))
	out := testnet.Conv2d(x, w, tensor.Shape{3, 3}, []int{1, 1}, []int{1, 1}, []int{1, 1})
	cost := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Square(gorgonia.Must(gorgonia.Sub(out, y))))))
	if _, err := gorgonia.Grad(cost, w); err != nil {
		b.Fatal(err)
	}
	vm := gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(w))
	defer vm.Close()
	solver, err := kfac.NewSolver(cost, kfac.Gaussian(out, 1), kfac.WithStatisticsFraction(1),
		kfac.WithLearningRate(0.001), kfac.WithoutGradientCheck())
	if err != nil {
		b.Fatal(err)
	}
	params := gorgonia.NodesToValueGrads(gorgonia.Nodes{w})
	var passes, factors, capture float64
	for b.Loop() {
		start := time.Now()
		if err := vm.RunAll(); err != nil {
			b.Fatal(err)
		}
		passes += time.Since(start).Seconds()
		if err := solver.Step(params); err != nil {
			b.Fatal(err)
		}
		factors += solver.Stats().Time.Factors.Seconds()
		capture += solver.Stats().Time.Capture.Seconds()
		vm.Reset()
	}
	b.ReportMetric(passes/float64(b.N), "pass-s")
	b.ReportMetric(factors/passes, "factors/pass")
	b.ReportMetric(capture/passes, "capture/pass")
}
