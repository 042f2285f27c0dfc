package linalg

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/blas/gonum"
)

// In panels or, with another BLAS, in one: L L^T is A, and what is above the diagonal is not read.
func TestCholesky(t *testing.T) { panelsAndWhole(t, testCholesky) }

// panelsAndWhole runs a test with gonum's BLAS and with one that is taken for another.
func panelsAndWhole(t *testing.T, f func(t *testing.T)) {
	t.Run("panels", f)
	defer blas64.Use(blas64.Implementation())
	blas64.Use(other64{gonum.Implementation{}})
	t.Run("whole", f)
}

type other64 struct{ blas.Float64 }

func testCholesky(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	for _, n := range []int{1, 2, panelWidth - 1, panelWidth, panelWidth + 1, 2*gramPanel + panelWidth + 1} {
		a := wellConditioned(n, rng)
		l := slices.Clone(a)
		for i := range n {
			for j := i + 1; j < n; j++ {
				l[i*n+j] = math.NaN()
			}
		}
		if !Cholesky(n, l) {
			t.Fatalf("%d: not positive definite", n)
		}
		lower(l, n)
		product := make([]float64, n*n)
		Gemm(false, true, n, n, n, 1, l, l, 0, product)
		checkEqual(t, fmt.Sprint(n), product, a, 1e-13)

		a[(n-1)*n+n-1] = -1
		if Cholesky(n, a) {
			t.Errorf("%d: indefinite, but positive definite", n)
		}
		a[0] = math.NaN()
		if Cholesky(n, a) {
			t.Errorf("%d: NaN is positive definite", n)
		}
	}
}

// wellConditioned is a random symmetric matrix with eigenvalues of about one.
func wellConditioned(n int, rng *rand.Rand) []float64 {
	x, a := numbers[float64](rng, n*n), make([]float64, n*n)
	GramT(n, n, 0.5/float64(n), x, 0, a)
	for i := range n {
		a[i*n+i]++
	}
	return a
}

// lower clears what is above the diagonal.
func lower(a []float64, n int) {
	for i := range n {
		clear(a[i*n+i+1 : (i+1)*n])
	}
}

// A solution times the matrix is the right side, from either side, transposed or not.
func TestSolveLower(t *testing.T) { panelsAndWhole(t, testSolveLower) }

func testSolveLower(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 9))
	for _, n := range []int{1, panelWidth - 1, panelWidth, panelWidth + 1, 3*panelWidth + 5} {
		l := wellConditioned(n, rng)
		if !Cholesky(n, l) {
			t.Fatal("not positive definite")
		}
		clean := slices.Clone(l)
		lower(clean, n)
		for i := range n {
			for j := i + 1; j < n; j++ {
				l[i*n+j] = math.NaN()
			}
		}
		for _, others := range []int{0, 1, 7, 70} {
			for _, trans := range []bool{false, true} {
				b := numbers[float64](rng, n*others)
				x, product := slices.Clone(b), make([]float64, n*others)
				SolveLower(blas.Left, trans, n, l, n, others, x)
				Gemm(trans, false, n, others, n, 1, clean, x, 0, product)
				checkEqual(t, fmt.Sprint("left ", n, others, trans), product, b, 1e-12)

				x = slices.Clone(b)
				SolveLower(blas.Right, trans, n, l, others, n, x)
				Gemm(false, trans, others, n, n, 1, x, clean, 0, product)
				checkEqual(t, fmt.Sprint("right ", n, others, trans), product, b, 1e-12)
			}
		}
	}
}
