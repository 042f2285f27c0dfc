package kfac

import (
	"fmt"
	"math"
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// The factor c of an output may depend on inputs: the weight of a term that a schedule raises,
// weights of tasks that are learned. It is measured again where these have changed.

// findMovers finds the inputs of the tail that its factors may depend on: those that are multiplied
// with what depends on the outputs, or go into another function with it that is no sum. Inputs with
// a row for each case are targets and the like, which may be masked.
func (t *lossTail[T]) findMovers(p *program.Program) {
	found := map[*program.Node]bool{}
	var collect func(n *program.Node)
	collect = func(n *program.Node) {
		if found[n] {
			return
		}
		found[n] = true
		if n.IsLeaf() && n.Src.Op() == nil && n.Dtype == p.Dtype() {
			if t.hasCases(n) {
				t.masked = true
			} else {
				t.movers = append(t.movers, mover[T]{leaf: n})
			}
		}
		for _, k := range n.Kids {
			collect(k)
		}
	}
	for _, n := range p.Nodes {
		if op, ok := n.Op.(program.Binary); !t.path.Has(n) || ok && (op.Kind == "+" || op.Kind == "-") {
			continue
		}
		for _, k := range n.Kids {
			if !t.path.Has(k) {
				collect(k)
			}
		}
	}
}

// hasCases reports whether an input has as many rows as an output.
func (t *lossTail[T]) hasCases(n *program.Node) bool {
	return len(n.Shape) > 0 && slices.ContainsFunc(t.leaves, func(z *program.Node) bool {
		return len(z.Shape) > 0 && z.Shape[0] == n.Shape[0]
	})
}

// moved reports whether a mover has another value than when the factors were measured.
func (t *lossTail[T]) moved() bool {
	return t.varies || slices.ContainsFunc(t.movers, func(m mover[T]) bool {
		return !slices.Equal(valueNow[T](m.leaf.Src), m.last)
	})
}

// switchedOff reports whether a mover is zero.
func (t *lossTail[T]) switchedOff() bool {
	return slices.ContainsFunc(t.movers, func(m mover[T]) bool {
		v := valueNow[T](m.leaf.Src)
		return !slices.ContainsFunc(v, func(x T) bool { return x != 0 })
	})
}

// remember keeps the values of the movers.
func (t *lossTail[T]) remember() {
	for i := range t.movers {
		m := &t.movers[i]
		m.last = append(m.last[:0], valueNow[T](m.leaf.Src)...)
	}
}

// forget has the factors measured again.
func (t *lossTail[T]) forget() {
	for i := range t.movers {
		t.movers[i].last = t.movers[i].last[:0]
	}
}

// valueNow returns the elements of an input, or nil.
func valueNow[T program.Float](n *gorgonia.Node) []T {
	v, err := flatten[T](n.Value(), nil)
	if err != nil {
		return nil
	}
	return v.data
}

// checkFactors reports a factor that at the outputs in run, those of the model, is another than the
// one that was measured at the probes: a cost that is no multiple of the negative log-likelihood,
// such as its root.
//
// A multiple has the gradient g(z0) + c (mean(z) - mean(z0)). Where a discrete variable is as good
// as certain the difference is left out, for a cost may guard its logarithms.
func (t *lossTail[T]) checkFactors(run *program.Run[T], outputs []*output, probes []probe[T],
	scales []float64, weights *weighting) error {
	seeds, err := t.gradients(run, outputs, 1)
	if err != nil {
		return graphError(err)
	}
	for i, o := range outputs {
		if _, fitted := o.Likelihood.(likelihood.Fitted); fitted || o.policy || o.byCost {
			continue // the targets were compared at all points
		}
		p, c := &probes[i], scales[i]
		z, mean := o.z, linalg.Resized(o.y, len(o.z)) // forward has read the outputs
		if l, ok := o.Likelihood.(likelihood.Scaled); ok {
			if t.weighs[i] { // they were compared entry by entry
				continue
			}
			if err := checkScale(l, o, z, seeds[i].Data, c); err != nil {
				return err
			}
			continue
		}
		o.Mean(mean, z, o.cols)
		var dot, squares, terms float64
		for j, found := range seeds[i].Data {
			c, before := c*weights.of(i, j), p.grad[0][j]*p.unit
			want := before + c*(mean[j]-p.mean[0][j])
			if o.Discrete() && !(math.Abs(want) < certain*c) {
				continue
			}
			dot += float64(found) * want
			squares += want * want
			size := math.Abs(before) + c*(math.Abs(mean[j])+math.Abs(p.mean[0][j]))
			terms += size * size
		}
		if !(math.Sqrt(squares) > 100*rounding[T]()*math.Sqrt(terms)) { // what is left is rounding
			continue
		}
		if ratio := dot / squares; !(math.Abs(ratio-1) < factorTolerance) {
			return otherFactor(o, ratio*c, c)
		}
	}
	return nil
}

// checkScale is checkFactors where the likelihood tells the factor from each gradient.
func checkScale[T program.Float](l likelihood.Scaled, o *output, z []float64, grad []T, c float64) error {
	g, factors := make([]float64, len(z)), make([]float64, len(z))
	linalg.Convert(g, grad)
	l.Factors(factors, g, z, o.cols)
	sum, n := 0.0, 0.0
	for _, f := range factors {
		if f != 0 {
			sum, n = sum+f, n+1
		}
	}
	if n > 0 && !(math.Abs(sum/n-c) < factorTolerance*c) {
		return otherFactor(o, sum/n, c)
	}
	return nil
}

func otherFactor(o *output, here, elsewhere float64) error {
	return &LossError{Output: o.name(), Expected: "a multiple of the negative log-likelihood",
		Found: fmt.Sprintf("%.4g times it at the model's outputs and %.4g times at others", here, elsewhere),
		Hint: "does the cost take a root, a power or a logarithm of the likelihood, as a root mean square " +
			"does? what is under the root has the same minimum: minimise that. Or has it another term of the same " +
			"output, such as an entropy? Declare it by Policy then"}
}

const (
	// certain: a discrete variable that is as far from its target is left out.
	certain = 0.999
	// factorTolerance is by how much the factor at the model's outputs may be off.
	factorTolerance = 0.1
)

// measurement returns the present one.
func (g *graph[T]) measurement() measurement[T] {
	switch {
	case !g.used && g.loaded != nil:
		return *g.loaded
	case !g.used:
		return measurement[T]{scales: g.scales}
	}
	m := measurement[T]{scales: g.scales, there: true, cases: g.models[0].Cases, varies: g.tail.varies,
		weighs: g.tail.weighs, blocks: g.blockForm}
	for _, v := range g.tail.movers {
		m.movers = append(m.movers, v.last)
	}
	return m
}

// resumes reports whether scales were loaded that were measured in such a graph.
func (g *graph[T]) resumes() bool {
	return g.loaded != nil && g.loaded.there && g.loaded.cases == g.models[0].Cases
}

// resume makes the tail of a loaded graph know what its factors were measured at.
func (t *lossTail[T]) resume(m *measurement[T]) {
	if m == nil || len(m.movers) != len(t.movers) {
		return
	}
	for i := range min(len(t.weighs), len(m.weighs)) {
		t.weighs[i] = t.weighs[i] || m.weighs[i]
	}
	t.varies = m.varies
	for i := range t.movers {
		t.movers[i].last = slices.Clone(m.movers[i])
	}
}

func newLossTail[T program.Float](cost *gorgonia.Node, heads []head, seed uint64) (*lossTail[T], error) {
	p, err := program.NewOf([]program.Output{{Nodes: []*gorgonia.Node{cost}}}, outputsOf(heads)...)
	if err != nil {
		return nil, graphError(err)
	}
	t := &lossTail[T]{cost: p.Outputs[0]}
	for i, h := range heads {
		t.weighs = append(t.weighs, h.weight != nil)
		leaf := p.Cuts[i]
		if leaf == nil {
			return nil, notInCost(h, h.output())
		}
		t.leaves = append(t.leaves, leaf)
	}
	t.path = p.Path(t.leaves...)
	if err := p.CheckDifferentiable(t.path); err != nil {
		return nil, graphError(err)
	}
	for _, n := range p.Nodes {
		if n.IsLeaf() && n.Src.Op() == nil && !slices.Contains(t.leaves, n) {
			t.inputs = append(t.inputs, n.Src)
		}
	}
	t.findMovers(p)
	t.run, err = program.NewRun[T](p, seed)
	return t, graphError(err)
}
