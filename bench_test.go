package kfac_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// deepAutoencoder is the MNIST autoencoder of Martens & Grosse 2015, section 13, on random images.
type deepAutoencoder struct {
	cost, logits *gorgonia.Node
	params       gorgonia.Nodes
	list         []gorgonia.ValueGrad
	vm           gorgonia.VM
}

func newDeepAutoencoder(b testing.TB, batch int) *deepAutoencoder {
	b.Helper()
	widths := []int{784, 1000, 500, 250, 30, 250, 500, 1000, 784}
	rng := rand.New(rand.NewPCG(1, 1))
	g := gorgonia.NewGraph()
	pixels := make([]float32, batch*widths[0])
	for i := range pixels {
		pixels[i] = rng.Float32()
	}
	x := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithName("x"), gorgonia.WithShape(batch, widths[0]),
		gorgonia.WithValue(tensor.New(tensor.WithShape(batch, widths[0]), tensor.WithBacking(pixels))))
	m := &deepAutoencoder{}
	h := x
	for i, out := range widths[1:] {
		in := widths[i]
		weights := make([]float32, in*out)
		for j := range out { // sparse initialisation: 15 inputs per unit
			for range 15 {
				weights[rng.IntN(in)*out+j] = float32(rng.NormFloat64())
			}
		}
		w := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithName(fmt.Sprintf("w%d", i)), gorgonia.WithShape(in, out),
			gorgonia.WithValue(tensor.New(tensor.WithShape(in, out), tensor.WithBacking(weights))))
		bias := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithName(fmt.Sprintf("b%d", i)), gorgonia.WithShape(1, out), gorgonia.WithInit(gorgonia.Zeroes()))
		m.params = append(m.params, w, bias)
		s := gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(h, w)), bias, nil, []byte{0}))
		switch {
		case i == len(widths)-2:
			m.logits = s
		case out == 30: // the code layer is linear
			h = s
		default:
			h = gorgonia.Must(gorgonia.Sigmoid(s))
		}
	}
	likelihood := gorgonia.Must(gorgonia.Sub(gorgonia.Must(gorgonia.Softplus(m.logits)), gorgonia.Must(gorgonia.HadamardProd(x, m.logits))))
	m.cost = gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sum(likelihood, 1))))
	if _, err := gorgonia.Grad(m.cost, m.params...); err != nil {
		b.Fatal(err)
	}
	m.list = gorgonia.NodesToValueGrads(m.params)
	m.vm = gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(m.params...))
	return m
}

func (m *deepAutoencoder) iterate(b testing.TB, s gorgonia.Solver) {
	b.Helper()
	if err := m.vm.RunAll(); err != nil {
		b.Fatal(err)
	}
	if err := s.Step(m.list); err != nil {
		b.Fatal(err)
	}
	m.vm.Reset()
}

// BenchmarkAutoencoder times iterations (RunAll, Step, Reset) of K-FAC over whole inverse update periods, with an iteration of Adam
// after each, so that the ratio it reports is of one run. Beside it, the milliseconds of a K-FAC step by phase.
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
			b.Run(fmt.Sprintf("batch=%d/%s", batch, mode.name), func(b *testing.B) { benchmarkAutoencoder(b, batch, mode.opts...) })
		}
	}
}

func benchmarkAutoencoder(b *testing.B, batch int, opts ...kfac.Option) {
	theirs, ours := newDeepAutoencoder(b, batch), newDeepAutoencoder(b, batch)
	adam := gorgonia.NewAdamSolver(gorgonia.WithLearnRate(1e-4))
	solver, err := kfac.NewSolver(ours.cost, kfac.Bernoulli(ours.logits), opts...)
	if err != nil {
		b.Fatal(err)
	}
	const period = 20
	for range 3 { // the checks, and the inverses of the first three steps
		ours.iterate(b, solver)
	}
	var tKFAC, tAdam time.Duration
	var phases kfac.PhaseTimes
	b.ReportAllocs()
	for b.Loop() {
		for range period {
			start := time.Now()
			ours.iterate(b, solver)
			tKFAC += time.Since(start)
			add(&phases, solver.Stats().Time)
			start = time.Now()
			theirs.iterate(b, adam)
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

// BenchmarkConvolution measures the statistics of a convolution of 64 channels, 3 x 3, on 28 x 28 images, batch 64, all cases used, beside the convolution's own forward
// and backward pass (metric: factors/pass).
func BenchmarkConvolution(b *testing.B) {
	const batch, channels, size = 64, 64, 28
	g := gorgonia.NewGraph()
	x := gorgonia.NewTensor(g, tensor.Float32, 4, gorgonia.WithShape(batch, channels, size, size), gorgonia.WithName("x"), gorgonia.WithInit(gorgonia.Gaussian(0, 1)))
	w := gorgonia.NewTensor(g, tensor.Float32, 4, gorgonia.WithShape(channels, channels, 3, 3), gorgonia.WithName("w"), gorgonia.WithInit(gorgonia.Gaussian(0, 0.05)))
	y := gorgonia.NewTensor(g, tensor.Float32, 4, gorgonia.WithShape(batch, channels, size, size), gorgonia.WithName("y"), gorgonia.WithInit(gorgonia.Gaussian(0, 1)))
	out := gorgonia.Must(gorgonia.Conv2d(x, w, tensor.Shape{3, 3}, []int{1, 1}, []int{1, 1}, []int{1, 1}))
	cost := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Square(gorgonia.Must(gorgonia.Sub(out, y))))))
	if _, err := gorgonia.Grad(cost, w); err != nil {
		b.Fatal(err)
	}
	vm := gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(w))
	defer vm.Close()
	solver, err := kfac.NewSolver(cost, kfac.Gaussian(out, 1), kfac.WithStatisticsFraction(1), kfac.WithLearningRate(0.001), kfac.WithoutGradientCheck())
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
