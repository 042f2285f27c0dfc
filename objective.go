package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// objective evaluates h on the whole batch: the user's cost in the solver's units, plus the L2
// term. It can do so at other parameters than the present ones.
//
// What is random draws the same numbers at every point of an update. If others, it draws others
// than those that the step was made from: a step fits the masks of Dropout as it fits the cases of
// a small batch, and looks perfect with these.
type objective struct {
	eta    float64
	others bool
	on     *ranks // whose cases count too
}

// at returns h on all cases of the batch. values holds the values of the parameters. If an element
// is nil, the parameter keeps the user's value and is left out of the L2 term.
func at[T program.Float](h objective, b batch[T], params []*parameter[T], values [][]T) (float64, error) {
	var squares float64 // of the L2 term
	for i, v := range values {
		squares += params[i].own.eta(h.eta) * linalg.Dot64(v, v)
	}
	sum, err := costOf(h.others, b, params, values)
	cases := float64(b.cases())
	if err := h.on.meet(atObjective, err, &sum, &cases); err != nil {
		return 0, err
	}
	if math.IsInf(sum, 0) {
		sum = math.NaN()
	}
	return sum/cases + squares/2, nil
}

// costOf returns the cost of a batch, summed over its cases and in the solver's units.
func costOf[T program.Float](others bool, b batch[T], params []*parameter[T], values [][]T) (sum float64, err error) {
	for i := range b {
		under := b[i].conditions
		if others {
			under = under.others()
		}
		cost, err := costAt(&b[i], under, params, values)
		if err != nil {
			return 0, graphError(err)
		}
		sum += cost / b[i].scale()
	}
	return sum, nil
}

// costAt returns the cost of a chunk under these conditions, in the user's units.
func costAt[T program.Float](k *chunk[T], c conditions[T], params []*parameter[T], values [][]T) (float64, error) {
	g := k.graph
	run, err := g.costs()
	if err != nil {
		return 0, err
	}
	for i, p := range params {
		leaf := g.whole.Node(k.plan.places[p].src)
		if leaf == nil || values[i] == nil {
			continue
		}
		if err := run.Bind(leaf, values[i]); err != nil {
			return 0, err
		}
		defer run.Bind(leaf, nil)
	}
	c.set(run)
	if err := run.Evaluate(); err != nil {
		return 0, err
	}
	return float64(run.Value(g.whole.Outputs[0]).Data[0]), nil
}

// present returns h at the present parameters.
func present[T program.Float](h objective, b batch[T], params []*parameter[T]) (float64, error) {
	values := make([][]T, len(params))
	for i, p := range params {
		if p.given {
			values[i] = p.weights.data
		}
	}
	return at(h, b, params, values)
}

// after returns h at the parameters after the updates. An update is nil for a parameter that was
// not given.
func after[T program.Float](h objective, b batch[T], params []*parameter[T], updates [][]T) (float64, error) {
	trial := make([][]T, len(params))
	for i, p := range params {
		if updates[i] != nil {
			trial[i] = p.borrow()
			p.after(trial[i], updates[i])
		}
	}
	value, err := at(h, b, params, trial)
	for i, p := range params {
		p.giveBack(trial[i])
	}
	return value, err
}
