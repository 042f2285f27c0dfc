package linalg

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// symmetric returns the n x n matrix whose lower triangle f gives.
func symmetric(n int, f func(i, j int) float64) []float64 {
	a := make([]float64, n*n)
	for i := range n {
		for j := range i + 1 {
			a[i*n+j] = f(i, j)
			a[j*n+i] = a[i*n+j]
		}
	}
	return a
}

func diagonal(n int, f func(i int) float64) []float64 {
	return symmetric(n, func(i, j int) float64 {
		if i == j {
			return f(i)
		}
		return 0
	})
}

func tridiagonalMatrix(n int, d, e func(i int) float64) []float64 {
	return symmetric(n, func(i, j int) float64 {
		switch i - j {
		case 0:
			return d(i)
		case 1:
			return e(j)
		}
		return 0
	})
}

// rotated returns a dense matrix with the eigenvalues d: H diag(d) H for the reflection H = I -
// 2 w w^T at a random unit vector w.
func rotated(d []float64, rng *rand.Rand) []float64 {
	n := len(d)
	w := normals(n, rng)
	Scale(1/math.Sqrt(Dot(w, w)), w)
	var m float64 // w^T diag(d) w
	for i, x := range w {
		m += x * x * d[i]
	}
	return symmetric(n, func(i, j int) float64 {
		v := 4*m*w[i]*w[j] - 2*w[i]*w[j]*(d[i]+d[j])
		if i == j {
			v += d[i]
		}
		return v
	})
}

func normals(n int, rng *rand.Rand) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = rng.NormFloat64()
	}
	return x
}

func spectrum(n int, f func(i int) float64) []float64 {
	d := make([]float64, n)
	for i := range d {
		d[i] = f(i)
	}
	return d
}

func gramOf(m, n int, rng *rand.Rand) []float64 {
	x := normals(m*n, rng)
	a := make([]float64, n*n)
	Gemm(true, false, n, n, m, 1/float64(m), x, x, 0, a)
	MirrorUpper(a, n)
	return a
}

func one(int) float64 { return 1 }

var eigenKinds = []struct {
	name string
	make func(n int, rng *rand.Rand) []float64
}{
	{"random", func(n int, rng *rand.Rand) []float64 {
		return symmetric(n, func(int, int) float64 { return rng.NormFloat64() })
	}},
	{"identity", func(n int, _ *rand.Rand) []float64 { return diagonal(n, one) }},
	{"zero", func(n int, _ *rand.Rand) []float64 { return make([]float64, n*n) }},
	{"diagonal, descending", func(n int, _ *rand.Rand) []float64 {
		return diagonal(n, func(i int) float64 { return float64(-i) })
	}},
	{"Gram", func(n int, rng *rand.Rand) []float64 { return gramOf(2*n, n, rng) }},
	{"Gram of rank n/3", func(n int, rng *rand.Rand) []float64 { return gramOf(n/3+1, n, rng) }},
	{"rank one", func(n int, rng *rand.Rand) []float64 { return gramOf(1, n, rng) }},
	{"all ones", func(n int, _ *rand.Rand) []float64 { return symmetric(n, func(int, int) float64 { return 1 }) }},
	{"three eigenvalues", func(n int, rng *rand.Rand) []float64 {
		return rotated(spectrum(n, func(i int) float64 { return float64(i % 3) }), rng)
	}},
	{"clusters", func(n int, rng *rand.Rand) []float64 {
		return rotated(spectrum(n, func(i int) float64 { return float64(i%4) + 1e-14*rng.Float64() }), rng)
	}},
	{"one large, others near one", func(n int, rng *rand.Rand) []float64 {
		return rotated(spectrum(n, func(i int) float64 {
			if i == 0 {
				return 1e6
			}
			return 1 + 1e-9*float64(i)
		}), rng)
	}},
	{"geometric spectrum", func(n int, rng *rand.Rand) []float64 {
		return rotated(spectrum(n, func(i int) float64 { return math.Pow(10, -20*float64(i)/float64(n)) }), rng)
	}},
	{"graded down", func(n int, rng *rand.Rand) []float64 {
		return symmetric(n, func(i, j int) float64 {
			return math.Pow(10, 20-40*float64(i+j)/float64(2*n)) * rng.NormFloat64()
		})
	}},
	{"graded up", func(n int, rng *rand.Rand) []float64 {
		return symmetric(n, func(i, j int) float64 {
			return math.Pow(10, -20+40*float64(i+j)/float64(2*n)) * rng.NormFloat64()
		})
	}},
	{"huge", func(n int, rng *rand.Rand) []float64 {
		return symmetric(n, func(int, int) float64 { return 1e300 * (rng.Float64() - 0.5) })
	}},
	{"tiny", func(n int, rng *rand.Rand) []float64 {
		return symmetric(n, func(int, int) float64 { return 1e-300 * rng.NormFloat64() })
	}},
	{"tiny beside one", func(n int, rng *rand.Rand) []float64 {
		return symmetric(n, func(i, j int) float64 {
			if i == 0 {
				return 1
			}
			return 1e-200 * rng.NormFloat64()
		})
	}},
	{"Laplacian", func(n int, _ *rand.Rand) []float64 {
		return tridiagonalMatrix(n, func(int) float64 { return 2 }, func(int) float64 { return -1 })
	}},
	{"tridiagonal with zeros", func(n int, rng *rand.Rand) []float64 {
		return tridiagonalMatrix(n,
			func(int) float64 { return rng.NormFloat64() },
			func(i int) float64 { return float64(i % 3) })
	}},
	{"zero diagonal", func(n int, _ *rand.Rand) []float64 {
		return tridiagonalMatrix(n, func(int) float64 { return 0 }, one)
	}},
	{"Wilkinson", func(n int, _ *rand.Rand) []float64 { // pairs of eigenvalues that agree to all digits
		return tridiagonalMatrix(n, func(i int) float64 { return math.Abs(float64(i) - float64(n-1)/2) }, one)
	}},
	{"glued Wilkinson", func(n int, _ *rand.Rand) []float64 { // groups of as many equal ones as there are copies
		return tridiagonalMatrix(n, func(i int) float64 { return math.Abs(float64(i%21) - 10) }, func(i int) float64 {
			if i%21 == 20 {
				return 1e-8
			}
			return 1
		})
	}},
}

