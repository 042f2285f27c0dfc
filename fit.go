package kfac

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// fitScale finds the scale of an output whose factors are fitted, and its weights, if they differ.
func fitScale[T program.Float](i int, l likelihood.Fitted, tail *lossTail[T], outputs []*output, probes []probe[T],
	weights *weighting) (float64, error) {
	c, err := fit(i, l, tail, outputs, probes)
	if err != nil {
		return 0, err
	}
	declared, err := declaredWeights(outputs[i], tail, len(c))
	if err == nil {
		err = outputs[i].compareWeights(c, declared)
	}
	if err != nil {
		return 0, err
	}
	mean := floats.Sum(c) / float64(len(c))
	if tail.weighs[i] = tail.weighs[i] || floats.Max(c)-floats.Min(c) > 2*lossTolerance*mean; !tail.weighs[i] {
		return mean, nil
	}
	return weights.weigh(i, len(outputs), c), nil
}

// fitted finds the factors of all entries where the likelihood tells them and the targets from two
// points, those of q. It returns nil where they are not those of the gradients at p.
func (p *probe[T]) fitted(l likelihood.Fitted, o *output, q *probe[T]) []float64 {
	n := len(p.z[0])
	c, y, z, r := make([]float64, n), make([]float64, n), [2][]float64{}, make([]float64, n)
	for k := range z {
		z[k] = make([]float64, n)
		linalg.Convert(z[k], q.z[k])
	}
	l.Fit(c, y, q.grad, z, o.cols)
	if !(floats.Min(c) >= 0) || !(floats.Max(c) > 0) || o.CheckTarget(y, o.cols, lossTolerance) != nil {
		return nil
	}
	var miss, size float64
	for k := range p.z {
		linalg.Convert(z[k], p.z[k])
		l.Residual(r, y, z[k], o.cols)
		for j, g := range p.grad[k] {
			e := g - c[j]/p.unit*r[j]
			miss, size = miss+e*e, size+g*g
		}
	}
	if !(math.Sqrt(miss) <= lossTolerance*math.Sqrt(size)) {
		return nil
	}
	return c
}

// fit finds the factors of an output among all as fitted does, from points that are far enough
// apart for it.
func fit[T program.Float](i int, l likelihood.Fitted, tail *lossTail[T], outputs []*output, probes []probe[T]) (
	c []float64, err error) {
	o, p := outputs[i], &probes[i]
	if err := p.prepare(o); err != nil {
		return nil, err
	}
	apart := slices.Clone(probes)
	if o.precision > 0 {
		apart[i].spread = max(p.spread, 1/math.Sqrt(o.precision))
	}
	for range widenings {
		q, err := opposites(tail, outputs, apart)
		if err != nil {
			break // it overflows
		}
		if c := p.fitted(l, o, &q[i]); c != nil {
			return c, nil
		}
		apart[i].spread *= fartherApart
	}
	hint := o.howFitted()
	if o.beside == nil {
		if m := p.mismatch(o); m.otherFamily(changeOf(m.grad)) != "" {
			hint = m.otherFamily(changeOf(m.grad))
		}
	}
	return nil, &LossError{Output: o.name(), Expected: "a gradient c times that of the distribution, c > 0",
		Found: "one that no targets have", Hint: hint}
}

// fartherApart is by how much the points of a fit are taken farther apart.
const fartherApart = 20

// howFitted says how the cost of a likelihood that is fitted is written.
func (o *output) howFitted() string {
	switch l := o.Likelihood.(type) {
	case likelihood.Heteroscedastic:
		return "the cost has to be a multiple of the mean of s + (m-y)^2 / exp(s), with the mean m and the logarithm " +
			"s of the variance: is s that of a standard deviation, or a variance as it is? Declare the node of the " +
			"logarithm of the variance, or GaussNewton of both outputs"
	case likelihood.StudentT:
		return fmt.Sprintf("the cost has to be a multiple of the mean of log(1 + (z-y)^2/%.6g), by the degrees of "+
			"freedom and the scale that were declared: the number is the one times the square of the other",
			l.Freedom*l.Scale*l.Scale)
	case likelihood.NegativeBinomial:
		return fmt.Sprintf("the cost has to be a multiple of the mean of (y + size) log(1 + exp(z)/size) - y z, with "+
			"size %.6g, as it was declared", l.Size)
	}
	return "declare the distribution that the cost is the negative log-likelihood of"
}
