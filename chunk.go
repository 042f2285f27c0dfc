package kfac

import (
	"errors"
	"math/rand/v2"
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A chunk is one RunAll's part of an update: the cases that the user's graph held then. An update usually has one.
type chunk[T program.Float] struct {
	graph  *graph[T]
	inputs *program.Inputs[T] // nil: what the user's graph holds now
	cases  int
	rows   []int  // of the cases, those for the exact-Fisher products; nil: all
	seed   uint64 // of what Dropout and random nodes draw in these
	held   bool   // the graph's run holds the forward pass of these, from the statistics

	cost            float64 // the user's, as the VM left it
	statisticsCases int
}

// chunkLists is what the user's list has to be the same in, for all chunks of an update.
const chunkLists = "the parameters given for the chunks of one update must be the same"

// takeIn reads the gradients of one RunAll, and observes the statistics of its cases. It changes nothing that a later call could see.
func (c *conductor[T]) takeIn(st *Stats, model []gorgonia.ValueGrad, w *stopwatch) (chunk[T], error) {
	k := chunk[T]{graph: c.graph, cost: costValue(c.cost)}
	if c.averaged {
		return k, &ParamError{Param: "(all)", Op: "reading the weights", Err: ErrAveraged, Hint: "call the function that UseAverage returned"}
	}
	if err := c.readGradients(model); err != nil {
		return k, err
	}
	k.cases = c.model.Cases // now that the list has settled what a vector output means
	w.lap(&st.Time.Gradients)
	if !c.used || c.runs < checkedRuns {
		if err := c.check(); err != nil {
			return k, err
		}
		w.lap(&st.Time.Checks)
	}

	// A generator of its own for each chunk, so that a failed one leaves no trace.
	rng := rand.New(rand.NewPCG(c.cfg.seed+uint64(len(c.chunks))<<32, uint64(c.steps+1)))
	if err := c.sampler.sample(c.model, c.cfg.statsFraction, c.cfg.leastStatistics(c.model.Cases), rng); err != nil {
		return k, err
	}
	k.statisticsCases = c.sampler.run.Cases()
	w.lap(&st.Time.Capture)
	for _, b := range c.blocks {
		if err := b.observe(c.sampler.run); err != nil {
			return k, err
		}
	}
	w.lap(&st.Time.Factors)
	k.rows = c.sampler.choose(c.model, c.cfg.modelFraction, c.cfg.minModelCases, rng)
	k.seed = rng.Uint64()
	if k.held = c.sampler.all && k.rows == nil; k.held {
		k.seed = c.sampler.seed
	}
	return k, nil
}

// accumulate takes in a chunk that is not the update's last; see Solver.Accumulate.
func (c *conductor[T]) accumulate(model []gorgonia.ValueGrad) (err error) {
	defer c.replanOnFailure(c.planned, &err)
	var st Stats
	var w stopwatch
	k, err := c.takeIn(&st, model, &w)
	if err != nil {
		return err
	}
	if k.inputs, err = c.saveInputs(); err != nil {
		return err
	}
	k.rows, k.held = slices.Clone(k.rows), false // the run goes on to other chunks
	for _, b := range c.blocks {
		b.take()
	}
	for _, p := range c.order {
		if !p.given {
			continue
		}
		linalg.Scale(T(1/c.scale), p.grad)
		if len(c.chunks) == 0 {
			p.taken = append(p.taken[:0], p.grad...)
		} else {
			linalg.Axpy(1, p.grad, p.taken)
		}
		zeroGradient(p.src)
	}
	c.chunks = append(c.chunks, k)
	c.runs++
	c.used = true
	return nil
}

// saveInputs copies what the graph's inputs hold, except for the parameters.
func (c *conductor[T]) saveInputs() (*program.Inputs[T], error) {
	n := 0
	for _, k := range c.chunks {
		if k.graph == c.graph {
			n++
		}
	}
	if n == len(c.saved) {
		c.saved = append(c.saved, &program.Inputs[T]{})
	}
	var like *program.Inputs[T]
	if n > 0 {
		like = c.saved[n-1]
	}
	given := func(n *gorgonia.Node) bool { p := c.params[n]; return p != nil && p.given }
	return c.saved[n], graphError(c.saved[n].Save(c.whole, given, like))
}

// sameList reports whether the listed parameters are those of the chunks that were taken in before.
func (c *conductor[T]) sameList(nodes []*gorgonia.Node) error {
	if len(c.chunks) == 0 {
		return nil
	}
	for _, n := range nodes {
		if err := c.trainable(n); err != nil {
			return err
		}
		if p := c.params[n]; p == nil || !p.given {
			return &ParamError{Param: n.Name(), Op: "comparing the list with that of Accumulate", Err: errors.New("it was not given then"), Hint: chunkLists}
		}
	}
	for _, p := range slices.Concat(c.order, c.absent) {
		if p.given && !slices.Contains(nodes, p.src) {
			return &ParamError{Param: p.name(), Op: "comparing the list with that of Accumulate", Err: ErrNoGradient, Hint: chunkLists}
		}
	}
	return nil
}

// summarise tells of the chunks of an update, and returns the mean number of target variables of their cases.
func summarise[T program.Float](st *Stats, chunks []chunk[T]) (variables float64) {
	st.Chunks = len(chunks)
	for _, k := range chunks {
		st.Cases += k.cases
		st.StatisticsCases += k.statisticsCases
		st.Cost += k.cost / float64(len(chunks))
		variables += float64(k.cases * k.graph.variables())
	}
	return variables / float64(st.Cases)
}
