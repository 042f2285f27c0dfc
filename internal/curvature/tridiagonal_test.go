package curvature

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/gorgonia-kfac/kfac/internal/curvature/curvaturetest"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// chainMoments are the moments A_ij and G_ij of all pairs of layers of a chain, from the same
// random cases.
type chainMoments struct {
	abar, out []int
	a, g      [][]*mat.Dense
}

// chainOf draws cases: inputs abar with a homogeneous coordinate, and gradients g. Neighbouring
// layers are correlated.
func chainOf(s source, cases int, abar, out []int) *chainMoments {
	inputs, gradients := samples(s, cases, abar, true), samples(s, cases, out, false)
	a, g := curvaturetest.CrossMoments(cases, inputs), curvaturetest.CrossMoments(cases, gradients)
	return &chainMoments{abar, out, a, g}
}

// samples draws matrices of cases x n, each one a random combination of the one before plus noise.
func samples(s source, cases int, sizes []int, homogeneous bool) (x []*mat.Dense) {
	for i, n := range sizes {
		xi := mat.NewDense(cases, n, s.normals(cases*n))
		if i > 0 {
			var mixed mat.Dense
			mixed.Mul(x[i-1], mat.NewDense(sizes[i-1], n, s.normals(sizes[i-1]*n)))
			xi.Add(xi, &mixed)
		}
		for r := range cases {
			if homogeneous {
				xi.Set(r, n-1, 1)
			}
		}
		x = append(x, xi)
	}
	return x
}

// damp adds to the diagonals of the factors.
func (c *chainMoments) damp(dampA, dampG float64) *chainMoments {
	for i := range c.abar {
		c.a[i][i] = plusDiagonal(c.a[i][i], dampA)
		c.g[i][i] = plusDiagonal(c.g[i][i], dampG)
	}
	return c
}

// averages are the moments as those of a Chain.
func (c *chainMoments) averages() *Averages[float64] {
	avg := &Averages[float64]{}
	n := len(c.abar)
	for i := range n {
		avg.Moments = append(avg.Moments, flatOf(c.a[i][i]), flatOf(c.g[i][i]))
	}
	for i := range n - 1 {
		avg.Moments = append(avg.Moments, flatOf(c.a[i][i+1]), flatOf(c.g[i][i+1]))
	}
	return avg
}

// chainBlock is a Chain of such layers.
func chainBlock[T Float](abar, out []int) *Chain[T] {
	var shapes []Shape
	for i := range abar {
		shapes = append(shapes, Shape{In: abar[i], Out: out[i]})
	}
	return NewChain[T](shapes)
}

// factoriseChain computes the inverse from moments that are damped already.
func factoriseChain[T Float](b *Chain[T], avg *Averages[float64]) (*chainInverse[T], error) {
	narrow := &Averages[T]{}
	for _, m := range avg.Moments {
		narrow.Moments = append(narrow.Moments, converted[T](m))
	}
	job := b.Invert(narrow, fixed{})
	parallel.Jobs(job.First)
	parallel.Jobs(job.Then)
	v, err := job.Inverse()
	if err != nil {
		return nil, err
	}
	return v.(*chainInverse[T]), nil
}

func tridiagonalOf(t testing.TB, c *chainMoments) *chainInverse[float64] {
	t.Helper()
	inv, err := factoriseChain(chainBlock[float64](c.abar, c.out), c.averages())
	check(t, err)
	return inv
}

// offsets are where the layers begin in the vector of all weights, and its length.
func (c *chainMoments) offsets() []int { return curvaturetest.Offsets(c.abar, c.out) }

// split cuts the vector of all weights into layers.
func split[T any](v []T, offsets []int) (layers [][]T) {
	for i := range len(offsets) - 1 {
		layers = append(layers, v[offsets[i]:offsets[i+1]])
	}
	return layers
}

// appliedTo is F^^-1 v for the vector of all weights.
func (c *chainMoments) appliedTo(inv Inverse[float64], v []float64) []float64 {
	return slices.Concat(applied(inv, split(v, c.offsets())...)...)
}

// columns is the matrix of a linear map on n numbers.
func columns(n int, f func(v []float64) []float64) *mat.Dense {
	m := mat.NewDense(n, n, nil)
	for j := range n {
		v := make([]float64, n)
		v[j] = 1
		m.SetCol(j, f(v))
	}
	return m
}

