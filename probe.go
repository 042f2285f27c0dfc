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

// probesOf returns a probe for each output, in the memory of those in kept.
func probesOf[T program.Float](kept *[]probe[T], leaves []*program.Node) []probe[T] {
	*kept = grown(*kept, len(leaves))
	for i, leaf := range leaves {
		p, n := &(*kept)[i], leaf.Size()
		p.spread, p.opposite, p.unit = 1, 0, 0
		for k := range 2 {
			p.z[k] = linalg.Resized(p.z[k], n)
			p.grad[k], p.mean[k] = linalg.Resized(p.grad[k], n), linalg.Resized(p.mean[k], n)
		}
	}
	return (*kept)[:len(leaves)]
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

// widenings is how often probes are made wider at most: to 1e30 from 1, by 1e4 each time.
const widenings = 8

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

// prepare brings the gradients to a unit in which no square over- or underflows.
func (p *probe[T]) prepare(o *output) error {
	o.z, o.y = linalg.Resized(o.z, len(p.z[0])), linalg.Resized(o.y, len(p.z[0]))
	z := o.z
	for i := range 2 {
		if !linalg.Finite(p.grad[i]) {
			return &LossError{Output: o.name(), Expected: "a finite gradient of the cost", Found: "NaN or infinity",
				Hint: "is a target NaN, or the logarithm of 0 taken?"}
		}
		linalg.Convert(z, p.z[i])
		o.Mean(p.mean[i], z, o.cols)
	}
	p.unit = p.largest()
	if p.unit == 0 {
		return noGradient(o)
	}
	for i := range 2 {
		floats.Scale(1/p.unit, p.grad[i])
	}
	return nil
}

// noGradient is the error of a cost that does not depend on an output.
func noGradient(o *output) error {
	return &LossError{Output: o.name(), Expected: "a cost that depends on the output", Found: "a gradient of zero",
		Hint: "give the output that the cost is computed from; where a term cancels it out, correct the cost; " +
			"where all targets or weights are 0, it is the data"}
}

// scale finds c, or says what is wrong.
func (p *probe[T]) scale(o *output) (float64, error) {
	if err := p.prepare(o); err != nil {
		return 0, err
	}
	unit, z, target := p.unit, o.z, o.y // scratch
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
	none := make([]bool, len(c)) // whether an entry has no factor, as where its weight is 0
	rising := 0.0                // the least change of the gradient, in the direction of the output's
	for i := range 2 {
		linalg.Convert(z, p.z[i])
		l.Factors(c, p.grad[i], z, o.cols)
		for j, cj := range c {
			if none[j] = cj == 0 && (i == 0 || none[j]); cj != 0 {
				all = append(all, cj)
			}
			rising = min(rising, (p.grad[1][j]-p.grad[0][j])*float64(p.z[1][j]-p.z[0][j]))
		}
	}
	mean := floats.Sum(all) / float64(len(all))
	low, high := floats.Min(all), floats.Max(all)
	even := high-low <= 2*lossTolerance*mean && !slices.Contains(none, true)
	if rising < 0 || !even {
		m := p.mismatch(o)
		hint := m.otherFamily(changeOf(m.grad))
		switch {
		case even:
			hint = minus
		case hint == "":
			hint = anySlip
		}
		return 0, &LossError{Output: o.name(), Expected: "a gradient c times that of the distribution, c > 0",
			Found: fmt.Sprintf("c from %.4g to %.4g", low*p.unit, high*p.unit), Hint: hint}
	}
	return mean * p.unit, nil
}

func (p *probe[T]) mismatch(o *output) mismatch {
	m := mismatch{Likelihood: o.Likelihood, output: program.NameOf(o.output()), shape: o.node.Shape, cols: o.cols}
	m.grad, m.mean = p.grad, p.mean
	for i := range 2 {
		m.z[i] = make([]float64, len(p.z[i]))
		linalg.Convert(m.z[i], p.z[i])
	}
	return m
}

// largest is the largest element of the gradients.
func (p *probe[T]) largest() float64 { return max(largestOf(p.grad[0]), largestOf(p.grad[1])) }

// lossTolerance is how far the cost's gradient with respect to an output may be from that of the
// declared distribution, relative to its norm: room for float32 and for costs that guard their
// logarithms with a small constant.
const lossTolerance = 1e-2

// closeGradients is the ratio of gradients to their difference from which on probes are made wider:
// of the difference at least five digits are right in float32.
const closeGradients = 100

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
