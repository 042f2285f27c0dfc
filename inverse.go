package kfac

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime/debug"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// inversePeriod is T3 for a plan: so many steps that the inverses take a small part of what the
// user's VM has to compute, by counting. Fresh inverses are worth more than the paper's T3 = 20
// gives where they cost next to nothing.
func inversePeriod[T program.Float](cfg *config, p *planned[T]) int {
	if cfg.inversePeriod > 0 {
		return cfg.inversePeriod
	}
	inverses := p.inverseOperations
	if cfg.tridiagonal || cfg.timing != TimeIndependent {
		inverses *= eigenWork
	}
	period := math.Ceil(inverses / (inverseShare * max(p.iterationOperations, leastIteration)))
	return int(min(max(period, 1), longestPeriod))
}

const (
	inverseShare   = 1.0 / 25 // of an iteration's operations
	leastIteration = 2.5e6    // operations that an iteration's time is worth where there is little to compute
	eigenWork      = 20       // times the operations of an inverse are those of the eigenproblems besides
)

// firstInverses is the number of first steps that compute the inverses whatever the period is
// (Martens & Grosse 2015, section 8).
const firstInverses = 3

// inverses are those that a step has, by block; nil where the current one serves.
type inverses[T program.Float] struct {
	of       []curvature.Inverse[T]
	waiting  []bool // by block: it still belongs to the background
	anew     bool   // all were computed
	restarts int    // blocks whose averages were started anew for it
	renewed  bool   // some were, or taken up from the background
	raised   int    // factors whose damping had to be raised
}

func newInverses[T program.Float](blocks int) *inverses[T] {
	return &inverses[T]{of: make([]curvature.Inverse[T], blocks), waiting: make([]bool, blocks)}
}