// materialised is F^^-1.
func (c *chainMoments) materialised(inv Inverse[float64]) *mat.Dense {
	at := c.offsets()
	return columns(at[len(at)-1], func(v []float64) []float64 { return c.appliedTo(inv, v) })
}

// products is the matrix of the blocks A_ij (x) G_ij with |i-j| <= width.
func (c *chainMoments) products(width int) *mat.Dense {
	at := c.offsets()
	n := at[len(at)-1]
	m := mat.NewDense(n, n, nil)
	for i := range c.abar {
		for j := range c.abar {
			if max(i-j, j-i) <= width {
				var block mat.Dense
				block.Kronecker(c.a[i][j], c.g[i][j])
				m.Slice(at[i], at[i+1], at[j], at[j+1]).(*mat.Dense).Copy(&block)
			}
		}
	}
	return m
}

// band is m with its blocks of |i-j| > width replaced by zeros.
func (c *chainMoments) band(m *mat.Dense, width int) *mat.Dense {
	at := c.offsets()
	b := mat.DenseCopyOf(m)
	for i := range c.abar {
		for j := range c.abar {
			if max(i-j, j-i) > width {
				b.Slice(at[i], at[i+1], at[j], at[j+1]).(*mat.Dense).Zero()
			}
		}
	}
	return b
}

// drawChain draws a damped chain of the given number of layers, with other widths on all sides.
func drawChain(s source, layers int) *chainMoments {
	var abar, out []int
	for range layers {
		abar, out = append(abar, s.between(1, 5)), append(out, s.between(1, 5))
	}
	damp := func() float64 { return math.Pow(10, 2*s.Float64()-1.5) }
	return chainOf(s, s.between(1, 20), abar, out).damp(damp(), damp())
}

// What defines F^: it agrees with the Kronecker products on the tridiagonal, and its inverse, which
// is symmetric and positive definite, is zero outside the tridiagonal.
func TestTridiagonalDefinition(t *testing.T) {
	for seed := range uint64(60) {
		s := newSource(seed)
		c := drawChain(s, s.between(1, 5))
		inverse := c.materialised(tridiagonalOf(t, c))

		checkNear(t, "asymmetry", flatOf(inverse.T()), flatOf(inverse), 1e-11)
		var chol mat.Cholesky
		if !chol.Factorize(mat.NewSymDense(inverse.RawMatrix().Rows, flatOf(inverse))) {
			t.Error("the inverse is not positive definite")
		}
		checkNear(t, "outside the tridiagonal", flatOf(inverse), flatOf(c.band(inverse, 1)), 0)
		checkNear(t, "blocks of F^", flatOf(c.band(inverseOf(t, inverse), 1)), flatOf(c.products(1)), 1e-9)
	}
}

// Of two layers, F^ is the whole of the Kronecker products.
func TestTridiagonalOfTwoLayersIsDenseInverse(t *testing.T) {
	for seed := range uint64(60) {
		c := drawChain(newSource(seed), 2)
		got := c.materialised(tridiagonalOf(t, c))
		checkNear(t, "inverse", flatOf(got), flatOf(inverseOf(t, c.products(1))), 1e-9)
	}
}

// Of one layer, and of layers without correlation in A or in G, it is the block-diagonal inverse.
func TestTridiagonalWithoutCorrelationIsBlockDiagonal(t *testing.T) {
	for seed := range uint64(60) {
		s := newSource(seed)
		c := drawChain(s, s.between(1, 4))
		for i := range len(c.abar) - 1 {
			if s.coin() {
				c.a[i][i+1].Zero()
			} else {
				c.g[i][i+1].Zero()
			}
		}
		got := c.materialised(tridiagonalOf(t, c))
		checkNear(t, "inverse", flatOf(got), flatOf(inverseOf(t, c.products(0))), 1e-9)
	}
}

