package curvature

import (
	"errors"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// A factor of rank one, (v v^T + d I)^-1 = (I - v v^T / (d + v.v)) / d.
func TestNearlySingularFactor(t *testing.T) {
	const n, damping = 40, 1e-6
	v := newSource(4).normals(n)
	var dot float64
	for _, x := range v {
		dot += x * x
	}
	f, want := make([]float64, n*n), make([]float64, n*n)
	for i := range n {
		for j := range n {
			f[i*n+j] = v[i] * v[j]
			want[i*n+j] = -v[i] * v[j] / (damping + dot) / damping
		}
		want[i*n+i] += 1 / damping
	}
	inv := newFactorInverse[float64](n, false)
	inv.compute(new(inverter[float64]), f, damping)
	if inv.err != nil || inv.raised {
		t.Fatalf("raised %v, error %v", inv.raised, inv.err)
	}
	checkNear(t, "inverse", inv.data, want, 1e-8)
}

// Where rounding has made a factor indefinite, its damping is raised tenfold until it can be
// factorised.
func TestIndefiniteFactorIsDampedMore(t *testing.T) {
	s := newSource(5)
	b := NewKronecker[float64](Shape{In: 3, Out: 3})
	avg := averagesOf(symmetric(s, 2, 1, -3e-7), positive(s, 3))
	job := b.Invert(avg, fixed{1e-9, 1e-9})
	job.Run()
	v, err := job.Inverse()
	if err != nil || v.Raised() != 1 {
		t.Fatalf("raised %d factors, error %v; want 1", v.Raised(), err)
	}
	a := v.(*KroneckerInverse[float64]).a
	if math.Abs(a.damping/1e-6-1) > 1e-12 {
		t.Errorf("damping %g, want 1e-6", a.damping)
	}
	want := inverseOf(t, plusDiagonal(matrixOf(avg.Moments[0], 3), 1e-6))
	checkNear(t, "inverse", a.data, flatOf(want), 1e-9)
}

// Every kind with factors raises the damping of those that are slightly indefinite, and says how
// many.
func TestRaised(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s, b := newSource(6), k.double()
		avg := seen(t, b, k.rows(s, 9))
		inverted(t, b, avg, tikhonov(0.1))
		if _, eigen := b.(*Eigen[float64]); eigen { // needs no factor to be positive definite
			return
		}
		if b.Immediate() || k.name == "both diagonal" || k.name == "tied, both diagonal" {
			return
		}
		last := len(avg.Moments) - 1 // F, or else G
		m, n := avg.Moments[min(last, 1)], int(math.Sqrt(float64(len(avg.Moments[min(last, 1)]))))
		if len(m) != n*n || k.name == "diagonal G" {
			m, n = avg.Moments[0], int(math.Sqrt(float64(len(avg.Moments[0]))))
		}
		copy(m, symmetric(s, append(slices.Repeat([]float64{1}, n-1), -1e-7)...))
		if k.name == "tied" || k.name == "tied, diagonal A, out by in" {
			clear(avg.Moments[2]) // the other use
			clear(avg.Moments[3])
		}
		little := fixed{1e-9, 1e-9}
		if last == 0 {
			little = fixed{1e-9, 1} // the damping of F is their product
		}
		job := b.Invert(avg, little)
		job.Run()
		v, err := job.Inverse()
		if err != nil || v.Raised() < 1 {
			t.Fatalf("error %v; want a damping that was raised", err)
		}
		if u := slices.Concat(applied(v, k.vectors(s)...)...); slices.ContainsFunc(u, math.IsNaN) {
			t.Error("a direction is NaN")
		}
		v.Release()
		if inverted(t, b, seen(t, b, k.rows(s, 9)), tikhonov(0.1)).Raised() != 0 {
			t.Error("the next inverse was damped more too")
		}
	})
}

