package kfac

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// lowRankStep takes in a RunAll as a step does, with the low-rank form for every block that can
// have it, and inverts. It returns these blocks, and whether Gorgonia's gradients are right.
func lowRankStep(t *testing.T, l *Trainer) (chosen []placedLayer, made *inverses[float64], right bool) {
	t.Helper()
	testnet.Check(t, l.Run())
	c := trainingOf(l)
	var times PhaseTimes
	var watch stopwatch
	last, err := c.take(l.ValueGrads(), &times, &watch)
	testnet.Check(t, err)
	right = checkGradients(c.graph, c.plan, nil, c.cfg.seed) == nil
	for _, p := range placedLayers(c) { // whether it pays or not
		if saved, positions := savings(p); saved != 0 && positions > 0 && c.plan.unreduced[p.block] {
			c.low.chosen = append(c.low.chosen, p.block)
			c.low.hooks = append(c.low.hooks, c.plan.hooks[p.index].(*layerHook[float64]))
			chosen = append(chosen, p)
		}
	}
	testnet.Check(t, c.low.sweep(c.graph, c.plan))
	c.objectiveGradient(batch[float64]{last}, last.cases)
	avg, err := newAverages(c.plan.blocks, c.cfg.ema, true)
	testnet.Check(t, err)
	c.low.match(c.cfg.seed, c.steps)
	made, err = invert(c.plan.blocks, avg, 0.3, 0)
	testnet.Check(t, err)
	return chosen, made, right
}

// savings are those of the low-rank form, which are negative where it does not pay.
func savings(p placedLayer) (saved, positions int) {
	if k, ok := p.block.Block.(*curvature.Kronecker[float64]); ok {
		return k.LowRankSavings()
	}
	return 0, 0
}

// checkLowRank demands that V is Abar^T E, and that both ways to apply the inverses give the same
// U.
func checkLowRank(t *testing.T, name string, c *training[float64], p placedLayer, made *inverses[float64]) {
	t.Helper()
	form := c.low.of[p.block]
	if form == nil {
		t.Errorf("%s, %s: the gradient is not the product of inputs and errors", name, p.Name())
		return
	}
	p.block.apply(made.of[p.index], form)
	got := slices.Clone(p.u())
	p.block.apply(made.of[p.index], nil)
	want := p.u()
	if diff := floats.Distance(got, want, 2); diff > 1e-9*floats.Norm(want, 2) {
		t.Errorf("%s, %s: low-rank form is off by %v of %v", name, p.Name(), diff, floats.Norm(want, 2))
	}
}

// However a layer is written, the inverses applied to inputs and errors give what they give applied
// to their product. Where Gorgonia's gradient is wrong, it is not taken for that product.
func TestLowRankForm(t *testing.T) {
	checked, wrong := map[string]bool{}, 0
	for _, w := range wirings {
		if w.noGrad {
			continue
		}
		l := NewTrainer(t, w.network(), WithoutGradientCheck(), WithWeightSharing(Expand))
		layers, made, right := lowRankStep(t, l)
		c := trainingOf(l)
		for _, p := range layers {
			if !right {
				wrong++
				if c.low.of[p.block] != nil {
					t.Errorf("%s: a wrong gradient was confirmed", w.name)
				}
				continue
			}
			checkLowRank(t, w.name, c, p, made)
			for _, site := range p.Sites {
				checked[fmt.Sprintf("out by in: %v, bias: %v, columns: %v, %v", p.OutByIn, p.Bias != nil,
					site.InputColumns, site.OutputColumns)] = true
			}
		}
	}
	if len(checked) < 8 || wrong == 0 {
		t.Errorf("only these forms of layers were met: %v, and %d wrong gradients", checked, wrong)
	}
}

// jointNet has two outputs, and a cost in a unit of its own. The layers are wide beside the batch.
func jointNet() *testnet.Net {
	s := testnet.NewSketch(2)
	n := &testnet.Net{Sketch: s, X: s.Random("x", 3, 6)}
	h := tanh(n.Layer(n.X, 0, 6, 8, true, false))
	first, second := n.Layer(h, 1, 8, 4, true, true), n.Layer(h, 2, 8, 5, false, false)
	costA, distA := testnet.Binary(s, first)
	costB, distB := testnet.Classes(s, second)
	seven := gorgonia.NewConstant(7.0)
	n.Cost, n.Loss = add(mul(costA, seven), mul(mul(costB, seven), gorgonia.NewConstant(0.5))),
		testnet.Joint(distA, distB)
	return n
}

// Several outputs, and costs in any unit.
func TestLowRankFormOfJoint(t *testing.T) {
	l := NewTrainer(t, jointNet())
	layers, made, right := lowRankStep(t, l)
	if len(layers) != 3 || !right {
		t.Fatalf("%d layers, want 3; gradients right: %v", len(layers), right)
	}
	for _, p := range layers {
		checkLowRank(t, "joint", trainingOf(l), p, made)
	}
}

// wideNet has layers that are wide beside the batch.
func wideNet(drop bool) *testnet.Net {
	s := testnet.NewSketch(3)
	n := &testnet.Net{Sketch: s, X: s.Random("x", 4, 20)}
	h := tanh(n.Layer(n.X, 0, 20, 30, true, false))
	if drop {
		h = gorgonia.Must(gorgonia.Dropout(h, 0.5))
	}
	n.Out = n.Layer(h, 1, 30, 25, true, true)
	n.Cost, n.Loss = testnet.Binary(s, n.Out)
	return n
}

