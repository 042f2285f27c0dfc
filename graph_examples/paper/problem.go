package main

import (
	"fmt"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/curves"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/fashion"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/reconstruct"
)

// A problem is one of the autoencoders of Martens & Grosse (2015, section 13). The hidden units are
// logistic, except for the code, which is linear.
type problem struct {
	name  string
	sizes []int // units of the layers, from the input to the output
	code  int   // the layer of weights that computes the code
	// linear says that the output is linear, with squared error 1/2 |z-x|^2. Else it is logistic,
	// with binary cross-entropy.
	linear bool
	load   func(dir string) (train, test reconstruct.Images, err error)
}

var problems = []problem{
	{
		name:  "mnist",
		sizes: []int{mnist.Pixels, 1000, 500, 250, 30, 250, 500, 1000, mnist.Pixels},
		code:  3,
		load: func(dir string) (train, test reconstruct.Images, err error) {
			return digits(mnist.Load(dir))
		},
	},
	{
		name:  "curves",
		sizes: []int{curves.Pixels, 400, 200, 100, 50, 25, 6, 25, 50, 100, 200, 400, curves.Pixels},
		code:  5,
		load: func(string) (train, test reconstruct.Images, err error) {
			return curves.Make(20000, 1), curves.Make(10000, 2), nil
		},
	},
	{ // in place of FACES, which is not to be had; the units are those of its net, but for the number of pixels
		name:   "fashion",
		sizes:  []int{mnist.Pixels, 2000, 1000, 500, 30, 500, 1000, 2000, mnist.Pixels},
		code:   3,
		linear: true,
		load: func(dir string) (train, test reconstruct.Images, err error) {
			return digits(fashion.Load(dir))
		},
	},
}

// digits hands sets on as lists of images.
func digits(train, test mnist.Set, err error) (reconstruct.Images, reconstruct.Images, error) {
	return train, test, err
}

// firstOf is the first n images of a set.
func firstOf(set reconstruct.Images, n int) reconstruct.Images {
	switch set := set.(type) {
	case mnist.Set:
		return set.First(n)
	case curves.Set:
		return set.First(n)
	}
	return set
}

func problemNamed(name string) (problem, error) {
	var names []string
	for _, p := range problems {
		if p.name == name {
			return p, nil
		}
		names = append(names, p.name)
	}
	return problem{}, fmt.Errorf("-problem: no problem %q; there are %v", name, names)
}
