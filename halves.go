package kfac

import (
	"errors"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Before the first step there are no steps that later batches could confirm. But the batch has two
// halves, which are independent: what their gradients have in common is signal, and their
// difference d is noise. With the inverse P, the noise in g^T P g is n_a n_b / B^2 d^T P d in the
// mean, where n_a and n_b are the cases in the halves.

// noiseOfHalves returns n_a n_b / B^2 d^T P d. ok is false where the batch has no halves. Gradients
// and directions are the same afterwards.
func noiseOfHalves[T program.Float](plan *planned[T], b batch[T], made *inverses[T], on *distributed[T]) (
	noise float64, ok bool, err error) {
	defer keep(plan.order, func(p *parameter[T]) []T { return p.grad })()
	defer keep(plan.order, func(p *parameter[T]) []T { return p.direction })()
	first, second, err := differ(plan.order, b, on)
	if err != nil || second == 0 {
		return 0, false, err
	}
	if err := on.direct(made, plan.blocks, plan.order, &lowRanks[T]{}); err != nil {
		var told *RankError
		if errors.As(err, &told) {
			return 0, false, err
		}
		return 0, false, nil // the step itself could be computed
	}
	for _, p := range plan.order {
		if p.given {
			noise += linalg.Dot64(p.grad, p.direction)
		}
	}
	all := float64(first + second)
	return float64(first) / all * float64(second) / all * noise, true, nil
}

// keep copies pick of each parameter that was given. It returns a function that writes it back.
func keep[T program.Float](params []*parameter[T], pick func(*parameter[T]) []T) (restore func()) {
	saved := make([][]T, len(params))
	for i, p := range params {
		if p.given {
			saved[i] = append(p.borrow()[:0], pick(p)...)
		}
	}
	return func() {
		for i, p := range params {
			if saved[i] != nil {
				copy(pick(p), saved[i])
				p.giveBack(saved[i])
			}
		}
	}
}

// differ makes the gradients of the parameters the difference between those of the two halves, each
// the mean over its cases: every other case is in the first. It returns how many cases they have,
// or no second if the cases can't be told apart. Both have cases of all ranks.
func differ[T program.Float](params []*parameter[T], b batch[T], on *distributed[T]) (first, second int, err error) {
	x, y := b.halves()
	if err := on.meet(atHalves, nil, &x, &y); err != nil || y == 0 {
		return 0, 0, err
	}
	sides, from, failed := [2]T{T(1 / x), T(-1 / y)}, 0, 0.0
	var differences [][]T
	for _, p := range params {
		if p.given {
			clear(p.grad)
			differences = append(differences, p.grad)
		}
	}
	for i := 0; i < len(b) && err == nil && failed == 0; i++ {
		ok := false
		if ok, err = b[i].addSides(params, b[i].shard.from(from), sides); !ok {
			failed = 1
		}
		from += b[i].shard.of(b[i].cases)
	}
	if err := on.meet(atHalves, err, &failed); err != nil || failed > 0 {
		return 0, 0, err
	}
	if on.ranks != nil {
		on.addAll(differences)
	}
	return int(x), int(y), nil
}

// halves returns how many cases of this rank are in each half.
func (b batch[T]) halves() (first, second float64) {
	from := 0
	for i := range b {
		odd, n := b[i].shard.from(from)%2, b[i].cases
		first += float64((n + 1 - odd) / 2)
		second += float64((n + odd) / 2)
		from += b[i].shard.of(n)
	}
	return first, second
}

// addSides adds the gradients of a chunk's cases, each multiplied by the number of its half. The
// chunk begins with case number from of the batch. ok is false where its cases can't be told apart.
func (k *chunk[T]) addSides(params []*parameter[T], from int, sides [2]T) (ok bool, err error) {
	m := k.plan.model
	var leaves []*program.Node
	var given []*parameter[T]
	for _, p := range params {
		if leaf := k.plan.places[p].leaf; leaf != nil && p.given {
			leaves, given = append(leaves, leaf), append(given, p)
		}
	}
	path := m.Path(leaves...)
	if m.CheckDifferentiable(path) != nil {
		return false, nil
	}
	if err := m.forward(k.conditions, nil); err != nil {
		return false, err
	}
	seeds, err := k.costGradients()
	if err != nil {
		return false, graphError(err)
	}
	if !k.multiply(seeds, k.sides(from, sides)) {
		return false, nil
	}
	if err := m.run.Reverse(seeds, path); err != nil {
		return false, graphError(err)
	}
	for i, p := range given {
		linalg.Axpy(T(1/k.scale()), m.run.Gradient(leaves[i]), p.grad)
	}
	return true, nil
}

// costGradients returns the derivatives of the cost by the outputs, which the model's run holds.
func (k *chunk[T]) costGradients() ([]program.Seed[T], error) {
	tail := k.graph.tail
	defer k.useTail()()
	return tail.gradients(k.plan.model.run, k.plan.model.outputs, 1)
}

// sides returns the number of its half for each case that counts, and 0 for the others.
func (k *chunk[T]) sides(from int, sides [2]T) []T {
	of := make([]T, k.plan.model.Cases)
	if k.weighting.cases == nil {
		for i := range of {
			of[i] = sides[(from+i)%2]
		}
	}
	for i, c := range k.weighting.cases {
		of[c] = sides[(from+i)%2]
	}
	return of
}

// multiply multiplies derivatives of the cost by the outputs with the number of their case. It
// reports whether their cases can be told apart.
func (k *chunk[T]) multiply(seeds []program.Seed[T], by []T) bool {
	for i, o := range k.plan.model.outputs {
		data, perCase := seeds[i].Data, o.perCase()
		if len(data) != len(by)*perCase || seeds[i].Node.CaseAxis != 0 && len(by) > 1 {
			return false
		}
		for j := range data {
			data[j] *= by[j/perCase]
		}
	}
	return true
}
