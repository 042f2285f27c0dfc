package kfac

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// kindsOf are the kinds of warnings, with the parameters that they are about.
func kindsOf(warnings []Warning) (kinds []string) {
	for _, w := range warnings {
		kinds = append(kinds, strings.TrimSpace(string(w.Kind)+" "+w.Param))
	}
	slices.Sort(kinds)
	return kinds
}

// rectifiers is a net of two layers and rectifiers.
func rectifiers() *testnet.Net {
	return testnet.MLP{Widths: []int{3, 4, 2}, Cases: 20, Unit: testnet.Rectifier, Loss: testnet.SquaredError}.Build(3)
}

// newCases gives a net other inputs, at a distance from zero.
func newCases(n *testnet.Net, distance float64) {
	for i, x := range n.Normals(len(testnet.Data(n.X))) {
		testnet.Data(n.X)[i] = distance + x
	}
}

// What is likely wrong is said once, at the step from which on it has lasted; what is right is not.
func TestWarnings(t *testing.T) {
	const far = 300
	fill := func(n *testnet.Net, name string, v float64) {
		for i := range testnet.Data(n.Input(name)) {
			testnet.Data(n.Input(name))[i] = v
		}
	}
	byRate, byLambda := []Option{WithLearningRate(0.1)}, []Option{WithDamping(1)}
	creeping := []Option{WithLearningRate(1e-9)}
	tight := WithNormConstraint(1e-12)
	away := func(tr *Trainer) { newCases(tr.Net, far) }
	empty := func(tr *Trainer) { fill(tr.Net, "x", 0) }
	for name, c := range map[string]struct {
		opts  []Option
		spoil func(n *testnet.Net)
		next  func(tr *Trainer)
		want  []string
		step  int
	}{
		"nothing":       {},
		"nothing, rate": {opts: byRate},
		"rectifiers that are off": {spoil: func(n *testnet.Net) { fill(n, "b0", -1e4) }, step: 20,
			want: []string{"no gradients w0", "no inputs w1"}},
		"no inputs":              {next: empty, step: 20, want: []string{"no inputs w0"}},
		"offset, standardised":   {next: away},
		"offset, by rate":        {opts: creeping, next: away, step: 1, want: []string{"offset inputs w0"}},
		"offset, by a lambda":    {opts: byLambda, next: away, step: 1, want: []string{"offset inputs w0"}},
		"a small constraint":     {opts: []Option{tight}, step: 20, want: []string{"vanishing steps"}},
		"constraint, by rate":    {opts: append(byRate, tight), step: 20, want: []string{"vanishing steps"}},
		"lambda at the highest":  {next: lambdaTo(1e30), step: 21, want: []string{"lambda at a bound"}},
		"lambda at the lowest":   {next: lambdaTo(1e-300), step: 21, want: []string{"lambda at a bound"}},
		"a lambda that is given": {opts: byLambda, next: lambdaTo(1e-12)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := rectifiers()
			if c.spoil != nil {
				c.spoil(n)
			}
			var all kept
			tr := NewTrainer(t, n, append(slices.Clone(c.opts), WithRecorder(&all), WithMinStatisticsCases(20))...)
			for range 45 {
				newCases(n, 0)
				if c.next != nil {
					c.next(tr)
				}
				tr.Steps(t, 1)
			}
			warnings := tr.Solver.Warnings()
			if got := kindsOf(warnings); !slices.Equal(got, c.want) {
				t.Fatalf("warnings %q, want %q", got, c.want)
			}
			for _, w := range warnings {
				if w.Step != c.step || strings.Contains(w.What, "%!") || w.What == "" {
					t.Errorf("step %d, want %d: %v", w.Step, c.step, w)
				}
			}
			for k, s := range all {
				if told := len(s.Warnings) > 0; told != (len(c.want) > 0 && k+1 == c.step) {
					t.Errorf("step %d tells %v", k+1, s.Warnings)
				}
			}
		})
	}
}

// lambdaTo sets lambda, once there is one.
func lambdaTo(lambda float64) func(*Trainer) {
	return func(tr *Trainer) {
		if tr.Solver.Stats().Step > 0 {
			tr.Solver.Set(Damping, lambda)
		}
	}
}

// A sign that goes away in between counts anew, chunks count, and a step that fails does not.
func TestSignsInARow(t *testing.T) {
	n := rectifiers()
	tr := NewTrainer(t, n, WithMinStatisticsCases(20))
	zero := func(is bool) {
		newCases(n, 0)
		if is {
			clear(testnet.Data(n.X))
		}
	}
	for k := range 30 {
		zero(k != 15)
		tr.Steps(t, 1)
	}
	if w := tr.Solver.Warnings(); len(w) > 0 {
		t.Fatal(w)
	}
	for range 2 { // 14 steps in a row so far; 18 with these, whose failures do not count
		for range 2 {
			zero(true)
			bad := setFirst(n, math.NaN())
			testnet.Check(t, tr.Run())
			if err := tr.Solver.Step(tr.ValueGrads()); err == nil {
				t.Fatal("no error")
			}
			bad()
			ZeroGradients(tr.ValueGrads())
		}
		zero(true)
		testnet.Check(t, tr.Run())
		testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
		zero(true)
		tr.Steps(t, 1)
	}
	if w := tr.Solver.Warnings(); len(w) > 0 {
		t.Fatal(w)
	}
	zero(true)
	testnet.Check(t, tr.Run())
	testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
	zero(true)
	tr.Steps(t, 1)
	if got := kindsOf(tr.Solver.Warnings()); !slices.Equal(got, []string{"no inputs w0"}) {
		t.Errorf("%q", got)
	}
}

// offset is the mean over the spread, whatever the unit and the number of columns.
func TestOffset(t *testing.T) {
	n := testnet.NewSketch(4)
	for _, unit := range []float64{1, 1e-9, 1e12} {
		x := n.Normals(3 * 4000)
		for i := range x {
			x[i] = unit * (x[i] + 50)
		}
		if got := offset(x, 3); !(math.Abs(got-50) < 1) {
			t.Errorf("unit %g: %g, want 50", unit, got)
		}
	}
	same := slices.Repeat([]float64{1, 2}, 40)
	if got := offset(same, 2); got != 0 {
		t.Errorf("of rows that are the same: %g", got)
	}
	if got := offset([]float32{100, 101, 100}, 1); got != 0 {
		t.Errorf("of few rows: %g", got)
	}
}

// A nil solver has no warnings, and those returned are the caller's.
func TestWarningsAreTheCallers(t *testing.T) {
	var none *Solver
	if none.Warnings() != nil {
		t.Error("a nil solver has warnings")
	}
	tr := NewTrainer(t, statsNet(), WithRecorder(recorderOf(func(Stats) error { return ErrShape })))
	tr.Steps(t, 1)
	tr.Solver.Warnings()[0].What = "other"
	if tr.Solver.Warnings()[0].What == "other" {
		t.Error("changed")
	}
}
