//go:build cgo

package openblas

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// TestSteps trains a small autoencoder with OpenBLAS and in pure Go. The weights are the same up to
// rounding.
func TestSteps(t *testing.T) {
	for name, options := range map[string][]kfac.Option{
		"default":     nil,
		"rate":        {kfac.WithLearningRate(0.1)},
		"tridiagonal": {kfac.WithBlockTridiagonal()},
	} {
		t.Run(name+"/float64", func(t *testing.T) { testSteps[float64](t, 1e-7, options...) })
		t.Run(name+"/float32", func(t *testing.T) { testSteps[float32](t, 1e-2, options...) })
	}
}

func testSteps[T linalg.Float](t *testing.T, tolerance float64, options ...kfac.Option) {
	var want []T
	inPureGo(t, func() { want = train[T](t, options) })
	got := train[T](t, options)
	moved := furthest(want, weights[T](sizes))
	if d := furthest(got, want); !(d <= tolerance*moved) {
		t.Errorf("weights differ by %g from those in pure Go, after moves of %g", d, moved)
	}
	if math.IsNaN(moved) || moved < 1e-3 {
		t.Errorf("weights moved by %g", moved)
	}
}

var sizes = []int{60, 80, 40, 10, 40, 60}

// weights are the initial ones of all layers, one after the other.
func weights[T linalg.Float](sizes []int) []T {
	rng := rand.New(rand.NewPCG(3, 1))
	var all []T
	for i, in := range sizes[:len(sizes)-1] {
		w := normals[T](in*sizes[i+1], rng)
		linalg.Scale(T(1/math.Sqrt(float64(in))), w)
		all = append(all, w...)
	}
	return all
}

// A model is an autoencoder of random images.
type model[T linalg.Float] struct {
	cost, logits *gorgonia.Node
	params       gorgonia.Nodes
	weights      []T // of all layers, one after the other: the values of the parameters, but for the biases
	vm           gorgonia.VM
}

func newModel[T linalg.Float](t testing.TB, sizes []int, batch int) *model[T] {
	dtype := tensor.Float64
	if _, ok := any(T(0)).(float32); ok {
		dtype = tensor.Float32
	}
	g := gorgonia.NewGraph()
	matrix := func(name string, rows, cols int, data []T) *gorgonia.Node {
		return gorgonia.NewMatrix(g, dtype, gorgonia.WithName(name),
			gorgonia.WithValue(tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))))
	}
	rng := rand.New(rand.NewPCG(4, 1))
	pixels := make([]T, batch*sizes[0])
	for i := range pixels {
		pixels[i] = T(rng.Float64())
	}
	x := matrix("x", batch, sizes[0], pixels)
	m := &model[T]{weights: weights[T](sizes)}
	rest := m.weights
	h := x
	for i, in := range sizes[:len(sizes)-1] {
		out := sizes[i+1]
		w := matrix(fmt.Sprint("w", i), in, out, rest[:in*out:in*out])
		b := matrix(fmt.Sprint("b", i), 1, out, make([]T, out))
		rest = rest[in*out:]
		m.params = append(m.params, w, b)
		h = gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(h, w)), b, nil, []byte{0}))
		if i < len(sizes)-2 {
			h = gorgonia.Must(gorgonia.Tanh(h))
		}
	}
	m.logits = h
	softplus := gorgonia.Must(gorgonia.Softplus(h))
	likelihood := gorgonia.Must(gorgonia.Sub(softplus, gorgonia.Must(gorgonia.HadamardProd(x, h))))
	m.cost = gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sum(likelihood, 1))))
	if _, err := gorgonia.Grad(m.cost, m.params...); err != nil {
		t.Fatal(err)
	}
	m.vm = gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(m.params...))
	return m
}

// iterate does an update.
func (m *model[T]) iterate(t testing.TB, solver gorgonia.Solver) {
	if err := m.vm.RunAll(); err != nil {
		t.Fatal(err)
	}
	if err := solver.Step(gorgonia.NodesToValueGrads(m.params)); err != nil {
		t.Fatal(err)
	}
	m.vm.Reset()
}

// train does a few steps and returns the weights.
func train[T linalg.Float](t *testing.T, options []kfac.Option) []T {
	const batch, steps = 100, 5
	m := newModel[T](t, sizes, batch)
	defer m.vm.Close()
	solver, err := kfac.NewSolver(m.cost, kfac.Bernoulli(m.logits), options...)
	if err != nil {
		t.Fatal(err)
	}
	for range steps {
		m.iterate(t, solver)
	}
	return m.weights
}

// BenchmarkThreads compares three ways to use the processors, on the MNIST autoencoder of Martens &
// Grosse (2015): OpenBLAS on one thread, OpenBLAS with as many threads as there are processors, and
// products divided here. The ways take turns at whole inverse update periods, so that their ratios
// are of one run.
//
//	go test -run '^$' -bench Threads -benchtime 2x .
func BenchmarkThreads(b *testing.B) {
	for _, batch := range []int{256, 1000} {
		for _, name := range []string{"adam", "kfac"} {
			b.Run(fmt.Sprintf("%s/batch=%d", name, batch), func(b *testing.B) { benchmarkThreads(b, name, batch) })
		}
	}
}

func benchmarkThreads(b *testing.B, name string, batch int) {
	const period = 20
	ways := []struct {
		name    string
		threads int
		divide  bool
	}{{"one", 1, false}, {"openblas", runtime.GOMAXPROCS(0), false}, {"divided", 1, true}}
	defer func() {
		setThreads(1)
		register(blas{divide: true})
	}()
	m := newModel[float32](b, []int{784, 1000, 500, 250, 30, 250, 500, 1000, 784}, batch)
	defer m.vm.Close()
	solver := gorgonia.Solver(gorgonia.NewAdamSolver(gorgonia.WithLearnRate(1e-4)))
	if name == "kfac" {
		var err error
		if solver, err = kfac.NewSolver(m.cost, kfac.Bernoulli(m.logits)); err != nil {
			b.Fatal(err)
		}
		for range 10 { // the first inverses, and the search for the damping
			m.iterate(b, solver)
		}
	}
	seconds := make([][]float64, len(ways))
	for b.Loop() {
		for i, way := range ways {
			setThreads(way.threads)
			register(blas{divide: way.divide})
			start := time.Now()
			for range period {
				m.iterate(b, solver)
			}
			seconds[i] = append(seconds[i], time.Since(start).Seconds()/period)
		}
	}
	for i, way := range ways {
		slices.Sort(seconds[i])
		b.ReportMetric(1e3*seconds[i][len(seconds[i])/2], "ms/"+way.name)
	}
}
