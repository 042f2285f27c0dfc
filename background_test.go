package kfac

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
)

// fourLayers is a net whose layers have their turns at different steps.
func fourLayers() *network {
	return mlp{widths: []int{4, 6, 5, 3, 2}, cases: 20, unit: gorgonia.Tanh, loss: squares(0.5)}.build(3)
}

// An inverse from the background is that of the averages and the damping that there were lag steps before it is used for the first time, in turns.
func TestBackgroundInverses(t *testing.T) {
	for _, test := range []struct{ period, lag int }{{8, 3}, {8, 8}, {4, 1}, {1, 1}} {
		for name, how := range map[string]struct {
			opts []Option
			all  int // the last step that computes all inverses
		}{
			"model": {nil, 20},
			"rate":  {[]Option{WithLearningRate(0.05)}, firstInverses},
		} {
			opts := append(how.opts, WithInverseUpdatePeriod(test.period), WithBackgroundInverses(test.lag))
			tr := newTrainer(t, fourLayers(), opts...)
			c := tr.solver.engine.(*conductor[float64])
			for range how.all - 1 {
				tr.step(t)
			}
			type state struct{ a, g []float64 }
			states := map[int][]state{} // after each step
			gammas := map[int]float64{}
			current := func() (now []state) {
				for _, b := range c.blocks {
					v := b.(*kroneckerBlock[float64]).inverse
					now = append(now, state{slices.Clone(v.a.now), slices.Clone(v.g.now)})
				}
				return now
			}
			var taken int
			for k := how.all; k < how.all+3*test.period+test.lag; k++ {
				before := current()
				tr.step(t)
				for i, b := range layerBlocks(c) {
					states[k] = append(states[k], state{slices.Clone(b.factors.a.now), slices.Clone(b.factors.g.now)})
					from := k - test.lag
					if k <= how.all || from < how.all || from%test.period != i*test.period/len(c.blocks) {
						if after := current()[i]; k > how.all && (!slices.Equal(after.a, before[i].a) || !slices.Equal(after.g, before[i].g)) {
							t.Fatalf("%s, %+v: step %d changes the inverse of layer %d", name, test, k, i)
						}
						continue
					}
					taken++
					f := states[from][i]
					a, g := square(f.a), square(f.g)
					n, m := b.layer.abar(), b.layer.out
					pi := math.Sqrt(mat.Trace(a) / float64(n) / (mat.Trace(g) / float64(m)))
					got := current()[i]
					checkNear(t, "inverse of A", got.a, dampedInverse(t, f.a, pi*gammas[from]), 1e-10)
					checkNear(t, "inverse of G", got.g, dampedInverse(t, f.g, gammas[from]/pi), 1e-10)
				}
				gammas[k] = c.control.gamma
			}
			if least := 2 * len(c.blocks); taken < least {
				t.Errorf("%s, %+v: %d inverses were taken up, want %d", name, test, taken, least)
			}
		}
	}
}

func dampedInverse(t *testing.T, f []float64, damping float64) []float64 {
	t.Helper()
	m := mat.DenseCopyOf(square(f))
	n, _ := m.Dims()
	for i := range n {
		m.Set(i, i, m.At(i, i)+damping)
	}
	var inverse mat.Dense
	check(t, inverse.Inverse(m))
	return inverse.RawMatrix().Data
}

