package kfac_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// numberOf is a number in T, as Let takes it.
func numberOf[T testnet.Float](v float64) any { return T(v) }

// A factor of the whole cost that a schedule changes makes no difference: loss scaling, annealing.
func TestFactorOfTheCost(t *testing.T) {
	t.Run("float32", func(t *testing.T) { testFactorOfTheCost[float32](t, 2e-3) })
	t.Run("float64", func(t *testing.T) { testFactorOfTheCost[float64](t, 1e-9) })
}

func testFactorOfTheCost[T testnet.Float](t *testing.T, tolerance float64) {
	for name, likelihood := range map[string]testnet.Likelihood{
		"classes": testnet.CrossEntropy, "binary": testnet.BinaryCrossEntropy, "squares": testnet.SquaredError,
	} {
		for _, cases := range []int{1, 24} {
			for _, chunks := range []int{1, 2} {
				t.Run(fmt.Sprint(name, cases, chunks), func(t *testing.T) {
					var factor *gorgonia.Node
					train := func(factors ...float64) []float64 {
						n := testnet.NewMLP[T](3, testnet.Shape{Cases: cases, Widths: []int{4, 6, 3}}, likelihood)
						factor = n.Scalar("factor", 1)
						n.Cost = testnet.Hadamard(n.Cost, factor)
						tr := kfac.NewTrainer(t, n)
						rng := rand.New(rand.NewPCG(3, 3))
						for k := range 2 * len(factors) {
							for c := range chunks {
								redraw(n.X, rng)
								testnet.Check(t, gorgonia.Let(factor, numberOf[T](factors[(k+c)%len(factors)])))
								testnet.Check(t, tr.Run())
								if c < chunks-1 {
									testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
								}
							}
							testnet.Check(t, tr.Solver.Step(tr.ValueGrads()))
						}
						return testnet.Weights(n.Params)
					}
					plain := train(1, 1, 1, 1, 1)
					testnet.Near(t, "weights", train(1, 128, 0.5, 1.0/64, 4), plain, tolerance)
				})
			}
		}
	}
}

// twoParts is a model with two heads, of which the second counts with a weight that is an input.
func twoParts(t *testing.T, start float64) (*kfac.Trainer, *gorgonia.Node) {
	t.Helper()
	s := testnet.NewSketch(3)
	n := &testnet.Net{Sketch: s, X: s.Random("x", 24, 4)}
	h := testnet.Tanh(n.Layer(n.X, 0, 4, 8, true, false))
	y1, y2 := n.Layer(h, 1, 8, 2, true, false), n.Layer(h, 2, 8, 3, true, false)
	cost1 := testnet.Mean(testnet.Square(testnet.Sub(y1, s.Random("y1", 24, 2))))
	cost2, loss2 := testnet.CrossEntropy(s, y2)
	weight := s.Scalar("weight", start)
	n.Cost = testnet.Add(cost1, testnet.Hadamard(cost2, weight))
	n.Loss = testnet.Joint(testnet.Normal(y1), loss2)
	return kfac.NewTrainer(t, n), weight
}

// A weight that a schedule moves, from 0 on too, is that of each step: a step depends on the weight
// now, not on the one at which the solver started.
func TestWeightOfAPart(t *testing.T) {
	for _, start := range []float64{0, 1e-3, 1} {
		tr, weight := twoParts(t, start)
		plain, _ := twoParts(t, 10)
		first := 0.0
		for k := range 300 {
			testnet.Check(t, gorgonia.Let(weight, start+(10-start)*min(float64(k)/50, 1)))
			tr.Steps(t, 1)
			if cost := plain.Step(t); k == 0 {
				first = cost
			}
			if k > 60 {
				if a, b := tr.Solver.Stats().Scale, plain.Solver.Stats().Scale; a != b {
					t.Fatalf("start %g: the scale is %g, want %g", start, a, b)
				}
			}
		}
		if got := testnet.Numbers(tr.Cost.Value())[0]; !(got < first/50) {
			t.Errorf("start %g: the cost is %g, at the start, with the last weight, %g", start, got, first)
		}
	}
}

// A head whose weight is zero does not spoil the others; one that no weight can bring back is an
// error.
func TestPartOfWeightZero(t *testing.T) {
	tr, _ := twoParts(t, 0)
	before := testnet.Weights(tr.Params[4:])
	tr.Steps(t, 30)
	if after := testnet.Weights(tr.Params[4:]); testnet.Distance(after, before) > 1e-12 {
		t.Error("the weights of a head that does not count have moved")
	}
}

// stepsOf are two time steps of a model as outputs of their own, each with a mask of its cases.
func stepsOf(t *testing.T, masks ...[]float64) *kfac.Trainer {
	t.Helper()
	s := testnet.NewSketch(3)
	n := &testnet.Net{Sketch: s, X: s.Random("x", 12, 4)}
	h := testnet.Tanh(n.Layer(n.X, 0, 4, 6, true, false))
	var losses []testnet.Loss
	for i, mask := range masks {
		z := n.Layer(h, i+1, 6, 3, true, false)
		y := s.Leaf(fmt.Sprint("y", i), testnet.OneHots(s.Rng, 12, 3), 12, 3)
		logs := testnet.Sum(testnet.Hadamard(testnet.LogSoftMax(z), y), 1)
		term := testnet.Neg(testnet.Mean(testnet.Hadamard(logs, s.Leaf(fmt.Sprint("mask", i), mask, 12))))
		if n.Cost == nil {
			n.Cost = term
		} else {
			n.Cost = testnet.Add(n.Cost, term)
		}
		losses = append(losses, testnet.Categorical(z))
	}
	n.Loss = testnet.Joint(losses...)
	return kfac.NewTrainer(t, n)
}

