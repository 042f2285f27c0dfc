// Package parallel divides work among the processors. The results do not depend on the number of
// processors, as long as what is written to a place does not depend on how the work is divided.
package parallel

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Grain is the number of elements that is worth the start of a goroutine, at a nanosecond or so for
// each.
const Grain = 1 << 14

// For calls f for consecutive pieces of 0 <= i < n, at the same time: one for each processor, but
// none shorter than grain.
func For(n, grain int, f func(from, to int)) {
	workers := min(runtime.GOMAXPROCS(0), n/max(grain, 1))
	if workers <= 1 {
		f(0, n)
		return
	}
	var g group
	for w := range workers - 1 {
		g.Go(func() {
			defer g.catch()
			f(w*n/workers, (w+1)*n/workers)
		})
	}
	g.own(func() { f((workers-1)*n/workers, n) })
	g.wait()
}

// Rows calls f for consecutive pieces of n rows of the given length. With many elements the calls
// run at the same time.
func Rows(n, length int, f func(from, to int)) {
	For(n, (Grain+length-1)/max(length, 1), f)
}

// Jobs runs the jobs in as many goroutines as there are processors. The jobs must not depend on
// each other.
func Jobs(jobs []func()) {
	queue := make(chan func())
	var workers group
	for range min(runtime.GOMAXPROCS(0), len(jobs)) {
		workers.Go(func() {
			for job := range queue {
				workers.own(job)
			}
		})
	}
	for _, job := range jobs {
		queue <- job
	}
	close(queue)
	workers.wait()
}

// A Panic is what a call in another goroutine has panicked with. For, Rows and Jobs panic with it
// in the goroutine of their caller, who can recover it there, when all other calls have come to
// their end.
type Panic struct {
	Value any
	Stack []byte
}

func (p *Panic) String() string { return fmt.Sprint(p.Value) }

// group is goroutines whose panics become that of wait.
type group struct {
	sync.WaitGroup
	first atomic.Pointer[Panic]
}

// catch, deferred, keeps the first panic.
func (g *group) catch() {
	switch r := recover().(type) {
	case nil:
	case *Panic: // of a call inside of f
		g.first.CompareAndSwap(nil, r)
	default:
		g.first.CompareAndSwap(nil, &Panic{r, debug.Stack()})
	}
}

// own runs f, and keeps its panic.
func (g *group) own(f func()) {
	defer g.catch()
	f()
}

func (g *group) wait() {
	g.Wait()
	if p := g.first.Load(); p != nil {
		panic(p)
	}
}
