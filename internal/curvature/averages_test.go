package curvature

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
)

func TestDecay(t *testing.T) {
	for k, want := range map[int]float64{
		1: 0, 2: 0.5, 3: 2.0 / 3, 4: 0.75, 5: 0.8, 10: 0.9, 19: 18.0 / 19, 20: 0.95, 21: 0.95, 1000: 0.95,
	} {
		if got := Decay(k, 0.95); math.Abs(got-want) > 1e-15 {
			t.Errorf("Decay(%d, 0.95) = %.17g, want %.17g", k, got, want)
		}
	}
	for k := 1; k <= 100; k++ {
		if got := Decay(k, 0); got != 0 {
			t.Errorf("Decay(%d, 0) = %g, want 0", k, got)
		}
	}
}

// checkAverages demands the same averages, after as many updates.
func checkAverages(t testing.TB, what string, got, want *Averages[float64], tol float64) {
	t.Helper()
	if got.Updates != want.Updates || len(got.Moments) != len(want.Moments) {
		t.Fatalf("%s: %d moments of %d updates, want %d of %d",
			what, len(got.Moments), got.Updates, len(want.Moments), want.Updates)
	}
	for i, m := range want.Moments {
		checkNear(t, fmt.Sprint(what, ", moment ", i), got.Moments[i], m, tol)
	}
}

// same reports whether averages are equal in every bit.
func same(x, y *Averages[float64]) bool {
	return x.Updates == y.Updates && slices.EqualFunc(x.Moments, y.Moments, slices.Equal)
}

// The average of the first updates is the plain mean of their moments; then each enters with 1 -
// ema.
func TestRunningAverage(t *testing.T) {
	const ema = 0.9
	eachKind(t, func(t *testing.T, k kind) {
		s, b := newSource(1), k.double()
		want := b.Copy()
		var sums [][]float64
		for update := 1; update <= 15; update++ {
			rows := k.rows(s, 3)
			own := seen(t, k.double(), rows) // of a first update
			want.Updates = update
			for i, m := range own.Moments {
				if update == 1 {
					sums = append(sums, make([]float64, len(m)))
				}
				for j, v := range m {
					sums[i][j] += v
					if update <= 10 {
						want.Moments[i][j] = sums[i][j] / float64(update)
					} else {
						want.Moments[i][j] = ema*want.Moments[i][j] + (1-ema)*v
					}
				}
			}
			before := b.Copy()
			check(t, b.Observe(rows))
			avg, err := b.Average(ema)
			check(t, err)
			if !same(b.Copy(), before) {
				t.Fatal("the current averages have changed")
			}
			checkAverages(t, "averages", avg, want, 1e-11)
			b.Keep(avg)
			checkAverages(t, "current averages", b.Copy(), want, 1e-11)
		}
	})
}

// several observes two runs or more as one update, and leaves the last to be averaged.
func several(t testing.TB, s source, k kind, blocks ...Block[float64]) {
	t.Helper()
	for runs := s.between(1, 3); ; runs-- {
		rows := k.rows(s, s.between(1, 4))
		for _, b := range blocks {
			check(t, b.Observe(rows))
		}
		if runs == 0 {
			return
		}
		for _, b := range blocks {
			b.Accumulate()
		}
	}
}

// Runs that are accumulated are one of all their rows.
func TestRunsAddUp(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		for seed := range uint64(10) {
			s := newSource(seed)
			one, all := k.double(), k.double()
			for update := range 4 {
				var rows []Rows[float64]
				runs := s.between(1, 4)
				for run := range runs {
					more := k.rows(s, s.between(1, 4))
					check(t, one.Observe(more))
					if run < runs-1 {
						one.Accumulate()
					}
					if rows == nil {
						rows = more
					} else {
						rows = k.joined(rows, more)
					}
				}
				check(t, all.Observe(rows))
				if update%2 == 0 {
					one.Update(0.7)
				} else {
					avg, err := one.Average(0.7)
					check(t, err)
					one.Keep(avg)
				}
				all.Update(0.7)
				checkAverages(t, "averages", one.Copy(), all.Copy(), 1e-11)
			}
		}
	})
}

