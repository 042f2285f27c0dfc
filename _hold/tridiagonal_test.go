package kfac

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// chainMoments are the moments A_ij and G_ij of all pairs of layers of a chain, from the same
// random cases.
type chainMoments struct {
	abar, out []int
	a, g      [][]*mat.Dense
}

// chainOf draws cases: inputs abar with a homogeneous coordinate, and gradients g. Neighbouring
// layers are correlated.
func chainOf(s *testnet.Sketch, cases int, abar, out []int) *chainMoments {
	return &chainMoments{abar, out, crossMoments(cases, samples(s, cases, abar, true)),
		crossMoments(cases, samples(s, cases, out, false))}
}

// samples draws matrices of cases x n, each one a random combination of the one before plus noise.
func samples(s *testnet.Sketch, cases int, sizes []int, homogeneous bool) (x []*mat.Dense) {
	for i, n := range sizes {
		xi := mat.NewDense(cases, n, s.Normals(cases*n))
		if i > 0 {
			var mixed mat.Dense
			mixed.Mul(x[i-1], mat.NewDense(sizes[i-1], n, s.Normals(sizes[i-1]*n)))
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

func crossMoments(cases int, x []*mat.Dense) (moments [][]*mat.Dense) {
	for _, xi := range x {
		var row []*mat.Dense
		for _, xj := range x {
			var m mat.Dense
			m.Mul(xi.T(), xj)
			m.Scale(1/float64(cases), &m)
			row = append(row, &m)
		}
		moments = append(moments, row)
	}
	return moments
}

// damp adds to the diagonals of the factors.
func (c *chainMoments) damp(dampA, dampG float64) *chainMoments {
	for i := range c.abar {
		c.a[i][i] = plusDiagonal(flatOf(c.a[i][i]), dampA)
		c.g[i][i] = plusDiagonal(flatOf(c.g[i][i]), dampG)
	}
	return c
}

// flats are the diagonal (offset 0) or the superdiagonal (offset 1) of moments.
func flats(moments [][]*mat.Dense, offset int) (flat [][]float64) {
	for i := range len(moments) - offset {
		flat = append(flat, flatOf(moments[i][i+offset]))
	}
	return flat
}

func convertedAll[T program.Float](matrices [][]float64) (c [][]T) {
	for _, m := range matrices {
		c = append(c, converted[T](m))
	}
	return c
}

func factoriseChain[T program.Float](into *tridiagonal[T], c *chainMoments) error {
	return factorise(into, flats(c.a, 0), flats(c.g, 0), flats(c.a, 1), flats(c.g, 1))
}

// factorise computes an inverse from factors that are damped already.
func factorise[T program.Float](into *tridiagonal[T], a, g, crossA, crossG [][]float64) error {
	var abar, out []int
	for i := range into.a {
		abar, out = append(abar, into.a[i].n), append(out, into.g[i].n)
	}
	sides := [][]junction[T]{newJunctions[T](abar), newJunctions[T](out)}
	none := make([]float64, len(a))
	first, then := joinAll(into.a, sides[0], convertedAll[T](a), convertedAll[T](crossA), none)
	firstG, thenG := joinAll(into.g, sides[1], convertedAll[T](g), convertedAll[T](crossG), none)
	parallel.Jobs(append(first, firstG...))
	parallel.Jobs(append(then, thenG...))
	for i := range a {
		for side, js := range sides {
			if j := js[i]; j.err != nil {
				return &chainError{i, "AG"[side : side+1], j.op, j.n, j.err}
			}
		}
	}
	return nil
}

// A chainError tells which factor of a chain's layer could not be factorised.
type chainError struct {
	layer  int
	factor string
	op     string
	dim    int
	err    error
}

func (e *chainError) Error() string {
	return fmt.Sprintf("layer %d, %s of %s (%d): %v", e.layer, e.op, e.factor, e.dim, e.err)
}
func (e *chainError) Unwrap() error { return e.err }

func tridiagonalOf(t rapid.TB, c *chainMoments) *tridiagonal[float64] {
	t.Helper()
	inv := newTridiagonal[float64](c.abar, c.out)
	testnet.Check(t, factoriseChain(inv, c))
	return inv
}

// offsets are where the layers begin in the vector of all weights, and its length.
func (c *chainMoments) offsets() []int {
	at := []int{0}
	for i := range c.abar {
		at = append(at, at[i]+c.abar[i]*c.out[i])
	}
	return at
}

// split cuts the vector of all weights into layers.
func split[T any](v []T, offsets []int) (layers [][]T) {
	for i := range len(offsets) - 1 {
		layers = append(layers, v[offsets[i]:offsets[i+1]])
	}
	return layers
}

// applied is F^^-1 v for the vector of all weights.
func applied[T program.Float](inv *tridiagonal[T], c *chainMoments, v []T) []T {
	u := make([]T, len(v))
	for i := range u {
		u[i] = T(math.NaN()) // what was there must not matter
	}
	inv.apply(split(u, c.offsets()), split(v, c.offsets()))
	return u
}

// matrixOf is the matrix of a linear map on n numbers.
func matrixOf(n int, f func(v []float64) []float64) *mat.Dense {
	m := mat.NewDense(n, n, nil)
	for j := range n {
		v := make([]float64, n)
		v[j] = 1
		m.SetCol(j, f(v))
	}
	return m
}

// materialised is F^^-1.
func materialised(inv *tridiagonal[float64], c *chainMoments) *mat.Dense {
	at := c.offsets()
	return matrixOf(at[len(at)-1], func(v []float64) []float64 { return applied(inv, c, v) })
}

// kroneckers is the matrix of the blocks A_ij (x) G_ij with |i-j| <= width.
func (c *chainMoments) kroneckers(width int) *mat.Dense {
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

func inverseOf(t rapid.TB, m *mat.Dense) *mat.Dense {
	t.Helper()
	var inv mat.Dense
	testnet.Check(t, inv.Inverse(m))
	return &inv
}

// drawChain draws a damped chain of the given number of layers, with other widths on all sides.
func drawChain(t *rapid.T, layers int) *chainMoments {
	s := testnet.NewSketch(rapid.Uint64().Draw(t, "seed"))
	var abar, out []int
	for range layers {
		abar = append(abar, rapid.IntRange(1, 5).Draw(t, "abar"))
		out = append(out, rapid.IntRange(1, 5).Draw(t, "out"))
	}
	damp := rapid.Float64Range(0.03, 3)
	return chainOf(s, rapid.IntRange(1, 20).Draw(t, "cases"), abar, out).damp(damp.Draw(t, "dampA"),
		damp.Draw(t, "dampG"))
}

// What defines F^: it agrees with the Kronecker products on the tridiagonal, and its inverse, which
// is symmetric and positive definite, is zero outside the tridiagonal.
func TestTridiagonalDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawChain(t, rapid.IntRange(1, 5).Draw(t, "layers"))
		inverse := materialised(tridiagonalOf(t, c), c)

		testnet.Near(t, "asymmetry", flatOf(inverse.T()), flatOf(inverse), 1e-11)
		var chol mat.Cholesky
		if !chol.Factorize(mat.NewSymDense(inverse.RawMatrix().Rows, flatOf(inverse))) {
			t.Error("the inverse is not positive definite")
		}
		testnet.Near(t, "outside the tridiagonal", flatOf(inverse), flatOf(c.band(inverse, 1)), 0)
		testnet.Near(t, "blocks of F^", flatOf(c.band(inverseOf(t, inverse), 1)), flatOf(c.kroneckers(1)), 1e-9)
	})
}

// Of two layers, F^ is the whole of the Kronecker products.
func TestTridiagonalOfTwoLayersIsDenseInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawChain(t, 2)
		testnet.Near(t, "inverse", flatOf(materialised(tridiagonalOf(t, c), c)), flatOf(inverseOf(t, c.kroneckers(1))),
			1e-9)
	})
}

