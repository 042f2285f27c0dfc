//go:build cgo

package openblas

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	pureblas "gonum.org/v1/gonum/blas/gonum"
	purelapack "gonum.org/v1/gonum/lapack/gonum"
	"gonum.org/v1/gonum/lapack/lapack64"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// inPureGo calls f with gonum's own BLAS, LAPACK and this module's eigensolver out of the way.
func inPureGo(t testing.TB, f func()) {
	t.Helper()
	registered := gorgonia.WhichBLAS()
	gorgonia.Use(pureblas.Implementation{})
	blas32.Use(pureblas.Implementation{})
	blas64.Use(pureblas.Implementation{})
	lapack64.Use(purelapack.Implementation{})
	linalg.UseEigenSym(nil)
	defer func() {
		gorgonia.Use(registered)
		blas32.Use(registered)
		blas64.Use(registered)
		lapack64.Use(lapack{})
		linalg.UseEigenSym(eigenSym)
	}()
	f()
}

func normals[T linalg.Float](n int, rng *rand.Rand) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(rng.NormFloat64())
	}
	return x
}

// positive is a random n x n matrix X X^T / m + I/100.
func positive(n int, rng *rand.Rand) []float64 {
	m := n/2 + 1
	x, a := normals[float64](n*m, rng), make([]float64, n*n)
	linalg.GramT(m, n, 1/float64(m), x, 0, a)
	for i := range n {
		a[i*n+i] += 0.01
	}
	return a
}

// furthest is the largest difference between elements of x and y.
func furthest[T linalg.Float](x, y []T) float64 {
	var d float64
	for i := range x {
		if e := math.Abs(float64(x[i]) - float64(y[i])); !(e <= d) {
			d = e
		}
	}
	return d
}