// A factor that can't be factorised at all is an error that says which, how large and how much
// damped; an inverse from before stays, and there can be others.
func TestFactorNotPositiveDefinite(t *testing.T) {
	for name, bad := range map[string][]float64{
		"indefinite": symmetric(newSource(7), 1, 2, -1),
		"NaN":        {1, 0, 0, 0, math.NaN(), 0, 0, 0, 1},
	} {
		s := newSource(8)
		b := NewKronecker[float64](Shape{In: 3, Out: 2})
		good, v := averagesOf(positive(s, 3), positive(s, 2)), s.normals(6)
		before := inverted[float64](t, b, good, tikhonov(0.1))
		want := applied(before, v)[0]
		for i, side := range []string{"A", "G"} {
			spoiled := averagesOf(bad, good.Moments[1])
			dim := 3
			if i == 1 {
				if name == "NaN" {
					continue
				}
				spoiled, dim = averagesOf(good.Moments[0], []float64{-1, 0, 0, 1}), 2
			}
			job := b.Invert(spoiled, fixed{1e-9, 1e-9})
			job.Run()
			_, err := job.Inverse()
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, ErrNotPosDef) {
				t.Fatalf("%s: error %v, want one that wraps ErrNotPosDef", name, err)
			}
			if e.Op != "Cholesky factorisation of "+side || e.Dim != dim || math.Abs(e.Damping/1e-3-1) > 1e-9 {
				t.Errorf("%s: error %#v, want damping 1e-3", name, e)
			}
		}
		if !slices.Equal(want, applied(before, v)[0]) {
			t.Errorf("%s: the inverse from before has changed", name)
		}
		again := inverted[float64](t, b, good, tikhonov(0.1))
		if !slices.Equal(want, applied(again, v)[0]) {
			t.Errorf("%s: the next inverse is another", name)
		}
	}
}

// The channels' covariance is the factor of uncorrelated pixels that may fail.
func TestUncorrelatedNotPositiveDefinite(t *testing.T) {
	b := NewUncorrelated[float64](Shape{In: 4, Out: 1, Channels: 2})
	bad := []float64{-1e3, 0, 0, 0, 1, 0, 0, 0, 1}
	job := b.Invert(averagesOf(bad, []float64{1}), fixed{1e-9, 1e-9})
	job.Run()
	_, err := job.Inverse()
	var e *Error
	want := "Cholesky factorisation of the channels' covariance"
	if !errors.As(err, &e) || !errors.Is(err, ErrNotPosDef) || e.Op != want || e.Dim != 2 {
		t.Errorf("error %#v, want one of the channels' covariance", err)
	}
}

// An inverse for a model in float32 is computed in float32 where the bound on the condition number
// allows that, and is that of float64 but for rounding then; where it does not, it is computed in
// float64.
func TestInverseInFloat32(t *testing.T) {
	const n = 90
	f := converted[float32](positive(newSource(15), n))
	wide := matrixOf(converted[float64](f), n)
	work := new(inverter[float32])
	for _, bound := range []float64{10, 0.99 * safeCondition, 1.01 * safeCondition, 1e9} {
		damping := mat.Trace(wide) / bound
		want := flatOf(inverseOf(t, plusDiagonal(wide, damping)))
		narrow, inv := newFactorInverse[float32](n, false), newFactorInverse[float32](n, false)
		inv.compute(work, f, damping)
		if inv.err != nil || inv.raised {
			t.Fatalf("bound %g: raised %t, error %v", bound, inv.raised, inv.err)
		}
		safe := narrow.invertNarrow(work, f, damping)
		if safe != (bound < safeCondition) || safe && !slices.Equal(inv.data, narrow.data) {
			t.Errorf("bound %g: computed in float32: %t", bound, safe)
		}
		tol := 1e-7
		if safe {
			tol = 1e-4
		}
		checkNear(t, "inverse", converted[float64](inv.data), want, tol)
	}
	double := newFactorInverse[float64](n, false)
	if double.invertNarrow(new(inverter[float64]), flatOf(wide), mat.Trace(wide)) {
		t.Error("a model in float64 has an inverse in float32")
	}
}
