package main

import (
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
)

// decodeBatch is the number of cases that a decoder reconstructs at once.
const decodeBatch = 250

// A decoder reconstructs digits with the present values of the layers: a second graph, without gradients.
type decoder struct {
	model *model
	vm    gorgonia.VM
	mean  gorgonia.Value // of the pixels: decodeBatch x pixels
}

func newDecoder(layers []layer) *decoder {
	d := &decoder{model: newModel(layers, decodeBatch)}
	mean := gorgonia.Must(gorgonia.Sigmoid(d.model.logits))
	gorgonia.Read(mean, &d.mean)
	d.vm = gorgonia.NewTapeMachine(d.model.graph)
	return d
}

func (d *decoder) Close() error { return d.vm.Close() }

// each calls visit with every case of set and its reconstruction, which is valid during the call.
func (d *decoder) each(set mnist.Set, visit func(original, reconstruction []float32)) error {
	for first := 0; first < set.Len(); first += decodeBatch {
		cases := set.Range(first, decodeBatch)
		set.CopyPixels(d.model.pixels, cases)
		if err := d.vm.RunAll(); err != nil {
			return err
		}
		mean := d.mean.Data().([]float32)
		for row := range cases {
			visit(pixels(d.model.pixels, row), pixels(mean, row))
		}
		d.vm.Reset()
	}
	return nil
}

// pixels is one row of a batch.
func pixels(batch []float32, row int) []float32 {
	return batch[row*mnist.Pixels : (row+1)*mnist.Pixels]
}

// Error is the squared error of the reconstruction, summed over the pixels, mean over the cases of set.
func (d *decoder) Error(set mnist.Set) (float64, error) {
	var sum float64
	err := d.each(set, func(original, reconstruction []float32) {
		for k, v := range reconstruction {
			e := float64(v) - float64(original[k])
			sum += e * e
		}
	})
	return sum / float64(set.Len()), err
}

// reconstruct returns the reconstruction of every digit of set.
func reconstruct(layers []layer, set mnist.Set) ([][]float32, error) {
	d := newDecoder(layers)
	defer d.Close()
	var digits [][]float32
	err := d.each(set, func(_, reconstruction []float32) {
		digits = append(digits, slices.Clone(reconstruction))
	})
	return digits, err
}
