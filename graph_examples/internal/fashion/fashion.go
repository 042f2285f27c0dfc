// Package fashion hands out Fashion-MNIST: 60,000 training and 10,000 test images of clothes of 10
// kinds, grey, 28x28 pixels (Xiao, Rasul & Vollgraf, "Fashion-MNIST: a novel image dataset for
// benchmarking machine learning algorithms", 2017).
//
// The files have the names and the format of MNIST's, and the cases come as a mnist.Set. They are
// not part of any Go module; Debian and Ubuntu have them as the package dataset-fashion-mnist.
package fashion

import (
	"errors"
	"fmt"
	"os"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
)

// Dir is the folder in which the Debian package puts the files.
const Dir = "/usr/share/datasets/fashion-mnist"

// Load reads the training and the test images from dir, a folder with the four files
// {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz. An empty dir stands for Dir.
func Load(dir string) (train, test mnist.Set, err error) {
	if dir == "" {
		dir = Dir
	}
	train, test, err = mnist.Read(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = fmt.Errorf("no Fashion-MNIST data: %w; run `apt-get install -y dataset-fashion-mnist`, "+
			"which puts the four *-ubyte.gz files into %s, or give their folder by -data", err, Dir)
	case err != nil:
		err = fmt.Errorf("Fashion-MNIST: %w", err)
	}
	return train, test, err
}
