package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Before the first step there are no steps that later batches could confirm. But the batch has two
// halves, which are independent: what their gradients have in common is signal, and their difference
// d is noise. With preconditioned gradients the noise in g^T P g is n_a n_b / B^2 d^T P d in the
// mean, where n_a and n_b are the cases in the halves.

// halve shortens the first step to the part that the halves of its batch have in common, and makes
// it the first evidence.
func (a *attempt[T]) halve(p *proposed[T], damp float64) error {
	noise, ok, err := a.noiseOfHalves(p.inverses)
	if err != nil || !ok {
		return err
	}
	vu, alpha := -p.span.slope[0], p.alpha/p.factor
	if !(vu > 0) || !(alpha > 0) {
		return nil
	}
	signal := math.Min(1-noise/vu, alpha) // more than the whole step is no evidence
	limit := normLimit(a.cfg, a.cases, a.predicted) / trustedPart(a.cases)
	p.span.evidence = evidence{}.with(signal*alpha*vu, alpha*alpha*vu, limit)
	by := p.span.evidence.share(a.cases, a.predicted.noise/a.predicted.weighted) / p.factor
	if !(by < 1) {
		return nil
	}
	p.step, p.factor = p.scaled(by, 0, &p.span, damp), by*p.factor
	for _, u := range p.updates {
		linalg.Scale(T(by), u)
	}
	return nil
}

// noiseOfHalves returns n_a n_b / B^2 d^T P d. ok is false where the batch has no halves. Gradients
// and directions are the same afterwards.
func (a *attempt[T]) noiseOfHalves(made *inverses[T]) (noise float64, ok bool, err error) {
	defer a.keep(func(p *parameter[T]) []T { return p.grad })()
	defer a.keep(func(p *parameter[T]) []T { return p.direction })()
	first, second, err := a.differ()
	if err != nil || second == 0 {
		return 0, false, err
	}
	if made.direct(a.plan.blocks, a.plan.order, &lowRanks[T]{}) != nil {
		return 0, false, nil // the step itself could be computed
	}
	for _, p := range a.plan.order {
		if p.given {
			noise += linalg.Dot64(p.grad, p.direction)
		}
	}
	all := float64(first + second)
	return float64(first) / all * float64(second) / all * noise, true, nil
}

// keep copies pick of each parameter that was given. It returns a function that writes it back.
func (a *attempt[T]) keep(pick func(*parameter[T]) []T) (restore func()) {
	saved := a.given(pick)
	for i, p := range a.plan.order {
		if saved[i] != nil {
			saved[i] = append(p.borrow()[:0], saved[i]...)
		}
	}
	return func() {
		for i, p := range a.plan.order {
			if saved[i] != nil {
				copy(pick(p), saved[i])
				p.giveBack(saved[i])
			}
		}
	}
}

// differ makes the gradients of the parameters the difference between those of the two halves, each
// the mean over its cases: every other case is in the first. It returns how many cases they have.
func (a *attempt[T]) differ() (first, second int, err error) {
	first, second = (a.cases+1)/2, a.cases/2
	if second == 0 {
		return 0, 0, nil
	}
	sides := [2]T{T(1 / float64(first)), T(-1 / float64(second))}
	for _, p := range a.plan.order {
		if p.given {
			clear(p.grad)
		}
	}
	from := 0
	for i := range a.batch {
		ok, err := a.addSides(&a.batch[i], from, sides)
		if err != nil || !ok {
			return 0, 0, graphError(err)
		}
		from += a.batch[i].cases
	}
	return first, second, nil
}

// addSides adds the gradients of a chunk's cases, multiplied by that number of their half. The
// chunk begins with case number from of the batch. ok is false where the chunk has no cases that can
// be told apart.
func (a *attempt[T]) addSides(k *chunk[T], from int, sides [2]T) (ok bool, err error) {
	g := k.graph
	run, err := g.costs()
	if err != nil {
		return false, err
	}
	var leaves []*program.Node
	var params []*parameter[T]
	for _, p := range a.plan.order {
		if leaf := g.whole.Node(k.plan.places[p].src); leaf != nil && p.given {
			leaves, params = append(leaves, leaf), append(params, p)
		}
	}
	path := g.whole.Path(leaves...)
	if g.whole.CheckDifferentiable(path) != nil {
		return false, nil
	}
	k.conditions.set(run)
	if err := run.Forward(nil); err != nil {
		return false, err
	}
	cost := program.Seed[T]{Node: g.whole.Outputs[0], Data: []T{1}}
	if err := run.Reverse([]program.Seed[T]{cost}, path); err != nil {
		return false, err
	}
	seeds, ok := k.multiplied(run, k.sides(from, sides))
	if !ok {
		return false, nil
	}
	if err := run.Reverse(seeds, path); err != nil {
		return false, err
	}
	for i, p := range params {
		linalg.Axpy(T(1/k.scale()), run.Gradient(leaves[i]), p.grad)
	}
	return true, nil
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

// multiplied returns the derivatives of the cost by the outputs, each multiplied by the number of
// its case.
func (k *chunk[T]) multiplied(run *program.Run[T], by []T) (seeds []program.Seed[T], ok bool) {
	for _, o := range k.plan.model.outputs {
		node := k.graph.whole.Node(o.output())
		if node == nil || len(run.Gradient(node)) != len(by)*o.perCase() {
			return nil, false // the cost does not depend on it
		}
		data := append([]T(nil), run.Gradient(node)...)
		for j := range data {
			data[j] *= by[j/o.perCase()]
		}
		seeds = append(seeds, program.Seed[T]{Node: node, Data: data})
	}
	return seeds, true
}
