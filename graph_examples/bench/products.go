package main

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// counter is the registered BLAS. It also counts the operations of matrix products and the time in
// which any of them runs.
type counter struct {
	gorgonia.BLAS
	mu      sync.Mutex
	running int // products in progress
	since   time.Time
	done    products
}

// countProducts puts a counter in the place of the BLAS that Gorgonia and gonum have.
func countProducts() *counter {
	c := &counter{BLAS: gorgonia.WhichBLAS()}
	gorgonia.Use(c)
	blas32.Use(c)
	blas64.Use(c)
	return c
}

// Unwrap is for kfac, which asks whether the BLAS is gonum's. If so it computes products itself,
// and calls Begin and End for each.
func (c *counter) Unwrap() any { return c.BLAS }

// Begin notes that a product begins.
func (c *counter) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == 0 {
		c.since = time.Now()
	}
	c.running++
}

// End notes the end of a product of m x k and k x n.
func (c *counter) End(m, n, k int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done.operations += 2 * float64(m) * float64(n) * float64(k)
	if c.running--; c.running == 0 {
		c.done.seconds += time.Since(c.since).Seconds()
	}
}

func (c *counter) Sgemm(
	tA, tB blas.Transpose, m, n, k int,
	alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, x []float32, ldx int,
) {
	c.Begin()
	defer c.End(m, n, k)
	c.BLAS.Sgemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, x, ldx)
}

func (c *counter) Dgemm(
	tA, tB blas.Transpose, m, n, k int,
	alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, x []float64, ldx int,
) {
	c.Begin()
	defer c.End(m, n, k)
	c.BLAS.Dgemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, x, ldx)
}

// products are matrix products that were computed.
type products struct {
	operations float64 // multiplications and additions
	seconds    float64
}

func (c *counter) read() products {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.done
	if c.running > 0 {
		p.seconds += time.Since(c.since).Seconds()
	}
	return p
}

func (p products) minus(q products) products {
	return products{p.operations - q.operations, p.seconds - q.seconds}
}

func (p products) plus(q products) products {
	return products{p.operations + q.operations, p.seconds + q.seconds}
}

// rate is in GFLOP/s.
func (p products) rate() float64 { return p.operations / p.seconds / 1e9 }

// rateAlone is the rate in GFLOP/s of kfac's square products A B^T by themselves, the best of a
// few.
func (c *counter) rateAlone(dtype string) float64 {
	call := square[float32]()
	if dtype == "float64" {
		call = square[float64]()
	}
	var best float64
	for range 3 {
		before := c.read()
		call()
		best = max(best, c.read().minus(before).rate())
	}
	return best
}

func square[T linalg.Float]() func() {
	const n = 1000
	a, b, x := make([]T, n*n), make([]T, n*n), make([]T, n*n)
	return func() { linalg.Gemm(false, true, n, n, n, 1, a, b, 0, x) }
}

// machine says what the figures were measured on.
func machine(c *counter) string {
	name := "gonum's BLAS in pure Go"
	if kind := fmt.Sprintf("%T", c.BLAS); !strings.HasPrefix(kind, "gonum.") {
		name = "BLAS " + kind
	}
	return fmt.Sprintf("%s, %s/%s, %d processors, %s",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), name)
}