// Of one layer, and of layers without correlation in A or in G, it is the block-diagonal inverse.
func TestTridiagonalWithoutCorrelationIsBlockDiagonal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layers := rapid.IntRange(1, 4).Draw(t, "layers")
		c := drawChain(t, layers)
		for i := range layers - 1 {
			if rapid.Bool().Draw(t, "uncorrelated in A") {
				c.a[i][i+1].Zero()
			} else {
				c.g[i][i+1].Zero()
			}
		}
		testnet.Near(t, "inverse", flatOf(materialised(tridiagonalOf(t, c), c)), flatOf(inverseOf(t, c.kroneckers(0))),
			1e-9)
	})
}

// Sigma^-1 of each layer against the explicit A (x) G - C (x) D.
func TestConditionalSolve(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawChain(t, 3)
		inv := tridiagonalOf(t, c)
		for i := range 3 {
			var sigma mat.Dense
			sigma.Kronecker(c.a[i][i], c.g[i][i])
			if i < 2 {
				var explained mat.Dense
				explained.Kronecker(explainedBy(t, c.a, i), explainedBy(t, c.g, i))
				sigma.Sub(&sigma, &explained)
			}
			got := matrixOf(c.abar[i]*c.out[i], func(v []float64) []float64 {
				inv.solve(v, i)
				return v
			})
			testnet.Near(t, fmt.Sprint("layer ", i), flatOf(got), flatOf(inverseOf(t, &sigma)), 1e-9)
		}
	})
}

