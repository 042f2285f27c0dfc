package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// counting is a Communicator that counts what is sent.
type counting struct {
	kfac.Communicator
	operations, bytes int
	seconds           float64
}

func (c *counting) count(bytes int, operation func() error) error {
	start := time.Now()
	err := operation()
	c.operations++
	c.bytes += bytes
	c.seconds += time.Since(start).Seconds()
	return err
}

func (c *counting) AllReduceFloat32(x []float32) error {
	return c.count(4*len(x), func() error { return c.Communicator.AllReduceFloat32(x) })
}

func (c *counting) AllReduceFloat64(x []float64) error {
	return c.count(8*len(x), func() error { return c.Communicator.AllReduceFloat64(x) })
}

func (c *counting) BroadcastFloat32(x []float32, root int) error {
	return c.count(4*len(x), func() error { return c.Communicator.BroadcastFloat32(x, root) })
}

func (c *counting) BroadcastFloat64(x []float64, root int) error {
	return c.count(8*len(x), func() error { return c.Communicator.BroadcastFloat64(x, root) })
}

// wire measures the seconds of a small all-reduce, and the bytes in a second of a large one.
func wire(c kfac.Communicator) (latency, bandwidth float64, err error) {
	fastest := func(times int, x []float32) (float64, error) {
		best := math.Inf(1)
		for range times {
			start := time.Now()
			if err := c.AllReduceFloat32(x); err != nil {
				return 0, err
			}
			best = min(best, time.Since(start).Seconds())
		}
		return best, nil
	}
	small, err := fastest(500, make([]float32, 16))
	if err != nil {
		return 0, 0, err
	}
	const numbers = 1 << 20
	large, err := fastest(10, make([]float32, numbers))
	p := float64(c.Size())
	hops := 2 * math.Ceil(math.Log2(p))
	return small / hops, width * numbers * 2 * (p - 1) / p / (large - small), err
}

// A measurement is the mean of updates.
type measurement struct {
	seconds, sending  float64
	passes            float64 // seconds of the private passes for the statistics
	operations, bytes float64
}

// autoencoder are the sizes of the deep autoencoder of Martens & Grosse (2015, section 13).
var autoencoder = []int{784, 1000, 500, 250, 30, 250, 500, 1000, 784}

// measure trains the autoencoder on rows of noise, so many on each rank. The first updates, which
// compute inverses and try steps, don't count.
func measure(on kfac.Communicator, cases, updates int) (m measurement, err error) {
	c := &counting{Communicator: on}
	g := gorgonia.NewGraph()
	rng := rand.New(rand.NewPCG(1, uint64(c.Rank())))
	pixels := make([]float32, cases*autoencoder[0])
	for i := range pixels {
		pixels[i] = float32(rng.IntN(2))
	}
	x := gorgonia.NewMatrix(g, gorgonia.Float32, gorgonia.WithName("x"),
		gorgonia.WithValue(tensor.New(tensor.WithShape(cases, autoencoder[0]), tensor.WithBacking(pixels))))
	weights := rand.New(rand.NewPCG(2, 2)) // the same on all ranks
	h := x
	var params gorgonia.Nodes
	for i, out := range autoencoder[1:] {
		in := autoencoder[i]
		data := make([]float32, in*out)
		for j := range data {
			data[j] = float32(weights.NormFloat64() / math.Sqrt(float64(in)))
		}
		w := gorgonia.NewMatrix(g, gorgonia.Float32, gorgonia.WithName(fmt.Sprint("w", i)),
			gorgonia.WithValue(tensor.New(tensor.WithShape(in, out), tensor.WithBacking(data))))
		b := gorgonia.NewVector(g, gorgonia.Float32, gorgonia.WithName(fmt.Sprint("b", i)), gorgonia.WithShape(out),
			gorgonia.WithInit(gorgonia.Zeroes()))
		params = append(params, w, b)
		if i > 0 && i != 4 {
			h = gorgonia.Must(gorgonia.Sigmoid(h))
		}
		h = gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(h, w)), b, nil, []byte{0}))
	}
	nll := gorgonia.Must(gorgonia.Sub(gorgonia.Must(gorgonia.Softplus(h)), gorgonia.Must(gorgonia.HadamardProd(h, x))))
	cost := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sum(nll, 1))))
	solver, err := kfac.NewSolver(cost, kfac.Bernoulli(h), kfac.WithCommunicator(c),
		kfac.WithInverseUpdatePeriod(longestPeriod))
	if err != nil {
		return m, err
	}
	if _, err := gorgonia.Grad(cost, params...); err != nil {
		return m, err
	}
	vm, err := solver.VM()
	if err != nil {
		return m, err
	}
	defer vm.Close()
	const first = longestPeriod + 1 // where gamma is searched for too
	var start time.Time
	for update := 1; update <= first+updates; update++ {
		if update == first+1 {
			*c = counting{Communicator: on}
			start = time.Now()
		}
		if err := vm.RunAll(); err != nil {
			return m, err
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(params)); err != nil {
			return m, err
		}
		vm.Reset()
		if update > first {
			m.passes += solver.Stats().Time.Capture.Seconds()
		}
	}
	n := float64(updates)
	seconds := time.Since(start).Seconds()
	return measurement{seconds / n, c.seconds / n, m.passes / n, float64(c.operations) / n, float64(c.bytes) / n}, nil
}
