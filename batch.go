package kfac

import (
	"math"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// GrowingBatch is a schedule for mini-batches that grow exponentially: m_k = First exp((k-1)/b). b
// is chosen so that at update FullAt the batch is the whole training set (Martens & Grosse 2015,
// section 13: First 1000, FullAt 500). At the start almost any gradient helps, so small batches are
// enough. Later only large batches show the direction. Solver.Accumulate runs batches that are
// larger than the graph's.
type GrowingBatch struct {
	First  int // cases of the first update
	All    int // cases of the training set
	FullAt int // first update, counted from 1, with the whole training set
}

// Size returns the number of cases for update k, counted from 1, rounded down. It is at least 1. It
// is at most All if All is at least 1.
func (g GrowingBatch) Size(k int) int {
	if k >= g.FullAt || g.First >= g.All {
		return max(g.All, 1)
	}
	exponent := float64(k-1) / float64(g.FullAt-1)
	grown := float64(g.First) * math.Pow(float64(g.All)/float64(g.First), exponent)
	return max(min(int(grown+1e-9), g.All), 1)
}

// Chunks returns how many chunks of size cases come nearest to Size(k), at least 1.
func (g GrowingBatch) Chunks(k, size int) int {
	return max(int(math.Round(float64(g.Size(k))/float64(max(size, 1)))), 1)
}

// A chunk is the part of an update that one RunAll computed: the cases that the user's graph held
// then. An update usually has one chunk. A chunk keeps the graph of its cases and the graph's plan.
type chunk[T program.Float] struct {
	graph *graph[T]
	plan  *planned[T]
	conditions[T]
	units  // of its cost
	cases  int
	shard  *shard // which cases of all ranks; nil where there are none
	own    bool   // the RunAll was one of the solver's own VM
	shared bool   // where numbers are drawn: the private runs have the VM's
	// outdated: the RunAll was one of weights that were replaced, by those of rank 0 or of a state.
	outdated bool

	cost            float64   // the user's cost as the VM computed it
	variances       []float64 // by output; see variances
	statisticsCases int       // number of cases that the factors were estimated from

	all bool // the statistics used all cases

	hessian *hessian // at its outputs; nil if none is declared by the cost

	// For the exact Fisher products.
	rows []int // the cases used; nil: all
	held bool  // the model's run holds the forward pass of rows already, from the statistics
}

// useTail gives the tail of the cost the conditions of the chunk, until back is called.
func (k *chunk[T]) useTail() (back func()) {
	run := k.graph.tail.run
	k.conditions.set(run)
	return func() { conditions[T]{seed: k.graph.seed}.set(run) }
}

// A batch holds the chunks of an update.
type batch[T program.Float] []chunk[T]

// cases returns the number of cases in all chunks.
func (b batch[T]) cases() (n int) {
	for i := range b {
		n += b[i].cases
	}
	return n
}

// statisticsCases returns the number of cases that the factors are estimated from.
func (b batch[T]) statisticsCases() (n int) {
	for i := range b {
		n += b[i].statisticsCases
	}
	return n
}

// cost returns the mean over the chunks of the user's cost.
func (b batch[T]) cost() (mean float64) {
	for i := range b {
		mean += b[i].cost / float64(len(b))
	}
	return mean
}

// predicted says what a case predicts, in the units of the objective.
type predicted struct {
	variables float64 // mean number of target variables of a case
	weighted  float64 // the same, each with its output's weight in the objective
	// spread is the same, each also with its variance in units of the declared one. The variance of
	// a discrete variable is that of the model; that of others is the larger one of the declared
	// variance and the mean squared residual.
	spread float64
	// noise is the weighted one with the mean squared residual as the variance of those that are
	// not discrete, whatever was declared.
	noise    float64
	policy   bool // an output is that of a policy
	policies bool // all are
}

// predicted says what a case of the batch predicts.
func (b batch[T]) predicted() (u predicted) {
	cases := float64(b.cases())
	u.policies = true
	for i := range b {
		part := float64(b[i].cases) / cases
		for k, o := range b[i].plan.model.outputs {
			if u.policy, u.policies = u.policy || o.policy, u.policies && o.policy; b[i].cases == 0 {
				continue
			}
			n := part * float64(o.rows*o.Variables(o.cols)) * b[i].part(k, b[i].cases*o.perCase())
			u.variables += n
			u.weighted += n * b[i].weights[k]
			u.spread += n * b[i].weights[k] * o.spread(b[i].variances[k])
			u.noise += n * b[i].weights[k] * b[i].variances[k]
		}
	}
	return u
}

// errorUnits returns, by output, the unit that its errors count in: that of the output whose errors
// count most in the objective.
// squares are the mean squares of the outputs.
func (k *chunk[T]) errorUnits(weights []float64, squares []ratio) []float64 {
	most, units := 0.0, make([]float64, len(weights))
	for i, o := range k.plan.model.outputs {
		variance := k.variances[i]
		if o.precision > 0 && int(squares[i].n)/o.cols < fewRows {
			// Too few to tell. This is never less than half of the targets' mean square.
			variance += squares[i].value() * o.precision
		}
		most = max(most, weights[i]*o.spread(variance))
	}
	for i, o := range k.plan.model.outputs {
		units[i] = math.Sqrt(most / weights[i])
		if o.precision > 0 {
			units[i] /= math.Sqrt(o.precision)
		}
		if !(units[i] > 0) || math.IsInf(units[i], 0) {
			units[i] = 1
		}
	}
	return units
}

// squares are the mean squares of the model's outputs in its last run, where errorUnits may need
// them.
func (m *model[T]) squares() []ratio {
	all := make([]ratio, len(m.outputs))
	for i, o := range m.outputs {
		all[i].n = float64(len(o.z))
		if len(o.z)/o.cols < fewRows {
			all[i].sum = floats.Dot(o.z, o.z)
		}
	}
	return all
}

// spread returns the variance of a target variable in units of the declared one. residual is the
// mean squared residual in these units.
func (h head) spread(residual float64) float64 {
	switch {
	case h.ownUnit:
		return residual
	case h.Discrete():
		return 1
	}
	return math.Max(1, residual)
}

// A tally is what a step has to know of its batch as a whole.
type tally struct {
	cases, statistics int
	cost, likelihood  float64 // see the methods of batch
	predicted         predicted
	random, terms     bool
	draws             bool
}

func (b batch[T]) tally() tally {
	return tally{b.cases(), b.statisticsCases(), b.cost(), b.likelihood(), b.predicted(), b.random(), b.hasTerms(),
		b.draws()}
}

// hasTerms reports whether the cost depends on a parameter that was given in another way than
// through the outputs: it has terms outside the likelihood, such as a weight decay.
func (b batch[T]) hasTerms() bool {
	for i := range b {
		for _, n := range b[i].graph.tail.inputs {
			if p := b[i].plan.params[n]; p != nil && p.given {
				return true
			}
		}
	}
	return false
}

// draws reports whether a cost draws random numbers.
func (b batch[T]) draws() bool {
	for i := range b {
		if b[i].graph.random() {
			return true
		}
	}
	return false
}

// random reports whether a cost draws random numbers that are not those of the private runs.
func (b batch[T]) random() bool {
	for i := range b {
		if !b[i].shared && b[i].graph.random() {
			return true
		}
	}
	return false
}

// likelihood returns the objective without the L2 term, from the user's cost as the VM computed it:
// the mean over cases, or the sum if none counts, in the solver's units. It is NaN if the VM did
// not keep the cost.
func (b batch[T]) likelihood() (h float64) {
	for i := range b {
		h += b[i].cost / b[i].scale()
	}
	return h / float64(max(b.cases(), 1))
}

// save copies the graph's inputs for the next chunk of the update; before holds the chunks so far.
// It does not copy parameters in the step's list.
func (g *graph[T]) save(before batch[T], params map[*gorgonia.Node]*parameter[T]) (*program.Inputs[T], error) {
	n := 0
	for i := range before {
		if before[i].graph == g {
			n++
		}
	}
	if n == len(g.saved) {
		g.saved = append(g.saved, &program.Inputs[T]{})
	}
	var like *program.Inputs[T]
	if n > 0 {
		like = g.saved[n-1]
	}
	given := func(n *gorgonia.Node) bool { p := params[n]; return p != nil && p.listed() }
	return g.saved[n], graphError(g.saved[n].Save(g.whole, given, like))
}
