package kfac

import (
	"math"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// GrowingBatch is a mini-batch that grows exponentially, m_k = First exp((k-1)/b), until at update
// FullAt it is the whole training set (Martens & Grosse 2015, section 13: First 1000, FullAt 500).
// Small batches serve at the start, where any gradient does; later only large ones tell the
// direction. Solver.Accumulate runs batches that are larger than the graph's.
type GrowingBatch struct {
	First  int // cases of the first update
	All    int // cases of the training set
	FullAt int // the update, from 1, from which on the batch is the training set
}

// Size is the number of cases for update k, from 1, rounded down. It is between 1 and All, whatever
// the fields are.
func (g GrowingBatch) Size(k int) int {
	if k >= g.FullAt || g.First >= g.All {
		return max(g.All, 1)
	}
	exponent := float64(k-1) / float64(g.FullAt-1)
	grown := float64(g.First) * math.Pow(float64(g.All)/float64(g.First), exponent)
	return max(min(int(grown+1e-9), g.All), 1)
}

// Chunks is the number of chunks of the given size that come nearest to Size(k), at least 1.
func (g GrowingBatch) Chunks(k, size int) int {
	return max(int(math.Round(float64(g.Size(k))/float64(max(size, 1)))), 1)
}

// A chunk is one RunAll's part of an update: the cases that the user's graph held then. An update
// usually has one. It keeps the graph that its cases ran through, and what the parameters are in
// that.
type chunk[T program.Float] struct {
	graph  *graph[T]
	plan   *planned[T]
	inputs *program.Inputs[T] // nil: what the user's graph holds now
	cases  int

	cost            float64 // the user's, as the VM left it
	statisticsCases int     // that the factors were estimated from

	all bool // these were all its cases

	// For the exact Fisher products.
	rows []int  // of the cases; nil: all
	seed uint64 // of what Dropout and random nodes draw
	held bool   // the model's run holds the forward pass of these, from the statistics
}

// A batch is the chunks of an update.
type batch[T program.Float] []chunk[T]

// cases of all chunks together.
func (b batch[T]) cases() (n int) {
	for i := range b {
		n += b[i].cases
	}
	return n
}

// statisticsCases is the number of cases that the factors are estimated from.
func (b batch[T]) statisticsCases() (n int) {
	for i := range b {
		n += b[i].statisticsCases
	}
	return n
}

// cost is the mean over the chunks of the user's cost.
func (b batch[T]) cost() (mean float64) {
	for i := range b {
		mean += b[i].cost / float64(len(b))
	}
	return mean
}

// variables is the mean number of target variables of a case.
func (b batch[T]) variables() (mean float64) {
	for i := range b {
		mean += float64(b[i].cases * b[i].plan.model.variables())
	}
	return mean / float64(b.cases())
}

// random reports whether something random is in the cost.
func (b batch[T]) random() bool {
	for i := range b {
		if b[i].graph.random() {
			return true
		}
	}
	return false
}

// likelihood is the part of the objective that the user's cost stands for, as the VM has computed
// it: its mean over cases in the solver's units. It is NaN if the VM did not keep it.
func (b batch[T]) likelihood() (h float64) {
	for i := range b {
		h += b[i].cost / b[i].graph.scale()
	}
	return h / float64(b.cases())
}

// save copies what the graph's inputs hold, except for the parameters given, for a chunk behind
// those of before.
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
	given := func(n *gorgonia.Node) bool { p := params[n]; return p != nil && p.given }
	return g.saved[n], graphError(g.saved[n].Save(g.whole, given, like))
}
