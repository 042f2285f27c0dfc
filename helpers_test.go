package kfac

import (
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// attach makes the solver of a network, plans for its parameters, and finds the scale of the cost.
func attach(t rapid.TB, n *testnet.Net, opts ...Option) *training[float64] {
	t.Helper()
	s, err := NewSolver(n.Cost, Declared(n), append(opts, WithoutGradientCheck())...)
	testnet.Check(t, err)
	c := s.engine.(*training[float64])
	testnet.Check(t, c.replan(n.Params))
	_, err = c.check(&chunk[float64]{})
	testnet.Check(t, err)
	return c
}

// sampled runs the model on a part of the batch, at least one case, and samples targets for it.
func sampled(c *training[float64], fraction float64, rng *rand.Rand) error {
	m := c.plan.model
	of := conditions[float64]{seed: rng.Uint64()}
	if err := m.forward(of, c.sampler.choose(m.Program, fraction, 1, rng)); err != nil {
		return err
	}
	return c.sampler.sweep(0, c.graph, m, c.plan.path, &c.graph.units, nil, draws{rng: rng})
}

// trainingOf is the engine of a float64 trainer.
func trainingOf(tr *Trainer) *training[float64] { return tr.Solver.engine.(*training[float64]) }

// statsOf are the figures of the last step, without the times.
func statsOf(tr *Trainer) Stats {
	st := tr.Solver.Stats()
	st.Time = PhaseTimes{}
	return st
}

// A placedLayer is a layer of the plan, with where its factors are.
type placedLayer struct {
	*layers.Layer
	block *block[float64]
	index int // of the block among the plan's
	group int // of the layer in the block
}

// placedLayers are the layers of the plan, in the order of the blocks.
func placedLayers(c *training[float64]) (all []placedLayer) {
	for i, b := range c.plan.blocks {
		h, ok := c.plan.hooks[i].(*layerHook[float64])
		if !ok {
			continue
		}
		for k, g := range b.groups {
			l := h.layers[0]
			if !g.shape.Tied {
				l = h.layers[k]
			}
			all = append(all, placedLayer{l, b, i, k})
		}
	}
	return all
}

// layerNamed is the layer of a weight.
func layerNamed(t rapid.TB, c *training[float64], weight string) placedLayer {
	t.Helper()
	for _, l := range placedLayers(c) {
		if l.Name() == weight {
			return l
		}
	}
	t.Fatalf("no layer %q", weight)
	return placedLayer{}
}

// factors are A and G of the layer in some averages: of n^2 elements, or of n if only the diagonal
// is kept. A tied weight has factors for either way that it is used; these are the first.
func (l placedLayer) factors(avg averages[float64]) (a, g []float64) {
	m := avg[l.index].Moments
	return m[2*l.group], m[2*l.group+1]
}

// kronecker is A (x) G of the layer in some averages.
func (l placedLayer) kronecker(avg averages[float64]) *mat.Dense {
	a, g := l.factors(avg)
	s := l.block.groups[l.group].shape
	var k mat.Dense
	k.Kronecker(factorMatrix(a, s.Abar()), factorMatrix(g, s.Out))
	return &k
}

// factorMatrix is a factor of n rows as a matrix, also where only its diagonal is kept.
func factorMatrix(x []float64, n int) mat.Matrix {
	if len(x) == n && n > 1 {
		return mat.NewDiagDense(n, x)
	}
	return square(x)
}

// v and u are the layer's gradient and direction.
func (l placedLayer) v() []float64 { l.block.weave(true); return l.block.v[l.group] }
func (l placedLayer) u() []float64 { return l.block.u[l.group] }

// observed are the averages of all blocks after the model's run.
func observed(t rapid.TB, c *training[float64]) averages[float64] {
	t.Helper()
	testnet.Check(t, observe(c.plan, false))
	avg, err := newAverages(c.plan.blocks, c.cfg.ema, true)
	testnet.Check(t, err)
	return avg
}

// currentAverages are copies of the averages as the steps before have left them.
func currentAverages(c *training[float64]) (avg averages[float64]) {
	for _, b := range c.plan.blocks {
		avg = append(avg, b.Copy())
	}
	return avg
}

// gradients gives every parameter the gradient of the cost, from a private run, in the solver's
// units.
func gradients(t rapid.TB, c *training[float64]) {
	t.Helper()
	whole := c.graph.whole
	run, err := program.NewRun[float64](whole, 1)
	testnet.Check(t, err)
	testnet.Check(t, run.Forward(nil))
	var leaves []*program.Node
	for _, p := range c.plan.order {
		leaves = append(leaves, whole.Node(p.src))
	}
	seeds := []program.Seed[float64]{{Node: whole.Outputs[0], Data: []float64{1}}}
	testnet.Check(t, run.Reverse(seeds, whole.Path(leaves...)))
	for i, p := range c.plan.order {
		p.given = true
		copy(p.grad, run.Gradient(leaves[i]))
		p.objectiveGradient(c.graph.scale(), c.plan.model.Cases, c.cfg.l2, false)
	}
}

// directions preconditions the gradients with the inverses of some averages, damped with gamma. It
// returns the inverses.
func directions(t rapid.TB, c *training[float64], avg averages[float64], gamma float64) *inverses[float64] {
	t.Helper()
	made, err := invert(c.plan.blocks, avg, gamma, c.cfg.l2)
	testnet.Check(t, err)
	if made.raised > 0 {
		t.Fatalf("the damping of %d factors was raised", made.raised)
	}
	testnet.Check(t, new(distributed[float64]).direct(made, c.plan.blocks, c.plan.order, c.low))
	return made
}

// blockIndex is where a block of the given kind is among the plan's, or -1.
func blockIndex[B curvature.Block[float64]](c *training[float64]) int {
	return slices.IndexFunc(c.plan.blocks, func(b *block[float64]) bool {
		_, ok := b.Block.(B)
		return ok
	})
}

// square is the n x n matrix of n^2 numbers.
func square(x []float64) *mat.Dense {
	n := int(math.Round(math.Sqrt(float64(len(x)))))
	return mat.NewDense(n, n, x)
}

// flatOf is the elements of a matrix, row by row.
func flatOf(m mat.Matrix) []float64 { return mat.DenseCopyOf(m).RawMatrix().Data }
