package kfac_test

import (
	"fmt"
	"math"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A dropper drops elements of a node of the model: by Dropout, or by a product with a mask that is
// an input.
type dropper struct {
	*testnet.Net
	p       float64
	masks   bool
	dropped gorgonia.Nodes // the Dropouts, or the masks
}

func (d *dropper) drop(h *gorgonia.Node) *gorgonia.Node {
	if d.masks {
		m := d.Ones(fmt.Sprint("mask", len(d.dropped)), h.Shape()...)
		d.dropped = append(d.dropped, m)
		return testnet.Hadamard(h, m)
	}
	h = gorgonia.Must(gorgonia.Dropout(h, d.p))
	d.dropped = append(d.dropped, h)
	return h
}

// takeMasks gives the masks the values of another net's Dropouts.
func (d *dropper) takeMasks(from *dropper) {
	if d.p == 0 { // nothing is dropped, and the VM writes over the value
		return
	}
	for i, m := range d.dropped {
		mask := testnet.Numbers(from.dropped[i].Value())
		for k, v := range mask {
			if v != 0 {
				mask[k] = 1 / (1 - d.p)
			}
		}
		fill(m, mask)
	}
}

// droppers are models with Dropout, in T.
func droppers[T testnet.Float]() map[string]func(d *dropper) {
	start := func(d *dropper) { d.Net = &testnet.Net{Sketch: testnet.NewSketchOf[T](3, 3)} }
	return map[string]func(d *dropper){
		"two layers": func(d *dropper) {
			start(d)
			d.X = d.Random("x", 30, 4)
			h := d.drop(testnet.Tanh(d.Layer(d.X, 0, 4, 8, true, false)))
			h = d.drop(testnet.Tanh(d.Layer(h, 1, 8, 6, true, false)))
			d.Ends(d.Layer(h, 2, 6, 3, true, false), testnet.CrossEntropy)
		},
		"the input": func(d *dropper) {
			start(d)
			d.X = d.Random("x", 30, 4)
			d.Ends(d.Layer(d.drop(d.X), 0, 4, 3, true, false), testnet.SquaredError)
		},
		"two cases": func(d *dropper) {
			start(d)
			d.X = d.Random("x", 2, 4)
			h := d.drop(testnet.Tanh(d.Layer(d.X, 0, 4, 8, true, false)))
			d.Ends(d.Layer(h, 1, 8, 3, true, false), testnet.BinaryCrossEntropy)
		},
		"a part of the batch": func(d *dropper) {
			start(d)
			d.X = d.Random("x", 300, 4)
			h := d.drop(testnet.Tanh(d.Layer(d.X, 0, 4, 8, true, false)))
			d.Ends(d.Layer(h, 1, 8, 3, true, false), testnet.BinaryCrossEntropy)
		},
		"a convolution": func(d *dropper) {
			start(d)
			d.X = d.Random("x", 40, 2, 4, 4)
			f, w := d.Scaled("f", 0.3, 3, 2, 2, 2), d.Scaled("w", 0.3, 27, 2)
			h := d.drop(testnet.Tanh(testnet.Convolve(d.X, f, 0, 1)))
			d.Params = gorgonia.Nodes{f, w}
			d.Ends(testnet.Mul(testnet.Reshape(h, 40, 27), w), testnet.CrossEntropy)
		},
		"two heads": func(d *dropper) {
			start(d)
			d.X = d.Random("x", 30, 4)
			h := d.drop(testnet.Tanh(d.Layer(d.X, 0, 4, 8, true, false)))
			y1, y2 := d.Layer(h, 1, 8, 2, true, false), d.Layer(h, 2, 8, 3, true, false)
			cost1 := testnet.Mean(testnet.Square(testnet.Sub(y1, d.Random("y1", 30, 2))))
			cost2, loss2 := testnet.CrossEntropy(d.Sketch, y2)
			d.Cost, d.Loss = testnet.Add(cost1, cost2), testnet.Joint(testnet.Normal(y1), loss2)
		},
	}
}

func trainerOf(t *testing.T, build func(*dropper), p float64, masks bool, opts ...kfac.Option) (
	*kfac.Trainer, *dropper) {
	d := &dropper{p: p, masks: masks}
	build(d)
	return kfac.NewTrainer(t, d.Net, append(opts, kfac.WithMinStatisticsCases(8))...), d
}

// withoutObjective are options with which the objective, which has other masks, is not evaluated.
var withoutObjective = []kfac.Option{kfac.WithDamping(0.1), kfac.WithDampingAdaptation(1000, 0.999)}

// A model with Dropout trains as one whose masks are inputs, whatever p is: all runs that a step is
// made from have the VM's masks, and the gradient is right where Gorgonia's is not.
func TestDropoutIsAMask(t *testing.T) {
	t.Run("float32", func(t *testing.T) { testDropoutIsAMask[float32](t, 2e-3) })
	t.Run("float64", func(t *testing.T) { testDropoutIsAMask[float64](t, 1e-9) })
}

func testDropoutIsAMask[T testnet.Float](t *testing.T, tolerance float64) {
	for model, build := range droppers[T]() {
		for _, p := range []float64{0, 0.01, 0.2, 0.5, 0.8} {
			t.Run(fmt.Sprint(model, " ", p), func(t *testing.T) {
				tr, net := trainerOf(t, build, p, false, withoutObjective...)
				twin, twinNet := trainerOf(t, build, p, true, withoutObjective...)
				for range 12 {
					testnet.Check(t, tr.Run())
					twinNet.takeMasks(net)
					testnet.Check(t, twin.Run())
					testnet.Check(t, tr.Solver.Step(tr.ValueGrads()))
					testnet.Check(t, twin.Solver.Step(twin.ValueGrads()))
					testnet.Near(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params), tolerance)
				}
			})
		}
	}
}

