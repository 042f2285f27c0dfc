package kfac

import (
	"slices"

	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// attach makes the solver of a network, plans for its parameters, and finds the scale of the cost.
func attach(t rapid.TB, n *testnet.Net, opts ...Option) *conductor[float64] {
	t.Helper()
	s, err := NewSolver(n.Cost, Declared(n), append(opts, WithoutGradientCheck())...)
	if err != nil {
		t.Fatal(err)
	}
	c := s.engine.(*conductor[float64])
	if err := c.makePlan(n.Params); err != nil {
		t.Fatal(err)
	}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	return c
}

// conductorOf is the engine of a float64 trainer.
func conductorOf(tr *Trainer) *conductor[float64] { return tr.Solver.engine.(*conductor[float64]) }

// statsOf are the figures of the last step, without the times.
func statsOf(tr *Trainer) Stats {
	st := tr.Solver.Stats()
	st.Time = PhaseTimes{}
	return st
}

// layerBlocks are the blocks of the layers, in chains or by themselves.
func layerBlocks(c *conductor[float64]) (blocks []*layerBlock[float64]) {
	for _, b := range c.blocks {
		switch b := b.(type) {
		case *kroneckerBlock[float64]:
			blocks = append(blocks, b.layerBlock)
		case *tiedBlock[float64]:
			blocks = append(blocks, b.layerBlock)
		case *chainBlock[float64]:
			blocks = append(blocks, b.links...)
		}
	}
	return blocks
}

// gradients gives every parameter the gradient of the cost, from a private run, in the solver's
// units.
func gradients(t rapid.TB, c *conductor[float64]) {
	t.Helper()
	run, err := program.NewRun[float64](c.whole, 1)
	testnet.Check(t, err)
	testnet.Check(t, run.Forward(nil))
	var leaves []*program.Node
	for _, p := range c.order {
		leaves = append(leaves, c.whole.Node(p.src))
	}
	testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: c.whole.Outputs[0], Data: []float64{1}}},
		c.whole.Path(leaves...)))
	for i, p := range c.order {
		p.given = true
		copy(p.grad, run.Gradient(leaves[i]))
	}
	c.objectiveGradient(c.model.Cases)
}

// observed brings a block's averages up to date with a run.
func observed(t rapid.TB, b block[float64], run *program.Run[float64]) {
	t.Helper()
	testnet.Check(t, b.observe(run))
	testnet.Check(t, b.average(0.95, true))
}

// directions preconditions the gradients with the factors in next, damped with gamma.
func directions(t rapid.TB, c *conductor[float64], gamma float64) {
	t.Helper()
	raised, err := c.invert(gamma)
	testnet.Check(t, err)
	if raised > 0 {
		t.Fatalf("the damping of %d factors was raised", raised)
	}
	for _, b := range c.blocks {
		b.precondition(gamma, true)
	}
}

// averageOf is the current average of a moment, whole.
func averageOf[T program.Float](f *moment[T]) []float64 {
	whole := slices.Clone(f.now)
	if f.symmetric {
		linalg.MirrorUpper(whole, f.n)
	}
	return converted[float64](whole)
}

// converted is x in another type.
func converted[D, S program.Float](x []S) []D {
	c := make([]D, len(x))
	linalg.Convert(c, x)
	return c
}