// explainedBy is M_{i,i+1} M_{i+1,i+1}^-1 M_{i+1,i}.
func explainedBy(t rapid.TB, m [][]*mat.Dense, i int) *mat.Dense {
	t.Helper()
	var c mat.Dense
	c.Product(m[i][i+1], inverseOf(t, m[i+1][i+1]), m[i][i+1].T())
	return &c
}

// In other parameters, abar' = Omega abar and g' = Phi^T g, directions are the same where the
// damping is transformed as well (Martens & Grosse 2015, section 10): Omega^T U' Phi^T = U for V' =
// Omega V Phi.
func TestTridiagonalCovariance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawChain(t, rapid.IntRange(1, 4).Draw(t, "layers"))
		s := testnet.NewSketch(rapid.Uint64().Draw(t, "transformation"))
		draw := nearIdentity(s)
		twin := &chainMoments{abar: c.abar, out: c.out}
		var omega, phi []*mat.Dense
		for i := range c.abar {
			omega = append(omega, draw(i, c.abar[i]))
			phi = append(phi, draw(i, c.out[i]))
			for _, m := range []*mat.Dense{omega[i], phi[i]} {
				if mat.Cond(m, 2) > 30 {
					t.Skip("nearly singular")
				}
			}
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
		v := s.Normals(at[len(at)-1])
		var vTwin []float64
		for i, vi := range split(v, at) {
			var x mat.Dense
			x.Product(omega[i], mat.NewDense(c.abar[i], c.out[i], slices.Clone(vi)), phi[i])
			vTwin = append(vTwin, flatOf(&x)...)
		}
		var back []float64
		for i, ui := range split(applied(tridiagonalOf(t, twin), twin, vTwin), at) {
			var x mat.Dense
			x.Product(omega[i].T(), mat.NewDense(c.abar[i], c.out[i], ui), phi[i].T())
			back = append(back, flatOf(&x)...)
		}
		testnet.Near(t, "direction", back, applied(tridiagonalOf(t, c), c, v), 1e-9)
	})
}

// mediumChain is large enough for panels, blocks and threads to matter.
func mediumChain(damping float64) *chainMoments {
	return chainOf(testnet.NewSketch(5), 200, []int{71, 34, 20, 34}, []int{33, 19, 33, 70}).damp(damping, damping)
}

// A float32 model's directions are those that float64 gets from the same moments, but for rounding.
func TestTridiagonalInFloat32(t *testing.T) {
	c := mediumChain(1)
	for _, moments := range [][][]*mat.Dense{c.a, c.g} {
		for _, m := range slices.Concat(moments...) {
			if m != nil {
				m.Apply(func(_, _ int, v float64) float64 { return float64(float32(v)) }, m)
			}
		}
	}
	at := c.offsets()
	v := testnet.NewSketch(6).Normals(at[len(at)-1])
	inv := newTridiagonal[float32](c.abar, c.out)
	testnet.Check(t, factoriseChain(inv, c))
	got := converted[float64](applied(inv, c, converted[float32](v)))
	testnet.Near(t, "direction", got, applied(tridiagonalOf(t, c), c, v), 1e-5)
}

// The result depends neither on the number of threads nor on what was factorised before.
func TestTridiagonalIsReproducible(t *testing.T) {
	c := mediumChain(0.1)
	at := c.offsets()
	v := testnet.NewSketch(7).Normals(at[len(at)-1])
	used := tridiagonalOf(t, mediumChain(3))
	testnet.Check(t, factoriseChain(used, c))
	want := applied(used, c, v)

	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, threads := range []int{1, 5} {
		runtime.GOMAXPROCS(threads)
		if got := applied(tridiagonalOf(t, c), c, v); !slices.Equal(got, want) {
			t.Errorf("%d threads: another result", threads)
		}
	}
}

