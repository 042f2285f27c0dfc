package main

import (
	"math"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
)

// evalBatch is the number of cases that a classifier looks at at once.
const evalBatch = 500

// A classifier names digits with the present values of the layers. It is a second graph, without
// gradients.
type classifier struct {
	model  *model
	vm     gorgonia.VM
	logits gorgonia.Value // evalBatch x classes
}

func newClassifier(layers []layer) *classifier {
	c := &classifier{model: newModel(layers, evalBatch)}
	gorgonia.Read(c.model.logits, &c.logits)
	c.vm = gorgonia.NewTapeMachine(c.model.graph)
	return c
}

func (c *classifier) Close() error { return c.vm.Close() }

// each calls visit with every case of set and its logits, which are valid during the call.
func (c *classifier) each(set mnist.Set, visit func(i int, logits []float32)) error {
	for first := 0; first < set.Len(); first += evalBatch {
		cases := set.Range(first, evalBatch)
		set.CopyPixels(c.model.pixels, cases)
		if err := c.vm.RunAll(); err != nil {
			return err
		}
		logits := c.logits.Data().([]float32)
		for row, i := range cases {
			visit(i, logits[row*mnist.Classes:(row+1)*mnist.Classes])
		}
		c.vm.Reset()
	}
	return nil
}

// Error is the percentage of the cases of set that c takes for another digit. If a logit is NaN, so
// is Error.
func (c *classifier) Error(set mnist.Set) (float64, error) {
	var wrong int
	diverged := false
	err := c.each(set, func(i int, logits []float32) {
		if answer(logits) != set.Label(i) {
			wrong++
		}
		diverged = diverged || math.IsNaN(float64(logits[0]))
	})
	if diverged {
		return math.NaN(), err
	}
	return 100 * float64(wrong) / float64(set.Len()), err
}

// answer is the class of the largest logit.
func answer(logits []float32) int {
	best := 0
	for class, z := range logits {
		if z > logits[best] {
			best = class
		}
	}
	return best
}

// mistakes returns the cases of set that are taken for another digit.
func mistakes(layers []layer, set mnist.Set) (mnist.Set, error) {
	c := newClassifier(layers)
	defer c.Close()
	var wrong []int
	err := c.each(set, func(i int, logits []float32) {
		if answer(logits) != set.Label(i) {
			wrong = append(wrong, i)
		}
	})
	return set.Pick(wrong), err
}