// checkEigen fails the test unless v and values are the eigenvectors and eigenvalues of a, up to a
// small multiple of the rounding error.
func checkEigen(t *testing.T, n int, a, v, values []float64) {
	t.Helper()
	if !slices.IsSorted(values) {
		t.Error("the values are not in ascending order")
	}
	norm := slices.Max(append([]float64{math.SmallestNonzeroFloat64}, absolutes(values)...))
	rescaled := slices.Clone(a) // by powers of two, so that nothing overflows below
	_, exp := math.Frexp(norm)
	for i, x := range rescaled {
		rescaled[i] = math.Ldexp(x, -exp)
	}
	tol := 4e-16 * (20 + float64(n))

	residual := make([]float64, n*n) // A V - V diag(values)
	for i := range n {
		for j := range n {
			residual[i*n+j] = v[i*n+j] * math.Ldexp(values[j], -exp)
		}
	}
	Gemm(false, false, n, n, n, 1, rescaled, v, -1, residual)
	if got := slices.Max(absolutes(residual)); !(got <= tol) {
		t.Errorf("|A V - V diag(values)| = %.3g |A|, want at most %.3g", got, tol)
	}

	gram := diagonal(n, one) // V^T V - I
	Gemm(true, false, n, n, n, 1, v, v, -1, gram)
	if got := slices.Max(absolutes(gram)); !(got <= tol) {
		t.Errorf("|V^T V - I| = %.3g, want at most %.3g", got, tol)
	}
}

func absolutes(x []float64) []float64 {
	return spectrum(len(x), func(i int) float64 { return math.Abs(x[i]) })
}

func TestEigenSym(t *testing.T) {
	for _, kind := range eigenKinds {
		for _, n := range []int{1, 2, 3, 21, 31, 32, 33, 64, 65, 100, 257} {
			t.Run(fmt.Sprintf("%s %d", kind.name, n), func(t *testing.T) {
				a := kind.make(n, rand.New(rand.NewPCG(1, uint64(n))))
				v, values := slices.Clone(a), make([]float64, n)
				if err := EigenSym(n, v, values); err != nil {
					t.Fatal(err)
				}
				checkEigen(t, n, a, v, values)

				v2, values2 := slices.Clone(a), make([]float64, n)
				if err := EigenSym(n, v2, values2); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(v, v2) || !slices.Equal(values, values2) {
					t.Error("the same matrix gives other eigenvectors when asked again")
				}
				if n <= 100 {
					checkAgainstGonum(t, n, a, values)
				}
			})
		}
	}
}

// checkAgainstGonum compares eigenvalues with those that gonum finds by QR iterations. The matrix
// is scaled first, because gonum panics where it would have to scale it.
func checkAgainstGonum(t *testing.T, n int, a, values []float64) {
	t.Helper()
	norm := slices.Max(absolutes(a))
	if norm == 0 {
		norm = 1
	}
	var e mat.EigenSym
	if !e.Factorize(mat.NewSymDense(n, spectrum(n*n, func(i int) float64 { return a[i] / norm })), false) {
		t.Fatal("gonum does not converge")
	}
	want := e.Values(nil)
	tol := 4e-16 * (20 + float64(n)) * max(math.Abs(want[0]), math.Abs(want[n-1]))
	for i, w := range want {
		if got := values[i] / norm; !(math.Abs(got-w) <= tol) {
			t.Errorf("value %d is %.17g, gonum says %.17g", i, got, w)
		}
	}
}