// Where all cases of an output are padding, at the first step or later, it counts nowhere, and goes
// on when it has cases again.
func TestOutputOfPadding(t *testing.T) {
	ones := func() []float64 { return pattern(12, 1) }
	none := func() []float64 { return make([]float64, 12) }
	for name, at := range map[string]int{"at first": 0, "later": 3} {
		tr := stepsOf(t, ones(), ones())
		mask := tr.Input("mask1")
		for k := range 8 {
			rows := ones()
			if k == at {
				rows = none()
			}
			testnet.Check(t, gorgonia.Let(mask, testnet.Tensor(mask.Dtype(), rows, 12)))
			before := testnet.Weights(tr.Params[4:])
			tr.Steps(t, 1)
			moved := testnet.Distance(testnet.Weights(tr.Params[4:]), before) > 0
			if k == 0 && at == 0 && moved {
				t.Errorf("%s: the weights of an output that does not count have moved", name)
			}
			if k != at && !moved {
				t.Errorf("%s: an output that counts does not learn at step %d", name, k)
			}
		}
	}
}

// Weights of tasks that are learned train.
func TestLearnedWeights(t *testing.T) {
	s := testnet.NewSketch(3)
	n := &testnet.Net{Sketch: s, X: s.Random("x", 64, 4)}
	h := testnet.Tanh(n.Layer(n.X, 0, 4, 8, true, false))
	y1, y2 := n.Layer(h, 1, 8, 2, true, false), n.Layer(h, 2, 8, 3, true, false)
	cost1 := testnet.Mean(testnet.Square(testnet.Sub(y1, s.Random("y1", 64, 2))))
	cost2, loss2 := testnet.CrossEntropy(s, y2)
	s1, s2 := s.Scalar("s1", 0), s.Scalar("s2", 0)
	n.Params = append(n.Params, s1, s2)
	weighted := func(c, w *gorgonia.Node) *gorgonia.Node {
		return testnet.Add(testnet.Hadamard(gorgonia.Must(gorgonia.Exp(testnet.Neg(w))), c), w)
	}
	n.Cost = testnet.Add(weighted(cost1, s1), weighted(cost2, s2))
	n.Loss = testnet.Joint(testnet.Normal(y1), loss2)
	tr := kfac.NewTrainer(t, n)
	first := tr.Step(t)
	tr.Steps(t, 200)
	if last := tr.Step(t); !(last < first-0.5) {
		t.Errorf("the cost goes from %g to %g", first, last)
	}
}

// Costs that are no multiple of the likelihood are refused, whatever the batch.
func TestNoMultiple(t *testing.T) {
	t.Run("float32", testNoMultiple[float32])
	t.Run("float64", testNoMultiple[float64])
}

func testNoMultiple[T testnet.Float](t *testing.T) {
	for name, of := range map[string]func(*gorgonia.Node) (*gorgonia.Node, error){
		"root": gorgonia.Sqrt, "logarithm": gorgonia.Log,
	} {
		for _, cases := range []int{4, 64, 3000} {
			t.Run(fmt.Sprint(name, cases), func(t *testing.T) {
				n := testnet.NewMLP[T](3, testnet.Shape{Cases: cases, Widths: []int{4, 6, 3}}, testnet.SquaredError)
				n.Cost = gorgonia.Must(of(n.Cost))
				tr := kfac.NewTrainer(t, n)
				err := error(nil)
				for k := 0; k < 10 && err == nil; k++ {
					testnet.Check(t, tr.Run())
					err = tr.Solver.Step(tr.ValueGrads())
				}
				refused(t, err, kfac.ErrLoss, "root")
			})
		}
	}
}

// Targets that are not scaled in later batches are an error, in words that say so.
func TestLaterTargets(t *testing.T) {
	n := testnet.NewMLP[float64](3, testnet.Shape{Cases: 24, Widths: []int{4, 6, 3}}, testnet.BinaryCrossEntropy)
	tr := kfac.NewTrainer(t, n)
	tr.Steps(t, 10)
	y := testnet.Data(n.Y)
	for i := range y {
		y[i] *= 255
	}
	err := error(nil)
	for k := 0; k < 100 && err == nil; k++ {
		testnet.Check(t, tr.Run())
		err = tr.Solver.Step(tr.ValueGrads())
	}
	refused(t, err, kfac.ErrLoss, "targets", "[0, 1]")
}

// A step that fails after the weight has moved leaves the scale as it was, and measures it again.
func TestFailedStepMeasuresAgain(t *testing.T) {
	tr, weight := twoParts(t, 1)
	twin, twinWeight := twoParts(t, 1)
	tr.Steps(t, 5)
	twin.Steps(t, 5)
	testnet.Check(t, gorgonia.Let(weight, 5.0))
	testnet.Check(t, gorgonia.Let(twinWeight, 5.0))
	testnet.Check(t, tr.Run())
	g, err := tr.Params[0].Grad()
	testnet.Check(t, err)
	g.(*tensor.Dense).Set(0, 1e300)
	if err := tr.Solver.Step(tr.ValueGrads()); err == nil {
		t.Fatal("no error")
	}
	testnet.ZeroGradients(tr.Params)
	tr.Steps(t, 6)
	twin.Steps(t, 6)
	testnet.SameBits(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params))
}
