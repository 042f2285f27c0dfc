package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

const (
	// checkedRuns is the number of first RunAlls whose gradients are checked. The second shows what
	// one alone can't: a machine that was not Reset, and a LispMachine that goes wrong in its
	// second run of a graph.
	checkedRuns = 2
	// checkPeriod is how often they are checked later, at least. It is odd, so that a fault of
	// every second RunAll is met.
	checkPeriod = 101
)

// checksGradients reports whether the gradients of a RunAll are checked, after so many others:
// those of the first two, of every power of two and the next, and of every checkPeriod-th.
func checksGradients(runs int) bool {
	doubled := func(n int) bool { return n&(n-1) == 0 }
	return runs < checkedRuns || doubled(runs+1) || doubled(runs) || (runs+1)%checkPeriod == 0
}

// odd decides whether something that is odd at a RunAll has the gradients checked. It may have an
// innocent reason, such as rounding where training has converged. Then it counts again when there
// have been twice as many RunAlls.
type odd struct{ again int }

// at reports whether the gradients are to be checked after so many RunAlls.
func (o *odd) at(runs int, isOdd bool) bool {
	if !isOdd || runs < o.again {
		return false
	}
	o.again = 2 * runs
	return true
}

// otherCost reports whether the VM's cost differs from the solver's own by more than ten times the
// rounding error of a gradient, relative to its size. It does not if the VM did not keep its cost.
func otherCost[T program.Float](vm, own float64) bool {
	return math.Abs(vm-own) > 10*rounding[T]()*math.Max(math.Abs(vm), math.Abs(own))
}

// gradientsThere reports whether a parameter was given a gradient that is not zero. Where none was,
// Step may have been called again without a RunAll.
func gradientsThere[T program.Float](params []*parameter[T]) bool {
	return slices.ContainsFunc(params, func(p *parameter[T]) bool {
		return p.listed() && slices.ContainsFunc(p.grad, func(v T) bool { return v != 0 })
	})
}

// checkGradients compares the gradients given to Step with the private program's gradients of the
// cost. inputs are those of the run.
func checkGradients[T program.Float](g *graph[T], p *planned[T], inputs *program.Inputs[T], seed uint64) error {
	own, err := g.ownCost(inputs)
	if err != nil {
		return err
	}
	c := newComparison(g, p)
	if g.whole.CheckDifferentiable(c.path) != nil {
		return nil // only the VM can differentiate it
	}
	if err := c.compare(); err == nil || !errors.Is(err, ErrGradient) {
		return err
	}
	if err := c.findRounding(g, p.model.outputs, seed); err != nil {
		return err
	}
	err = c.compare()
	var wrong *GradientError
	if errors.As(err, &wrong) && wrong.Hint == "" {
		changed := inputsChanged[T](g.cost, own)
		for _, hint := range []string{softmaxFault(c.run), viewOfColumns(g.whole), changed, wrongVM} {
			if wrong.Hint == "" {
				wrong.Hint = hint
			}
		}
	}
	return err
}

// A comparison is that of the gradients given to Step with those of the private program's cost.
type comparison[T program.Float] struct {
	run    *program.Run[T] // of the cost, after its forward sweep
	leaves []*program.Node
	params []*parameter[T] // of the leaves
	path   program.Path    // of the leaves
	least  float64         // norm of a difference that may be rounding, whatever the gradient's norm is
}

// newComparison compares for the parameters that were given. The run of the cost has to exist.
func newComparison[T program.Float](g *graph[T], p *planned[T]) *comparison[T] {
	c := &comparison[T]{run: g.costRun}
	for _, q := range p.order {
		if n := g.whole.Node(q.src); n != nil && q.listed() {
			c.leaves, c.params = append(c.leaves, n), append(c.params, q)
		}
	}
	c.path = g.whole.Path(c.leaves...)
	return c
}

// sweep computes the gradients of the cost.
func (c *comparison[T]) sweep() error {
	cost := program.Seed[T]{Node: c.run.Program().Outputs[0], Data: []T{1}}
	return graphError(c.run.Reverse([]program.Seed[T]{cost}, c.path))
}

// compare computes the gradients of the cost, and reports the first parameter that was given
// another.
func (c *comparison[T]) compare() error {
	if err := c.sweep(); err != nil {
		return err
	}
	least := max(c.least, rounding[T]()*largestGradient(c.run, c.leaves))
	for i, n := range c.leaves {
		want := c.run.Gradient(n)
		if !linalg.Finite(want) {
			return &ParamError{Param: n.Name(), Err: ErrNotFinite,
				Op:   "computing its gradient again, to check the VM's",
				Hint: "the VM's is finite: did the input, the targets or the weights change after RunAll?"}
		}
		if err := compareGradients(n.Name(), c.params[i].grad, want, least); err != nil {
			return err
		}
	}
	return nil
}