// The matrix with 2 on the diagonal and -1 beside it has the eigenvalues
// 4 sin^2(pi j / (2 (n + 1))).
func TestEigenSymOfLaplacian(t *testing.T) {
	const n = 150
	a := tridiagonalMatrix(n, func(int) float64 { return 2 }, func(int) float64 { return -1 })
	values := make([]float64, n)
	if err := EigenSym(n, a, values); err != nil {
		t.Fatal(err)
	}
	for j, got := range values {
		s := math.Sin(math.Pi * float64(j+1) / (2 * (n + 1)))
		if want := 4 * s * s; math.Abs(got-want) > 1e-14 {
			t.Errorf("value %d is %.17g, want %.17g", j, got, want)
		}
	}
}

// The blocks of reflections agree with one reflection at a time, also where some of them end in
// zeros or do nothing.
func TestApplyReflections(t *testing.T) {
	for _, n := range []int{1, 2, 3, 64, 65, 66, 130} {
		rng := rand.New(rand.NewPCG(2, uint64(n)))
		a, tau := normals(n*n, rng), make([]float64, n-1)
		got := normals(n*n, rng)
		want := slices.Clone(got)
		for i := n - 2; i >= 0; i-- {
			w := make([]float64, n)
			w[i+1] = 1
			for j := i + 2; j < n; j++ {
				if i%3 == 1 && j > n/2 {
					a[j*n+i] = 0
				}
				w[j] = a[j*n+i]
			}
			if i%7 != 3 {
				tau[i] = 2 / Dot(w, w)
			}
			for r := range n {
				row := want[r*n : (r+1)*n]
				Axpy(-tau[i]*Dot(row, w), w, row)
			}
		}
		applyReflections(n, a, tau, got, make([]float64, n*n), make([]float64, n*n))
		for i := range got {
			if d := math.Abs(got[i] - want[i]); !(d <= 1e-13*float64(n)) {
				t.Fatalf("n = %d: element %d is %.17g, want %.17g", n, i, got[i], want[i])
			}
		}
	}
}

func TestEigenSymErrors(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		a := diagonal(40, one)
		a[7*40+3], a[3*40+7] = bad, bad
		if err := EigenSym(40, a, make([]float64, 40)); !errors.Is(err, ErrNotFinite) {
			t.Errorf("a matrix with %g: error %v, want ErrNotFinite", bad, err)
		}
	}
	for _, c := range [][3]int{{-1, 1, 0}, {2, 3, 2}, {2, 4, 1}} {
		if err := EigenSym(c[0], make([]float64, c[1]), make([]float64, c[2])); err == nil {
			t.Errorf("n = %d with %d elements and %d values: no error", c[0], c[1], c[2])
		}
	}
	if err := EigenSym(0, nil, nil); err != nil {
		t.Error(err)
	}
}

func TestUseEigenSym(t *testing.T) {
	defer UseEigenSym(nil)
	failure := errors.New("failure")
	UseEigenSym(func(n int, a, values []float64) error { values[0] = 42; return failure })
	values := make([]float64, 1)
	if err := EigenSym(1, []float64{7}, values); !errors.Is(err, failure) || values[0] != 42 {
		t.Errorf("got %v and error %v from a replacement", values, err)
	}
	UseEigenSym(nil)
	if err := EigenSym(1, []float64{7}, values); err != nil || values[0] != 7 {
		t.Errorf("got %v and error %v after the replacement", values, err)
	}
}

func BenchmarkEigenSym(b *testing.B) {
	for _, n := range []int{128, 256, 512, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := gramOf(2*n, n, rand.New(rand.NewPCG(1, 2)))
			v, values := make([]float64, n*n), make([]float64, n)
			for b.Loop() {
				copy(v, a)
				if err := EigenSym(n, v, values); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEigenSymGonum and BenchmarkGemm are what BenchmarkEigenSym compares with.
func BenchmarkEigenSymGonum(b *testing.B) {
	const n = 256
	a := mat.NewSymDense(n, gramOf(2*n, n, rand.New(rand.NewPCG(1, 2))))
	for b.Loop() {
		var e mat.EigenSym
		if !e.Factorize(a, true) {
			b.Fatal("no convergence")
		}
	}
}

func BenchmarkGemm(b *testing.B) {
	for _, n := range []int{128, 256, 512, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := normals(n*n, rand.New(rand.NewPCG(1, 2)))
			c := make([]float64, n*n)
			for b.Loop() {
				Gemm(false, false, n, n, n, 1, a, a, 0, c)
			}
		})
	}
}
