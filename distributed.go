package kfac

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// The ranks of a training act as one solver. What is a sum over cases is summed over them, all of
// it here, and everything else each computes by itself, from the same numbers:
//
//	gradients             sumGradients, at each step
//	second moments        whole, when inverses are due; until then each rank has a share of them
//	products with F       in quadratic.go: three numbers for each proposal
//	objectives            in objective.go: one number
//	counts and variances  means, tally
//	medians of data       in coordinates.go, in the first step
//
// So the weights of all ranks are the same bits, though only the first are sent.

// distributed is what a training has to do with its other ranks. Where there are none its ranks are
// nil.
type distributed[T program.Float] struct {
	*ranks
	plan   *planned[T] // of which text and weights were compared; nil before the first RunAll
	given  bool        // in this call all ranks were given the weights of rank 0
	back   []func()    // take back what this one was given
	text   digest      // of what has to be the same on all ranks
	buffer []T
	sums   []float64
}

// A standing is what a rank starts to take in a RunAll from.
type standing[T program.Float] struct {
	plan       *planned[T]
	cfg, start *config // as it is at this step, and as it was given
	steps      int
	chunks     int // before this one
	progress   interface{ state(to scalars) }
}

// join meets the other ranks at the start, or fails with err. It compares what has to be the same
// on all of them. It returns which cases of the whole chunk this rank has.
func (d *distributed[T]) join(of standing[T], err error) (*shard, error) {
	if err := d.meet(atStart, err); err != nil || d.ranks == nil {
		return nil, err
	}
	const columns = 4
	isNew, isFirst := d.plan != of.plan, d.plan == nil
	if isNew {
		d.text = digest(0).withText(strings.Join(of.common(), "\n"))
	}
	all := d.table(float64(of.plan.model.Cases), of.plan.iterationOperations, of.digest(d.text).number(),
		oneIf(isNew)+oneIf(isFirst))
	s := &shard{seed: [2]uint64{of.cfg.seed + uint64(of.chunks)<<32, uint64(of.steps + 1)}}
	of.plan.allOperations = 0
	same, known, first := true, true, true
	for rank := range d.Size() {
		row := all[rank*columns : (rank+1)*columns]
		if rank < d.Rank() {
			s.first += int(row[0])
		}
		s.run += int(row[0])
		of.plan.allOperations += row[1]
		same, known, first = same && row[2] == all[2], known && row[3] == 0, first && row[3] == 2
	}
	if !same {
		return nil, d.difference(slices.Concat(of.common(), of.now()))
	}
	if !known {
		params, err := of.plan.withFrozen()
		if err := d.meet(atStart, err); err != nil {
			return nil, err
		}
		if first && !of.start.sameWeights {
			d.giveWeights(params)
		} else if err := d.compareWeights(params); err != nil {
			return nil, err
		}
		d.plan = of.plan
	}
	return s, d.broken.orNil()
}

// common lists what has to be the same on all ranks, as long as the plan is.
func (of *standing[T]) common() []string {
	list := []string{
		"version of this package: " + version(),
		"instructions: " + instructions(),
		fmt.Sprintf("BLAS: %T, %T", blas32.Implementation(), blas64.Implementation()),
		fmt.Sprintf("dtype: %v", of.plan.model.Dtype()),
	}
	if of.start.sameWeights {
		list = append(list, "WithSameWeights: there")
	}
	for i, o := range of.plan.model.outputs {
		list = append(list, fmt.Sprintf("output %d: %s", i, o.kind))
	}
	for _, s := range of.start.settings() {
		list = append(list, s.option+": "+s.value)
	}
	list = append(list, fmt.Sprintf("WithPlacement: %v", of.start.placement.fraction))
	for _, p := range of.plan.order {
		list = append(list, "parameter "+p.key.String()+": there")
	}
	for _, n := range of.plan.frozen {
		list = append(list, "frozen parameter "+keyOf(n).String()+": there")
	}
	for _, b := range of.plan.blocks {
		list = append(list, "curvature of "+b.signature()+": there")
	}
	return list
}