// The low-rank form is chosen where it pays, and gives way where the gradient is not the product of
// what was run privately.
func TestLowRankChoice(t *testing.T) {
	decayed := func(n *testnet.Net) {
		square := testnet.Sum(testnet.Square(n.Params[0]))
		n.Cost = add(n.Cost, mul(square, gorgonia.NewConstant(1e-6)))
	}
	for _, test := range []struct {
		name   string
		change func(n *testnet.Net) // of the model
		before func(l *Trainer)     // between RunAll and Step
		opts   []Option
		drop   bool
		want   string // the layers that have it
	}{
		{name: "plain", want: "w0 w1"},
		{name: "a weight decay in the cost", change: decayed, want: "w1"},
		{name: "a clipped gradient", before: func(l *Trainer) { clip(userGradient(l.Params[2]), 1e-3) }, want: "w0"},
		{name: "a gradient that is a little longer", before: func(l *Trainer) {
			floats.Scale(1+1e-8, userGradient(l.Params[0]))
		}, want: "w1"},
		{name: "a frozen bias", before: func(l *Trainer) {
			l.Params = slices.Delete(slices.Clone(l.Params), 1, 2)
		}, want: "w1"},
		{name: "Dropout", drop: true},
		{name: "L2 of the solver's", opts: []Option{WithL2Reg(1e-3)}},
		{name: "statistics of a part", opts: []Option{WithStatisticsFraction(0.5), WithMinStatisticsCases(1)}},
		{name: "block-tridiagonal", opts: []Option{WithBlockTridiagonal()}},
	} {
		n := wideNet(test.drop)
		if test.change != nil {
			test.change(n)
		}
		l := NewTrainer(t, n, append(test.opts, WithoutGradientCheck())...)
		l.Steps(t, 1)
		testnet.Check(t, l.Run())
		if test.before != nil {
			test.before(l)
		}
		testnet.Check(t, l.Solver.Step(l.ValueGrads()))
		got := ""
		for _, b := range trainingOf(l).low.chosen {
			if trainingOf(l).low.of[b] != nil {
				got += " " + b.groups[0].params[0].name
			}
		}
		if want := test.want; got != "" && got[1:] != want || got == "" && want != "" {
			t.Errorf("%s: low-rank form of%s, want %s", test.name, got, want)
		}
	}
}

// A gradient whose square overflows is no product of inputs and errors, and is refused, whichever
// layer has it and whatever finds the step.
func TestGradientTooLargeForItsSquare(t *testing.T) {
	for name, opts := range map[string][]Option{
		"learning rate": {WithLearningRate(0.1)},
		"model":         nil,
		"paper's rules": {WithPaperRules()},
	} {
		for k := range 4 {
			t.Run(fmt.Sprint(name, k), func(t *testing.T) {
				l, twin := NewTrainer(t, wideNet(false), opts...), NewTrainer(t, wideNet(false), opts...)
				l.Steps(t, 5)
				twin.Steps(t, 5)
				if len(trainingOf(l).low.of) == 0 {
					t.Fatal("no gradient is taken in low rank: nothing is tested")
				}
				testnet.Check(t, l.Run())
				userGradient(l.Params[k])[1] = 1e200
				weights, gradients, stats := testnet.Weights(l.Params), testnet.Gradients(t, l.Params), l.Solver.Stats()
				err := l.Solver.Step(l.ValueGrads())
				var pe *ParamError
				if !errors.As(err, &pe) || !errors.Is(err, ErrNotFinite) || pe.Param != l.Params[k].Name() {
					t.Fatalf("error %v", err)
				}
				testnet.SameBits(t, "weights", testnet.Weights(l.Params), weights)
				testnet.SameBits(t, "gradients", testnet.Gradients(t, l.Params), gradients)
				if !SameStats(l.Solver.Stats(), stats) {
					t.Error("the failed call has changed Stats")
				}
				testnet.ZeroGradients(l.Params)
				l.Steps(t, 4)
				twin.Steps(t, 4)
				testnet.SameBits(t, "weights", testnet.Weights(l.Params), testnet.Weights(twin.Params))
			})
		}
	}
}

func userGradient(p *gorgonia.Node) []float64 {
	g, err := p.Grad()
	if err != nil {
		panic(err)
	}
	return g.Data().([]float64)
}

func clip(x []float64, limit float64) {
	for i, v := range x {
		x[i] = max(-limit, min(limit, v))
	}
}

// Chunks of an update are many small products, so they are added up first; the step after has the
// low-rank form again.
func TestLowRankFormAndChunks(t *testing.T) {
	l := NewTrainer(t, wideNet(false))
	for _, chunks := range []int{1, 2, 1} {
		for range chunks - 1 {
			testnet.Check(t, l.Run())
			testnet.Check(t, l.Solver.Accumulate(l.ValueGrads()))
		}
		l.Steps(t, 1)
		if got := len(trainingOf(l).low.chosen); got != map[int]int{1: 2, 2: 0}[chunks] {
			t.Errorf("%d chunks: %d blocks have the low-rank form", chunks, got)
		}
	}
}
