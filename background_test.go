package kfac

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// wholeInverse is the inverse that a block of one layer has, as a matrix over its weights: what it
// makes of the unit vectors.
func wholeInverse(b *block[float64]) []float64 {
	n := len(b.v[0])
	m := mat.NewDense(n, n, nil)
	for i := range n {
		unit, u := make([]float64, n), make([]float64, n)
		unit[i] = 1
		b.inverse.Apply([][]float64{u}, [][]float64{unit})
		m.SetCol(i, u)
	}
	return flatOf(m)
}

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
			c := trainingOf(l)
			l.Steps(t, how.all-1)
			states := map[int]averages[float64]{} // after each step
			gammas := map[int]float64{}
			layers := placedLayers(c)
			current := func() (now [][]float64) {
				for _, l := range layers {
					now = append(now, wholeInverse(l.block))
				}
				return now
			}
			var taken int
			for k := how.all; k < how.all+3*test.period+test.lag; k++ {
				before := current()
				l.Steps(t, 1)
				states[k] = currentAverages(c)
				after := current()
				for i, l := range layers {
					from := k - test.lag
					if k <= how.all || from < how.all || from%test.period != i*test.period/len(layers) {
						if k > how.all && !slices.Equal(after[i], before[i]) {
							t.Fatalf("%s, %+v: step %d changes the inverse of layer %d", name, test, k, i)
						}
						continue
					}
					taken++
					testnet.Near(t, "inverse", after[i], dampedInverse(t, l, states[from], gammas[from]), 1e-10)
				}
				gammas[k] = c.control.gamma
			}
			if least := 2 * len(layers); taken < least {
				t.Errorf("%s, %+v: %d inverses were taken up, want %d", name, test, taken, least)
			}
		}
	}
}

// dampedInverse is (A + pi gamma I)^-1 (x) (G + gamma/pi I)^-1 of a layer.
func dampedInverse(t *testing.T, l placedLayer, avg averages[float64], gamma float64) []float64 {
	t.Helper()
	a, g := l.factors(avg)
	s := l.block.groups[l.group].shape
	pi := math.Sqrt(mat.Trace(square(a)) / float64(s.Abar()) / (mat.Trace(square(g)) / float64(s.Out)))
	inverse := func(f []float64, damping float64) *mat.Dense {
		m := mat.DenseCopyOf(square(f))
		n, _ := m.Dims()
		for i := range n {
			m.Set(i, i, m.At(i, i)+damping)
		}
		testnet.Check(t, m.Inverse(m))
		return m
	}
	var product mat.Dense
	product.Kronecker(inverse(a, pi*gamma), inverse(g, gamma/pi))
	return flatOf(&product)
}