// Sigma^-1 of each layer against the explicit A (x) G - C (x) D.
func TestConditionalSolve(t *testing.T) {
	for seed := range uint64(60) {
		c := drawChain(newSource(seed), 3)
		inv := tridiagonalOf(t, c)
		for i := range 3 {
			var sigma mat.Dense
			sigma.Kronecker(c.a[i][i], c.g[i][i])
			if i < 2 {
				var explained mat.Dense
				explained.Kronecker(explainedBy(t, c.a, i), explainedBy(t, c.g, i))
				sigma.Sub(&sigma, &explained)
			}
			got := columns(c.abar[i]*c.out[i], func(v []float64) []float64 {
				inv.links.solve(v, i)
				return v
			})
			checkNear(t, fmt.Sprint("layer ", i), flatOf(got), flatOf(inverseOf(t, &sigma)), 1e-9)
		}
	}
}

// explainedBy is M_{i,i+1} M_{i+1,i+1}^-1 M_{i+1,i}.
func explainedBy(t testing.TB, m [][]*mat.Dense, i int) *mat.Dense {
	t.Helper()
	var c mat.Dense
	c.Product(m[i][i+1], inverseOf(t, m[i+1][i+1]), m[i][i+1].T())
	return &c
}

// In other parameters, abar' = Omega abar and g' = Phi^T g, directions are the same where the
// damping is transformed as well (Martens & Grosse 2015, section 10): Omega^T U' Phi^T = U for V' =
// Omega V Phi.
func TestTridiagonalCovariance(t *testing.T) {
	for seed := range uint64(60) {
		s := newSource(seed)
		c := drawChain(s, s.between(1, 4))
		twin := &chainMoments{abar: c.abar, out: c.out}
		var omega, phi []*mat.Dense
		for i := range c.abar {
			omega, phi = append(omega, nearIdentity(s, c.abar[i])), append(phi, nearIdentity(s, c.out[i]))
		}
		for i := range c.abar {
			var a, g []*mat.Dense
			for j := range c.abar {
				var aij, gij mat.Dense
				aij.Product(omega[i], c.a[i][j], omega[j].T())
				gij.Product(phi[i].T(), c.g[i][j], phi[j])
				a, g = append(a, &aij), append(g, &gij)
			}
			twin.a, twin.g = append(twin.a, a), append(twin.g, g)
		}

		at := c.offsets()
		v := s.normals(at[len(at)-1])
		var vTwin, back []float64
		for i, vi := range split(v, at) {
			var x mat.Dense
			x.Product(omega[i], mat.NewDense(c.abar[i], c.out[i], slices.Clone(vi)), phi[i])
			vTwin = append(vTwin, flatOf(&x)...)
		}
		for i, ui := range split(twin.appliedTo(tridiagonalOf(t, twin), vTwin), at) {
			var x mat.Dense
			x.Product(omega[i].T(), mat.NewDense(c.abar[i], c.out[i], ui), phi[i].T())
			back = append(back, flatOf(&x)...)
		}
		checkNear(t, "direction", back, c.appliedTo(tridiagonalOf(t, c), v), 1e-9)
	}
}

// nearIdentity is I plus noise, with a condition number of at most 30.
func nearIdentity(s source, n int) *mat.Dense {
	for {
		x := s.normals(n * n)
		for i := range x {
			x[i] *= 0.3
		}
		if m := plusDiagonal(matrixOf(x, n), 1); mat.Cond(m, 2) < 30 {
			return m
		}
	}
}

// mediumChain is large enough for panels, blocks and threads to matter.
func mediumChain(damping float64) *chainMoments {
	return chainOf(newSource(5), 200, []int{71, 34, 20, 34}, []int{33, 19, 33, 70}).damp(damping, damping)
}

// A float32 model's directions are those that float64 gets from the same moments, but for rounding.
func TestTridiagonalInFloat32(t *testing.T) {
	c := mediumChain(1)
	avg, at := c.averages(), c.offsets()
	for _, m := range avg.Moments {
		copy(m, converted[float64](converted[float32](m)))
	}
	v := newSource(6).normals(at[len(at)-1])
	single, err := factoriseChain(chainBlock[float32](c.abar, c.out), avg)
	check(t, err)
	double, err := factoriseChain(chainBlock[float64](c.abar, c.out), avg)
	check(t, err)
	got := slices.Concat(applied(single, split(converted[float32](v), at)...)...)
	checkNear(t, "direction", converted[float64](got), c.appliedTo(double, v), 1e-5)
}

