package kernels

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
)

// onAll runs a test on all tiles that the processor can compute, and on the portable ones.
func onAll(t *testing.T, f32, f64 func(t *testing.T)) {
	defer func(t32 tiles[float32], t64 tiles[float64]) { tiles32, tiles64 = t32, t64 }(tiles32, tiles64)
	all32, all64 := available()
	for i, x := range append(all32, portable[float32]()) {
		tiles32, tiles64 = x, append(all64, portable[float64]())[i]
		t.Run(x.name+"/float32", f32)
		t.Run(x.name+"/float64", f64)
	}
}

func numbers[T Float](rng *rand.Rand, n int) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(rng.NormFloat64())
	}
	return x
}

// rounding is the distance from one to the next number.
func rounding[T Float]() float64 {
	if single[T]() {
		return 0x1p-23
	}
	return 0x1p-52
}

// stored is the shape that a matrix whose op is rows x cols is stored in.
func stored(trans bool, rows, cols int) (int, int) {
	if trans {
		return cols, rows
	}
	return rows, cols
}

// example makes operands of the given sizes, with more elements in a row than the matrices have.
func example[T Float](rng *rand.Rand, tA, tB bool, m, n, k int, alpha, beta T) operands[T] {
	o := operands[T]{tA: tA, tB: tB, m: m, n: n, k: k, alpha: alpha, beta: beta}
	rowsA, colsA := stored(tA, m, k)
	rowsB, colsB := stored(tB, k, n)
	o.lda, o.ldb, o.ldc = max(1, colsA+rng.IntN(3)), max(1, colsB+rng.IntN(3)), max(1, n+rng.IntN(3))
	o.a, o.b = numbers[T](rng, rowsA*o.lda), numbers[T](rng, rowsB*o.ldb)
	o.c = numbers[T](rng, m*o.ldc)
	return o
}

func double[T Float](x []T) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func transposition(t bool) blas.Transpose {
	if t {
		return blas.Trans
	}
	return blas.NoTrans
}

// byGonum is what gonum computes from the operands in float64. What lies between the rows of C, and
// below its diagonal if only the upper triangle is wanted, is as it was.
func (o *operands[T]) byGonum() []float64 {
	c := double(o.c)
	gonum.Implementation{}.Dgemm(transposition(o.tA), transposition(o.tB), o.m, o.n, o.k,
		float64(o.alpha), double(o.a), o.lda, double(o.b), o.ldb, float64(o.beta), c, o.ldc)
	if o.upper {
		for i := range o.m {
			for j := range i {
				c[i*o.ldc+j] = float64(o.c[i*o.ldc+j])
			}
		}
	}
	return c
}

// absolute has absolute values throughout. Its product bounds the size of what was rounded.
func (o *operands[T]) absolute() *operands[T] {
	of := func(x []T) []T {
		y := slices.Clone(x)
		for i, v := range y {
			y[i] = max(v, -v)
		}
		return y
	}
	p := *o
	p.a, p.b, p.c, p.alpha, p.beta = of(o.a), of(o.b), of(o.c), max(o.alpha, -o.alpha), max(o.beta, -o.beta)
	return &p
}

// compare computes the product and compares it with gonum's. Nothing else may change.
func compare[T Float](t *testing.T, o operands[T]) {
	t.Helper()
	want, size := o.byGonum(), o.absolute().byGonum()
	a, b, before := slices.Clone(o.a), slices.Clone(o.b), slices.Clone(o.c)
	if o.upper {
		UpperGram(o.tA, o.tB, o.n, o.k, o.alpha, o.a, o.lda, o.b, o.ldb, o.beta, o.c, o.ldc)
	} else {
		Gemm(o.tA, o.tB, o.m, o.n, o.k, o.alpha, o.a, o.lda, o.b, o.ldb, o.beta, o.c, o.ldc)
	}
	for i, w := range want {
		row, col := i/o.ldc, i%o.ldc
		off := math.Abs(float64(o.c[i]) - w)
		untouched := col >= o.n || o.upper && col < row
		if untouched && o.c[i] != before[i] || !(off <= float64(o.k+4)*rounding[T]()*size[i]) {
			t.Fatalf("%d x %d over %d, transposed %t %t, alpha %g, beta %g, upper %t: (%d, %d) is %g, want %g",
				o.m, o.n, o.k, o.tA, o.tB, o.alpha, o.beta, o.upper, row, col, o.c[i], w)
		}
	}
	if !slices.Equal(a, o.a) || !slices.Equal(b, o.b) {
		t.Fatal("an operand has changed")
	}
}

