package curvature

import (
	"runtime"
	"slices"
	"sync"
	"testing"
)

// In the steady state Apply allocates nothing, and updates and inversions only closures.
func TestAllocations(t *testing.T) {
	const small = 60 // for any size of the layers
	eachKind(t, func(t *testing.T, k kind) {
		s, b := newSource(1), k.double()
		rows, v := k.rows(s, 9), k.vectors(s)
		u := k.vectors(s)
		update := func() {
			check(t, b.Observe(rows))
			b.Accumulate()
			check(t, b.Observe(rows))
			b.Update(0.9)
			check(t, b.Observe(rows))
			avg, err := b.Average(0.9)
			check(t, err)
			b.Keep(avg)
			b.Release(b.Copy())
		}
		update()
		if n := testing.AllocsPerRun(10, update); n > small {
			t.Errorf("an update makes %v allocations", n)
		}
		avg := b.Copy()
		inverse := inverted(t, b, avg, tikhonov(0.3))
		apply := func() { inverse.Apply(u, v) }
		apply()
		if n := testing.AllocsPerRun(10, apply); n > 0 {
			t.Errorf("Apply makes %v allocations", n)
		}
		if k.name == "chain" || len(k.name) > 9 && k.name[:9] == "recurrent" {
			return // the eigenproblem takes workspace
		}
		again := func() { inverted(t, b, avg, tikhonov(0.3)).Release() }
		again()
		if n := testing.AllocsPerRun(10, again); n > small {
			t.Errorf("an inversion makes %v allocations", n)
		}
	})
}

// What they allocate does not grow with the layers.
func TestAllocatedBytes(t *testing.T) {
	const in, out, limit = 200, 150, 64 << 10 // a factor has 176 KiB or more
	l := Shape{In: in, Out: out, Bias: true}
	wide := l
	wide.DiagonalA = true
	for name, k := range map[string]kind{ // whose products need no scratch of linalg's, which comes and goes
		"kronecker": kroneckerKind("", l), "diagonal A": kroneckerKind("", wide), "tied": tiedKind("", l),
	} {
		s, b := newSource(4), k.double()
		rows, u, v := k.rows(s, 3), k.vectors(s), k.vectors(s)
		var avg *Averages[float64]
		for what, f := range map[string]func(){
			"an update": func() {
				check(t, b.Observe(rows))
				b.Update(0.9)
			},
			"an average": func() {
				check(t, b.Observe(rows))
				next, err := b.Average(0.9)
				check(t, err)
				b.Keep(next)
			},
			"an inverse": func() {
				avg = b.Copy()
				inverse := inverted(t, b, avg, tikhonov(0.3))
				inverse.Apply(u, v)
				inverse.Release()
				b.Release(avg)
			},
		} {
			f()
			f()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range 10 {
				f()
			}
			runtime.ReadMemStats(&after)
			if n := (after.TotalAlloc - before.TotalAlloc) / 10; n > limit {
				t.Errorf("%s: %s allocates %d bytes", name, what, n)
			}
		}
	}
}

// What is held is never handed out: inverses, averages and copies that are in use stay as they are,
// whatever else goes on. What was released is used again.
func TestMemoryInUseIsNotHandedOut(t *testing.T) {
	type held struct {
		avg     *Averages[float64]
		moments [][]float64
		inverse Inverse[float64]
		u       [][]float64
	}
	eachKind(t, func(t *testing.T, k kind) {
		s, b := newSource(2), k.double()
		v := k.vectors(s)
		var all []held
		for round := range 60 {
			several(t, s, k, b)
			avg, err := b.Average(0.9)
			check(t, err)
			inverse := inverted(t, b, avg, tikhonov(0.3))
			h := held{avg: b.Copy(), inverse: inverse, u: applied(inverse, v...)}
			if b.Immediate() { // needs its averages
				b.Release(h.avg)
				h.avg = avg
			} else if s.coin() {
				b.Keep(avg)
			} else {
				b.Release(avg)
			}
			b.Discard()
			for _, m := range h.avg.Moments {
				h.moments = append(h.moments, slices.Clone(m))
			}
			all = append(all, h)
			if len(all) > 5 {
				i := s.IntN(len(all))
				all[i].inverse.Release()
				b.Release(all[i].avg)
				all = slices.Delete(all, i, i+1)
			}
			for _, h := range all {
				if !slices.EqualFunc(h.moments, h.avg.Moments, slices.Equal) {
					t.Fatalf("round %d: averages in use have changed", round)
				}
				if !slices.Equal(slices.Concat(h.u...), slices.Concat(applied(h.inverse, v...)...)) {
					t.Fatalf("round %d: an inverse in use has changed", round)
				}
			}
		}
	})
}

// An inversion of a copy may run beside everything else that a block does, and makes what it makes
// by itself. With the race detector this fails if they touch the same memory.
func TestInversionInTheBackground(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s, b := newSource(3), k.double()
		v := k.vectors(s)
		check(t, b.Observe(k.rows(s, 5)))
		b.Update(0.9)
		current := inverted(t, b, b.Copy(), tikhonov(0.3))
		for range 10 {
			frozen := b.Copy()
			want := applied(inverted(t, b, frozen, tikhonov(0.2)), v...)
			job := b.Invert(frozen, tikhonov(0.2))
			var running sync.WaitGroup
			running.Go(func() {
				var first sync.WaitGroup
				for _, f := range job.First {
					first.Go(f)
				}
				first.Wait()
				for _, f := range job.Then {
					f()
				}
			})
			for range 3 {
				several(t, s, k, b)
				avg, err := b.Average(0.9)
				check(t, err)
				b.Trace(avg)
				inverse := inverted(t, b, avg, tikhonov(0.5))
				inverse.Apply(k.vectors(s), v)
				inverse.Release()
				b.Keep(avg)
				b.Release(b.Copy())
				several(t, s, k, b)
				b.Update(0.9)
				current.Apply(k.vectors(s), v)
			}
			running.Wait()
			inverse, err := job.Inverse()
			check(t, err)
			if !slices.Equal(slices.Concat(applied(inverse, v...)...), slices.Concat(want...)) {
				t.Fatal("another inverse")
			}
			b.Release(frozen)
			inverse.Release()
		}
	})
}
