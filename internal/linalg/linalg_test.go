package linalg

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/gonum"
	"pgregory.net/rapid"
)

// edges are sizes around those of the blocks that the package works in.
var edges = []int{1, 2, block - 1, block, block + 1, gramPanel - 1, gramPanel, gramPanel + 1}

func numbers[T Float](rng *rand.Rand, n int) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(rng.NormFloat64())
	}
	return x
}

func filled[T Float](n int, v float64) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(v)
	}
	return x
}

// tolerance is for sums of n products of standard normal numbers.
func tolerance[T Float](n int) float64 {
	if _, ok := any(T(0)).(float32); ok {
		return 1e-6 * float64(n+1)
	}
	return 1e-14 * float64(n+1)
}

func checkEqual[T Float](t rapid.TB, what string, got []T, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		if g := float64(got[i]); !(math.Abs(g-w) <= tol) && !(math.IsNaN(g) && math.IsNaN(w)) {
			t.Fatalf("%s: element %d is %g, want %g", what, i, g, w)
		}
	}
}

// at is element (i, j) of op(a), a having rows of stride ld.
func at[T Float](a []T, ld int, trans bool, i, j int) float64 {
	if trans {
		i, j = j, i
	}
	return float64(a[i*ld+j])
}

// naiveGemm is alpha op(A) op(B) + beta C by the definition. What lies between the rows of C stays.
func naiveGemm[T Float](
	tA, tB bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int,
) []float64 {
	out := make([]float64, len(c))
	Convert(out, c)
	for i := range m {
		for j := range n {
			var sum float64
			for l := range k {
				sum += at(a, lda, tA, i, l) * at(b, ldb, tB, l, j)
			}
			sum *= float64(alpha)
			if beta != 0 {
				sum += float64(beta) * out[i*ldc+j]
			}
			out[i*ldc+j] = sum
		}
	}
	return out
}

// stored is the shape that a matrix whose op is rows x cols is stored in.
func stored(trans bool, rows, cols int) (int, int) {
	if trans {
		return cols, rows
	}
	return rows, cols
}

func TestGemm(t *testing.T) {
	t.Run("float32", rapid.MakeCheck(gemmProperty[float32]))
	t.Run("float64", rapid.MakeCheck(gemmProperty[float64]))
}

func gemmProperty[T Float](t *rapid.T) {
	dim := rapid.OneOf(rapid.IntRange(0, 9), rapid.SampledFrom([]int{31, 32, 33, 64, 65}))
	m, n, k := dim.Draw(t, "m"), dim.Draw(t, "n"), dim.Draw(t, "k")
	tA, tB := rapid.Bool().Draw(t, "tA"), rapid.Bool().Draw(t, "tB")
	alpha := rapid.SampledFrom([]T{1, 0, -0.5}).Draw(t, "alpha")
	beta := rapid.SampledFrom([]T{0, 1, 2}).Draw(t, "beta")
	pad := rapid.IntRange(0, 3).Draw(t, "pad")
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))

	rowsA, colsA := stored(tA, m, k)
	rowsB, colsB := stored(tB, k, n)
	lda, ldb, ldc := colsA+pad, colsB+pad, n+pad
	a, b, c := numbers[T](rng, rowsA*lda), numbers[T](rng, rowsB*ldb), numbers[T](rng, m*ldc)
	if beta == 0 { // the old contents do not matter
		for i := range m {
			copy(c[i*ldc:], filled[T](n, math.NaN()))
		}
	}
	want := naiveGemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
	oldA, oldB := slices.Clone(a), slices.Clone(b)
	if pad == 0 {
		Gemm(tA, tB, m, n, k, alpha, a, b, beta, c)
	} else {
		GemmLD(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
	}
	checkEqual(t, "C", c, want, tolerance[T](k))
	if !slices.Equal(a, oldA) || !slices.Equal(b, oldB) {
		t.Fatal("an operand has changed")
	}
}

// Large products are right in all forms. They do not depend on the number of processors.
func TestLargeGemm(t *testing.T) {
	t.Run("float32", testLargeGemm[float32])
	t.Run("float64", testLargeGemm[float64])
}

