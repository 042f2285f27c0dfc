package initial

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/tensor"
)

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// moments returns the number of non-zero values, and the mean and variance of those.
func moments(data []float32) (n int, mean, variance float64) {
	for _, v := range data {
		if v != 0 {
			n++
			mean += float64(v)
		}
	}
	mean /= float64(n)
	for _, v := range data {
		if v != 0 {
			variance += (float64(v) - mean) * (float64(v) - mean)
		}
	}
	return n, mean, variance / float64(n)
}

func column(w *tensor.Dense, unit int) []float32 {
	in, out := w.Shape()[0], w.Shape()[1]
	data := w.Data().([]float32)
	col := make([]float32, in)
	for i := range col {
		col[i] = data[i*out+unit]
	}
	return col
}

func TestSparse(t *testing.T) {
	for _, in := range []int{1, 5, 30, 784} {
		const out = 500
		w := Sparse(seeded(1), in, out)
		if !w.Shape().Eq(tensor.Shape{in, out}) {
			t.Fatalf("shape %v, want (%d, %d)", w.Shape(), in, out)
		}
		total := 0
		for unit := range out {
			n, _, _ := moments(column(w, unit))
			if n < 1 || n > min(in, SparseDraws) {
				t.Fatalf("in %d: unit %d has %d incoming weights", in, unit, n)
			}
			total += n
		}
		// An input is missed by all draws with probability (1-1/in)^SparseDraws.
		hit := 1 - math.Pow(1-1/float64(in), SparseDraws)
		want := float64(in) * hit * out
		if tolerance := 4 * math.Sqrt(want*(1-hit)); math.Abs(float64(total)-want) > tolerance {
			t.Errorf("in %d: %d incoming weights in all, want %.0f +- %.0f", in, total, want, tolerance)
		}
		n, mean, variance := moments(w.Data().([]float32))
		if e := 4 / math.Sqrt(float64(n)); math.Abs(mean) > e || math.Abs(variance-1) > math.Sqrt2*e {
			t.Errorf("in %d: weights have mean %.3f and variance %.3f, want 0 and 1", in, mean, variance)
		}
	}
}

func TestGlorot(t *testing.T) {
	w := Glorot(seeded(1), 300, 100)
	n, mean, variance := moments(w.Data().([]float32))
	const want = 2.0 / 400
	if n != 30000 || math.Abs(mean) > 4*math.Sqrt(want/30000) || math.Abs(variance/want-1) > 4*math.Sqrt(2.0/30000) {
		t.Errorf("%d weights of mean %g and variance %g, want 30000 of mean 0 and variance %g", n, mean, variance, want)
	}
}

func TestReproducible(t *testing.T) {
	for name, draw := range map[string]func(*rand.Rand, int, int) *tensor.Dense{"Sparse": Sparse, "Glorot": Glorot} {
		a, b, c := draw(seeded(1), 40, 30), draw(seeded(1), 40, 30), draw(seeded(2), 40, 30)
		data := func(w *tensor.Dense) []float32 { return w.Data().([]float32) }
		if !slices.Equal(data(a), data(b)) {
			t.Errorf("%s: one seed gives two results", name)
		}
		if slices.Equal(data(a), data(c)) {
			t.Errorf("%s: two seeds give one result", name)
		}
	}
}

func TestZeros(t *testing.T) {
	b := Zeros(3)
	if !b.Shape().Eq(tensor.Shape{3}) || !slices.Equal(b.Data().([]float32), make([]float32, 3)) {
		t.Errorf("Zeros(3) = %v", b)
	}
}
