package kfac_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// redraw fills an input with other numbers, and returns those that it held.
func redraw(n *gorgonia.Node, rng *rand.Rand) (before []float64) {
	d := n.Value().(*tensor.Dense)
	testnet.EachElement(d, func(at, _ int) {
		switch v := d.Get(at).(type) {
		case float32:
			before = append(before, float64(v))
			d.Set(at, float32(rng.NormFloat64()))
		case float64:
			before = append(before, v)
			d.Set(at, rng.NormFloat64())
		}
	})
	return before
}

// laterNets are models of several kinds in T.
func laterNets[T testnet.Float]() map[string]func() *testnet.Net {
	mlp := func(cases int, l testnet.Likelihood) func() *testnet.Net {
		return func() *testnet.Net {
			return testnet.NewMLP[T](3, testnet.Shape{Cases: cases, Widths: []int{4, 6, 3}}, l)
		}
	}
	return map[string]func() *testnet.Net{
		"classes":       mlp(24, testnet.CrossEntropy),
		"binary":        mlp(24, testnet.BinaryCrossEntropy),
		"squares":       mlp(24, testnet.SquaredError),
		"one case":      mlp(1, testnet.SquaredError),
		"teacher":       func() *testnet.Net { return testnet.Teacher[T]([]int{4, 6, 2}, 30) },
		"vectors":       testnet.ScaledOutputs[T],
		"a large batch": mlp(600, testnet.CrossEntropy),
	}
}

// A laterSlip is made from the twelfth step on, before or after RunAll.
type laterSlip struct {
	before, after func(tr *kfac.Trainer, rng *rand.Rand) error
	words         string
}

func runAgain(tr *kfac.Trainer, _ *rand.Rand) error { return tr.Run() }

func nextBatch(tr *kfac.Trainer, rng *rand.Rand) error { redraw(tr.X, rng); return nil }

func stepTwice(tr *kfac.Trainer, _ *rand.Rand) error { return tr.Solver.Step(tr.ValueGrads()) }

// validate runs another batch and puts the first one back.
func validate(tr *kfac.Trainer, rng *rand.Rand) error {
	held := redraw(tr.X, rng)
	defer fill(tr.X, held)
	return tr.Run()
}

// validateLast runs another batch and leaves it there.
func validateLast(tr *kfac.Trainer, rng *rand.Rand) error { redraw(tr.X, rng); return tr.Run() }

var laterSlips = map[string]laterSlip{
	"nothing":                           {},
	"RunAll twice":                      {before: runAgain, words: "the sum of 2 RunAlls"},
	"a validation before":               {before: validate, words: "validation"},
	"a validation after":                {after: validateLast, words: "validation"},
	"the next batch put in before Step": {after: nextBatch, words: "the next batch is put in before Step"},
	"Step twice":                        {after: stepTwice, words: "RunAll called since the last Step"},
}

// A slip is an error by the hundredth step, in words that name it.
func TestLaterSlips(t *testing.T) {
	t.Run("float32", testLaterSlips[float32])
	t.Run("float64", testLaterSlips[float64])
}

func testLaterSlips[T testnet.Float](t *testing.T) {
	for name, s := range laterSlips {
		for model, build := range laterNets[T]() {
			t.Run(name+"/"+model, func(t *testing.T) {
				t.Parallel()
				err := s.train(t, kfac.NewTrainer(t, build()))
				if s.words == "" {
					testnet.Check(t, err)
					return
				}
				refused(t, err, kfac.ErrGradient, s.words)
			})
		}
	}
}

// train makes 104 steps at most, each from a batch of its own.
func (s laterSlip) train(t *testing.T, tr *kfac.Trainer) (err error) {
	rng := rand.New(rand.NewPCG(1, 1))
	for k := 1; k <= 104 && err == nil; k++ {
		late := k >= 12
		redraw(tr.X, rng)
		if late && s.before != nil {
			testnet.Check(t, s.before(tr, rng))
		}
		testnet.Check(t, tr.Run())
		if late && s.after != nil {
			err = s.after(tr, rng)
		}
		if err == nil {
			err = tr.Solver.Step(tr.ValueGrads())
		}
	}
	return err
}

// fill writes numbers into an input.
func fill(n *gorgonia.Node, data []float64) {
	d := n.Value().(*tensor.Dense)
	testnet.EachElement(d, func(at, i int) {
		if d.Dtype() == tensor.Float32 {
			d.Set(at, float32(data[i]))
		} else {
			d.Set(at, data[i])
		}
	})
}

// Where training has converged, gradients are rounding. That is no error, for thousands of steps.
func TestNoFalseAlarm(t *testing.T) {
	t.Run("float32", testNoFalseAlarm[float32])
	t.Run("float64", testNoFalseAlarm[float64])
}

