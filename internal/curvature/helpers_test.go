package curvature

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// source draws random numbers.
type source struct{ *rand.Rand }

func newSource(seed uint64) source { return source{rand.New(rand.NewPCG(seed, seed))} }

func (s source) normals(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = s.NormFloat64()
	}
	return x
}

func (s source) between(from, to int) int { return from + s.IntN(to-from+1) }
func (s source) coin() bool               { return s.IntN(2) == 1 }

// tikhonov is factored Tikhonov damping (Martens & Grosse 2015, section 6.3), with its gamma.
type tikhonov float64

func (gamma tikhonov) Split(traceA float64, n int, traceG float64, m int) (dampA, dampG float64) {
	pi := math.Sqrt(traceA / float64(n) / (traceG / float64(m)))
	if traceA <= 0 || traceG <= 0 {
		pi = 1
	}
	return pi * float64(gamma), float64(gamma) / pi
}

func (gamma tikhonov) Whole() float64 { return float64(gamma * gamma) }

// fixed adds so much to either factor.
type fixed [2]float64

func (d fixed) Split(float64, int, float64, int) (dampA, dampG float64) { return d[0], d[1] }
func (d fixed) Whole() float64                                          { return d[0] * d[1] }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rounding is the tolerance of what is equal but for rounding.
const rounding = 1e-12

// distance is |got - want| / |want|. It is infinite if the numbers differ in count.
func distance(got, want []float64) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var diff, norm float64
	for i, w := range want {
		diff += (got[i] - w) * (got[i] - w)
		norm += w * w
	}
	if diff == 0 {
		return 0 // also from zero
	}
	return math.Sqrt(diff / norm)
}

func checkNear(t testing.TB, what string, got, want []float64, tol float64) {
	t.Helper()
	if d := distance(got, want); !(d <= tol) {
		t.Errorf("%s: off by %.3g of its norm, tolerance %g\ngot  %.6g\nwant %.6g",
			what, d, tol, got[:min(len(got), 12)], want[:min(len(want), 12)])
	}
}

// flatOf is the elements of a matrix, row by row.
func flatOf(m mat.Matrix) []float64 { return slices.Clone(mat.DenseCopyOf(m).RawMatrix().Data) }

func converted[D, S Float](x []S) []D {
	y := make([]D, len(x))
	for i, v := range x {
		y[i] = D(v)
	}
	return y
}

// matrixOf is a factor of n rows, of which x may be the diagonal only.
func matrixOf(x []float64, n int) *mat.Dense {
	if len(x) == n*n {
		return mat.NewDense(n, n, slices.Clone(x))
	}
	m := mat.NewDense(n, n, nil)
	for i, v := range x {
		m.Set(i, i, v)
	}
	return m
}

// plusDiagonal is a factor with d added to its diagonal.
func plusDiagonal(m *mat.Dense, d float64) *mat.Dense {
	sum := mat.DenseCopyOf(m)
	for i := range sum.RawMatrix().Rows {
		sum.Set(i, i, sum.At(i, i)+d)
	}
	return sum
}

func inverseOf(t testing.TB, m *mat.Dense) *mat.Dense {
	t.Helper()
	var inv mat.Dense
	check(t, inv.Inverse(m))
	return &inv
}

// solved is m^-1 v.
func solved(t testing.TB, m *mat.Dense, v []float64) []float64 {
	t.Helper()
	var u mat.VecDense
	check(t, u.SolveVec(m, mat.NewVecDense(len(v), slices.Clone(v))))
	return u.RawVector().Data
}

// kronecker is (A + dampA I) (x) (G + dampG I).
func kronecker(a, g *mat.Dense, dampA, dampG float64) *mat.Dense {
	var product mat.Dense
	product.Kronecker(plusDiagonal(a, dampA), plusDiagonal(g, dampG))
	return &product
}

// momentOf is X^T Y / count for X of n columns and Y of m.
func momentOf(x []float64, n int, y []float64, m, count int) []float64 {
	var product mat.Dense
	product.Mul(mat.NewDense(len(x)/n, n, x).T(), mat.NewDense(len(y)/m, m, y))
	product.Scale(1/float64(count), &product)
	return flatOf(&product)
}

// withOnes is X of n columns with a column of ones behind it, if on.
func withOnes(x []float64, n int, on bool) []float64 {
	if !on {
		return x
	}
	var wide []float64
	for row := range slices.Chunk(x, n) {
		wide = append(append(wide, row...), 1)
	}
	return wide
}

// positive is a random symmetric positive definite matrix.
func positive(s source, n int) []float64 {
	x := s.normals(n * n)
	return flatOf(plusDiagonal(matrixOf(momentOf(x, n, x, n, n), n), 0.1))
}

// symmetric is Q diag(values) Q^T with a random orthogonal Q.
func symmetric(s source, values ...float64) []float64 {
	n := len(values)
	var qr mat.QR
	qr.Factorize(mat.NewDense(n, n, s.normals(n*n)))
	var q, m mat.Dense
	qr.QTo(&q)
	m.Product(&q, mat.NewDiagDense(n, values), q.T())
	m.Add(&m, mat.DenseCopyOf(m.T()))
	m.Scale(0.5, &m)
	return flatOf(&m)
}

// averagesOf are averages with the given moments.
func averagesOf[T Float](moments ...[]T) *Averages[T] {
	return &Averages[T]{Updates: 1, Moments: moments}
}

// seen are the averages of a block after one run of the given rows.
func seen[T Float](t testing.TB, b Block[T], rows []Rows[T]) *Averages[T] {
	t.Helper()
	check(t, b.Observe(rows))
	avg, err := b.Average(0.95)
	check(t, err)
	return avg
}

// inverted is the inverse, whose damping did not have to be raised.
func inverted[T Float](t testing.TB, b Block[T], avg *Averages[T], d Damping) Inverse[T] {
	t.Helper()
	job := b.Invert(avg, d)
	job.Run()
	v, err := job.Inverse()
	check(t, err)
	if v.Raised() != 0 {
		t.Fatalf("the damping of %d factors was raised", v.Raised())
	}
	return v
}

// applied is U for V, layer by layer. What was in U before does not matter.
func applied[T Float](inv Inverse[T], v ...[]T) (u [][]T) {
	before := make([][]T, len(v))
	for i := range v {
		before[i] = slices.Clone(v[i])
		u = append(u, make([]T, len(v[i])))
		for k := range u[i] {
			u[i][k] = T(math.NaN())
		}
	}
	inv.Apply(u, v)
	for i := range v {
		if !slices.Equal(before[i], v[i]) {
			panic("V has changed")
		}
	}
	return u
}

// abarByOut is V, or U, of a layer as abar x out.
func abarByOut(s Shape, v []float64) []float64 {
	if !s.OutByIn {
		return v
	}
	return flatOf(mat.NewDense(s.Out, s.Abar(), slices.Clone(v)).T())
}

// drawShape draws a layer of up to most inputs and outputs.
func drawShape(s source, most int) Shape {
	return Shape{In: s.between(1, most), Out: s.between(1, most), Bias: s.coin(), OutByIn: s.coin()}
}
