package kfac

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Weighted declares that the cost is a weighted sum of the negative log-likelihoods of dist: of
// cases, of positions or of single target variables. weights is a node that the cost multiplies
// them with, and that does not depend on the model's outputs, of shape (B), (B, 1), (B, T) and the
// like, or of the shape of a case's targets if it is the same for all cases. Weights are at least
// 0. What has the weight 0 counts nowhere, as where a sequence is padded or a label is missing.
// They need not be declared: the loss check finds factors that differ, such as class weights, and
// has them measured at every step from then on. Declared ones are measured from the first step on,
// and compared with those of the cost. On several ranks declared ones count the same on all.
//
// The objective is in units in which the mean of the weights that are not 0 is 1.
func Weighted(dist Distribution, weights *gorgonia.Node) Distribution {
	if dist == nil {
		return Joint(nil)
	}
	var all joint
	for _, h := range partsOf(dist) {
		if err := checkNode(weights); err != nil && h.problem == nil {
			h.problem = fmt.Errorf("its weights: %w", err)
		}
		if h.byCost && h.problem == nil {
			h.problem = errors.New("the cost has the weights, and GaussNewton their curvature: declare none")
		}
		h.kind, h.weight = "Weighted "+h.kind, weights
		all = append(all, h)
	}
	return all
}

// findCases finds the cases that count.
func (w *weighting) findCases(outputs []*output, cases int) {
	if w.cases = nil; w.entries == nil ||
		slices.ContainsFunc(w.entries, func(e []float64) bool { return e == nil }) {
		return
	}
	w.cases = []int{}
	for n := range cases {
		for i, o := range outputs {
			from := n * o.perCase()
			if slices.ContainsFunc(w.entries[i][from:from+o.perCase()], func(x float64) bool { return x > 0 }) {
				w.cases = append(w.cases, n)
				break
			}
		}
	}
	if len(w.cases) == cases {
		w.cases = nil
	}
}

// opposites are probes at points z and -z with entries of one size, for all outputs. Whatever entry
// is looked at, mean(z) and mean(-z) differ.
func opposites[T program.Float](tail *lossTail[T], outputs []*output, probes []probe[T]) ([]probe[T], error) {
	all := probesOf(new([]probe[T]), tail.leaves)
	for i := range all {
		all[i].spread, all[i].opposite = probes[i].spread, outputs[i].cols
	}
	if err := probeCost(tail, outputs, all, nil); err != nil {
		return nil, err
	}
	for i, o := range outputs {
		p := &all[i]
		p.unit = 1
		o.z = linalg.Resized(o.z, len(p.z[0]))
		for k := range 2 {
			linalg.Convert(o.z, p.z[k])
			o.Mean(p.mean[k], o.z, o.cols)
		}
	}
	return all, nil
}

// factors finds the factor of each entry from the probe at opposite points q. It reports whether
// the gradients at other points, those of p, are what they say.
func (p *probe[T]) factors(o *output, q *probe[T]) (c []float64, agrees bool) {
	c = make([]float64, len(q.z[0]))
	if l, ok := o.Likelihood.(likelihood.Scaled); ok {
		q.factorsBy(l, o, c)
		return c, p.hasFactors(l, o, c)
	}
	q.factorsByMean(o, c)
	var miss, change, size float64
	for j, cj := range c {
		before := q.grad[0][j]
		for k := range 2 {
			g := p.grad[k][j] * p.unit
			want := before + cj*(p.mean[k][j]-q.mean[0][j])
			miss += (g - want) * (g - want)
			change += (g - before) * (g - before)
			size += g*g + before*before
		}
	}
	return c, math.Sqrt(miss) <= lossTolerance*math.Sqrt(change)+rounding[T]()*math.Sqrt(size)
}

// factorsByMean finds factors from the change of the gradient, by row of classes or by entry.
func (p *probe[T]) factorsByMean(o *output, c []float64) {
	group := 1
	if o.together() > 0 {
		group = o.cols
	}
	for from := 0; from < len(c); from += group {
		var dot, norm, size float64
		for j := from; j < from+group; j++ {
			dm := p.mean[1][j] - p.mean[0][j]
			dot += (p.grad[1][j] - p.grad[0][j]) * dm
			norm += dm * dm
			size += (math.Abs(p.grad[0][j]) + math.Abs(p.grad[1][j])) * math.Abs(dm)
		}
		factor := dot / norm
		if math.Abs(dot) <= rounding[T]()*size {
			factor = 0
		}
		for j := from; j < from+group; j++ {
			c[j] = factor
		}
	}
}

// factorsBy finds factors where the likelihood tells them from each gradient.
func (p *probe[T]) factorsBy(l likelihood.Scaled, o *output, c []float64) {
	z, other := make([]float64, len(c)), make([]float64, len(c))
	for k, into := range [2][]float64{c, other} {
		linalg.Convert(z, p.z[k])
		l.Factors(into, p.grad[k], z, o.cols)
	}
	for j := range c {
		c[j] = max(c[j], other[j])
		if (p.grad[1][j]-p.grad[0][j])*float64(p.z[1][j]-p.z[0][j]) < 0 {
			c[j] = -c[j]
		}
	}
}

// hasFactors reports whether the gradients of the probe are of these factors.
func (p *probe[T]) hasFactors(l likelihood.Scaled, o *output, c []float64) bool {
	z, found := make([]float64, len(c)), make([]float64, len(c))
	for k := range 2 {
		linalg.Convert(z, p.z[k])
		l.Factors(found, p.grad[k], z, o.cols)
		for j, f := range found {
			if f *= p.unit; f != 0 && !(math.Abs(f-c[j]) <= 2*lossTolerance*math.Abs(c[j])) {
				return false
			}
		}
	}
	return true
}