// Update is Average and Keep, and neither depends on which of them was called before.
func TestUpdateIsAverageAndKeep(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newSource(2)
		b, whole := k.double(), k.double()
		for range 12 {
			if s.coin() {
				several(t, s, k, b, whole)
			} else {
				rows := k.rows(s, 3)
				check(t, b.Observe(rows))
				check(t, whole.Observe(rows))
			}
			ema := s.Float64()
			want, err := whole.Average(ema)
			check(t, err)
			if s.coin() {
				avg, err := b.Average(ema)
				check(t, err)
				if !same(avg, want) {
					checkAverages(t, "next averages", avg, want, 1e-13)
				}
				b.Keep(avg)
			} else {
				b.Update(ema)
			}
			whole.Keep(want)
			checkAverages(t, "averages", b.Copy(), whole.Copy(), 1e-13)
			for _, m := range b.Copy().Moments {
				if slices.ContainsFunc(m, func(v float64) bool { return math.IsNaN(v) }) {
					t.Fatal("a copy is not whole")
				}
			}
		}
	})
}

// An update that is given up leaves no trace: neither what was observed and not averaged, nor runs
// that were discarded, nor averages that were released.
func TestUpdatesGivenUp(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newSource(3)
		b, want := k.double(), k.double()
		for range 10 {
			if s.coin() {
				check(t, b.Observe(k.rows(s, 2))) // and nothing else
			}
			if s.coin() {
				several(t, s, k, b)
				b.Discard()
			}
			if s.coin() {
				several(t, s, k, b)
				avg, err := b.Average(0.4)
				check(t, err)
				b.Release(avg)
				b.Discard()
			}
			if rows := k.rows(s, 3); s.coin() {
				check(t, b.Observe(rows))
				check(t, want.Observe(rows))
				avg, err := b.Average(0.4) // twice, since it changes nothing
				check(t, err)
				b.Release(avg)
			} else {
				several(t, s, k, b, want)
			}
			b.Update(0.8)
			want.Update(0.8)
			if !same(b.Copy(), want.Copy()) {
				t.Fatal("the averages are others")
			}
		}
	})
}

// Rows that are not finite, or whose squares overflow, are an error that leaves the averages as
// they were.
func TestRowsNotFinite(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newSource(4)
		for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e200} {
			b := k.double()
			check(t, b.Observe(k.rows(s, 3)))
			b.Update(0.9)
			before := b.Copy()
			rows := k.rows(s, 3)
			for layer := range rows {
				for _, x := range [][]float64{rows[layer].A, rows[layer].G} {
					if len(x) == 0 {
						continue
					}
					at := s.IntN(len(x))
					was := x[at]
					x[at] = bad
					err := b.Observe(rows)
					var e *Error
					if !errors.As(err, &e) || !errors.Is(err, ErrNotFinite) || e.Op == "" {
						t.Fatalf("%g: error %v, want one that wraps ErrNotFinite", bad, err)
					}
					if k.name == "chain" && e.Layer != layer {
						t.Errorf("an error of layer %d, want %d", e.Layer, layer)
					}
					b.Discard()
					x[at] = was
				}
			}
			if !same(b.Copy(), before) {
				t.Error("the averages have changed")
			}
			check(t, b.Observe(rows))
		}
	})
}

// Averages that overflow are an error, after which the averages are what they were.
func TestAveragesNotFinite(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s, b := newSource(5), k.double()
		check(t, b.Observe(k.rows(s, 3)))
		b.Update(0.9)
		for i := range b.Copy().Moments {
			next := b.Copy()
			next.Moments[i][0] = math.Inf(1)
			b.Keep(next)
			before := b.Copy()
			check(t, b.Observe(k.rows(s, 3)))
			_, err := b.Average(0.9)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, ErrNotFinite) || e.Op == "" {
				t.Fatalf("moment %d: error %v, want one that wraps ErrNotFinite", i, err)
			}
			if !same(b.Copy(), before) {
				t.Errorf("moment %d: the averages have changed", i)
			}
			next = b.Copy()
			next.Moments[i][0] = 1
			b.Keep(next)
		}
	})
}

