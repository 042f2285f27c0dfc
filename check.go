package kfac

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
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
// For all distributions here but Laplace's d(-log r(y|z))/dz = mean(z) - T(y). So whatever the
// targets are, the gradient of the cost with respect to z at two points must differ by c (mean(z1)
// - mean(z0)), and what is left, mean(z0) - gradient/c, must be a possible target. The cost is run
// privately with the outputs cut off and given random z0 and z1, so the check does not depend on
// what the model predicts.
//
// An output of gradient zero has the factor 0 if others have not, and if the cost has weights that
// can be zero for a time. Then its form is checked when it has another.
//
// If unchecked, a cost that is not what was declared is taken to be a mean over cases.
func checkLoss[T program.Float](tail *lossTail[T], outputs []*output, seed uint64, unchecked bool) (
	scales []float64, weights weighting, probes []probe[T], err error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	probes = make([]probe[T], len(outputs))
	for i, leaf := range tail.leaves {
		probes[i] = newProbe[T](leaf)
	}
	for range widenings {
		if err := probeCost(tail, outputs, probes, rng); err != nil {
			return nil, weights, nil, err
		}
		again := false
		for i, o := range outputs {
			again = o.widens() && probes[i].widen() || again
		}
		if !again {
			break
		}
	}
	allowed := len(tail.movers) > 0 && slices.ContainsFunc(probes, func(p probe[T]) bool { return p.largest() > 0 })
	var opposite []probe[T] // made when first needed
	for i, o := range outputs {
		if o.policy {
			if err := weighPolicy(i, tail, o, len(outputs), &weights); err != nil {
				return nil, weights, nil, err
			}
			scales = append(scales, o.scaleOfMean(len(probes[i].grad[0])))
			continue
		}
		if allowed && probes[i].largest() == 0 {
			scales = append(scales, 0)
			continue
		}
		c, err := probes[i].scale(o)
		if (err != nil || tail.weighs[i]) && probes[i].largest() > 0 {
			factors, failed := findWeights(i, tail, outputs, probes, &opposite)
			if failed != nil && !unchecked {
				return nil, weights, nil, failed
			}
			if factors != nil {
				tail.weighs[i] = true
				scales = append(scales, weights.weigh(i, len(outputs), factors))
				continue
			}
		}
		if err != nil && unchecked {
			c, err = o.scaleOfMean(len(probes[i].grad[0])), nil
		}
		if err != nil {
			return nil, weights, nil, err
		}
		scales = append(scales, c)
	}
	return scales, weights, probes, nil
}

// scaleOfMean is the scale of a mean over cases, and over the positions of each, for an output of
// so many entries.
func (o *output) scaleOfMean(entries int) float64 { return float64(o.cols) / float64(entries) }

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
				Hint: notFinite(tail.run, tail.path)}
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
	// The points are opposite, with signs that alternate in rows of so many entries; 0: they are
	// random.
	opposite int
	z        [2][]T
	grad     [2][]float64
	mean     [2][]float64
	unit     float64 // of grad, after scale
}

func newProbe[T program.Float](leaf *program.Node) (p probe[T]) {
	n := leaf.Size()
	p.spread = 1
	for i := range 2 {
		p.z[i], p.grad[i], p.mean[i] = make([]T, n), make([]float64, n), make([]float64, n)
	}
	return p
}

// draw draws a point.
func (p *probe[T]) draw(point int, rng *rand.Rand) {
	for i := range p.z[point] {
		if p.opposite == 0 {
			p.z[point][i] = T(p.spread * rng.NormFloat64())
			continue
		}
		p.z[point][i] = T(p.spread)
		if (i%p.opposite%2 == 0) == (point == 0) {
			p.z[point][i] = -T(p.spread)
		}
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
	unit := p.largest() // so that no square over- or underflows
	p.unit = unit
	if unit == 0 {
		return 0, &LossError{Output: o.name(), Expected: "a cost that depends on the output",
			Found: "a gradient of zero",
			Hint:  "give the output that the cost is computed from; where a term cancels it out, correct the cost"}
	}
	for i := range 2 {
		floats.Scale(1/unit, p.grad[i])
	}
	if l, ok := o.Likelihood.(likelihood.Scaled); ok {
		return p.scaleBy(l, o)
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
			Hint: p.mismatch(o).slip(),
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
			Found: err.Error(), Hint: "one-hot rows or probabilities for Categorical, numbers in [0, 1] for " +
				"Bernoulli, counts for Poisson"}
	}
	return c * unit, nil
}

