package kfac

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// inversePeriod returns T3 for a plan. It is the smallest period for which the inverses take a
// small part of the operations of the user's VM. Operations are counted, not timed. Where inverses
// cost almost nothing, fresh ones are worth more than the paper's T3 = 20.
func inversePeriod[T program.Float](cfg *config, p *planned[T]) int {
	if cfg.inversePeriod > 0 {
		return cfg.inversePeriod
	}
	inverses := p.inverseOperations
	if cfg.eigenproblems() {
		inverses *= eigenWork
	}
	period := math.Ceil(inverses / (inverseShare * max(p.iterationOperations, p.allOperations, leastIteration)))
	return int(min(max(period, 1), longestPeriod))
}

const (
	inverseShare   = 1.0 / 25 // largest part of an iteration's operations for inverses
	leastIteration = 2.5e6    // lower bound for an iteration's operations: small graphs take time too
)

// firstInverses: this many first steps compute the inverses, for any period (Martens & Grosse 2015,
// section 8).
const firstInverses = 3

// inverses holds the inverses for one step, by block. An element of `of` is nil if the step uses
// the block's current inverse.
type inverses[T program.Float] struct {
	of      []curvature.Inverse[T]
	waiting []bool // by block: the inverse still belongs to the background
	anew    bool   // all were computed in this step
	renewed bool   // some were computed in this step or came from the background
	raised  int    // number of factors whose damping was raised
}

func newInverses[T program.Float](blocks int) *inverses[T] {
	return &inverses[T]{of: make([]curvature.Inverse[T], blocks), waiting: make([]bool, blocks)}
}

// invert computes the inverses of all blocks.
func invert[T program.Float](blocks []*block[T], avg averages[T], gamma, eta float64) (*inverses[T], error) {
	return inversesOf(blocks, invertAll(blocks, avg, gamma, eta, nil),
		func(i int, failure error) (curvature.Inverse[T], error) {
			return restarted(blocks[i], avg, i, dampingOf(blocks[i], gamma, eta), failure, blocks[i].Restart)
		})
}

// An outcome is what has come of an inversion: an inverse or an error.
type outcome[T program.Float] struct {
	inverse curvature.Inverse[T]
	err     error
}

// invertAll computes the inverses of the blocks that are this rank's to compute, several at the
// same time.
func invertAll[T program.Float](blocks []*block[T], avg averages[T], gamma, eta float64, on *ranks) []outcome[T] {
	var first, then []func()
	making := make([]*curvature.Inversion[T], len(blocks))
	for i, b := range blocks {
		if b.home.computes(on) {
			making[i] = b.Invert(avg[i], dampingOf(b, gamma, eta))
			first, then = append(first, making[i].First...), append(then, making[i].Then...)
		}
	}
	parallel.Jobs(first)
	parallel.Jobs(then)
	of := make([]outcome[T], len(blocks))
	for i := range blocks { // every inversion must give back its memory
		if making[i] != nil {
			of[i].inverse, of[i].err = making[i].Inverse()
		}
	}
	return of
}

// inversesOf gathers the inverses of all blocks. again makes one in the place of an error.
func inversesOf[T program.Float](blocks []*block[T], of []outcome[T],
	again func(i int, failure error) (curvature.Inverse[T], error)) (*inverses[T], error) {
	made := newInverses[T](len(blocks))
	made.anew, made.renewed = true, true
	var failed error
	for i, b := range blocks {
		v, err := of[i].inverse, of[i].err
		if err != nil {
			v, err = again(i, err)
		}
		if err != nil {
			failed = firstOf(failed, b.layerError(err))
			continue
		}
		made.of[i] = v
		made.raised += v.Raised()
	}
	if failed != nil {
		made.release()
		return nil, failed
	}
	return made, nil
}

// dampingOf is gamma for a block: gamma^2 - eta is what is beyond the L2 term of all parameters,
// and its part is by the block's factor on lambda.
func dampingOf[T program.Float](b *block[T], gamma, eta float64) tikhonov {
	own := b.own()
	if own.lambda == 1 && own.eta(eta) == eta {
		return tikhonov(gamma)
	}
	square := own.lambda*max(gamma*gamma-eta, belowGamma*gamma*gamma) + own.eta(eta)
	return tikhonov(math.Sqrt(square))
}