var transposes = [][2]bool{{false, false}, {false, true}, {true, false}, {true, true}}

// TestGemm: sizes around the edges of tiles, panels, blocks and packed panels, in all forms.
func TestGemm(t *testing.T) { onAll(t, testGemm[float32], testGemm[float64]) }

func testGemm[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	f := fastest[T]()
	rows := []int{1, 2, f.rows - 1, f.rows, f.rows + 1, 4*f.rows + 1, blockRows + 3}
	cols := []int{
		1, f.lanes - 1, f.lanes, f.lanes + 1, 2*f.lanes + 1, f.width(), f.width() + 1, blockAcross*f.width() + 1,
	}
	depths := []int{1, 2, 7, 31, depthMost, depthMost + 1}
	for _, tr := range transposes {
		for _, m := range rows {
			for _, n := range cols {
				for _, k := range depths {
					if m*n*k > 1e6 {
						continue
					}
					alpha, beta := []T{1, -0.5}[rng.IntN(2)], []T{0, 1, -2}[rng.IntN(3)]
					compare(t, example(rng, tr[0], tr[1], m, n, k, alpha, beta))
				}
			}
		}
	}
}

// TestEverySmallSize: all small sizes.
func TestEverySmallSize(t *testing.T) {
	onAll(t, testEverySmallSize[float32], testEverySmallSize[float64])
}

func testEverySmallSize[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for m := range 10 {
		for n := range 18 {
			for k := range 6 {
				for _, tr := range transposes {
					compare(t, example(rng, tr[0], tr[1], m, n, 3*k, T(rng.IntN(3))-1, T(rng.IntN(3))-1))
				}
			}
		}
	}
}

func TestUpperGram(t *testing.T) { onAll(t, testUpperGram[float32], testUpperGram[float64]) }

func testUpperGram[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	f := fastest[T]()
	for _, n := range []int{1, 5, f.rows, f.width() - 1, f.width() + 1, 2*f.width() + f.rows, 3*blockRows + 1} {
		for _, k := range []int{0, 1, 40, depthMost + 9} {
			for _, tr := range transposes {
				o := example(rng, tr[0], tr[1], n, n, k, T(rng.IntN(3)), T(rng.IntN(3)))
				o.upper = true
				compare(t, o)
			}
		}
	}
}

// TestLargeGemm: several blocks along all axes, by one processor and by several, which give the
// same bits.
func TestLargeGemm(t *testing.T) { onAll(t, testLargeGemm[float32], testLargeGemm[float64]) }

func testLargeGemm[T Float](t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	rng := rand.New(rand.NewPCG(7, 8))
	for _, upper := range []bool{false, true} {
		for _, tr := range transposes {
			m, n, k := 2*blockRows+5, 2*blockRows+5, 2*depthMost+3
			if !upper {
				n = 409
			}
			o := example[T](rng, tr[0], tr[1], m, n, k, 0.5, 1)
			o.upper = upper
			alone := slices.Clone(o.c)
			compare(t, o)
			runtime.GOMAXPROCS(1)
			o.c, alone = alone, o.c
			compute(o)
			runtime.GOMAXPROCS(4)
			if !slices.Equal(alone, o.c) {
				t.Errorf("transposed %v, upper %t: one processor computes something else", tr, upper)
			}
		}
	}
}

// Where an element of C lies among the tiles does not matter to its bits: neither the rows before
// it, nor the columns, nor whether C is whole.
func TestPlaceDoesNotMatter(t *testing.T) {
	onAll(t, testPlaceDoesNotMatter[float32], testPlaceDoesNotMatter[float64])
}

func testPlaceDoesNotMatter[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	const m, n, k = 37, 101, 57
	a, b, old := numbers[T](rng, m*k), numbers[T](rng, n*k), numbers[T](rng, m*n)
	want := slices.Clone(old)
	Gemm(false, true, m, n, k, 0.75, a, k, b, k, 1.5, want, n)
	for _, first := range [][2]int{{1, 0}, {0, 1}, {7, 50}, {29, 3}} {
		i, j := first[0], first[1]
		got := slices.Clone(old)
		Gemm(false, true, m-i, n-j, k, 0.75, a[i*k:], k, b[j*k:], k, 1.5, got[i*n+j:], n)
		for r := i; r < m; r++ {
			for s := j; s < n; s++ {
				if got[r*n+s] != want[r*n+s] {
					t.Fatalf("from (%d, %d) on: (%d, %d) is %g, want %g", i, j, r, s, got[r*n+s], want[r*n+s])
				}
			}
		}
	}
}