// However long the background takes, and with every kind of block, the same run gives the same
// numbers.
func TestBackgroundInversesAreDeterministic(t *testing.T) {
	for name, make := range map[string]func() (*testnet.Net, []Option){
		"layers": func() (*testnet.Net, []Option) { return testnet.FourLayers(), nil },
		"chain":  func() (*testnet.Net, []Option) { return testnet.FourLayers(), []Option{WithBlockTridiagonal()} },
		"EKFAC":  func() (*testnet.Net, []Option) { return testnet.FourLayers(), []Option{WithEKFAC()} },
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

// The same where the graph is built again for every step or every few steps, with other numbers of
// cases, and now and then without the convolutional layer, whose inverse may be in progress then.
func TestBackgroundInversesFromGraphToGraph(t *testing.T) {
	const steps = 36
	for _, test := range []struct {
		name  string
		every int              // steps that a graph is used for
		lacks func(k int) bool // the graph of step k has no convolution
	}{
		{"every step", 1, func(int) bool { return false }},
		{"every three steps", 3, func(int) bool { return false }},
		{"every step, some without the layer", 1, func(k int) bool { return k%5 == 2 || k%5 == 3 }},
		{"long without the layer", 2, func(k int) bool { return k >= 8 && k < 22 }},
		{"only now and then with the layer", 1, func(k int) bool { return k > 3 && k%6 > 0 }},
	} {
		for lag := 1; lag <= 3; lag++ {
			for name, opts := range map[string][]Option{"model": nil, "rate": {WithLearningRate(0.05)}} {
				t.Run(fmt.Sprintf("%s, %s, lag %d", test.name, name, lag), func(t *testing.T) {
					train := func(procs int) *Trainer {
						defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
						l := NewTrainer(t, smallConvnet(1, false), append(opts, WithSpatiallyUncorrelated(),
							WithInverseUpdatePeriod(3), WithBackgroundInverses(lag))...)
						for k := range steps {
							if k > 0 && k%test.every == 0 {
								goOn(t, l, smallConvnet(uint64(k), test.lacks(k)))
							}
							l.Steps(t, 1)
						}
						return l
					}
					one, four := train(1), train(4)
					checkTwins(t, four, one)
					var all [2]gorgonia.Nodes
					for i, l := range []*Trainer{one, four} {
						goOn(t, l, smallConvnet(0, false))
						all[i] = l.Params
						l.Steps(t, 1)
					}
					testnet.SameBits(t, "all weights", testnet.Weights(all[1]), testnet.Weights(all[0]))
					if c := trainingOf(four); blockIndex[*curvature.Uncorrelated[float64]](c) < 0 {
						t.Error("the convolution has another block")
					}
				})
			}
		}
	}
}

// smallConvnet is a convolution, another, and two dense layers, on data of that seed; or without
// the first convolution.
func smallConvnet(seed uint64, lacking bool) *testnet.Net {
	weights := testnet.NewSketch(11) // the same for all
	s := testnet.NewSketch(seed)
	cases := 3 + int(seed)%3
	n := &testnet.Net{Sketch: s, X: s.Random("x", cases, 2, 5, 5)}
	param := func(name string, shape ...int) *gorgonia.Node {
		return s.Leaf(name, testnet.Data(weights.Scaled(name, 0.4, shape...)), shape...)
	}
	f, bias, second, w, v := param("f", 2, 2, 3, 3), param("bias", 1, 2, 1, 1), param("second", 3, 2, 2, 2),
		param("w", 48, 4), param("v", 4, 2)
	h := n.X
	if !lacking {
		h = tanh(testnet.AddChannel(convolve(h, f, 1, 1), bias))
		n.Params = append(n.Params, f, bias)
	}
	h = tanh(convolve(h, second, 0, 1))
	n.Params = append(n.Params, second, w, v)
	return n.Ends(mul(tanh(mul(reshape(h, cases, 48), w)), v), testnet.Squares(1))
}

// A spoilt block makes inversions go wrong.
type spoilt struct {
	curvature.Block[float64]
	panics bool
}

func (b spoilt) Invert(avg *curvature.Averages[float64], d curvature.Damping) *curvature.Inversion[float64] {
	if !b.panics {
		avg.Moments[0][0] = -1e30 // the job's own copy
		return b.Block.Invert(avg, d)
	}
	v := b.Block.Invert(avg, d)
	v.First = append(v.First, func() { panic("out of order") })
	return v
}

// spoilJob trains until a step has begun an inversion in the background, which goes wrong, and
// returns its block. The next step is to take it up.
func spoilJob(t *testing.T, l *Trainer, panics bool) *block[float64] {
	t.Helper()
	c := trainingOf(l)
	l.Steps(t, 20) // the last that computes all inverses
	for range 20 {
		before := maps.Clone(c.background.jobs)
		testnet.Check(t, l.Run())
		for _, b := range c.plan.blocks {
			b.Block = spoilt{b.Block, panics}
		}
		err := l.Solver.Step(l.ValueGrads())
		for _, b := range c.plan.blocks {
			b.Block = b.Block.(spoilt).Block
		}
		testnet.Check(t, err)
		for b, j := range c.background.jobs {
			if before[b] != j {
				return b
			}
		}
	}
	t.Fatal("no inversion in the background")
	return nil
}

// Where a factor can't be inverted in the background, the step that should take its inverse up
// computes all anew, from its own averages.
func TestFailureInBackground(t *testing.T) {
	l := NewTrainer(t, testnet.FourLayers(), WithInverseUpdatePeriod(4), WithBackgroundInverses(1))
	c := trainingOf(l)
	failing := spoilJob(t, l, false)
	if _, err := c.background.jobs[failing].collect(); !errors.Is(err, ErrNotPosDef) {
		t.Fatalf("the job's error is %v", err)
	}
	l.Steps(t, 1)
	if !statsOf(l).InverseUpdated || len(c.background.jobs) > 1 || c.background.jobs[failing] != nil {
		t.Errorf("%+v, %d jobs", statsOf(l), len(c.background.jobs))
	}
	avg := currentAverages(c)
	for _, p := range placedLayers(c) {
		want := dampedInverse(t, p, avg, l.Solver.Stats().Gamma)
		testnet.Near(t, "inverse of "+p.Name(), wholeInverse(p.block), want, 1e-10)
	}
	l.Steps(t, 12)
}

// A step that computes all inverses because one from the background is missing, and fails, leaves
// that to the next.
func TestFailureInBackgroundOutlivesFailedStep(t *testing.T) {
	train := func(fail bool) *Trainer {
		l := NewTrainer(t, testnet.FourLayers(), WithInverseUpdatePeriod(4), WithBackgroundInverses(1))
		b := spoilJob(t, l, false)
		if fail {
			testnet.Check(t, l.Run())
			sound := b.Block
			b.Block = wrongAverages{sound, 0, -1e30}
			if err := l.Solver.Step(l.ValueGrads()); !errors.Is(err, ErrNotPosDef) {
				t.Fatalf("error %v", err)
			}
			b.Block = sound
			testnet.ZeroGradients(l.Params)
		}
		l.Steps(t, 10)
		return l
	}
	checkTwins(t, train(true), train(false))
}

// A panic in the background is the error of the step that should take the inverse up, which changes
// no weight. The next goes on with the inverse of before.
func TestPanicInBackground(t *testing.T) {
	for name, opts := range map[string][]Option{"model": nil, "rate": {WithLearningRate(0.05)}} {
		t.Run(name, func(t *testing.T) {
			l := NewTrainer(t, testnet.FourLayers(),
				append(opts, WithInverseUpdatePeriod(8), WithBackgroundInverses(1))...)
			c := trainingOf(l)
			failing := spoilJob(t, l, true)
			weights, stats, inverse := testnet.Weights(l.Params), l.Solver.Stats(), wholeInverse(failing)
			avg := currentAverages(c)
			testnet.Check(t, l.Run())
			err := l.Solver.Step(l.ValueGrads())
			var layer *LayerError
			if !errors.As(err, &layer) || layer.Layer != failing.groups[0].params[0].name ||
				!strings.Contains(err.Error(), "out of order") {
				t.Fatalf("error %v", err)
			}
			testnet.SameBits(t, "weights", testnet.Weights(l.Params), weights)
			for i, now := range currentAverages(c) {
				if now.Updates != avg[i].Updates || !slices.EqualFunc(now.Moments, avg[i].Moments, slices.Equal) {
					t.Errorf("the averages of block %d have changed", i)
				}
			}
			if !SameStats(l.Solver.Stats(), stats) {
				t.Error("the figures have changed")
			}
			testnet.Check(t, l.Solver.Step(l.ValueGrads())) // its gradients are still there
			if statsOf(l).Step != stats.Step+1 || statsOf(l).InverseUpdated ||
				!slices.Equal(wholeInverse(failing), inverse) {
				t.Errorf("%+v; or the inverse is another", statsOf(l))
			}
			l.Steps(t, 20)
			if slices.Equal(wholeInverse(failing), inverse) {
				t.Error("the inverse has not been computed since")
			}
		})
	}
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