func testLargeGemm[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, size := range [][3]int{
		{129, 67, 1029},
		{15, 128, 512},
		{128, 15, 513},
	} {
		m, n, k := size[0], size[1], size[2]
		a, b := numbers[T](rng, m*k), numbers[T](rng, k*n)
		for _, tA := range []bool{false, true} {
			for _, tB := range []bool{false, true} {
				for _, beta := range []T{0, 2} {
					c := numbers[T](rng, m*n)
					_, lda := stored(tA, m, k)
					_, ldb := stored(tB, k, n)
					want := naiveGemm(tA, tB, m, n, k, 0.5, a, lda, b, ldb, beta, c, n)
					if beta == 0 {
						clear(c)
						c[0] = T(math.NaN())
					}
					alone := slices.Clone(c)
					Gemm(tA, tB, m, n, k, 0.5, a, b, beta, c)
					checkEqual(t, fmt.Sprint(size, tA, tB, beta), c, want, tolerance[T](k))
					func() {
						defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
						Gemm(tA, tB, m, n, k, 0.5, a, b, beta, alone)
					}()
					if !slices.Equal(alone, c) {
						t.Errorf("%v %t %t: another result by one processor", size, tA, tB)
					}
				}
			}
		}
	}
}

// gonum's BLAS is known as such within one that says so, and no other is taken for it.
func TestGonumIsKnown(t *testing.T) {
	defer blas32.Use(blas32.Implementation())
	pure32 := func() bool { _, pure := implementation[float32](); return pure }
	pure64 := func() bool { _, pure := implementation[float64](); return pure }
	if !pure32() || !pure64() {
		t.Error("gonum's own is not known")
	}
	blas32.Use(wrapped{gonum.Implementation{}})
	if !pure32() {
		t.Error("gonum's own within another is not known")
	}
	blas32.Use(other{gonum.Implementation{}})
	if pure32() {
		t.Error("another is taken for gonum's")
	}
	if !pure64() {
		t.Error("in float64 gonum's own is not known any more")
	}
}

type other struct{ blas.Float32 }

type wrapped struct{ blas.Float32 }

func (w wrapped) Unwrap() any { return w.Float32 }

// With no products to add, C is scaled, or cleared of whatever it holds.
func TestGemmOfNothing(t *testing.T) {
	c := []float64{1, math.NaN(), 7, 3, math.Inf(1), 8}
	GemmLD(false, false, 2, 2, 0, 1, nil, 0, nil, 2, 0, c, 3)
	checkEqual(t, "beta 0", c, []float64{0, 0, 7, 0, 0, 8}, 0)
	c = []float64{1, 2, 7, 3, 4, 8}
	GemmLD(false, true, 2, 2, 0, 1, nil, 0, nil, 0, 3, c, 3)
	checkEqual(t, "beta 3", c, []float64{3, 6, 7, 9, 12, 8}, 0)
	Gemm(true, false, 0, 2, 5, 1, nil, filled[float64](10, 1), 0, nil)
	Gemm(false, false, 2, 0, 5, 1, filled[float64](10, 1), nil, 0, nil)
}

func TestGramT(t *testing.T) {
	for _, n := range edges {
		for _, m := range []int{0, 1, 5, 33} {
			t.Run(fmt.Sprintf("n=%d m=%d", n, m), func(t *testing.T) {
				checkGram[float64](t, m, n, 0)
				checkGram[float64](t, m, n, 0.5)
				checkGram[float32](t, m, n, 0)
			})
		}
	}
	checkGram[float64](t, gramPanel+1, 3, 0)
}

func checkGram[T Float](t *testing.T, m, n int, beta T) {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(m), uint64(n)))
	xt := numbers[T](rng, n*m)
	c := filled[T](n*n, math.NaN())
	if beta != 0 {
		c = numbers[T](rng, n*n)
		MirrorUpper(c, n)
	}
	want := naiveGemm(false, true, n, n, m, 0.25, xt, m, xt, m, beta, c, n)
	GramT(m, n, 0.25, xt, beta, c)
	checkEqual(t, fmt.Sprintf("%d x %d of %d, beta %g", n, n, m, beta), c, want, tolerance[T](m))
	for i := range n {
		for j := range n {
			if c[i*n+j] != c[j*n+i] {
				t.Fatalf("not symmetric at (%d, %d)", i, j)
			}
		}
	}
}

