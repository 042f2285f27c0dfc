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

// noiseOfHalves returns n_a n_b / B^2 d^T P d. ok is false where the batch has no halves. It writes
// over the directions.
func (a *attempt[T]) noiseOfHalves(made *inverses[T]) (noise float64, ok bool, err error) {
	saved := a.given(func(p *parameter[T]) []T { return p.grad })
	for i, g := range saved {
		if g != nil {
			saved[i] = a.plan.order[i].borrow()
			copy(saved[i], g)
		}
	}
	defer func() {
		for i, p := range a.plan.order {
			if saved[i] != nil {
				copy(p.grad, saved[i])
				p.giveBack(saved[i])
			}
		}
	}()
	first, second, err := a.differ()
	if err != nil || first == 0 || second == 0 {
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

// differ makes the gradients of the parameters the difference between those of the two halves, each
// the mean over its cases. It returns how many cases they have. Where there are chunks, one half are
// those before the last.
func (a *attempt[T]) differ() (first, second int, err error) {
	last := &a.batch[len(a.batch)-1]
	if n := a.cases - last.cases; n > 0 {
		for _, p := range a.plan.order {
			if p.given {
				p.differ(a.cfg.l2, n, last.cases)
			}
		}
		return n, last.cases, nil
	}
	return a.differByCases(last)
}

// differ makes the gradient the difference between that of the chunks before, of so many cases, and
// that of the last.
func (p *parameter[T]) differ(eta float64, before, last int) {
	all := float64(before + last)
	for i, g := range p.grad {
		sum := float64(p.accumulated[i])
		rest := all*(float64(g)-eta*float64(p.weights.data[i])) - sum
		p.grad[i] = T(sum/float64(before) - rest/float64(last))
	}
}

// differByCases draws the halves of a chunk, and sweeps back the derivatives by the outputs with a
// sign and a weight for each half.
func (a *attempt[T]) differByCases(k *chunk[T]) (first, second int, err error) {
	g := k.graph
	first, second = k.cases/2, k.cases-k.cases/2
	if first == 0 || a.plan.model.Whole != "" {
		return 0, 0, nil
	}
	run, err := g.costs()
	if err != nil {
		return 0, 0, graphError(err)
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
		return 0, 0, nil
	}
	k.conditions.set(run)
	if err := run.Forward(nil); err != nil {
		return 0, 0, graphError(err)
	}
	cost := program.Seed[T]{Node: g.whole.Outputs[0], Data: []T{1}}
	if err := run.Reverse([]program.Seed[T]{cost}, path); err != nil {
		return 0, 0, graphError(err)
	}
	weight := make([]T, k.cases)
	for i, c := range chunkRandom(a.cfg, -1, a.k).Perm(k.cases) {
		if weight[c] = T(1 / float64(second)); i < first {
			weight[c] = T(-1 / float64(first))
		}
	}
	seeds, ok := a.weighed(k, run, weight)
	if !ok {
		return 0, 0, nil
	}
	if err := run.Reverse(seeds, path); err != nil {
		return 0, 0, graphError(err)
	}
	for i, p := range params {
		copy(p.grad, run.Gradient(leaves[i]))
		linalg.Scale(T(1/k.scale()), p.grad)
	}
	return first, second, nil
}

// weighed returns the derivatives of the cost by the outputs, each multiplied by its case's weight.
func (a *attempt[T]) weighed(k *chunk[T], run *program.Run[T], weight []T) (seeds []program.Seed[T], ok bool) {
	for _, o := range k.plan.model.outputs {
		node := k.graph.whole.Node(o.output())
		if node == nil || len(run.Gradient(node)) != len(weight)*o.perCase() {
			return nil, false // the cost does not depend on it
		}
		data := append([]T(nil), run.Gradient(node)...)
		for j := range data {
			data[j] *= weight[j/o.perCase()]
		}
		seeds = append(seeds, program.Seed[T]{Node: node, Data: data})
	}
	return seeds, true
}