// invert computes the inverses of all blocks, several at a time.
func invert[T program.Float](blocks []*block[T], avg averages[T], gamma float64) (*inverses[T], error) {
	var first, then []func()
	making := make([]*curvature.Inversion[T], len(blocks))
	for i, b := range blocks {
		making[i] = b.Invert(avg[i], tikhonov(gamma))
		first, then = append(first, making[i].First...), append(then, making[i].Then...)
	}
	parallel.Jobs(first)
	parallel.Jobs(then)
	made := newInverses[T](len(blocks))
	made.anew, made.renewed = true, true
	var failed error
	for i, b := range blocks { // all of them, so that each gives back what it has borrowed
		v, err := making[i].Inverse()
		if err != nil {
			v, err = restarted(b, avg, i, gamma, err)
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

// restarted is the inverse of a block from the present update alone, in whose place in avg that is
// then. So a batch that was far off does not stand in the way of all that come after it. It returns
// the failure of the averages where that can't be inverted either.
func restarted[T program.Float](b *block[T], avg averages[T], i int, gamma float64, failure error) (
	curvature.Inverse[T], error) {
	if avg[i].Updates == 1 {
		return nil, failure
	}
	alone, err := b.Restart()
	if err != nil {
		return nil, failure
	}
	making := b.Invert(alone, tikhonov(gamma))
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

// immediate computes the inverses of the blocks that take no work.
func immediate[T program.Float](blocks []*block[T], avg averages[T], gamma float64) *inverses[T] {
	made := newInverses[T](len(blocks))
	for i, b := range blocks {
		if b.Immediate() {
			made.of[i], _ = b.Invert(avg[i], tikhonov(gamma)).Inverse() // nothing there that could fail
		}
	}
	return made
}

// release lets go of inverses that are not kept.
func (v *inverses[T]) release() {
	for i, inverse := range v.of {
		if inverse != nil && !v.waiting[i] {
			inverse.Release()
		}
		v.of[i] = nil
	}
}

// keep makes the inverses the current ones.
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

// direct turns the gradients into directions: U = (F + damping)^-1 V.
func (v *inverses[T]) direct(blocks []*block[T], params []*parameter[T], low *lowRanks[T]) error {
	for i, b := range blocks {
		inverse := v.of[i]
		if inverse == nil {
			inverse = b.inverse
		}
		b.apply(inverse, low.of[b])
	}
	for _, p := range params {
		if p.given && !linalg.Finite(p.direction) {
			return &ParamError{Param: p.name, Op: "preconditioning", Err: ErrNotFinite, Hint: "raise WithDamping"}
		}
	}
	return nil
}

// needsInverses reports whether a block has come with the step in progress.
func needsInverses[T program.Float](blocks []*block[T]) bool {
	for _, b := range blocks {
		if b.inverse == nil && !b.Immediate() {
			return true
		}
	}
	return false
}

// background has inverses computed beside the training steps (WithBackgroundInverses), a few blocks
// at a time. After the steps of a period T3 the blocks have their turns, each with a copy of its
// averages, and what comes of it is taken up at a fixed later step. So the result does not depend
// on how long it took.
type background[T program.Float] struct {
	jobs map[*block[T]]*job[T]
}

// A job is an inversion that is in progress or waits for its step.
type job[T program.Float] struct {
	averages  *curvature.Averages[T]
	inversion *curvature.Inversion[T]
	due       int           // the step that takes it up
	done      chan struct{} // closed when it has come to its end
	panicked  error

	collected bool
	inverse   curvature.Inverse[T] // nil if err is not
	err       error
}

func (j *job[T]) run() {
	defer close(j.done)
	defer func() {
		if r := recover(); r != nil {
			j.panicked = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	j.inversion.Run()
}

// collect waits for the inverse.
func (j *job[T]) collect() (curvature.Inverse[T], error) {
	<-j.done
	if !j.collected {
		j.collected = true
		if j.panicked != nil {
			j.err = j.panicked
		} else {
			j.inverse, j.err = j.inversion.Inverse()
		}
	}
	return j.inverse, j.err
}

// launch gives the blocks whose turn it is after step k to a goroutine each.
func (g *background[T]) launch(blocks []*block[T], k, period, lag int, gamma float64) {
	if g.jobs == nil {
		g.jobs = map[*block[T]]*job[T]{}
	}
	for b, j := range g.jobs {
		if k >= j.due+period { // the graphs lack its parameters, or it has been replaced
			g.drop(b)
		}
	}
	if k < firstInverses {
		return // the next step computes all anew
	}
	for i, b := range blocks {
		if k%period != i*period/len(blocks) || g.jobs[b] != nil || b.Immediate() {
			continue
		}
		avg := b.Copy()
		j := &job[T]{averages: avg, inversion: b.Invert(avg, tikhonov(gamma)), due: k + lag, done: make(chan struct{})}
		g.jobs[b] = j
		go j.run()
	}
}

// failed reports whether a job that is due at step k has failed. All inverses are computed anew
// then. The error is that of a panic.
func (g *background[T]) failed(blocks []*block[T], k int) (bool, error) {
	for _, b := range blocks {
		j := g.jobs[b]
		if j == nil || k < j.due {
			continue
		}
		_, err := j.collect()
		if j.panicked != nil {
			g.drop(b)
			return false, &LayerError{Layer: b.groups[0].params[0].name, Op: "inverting in the background", Err: err,
				Hint: "a fault of this package's: please report it; the next step goes on without this inverse"}
		}
		if err != nil {
			return true, nil
		}
	}
	return false, nil
}

// takeUp adds the inverses that are due at step k. They stay the jobs' until finish.
func (g *background[T]) takeUp(made *inverses[T], blocks []*block[T], k int) {
	for i, b := range blocks {
		if j := g.jobs[b]; j != nil && k >= j.due {
			made.of[i], _ = j.collect()
			made.waiting[i], made.renewed = true, true
			made.raised += made.of[i].Raised()
		}
	}
}

// finish ends the jobs whose inverses a step has kept, and those of blocks that it has computed
// anew.
func (g *background[T]) finish(blocks []*block[T], k int, anew bool) {
	for _, b := range blocks {
		switch j := g.jobs[b]; {
		case j == nil:
		case anew:
			g.drop(b)
		case k >= j.due:
			b.Release(j.averages)
			delete(g.jobs, b)
		}
	}
}

// drop forgets a block's inversion when it has come to its end.
func (g *background[T]) drop(b *block[T]) {
	j := g.jobs[b]
	if inverse, err := j.collect(); err == nil {
		inverse.Release()
	}
	b.Release(j.averages)
	delete(g.jobs, b)
}

// lowRanks are the gradients that a step knows as products of the batch's inputs and errors, by
// block.
type lowRanks[T program.Float] struct {
	chosen []*block[T] // for which the form is worth its backward sweep
	hooks  []*layerHook[T]
	of     map[*block[T]]*curvature.LowRank[T] // those that hold

	errors map[*block[T]][]T
	forms  map[*block[T]]*curvature.LowRank[T]
}

func newLowRanks[T program.Float]() *lowRanks[T] {
	return &lowRanks[T]{of: map[*block[T]]*curvature.LowRank[T]{}, errors: map[*block[T]][]T{},
		forms: map[*block[T]]*curvature.LowRank[T]{}}
}

// choose lists the blocks that gain by the low-rank form, where the whole batch was observed, if
// they are worth the backward sweep that they take.
func (r *lowRanks[T]) choose(p *planned[T]) {
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
		if !ok || !p.asIs[b] {
			continue
		}
		if s, _ := k.LowRankSavings(); s > 0 {
			r.chosen, r.hooks = append(r.chosen, b), append(r.hooks, p.hooks[i].(*layerHook[T]))
			saved += s
		}
	}
	if saved <= worthSweep*sweep {
		r.reset()
	}
}

// reset forgets the forms of the step before.
func (r *lowRanks[T]) reset() {
	clear(r.chosen)
	clear(r.hooks)
	r.chosen, r.hooks = r.chosen[:0], r.hooks[:0]
	clear(r.of)
}

// forget lets go of the graph of the step before, and of blocks that may have been replaced.
func (r *lowRanks[T]) forget() {
	r.reset()
	clear(r.errors)
	clear(r.forms)
}

// worthSweep is how many multiplications must be saved for each of a backward sweep, which has
// other work to do too.
const worthSweep = 2

// sweep takes the errors of the chosen blocks: it sweeps the gradient of the objective back through
// the forward pass of the statistics.
func (r *lowRanks[T]) sweep(g *graph[T], p *planned[T]) error {
	if len(r.chosen) == 0 {
		return nil
	}
	m := p.model
	seeds, err := g.tail.gradients(m.run, m.outputs, T(1/(g.scale()*float64(m.Cases))))
	if err != nil {
		return graphError(err)
	}
	if err := m.run.Reverse(seeds, p.path); err != nil {
		return graphError(err)
	}
	for i, b := range r.chosen {
		r.errors[b] = r.hooks[i].errors(r.errors[b][:0], m.run)
	}
	return nil
}

// match decides, now that V is known, for which blocks the form holds: V, the gradient that the
// user's VM has computed and that was given to Step, is the product.
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
		if form.Matches(b.v[0], asGiven*rounding[T](), rng) {
			r.of[b] = form
		}
	}
}

// asGiven is the part of the rounding of gradients, relative to their norm, that V may differ from
// the product by. What is as small in V is lost.
const asGiven = 0.1