func TestTridiagonalAppliesWithoutAllocating(t *testing.T) {
	c := chainOf(testnet.NewSketch(8), 30, []int{7, 6, 5}, []int{5, 4, 3}).damp(1, 1)
	inv := tridiagonalOf(t, c)
	at := c.offsets()
	v := testnet.NewSketch(9).Normals(at[len(at)-1])
	u := split(make([]float64, len(v)), at)
	layers := split(v, at)
	if n := testing.AllocsPerRun(10, func() { inv.apply(u, layers) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Layers that are perfectly correlated, or by rounding more than that, leave Sigma = 0: its inverse
// stays finite and positive. A correlation counts as 1 at most, on either side.
func TestPerfectCorrelation(t *testing.T) {
	one := [][]float64{{1}, {1}}
	for _, test := range []struct{ crossA, crossG, gap float64 }{
		{1, 1, minGap},
		{-1, 1, minGap},
		{1 + 1e-15, 1, minGap},
		{1, 1.5, minGap},
		{1.5, 0.5, 0.75},
		{-0.5, 1.5, 0.75},
		{0.6, 0.5, 0.91},
	} {
		inv := newTridiagonal[float64]([]int{1, 1}, []int{1, 1})
		testnet.Check(t, factorise(inv, one, one, [][]float64{{test.crossA}}, [][]float64{{test.crossG}}))
		u := [][]float64{{0}, {0}}
		inv.apply(u, [][]float64{{1}, {0}})
		if got := u[0][0]; math.Abs(got*test.gap-1) > 1e-9 {
			t.Errorf("correlations %v and %v: the inverse's first element is %g, want %g",
				test.crossA, test.crossG, got, 1/test.gap)
		}
	}
}

// Errors name the layer and the factor, and the object serves again after them.
func TestTridiagonalErrors(t *testing.T) {
	for _, test := range []struct {
		name   string
		spoil  func(c *chainMoments)
		layer  int
		factor string
		op     string
		dim    int
		is     error
	}{
		{"indefinite A", func(c *chainMoments) { c.a[1][1].Set(0, 0, -1) }, 1, "A", "Cholesky", 4, ErrNotPosDef},
		{"indefinite G", func(c *chainMoments) { c.g[2][2].Set(1, 1, 0) }, 2, "G", "Cholesky", 2, ErrNotPosDef},
		{"NaN in G", func(c *chainMoments) { c.g[0][0].Set(1, 0, math.NaN()) }, 0, "G", "Cholesky", 3, ErrNotPosDef},
		{"NaN in a cross moment of A", func(c *chainMoments) {
			c.a[0][1].Set(2, 1, math.NaN())
		}, 0, "A", "eigenproblem", 5, ErrNotFinite},
		{"infinity in a cross moment of G", func(c *chainMoments) {
			c.g[1][2].Set(1, 1, math.Inf(1))
		}, 1, "G", "eigenproblem", 3, ErrNotFinite},
		{"a regression beyond float32", func(c *chainMoments) {
			c.a[2][2] = plusDiagonal(make([]float64, 9), 1e-40)
			c.a[1][1] = plusDiagonal(make([]float64, 16), 1e20)
		}, 1, "A", "eigenproblem", 4, ErrNotPosDef},
	} {
		t.Run(test.name, func(t *testing.T) {
			sound := func() *chainMoments {
				return chainOf(testnet.NewSketch(10), 12, []int{5, 4, 3}, []int{3, 3, 2}).damp(0.1, 0.1)
			}
			c := sound()
			inv := newTridiagonal[float32](c.abar, c.out)
			test.spoil(c)
			var e *chainError
			err := factoriseChain(inv, c)
			if !errors.As(err, &e) || !errors.Is(err, test.is) {
				t.Fatalf("error %v, want %v", err, test.is)
			}
			if e.layer != test.layer || e.factor != test.factor || !strings.Contains(e.op, test.op) ||
				e.dim != test.dim {
				t.Errorf("error %v, want layer %d, %s, %s, %d", err, test.layer, test.factor, test.op, test.dim)
			}
			testnet.Check(t, factoriseChain(inv, sound()))
		})
	}
}
