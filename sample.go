package kfac

import (
	"fmt"
	"math"
	"math/rand/v2"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// output is one head of the model with its place in a program and its share of the cost.
type output struct {
	head   head
	node   *program.Node
	cols   int     // natural parameters per case
	weight float64 // of its negative log-likelihood in the solver's objective: its scale / that of the first output

	z, y []float64 // scratch: natural parameters, targets or residuals
}

// columns is the number of natural parameters per case of an output of p.
func columns(p *program.Program, n *program.Node) int {
	if len(n.Shape) > 1 || len(n.Shape) == 1 && p.VectorCases {
		return size(n.Shape[1:])
	}
	return n.Size()
}

// tellCases decides what an output that is a vector means: one number for each case, as in Mul(X, theta), or all numbers of a single case,
// as in Mul(w, x). It is the former where no parameter would have cases then; the classes of a Categorical are always the latter.
func (g *graph[T]) tellCases(params []*gorgonia.Node) error {
	vectors := false
	for _, o := range g.outputs {
		_, classes := o.head.(categorical)
		vectors = vectors || len(o.node.Shape) == 1 && !classes
	}
	if err := g.mean(vectors); err != nil {
		return err
	}
	for _, n := range g.leaves(params) {
		if vectors && (g.model.Whole != "" || n.CaseAxis >= 0) {
			return g.mean(false)
		}
	}
	return nil
}

// resize sizes the scratch for n numbers.
func (o *output) resize(n int) {
	if cap(o.z) < n {
		o.z, o.y = make([]float64, n), make([]float64, n)
	}
	o.z, o.y = o.z[:n], o.y[:n]
}

// read takes the natural parameters from a run. It reports false if they are not finite.
func read[T program.Float](o *output, run *program.Run[T]) bool {
	z := run.Value(o.node).Data
	o.resize(len(z))
	linalg.Convert(o.z, z)
	return linalg.Finite(z)
}

func notFiniteOutput(o *output) error {
	return &GraphError{Node: o.node.Name(), What: "reading the model's output", Err: ErrNotFinite,
		Hint: "a NaN or an infinity in the input or in the weights, or an overflow in between"}
}

// sampler runs the model privately on some cases and sweeps the gradients of targets sampled from its own predictions back
// (Martens & Grosse 2015, sections 5 and 8).
type sampler[T program.Float] struct {
	// Of the graph that the solver is attached to.
	run     *program.Run[T]
	outputs []*output
	path    program.Path // from what the blocks observe to the outputs

	seeds []program.Seed[T]
	perm  []int

	// Of the last call of sample: what Dropout and random nodes drew from, and whether the run holds the forward pass of the whole batch.
	seed uint64
	all  bool

	// What is random, so that a test can put something else in its place: the choice of cases, and the drawing of targets into o.y.
	choose func(p *program.Program, fraction float64, atLeast int, rng *rand.Rand) []int
	draw   func(o *output, rng *rand.Rand)
}

func newSampler[T program.Float]() *sampler[T] {
	s := &sampler[T]{}
	s.choose = s.randomCases
	s.draw = func(o *output, rng *rand.Rand) { o.head.sample(o.y, o.z, o.cols, rng) }
	return s
}

// use makes g the graph to sample from.
func (s *sampler[T]) use(g *graph[T]) {
	s.run, s.outputs, s.path = g.run, g.outputs, g.path
	seeds := make([]program.Seed[T], len(s.outputs))
	for i := range min(len(seeds), len(s.seeds)) {
		seeds[i].Data = s.seeds[i].Data
	}
	s.seeds = seeds
}

// sample draws the cases and the targets with rng, and runs both passes. The gradients are those of the cases' own negative
// log-likelihoods, summed where cases meet, not averaged.
func (s *sampler[T]) sample(p *program.Program, fraction float64, atLeast int, rng *rand.Rand) error {
	s.seed, s.all = rng.Uint64(), false
	rows := s.choose(p, fraction, atLeast, rng)
	s.run.Use(nil)
	s.run.Reseed(s.seed)
	if err := s.run.Forward(rows); err != nil {
		return graphError(err)
	}
	for i, o := range s.outputs {
		if !read(o, s.run) {
			return notFiniteOutput(o)
		}
		s.draw(o, rng)
		o.head.residual(o.y, o.y, o.z, o.cols)
		seed := &s.seeds[i]
		if cap(seed.Data) < len(o.y) {
			seed.Data = make([]T, len(o.y))
		}
		seed.Node, seed.Data = o.node, seed.Data[:len(o.y)]
		root := math.Sqrt(o.weight) // so that weight multiplies the second moments
		for j, r := range o.y {
			seed.Data[j] = T(root * r)
		}
	}
	if err := s.run.Reverse(s.seeds, s.path); err != nil {
		return graphError(err)
	}
	s.all = rows == nil
	return nil
}

// partOf is the number of cases that a fraction of the batch stands for, if it is not to be less than atLeast. It may be more than there are.
func partOf(cases int, fraction float64, atLeast int) int {
	return max(int(math.Ceil(fraction*float64(cases))), atLeast)
}

// randomCases draws a random subset of the cases: the fraction of the batch, but no fewer than atLeast. nil is the whole batch.
func (s *sampler[T]) randomCases(p *program.Program, fraction float64, atLeast int, rng *rand.Rand) []int {
	n := partOf(p.Cases, fraction, atLeast)
	if n >= p.Cases || p.Whole != "" {
		return nil
	}
	if len(s.perm) != p.Cases {
		s.perm = make([]int, p.Cases)
	}
	for i := range s.perm {
		s.perm[i] = i
	}
	for i := range n {
		j := i + rng.IntN(p.Cases-i)
		s.perm[i], s.perm[j] = s.perm[j], s.perm[i]
	}
	return s.perm[:n]
}

// graphError makes the private program's errors this package's.
func graphError(err error) error {
	if err == nil {
		return nil
	}
	if op, ok := asOpError(err); ok {
		return &GraphError{Node: op.Node, What: fmt.Sprintf("%s of %s", op.What, op.Op), Err: op.Err,
			Hint: "call RunAll before Step, and give every input a value of the graph's shape and dtype"}
	}
	return &GraphError{Node: "?", What: "running the model privately", Err: err}
}
