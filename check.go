package kfac

import (
	"fmt"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// lossTolerance is how far the cost's gradient with respect to an output may be from that of the
// declared distribution, relative to its norm: room for float32 and for costs that guard their
// logarithms with a small constant.
const lossTolerance = 1e-2

// checkLoss compares the user's cost with the declared distribution and finds the scale c of each
// output.
//
// For every distribution here d(-log r(y|z))/dz = mean(z) - T(y). So whatever the targets are, the
// gradient of the cost with respect to z at two points must differ by c (mean(z1) - mean(z0)), and
// what is left, mean(z0) - gradient/c, must be a possible target. The cost is run privately with
// the outputs cut off and given random z0 and z1, so the check does not depend on what the model
// predicts.
func checkLoss[T program.Float](tail *lossTail[T], outputs []*output, seed uint64) (scales []float64, err error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	probes := make([]probe[T], len(outputs))
	for i, leaf := range tail.leaves {
		probes[i] = newProbe[T](leaf)
	}
	for range widenings {
		if err := probeCost(tail, outputs, probes, rng); err != nil {
			return nil, err
		}
		again := false
		for i, o := range outputs {
			again = !o.Discrete() && probes[i].widen() || again
		}
		if !again {
			break
		}
	}
	for i, o := range outputs {
		c, err := probes[i].scale(o)
		if err != nil {
			return nil, err
		}
		scales = append(scales, c)
	}
	return scales, nil
}

// widenings is how often probes are made wider at most: to 1e30 from 1, by 1e4 each time.
const widenings = 8

// probeCost draws the points of the probes, and computes the gradients of the cost there.
func probeCost[T program.Float](tail *lossTail[T], outputs []*output, probes []probe[T], rng *rand.Rand) error {
	for point := range 2 {
		for i, leaf := range tail.leaves {
			probes[i].draw(point, rng)
			if err := tail.run.Bind(leaf, probes[i].z[point]); err != nil {
				return graphError(err)
			}
		}
		if err := tail.sweep(1); err != nil {
			return graphError(err)
		}
		if v := tail.run.Value(tail.cost).Data; !linalg.Finite(v) {
			return &LossError{Output: outputs[0].head.name(), Expected: "a finite cost", Found: fmt.Sprint(v[0]),
				Hint: "is a target or an input NaN, or so large that the cost overflows, or the logarithm of 0 " +
					"taken, as in Log(HadamardProd(softmax, y)) where HadamardProd(Log(softmax), y) is meant?"}
		}
		for i, leaf := range tail.leaves {
			linalg.Convert(probes[i].grad[point], tail.run.Gradient(leaf))
		}
	}
	return nil
}

// probe holds two points for one output and the cost's gradients there.
type probe[T program.Float] struct {
	spread float64 // of the points
	z      [2][]T
	grad   [2][]float64
	mean   [2][]float64
}

func newProbe[T program.Float](leaf *program.Node) (p probe[T]) {
	n := leaf.Size()
	p.spread = 1
	for i := range 2 {
		p.z[i], p.grad[i], p.mean[i] = make([]T, n), make([]float64, n), make([]float64, n)
	}
	return p
}

func (p *probe[T]) draw(point int, rng *rand.Rand) {
	for i := range p.z[point] {
		p.z[point][i] = T(p.spread * rng.NormFloat64())
	}
}

// widen makes the points lie farther apart where the gradients at the two are so nearly the same
// that their difference is rounding, as with targets that are large beside the points. It reports
// whether it has.
func (p *probe[T]) widen() bool {
	var change, size float64
	for i, g := range p.grad[0] {
		change = max(change, math.Abs(p.grad[1][i]-g))
		size = max(size, math.Abs(g))
	}
	if !(size > closeGradients*change) { // true for NaN too
		return false
	}
	p.spread *= min(size/change, 1e4)
	return true
}

// closeGradients is the ratio of gradients to their difference from which on probes are made wider:
// of the difference at least five digits are right in float32.
const closeGradients = 100

// scale finds c, or says what is wrong.
func (p *probe[T]) scale(o *output) (float64, error) {
	z := make([]float64, len(p.z[0]))
	for i := range 2 {
		if !linalg.Finite(p.grad[i]) {
			return 0, &LossError{Output: o.name(), Expected: "a finite gradient of the cost", Found: "NaN or infinity",
				Hint: "is a target NaN, or the logarithm of 0 taken?"}
		}
		linalg.Convert(z, p.z[i])
		o.Mean(p.mean[i], z, o.cols)
	}
	unit := max(largestOf(p.grad[0]), largestOf(p.grad[1])) // so that no square over- or underflows
	if unit == 0 {
		return 0, &LossError{Output: o.name(), Expected: "a cost that depends on the output",
			Found: "a gradient of zero",
			Hint:  "give the output that the cost is computed from; where a term cancels it out, correct the cost"}
	}
	for i := range 2 {
		floats.Scale(1/unit, p.grad[i])
	}
	// Least squares for c, in these units, in  grad1 - grad0 = c (mean1 - mean0).
	var dot, norm, change, size float64
	for i := range z {
		dg, dm := p.grad[1][i]-p.grad[0][i], p.mean[1][i]-p.mean[0][i]
		dot += dg * dm
		norm += dm * dm
		change += dg * dg
		size += p.grad[0][i]*p.grad[0][i] + p.grad[1][i]*p.grad[1][i]
	}
	c := dot / norm
	var miss float64
	for i := range z {
		dg, dm := p.grad[1][i]-p.grad[0][i], p.mean[1][i]-p.mean[0][i]
		miss += (dg - c*dm) * (dg - c*dm)
	}
	relative := math.Sqrt(miss / norm)
	const expected = "a gradient c (mean of the distribution - target) with respect to the output, c > 0"
	if change == 0 {
		return 0, &LossError{Output: o.name(), Expected: expected,
			Found: "a gradient that is the same whatever the output, up to rounding",
			Hint: "is the cost linear in it? give the model's output, not the targets; or are the targets so large, " +
				"next to the outputs, that their difference is lost? divide them by their standard deviation"}
	}
	if !(c > 0) || relative > lossTolerance*c+rounding[T]()*math.Sqrt(size/norm) {
		return 0, &LossError{
			Output:   o.name(),
			Expected: expected,
			Found: fmt.Sprintf("best c %.4g, with which the gradient's change is still off by %.3g of its size",
				c*unit, math.Sqrt(miss/change)),
			Hint: "declare the distribution that the cost is the negative log-likelihood of, at the output that " +
				"it is computed from; common slips: a missing logarithm, a softmax for several independent labels, " +
				"weights that differ from case to case, a sign",
		}
	}
	linalg.Convert(z, p.z[0])
	target := make([]float64, len(z))
	for i, g := range p.grad[0] {
		target[i] = g / c
	}
	o.ImpliedTarget(target, target, z, o.cols)
	if err := o.CheckTarget(target, o.cols, lossTolerance); err != nil {
		return 0, &LossError{Output: o.name(), Expected: "targets that the distribution can have",
			Found: err.Error(), Hint: "one-hot rows or probabilities for Categorical, numbers in [0, 1] for Bernoulli"}
	}
	return c * unit, nil
}

// largestOf is the largest absolute value.
func largestOf(x []float64) (largest float64) {
	for _, v := range x {
		largest = max(largest, math.Abs(v))
	}
	return largest
}

// finiteCost reports a cost that the VM has computed and that is not finite, whatever its gradients
// are.
func finiteCost(cost *gorgonia.Node) error {
	v := cost.Value()
	if c := costValue(cost); v == nil || v.Shape().TotalSize() != 1 || !math.IsNaN(c-c) {
		return nil
	}
	what := fmt.Sprintf("reading the cost, which the VM has computed as %v", v)
	return &GraphError{Node: program.NameOf(cost), What: what, Err: ErrNotFinite,
		Hint: "a NaN or an infinity in the inputs or in the weights, the logarithm of 0, or an overflow: Gorgonia " +
			"v0.9.18's softmax overflows where rows differ by some 100 in float32; look at the data and at the logits"}
}

// checkedRuns is the number of first RunAlls whose gradients are checked. The second shows what one
// alone can't: a machine that was not Reset, and a LispMachine that goes wrong in its second run of
// a graph.
const checkedRuns = 2

// checksGradients reports whether the gradients of a RunAll are checked, after so many others:
// those of the first, and of the first of another graph at every doubling of their number.
func checksGradients(runs int, first bool) bool {
	doubled := runs&(runs+1) == 0
	return runs < checkedRuns || first && doubled
}

// checkGradients compares the gradients given to Step with the private program's gradients of the
// cost.
func checkGradients[T program.Float](g *graph[T], p *planned[T], seed uint64) error {
	whole := g.whole
	if g.random() {
		return nil
	}
	var leaves []*program.Node
	var params []*parameter[T]
	for _, q := range p.order {
		if n := whole.Node(q.src); n != nil && q.given {
			leaves, params = append(leaves, n), append(params, q)
		}
	}
	path := whole.Path(leaves...)
	if whole.CheckDifferentiable(path) != nil {
		return nil // only the VM can differentiate it
	}
	run, err := program.NewRun[T](whole, seed)
	if err != nil {
		return graphError(err)
	}
	if err := run.Forward(nil); err != nil {
		return graphError(err)
	}
	typical, err := typicalGradient(g, p.model.outputs, run, leaves, path, seed)
	if err != nil {
		return err
	}
	cost := program.Seed[T]{Node: whole.Outputs[0], Data: []T{1}}
	if err := run.Reverse([]program.Seed[T]{cost}, path); err != nil {
		return graphError(err)
	}
	typical = max(typical, largestGradient(run, leaves))
	for i, n := range leaves {
		want := run.Gradient(n)
		if !linalg.Finite(want) {
			return &ParamError{Param: n.Name(), Err: ErrNotFinite,
				Op:   "computing its gradient again, to check the VM's",
				Hint: "the VM's is finite: did the input, the targets or the weights change after RunAll?"}
		}
		if err := compareGradients(n.Name(), params[i].grad, want, typical); err != nil {
			if hint := inputsChanged(g.cost, float64(run.Value(whole.Outputs[0]).Data[0])); err.Hint == "" {
				err.Hint = hint
			}
			if err.Hint == "" {
				err.Hint = wrongVM
			}
			return err
		}
	}
	return nil
}

// inputsChanged is a hint where the cost that the VM has computed is not that of what the graph
// holds now, which is own; else "".
func inputsChanged(cost *gorgonia.Node, own float64) string {
	vm := costValue(cost)
	if !(math.Abs(vm-own) > gradientTolerance*max(math.Abs(own), math.Abs(vm))) {
		return ""
	}
	return fmt.Sprintf("the VM's cost is %.6g, and that of what the graph holds now %.6g: did the input, the targets "+
		"or the weights change after RunAll, as when the next batch is put in before Step?", vm, own)
}

// typicalGradient is the norm of the largest gradient of the cost if the targets were sampled from
// the model, of the batch or of the first case alone, where nothing cancels. What the true
// gradients are sums of is of that size, and so are their rounding errors, also where they cancel.
func typicalGradient[T program.Float](g *graph[T], outputs []*output, run *program.Run[T], leaves []*program.Node,
	path program.Path, seed uint64) (typical float64, err error) {
	rng := rand.New(rand.NewPCG(seed, 2))
	var seeds []program.Seed[T]
	for i, o := range outputs {
		node := g.whole.Node(o.output())
		if err := readOutput(o, run, node); err != nil {
			return 0, err
		}
		o.Sample(o.y, o.z, o.cols, rng)
		o.Residual(o.y, o.y, o.z, o.cols)
		r := make([]T, len(o.y))
		for j, v := range o.y {
			r[j] = T(g.scale() * g.weights[i] * v)
		}
		seeds = append(seeds, program.Seed[T]{Node: node, Data: r})
	}
	for range 2 {
		if err := run.Reverse(seeds, path); err != nil {
			return 0, graphError(err)
		}
		typical = max(typical, largestGradient(run, leaves))
		for i, o := range outputs {
			clear(seeds[i].Data[o.cols:])
		}
	}
	return typical, nil
}

// largestGradient is the norm of the largest gradient of the last reverse sweep.
// One that is not finite does not count.
func largestGradient[T program.Float](run *program.Run[T], leaves []*program.Node) (norm float64) {
	for _, n := range leaves {
		if g := run.Gradient(n); linalg.Finite(g) {
			norm = max(norm, normOf(g))
		}
	}
	return norm
}

// normOf is the Euclidean norm, also where squares over- or underflow.
func normOf[T program.Float](x []T) float64 {
	var largest, sum float64
	for _, v := range x {
		largest = max(largest, math.Abs(float64(v)))
	}
	if largest == 0 {
		return 0
	}
	for _, v := range x {
		sum += float64(v) / largest * (float64(v) / largest)
	}
	return largest * math.Sqrt(sum)
}

// gradientTolerance is the difference allowed relative to a gradient's norm; float32 sums in
// another order need some.
const gradientTolerance = 1e-2

// compareGradients: typical is the norm of a large gradient of the model, next to which a tiny one
// may be rounding.
func compareGradients[T program.Float](name string, got, want []T, typical float64) *GradientError {
	unit := max(normOf(want), normOf(got)) // so that no square over- or underflows
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
	if math.Sqrt(diff) <= gradientTolerance*math.Sqrt(ww)+rounding[T]()*(typical/unit) {
		return nil
	}
	ratio := gw / ww
	e := &GradientError{Param: name, Relative: math.Sqrt(diff / ww), Ratio: ratio}
	times := math.Round(ratio)
	unexplained := math.Sqrt(math.Max(gg-2*times*gw+times*times*ww, 0)) // |got - times want|
	switch {
	case math.Abs(ratio) < 1e-6:
		e.Hint = "the VM's gradient is zero or unrelated: was the VM Reset and RunAll called since the last Step, " +
			"and are the parameters in BindDualValues?"
	case times >= 2 && unexplained < gradientTolerance*math.Sqrt(gg):
		e.Hint = fmt.Sprintf("it looks like the sum of %g RunAlls: gradients add up with BindDualValues until a Step "+
			"zeroes them", times)
	}
	return e
}

// wrongVM is the hint where nothing else explains a gradient.
const wrongVM = "Gorgonia v0.9.18 computes wrong gradients for some graphs (Reshape followed by Add or Sub, " +
	"AveragePool2D, Dropout with p other than 0.5, ...), and its LispMachine where a part of the graph was run " +
	"before (build a new graph); if you know better, WithoutGradientCheck()"