// restarted is the inverse of a block from the present update alone, in whose place in avg that is
// then. So a batch that was far off does not stand in the way of all that come after it. It returns
// the failure of the averages where that can't be inverted either. restart has the averages start
// anew.
func restarted[T program.Float](b *block[T], avg averages[T], i int, gamma tikhonov, failure error,
	restart func() (*curvature.Averages[T], error)) (curvature.Inverse[T], error) {
	if avg[i].Updates == 1 {
		return nil, failure
	}
	alone, err := restart()
	if err != nil {
		return nil, failure
	}
	making := b.Invert(alone, gamma)
	making.Run()
	v, err := making.Inverse()
	if err != nil {
		b.Release(alone)
		return nil, failure
	}
	b.Release(avg[i])
	avg[i] = alone
	return v, nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// immediate computes the inverses of the blocks whose inverses cost nothing.
func immediate[T program.Float](blocks []*block[T], avg averages[T], gamma, eta float64) *inverses[T] {
	made := newInverses[T](len(blocks))
	for i, b := range blocks {
		if b.Immediate() {
			// The inverse of an Immediate block can't fail.
			made.of[i], _ = b.Invert(avg[i], dampingOf(b, gamma, eta)).Inverse()
		}
	}
	return made
}

// rebase puts averages that are in the basis of an inverse into that of the inverse now in use. It
// returns the shares that inverses then have of them, where there are ranks, of which one is the
// first.
func rebase[T program.Float](blocks []*block[T], first bool) (shares [][]T) {
	for _, b := range blocks {
		if r, ok := b.Block.(curvature.Rebased[T]); ok && b.inverse != nil {
			shares = append(shares, r.Rebase(b.inverse, first))
		}
	}
	return shares
}

// release gives back inverses that are not kept.
func (v *inverses[T]) release() {
	for i, inverse := range v.of {
		if inverse != nil && !v.waiting[i] {
			inverse.Release()
		}
		v.of[i] = nil
	}
}

// keep makes the inverses current.
func (v *inverses[T]) keep(blocks []*block[T]) {
	for i, b := range blocks {
		if v.of[i] == nil {
			continue
		}
		if b.inverse != nil {
			b.inverse.Release()
		}
		b.inverse, v.of[i] = v.of[i], nil
	}
}

// apply computes U = (F + damping)^-1 V of the blocks whose inverses this rank has.
func (v *inverses[T]) apply(blocks []*block[T], low *lowRanks[T], on *ranks) {
	for i, b := range blocks {
		inverse := v.of[i]
		if inverse == nil {
			inverse = b.inverse
		}
		b.weave(true)
		if b.home.has(on) {
			b.apply(inverse, low.of[b])
		}
	}
}

// directAll makes U of all blocks the directions.
func directAll[T program.Float](blocks []*block[T], params []*parameter[T]) error {
	for _, b := range blocks {
		b.direct()
	}
	for _, p := range params {
		if p.given && !linalg.Finite(p.direction) {
			return &ParamError{Param: p.name, Op: "preconditioning", Err: ErrNotFinite, Hint: "raise WithDamping"}
		}
	}
	return nil
}

// needsInverses reports whether a block has no inverse yet because it is new.
func needsInverses[T program.Float](blocks []*block[T]) bool {
	for _, b := range blocks {
		if b.inverse == nil && !b.Immediate() {
			return true
		}
	}
	return false
}

// background computes inverses beside the training steps (WithBackgroundInverses), a few blocks at
// a time. In each period T3, every block gets its turn, with a copy of its averages. Its new
// inverse is used from a fixed later step on. So the result does not depend on how long the
// computation took.
type background[T program.Float] struct {
	jobs map[*block[T]]*job[T]
}

// release gives back the averages that the inversion was made from; a job that was loaded has none.
func (j *job[T]) release(b *block[T]) {
	if j.averages != nil {
		b.Release(j.averages)
	}
}

// launch starts a goroutine for each block whose turn it is after step k. copied are the averages
// of a block, or nil if they can't be inverted.
func (g *background[T]) launch(blocks []*block[T], k, period, lag int, gamma, eta float64, on *ranks,
	copied func(*block[T]) *curvature.Averages[T]) {
	if g.jobs == nil {
		g.jobs = map[*block[T]]*job[T]{}
	}
	for b, j := range g.jobs {
		if k >= j.due+period { // the block was replaced, or recent graphs lack its parameters
			g.drop(b)
		}
	}
	if k < firstInverses {
		return // the next step computes all inverses
	}
	for i, b := range blocks {
		if k%period != i*period/len(blocks) || g.jobs[b] != nil || b.Immediate() {
			continue
		}
		avg := copied(b)
		if avg == nil {
			continue
		}
		j := &job[T]{due: k + lag, done: make(chan struct{})}
		g.jobs[b] = j
		if !b.home.computes(on) { // another rank does
			b.Release(avg)
			j.collected = true
			close(j.done)
			continue
		}
		j.averages, j.inversion = avg, b.Invert(avg, dampingOf(b, gamma, eta))
		go j.run()
	}
}

// failed reports whether a job that is due at step k has failed. If so, the step computes all
// inverses. If the job has panicked, failed returns an error instead. exchange has the ranks
// exchange what has come of jobs, or fails with an error.
func (g *background[T]) failed(blocks []*block[T], k int,
	exchange func([]*block[T], map[*block[T]]*job[T], error) error) (failed bool, err error) {
	var due []*block[T]
	for _, b := range blocks {
		if j := g.jobs[b]; j != nil && k >= j.due {
			due = append(due, b)
			_, failure := j.collect()
			failed = failed || failure != nil
			if j.panicked != nil && err == nil {
				err = &LayerError{Layer: b.groups[0].params[0].name, Op: "inverting in the background", Err: failure,
					Hint: "a bug in this package: please report it; the next step continues without this inverse"}
			}
		}
	}
	if err := exchange(due, g.jobs, err); err != nil {
		for _, b := range due {
			g.drop(b)
		}
		return false, err
	}
	for _, b := range due {
		failed = failed || g.jobs[b].err != nil
	}
	return failed, nil
}

// collectDue adds the inverses that are due at step k. They belong to the jobs until finish.
func (g *background[T]) collectDue(made *inverses[T], blocks []*block[T], k int) {
	for i, b := range blocks {
		if j := g.jobs[b]; j != nil && k >= j.due {
			made.of[i], _ = j.collect()
			made.waiting[i], made.renewed = true, true
			made.raised += made.of[i].Raised()
		}
	}
}

// finish ends the jobs whose inverses a step has kept. If anew, the step has computed all inverses,
// and finish drops all jobs of the blocks.
func (g *background[T]) finish(blocks []*block[T], k int, anew bool) {
	for _, b := range blocks {
		switch j := g.jobs[b]; {
		case j == nil:
		case anew:
			g.drop(b)
		case k >= j.due:
			j.release(b)
			delete(g.jobs, b)
		}
	}
}

// drop waits for a block's inversion and discards it.
func (g *background[T]) drop(b *block[T]) {
	j := g.jobs[b]
	if inverse, err := j.collect(); err == nil && inverse != nil {
		inverse.Release()
	}
	j.release(b)
	delete(g.jobs, b)
}

// take adds jobs of a state that was loaded, which have ended.
func (g *background[T]) take(jobs map[*block[T]]*job[T]) {
	if g.jobs == nil {
		g.jobs = map[*block[T]]*job[T]{}
	}
	maps.Copy(g.jobs, jobs)
}

// lowRanks holds the gradients of a step that are known in low-rank form, as products of the
// batch's inputs and errors, by block.
type lowRanks[T program.Float] struct {
	chosen []*block[T] // blocks for which the form is worth its backward sweep
	hooks  []*layerHook[T]
	of     map[*block[T]]*curvature.LowRank[T] // forms that match the gradient given to Step

	errors map[*block[T]][]T
	kept   []*block[T] // blocks whose errors are those of this step already
	forms  map[*block[T]]*curvature.LowRank[T]
}

func newLowRanks[T program.Float]() *lowRanks[T] {
	return &lowRanks[T]{of: map[*block[T]]*curvature.LowRank[T]{}, errors: map[*block[T]][]T{},
		forms: map[*block[T]]*curvature.LowRank[T]{}}
}

// choose selects the blocks that gain by the low-rank form. The run must have observed the whole
// batch. It selects none if the saving is not worth the additional backward sweep.
func (r *lowRanks[T]) choose(p *planned[T]) {
	r.pick(p, func(k *curvature.Kronecker[T], _ *layerHook[T]) int {
		saved, _ := k.LowRankSavings()
		return saved
	})
}

// expect selects the blocks that will be chosen when the run, of the whole batch, is observed, or
// more of them. What it selects follows from graph and state, not from the step before, which a
// training that was loaded does not know of.
func (r *lowRanks[T]) expect(p *planned[T]) {
	r.pick(p, func(k *curvature.Kronecker[T], h *layerHook[T]) int {
		if c := h.coords[0]; c != nil && !c.settled {
			return 0
		}
		cases := p.model.Cases
		return k.LowRankGain(cases * h.layers[0].Positions(cases))
	})
}

// pick selects blocks by the multiplications that they save.
func (r *lowRanks[T]) pick(p *planned[T], by func(*curvature.Kronecker[T], *layerHook[T]) int) {
	r.reset()
	saved, sweep := 0, 0
	for _, l := range p.layers {
		positions := p.model.Cases
		if !l.Reduce {
			positions *= l.Positions(p.model.Cases)
		}
		sweep += positions * l.In * l.Out
	}
	for i, b := range p.blocks {
		k, ok := b.Block.(*curvature.Kronecker[T])
		if !ok || !p.unreduced[b] {
			continue
		}
		h := p.hooks[i].(*layerHook[T])
		if s := by(k, h); s > 0 {
			r.chosen, r.hooks = append(r.chosen, b), append(r.hooks, h)
			saved += s
		}
	}
	if saved <= worthSweep*sweep {
		r.reset()
	}
}

// reset drops the forms of the previous step.
func (r *lowRanks[T]) reset() {
	clear(r.chosen)
	clear(r.hooks)
	r.chosen, r.hooks = r.chosen[:0], r.hooks[:0]
	clear(r.of)
}

// forget drops the references to the previous step's graph and to blocks that may have been
// replaced.
func (r *lowRanks[T]) forget() {
	r.reset()
	clear(r.errors)
	clear(r.kept)
	r.kept = r.kept[:0]
	clear(r.forms)
}

// worthSweep: the low-rank form must save this many multiplications for each multiplication of the
// backward sweep. A sweep also does other work.
const worthSweep = 2

// sweep computes the errors of the chosen blocks. It sweeps the gradient of the objective back
// through the forward pass of the statistics.
func (r *lowRanks[T]) sweep(g *graph[T], p *planned[T]) error {
	defer func() { r.kept = r.kept[:0] }()
	if !slices.ContainsFunc(r.chosen, func(b *block[T]) bool { return !slices.Contains(r.kept, b) }) {
		return nil
	}
	m := p.model
	seeds, err := g.tail.gradients(m.run, m.outputs, lowRankScale(g, m))
	if err != nil {
		return graphError(err)
	}
	if err := m.run.Reverse(seeds, p.path); err != nil {
		return graphError(err)
	}
	r.take(m.run, 1)
	return nil
}

// lowRankScale makes a gradient of the user's cost one of the objective.
func lowRankScale[T program.Float](g *graph[T], m *model[T]) T {
	return T(1 / (g.scale() * float64(g.count(m.Cases))))
}

// keep takes the errors of the blocks that are expected to be chosen from the run of the solver's
// own VM, which has swept back the gradient of the cost. Times scale it is that of the objective.
func (r *lowRanks[T]) keep(p *planned[T], scale T) {
	r.expect(p)
	r.take(p.model.run, scale)
	r.kept = append(r.kept[:0], r.chosen...)
}

// take takes the errors of the chosen blocks from a run.
func (r *lowRanks[T]) take(run *program.Run[T], scale T) {
	for i, b := range r.chosen {
		r.errors[b] = r.hooks[i].errors(r.errors[b][:0], run)
		if scale != 1 {
			linalg.Scale(scale, r.errors[b])
		}
	}
}

// match decides for which blocks the form is valid: V must equal the product. V is the gradient
// that the user's VM computed and that was given to Step.
func (r *lowRanks[T]) match(seed uint64, steps int) {
	if len(r.chosen) == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(seed, uint64(steps)))
	for _, b := range r.chosen {
		form := r.forms[b]
		if form == nil {
			form = &curvature.LowRank[T]{}
			r.forms[b] = form
		}
		b.Block.(*curvature.Kronecker[T]).LowRank(form, r.errors[b])
		b.weave(true)
		if form.Matches(b.v[0], matchTolerance*rounding[T](), rng) {
			r.of[b] = form
		}
	}
}

// matchTolerance: V may differ from the product by this fraction of a gradient's rounding error,
// relative to its norm. A smaller difference in V is lost.
const matchTolerance = 0.1
