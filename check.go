package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// checkLoss compares the user's cost with the declared distribution and finds the scale c of each
// output.
//
// For most distributions d(-log r(y|z))/dz = mean(z) - T(y); see fitted for the others. So whatever
// the targets are, the gradient of the cost with respect to z at two points must differ by c
// (mean(z1) - mean(z0)), and what is left, mean(z0) - gradient/c, must be a possible target. The
// cost is run privately with the outputs cut off and given random z0 and z1, so the check does not
// depend on what the model predicts.
//
// An output of gradient zero has the factor 0 if others have not, and if the cost has weights that
// can be zero for a time, as where all cases are padding at a step. Then its form is checked when
// it has another.
//
// If unchecked, a cost that is not what was declared is taken to be a mean over cases. If shared,
// other ranks have cases too, and so an output of gradient zero has the weights 0 for now.
func checkLoss[T program.Float](tail *lossTail[T], outputs []*output, seed uint64, unchecked, shared bool,
	kept *[]probe[T]) (scales []float64, weights weighting, probes []probe[T], err error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	probes = probesOf(kept, tail.leaves)
	for range widenings {
		if err := probeCost(tail, outputs, probes, rng); err != nil {
			return nil, weights, nil, err
		}
		again := false
		for i, o := range outputs {
			again = o.precision > 0 && !o.byCost && probes[i].widen() || again
		}
		if !again {
			break
		}
	}
	allowed := (len(tail.movers) > 0 || tail.masked) &&
		slices.ContainsFunc(probes, func(p probe[T]) bool { return p.largest() > 0 })
	var opposite []probe[T] // made when first needed
	for i, o := range outputs {
		entries := len(probes[i].grad[0])
		if o.byCost && (shared || probes[i].largest() > 0) {
			scales = append(scales, o.scaleOfMean(entries))
			continue
		}
		if shared && !o.policy && probes[i].largest() == 0 {
			tail.weighs[i] = true
			weights.set(i, len(outputs), make([]float64, entries))
			scales = append(scales, o.scaleOfMean(entries))
			continue
		}
		if o.policy {
			if err := weighPolicy(i, tail, o, len(outputs), shared, &weights); err != nil {
				return nil, weights, nil, err
			}
			scales = append(scales, o.scaleOfMean(entries))
			continue
		}
		if allowed && probes[i].largest() == 0 {
			if !tail.switchedOff() { // what has no weight are its cases
				tail.weighs[i] = true
				weights.set(i, len(outputs), make([]float64, entries))
			}
			scales = append(scales, 0)
			continue
		}
		if l, ok := o.Likelihood.(likelihood.Fitted); ok {
			c, err := fitScale(i, l, tail, outputs, probes, &weights)
			if err != nil && unchecked {
				c, err = o.scaleOfMean(entries), nil
			}
			if err != nil {
				return nil, weights, nil, err
			}
			scales = append(scales, c)
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
			c, err = o.scaleOfMean(entries), nil
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
	own, err := g.ownCost(nil)
	if err == nil && math.IsNaN(own-own) {
		hint = notFinite(g.costRun, g.whole.Path())
	}
	if err == nil && !math.IsNaN(own-own) {
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

// causeOf says in the error of a gradient that is not finite where in the cost that begins.
func causeOf[T program.Float](g *graph[T], err error) error {
	var p *ParamError
	if !errors.Is(err, errGradientNotFinite) || !errors.As(err, &p) {
		return err
	}
	if own, failed := g.ownCost(nil); failed == nil && math.IsNaN(own-own) {
		p.Hint = strings.Replace(p.Hint, noNumber, notFinite(g.costRun, g.whole.Path()), 1)
	}
	return err
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
