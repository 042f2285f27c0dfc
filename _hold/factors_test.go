package kfac

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

func TestDecay(t *testing.T) {
	for k, want := range map[int]float64{1: 0, 2: 0.5, 3: 2.0 / 3, 4: 0.75, 5: 0.8, 10: 0.9, 19: 18.0 / 19, 20: 0.95,
		21: 0.95, 1000: 0.95} {
		if got := decay(k, 0.95); math.Abs(got-want) > 1e-15 {
			t.Errorf("decay(%d, 0.95) = %.17g, want %.17g", k, got, want)
		}
	}
	for k := 1; k <= 100; k++ {
		if got := decay(k, 0); got != 0 {
			t.Errorf("decay(%d, 0) = %g, want 0", k, got)
		}
	}
}

// The average of the first 20 updates is their plain mean; later ones enter with 1/20. The first is
// the batch's own moment.
func TestRunningAverage(t *testing.T) {
	const updates = 25
	n := testnet.MLP{Widths: []int{3, 2}, Cases: 4, Loss: testnet.Squares(1)}.Build(11)
	c := attach(t, n)
	b := layerBlocks(c)[0]
	want := make([]float64, 16)
	var sum []float64
	for k := 1; k <= updates; k++ {
		x, seed := n.Sketch.Normals(12), n.Sketch.Normals(8)
		testnet.Check(t, c.sampler.run.Bind(b.layer.sites[0].input, x))
		testnet.Check(t, c.sampler.run.Forward(nil))
		testnet.Check(t, c.sampler.run.Reverse([]program.Seed[float64]{{Node: c.outputs[0].node, Data: seed}},
			c.sampler.path))
		before := slices.Clone(b.factors.a.now)
		observed(t, c.blocks[0], c.sampler.run)
		if !slices.Equal(before, b.factors.a.now) || b.factors.updates != k-1 {
			t.Fatal("observe has changed the current average")
		}
		b.factors.keep()

		moment := homogeneousMoment(x, 4, 3)
		sum = plus(sum, moment)
		for i := range want {
			if k <= 20 {
				want[i] = sum[i] / float64(k)
			} else {
				want[i] = 0.95*want[i] + 0.05*moment[i]
			}
		}
		if k == 1 {
			testnet.Near(t, "G after the first update", b.factors.g.now, plainMoment(seed, 4, 2), identity)
		}
		testnet.Near(t, fmt.Sprint("A after update ", k), b.factors.a.now, want, identity)
	}
}

// plainMoment is X^T X / rows, element by element.
func plainMoment(x []float64, rows, cols int) []float64 {
	m := make([]float64, cols*cols)
	for i := range cols {
		for j := range cols {
			for r := range rows {
				m[i*cols+j] += x[r*cols+i] * x[r*cols+j] / float64(rows)
			}
		}
	}
	return m
}

// homogeneousMoment is plainMoment of X with a column of ones behind it.
func homogeneousMoment(x []float64, rows, cols int) []float64 {
	var wide []float64
	for r := range rows {
		wide = append(append(wide, x[r*cols:(r+1)*cols]...), 1)
	}
	return plainMoment(wide, rows, cols+1)
}

// secondMoment is the moment of the rows of X, with a column of ones behind it if homogeneous,
// observed for the first time.
func secondMoment[T program.Float](t rapid.TB, x []T, rows, n int, homogeneous bool) *moment[T] {
	t.Helper()
	m := newFactor[T](n, false)
	xt := columnsOf(make([]T, 3), x, rows, n, homogeneous)
	if !m.observe(xt, xt, rows, rows) || !m.average(0, true) {
		t.Fatal("not finite")
	}
	return &m
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
		testnet.Near(t, fmt.Sprint(test.x), got.next, test.want, identity)
	}
}

// The running average of [[1,2],[3,4]] with ones, from the identity, with decay 1/2.
func TestAverageGolden(t *testing.T) {
	m := secondMoment(t, []float64{1, 2, 3, 4}, 2, 3, true)
	copy(m.now, []float64{1, 0, 0, 0, 1, 0, 0, 0, 1})
	m.average(0.5, true)
	testnet.Near(t, "average", m.next, []float64{3, 3.5, 1, 3.5, 5.5, 1.5, 1, 1.5, 1}, identity)
}

// The moment of runs that are taken in one after the other is that of all their rows at once, and a
// run that is observed but not taken does not count, nor one that is dropped.
func TestMomentOfSeveralRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, m := rapid.IntRange(1, 5).Draw(t, "n"), rapid.IntRange(1, 5).Draw(t, "m")
		s := testnet.NewSketch(rapid.Uint64().Draw(t, "seed"))
		f := newMoment[float64](n, m)
		var x, y []float64
		rows := 0
		observe := func() (xi, yi []float64, k int) {
			k = rapid.IntRange(1, 6).Draw(t, "rows")
			xi, yi = s.Normals(k*n), s.Normals(k*m)
			f.observe(columnsOf(nil, xi, k, n, false), columnsOf(nil, yi, k, m, false), k, k)
			return xi, yi, k
		}
		runs := rapid.IntRange(1, 4).Draw(t, "runs")
		if rapid.Bool().Draw(t, "after others") {
			observe()
			f.take()
			f.drop()
		}
		for i := range runs {
			if rapid.Bool().Draw(t, "after a failure") {
				observe()
				f.average(0.5, true)
			}
			xi, yi, k := observe()
			x, y, rows = append(x, xi...), append(y, yi...), rows+k
			if i < runs-1 {
				f.take()
			}
		}
		f.average(0, true)
		var want mat.Dense
		want.Mul(mat.NewDense(rows, n, x).T(), mat.NewDense(rows, m, y))
		want.Scale(1/float64(rows), &want)
		if d := testnet.Distance(f.next, flatOf(&want)); !(d < 1e-11) {
			t.Errorf("off by %g", d)
		}
	})
}