// The result depends neither on the number of threads nor on what the memory held before.
func TestTridiagonalIsReproducible(t *testing.T) {
	c := mediumChain(0.1)
	at := c.offsets()
	v := newSource(7).normals(at[len(at)-1])
	used := tridiagonalOf(t, mediumChain(3))
	used.Release()
	again, err := factoriseChain(used.block, c.averages())
	if check(t, err); again != used {
		t.Error("the memory was not used again")
	}
	want := c.appliedTo(again, v)

	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, threads := range []int{1, 5} {
		runtime.GOMAXPROCS(threads)
		if got := c.appliedTo(tridiagonalOf(t, c), v); !slices.Equal(got, want) {
			t.Errorf("%d threads: another result", threads)
		}
	}
}

// Layers that are perfectly correlated, or by rounding more than that, leave Sigma = 0: its inverse
// stays finite and positive. A correlation counts as 1 at most, on either side.
func TestPerfectCorrelation(t *testing.T) {
	one := []float64{1}
	for _, test := range []struct{ crossA, crossG, gap float64 }{
		{1, 1, minGap},
		{-1, 1, minGap},
		{1 + 1e-15, 1, minGap},
		{1, 1.5, minGap},
		{1.5, 0.5, 0.75},
		{-0.5, 1.5, 0.75},
		{0.6, 0.5, 0.91},
	} {
		avg := averagesOf(one, one, one, one, []float64{test.crossA}, []float64{test.crossG})
		inv, err := factoriseChain(chainBlock[float64]([]int{1, 1}, []int{1, 1}), avg)
		check(t, err)
		if got := applied(inv, one, []float64{0})[0][0]; math.Abs(got*test.gap-1) > 1e-9 {
			t.Errorf("correlations %v and %v: the inverse's first element is %g, want %g",
				test.crossA, test.crossG, got, 1/test.gap)
		}
	}
}

// Errors name the layer and the factor, and the memory serves again after them.
func TestTridiagonalErrors(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(c *chainMoments)
		want  Error // whose Op is a part of the whole
		of    string
	}{
		{"indefinite A", func(c *chainMoments) { c.a[1][1].Set(0, 0, -1) },
			Error{Layer: 1, Op: "Cholesky", Dim: 4, Err: ErrNotPosDef}, "of A"},
		{"indefinite G", func(c *chainMoments) { c.g[2][2].Set(1, 1, 0) },
			Error{Layer: 2, Op: "Cholesky", Dim: 2, Err: ErrNotPosDef}, "of G"},
		{"NaN in G", func(c *chainMoments) { c.g[0][0].Set(1, 0, math.NaN()) },
			Error{Layer: 0, Op: "Cholesky", Dim: 3, Err: ErrNotPosDef}, "of G"},
		{"NaN in a cross moment of A", func(c *chainMoments) { c.a[0][1].Set(2, 1, math.NaN()) },
			Error{Layer: 0, Op: "eigenproblem", Dim: 5, Err: ErrNotFinite}, "of A"},
		{"infinity in a cross moment of G", func(c *chainMoments) { c.g[1][2].Set(1, 1, math.Inf(1)) },
			Error{Layer: 1, Op: "eigenproblem", Dim: 3, Err: ErrNotFinite}, "of G"},
		{"a regression beyond float32", func(c *chainMoments) {
			c.a[2][2] = plusDiagonal(mat.NewDense(3, 3, nil), 1e-40)
			c.a[1][1] = plusDiagonal(mat.NewDense(4, 4, nil), 1e20)
		}, Error{Layer: 1, Op: "eigenproblem", Dim: 4, Err: ErrNotPosDef}, "of A"},
	} {
		t.Run(test.name, func(t *testing.T) {
			sound := func() *chainMoments {
				return chainOf(newSource(10), 12, []int{5, 4, 3}, []int{3, 3, 2}).damp(0.1, 0.1)
			}
			c := sound()
			b := chainBlock[float32](c.abar, c.out)
			test.spoil(c)
			_, err := factoriseChain(b, c.averages())
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, test.want.Err) {
				t.Fatalf("error %v, want %v", err, &test.want)
			}
			op := strings.Contains(e.Op, test.want.Op) && strings.HasSuffix(e.Op, test.of)
			if e.Layer != test.want.Layer || e.Dim != test.want.Dim || !op {
				t.Errorf("error %#v, want %#v", e, test.want)
			}
			_, err = factoriseChain(b, sound().averages())
			check(t, err)
		})
	}
}