// However long the background takes, and with every kind of block, the same run gives the same numbers.
func TestBackgroundInversesAreDeterministic(t *testing.T) {
	for name, make := range map[string]func() (*network, []Option){
		"layers": func() (*network, []Option) { return fourLayers(), nil },
		"chain":  func() (*network, []Option) { return fourLayers(), []Option{WithBlockTridiagonal()} },
		"recurrent": func() (*network, []Option) {
			return recurrentNet(3, 3, true), []Option{WithTimeCorrelation(TimeSymmetric)}
		},
		"uncorrelated": func() (*network, []Option) {
			return imageNet(3, true, true), []Option{WithSpatiallyUncorrelated()}
		},
		"convolutional": func() (*network, []Option) { return imageNet(3, true, true), nil },
	} {
		var first []float64
		for _, procs := range []int{1, 4} {
			n, opts := make()
			tr := newTrainer(t, n, append(opts, WithInverseUpdatePeriod(5), WithBackgroundInverses(2))...)
			was := runtime.GOMAXPROCS(procs)
			for range 20 {
				tr.step(t)
			}
			runtime.GOMAXPROCS(was)
			var weights []float64
			for _, p := range tr.params {
				weights = append(weights, data(p)...)
			}
			if first == nil {
				first = weights
			} else if !slices.Equal(weights, first) {
				t.Errorf("%s: other weights with %d processors", name, procs)
			}
		}
	}
}

// A factor that can't be inverted in the background fails the step that should take its inverse up, which changes nothing; the next step inverts all anew.
func TestFailureInBackground(t *testing.T) {
	tr := newTrainer(t, fourLayers(), WithInverseUpdatePeriod(4), WithBackgroundInverses(1))
	c := tr.solver.engine.(*conductor[float64])
	var failing *kroneckerBlock[float64]
	for failing == nil {
		tr.step(t)
		for b, job := range c.background.jobs {
			<-job.done
			failing = b.(*kroneckerBlock[float64])
		}
	}
	failing.inverse.a.err = ErrNotPosDef
	before := slices.Clone(data(tr.params[0]))
	check(t, tr.vm.RunAll())
	err := tr.solver.Step(gorgonia.NodesToValueGrads(tr.params))
	tr.vm.Reset()
	var layer *LayerError
	if !errors.As(err, &layer) || !errors.Is(err, ErrNotPosDef) || layer.Layer != failing.layer.name() {
		t.Fatalf("error %v", err)
	}
	if !slices.Equal(before, data(tr.params[0])) {
		t.Error("the weights have changed")
	}
	clearGradients(t, tr.params)
	tr.step(t)
	if c.background.redo {
		t.Error("the inverses were not computed anew")
	}
	for range 12 {
		tr.step(t)
	}
}

// A step that fails for another reason leaves an inverse that was due to the next.
func TestBackgroundInverseOutlivesFailedStep(t *testing.T) {
	train := func(fail bool) []float64 {
		tr := newTrainer(t, fourLayers(), WithInverseUpdatePeriod(4), WithBackgroundInverses(1))
		for k := range 14 {
			if fail && k >= 4 {
				check(t, tr.vm.RunAll())
				gradientOf64(t, tr.params[2])[0] = math.NaN()
				if err := tr.solver.Step(gorgonia.NodesToValueGrads(tr.params)); !errors.Is(err, ErrNotFinite) {
					t.Fatalf("error %v", err)
				}
				tr.vm.Reset()
				clearGradients(t, tr.params)
			}
			tr.step(t)
		}
		return slices.Clone(data(tr.params[0]))
	}
	if !slices.Equal(train(true), train(false)) {
		t.Error("failed steps have changed the weights")
	}
}

func TestBadOptionsOfTheBackground(t *testing.T) {
	for _, opts := range [][]Option{
		{WithInverseUpdatePeriod(5), WithBackgroundInverses(6)},
		{WithBackgroundInverses(0)},
		{WithBackgroundInverses(1), WithGammaAdaptation(20, 0.95)},
		{WithBackgroundInverses(1), WithPaperRules()},
	} {
		n := fourLayers()
		_, err := NewSolver(n.cost, n.dist, opts...)
		var config *ConfigError
		if !errors.As(err, &config) || config.Setting != "WithBackgroundInverses" {
			t.Errorf("error %v", err)
		}
	}
}

func gradientOf64(t *testing.T, n *gorgonia.Node) []float64 {
	t.Helper()
	v, err := n.Grad()
	check(t, err)
	return v.Data().([]float64)
}

func clearGradients(t *testing.T, params gorgonia.Nodes) {
	t.Helper()
	for _, n := range params {
		clear(gradientOf64(t, n))
	}
}