func testNoFalseAlarm[T testnet.Float](t *testing.T) {
	nets := laterNets[T]()
	delete(nets, "a large batch")
	nets["far targets"] = func() *testnet.Net {
		n := testnet.NewMLP[T](3, testnet.Shape{Cases: 12, Widths: []int{4, 20, 3}}, testnet.SquaredError)
		far := make([]float64, 36)
		for i := range far {
			far[i] = 1e4 + 3*n.Rng.NormFloat64()
		}
		fill(n.Y, far)
		return n
	}
	nets["many classes"] = func() *testnet.Net {
		return testnet.NewMLP[T](3, testnet.Shape{Cases: 6, Widths: []int{4, 10, 300}}, testnet.CrossEntropy)
	}
	for model, build := range nets {
		t.Run(model, func(t *testing.T) {
			t.Parallel()
			steps := 2100
			if model == "many classes" || testing.Short() {
				steps = 300
			}
			kfac.NewTrainer(t, build()).Steps(t, steps)
		})
	}
}

// The same of other layers.
func TestNoFalseAlarmOfLayers(t *testing.T) {
	for model, net := range map[string]*testnet.Net{
		"convolution": testnet.Convolution(6),
		"columns":     testnet.Columns(5),
		"sequence":    testnet.Sequence(4, testnet.Rectifier),
		"tied":        testnet.TiedLayers(4),
		"lookup":      testnet.Lookup(9, false, []int{1, 2, 3, 1, 8}),
		"recurrent":   testnet.Recurrent(1, 3, false),
		"images":      testnet.Images(1, true, false),
		"offsets":     testnet.Offsets(),
		"other terms": testnet.WordsAndOthers(5, true),
		"two heads":   testnet.NewMLP[float64](3, testnet.Shape{Cases: 12, Widths: []int{4, 20, 3}}, testnet.TwoHeads),
		"two losses":  testnet.NewMLP[float32](3, testnet.Shape{Cases: 12, Widths: []int{4, 20, 3}}, testnet.TwoLosses),
	} {
		t.Run(model, func(t *testing.T) {
			t.Parallel()
			kfac.NewTrainer(t, net).Steps(t, 520)
		})
	}
}

// The VM's softmax goes wrong without a NaN, too: outputs that grow get there before they get to a
// NaN. The sixteenth gradient is one of those that are checked.
func TestSoftmaxThatIsWrongAndFinite(t *testing.T) {
	err := error(nil)
	for factor := 1.0; factor < 100 && err == nil; factor *= 1.02 {
		net := testnet.NewMLP[float32](3, testnet.Shape{Cases: 12, Widths: []int{4, 20, 3}}, testnet.TwoHeads)
		tr := kfac.NewTrainer(t, net)
		tr.Steps(t, 15)
		for _, p := range net.Params[2:] {
			v := testnet.Numbers(p.Value())
			floats.Scale(factor, v)
			fill(p, v)
		}
		testnet.Check(t, tr.Run())
		err = tr.Solver.Step(tr.ValueGrads())
	}
	refused(t, err, kfac.ErrGradient, "LogSoftMax are wrong")
}

// A cost that is NaN by the VM's fault is an error at that step, with the cause, though the
// gradient is finite.
func TestCostThatTheVMSpoils(t *testing.T) {
	t.Run("float32", func(t *testing.T) { testCostThatTheVMSpoils[float32](t, 150) })
	t.Run("float64", func(t *testing.T) { testCostThatTheVMSpoils[float64](t, 1500) })
}

func testCostThatTheVMSpoils[T testnet.Float](t *testing.T, logit float64) {
	for _, spoilt := range []int{1, 4, 8} {
		n := testnet.NewSketchOf[T](5, 5)
		net := &testnet.Net{Sketch: n, X: n.Leaf("x", testnet.Normals(n.Rng, 12, 0.1), 4, 3)}
		net.Ends(net.Weighted(net.X, "w", 3, 3), testnet.CrossEntropy)
		tr := kfac.NewTrainer(t, net)
		tr.Steps(t, spoilt-1)
		// Rows that differ by more than the type's range of exponents: the others' maximum starts
		// from the first element of all.
		fill(net.Params[0], []float64{logit, 0, 0, 0, logit, 0, 0, 0, logit})
		fill(net.X, []float64{-1, 0, -1, 0, 1, 1, 1, 0, 0, 0, 0, 1})
		testnet.Check(t, tr.Run())
		if c := testnet.Numbers(net.Cost.Value())[0]; !math.IsNaN(c - c) {
			t.Fatalf("the VM's cost is %g: nothing is tested", c)
		}
		refused(t, tr.Solver.Step(tr.ValueGrads()), kfac.ErrNotFinite, "the VM is at fault", "SoftMax")
	}
}
