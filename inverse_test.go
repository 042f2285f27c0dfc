package kfac

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A factor that can't be factorised is an error in the words of the user's model: it names the
// layer by its weight, tells which factor it is, how large and how much damped, and what helps.
// What is current stays, and the next attempt does without a raised damping.
func TestFactorNotPositiveDefinite(t *testing.T) {
	for name, bad := range map[string][]float64{
		"indefinite": {1, 0, 0, 0, 2, 0, 0, 0, -1},
		"NaN":        {1, 0, 0, 0, math.NaN(), 0, 0, 0, 1},
	} {
		c := attach(t, testnet.MLP{Widths: []int{4, 3, 2}, Cases: 7, NoBias: true, Loss: testnet.Squares(1)}.Build(8))
		gradients(t, c)
		second := layerNamed(t, c, "w1")
		avg := exactAverages(t, c, nil)
		directions(t, c, avg, 0.1).keep(c.plan.blocks)
		before := slices.Clone(second.u())

		spoiled := exactAverages(t, c, nil)
		a, g := second.factors(spoiled)
		copy(a, bad)
		first, _ := tikhonov(1e-9).Split(mat.Trace(square(a)), 3, mat.Trace(square(g)), 2)
		_, err := invert(c.plan.blocks, spoiled, 1e-9, 0)
		var layer *LayerError
		if !errors.Is(err, ErrNotPosDef) || !errors.As(err, &layer) {
			t.Errorf("%s: error %v, want a LayerError that wraps ErrNotPosDef", name, err)
			continue
		}
		if layer.Layer != "w1" || layer.Op != "Cholesky factorisation of A" || layer.Dim != 3 ||
			math.Abs(layer.Damping/first-1e6) > 1e-6 {
			t.Errorf("%s: error %#v, want damping %g", name, layer, 1e6*first)
		}
		says, hint := `kfac: layer "w1": Cholesky factorisation of A (3 x 3, damping `, "raise WithDamping, or look for"
		if s := err.Error(); !strings.HasPrefix(s, says) || !strings.Contains(s, hint) {
			t.Errorf("%s: error %q", name, s)
		}
		none := newInverses[float64](len(c.plan.blocks))
		clear(second.u())
		testnet.Check(t, new(distributed[float64]).direct(none, c.plan.blocks, c.plan.order, c.low))
		if !slices.Equal(before, second.u()) {
			t.Errorf("%s: the current inverse has changed", name)
		}
		directions(t, c, avg, 0.1)
		if !slices.Equal(before, second.u()) {
			t.Errorf("%s: the next inverse is another", name)
		}
	}
}

// Factors whose damping had to be raised are counted over all blocks.
func TestRaisedDampingsAreCounted(t *testing.T) {
	c := attach(t, testnet.MLP{Widths: []int{4, 3, 2}, Cases: 7, NoBias: true, Loss: testnet.Squares(1)}.Build(8))
	avg := exactAverages(t, c, nil)
	for want, weight := range []string{"", "w0", "w1"} {
		if weight != "" {
			_, g := layerNamed(t, c, weight).factors(avg)
			clear(g)
			g[0], g[len(g)-1] = 1, -1e-7
		}
		made, err := invert(c.plan.blocks, avg, 1e-8, 0)
		testnet.Check(t, err)
		if made.raised != want {
			t.Errorf("the damping of %d factors was raised, want %d", made.raised, want)
		}
	}
}

// One linear layer with least squares: without damping one full step lands on the optimum.
func TestUndampedStepSolvesLeastSquares(t *testing.T) {
	for _, m := range []testnet.MLP{
		{Widths: []int{4, 3}, Cases: 9, Loss: testnet.Squares(1)},
		{Widths: []int{4, 3}, Cases: 9, Loss: testnet.Squares(0.2), OutByIn: true},
		{Widths: []int{3, 4}, Cases: 9, Loss: testnet.Squares(1), NoBias: true},
	} {
		n := m.Build(10)
		c := attach(t, n)
		gradients(t, c)
		directions(t, c, exactAverages(t, c, nil), 0)

		in, out := m.Widths[0], m.Widths[1]
		x := mat.NewDense(9, in, testnet.Data(n.X))
		if !m.NoBias {
			var wide mat.Dense
			wide.Augment(x, mat.NewDense(9, 1, []float64{1, 1, 1, 1, 1, 1, 1, 1, 1}))
			x = &wide
		}
		var optimum mat.Dense
		testnet.Check(t, optimum.Solve(x, mat.NewDense(9, out, testnet.Data(n.Input("y")))))
		var weights []float64
		for _, p := range c.plan.order {
			after := slices.Clone(testnet.Data(p.src))
			floats.Sub(after, p.direction)
			if m.OutByIn && len(weights) == 0 {
				after = flatOf(mat.NewDense(out, in, after).T())
			}
			weights = append(weights, after...)
		}
		testnet.Near(t, fmt.Sprintf("%+v", m.Widths), weights, flatOf(&optimum), identity)
	}
}

// Inverses are computed as often as they cost little: (n^3 + m^3) operations for each layer, of 6 B
// n m in an iteration.
func TestInversePeriod(t *testing.T) {
	for name, test := range map[string]struct {
		widths []int
		cases  int
		opts   []Option
		want   int
	}{
		"a small net":       {[]int{4, 3, 2}, 5, nil, 1},
		"a wide layer":      {[]int{149, 50}, 1000, nil, 2}, // 3.5e6 of 4.5e7 operations
		"the same, 1 case":  {[]int{149, 50}, 1, nil, 20},
		"tridiagonal":       {[]int{49, 50, 50}, 5000, []Option{WithBlockTridiagonal()}, 2}, // 5e5 x 20 of 1.5e8
		"EKFAC":             {[]int{49, 50, 50}, 5000, []Option{WithEKFAC()}, 2},
		"diagonal":          {[]int{149, 50}, 1, []Option{WithMaxDim(40)}, 1},
		"given":             {[]int{4, 3}, 5, []Option{WithInverseUpdatePeriod(7)}, 7},
		"in the background": {[]int{4, 3}, 5, []Option{WithBackgroundInverses(20)}, 20},
		"by the paper":      {[]int{4, 3}, 5, []Option{WithPaperRules()}, 20},
	} {
		c := attach(t, testnet.MLP{Widths: test.widths, Cases: test.cases, Unit: gorgonia.Tanh,
			Loss: testnet.Squares(1)}.Build(1), test.opts...)
		if got := inversePeriod(&c.cfg, c.plan); got != test.want {
			t.Errorf("%s: every %d steps, want %d", name, got, test.want)
		}
	}
	// To look up 60 words in each of 20 cases is no work; the product with one-hot rows is 2.2e7
	// operations. The inverses are 5.9e6.
	for oneHot, want := range map[bool]int{false: 20, true: 7} {
		c := attach(t, testnet.Text(1, 1000, 20, testnet.WordsOf(1200, 1000), oneHot, testnet.Squares(1)))
		if got := inversePeriod(&c.cfg, c.plan); got != want {
			t.Errorf("words, as a product %t: every %d steps, want %d", oneHot, got, want)
		}
	}
	l := NewTrainer(t, testnet.MLP{Widths: []int{30, 30}, Cases: 20, Loss: testnet.Squares(1)}.Build(2),
		WithInverseUpdatePeriod(4))
	for k := 1; k <= 12; k++ {
		l.Steps(t, 1)
		if got, want := l.Solver.Stats().InverseUpdated, k <= 3 || k%4 == 0 || k == 5 || k == 10; got != want {
			t.Errorf("step %d: inverses updated: %t, want %t", k, got, want)
		}
	}
}
