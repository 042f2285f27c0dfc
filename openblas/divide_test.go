//go:build cgo

package openblas

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	gonum "gonum.org/v1/gonum/blas"
	pureblas "gonum.org/v1/gonum/blas/gonum"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

func TestProducts(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(5))
	divided := blas{divide: true}
	t.Run("float32", func(t *testing.T) { testProducts(t, divided.Sgemm, pureblas.Implementation{}.Sgemm, 1e-3) })
	t.Run("float64", func(t *testing.T) { testProducts(t, divided.Dgemm, pureblas.Implementation{}.Dgemm, 1e-11) })
}

// testProducts compares products of all forms, with strides larger than the rows. It checks that
// what lies beside C stays.
func testProducts[T linalg.Float](t *testing.T, got, want gemm[T], tolerance float64) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, size := range [][3]int{
		{1, 1, 1}, {3, 5, 7}, {300, 40, 400}, {40, 300, 400},
		{257, 263, 129}, {16, 1000, 600}, {1000, 1, 1500}, {1, 1000, 5000},
	} {
		m, n, k := size[0], size[1], size[2]
		for _, tA := range []gonum.Transpose{gonum.NoTrans, gonum.Trans} {
			for _, tB := range []gonum.Transpose{gonum.NoTrans, gonum.Trans} {
				const pad = 3
				lda, ldb, ldc := k+pad, n+pad, n+pad
				if tA == gonum.Trans {
					lda = m + pad
				}
				if tB == gonum.Trans {
					ldb = k + pad
				}
				a, b, c := normals[T](max(m, k)*lda, rng), normals[T](max(n, k)*ldb, rng), normals[T](m*ldc, rng)
				expected := slices.Clone(c)
				want(tA, tB, m, n, k, 0.5, a, lda, b, ldb, 2, expected, ldc)
				got(tA, tB, m, n, k, 0.5, a, lda, b, ldb, 2, c, ldc)
				if d := furthest(c, expected); !(d <= tolerance) {
					t.Errorf("%dx%dx%d, transposed %c %c: differs by %g", m, n, k, tA, tB, d)
				}
			}
		}
	}
}

// TestBadProductPanicsHere checks that the caller can recover from a panic about the arguments.
func TestBadProductPanicsHere(t *testing.T) {
	for _, short := range []string{"a", "b", "c", "lda"} {
		t.Run(short, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			const n = 500
			a, b, c, lda := make([]float64, n*n), make([]float64, n*n), make([]float64, n*n), n
			switch short {
			case "a":
				a = a[1:]
			case "b":
				b = b[1:]
			case "c":
				c = c[1:]
			case "lda":
				lda--
			}
			blas{divide: true}.Dgemm(gonum.NoTrans, gonum.NoTrans, n, n, n, 1, a, lda, b, n, 0, c, n)
		})
	}
}

func BenchmarkProduct(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{64, 128, 256, 1000} {
		x, y, c := normals[float32](n*n, rng), normals[float32](n*n, rng), make([]float32, n*n)
		for _, divide := range []bool{false, true} {
			b.Run(fmt.Sprintf("n=%d/divide=%v", n, divide), func(b *testing.B) {
				for b.Loop() {
					blas{divide: divide}.Sgemm(gonum.NoTrans, gonum.Trans, n, n, n, 1, x, n, y, n, 0, c, n)
				}
				b.ReportMetric(2*float64(n*n*n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}