// The average does not depend on which updates are settled at once and which are put off, nor on
// updates that fail in between.
func TestAverageOfUpdatesPutOff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, m := rapid.IntRange(1, 300).Draw(t, "n"), rapid.IntRange(1, 5).Draw(t, "m")
		same := rapid.Bool().Draw(t, "with themselves")
		if same {
			m = n
		}
		s := testnet.NewSketch(rapid.Uint64().Draw(t, "seed"))
		f, want := newMoment[float64](n, m), newMoment[float64](n, m)
		if same {
			f, want = newFactor[float64](n, false), newFactor[float64](n, false)
		}
		observe := func(moments ...*moment[float64]) {
			k := rapid.IntRange(1, 6).Draw(t, "rows")
			x := s.Normals(k * n)
			y := x
			if !same {
				y = s.Normals(k * m)
			}
			for _, f := range moments {
				if !f.observe(x, y, k, 2*k) {
					t.Fatal("not finite")
				}
			}
		}
		for k := range rapid.IntRange(1, 12).Draw(t, "updates") {
			if rapid.Bool().Draw(t, "after a failure") {
				observe(&f)
				f.average(0.3, rapid.Bool().Draw(t, "settled before the failure"))
			}
			for rapid.IntRange(0, 4).Draw(t, "runs") == 4 {
				observe(&f, &want)
				f.take()
				want.take()
			}
			observe(&f, &want)
			eps := decay(k+1, rapid.Float64Range(0, 1).Draw(t, "decay"))
			now := rapid.Bool().Draw(t, "settled")
			if !want.average(eps, true) || !f.average(eps, now) {
				t.Fatal("not finite")
			}
			if now {
				if d := testnet.Distance(f.next, want.next); !(d < 1e-13) {
					t.Fatalf("next is off by %g", d)
				}
			}
			f.keep()
			want.keep()
			if d := testnet.Distance(averageOf(&f), want.now); !(d < 1e-13) {
				t.Fatalf("the average is off by %g", d)
			}
			f.freeze(rapid.Bool().Draw(t, "frozen"))
			if f.frozen && !slices.Equal(f.source(), averageOf(&f)) {
				t.Fatal("the copy is not the average")
			}
		}
	})
}

func TestSecondMoment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, n := rapid.IntRange(1, 40).Draw(t, "rows"), rapid.IntRange(1, 40).Draw(t, "n")
		homogeneous := rapid.Bool().Draw(t, "homogeneous")
		cols := n
		if homogeneous {
			cols--
		}
		x := testnet.NewSketch(rapid.Uint64().Draw(t, "seed")).Normals(rows * cols)
		want := plainMoment(x, rows, cols)
		if homogeneous {
			want = homogeneousMoment(x, rows, cols)
		}
		if d := testnet.Distance(secondMoment(t, x, rows, n, homogeneous).next, want); !(d < identity) {
			t.Fatalf("off by %g", d)
		}
	})
}

// In float32 the moments are float32's, to its rounding.
func TestSecondMomentInFloat32(t *testing.T) {
	const rows, n = 50, 9
	x := testnet.NewSketch(14).Normals(rows * n)
	narrow := converted[float32](x)
	testnet.Near(t, "moment", converted[float64](secondMoment(t, narrow, rows, n+1, true).next),
		homogeneousMoment(x, rows, n), 1e-6)
}

// A moment that is not finite is an error that names the layer, and the current average stays as it
// is.
func TestMomentsNotFinite(t *testing.T) {
	for name, bad := range map[string]float64{"NaN": math.NaN(), "infinity": math.Inf(-1),
		"overflow of the square": 1e200} {
		t.Run(name, func(t *testing.T) {
			n := testnet.MLP{Widths: []int{3, 2}, Cases: 4, Loss: testnet.Squares(1)}.Build(12)
			c := attach(t, n)
			observeExactly(t, c, nil)
			b := layerBlocks(c)[0]
			b.factors.keep()
			before := slices.Concat(b.factors.a.now, b.factors.g.now)
			testnet.Data(n.X)[5] = bad
			testnet.Check(t, c.sampler.run.Forward(nil))
			seed := make([]float64, 8)
			testnet.Check(t, c.sampler.run.Reverse([]program.Seed[float64]{{Node: c.outputs[0].node, Data: seed}},
				c.sampler.path))
			err := b.observe(c.sampler.run)
			var layer *LayerError
			if !errors.Is(err, ErrNotFinite) || !errors.As(err, &layer) || layer.Layer != "w0" {
				t.Errorf("error %v, want a LayerError of w0 that wraps ErrNotFinite", err)
			}
			if !slices.Equal(before, slices.Concat(b.factors.a.now, b.factors.g.now)) || b.factors.updates != 1 {
				t.Error("the current average has changed")
			}
		})
	}
}