func TestMirrors(t *testing.T) {
	for _, n := range append([]int{0}, edges...) {
		c := numbers[float64](rand.New(rand.NewPCG(1, uint64(n))), n*n)
		upper, lower := slices.Clone(c), slices.Clone(c)
		for i := range n {
			for j := range i {
				upper[i*n+j] = c[j*n+i]
				lower[j*n+i] = c[i*n+j]
			}
		}
		mirrored := slices.Clone(c)
		MirrorUpper(mirrored, n)
		checkEqual(t, fmt.Sprint("upper, n = ", n), mirrored, upper, 0)
		MirrorLower(c, n)
		checkEqual(t, fmt.Sprint("lower, n = ", n), c, lower, 0)
	}
}

func TestTransposeSquare(t *testing.T) {
	for _, n := range append([]int{0}, edges...) {
		a := numbers[float64](rand.New(rand.NewPCG(2, uint64(n))), n*n)
		want := make([]float64, n*n)
		Transpose(want, a, n, n)
		TransposeSquare(a, n)
		checkEqual(t, fmt.Sprint("n = ", n), a, want, 0)
	}
}

func TestTranspose(t *testing.T) {
	for _, rows := range append([]int{0}, edges...) {
		for _, cols := range []int{0, 1, 2, 31, 32, 33, 65} {
			src := numbers[float32](rand.New(rand.NewPCG(uint64(rows), uint64(cols))), rows*cols)
			want := make([]float64, rows*cols)
			for i := range rows {
				for j := range cols {
					want[j*rows+i] = float64(src[i*cols+j])
				}
			}
			dst := filled[float32](rows*cols, math.NaN())
			Transpose(dst, src, rows, cols)
			checkEqual(t, fmt.Sprintf("%d x %d", rows, cols), dst, want, 0)
		}
	}
}

func TestFinite(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 31, 32, 33, 255, 256, 257} {
		x := filled[float64](n, math.MaxFloat64) // whose sum is not finite
		if !Finite(x) {
			t.Errorf("%d times the largest number: not finite", n)
		}
		for i := range x {
			for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				x[i] = bad
				if Finite(x) {
					t.Errorf("%g at %d of %d: finite", bad, i, n)
				}
			}
			x[i] = -math.SmallestNonzeroFloat64
		}
	}
	if Finite([]float32{1, float32(math.Inf(1)), float32(math.Inf(-1))}) {
		t.Error("both infinities: finite")
	}
}

func TestVectors(t *testing.T) {
	t.Run("float32", rapid.MakeCheck(vectorProperty[float32]))
	t.Run("float64", rapid.MakeCheck(vectorProperty[float64]))
}

func vectorProperty[T Float](t *rapid.T) {
	n := rapid.IntRange(0, 70).Draw(t, "n")
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
	x, y := numbers[T](rng, n), numbers[T](rng, n)
	var dot float64
	scaled, sum, converted := make([]float64, n), make([]float64, n), make([]float64, n)
	for i := range x {
		dot += float64(x[i]) * float64(y[i])
		scaled[i] = -1.5 * float64(x[i])
		sum[i] = float64(y[i]) - 1.5*float64(x[i])
		converted[i] = float64(x[i])
	}
	checkEqual(t, "Dot", []T{Dot(x, y)}, []float64{dot}, tolerance[T](n))
	checkEqual(t, "Dot64", []float64{Dot64(x, y)}, []float64{dot}, tolerance[float64](n))
	wide := make([]float64, n)
	Convert(wide, x)
	checkEqual(t, "Convert", wide, converted, 0)
	Axpy(-1.5, x, y)
	checkEqual(t, "Axpy", y, sum, tolerance[T](1))
	Scale(-1.5, x)
	checkEqual(t, "Scale", x, scaled, tolerance[T](1))
}

// Float32 numbers whose products are below its rounding still count in Dot64.
func TestDot64SumsInFloat64(t *testing.T) {
	x := filled[float32](1001, 1e-4)
	x[0] = 1
	if got, want := Dot64(x, x), 1+1000*float64(float32(1e-4))*float64(float32(1e-4)); math.Abs(got-want) > 1e-15*want {
		t.Errorf("%.17g, want %.17g", got, want)
	}
}

// Float64 numbers convert to the nearest float32.
func TestConvertNarrows(t *testing.T) {
	dst := make([]float32, 3)
	Convert(dst, []float64{math.Pi, 1e300, -0.1})
	if want := []float32{float32(math.Pi), float32(math.Inf(1)), -0.1}; !slices.Equal(dst, want) {
		t.Errorf("%v, want %v", dst, want)
	}
}

