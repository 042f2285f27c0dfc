package kfac

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// An inverse from the background is that of the averages and the damping that there were lag steps
// before it is used for the first time, in turns.
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
			l := NewTrainer(t, testnet.FourLayers(), opts...)
			c := conductorOf(l)
			l.Steps(t, how.all-1)
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
				l.Steps(t, 1)
				for i, b := range layerBlocks(c) {
					states[k] = append(states[k], state{averageOf(&b.factors.a), averageOf(&b.factors.g)})
					from := k - test.lag
					if k <= how.all || from < how.all || from%test.period != i*test.period/len(c.blocks) {
						if after := current()[i]; k > how.all &&
							(!slices.Equal(after.a, before[i].a) || !slices.Equal(after.g, before[i].g)) {
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
					testnet.Near(t, "inverse of A", got.a, dampedInverse(t, f.a, pi*gammas[from]), 1e-10)
					testnet.Near(t, "inverse of G", got.g, dampedInverse(t, f.g, gammas[from]/pi), 1e-10)
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
	testnet.Check(t, inverse.Inverse(m))
	return inverse.RawMatrix().Data
}

// However long the background takes, and with every kind of block, the same run gives the same
// numbers.
func TestBackgroundInversesAreDeterministic(t *testing.T) {
	for name, make := range map[string]func() (*testnet.Net, []Option){
		"layers": func() (*testnet.Net, []Option) { return testnet.FourLayers(), nil },
		"chain":  func() (*testnet.Net, []Option) { return testnet.FourLayers(), []Option{WithBlockTridiagonal()} },
		"recurrent": func() (*testnet.Net, []Option) {
			return testnet.Recurrent(3, 3, true), []Option{WithTimeCorrelation(TimeSymmetric)}
		},
		"uncorrelated": func() (*testnet.Net, []Option) {
			return testnet.Images(3, true, true), []Option{WithSpatiallyUncorrelated()}
		},
		"convolutional": func() (*testnet.Net, []Option) { return testnet.Images(3, true, true), nil },
	} {
		train := func(procs int) *Trainer {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			n, opts := make()
			l := NewTrainer(t, n, append(opts, WithInverseUpdatePeriod(5), WithBackgroundInverses(2))...)
			l.Steps(t, 20)
			return l
		}
		t.Run(name, func(t *testing.T) { checkTwins(t, train(4), train(1)) })
	}
}

// A factor that can't be inverted in the background fails the step that should take its inverse up,
// which changes nothing; the next step inverts all anew.
func TestFailureInBackground(t *testing.T) {
	l := NewTrainer(t, testnet.FourLayers(), WithInverseUpdatePeriod(4), WithBackgroundInverses(1))
	c := conductorOf(l)
	var failing *kroneckerBlock[float64]
	for failing == nil {
		l.Steps(t, 1)
		for b, job := range c.background.jobs {
			<-job.done
			failing = b.(*kroneckerBlock[float64])
		}
	}
	failing.inverse.a.err = ErrNotPosDef
	before := testnet.Weights(l.Params)
	testnet.Check(t, l.Run())
	err := l.Solver.Step(l.ValueGrads())
	var layer *LayerError
	if !errors.As(err, &layer) || !errors.Is(err, ErrNotPosDef) || layer.Layer != failing.layer.name() {
		t.Fatalf("error %v", err)
	}
	if !slices.Equal(before, testnet.Weights(l.Params)) {
		t.Error("the weights have changed")
	}
	testnet.ZeroGradients(l.Params)
	l.Steps(t, 1)
	if c.background.redo {
		t.Error("the inverses were not computed anew")
	}
	l.Steps(t, 12)
}

// A step that fails for another reason leaves an inverse that was due to the next.
func TestBackgroundInverseOutlivesFailedStep(t *testing.T) {
	train := func(fail bool) *Trainer {
		l := NewTrainer(t, testnet.FourLayers(), WithInverseUpdatePeriod(4), WithBackgroundInverses(1))
		for k := range 14 {
			if fail && k >= 4 {
				testnet.Check(t, l.Run())
				grad, err := l.Params[2].Grad()
				testnet.Check(t, err)
				grad.Data().([]float64)[0] = math.NaN()
				if err := l.Solver.Step(l.ValueGrads()); !errors.Is(err, ErrNotFinite) {
					t.Fatalf("error %v", err)
				}
				testnet.ZeroGradients(l.Params)
			}
			l.Steps(t, 1)
		}
		return l
	}
	checkTwins(t, train(true), train(false))
}

func TestBadOptionsOfTheBackground(t *testing.T) {
	for _, opts := range [][]Option{
		{WithInverseUpdatePeriod(5), WithBackgroundInverses(6)},
		{WithBackgroundInverses(0)},
		{WithBackgroundInverses(1), WithGammaAdaptation(20, 0.95)},
		{WithBackgroundInverses(1), WithPaperRules()},
	} {
		n := testnet.FourLayers()
		_, err := NewSolver(n.Cost, Declared(n), opts...)
		var config *ConfigError
		if !errors.As(err, &config) || config.Setting != "WithBackgroundInverses" {
			t.Errorf("error %v", err)
		}
	}
}
