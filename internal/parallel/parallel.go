// Package parallel divides work among the processors. The results do not depend on the number of
// processors, as long as what is written to a place does not depend on how the work is divided.
package parallel

import (
	"runtime"
	"sync"
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
	var wg sync.WaitGroup
	for w := range workers - 1 {
		wg.Go(func() { f(w*n/workers, (w+1)*n/workers) })
	}
	f((workers-1)*n/workers, n)
	wg.Wait()
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
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(jobs)) {
		workers.Go(func() {
			for job := range queue {
				job()
			}
		})
	}
	for _, job := range jobs {
		queue <- job
	}
	close(queue)
	workers.Wait()
}