// A NaN or an infinity in an operand goes where gonum takes it when it computes A B^T. (In its
// other forms gonum leaves out products with zeros.)
func TestNotFinite(t *testing.T) { onAll(t, testNotFinite[float32], testNotFinite[float64]) }

func testNotFinite[T Float](t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	rng := rand.New(rand.NewPCG(11, 12))
	for range 300 {
		o := example[T](rng, false, true, 1+rng.IntN(20), 1+rng.IntN(60), 1+rng.IntN(20), 1, T(rng.IntN(2)))
		for range 3 {
			special := T([]float64{nan, inf, -inf, 0}[rng.IntN(4)])
			x := [][]T{o.a, o.b, o.c}[rng.IntN(3)]
			x[rng.IntN(len(x))] = special
		}
		if o.beta == 0 {
			o.c[0] = T(nan)
		}
		want := o.byGonum()
		compute(o)
		for i, v := range o.c {
			if i%o.ldc < o.n && !alike(float64(v), want[i]) {
				t.Fatalf("%d x %d over %d: element %d is %g, want %g", o.m, o.n, o.k, i, v, want[i])
			}
		}
	}
}

// alike reports whether x and y are the same infinity, or both NaN, or both finite.
func alike(x, y float64) bool {
	if math.IsNaN(x) || math.IsNaN(y) {
		return math.IsNaN(x) == math.IsNaN(y)
	}
	if math.IsInf(x, 0) || math.IsInf(y, 0) {
		return x == y
	}
	return true
}

// With alpha = 0 the operands do not matter, and with beta = 0 the old C.
func TestZeroFactors(t *testing.T) {
	nan := math.NaN()
	c := []float64{1, 2, 7, 3, 4, 7}
	Gemm(false, false, 2, 2, 2, 0, []float64{nan, nan, nan, nan}, 2, nil, 2, 2, c, 3)
	if want := []float64{2, 4, 7, 6, 8, 7}; !slices.Equal(c, want) {
		t.Errorf("alpha 0: %v, want %v", c, want)
	}
	c = []float64{nan, nan, 7, nan, nan, 7}
	UpperGram(false, false, 2, 1, 1, []float64{1, 2}, 1, []float64{3, 4}, 2, 0, c, 3)
	if want := []float64{3, 4, 7, nan, 8, 7}; fmt.Sprint(c) != fmt.Sprint(want) {
		t.Errorf("beta 0: %v, want %v", c, want)
	}
}

// A matrix that does not fit into its slice is refused before anything is written.
func TestBounds(t *testing.T) {
	good := func() operands[float64] {
		return operands[float64]{
			m: 2, n: 2, k: 3, alpha: 1, lda: 3, ldb: 2, ldc: 2,
			a: make([]float64, 6), b: make([]float64, 6), c: make([]float64, 4),
		}
	}
	compute(good())
	for name, spoil := range map[string]func(o *operands[float64]){
		"short A":      func(o *operands[float64]) { o.a = o.a[1:] },
		"narrow A":     func(o *operands[float64]) { o.lda = 2 },
		"short B":      func(o *operands[float64]) { o.b = o.b[1:] },
		"B transposed": func(o *operands[float64]) { o.tB = true },
		"short C":      func(o *operands[float64]) { o.c = o.c[1:] },
		"no size":      func(o *operands[float64]) { o.m = -1 },
	} {
		o := good()
		spoil(&o)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			compute(o)
		}()
	}
}

func FuzzGemm(f *testing.F) {
	f.Add(uint64(1), uint8(9), uint8(49), uint8(3), uint8(0), 1.0, 0.0)
	f.Add(uint64(2), uint8(8), uint8(48), uint8(33), uint8(7), -0.5, 2.0)
	f.Fuzz(func(t *testing.T, seed uint64, m, n, k, form uint8, alpha, beta float64) {
		if !(math.Abs(alpha) <= 1e9 && math.Abs(beta) <= 1e9) {
			t.Skip("not finite, or hardly")
		}
		rng := rand.New(rand.NewPCG(seed, 1))
		if form&4 != 0 {
			m = n
		}
		o := example(rng, form&1 != 0, form&2 != 0, int(m), int(n), int(k), alpha, beta)
		o.upper = form&4 != 0
		compare(t, o)
	})
}