// scaleBy finds c where the likelihood tells it from each gradient.
func (p *probe[T]) scaleBy(l likelihood.Scaled, o *output) (float64, error) {
	var all []float64
	z, c := make([]float64, len(p.z[0])), make([]float64, len(p.z[0]))
	rising := 0.0 // the least change of the gradient, in the direction of the output's
	for i := range 2 {
		linalg.Convert(z, p.z[i])
		l.Factors(c, p.grad[i], z, o.cols)
		for j, cj := range c {
			if cj != 0 {
				all = append(all, cj)
			}
			rising = min(rising, (p.grad[1][j]-p.grad[0][j])*float64(p.z[1][j]-p.z[0][j]))
		}
	}
	mean := floats.Sum(all) / float64(len(all))
	if low, high := floats.Min(all), floats.Max(all); rising < 0 || !(high-low <= 2*lossTolerance*mean) {
		return 0, &LossError{Output: o.name(), Expected: "a gradient c times that of the distribution, c > 0",
			Found: fmt.Sprintf("c from %.4g to %.4g", low*p.unit, high*p.unit),
			Hint: "declare the distribution that the cost is the negative log-likelihood of; common slips: a squared " +
				"error, a sign"}
	}
	return mean * p.unit, nil
}

func (p *probe[T]) mismatch(o *output) mismatch {
	m := mismatch{Likelihood: o.Likelihood, output: program.NameOf(o.output()), cols: o.cols}
	m.grad, m.mean = p.grad, p.mean
	for i := range 2 {
		m.z[i] = make([]float64, len(p.z[i]))
		linalg.Convert(m.z[i], p.z[i])
	}
	return m
}

// largest is the largest element of the gradients.
func (p *probe[T]) largest() float64 { return max(largestOf(p.grad[0]), largestOf(p.grad[1])) }

// finiteCost reports a cost that the VM has computed and that is not finite, whatever its gradients
// are. The solver's own cost tells whether the data or the VM is to blame.
func finiteCost[T program.Float](g *graph[T]) error {
	v := g.cost.Value()
	if c := costValue(g.cost); v == nil || v.Shape().TotalSize() != 1 || !math.IsNaN(c-c) {
		return nil
	}
	what := fmt.Sprintf("reading the cost, which the VM has computed as %v", v)
	hint := "a NaN or an infinity in the inputs or in the weights, the logarithm of 0, or an overflow: look at the " +
		"data and at the model's outputs"
	if own, err := g.ownCost(nil); err == nil && !math.IsNaN(own-own) {
		hint = fmt.Sprintf("the solver's own program has %.6g for the same inputs and weights, so the VM is at fault, "+
			"and its gradients may be wrong though they are finite. ", own)
		if fault := softmaxFault(g.costRun); fault != "" {
			hint += fault
		} else {
			hint += "Look for an op that overflows or is not defined at some of its values"
		}
	}
	return &GraphError{Node: program.NameOf(g.cost), What: what, Err: ErrNotFinite, Hint: hint}
}

// softmaxFault is a hint where the operand of a softmax has values that Gorgonia's may not stand,
// in a run; else "". Gorgonia takes the maximum of a row over its elements but the first, and the
// first of the whole tensor.
func softmaxFault[T program.Float](run *program.Run[T]) string {
	most := 85.0 // about the logarithm of the largest number
	if _, ok := any(T(0)).(float64); ok {
		most = 700
	}
	for _, n := range run.Program().Nodes {
		if _, ok := n.Op.(program.SoftMax); !ok {
			continue
		}
		low, high := math.Inf(1), math.Inf(-1)
		for _, v := range run.Value(n.Kids[0]).Data {
			low, high = min(low, float64(v)), max(high, float64(v))
		}
		if high-low > most {
			return fmt.Sprintf("Gorgonia v0.9.18's SoftMax and LogSoftMax are wrong where elements of different rows "+
				"differ by more than some %.0f, as here (%.4g to %.4g), NaN or not: keep the logits smaller, "+
				"by WithL2Reg or a weight decay, or compute in float64", most, low, high)
		}
	}
	return ""
}