// So it does in chunks.
func TestDropoutOfChunksIsAMask(t *testing.T) {
	for model, build := range droppers[float64]() {
		t.Run(model, func(t *testing.T) {
			tr, net := trainerOf(t, build, 0.3, false, withoutObjective...)
			twin, twinNet := trainerOf(t, build, 0.3, true, withoutObjective...)
			for range 8 {
				for chunk := range 3 {
					testnet.Check(t, tr.Run())
					twinNet.takeMasks(net)
					testnet.Check(t, twin.Run())
					if chunk < 2 {
						testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
						testnet.Check(t, twin.Solver.Accumulate(twin.ValueGrads()))
					}
				}
				testnet.Check(t, tr.Solver.Step(tr.ValueGrads()))
				testnet.Check(t, twin.Solver.Step(twin.ValueGrads()))
				testnet.Near(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params), 1e-9)
			}
		})
	}
}

// Where the VM's masks can't be read, the private runs draw their own, and the gradient is theirs:
// lambda does not rise without end, though the objective has other masks than the step.
func TestDropoutWithoutTheMasks(t *testing.T) {
	for _, p := range []float64{0.2, 0.5} {
		for _, classes := range []bool{false, true} {
			s := testnet.NewSketch(5)
			n := &testnet.Net{Sketch: s, X: s.Random("x", 64, 6)}
			dropped := gorgonia.Must(gorgonia.Dropout(testnet.Tanh(n.Layer(n.X, 0, 6, 24, true, false)), p))
			likelihood := testnet.SquaredError
			if classes {
				likelihood = testnet.CrossEntropy
			}
			n.Ends(n.Layer(dropped, 1, 24, 3, true, false), likelihood)
			tr := kfac.NewTrainer(t, n)
			first := 0.0
			for k := range 300 {
				testnet.Check(t, tr.Run())
				d := dropped.Value().(*tensor.Dense)
				d.Set(0, d.Get(0).(float64)+1) // as an op that writes over it
				testnet.Check(t, tr.Solver.Step(tr.ValueGrads()))
				if k == 20 {
					first = tr.Solver.Stats().Damping
				}
			}
			if last := tr.Solver.Stats().Damping; last > 10*first {
				t.Errorf("p %g, classes %v: lambda goes from %g to %g", p, classes, first, last)
			}
		}
	}
}

// Where the VM evaluates, nothing is dropped.
func TestDropoutInEvalMode(t *testing.T) {
	build := droppers[float64]()["two layers"]
	for _, p := range []float64{0.5, 0.2} {
		d := &dropper{p: p}
		build(d)
		d.Grad(t)
		vm := gorgonia.NewTapeMachine(d.Graph, gorgonia.EvalMode(), gorgonia.BindDualValues(d.Params...))
		tr := &kfac.Trainer{Net: d.Net, Solver: kfac.NewSolverOf(t, d.Net, kfac.WithMinStatisticsCases(8))}
		tr.Run = func() error { vm.Reset(); return vm.RunAll() }
		twin, _ := trainerOf(t, build, p, true)
		tr.Steps(t, 10)
		twin.Steps(t, 10)
		testnet.Near(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params), 1e-9)
	}
}

// The slips that later checks find are found with Dropout too, where the gradient is the VM's.
func TestLaterSlipsWithDropout(t *testing.T) {
	for _, name := range []string{"nothing", "RunAll twice", "Step twice"} {
		s := laterSlips[name]
		tr, _ := trainerOf(t, droppers[float64]()["two layers"], 0.5, false)
		err := s.train(t, tr)
		if s.words == "" {
			testnet.Check(t, err)
			continue
		}
		if name == "RunAll twice" {
			refused(t, err, kfac.ErrGradient, "validation") // the masks differ, so that it is no multiple
		} else {
			refused(t, err, kfac.ErrGradient, s.words)
		}
	}
}

// Numbers of random nodes are shared, or drawn for all runs.
func TestRandomNodes(t *testing.T) {
	for _, spoil := range []bool{false, true} {
		s := testnet.NewSketch(5)
		n := &testnet.Net{Sketch: s, X: s.Random("x", 64, 4)}
		noise := gorgonia.GaussianRandomNode(s.Graph, tensor.Float64, 0, 0.3, 64, 8)
		h := testnet.Add(testnet.Tanh(n.Layer(n.X, 0, 4, 8, true, false)), noise)
		n.Ends(n.Layer(h, 1, 8, 3, true, false), testnet.SquaredError)
		tr := kfac.NewTrainer(t, n)
		first := 0.0
		for k := range 200 {
			testnet.Check(t, tr.Run())
			if spoil {
				noise.Value().(*tensor.Dense).Set(0, 5.0)
			}
			testnet.Check(t, tr.Solver.Step(tr.ValueGrads()))
			if k == 20 {
				first = tr.Solver.Stats().Damping
			}
		}
		if last := tr.Solver.Stats().Damping; !(last < 10*first) || math.IsNaN(last) {
			t.Errorf("spoilt %v: lambda goes from %g to %g", spoil, first, last)
		}
	}
}