// weights finds an output's factors, where they differ by entry. It returns nil if there are none,
// and an error if they are not at least 0, or not those that were declared.
func (p *probe[T]) weights(o *output, q *probe[T], declared []float64) ([]float64, error) {
	c, agrees := p.factors(o, q)
	if !agrees {
		return nil, nil
	}
	least, most := slices.Min(c), slices.Max(c)
	if !(most > 0) {
		return nil, nil
	}
	if least < 0 {
		return nil, &LossError{Output: o.name(), Expected: "weights that are at least 0",
			Found: fmt.Sprintf("weights from %.4g to %.4g", least, most),
			Hint: "what has a negative weight is driven away from its target without end: is it meant to be a mask " +
				"of 0 and 1, or does an advantage stand in the cost, which is declared by Policy?"}
	}
	target := make([]float64, len(c))
	for i, g := range q.grad[0] {
		if c[i] > 0 {
			target[i] = g / c[i]
		}
	}
	z := make([]float64, len(c))
	linalg.Convert(z, q.z[0])
	o.ImpliedTarget(target, target, z, o.cols)
	if err := o.CheckTarget(target, o.cols, lossTolerance); err != nil {
		return nil, &LossError{Output: o.name(), Expected: "targets that the distribution can have, with weights",
			Found: fmt.Sprintf("weights from %.4g to %.4g, and %v", least, most, err),
			Hint: "look at the targets; weights of cases may be anything that is at least 0, and Weighted declares " +
				"them"}
	}
	return c, o.compareWeights(c, declared)
}

// declaredWeights returns the weights of an output as they were declared, by entry, or nil.
func declaredWeights[T program.Float](o *output, tail *lossTail[T], entries int) ([]float64, error) {
	if o.weight == nil {
		return nil, nil
	}
	n := tail.run.Program().Node(o.weight)
	if n == nil {
		return nil, &GraphError{Node: program.NameOf(o.weight), What: "looking for the weights among what the cost " +
			"is computed from", Err: ErrLoss, Hint: "declare the node that the cost multiplies the likelihoods with"}
	}
	values := tail.run.Value(n).Data
	declared := make([]float64, entries)
	cases := max(entries/o.perCase(), 1)
	for i := range declared {
		switch {
		case o.beside != nil && 2*len(values) == entries: // a row is that of the targets, twice
			half := o.cols / 2
			declared[i] = float64(values[i/o.cols*half+i%half])
		case len(values)%cases == 0 && entries%len(values) == 0: // the same for what a case has behind
			declared[i] = float64(values[i/(entries/len(values))])
		case o.perCase()%len(values) == 0: // the same for all cases
			declared[i] = float64(values[i%o.perCase()/(o.perCase()/len(values))])
		default:
			return nil, &LossError{Output: o.name(), Expected: "weights of cases, or of a case's targets",
				Found: fmt.Sprintf("the shape %v for an output of shape %v", n.Shape, o.node.Shape),
				Hint:  "reshape the weights in the model"}
		}
		if !(declared[i] >= 0) {
			return nil, &LossError{Output: o.name(), Expected: "weights that are at least 0",
				Found: fmt.Sprintf("the weight %.4g", declared[i]), Hint: "is it meant to be a mask of 0 and 1?"}
		}
	}
	return declared, nil
}

// findWeights finds the weights of output i among all, if it has any. It makes probes at opposite
// points when they are first needed.
func findWeights[T program.Float](i int, tail *lossTail[T], outputs []*output, probes []probe[T],
	opposite *[]probe[T]) (factors []float64, err error) {
	if *opposite == nil {
		if *opposite, err = opposites(tail, outputs, probes); err != nil {
			return nil, err
		}
	}
	declared, err := declaredWeights(outputs[i], tail, len(probes[i].grad[0]))
	if err != nil {
		return nil, err
	}
	return probes[i].weights(outputs[i], &(*opposite)[i], declared)
}

// weighPolicy takes the weights that were declared, of an output that the cost is not compared
// with.
func weighPolicy[T program.Float](i int, tail *lossTail[T], o *output, outputs int, shared bool, w *weighting) error {
	declared, err := declaredWeights(o, tail, tail.leaves[i].Size())
	switch {
	case err != nil || declared == nil:
	case slices.ContainsFunc(declared, func(x float64) bool { return x > 0 }):
		w.weigh(i, outputs, declared)
	case shared:
		w.set(i, outputs, declared)
	}
	return err
}

// compareWeights reports weights that are not a multiple of those that were declared.
func (o *output) compareWeights(c, declared []float64) error {
	if declared == nil {
		return nil
	}
	var dot, norm float64
	for i, d := range declared {
		dot, norm = dot+c[i]*d, norm+d*d
	}
	factor := dot / norm
	for i, d := range declared {
		if !(math.Abs(c[i]-factor*d) <= 2*lossTolerance*slices.Max(c)) {
			return &LossError{Output: o.name(), Expected: "a cost with the weights that were declared",
				Found: fmt.Sprintf("%.4g times as much of entry %d, of the weight %.4g", c[i]/factor, i, d),
				Hint:  "multiply the terms of the cost with the weights before they are summed, or declare none"}
		}
	}
	return nil
}