// A symmetric positive definite matrix of known spectrum has the inverse with the reciprocals. It
// is as exact as Cholesky's, in either type. Only the upper triangle is read, and what was computed
// before does not matter.
func TestInverter(t *testing.T) {
	t.Run("float64", func(t *testing.T) { testInverter[float64](t, 0x1p-52) })
	t.Run("float32", func(t *testing.T) { testInverter[float32](t, 0x1p-23) })
}

func testInverter[T Float](t *testing.T, rounding float64) {
	var v Inverter[T]
	rng := rand.New(rand.NewPCG(3, 3))
	for _, n := range []int{1, 2, sweepWidth - 1, sweepWidth, 2*sweepWidth + 1, 300, 17} {
		for _, condition := range []float64{1, 100, 1e4} {
			q := orthogonal(n, rng)
			spectrum := make([]float64, n)
			for i := range spectrum {
				spectrum[i] = 3 * math.Pow(condition, -float64(i)/float64(max(n-1, 1)))
			}
			with := func(f func(float64) float64) []T {
				m := make([]T, n*n)
				for i := range n {
					for j := range n {
						var s float64
						for k, x := range spectrum {
							s += q[i*n+k] * f(x) * q[j*n+k]
						}
						m[i*n+j] = T(s)
					}
				}
				return m
			}
			m, want := with(func(x float64) float64 { return x }), with(func(x float64) float64 { return 1 / x })
			for i := range n {
				for j := range i {
					m[i*n+j] = T(math.NaN())
				}
			}
			if !v.Invert(m, n) {
				t.Fatalf("%d, condition %g: not positive definite", n, condition)
			}
			var off, size float64
			for i, x := range want {
				off, size = max(off, math.Abs(float64(m[i])-float64(x))), max(size, math.Abs(float64(x)))
			}
			if !(off <= 20*condition*rounding*size) {
				t.Errorf("%d, condition %g: off by %g of %g", n, condition, off, size)
			}
		}
	}
}

// orthogonal is a random orthogonal matrix: a product of reflections.
func orthogonal(n int, rng *rand.Rand) []float64 {
	q := make([]float64, n*n)
	for i := range n {
		q[i*n+i] = 1
	}
	u := make([]float64, n)
	for range 5 {
		var uu float64
		for i := range u {
			u[i] = rng.NormFloat64()
			uu += u[i] * u[i]
		}
		for r := range n {
			row := q[r*n : (r+1)*n]
			Axpy(-2*Dot(u, row)/uu, u, row)
		}
	}
	return q
}

// A matrix that is not positive definite is reported, wherever that shows: in the first rows, in
// later ones, or by a NaN.
func TestInverterOfNoPositiveDefiniteMatrix(t *testing.T) {
	const n = 2*sweepWidth + 5
	for _, bad := range []float64{-1, 0, math.NaN()} {
		for _, at := range []int{0, sweepWidth, n - 1} {
			m := make([]float64, n*n)
			for i := range n {
				m[i*n+i] = 1
			}
			m[at*n+at] = bad
			var v Inverter[float64]
			if v.Invert(m, n) {
				t.Errorf("%g at %d: positive definite", bad, at)
			}
		}
	}
	m := []float64{1, 2, 2, 1} // a negative eigenvalue that no diagonal element shows
	var v Inverter[float64]
	if v.Invert(m, 2) {
		t.Error("indefinite: positive definite")
	}
}

// Equal vectors have equal products, wherever they lie.
func TestProductsAnywhere(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for n := 1; n < 40; n++ {
		x, y := numbers[float32](rng, n), numbers[float32](rng, n)
		var gemm, first [1]float32
		Gemm(false, true, 1, 1, n, 1, x, y, 0, first[:])
		dot, dot64 := Dot(x, y), Dot64(x, y)
		for at := 1; at < 8; at++ {
			u, v := append(make([]float32, at, at+n), x...)[at:], append(make([]float32, at, at+n), y...)[at:]
			Gemm(false, true, 1, 1, n, 1, u, v, 0, gemm[:])
			if Dot(u, v) != dot || Dot64(u, y) != dot64 || gemm != first {
				t.Errorf("%d elements, %d further on: %v, %v and %v, want %v, %v and %v",
					n, at, Dot(u, v), Dot64(u, y), gemm, dot, dot64, first)
			}
		}
	}
}