// now lists what has to be the same on all ranks at this step.
func (of *standing[T]) now() []string {
	list := []string{fmt.Sprintf("chunks: %d", of.chunks)}
	of.visit(func(name string, v float64) { list = append(list, fmt.Sprintf("%s: %v", name, v)) })
	return list
}

// digest is that of now, and of a text.
func (of *standing[T]) digest(text digest) digest {
	d := text.with(uint64(of.chunks))
	of.visit(func(_ string, v float64) { d = d.with(math.Float64bits(v)) })
	return d
}

// visit shows the numbers that have to be the same on all ranks.
func (of *standing[T]) visit(show func(name string, v float64)) {
	of.progress.state(onlooker(show))
	for i := range dials {
		show(string(dials[i].Knob), *dials[i].of(of.cfg))
	}
	for _, p := range of.plan.order {
		show(p.name+" given", oneIf(p.given))
		show(p.name+" given to another solver", oneIf(p.aside))
	}
}

// An onlooker is shown the numbers of a state. What is odd on one rank need not be so on another.
type onlooker func(name string, v float64)

func (show onlooker) Number(name string, x *float64) { show(name, *x) }
func (show onlooker) Flag(name string, on *bool)     { show(name, oneIf(*on)) }
func (show onlooker) failed() bool                   { return false }

func (show onlooker) Count(name string, n *int) {
	if name != "odd again" {
		show(name, float64(*n))
	}
}

// version is that of the module, as far as the program knows.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	const module = "github.com/gorgonia-kfac/kfac"
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module {
			return m.Version
		}
	}
	return "unknown"
}

// instructions are those of the processor that the results may depend on in the last bits.
func instructions() string {
	return fmt.Sprintf("%s, AVX2 %v, AVX-512 %v", runtime.GOARCH, cpu.X86.HasAVX2 && cpu.X86.HasFMA, cpu.X86.HasAVX512F)
}

// difference tells all ranks in what the first that differs from rank 0 does. All have lists of
// what is to be the same.
func (r *ranks) difference(own []string) error {
	lists := r.gather(strings.Join(own, "\n"))
	if r.broken != nil {
		return r.broken
	}
	want := strings.Split(lists[0], "\n")
	for rank, text := range lists {
		if text == lists[0] {
			continue
		}
		what := otherLines(want, strings.Split(text, "\n"))
		return r.agree(&RankError{Rank: rank, Op: "comparing it with rank 0, " + what, Err: ErrOtherRank,
			Hint: "start all ranks with the same program, options, model and state"})
	}
	return r.agree(&RankError{Op: r.call, Err: ErrOtherRank})
}

// otherLines says in what a list "what: value" differs from that of rank 0.
func otherLines(want, got []string) string {
	var list []string
	values := map[string]string{}
	for _, line := range got {
		what, value := cutLast(line)
		values[what] = value
	}
	for _, line := range want {
		what, value := cutLast(line)
		other, there := values[what]
		delete(values, what)
		switch {
		case !there:
			list = append(list, fmt.Sprintf("which has no %s", what))
		case other != value:
			list = append(list, fmt.Sprintf("%s: %s there, %s here", what, value, other))
		}
	}
	for _, line := range got {
		if what, _ := cutLast(line); values[what] != "" {
			list = append(list, fmt.Sprintf("which lacks %s", what))
		}
	}
	return strings.Join(list, "; ")
}

// cutLast cuts a line before its value.
func cutLast(line string) (what, value string) {
	i := max(strings.LastIndex(line, ": "), 0)
	return line[:i], strings.TrimPrefix(line[i:], ": ")
}

// withFrozen are the parameters whose weights have to be the same on all ranks: those that were
// given, and those that stay as they are.
func (p *planned[T]) withFrozen() (params []*parameter[T], err error) {
	for _, q := range p.order {
		if q.listed() {
			params = append(params, q)
		}
	}
	for _, n := range p.frozen {
		q := newParameter[T](n)
		q.src = n
		if err := q.readWeights(false); err != nil {
			return nil, err
		}
		params = append(params, q)
	}
	return params, nil
}

