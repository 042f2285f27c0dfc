// Package reconstruct runs autoencoders, without gradients, over any number of images.
package reconstruct

import (
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
)

// Images is a list of images of mnist.Pixels values, such as mnist.Set.
type Images interface {
	Len() int
	// Range lists the n images from the first on, or fewer at the end.
	Range(first, n int) []int
	// CopyPixels writes the given images into the leading rows of dst, row-major, one image a row.
	CopyPixels(dst []float32, cases []int)
}

// A Decoder reconstructs images with the present values of the weights. Its graph is for batches of
// a fixed size.
type Decoder struct {
	pixels []float32
	vm     gorgonia.VM
	mean   gorgonia.Value // of the pixels: batch x pixels
}

// NewDecoder takes the graph's input, the memory of a batch x mnist.Pixels matrix, and the node of
// the reconstruction, which has the same shape. Nobody else may use the graph.
func NewDecoder(pixels []float32, reconstruction *gorgonia.Node) *Decoder {
	d := &Decoder{pixels: pixels}
	gorgonia.Read(reconstruction, &d.mean)
	d.vm = gorgonia.NewTapeMachine(reconstruction.Graph())
	return d
}

// Close frees the machine.
func (d *Decoder) Close() error { return d.vm.Close() }

// Each calls visit with every image and its reconstruction, which are valid during the call.
func (d *Decoder) Each(set Images, visit func(original, reconstruction []float32)) error {
	batch := len(d.pixels) / mnist.Pixels
	for first := 0; first < set.Len(); first += batch {
		cases := set.Range(first, batch)
		set.CopyPixels(d.pixels, cases)
		if err := d.vm.RunAll(); err != nil {
			return err
		}
		mean := d.mean.Data().([]float32)
		for row := range cases {
			visit(image(d.pixels, row), image(mean, row))
		}
		d.vm.Reset()
	}
	return nil
}

// image is one row of a batch.
func image(batch []float32, row int) []float32 { return batch[row*mnist.Pixels : (row+1)*mnist.Pixels] }

// Error is the squared error of the reconstruction, summed over the pixels, mean over the images.
func (d *Decoder) Error(set Images) (float64, error) {
	var sum float64
	err := d.Each(set, func(original, reconstruction []float32) {
		for k, v := range reconstruction {
			e := float64(v) - float64(original[k])
			sum += e * e
		}
	})
	return sum / float64(set.Len()), err
}

// All returns the reconstruction of every image.
func (d *Decoder) All(set Images) ([][]float32, error) {
	var images [][]float32
	err := d.Each(set, func(_, reconstruction []float32) { images = append(images, slices.Clone(reconstruction)) })
	return images, err
}