// findRounding finds what may be rounding, from the norm of a gradient that is as large as what the
// cost's gradient is a sum of. In a model that fits its targets the two cancel, mean - T(y), and
// what is left is no more than their rounding. With a sign of its own for each element nothing
// cancels. A softmax adds up its classes' rounding.
func (c *comparison[T]) findRounding(g *graph[T], outputs []*output, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	var seeds []program.Seed[T]
	for i, o := range outputs {
		as, values, gradients := o.as(), [][]T(nil), [][]T(nil)
		for _, n := range as.Nodes {
			values = append(values, c.run.Value(g.whole.Node(n)).Data)
			gradients = append(gradients, c.run.Gradient(g.whole.Node(n)))
		}
		if err := readOutput(o, program.Joined(as, values)); err != nil {
			return err
		}
		sum := 1.0
		if o.together() > 0 {
			sum = math.Sqrt(float64(o.cols))
		}
		o.Mean(o.y, o.z, o.cols)
		switch o.Likelihood.(type) {
		case likelihood.Scaled, likelihood.Fitted:
			clear(o.y) // it is no difference
		}
		difference := program.Joined(as, gradients)
		g.each(i, nil, o.perCase(), func(j int, w float64) { o.y[j] *= w })
		terms := make([]T, len(o.y))
		for j, mean := range o.y {
			size := sum * (2*math.Abs(g.scales[i]*mean) + math.Abs(float64(difference[j]))) // c (|mean| + |T|) or more
			terms[j] = T(size * float64(1-2*rng.IntN(2)))
		}
		for k, part := range program.Parted(as, terms) {
			seeds = append(seeds, program.Seed[T]{Node: g.whole.Node(as.Nodes[k]), Data: part})
		}
	}
	if err := c.run.Reverse(seeds, c.path); err != nil {
		return graphError(err)
	}
	c.least = max(rounding[T](), vmPrecision) * largestGradient(c.run, c.leaves)
	return nil
}

// inputsChanged is a hint where the cost that the VM has computed is not that of what the graph
// holds now, which is own; else "".
func inputsChanged[T program.Float](cost *gorgonia.Node, own float64) string {
	vm := costValue(cost)
	if !otherCost[T](vm, own) {
		return ""
	}
	return fmt.Sprintf("the VM's cost is %.6g, and that of what the graph holds now %.6g: did the input, the targets "+
		"or the weights change after RunAll, as when the next batch is put in before Step, when Step is called twice "+
		"after one RunAll, when another batch was run in between, or when another solver has stepped weights that "+
		"this graph has too?", vm, own)
}

// largestGradient is the norm of the largest gradient of the last reverse sweep.
// One that is not finite does not count.
func largestGradient[T program.Float](run *program.Run[T], leaves []*program.Node) (norm float64) {
	for _, n := range leaves {
		if g := run.Gradient(n); linalg.Finite(g) {
			norm = max(norm, linalg.Norm(g))
		}
	}
	return norm
}

// gradientTolerance is the difference allowed relative to a gradient's norm; float32 sums in
// another order need some.
const gradientTolerance = 1e-2

// vmPrecision is the relative error of Gorgonia's functions in either type: its sigmoid is 1, and
// its softplus the identity, from 16 on.
const vmPrecision = 1e-6

// compareGradients allows a difference of the given norm at least.
func compareGradients[T program.Float](name string, got, want []T, least float64) *GradientError {
	unit := max(linalg.Norm(want), linalg.Norm(got)) // so that no square over- or underflows
	if unit == 0 {
		return nil
	}
	var diff, ww, gw, gg float64
	for i, v := range want {
		w, g := float64(v)/unit, float64(got[i])/unit
		diff += (g - w) * (g - w)
		ww += w * w
		gw += g * w
		gg += g * g
	}
	if math.Sqrt(diff) <= gradientTolerance*math.Sqrt(ww)+least/unit {
		return nil
	}
	ratio := gw / ww
	e := &GradientError{Param: name, Relative: math.Sqrt(diff / ww), Ratio: ratio}
	times := math.Round(ratio)
	unexplained := math.Sqrt(math.Max(gg-2*times*gw+times*times*ww, 0)) // |got - times want|
	switch {
	case math.Abs(ratio) < 1e-6:
		e.Hint = noRun
	case times >= 2 && unexplained < gradientTolerance*math.Sqrt(gg):
		e.Hint = fmt.Sprintf("it looks like the sum of %g RunAlls: gradients add up with BindDualValues until a Step "+
			"zeroes them; for one update from several batches call Accumulate after each RunAll but the last", times)
	default:
		e.Hint = changedGradient(got, want)
	}
	return e
}

// noRun is the hint where there is no gradient.
const noRun = "the VM's gradient is zero or unrelated: was the VM Reset and RunAll called since the last Step " +
	"(of any solver), and are the parameters in BindDualValues?"

// wrongVM is the hint where nothing else explains a gradient.
const wrongVM = "was Grad called for another cost than the solver's, one with a weight decay say? Was another " +
	"batch run since the last Step, for a validation say? With BindDualValues its gradient is added: zero the " +
	"gradients after it, or run it in a graph of its own. Or is the VM wrong: Gorgonia v0.9.18 computes wrong " +
	"gradients for some graphs (Reshape followed by Add or Sub, AveragePool2D, ...), and its LispMachine where a " +
	"part of the graph was run before (build a new graph)? The solver's own VM, solver.VM(), has them right; " +
	"if you know better, WithoutGradientCheck()"