// giveWeights gives the parameters of all ranks the weights of rank 0, until takeBack.
func (d *distributed[T]) giveWeights(params []*parameter[T]) {
	d.given = true
	for _, q := range params {
		d.buffer = append(d.buffer[:0], q.weights.data...)
		if send(d.ranks, d.buffer, 0); slices.Equal(d.buffer, q.weights.data) || d.broken != nil {
			continue
		}
		weights, own := q.weights, slices.Clone(q.weights.data)
		d.back = append(d.back, func() { weights.put(own) })
		q.put(d.buffer)
	}
}

// takeBack undoes giveWeights, unless the call has succeeded.
func (d *distributed[T]) takeBack(ok bool) {
	if d.given && !ok {
		for _, back := range d.back {
			back()
		}
		d.plan = nil
	}
	d.given, d.back = false, nil
}

// compareWeights reports weights that are not those of rank 0.
func (d *distributed[T]) compareWeights(params []*parameter[T]) error {
	var own []float64
	for _, q := range params {
		own = append(own, digestOf(q.weights.data).number())
	}
	first := slices.Clone(own)
	send(d.ranks, first, 0)
	var err error
	for i, q := range params {
		if own[i] != first[i] && err == nil {
			err = &ParamError{Param: q.name, Op: "comparing its weights with those of rank 0", Err: ErrOtherWeights,
				Hint: "initialise all ranks with the same weights, or load the same state"}
		}
	}
	return d.meet(atStart, err)
}

// means sums what is to be known of the outputs in a chunk, or fails with err: means by output, and
// the number of cases in them, which it returns.
func (d *distributed[T]) means(cases int, err error, means ...[]ratio) (int, error) {
	all := float64(cases)
	if err := d.meet(atOutputs, err, &all); err != nil || d.ranks == nil {
		return cases, err
	}
	d.sums = d.sums[:0]
	for _, list := range means {
		for _, m := range list {
			d.sums = append(d.sums, m.sum, m.n)
		}
	}
	addUp(d.ranks, d.sums)
	rest := d.sums
	for _, list := range means {
		for i := range list {
			list[i].sum, list[i].n, rest = rest[0], rest[1], rest[2:]
		}
	}
	return int(all), d.broken.orNil()
}

// swept follows a sweep of so many cases of all ranks, or fails with err. The gradients of
// parameters outside layers become those of all cases, whose square their diagonal is.
func (d *distributed[T]) swept(p *planned[T], cases int, err error) error {
	if err := d.meet(atSweep, err); err != nil || d.ranks == nil {
		return err
	}
	var gradients [][]T
	for _, h := range p.hooks {
		if h, ok := h.(*parameterHook[T]); ok {
			if grad := p.model.run.Gradient(h.leaf); !h.byCase(grad) {
				h.ofAll = cases
				gradients = append(gradients, grad)
			}
		}
	}
	d.addAll(gradients)
	return d.broken.orNil()
}

// addAll sums slices over the ranks, those that are small together.
func (d *distributed[T]) addAll(slices [][]T) {
	d.buffer = d.buffer[:0]
	for _, x := range slices {
		if len(x) < largeAlone {
			d.buffer = append(d.buffer, x...)
		} else {
			addUp(d.ranks, x)
		}
	}
	addUp(d.ranks, d.buffer)
	rest := d.buffer
	for _, x := range slices {
		if len(x) < largeAlone {
			rest = rest[copy(x, rest):]
		}
	}
}

// largeAlone: as many numbers are summed where they are.
const largeAlone = 1 << 14

