package mpi

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// cases is how many a batch has, on all ranks.
const cases = 13

// trains trains a net on all ranks, and on one with the whole batch.
func trains(c *Communicator) error {
	got, err := train(c)
	if err != nil {
		return err
	}
	first := slices.Clone(got)
	if err := c.BroadcastFloat64(first, 0); err != nil {
		return err
	}
	for i := range got {
		if math.Float64bits(got[i]) != math.Float64bits(first[i]) {
			return fmt.Errorf("weight %d is %v, on rank 0 %v", i, got[i], first[i])
		}
	}
	var want []float64
	err = kfac.InProcess(1, func(alone kfac.Communicator) (err error) {
		want, err = train(alone)
		return err
	})
	if err != nil {
		return err
	}
	start := weightsOf(batch(0, cases))
	if d := testnet.Distance(got, want); !(d <= 1e-9) {
		return fmt.Errorf("weights differ by %g of their norm from those of one process", d)
	}
	if d := testnet.Distance(want, start); !(d >= 1e-2) {
		return errors.New("the weights have not moved")
	}
	return nil
}

// train makes 20 updates, and returns the weights.
func train(c kfac.Communicator) ([]float64, error) {
	n := batch(c.Rank()*cases/c.Size(), (c.Rank()+1)*cases/c.Size())
	if _, err := gorgonia.Grad(n.Cost, n.Params...); err != nil {
		return nil, err
	}
	vm := testnet.DualTape(n)
	solver := kfac.New(kfac.WithCommunicator(c))
	for range 20 {
		if err := errors.Join(vm(), solver.Step(n.ValueGrads())); err != nil {
			return nil, err
		}
	}
	return weightsOf(n), nil
}

// batch is a net for the cases from, to of the batch.
func batch(from, to int) *testnet.Net {
	of := func(cases int) *testnet.Net {
		shape := testnet.Shape{Cases: cases, Widths: []int{5, 7, 6, 4}}
		return testnet.NewMLP[float64](1, shape, testnet.CrossEntropy)
	}
	whole, part := of(cases), of(to-from)
	part.CopyParams(whole)
	for _, name := range []string{"x", "y"} {
		in := whole.Input(name)
		width := in.Shape()[1]
		copy(testnet.Data(part.Input(name)), testnet.Data(in)[from*width:to*width])
	}
	return part
}

func weightsOf(n *testnet.Net) []float64 {
	var all []float64
	for _, p := range n.Params {
		all = append(all, testnet.Data(p)...)
	}
	return all
}
