package kfac

import (
	"fmt"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"
)

// lowRankStep takes in a RunAll as step does, up to preconditioning, with the low-rank form for every block that can have it, and returns these blocks, and whether
// Gorgonia's gradients are right.
func lowRankStep(t *testing.T, l *loop) (blocks []*kroneckerBlock[float64], right bool) {
	t.Helper()
	check(t, l.run())
	c := l.conductor()
	var st Stats
	last, err := c.takeIn(&st, l.valueGrads(), &stopwatch{})
	check(t, err)
	for _, b := range c.blocks {
		if k, ok := b.(*kroneckerBlock[float64]); ok && k.factored() {
			c.lowRank = append(c.lowRank, k)
		}
	}
	check(t, c.takeErrors())
	right = c.checkGradients() == nil
	summarise(&st, []chunk[float64]{last})
	c.objectiveGradient(st.Cases)
	for _, b := range c.blocks {
		check(t, b.average(c.cfg.ema, true))
	}
	c.confirmErrors()
	_, err = c.invert(0.3)
	check(t, err)
	return c.lowRank, right
}

// checkLowRank demands that V is Abar^T E, and that both ways to apply the inverses give the same U.
func checkLowRank(t *testing.T, name string, b *kroneckerBlock[float64]) {
	t.Helper()
	if !b.low.holds {
		t.Errorf("%s, %s: the gradient is not the product of inputs and errors", name, b.layer.Name())
		return
	}
	b.precondition(0.3, true)
	got := slices.Clone(b.dir)
	b.low.holds = false
	b.precondition(0.3, true)
	if diff := floats.Distance(got, b.dir, 2); diff > 1e-9*floats.Norm(b.dir, 2) {
		t.Errorf("%s, %s: low-rank form is off by %v of %v", name, b.layer.Name(), diff, floats.Norm(b.dir, 2))
	}
}

// However a layer is written, the inverses applied to inputs and errors give what they give applied to their product. Where Gorgonia's gradient is wrong, it is not taken
// for that product.
func TestLowRankForm(t *testing.T) {
	checked, wrong := map[string]bool{}, 0
	for _, w := range wirings {
		if w.noGrad {
			continue
		}
		blocks, right := lowRankStep(t, newLoop(t, w.network(), WithoutGradientCheck(), WithWeightSharing(Expand)))
		for _, b := range blocks {
			if !right {
				wrong++
				if b.low.holds {
					t.Errorf("%s: a wrong gradient was confirmed", w.name)
				}
				continue
			}
			checkLowRank(t, w.name, b)
			for _, site := range b.layer.Sites {
				checked[fmt.Sprintf("out by in: %v, bias: %v, columns: %v, %v", b.layer.OutByIn, b.layer.Bias != nil, site.InputColumns, site.OutputColumns)] = true
			}
		}
	}
	if len(checked) < 8 || wrong == 0 {
		t.Errorf("only these forms of layers were met: %v, and %d wrong gradients", checked, wrong)
	}
}

// Several outputs, and costs in any unit.
func TestLowRankFormOfJoint(t *testing.T) {
	s := newSketch(2)
	n := &network{sketch: s, x: s.random("x", 3, 6)}
	h := tanh(n.layer(n.x, 0, 6, 8, true, false))
	first, second := n.layer(h, 1, 8, 4, true, true), n.layer(h, 2, 8, 5, false, false)
	costA, distA := binary(s, first)
	costB, distB := classes(s, second)
	seven := gorgonia.NewConstant(7.0)
	n.cost, n.dist = add(mul(costA, seven), mul(mul(costB, seven), gorgonia.NewConstant(0.5))), Joint(distA, distB)
	blocks, right := lowRankStep(t, newLoop(t, n))
	if len(blocks) != 3 || !right {
		t.Fatalf("%d blocks, want 3; gradients right: %v", len(blocks), right)
	}
	for _, b := range blocks {
		checkLowRank(t, "joint", b)
	}
}

// wideNet has layers that are wide beside the batch.
func wideNet(t *testing.T, drop bool) *network {
	t.Helper()
	s := newSketch(3)
	n := &network{sketch: s, x: s.random("x", 4, 20)}
	h := tanh(n.layer(n.x, 0, 20, 30, true, false))
	if drop {
		h = must(gorgonia.Dropout(h, 0.5))
	}
	n.out = n.layer(h, 1, 30, 25, true, true)
	n.cost, n.dist = binary(s, n.out)
	return n
}

// The low-rank form is chosen where it pays, and gives way where the gradient is not the product of what was run privately.
func TestLowRankChoice(t *testing.T) {
	decayed := func(n *network) {
		square := must(gorgonia.Sum(must(gorgonia.Square(n.params[0]))))
		n.cost = add(n.cost, mul(square, gorgonia.NewConstant(1e-6)))
	}
	for _, test := range []struct {
		name   string
		change func(n *network) // of the model
		before func(l *loop)    // between RunAll and Step
		opts   []Option
		drop   bool
		want   string // the layers that have it
	}{
		{name: "plain", want: "w0 w1"},
		{name: "a weight decay in the cost", change: decayed, want: "w1"},
		{name: "a clipped gradient", before: func(l *loop) { clip(userGradient(l.params[2]), 1e-3) }, want: "w0"},
		{name: "a gradient that is a little longer", before: func(l *loop) { floats.Scale(1+1e-8, userGradient(l.params[0])) }, want: "w1"},
		{name: "a frozen bias", before: func(l *loop) { l.params = slices.Delete(slices.Clone(l.params), 1, 2) }, want: "w1"},
		{name: "Dropout", drop: true},
		{name: "L2 of the solver's", opts: []Option{WithL2Reg(1e-3)}},
		{name: "statistics of a part", opts: []Option{WithStatisticsFraction(0.5), WithMinStatisticsCases(1)}},
		{name: "block-tridiagonal", opts: []Option{WithBlockTridiagonal()}},
	} {
		n := wideNet(t, test.drop)
		if test.change != nil {
			test.change(n)
		}
		l := newLoop(t, n, append(test.opts, WithoutGradientCheck())...)
		l.steps(t, 1)
		check(t, l.run())
		if test.before != nil {
			test.before(l)
		}
		check(t, l.solver.Step(l.valueGrads()))
		got := ""
		for _, b := range l.conductor().lowRank {
			if b.low.holds {
				got += " " + b.layer.Name()
			}
		}
		if want := test.want; got != "" && got[1:] != want || got == "" && want != "" {
			t.Errorf("%s: low-rank form of%s, want %s", test.name, got, want)
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

// Chunks of an update are many small products, so they are added up first; the step after has the low-rank form again.
func TestLowRankFormAndChunks(t *testing.T) {
	l := newLoop(t, wideNet(t, false))
	for _, chunks := range []int{1, 2, 1} {
		for range chunks - 1 {
			check(t, l.run())
			check(t, l.solver.Accumulate(l.valueGrads()))
		}
		l.steps(t, 1)
		if got := len(l.conductor().lowRank); got != map[int]int{1: 2, 2: 0}[chunks] {
			t.Errorf("%d chunks: %d blocks have the low-rank form", chunks, got)
		}
	}
}
