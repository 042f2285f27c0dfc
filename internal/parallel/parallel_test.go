package parallel_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// Every element is in one piece, pieces are long enough, and there are at most as many as
// processors.
func TestFor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	rapid.Check(t, func(t *rapid.T) {
		procs := rapid.IntRange(1, 5).Draw(t, "processors")
		n, grain := rapid.IntRange(0, 40).Draw(t, "n"), rapid.IntRange(0, 50).Draw(t, "grain")
		runtime.GOMAXPROCS(procs)
		seen := make([]atomic.Int32, n)
		var pieces, short atomic.Int32
		parallel.For(n, grain, func(from, to int) {
			pieces.Add(1)
			if to-from < min(grain, n) {
				short.Add(1)
			}
			for i := from; i < to; i++ {
				seen[i].Add(1)
			}
		})
		for i := range seen {
			if got := seen[i].Load(); got != 1 {
				t.Fatalf("element %d of %d was in %d pieces", i, n, got)
			}
		}
		if pieces.Load() > int32(procs) || short.Load() > 0 {
			t.Fatalf("%d pieces, %d of them shorter than %d, on %d processors",
				pieces.Load(), short.Load(), grain, procs)
		}
	})
}

func TestJobs(t *testing.T) {
	var sum atomic.Int32
	jobs := make([]func(), 100)
	for i := range jobs {
		jobs[i] = func() { sum.Add(int32(i)) }
	}
	parallel.Jobs(jobs)
	parallel.Jobs(nil)
	if got := sum.Load(); got != 4950 {
		t.Errorf("the jobs added up to %d, want 4950", got)
	}
}

// A panic in any goroutine reaches the caller, once all other calls have ended.
func TestPanics(t *testing.T) {
	for name, f := range map[string]func(bad int, ran *atomic.Int32){
		"For": func(bad int, ran *atomic.Int32) {
			parallel.For(4, 1, func(from, to int) {
				for i := from; i < to; i++ {
					if i == bad {
						panic(bad)
					}
					ran.Add(1)
				}
			})
		},
		"Jobs": func(bad int, ran *atomic.Int32) {
			jobs := make([]func(), 4)
			for i := range jobs {
				jobs[i] = func() {
					if i == bad {
						panic(bad)
					}
					ran.Add(1)
				}
			}
			parallel.Jobs(jobs)
		},
	} {
		for bad := range 4 {
			t.Run(fmt.Sprint(name, bad), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
				var ran atomic.Int32
				defer func() {
					p, ok := recover().(*parallel.Panic)
					if !ok || p.Value != bad || len(p.Stack) == 0 || ran.Load() != 3 {
						t.Errorf("panic %v after %d other calls", p, ran.Load())
					}
				}()
				f(bad, &ran)
			})
		}
	}
}