// sumGradients sums the gradients of all ranks over their cases, in the unit of the objective, and
// gives the blocks what they have to know of all cases. It makes the tally that of all ranks. scale
// is that of the last chunk, of so many.
func (d *distributed[T]) sumGradients(p *planned[T], y *tally, scale float64, chunks int) error {
	if err := d.tally(y, chunks); err != nil || d.ranks == nil {
		return err
	}
	var gradients [][]T
	for _, q := range p.order {
		if q.listed() {
			q.objectiveGradient(scale, 1, 0, chunks > 1)
			gradients = append(gradients, q.grad)
		}
	}
	d.addAll(gradients)
	d.sums = d.sums[:0]
	for _, b := range p.blocks {
		d.sums = b.Tally(d.sums)
	}
	addUp(d.ranks, d.sums)
	rest := d.sums
	for _, b := range p.blocks {
		rest = b.Whole(rest)
	}
	return d.broken.orNil()
}

// tally makes the tally of a rank that of all. Its means are over the cases or the chunks.
func (r *ranks) tally(y *tally, chunks int) error {
	if r == nil {
		return nil
	}
	p, n := &y.predicted, float64(y.cases)
	sums := []float64{n, y.cost * float64(chunks), float64(chunks), y.likelihood * max(n, 1), p.variables * n,
		p.weighted * n, p.spread * n, p.noise * n, oneIf(y.random), oneIf(y.terms), oneIf(y.draws)}
	if err := r.meet(atGradient, nil, addresses(sums)...); err != nil {
		return err
	}
	n = sums[0]
	y.cases, y.cost, y.likelihood = int(n), sums[1]/sums[2], sums[3]/n
	p.variables, p.weighted, p.spread, p.noise = sums[4]/n, sums[5]/n, sums[6]/n, sums[7]/n
	y.random, y.terms, y.draws = sums[8] > 0, sums[9] > 0, sums[10] > 0
	return nil
}

// whole returns the averages of all ranks, of which each has a share, or fails with err.
func (d *distributed[T]) whole(blocks []*block[T], shares averages[T], err error) (averages[T], error) {
	if err := d.meet(atAverages, err); err != nil {
		return nil, err
	}
	whole := make(averages[T], len(blocks))
	var failed error
	for from, to := 0, 0; from < len(blocks); from = to {
		d.buffer = d.buffer[:0]
		for to = from; to < len(blocks) && (to == from || len(d.buffer) < bucket); to++ {
			if shares[to] != nil {
				d.buffer = blocks[to].Pack(d.buffer, shares[to])
			}
		}
		addUp(d.ranks, d.buffer)
		rest := d.buffer
		for i := from; i < to; i++ {
			if shares[i] == nil {
				continue
			}
			var err error
			if whole[i], rest, err = blocks[i].Unpack(shares[i], rest); err != nil {
				whole[i], failed = nil, firstOf(failed, blocks[i].layerError(err))
			}
		}
	}
	if failed = firstOf(d.broken.orNil(), failed); failed != nil {
		whole.release(blocks)
		return nil, failed
	}
	return whole, nil
}

// bucket is the number of numbers from which on small reductions are not joined any more.
const bucket = 1 << 20

// rebase puts averages that are in the basis of an inverse into that of the inverse now in use, to
// which it gives those of all ranks.
func (d *distributed[T]) rebase(blocks []*block[T]) {
	if shares := rebase(blocks, d.first()); d.ranks != nil {
		d.addAll(shares)
	}
}

// current returns the current averages of blocks, those of all ranks.
func (d *distributed[T]) current(blocks []*block[T]) (averages[T], error) {
	shares := make(averages[T], len(blocks))
	for i, b := range blocks {
		shares[i] = b.Copy()
	}
	defer shares.release(blocks)
	return d.whole(blocks, shares, nil)
}

// collect makes rank 0's share of the current averages the whole of them, for a file.
func (d *distributed[T]) collect(blocks []*block[T]) error {
	if d.ranks == nil {
		return nil
	}
	whole, err := d.current(blocks)
	if err != nil {
		return err
	}
	for i, b := range blocks {
		if b.Keep(whole[i]); !d.first() {
			b.forgetShare()
		}
	}
	return nil
}

