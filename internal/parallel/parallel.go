// Package parallel divides work among the processors. What is written to a place must not depend on
// how the work is divided; then results do not depend on the number of processors.
package parallel

import (
	"runtime"
	"sync"
)

// Grain is a number of elements that is worth the start of a goroutine, where each takes a
// nanosecond or so.
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

// Rows calls f for consecutive pieces of n rows of the given length, at the same time if there are
// many elements.
func Rows(n, length int, f func(from, to int)) {
	For(n, (Grain+length-1)/max(length, 1), f)
}

// Jobs runs the jobs, which must not depend on each other, in as many goroutines as there are
// processors.
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
