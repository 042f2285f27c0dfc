package curvature

import (
	"errors"
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// elementwiseFisher is the dense matrix of the blocks in mean, for the parameters behind each
// other.
func elementwiseFisher(params, elements, fullBlock int, mean []float64) *mat.Dense {
	if params == 1 || params*elements <= fullBlock {
		return matrixOf(mean, params*elements) // of which mean is the whole, or the diagonal
	}
	f := mat.NewDense(2*elements, 2*elements, nil)
	for c := range elements {
		for i := range 2 {
			for j := range 2 {
				f.Set(i*elements+c, j*elements+c, mean[(c*2+i)*2+j])
			}
		}
	}
	return f
}

// The blocks are those of the mean over cases of v v^T, and the trace is theirs.
func TestElementwiseMoments(t *testing.T) {
	const cases = 6
	for _, test := range []struct{ params, elements, fullBlock, width, channels int }{
		{1, 1, 32, 1, 1}, {1, 4, 4, 4, 1}, {1, 5, 4, 1, 5}, {2, 3, 1, 2, 3}, {2, 3, 5, 2, 3}, {2, 3, 6, 6, 1},
		{2, 1, 1, 2, 1},
	} {
		b := NewElementwise[float64](test.params, test.elements, test.fullBlock)
		if b.Width() != test.width || b.Channels() != test.channels {
			t.Errorf("%v: %d blocks of width %d", test, b.Channels(), b.Width())
		}
		s := newSource(8)
		var rows []Rows[float64]
		all := mat.NewDense(cases, test.params*test.elements, nil)
		for p := range test.params {
			r := Rows[float64]{G: s.normals(cases * test.elements), Cases: cases}
			part := all.Slice(0, cases, p*test.elements, (p+1)*test.elements).(*mat.Dense)
			part.Copy(mat.NewDense(cases, test.elements, r.G))
			rows = append(rows, r)
		}
		avg := seen[float64](t, b, rows)
		n := test.params * test.elements
		whole := matrixOf(momentOf(flatOf(all), n, flatOf(all), n, cases), n)
		got := elementwiseFisher(test.params, test.elements, test.fullBlock, avg.Moments[0])
		for i := range n {
			for j := range n {
				if got.At(i, j) == 0 {
					whole.Set(i, j, 0) // between blocks, whose number and width are right
				}
			}
		}
		checkNear(t, "blocks", flatOf(got), flatOf(whole), rounding)
		checkNear(t, "trace", []float64{b.Trace(avg)}, []float64{mat.Trace(whole)}, rounding)
	}
}

// A block that can't be factorised has its damping raised, or leaves a NaN.
func TestElementwiseWithoutSolution(t *testing.T) {
	b := NewElementwise[float64](1, 2, 2)
	v := []float64{1, 2}
	avg := averagesOf([]float64{1, 0, 0, -1e-4})
	u := applied(inverted[float64](t, b, avg, tikhonov(0.01)), v)[0] // 1e-4 is not enough
	checkNear(t, "direction", u, []float64{1 / (1 + 1e-3), 2 / (1e-3 - 1e-4)}, rounding)

	avg = averagesOf([]float64{1, 0, 0, -1e4})
	if u := applied(inverted[float64](t, b, avg, tikhonov(0.01)), v)[0]; !math.IsNaN(u[0]) {
		t.Errorf("direction %v, want a NaN", u)
	}
}

// Identity statistics and lambda = 1/2 leave 2/3 of the gradient of a full block: the numbers that
// the tests of tensorflow/kfac expect.
func TestFullBlockGolden(t *testing.T) {
	b := NewElementwise[float64](1, 3, 3)
	avg := averagesOf([]float64{1, 0, 0, 0, 1, 0, 0, 0, 1})
	u := applied(inverted[float64](t, b, avg, tikhonov(math.Sqrt(0.5))), []float64{3, -1.5, 0.75})[0]
	checkNear(t, "direction", u, []float64{2, -1, 0.5}, rounding)
}

// The mean of the squares is over all rows, and repeats over a parameter with elements of its own
// for each case.
func TestDiagonalMoments(t *testing.T) {
	b := NewDiagonal[float64](2, 6)
	avg := seen[float64](t, b, []Rows[float64]{{G: []float64{1, 2, 3, -4}, Cases: 4}})
	checkNear(t, "squares", avg.Moments[0], []float64{2.5, 5}, rounding)
	checkNear(t, "trace", []float64{b.Trace(avg)}, []float64{22.5}, rounding)
	if b.Entries() != 2 {
		t.Errorf("%d entries, want 2", b.Entries())
	}
	u := applied(inverted[float64](t, b, avg, tikhonov(0.5)), []float64{1, 1, 2, 2, 3, 3})[0]
	checkNear(t, "direction", u, []float64{1 / 2.75, 1 / 5.25, 2 / 2.75, 2 / 5.25, 3 / 2.75, 3 / 5.25}, rounding)
}

// A square that overflows in the model's dtype is an error.
func TestDiagonalOverflows(t *testing.T) {
	b := NewDiagonal[float32](2, 2)
	var e *Error
	err := b.Observe([]Rows[float32]{{G: []float32{1, 1e20}, Cases: 1}})
	if !errors.As(err, &e) || !errors.Is(err, ErrNotFinite) {
		t.Errorf("error %v, want one that wraps ErrNotFinite", err)
	}
}