// scaledInputs are rows whose inputs are larger by a factor.
func scaledInputs(rows []Rows[float64], by float64) []Rows[float64] {
	for i := range rows {
		rows[i].A = slices.Clone(rows[i].A)
		for j := range rows[i].A {
			rows[i].A[j] *= by
		}
	}
	return rows
}

// A batch that was far off is forgotten after some updates, and averages go on from the present
// one, whichever way they are brought up to date. A change that is not so large, or does not last,
// leaves them as they are.
func TestOutliersAreForgotten(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		if !inputsCount(k) {
			return
		}
		for _, by := range []float64{10, 50, 1e9} {
			s := newSource(1)
			b, kept, alone := k.double(), k.double(), k.double()
			restarts := 0
			for i := range 2 * patience {
				rows := k.rows(s, 3)
				if i == 0 {
					scaledInputs(rows, by)
				}
				check(t, b.Observe(rows))
				check(t, kept.Observe(rows))
				avg, err := kept.Average(0.95)
				check(t, err)
				if b.Update(0.95) != avg.Restarted {
					t.Fatal("Update and Average differ")
				}
				if avg.Restarted {
					restarts++
					alone = k.double()
				}
				kept.Keep(avg)
				check(t, alone.Observe(rows))
				alone.Update(0.95)
			}
			if want := map[bool]int{true: 1}[by > 1e6]; restarts != want {
				t.Errorf("by %g: %d restarts, want %d", by, restarts, want)
			}
			checkAverages(t, "Update", b.Copy(), alone.Copy(), rounding)
			if !same(kept.Copy(), b.Copy()) {
				t.Error("Average and Keep differ from Update")
			}
		}
	})
}

// inputsCount reports whether a kind has second moments of inputs that grow with them.
func inputsCount(k kind) bool {
	s := newSource(1)
	rows := k.rows(s, 3)
	return len(rows[0].A) > 0 && len(rows[0].Lookups) == 0
}

// Restart is a first update, and leaves the current averages as they are.
func TestRestart(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s, b, first := newSource(1), k.double(), k.double()
		for range 3 {
			check(t, b.Observe(k.rows(s, 3)))
			b.Update(0.95)
		}
		before, rows := b.Copy(), k.rows(s, 3)
		check(t, b.Observe(rows))
		again, err := b.Restart()
		check(t, err)
		checkAverages(t, "Restart", again, seen(t, first, rows), rounding)
		if !again.Restarted || !same(b.Copy(), before) {
			t.Error("it does not say so, or the current averages have changed")
		}
	})
}

// The gradients of several sweeps of one run add up, with the moments of its inputs as they were,
// also from run to run of an update.
func TestSweepsAddUp(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newSource(11)
		x, y, next := k.rows(s, 4), k.rows(s, 4), k.rows(s, 4)
		again := slices.Clone(y)
		for i := range y {
			y[i].A, y[i].Lookups = x[i].A, x[i].Lookups
			again[i] = Rows[float64]{G: y[i].G, Cases: y[i].Cases, Steps: y[i].Steps, Again: true}
		}
		of := func(rows []Rows[float64]) *Averages[float64] { return seen(t, k.double(), rows) }
		first, second, third := of(x), of(y), of(next)

		b := k.double()
		check(t, b.Observe(x))
		check(t, b.Observe(again))
		check(t, b.Observe(again))
		avg, err := b.Average(0)
		check(t, err)
		b.Accumulate()
		check(t, b.Observe(next))
		both, err := b.Average(0)
		check(t, err)
		for i, m := range avg.Moments {
			want, mean := slices.Clone(first.Moments[i]), make([]float64, len(m))
			for j := range want {
				if byGradients(b, i) {
					want[j] += 2 * second.Moments[i][j]
				}
				mean[j] = (want[j] + third.Moments[i][j]) / 2
			}
			checkNear(t, fmt.Sprint("moment ", i), m, want, 1e-12)
			checkNear(t, fmt.Sprint("moment ", i, " of two runs"), both.Moments[i], mean, 1e-12)
		}
	})
}

// byGradients reports whether a moment is one of gradients alone.
func byGradients(b Block[float64], moment int) bool {
	switch b.(type) {
	case *Elementwise[float64], *Diagonal[float64], *Full[float64]:
		return true
	}
	return moment%2 == 1 // A and G take turns
}