// withWhole calls f while the blocks' current averages are those of all ranks.
func (d *distributed[T]) withWhole(blocks []*block[T], f func()) error {
	if d.ranks == nil {
		f()
		return nil
	}
	whole, err := d.current(blocks)
	if err != nil {
		return err
	}
	for i, b := range blocks {
		whole[i] = b.Swap(whole[i])
	}
	f()
	for i, b := range blocks {
		b.Release(b.Swap(whole[i]))
	}
	return nil
}

// copied returns a copy of the current averages of a block, those of all ranks, or nil if they are
// not finite.
func (d *distributed[T]) copied(b *block[T]) *curvature.Averages[T] {
	if d.ranks == nil {
		return b.Copy()
	}
	whole, err := d.current([]*block[T]{b})
	if err != nil {
		return nil
	}
	return whole[0]
}

// WithCommunicator trains data-parallel: this process is one of the ranks of c, of which each has a
// graph, a solver and some of the cases of each batch of its own, and the solvers act as one. The
// weights of all ranks are the same bits at every step. They are sent once: the first Step or
// Accumulate gives the parameters of all ranks the weights of rank 0, and computes the gradients of
// the other ranks again, where theirs were others; see [WithSameWeights].
//
// All ranks make the same calls of Step, Accumulate, Precondition, Save and Load, in the same
// order, with the same options and the same parameters; else all of them get a *RankError with
// ErrOtherRank, ErrOtherWeights or ErrOutOfStep that says in what which rank differs. The number of
// cases may differ. The step is that of the mean over the cases of all ranks: the same, up to
// rounding, whatever the number of ranks that the batch is divided among. So it is with weights of
// cases that [Weighted] declares, and with masks of 0 and 1, even where no case of a rank counts;
// other weights count in units of their mean on their own rank. What Dropout and random nodes draw
// is each rank's own, and what a model computes from the whole batch, such as its mean, is that of
// its own rank's cases.
//
// A call that fails on one rank fails on all: each gets a *RankError with the rank and the cause,
// and no rank has changed anything. After a *RankError with ErrRankLeft, and any other error of the
// communicator, start all ranks again, from the last state that was saved.
//
// Gradients are not used in low rank, and targets are sampled for each case by its number in the
// whole batch. So a Communicator of one rank gives the same steps as several, but other samples
// than no Communicator.
//
// Default: this process is alone.
func WithCommunicator(c Communicator) Option {
	return func(cfg *config) error {
		if c == nil || c.Size() < 1 || c.Rank() < 0 || c.Rank() >= c.Size() {
			return &ConfigError{"WithCommunicator", "nil, or a rank that is none", "a Communicator of one rank or more"}
		}
		cfg.ranks = &ranks{Communicator: c}
		return nil
	}
}

// WithPlacement sets which part of all inverses a rank of WithCommunicator has in its memory, in
// (0, 1]. The inverse of a block is computed by one rank; blocks go to ranks by counted operations,
// the longest first. With 1 that rank sends it to all, whenever it is new: then most is sent
// rarely, and no rank waits for another in the steps between. With 1 / Size, or less, each inverse
// stays on its rank, which makes the directions of the block and sends these, at each step. Between
// them, as many blocks as there is room for have inverses that are sent. Whole blocks are placed:
// the largest may be more than the fraction. With WithBlockTridiagonal a chain is one block, and
// with WithEKFAC all ranks need all inverses.
//
// The bits of the weights do not depend on it. Averages are on all ranks with any placement.
// Default: of each block what takes less time, by counted operations and numbers. Directions of
// large layers take as long as a RunAll of many cases; so these have one home, and small ones have
// inverses on all ranks. Those of small factors every rank computes for itself, unless they are to
// stay on one.
func WithPlacement(fraction float64) Option {
	return number("WithPlacement", fraction, fraction > 0 && fraction <= 1, "a fraction of all inverses in (0, 1]",
		func(c *config) { c.placement.fraction = fraction })
}

// WithSameWeights has ranks compare their weights at the first step, in place of taking over those
// of rank 0: others are a *RankError with ErrOtherWeights. It goes with WithCommunicator. Default
// off.
func WithSameWeights() Option {
	return func(c *config) error { c.sameWeights = true; return nil }
}
