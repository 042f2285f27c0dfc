package curvature

import (
	"fmt"
	"testing"
)

// plainMoment is X^T X / rows, for X of n columns, with a column of ones behind it if homogeneous.
func plainMoment(x []float64, n int, homogeneous bool, rows int) []float64 {
	if homogeneous && n == 0 {
		return []float64{1}
	}
	x = withOnes(x, n, homogeneous)
	if homogeneous {
		n++
	}
	return momentOf(x, n, x, n, rows)
}

// secondMoment is the moment of the rows of X, with a column of ones behind it if homogeneous,
// observed for the first time.
func secondMoment[T Float](t testing.TB, x []T, rows, n int, homogeneous bool) []T {
	t.Helper()
	m := newFactor[T](n, false)
	xt := columnsOf(make([]T, 3), x, rows, n, homogeneous)
	if !m.observe(xt, xt, rows, rows) {
		t.Fatal("not finite")
	}
	avg := make([]T, n*n)
	m.average(0, avg, make([]T, n*n))
	m.mirrored(avg)
	return avg
}

func TestSecondMomentGolden(t *testing.T) {
	for _, test := range []struct {
		x           []float64
		rows, n     int
		homogeneous bool
		want        []float64
	}{
		{[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9}, 3, 3, false, []float64{22, 26, 30, 26, 31, 36, 30, 36, 42}},
		{[]float64{1, 1, 1, 1}, 2, 2, false, []float64{1, 1, 1, 1}},
		{[]float64{1, 2}, 2, 2, true, []float64{2.5, 1.5, 1.5, 1}},
		{[]float64{1, 2, 3, 4}, 2, 3, true, []float64{5, 7, 2, 7, 10, 3, 2, 3, 1}},
		{nil, 3, 1, true, []float64{1}},
	} {
		got := secondMoment(t, test.x, test.rows, test.n, test.homogeneous)
		checkNear(t, fmt.Sprint(test.x), got, test.want, rounding)
	}
}

// The running average of [[1,2],[3,4]] with ones, from the identity, with decay 1/2.
func TestAverageGolden(t *testing.T) {
	m := newFactor[float64](3, false)
	xt := columnsOf(nil, []float64{1, 2, 3, 4}, 2, 3, true)
	m.observe(xt, xt, 2, 2)
	avg := []float64{1, 0, 0, 0, 1, 0, 0, 0, 1}
	m.average(0.5, avg, avg)
	m.mirrored(avg)
	checkNear(t, "average", avg, []float64{3, 3.5, 1, 3.5, 5.5, 1.5, 1, 1.5, 1}, rounding)
}

// A cross moment is not symmetric.
func TestCrossMomentGolden(t *testing.T) {
	x, y := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9}, []float64{9, 8, 7, 6, 5, 4, 3, 2, 1}
	f := newCross[float64](3, 3)
	f.observe(columnsOf(nil, x, 3, 3, false), columnsOf(nil, y, 3, 3, false), 3, 2)
	avg := make([]float64, 9)
	f.average(0, avg, make([]float64, 9))
	checkNear(t, "moment", avg, []float64{27, 21, 15, 36, 28.5, 21, 45, 36, 27}, rounding)
}

func TestSecondMoment(t *testing.T) {
	for seed := range uint64(100) {
		s := newSource(seed)
		rows, n, homogeneous := s.between(1, 40), s.between(1, 40), s.coin()
		cols := n
		if homogeneous {
			cols--
		}
		x := s.normals(rows * cols)
		got := secondMoment(t, x, rows, n, homogeneous)
		checkNear(t, "moment", got, plainMoment(x, cols, homogeneous, rows), rounding)
	}
}

// More rows than a panel of the product has.
func TestLargeSecondMoment(t *testing.T) {
	const rows, n = 30, 300
	x := newSource(1).normals(rows * n)
	checkNear(t, "moment", secondMoment(t, x, rows, n, false), plainMoment(x, n, false, rows), rounding)
}

// In float32 the moments are float32's, to its rounding.
func TestSecondMomentInFloat32(t *testing.T) {
	const rows, n = 50, 9
	x := newSource(14).normals(rows * n)
	got := secondMoment(t, converted[float32](x), rows, n+1, true)
	checkNear(t, "moment", converted[float64](got), plainMoment(x, n, true, rows), 1e-6)
}
