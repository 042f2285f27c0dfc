package program

import (
	"runtime"
	"sync"
)

// inParallel calls f for each of n pieces of work, in as many goroutines as there are processors. The pieces write to different places,
// so that the result does not depend on the number of goroutines.
func inParallel(n int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w * n / workers; i < (w+1)*n/workers; i++ {
				f(i)
			}
		})
	}
	wg.Wait()
}

// chunk is the number of elements that one goroutine works on at a time, large enough to be worth its start.
const chunk = 1 << 13

// inChunks calls f for consecutive pieces of n elements, in parallel if there are many.
func inChunks(n int, f func(from, to int)) {
	if n <= chunk {
		f(0, n)
		return
	}
	inParallel((n+chunk-1)/chunk, func(i int) { f(i*chunk, min((i+1)*chunk, n)) })
}
