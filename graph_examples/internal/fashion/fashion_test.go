package fashion

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
)

// write writes a compressed file of the format IDX: a magic number and sizes, big-endian, and
// bytes.
func write(t *testing.T, dir, name string, header []uint32, data []byte) {
	t.Helper()
	var file bytes.Buffer
	z := gzip.NewWriter(&file)
	err := errors.Join(
		binary.Write(z, binary.BigEndian, header),
		binary.Write(z, binary.BigEndian, data),
		z.Close())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), file.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// writePart writes images of side x side pixels and their labels. Pixel k of image i is i+k.
func writePart(t *testing.T, dir, part string, images, side int, labels ...byte) {
	t.Helper()
	data := make([]byte, 0, images*side*side)
	for i := range images {
		for k := range side * side {
			data = append(data, byte(i+k))
		}
	}
	write(t, dir, part+"-images-idx3-ubyte.gz", []uint32{0x803, uint32(images), uint32(side), uint32(side)}, data)
	write(t, dir, part+"-labels-idx1-ubyte.gz", []uint32{0x801, uint32(len(labels))}, labels)
}

func TestLoadFolder(t *testing.T) {
	dir := t.TempDir()
	writePart(t, dir, "train", 3, mnist.Side, 9, 0, 3)
	writePart(t, dir, "t10k", 2, mnist.Side, 1, 2)
	train, test, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if train.Len() != 3 || test.Len() != 2 || train.Label(0) != 9 || train.Label(2) != 3 || test.Label(1) != 2 {
		t.Fatalf("%d training cases %v, %d test cases %v", train.Len(), train, test.Len(), test)
	}
	cases := []int{2, 0, 1}
	rows := make([]float32, len(cases)*mnist.Pixels)
	train.CopyPixels(rows, cases)
	for row, i := range cases {
		for k := range mnist.Pixels {
			if got, want := rows[row*mnist.Pixels+k], float32(byte(i+k))/255; got != want {
				t.Fatalf("row %d, pixel %d of case %d is %g, want %g", row, k, i, got, want)
			}
		}
	}
}

func TestLoadErrors(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(dir string) // a folder with good files
		want  []string
	}{
		{"missing training images", func(dir string) { remove(t, dir, "train-images-idx3-ubyte.gz") },
			[]string{"train-images-idx3-ubyte.gz", "apt-get install -y dataset-fashion-mnist", Dir, "-data"}},
		{"missing test labels", func(dir string) { remove(t, dir, "t10k-labels-idx1-ubyte.gz") },
			[]string{"t10k-labels-idx1-ubyte.gz", "apt-get install -y dataset-fashion-mnist", Dir, "-data"}},
		{"too few pixels", func(dir string) {
			write(t, dir, "train-images-idx3-ubyte.gz", []uint32{0x803, 3, mnist.Side, mnist.Side},
				make([]byte, 2*mnist.Pixels))
		}, []string{"Fashion-MNIST", `"train"`, "damaged"}},
		{"labels for images", func(dir string) {
			write(t, dir, "t10k-images-idx3-ubyte.gz", []uint32{0x801, 2}, make([]byte, 2))
		}, []string{"Fashion-MNIST", `"t10k"`, "damaged"}},
		{"smaller images", func(dir string) { writePart(t, dir, "train", 3, 20, 1, 2, 3) },
			[]string{"Fashion-MNIST", "train-images-idx3-ubyte.gz", "20x20, want 28x28"}},
		{"a label too few", func(dir string) { writePart(t, dir, "t10k", 3, mnist.Side, 1, 2) },
			[]string{"Fashion-MNIST", `"t10k"`, "3 images and 2 labels"}},
		{"a kind too many", func(dir string) { writePart(t, dir, "train", 2, mnist.Side, 9, 10) },
			[]string{"Fashion-MNIST", "train-labels-idx1-ubyte.gz", "label 1", "is 10, want less than 10"}},
	} {
		dir := t.TempDir()
		writePart(t, dir, "train", 3, mnist.Side, 1, 2, 3)
		writePart(t, dir, "t10k", 2, mnist.Side, 1, 2)
		if _, _, err := Load(dir); err != nil {
			t.Fatalf("%s: before it was spoilt: %v", tc.name, err)
		}
		tc.spoil(dir)
		train, test, err := Load(dir)
		if err == nil {
			t.Errorf("%s: no error", tc.name)
			continue
		}
		for _, want := range append(tc.want, dir) {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q does not mention %q", tc.name, err, want)
			}
		}
		if strings.Contains(err.Error(), "\n") || train.Len()+test.Len() > 0 {
			t.Errorf("%s: error %q, %d training and %d test cases, want one line and none",
				tc.name, err, train.Len(), test.Len())
		}
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func TestLoadInstalled(t *testing.T) {
	train, test, err := Load("")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		set    mnist.Set
		each   int   // cases of a kind
		labels []int // of the first cases; known, as is the mean below
	}{
		{train, 6000, []int{9, 0, 0, 3, 0, 2, 7, 2, 5, 5}},
		{test, 1000, []int{9, 2, 1, 1, 6, 1, 4, 6, 5, 7}},
	} {
		var labels []int
		var count [mnist.Classes]int
		for i := range tc.set.Len() {
			labels = append(labels, tc.set.Label(i))
			count[tc.set.Label(i)]++
		}
		if !slices.Equal(labels[:10], tc.labels) {
			t.Errorf("the first labels are %v, want %v", labels[:10], tc.labels)
		}
		for kind, n := range count {
			if n != tc.each {
				t.Errorf("%d cases of kind %d, want %d", n, kind, tc.each)
			}
		}
	}
	row := make([]float32, mnist.Pixels)
	var sum float64
	for i := range train.Len() {
		train.CopyPixels(row, []int{i})
		for _, v := range row {
			sum += float64(v)
		}
	}
	if mean := sum / float64(train.Len()*mnist.Pixels); mean < 0.28603 || mean > 0.28605 {
		t.Errorf("mean value of a training pixel %.5f, want 0.28604", mean)
	}
}
