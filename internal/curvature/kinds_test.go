package curvature

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// A kind is a kind of block, with what is to be expected of it.
type kind struct {
	name   string
	sizes  []int // of V
	single func() Block[float32]
	double func() Block[float64]
	rows   func(s source, cases int) []Rows[float64]
	// join is what two runs of rows are as one; nil if their rows lie behind each other.
	join func(x, y []Rows[float64]) []Rows[float64]
	// inverse is the dense (F + damping)^-1; nil if F is zero and V stays as it is.
	inverse func(t testing.TB, avg *Averages[float64], d Damping) *mat.Dense
	steps   int // rows of each are for so many steps of time
}

// joined are rows behind each other.
func joined(x, y []Rows[float64]) (both []Rows[float64]) {
	for i := range x {
		r := x[i]
		r.A, r.G = slices.Concat(r.A, y[i].A), slices.Concat(r.G, y[i].G)
		r.Lookups, r.Cases = slices.Concat(r.Lookups, y[i].Lookups), r.Cases+y[i].Cases
		both = append(both, r)
	}
	return both
}

func (k *kind) joined(x, y []Rows[float64]) []Rows[float64] {
	if k.join != nil {
		return k.join(x, y)
	}
	return joined(x, y)
}

// vectors draws a V.
func (k *kind) vectors(s source) (v [][]float64) {
	for _, n := range k.sizes {
		v = append(v, s.normals(n))
	}
	return v
}

func kindOf(name string, single func() Block[float32], double func() Block[float64], sizes ...int) kind {
	return kind{name: name, single: single, double: double, sizes: sizes}
}

// layerRows draws the rows of a layer used at so many positions of each case.
func layerRows(s source, l Shape, cases, positions int) Rows[float64] {
	n := cases * positions
	return Rows[float64]{A: s.normals(n * l.In), G: s.normals(n * l.Out), Cases: cases, Steps: positions}
}

// turnedInverse is the inverse of F for V as the layer stores it, given F for V of abar x out.
func turnedInverse(t testing.TB, s Shape, f *mat.Dense) *mat.Dense {
	inv := inverseOf(t, f)
	if !s.OutByIn {
		return inv
	}
	n, m := s.Abar(), s.Out
	turned := mat.NewDense(n*m, n*m, nil)
	at := func(k int) int { return k%n*m + k/n } // of element k of out x abar
	for i := range n * m {
		for j := range n * m {
			turned.Set(i, j, inv.At(at(i), at(j)))
		}
	}
	return turned
}

// factorsOf are a layer's factors and what is added to them.
func factorsOf(s Shape, a, g []float64, d Damping) (fa, fg *mat.Dense, dampA, dampG float64) {
	fa, fg = matrixOf(a, s.Abar()), matrixOf(g, s.Out)
	dampA, dampG = d.Split(mat.Trace(fa), s.Abar(), mat.Trace(fg), s.Out)
	return fa, fg, dampA, dampG
}

func kroneckerKind(name string, s Shape) kind {
	k := kindOf(name,
		func() Block[float32] { return NewKronecker[float32](s) },
		func() Block[float64] { return NewKronecker[float64](s) }, s.Abar()*s.Out)
	k.rows = func(src source, cases int) []Rows[float64] { return []Rows[float64]{layerRows(src, s, cases, 2)} }
	k.inverse = func(t testing.TB, avg *Averages[float64], d Damping) *mat.Dense {
		return turnedInverse(t, s, kronecker(factorsOf(s, avg.Moments[0], avg.Moments[1], d)))
	}
	return k
}

// eigenKind has the damping of the whole block. A first inverse does not differ if it is corrected.
func eigenKind(name string, s Shape, corrected bool) kind {
	k := kroneckerKind(name, s)
	k.single = func() Block[float32] { return NewEigen[float32](s, corrected) }
	k.double = func() Block[float64] { return NewEigen[float64](s, corrected) }
	k.inverse = func(t testing.TB, avg *Averages[float64], d Damping) *mat.Dense {
		a, g := matrixOf(avg.Moments[0], s.Abar()), matrixOf(avg.Moments[1], s.Out)
		return turnedInverse(t, s, plusDiagonal(kronecker(a, g, 0, 0), d.Whole()))
	}
	return k
}

func lookupKind() kind {
	s := Shape{In: 6, Out: 3, DiagonalA: true}
	k := kroneckerKind("lookups", s)
	k.rows = func(src source, cases int) []Rows[float64] {
		r := layerRows(src, Shape{Out: 3}, cases, 2)
		for range 2 * cases {
			r.Lookups = append(r.Lookups, src.IntN(5)) // the last does not occur
		}
		return []Rows[float64]{r}
	}
	return k
}

func patchKind() kind {
	im := image{channels: 2, height: 9, width: 3, kernel: [2]int{2, 2}, stride: [2]int{1, 1}, dilation: [2]int{1, 1}}
	s := Shape{In: im.patch(), Out: 3, Bias: true, OutByIn: true}
	k := kroneckerKind("patches", s)
	k.rows = func(src source, cases int) []Rows[float64] {
		r := layerRows(src, s, cases, im.locations())
		r.A, r.Patches = im.rows(src, cases), im.grid()
		return []Rows[float64]{r}
	}
	return k
}

func tiedKind(name string, s Shape) kind {
	k := kindOf(name,
		func() Block[float32] { return NewTied[float32](s) },
		func() Block[float64] { return NewTied[float64](s) }, s.Abar()*s.Out)
	k.rows = func(src source, cases int) []Rows[float64] {
		return []Rows[float64]{layerRows(src, s, cases, 1), layerRows(src, Shape{In: s.Out, Out: s.In}, cases, 2)}
	}
	k.inverse = func(t testing.TB, avg *Averages[float64], d Damping) *mat.Dense {
		l, r, trace := tiedProduct(s, avg)
		l.Scale(1/math.Sqrt(trace), l)
		r.Scale(1/math.Sqrt(trace), r)
		dampA, dampG := d.Split(mat.Trace(l), s.Abar(), mat.Trace(r), s.Out)
		return turnedInverse(t, s, kronecker(l, r, dampA, dampG))
	}
	return k
}

func chainKind() kind {
	shapes := []Shape{
		{In: 3, Out: 4, Bias: true},
		{In: 4, Out: 2, OutByIn: true},
		{In: 2, Out: 3, Bias: true, OutByIn: true},
	}
	k := kindOf("chain",
		func() Block[float32] { return NewChain[float32](shapes) },
		func() Block[float64] { return NewChain[float64](shapes) })
	for _, s := range shapes {
		k.sizes = append(k.sizes, s.Abar()*s.Out)
	}
	k.rows = func(src source, cases int) (rows []Rows[float64]) {
		for _, s := range shapes {
			rows = append(rows, layerRows(src, s, cases, 1))
		}
		return rows
	}
	k.inverse = func(t testing.TB, avg *Averages[float64], d Damping) *mat.Dense {
		return chainInverseOf(t, shapes, avg, d)
	}
	return k
}

func recurrentKind(name string, s Shape, stationary bool) kind {
	const steps = 3
	k := kindOf(name,
		func() Block[float32] { return NewRecurrent[float32](s, stationary) },
		func() Block[float64] { return NewRecurrent[float64](s, stationary) }, s.Abar()*s.Out)
	k.rows = func(src source, cases int) []Rows[float64] { return []Rows[float64]{layerRows(src, s, cases, steps)} }
	k.steps = steps
	k.join = func(x, y []Rows[float64]) []Rows[float64] {
		both := x[0]
		both.A, both.G, both.Cases = nil, nil, x[0].Cases+y[0].Cases
		for t := range steps {
			for _, r := range []Rows[float64]{x[0], y[0]} {
				a, g := r.Cases*s.In, r.Cases*s.Out
				both.A, both.G = append(both.A, r.A[t*a:(t+1)*a]...), append(both.G, r.G[t*g:(t+1)*g]...)
			}
		}
		return []Rows[float64]{both}
	}
	k.inverse = func(t testing.TB, avg *Averages[float64], d Damping) *mat.Dense {
		return turnedInverse(t, s, recurrentFisher(t, s, avg, d, steps, stationary))
	}
	return k
}

func uncorrelatedKind(name string, s Shape) kind {
	k := kindOf(name,
		func() Block[float32] { return NewUncorrelated[float32](s) },
		func() Block[float64] { return NewUncorrelated[float64](s) }, s.Abar()*s.Out)
	k.rows = func(src source, cases int) []Rows[float64] { return []Rows[float64]{layerRows(src, s, cases, 4)} }
	k.inverse = func(t testing.TB, avg *Averages[float64], d Damping) *mat.Dense {
		a := uncorrelatedA(s, avg.Moments[0])
		return turnedInverse(t, s, kronecker(factorsOf(s, flatOf(a), avg.Moments[1], d)))
	}
	return k
}

func elementwiseKind(name string, params, elements, fullBlock int) kind {
	k := kindOf(name,
		func() Block[float32] { return NewElementwise[float32](params, elements, fullBlock) },
		func() Block[float64] { return NewElementwise[float64](params, elements, fullBlock) },
		slices.Repeat([]int{elements}, params)...)
	k.rows = func(src source, cases int) (rows []Rows[float64]) {
		for range params {
			rows = append(rows, Rows[float64]{G: src.normals(cases * elements), Cases: cases})
		}
		return rows
	}
	k.inverse = func(t testing.TB, avg *Averages[float64], d Damping) *mat.Dense {
		return inverseOf(t, plusDiagonal(elementwiseFisher(params, elements, fullBlock, avg.Moments[0]), d.Whole()))
	}
	return k
}

func fullKind(name string, elements ...int) kind {
	k := kindOf(name, func() Block[float32] { return NewFull[float32](elements...) },
		func() Block[float64] { return NewFull[float64](elements...) }, elements...)
	k.rows = func(src source, cases int) (rows []Rows[float64]) {
		for _, n := range elements {
			rows = append(rows, Rows[float64]{G: src.normals(cases * n), Cases: cases})
		}
		return rows
	}
	k.inverse = func(t testing.TB, avg *Averages[float64], d Damping) *mat.Dense {
		n := 0
		for _, e := range elements {
			n += e
		}
		return inverseOf(t, plusDiagonal(matrixOf(avg.Moments[0], n), d.Whole()))
	}
	return k
}

func diagonalKind(name string, n, size int) kind {
	k := kindOf(name,
		func() Block[float32] { return NewDiagonal[float32](n, size) },
		func() Block[float64] { return NewDiagonal[float64](n, size) }, size)
	k.rows = func(src source, cases int) []Rows[float64] {
		return []Rows[float64]{{G: src.normals(cases * n), Cases: cases}}
	}
	k.inverse = func(t testing.TB, avg *Averages[float64], d Damping) *mat.Dense {
		all := slices.Repeat(avg.Moments[0], size/n)
		return inverseOf(t, plusDiagonal(matrixOf(all, size), d.Whole()))
	}
	return k
}

func identityKind() kind {
	k := kindOf("identity",
		func() Block[float32] { return NewIdentity[float32]() },
		func() Block[float64] { return NewIdentity[float64]() }, 5)
	k.rows = func(source, int) []Rows[float64] { return []Rows[float64]{{}} }
	return k
}

// kinds are all kinds of blocks.
func kinds() []kind {
	return []kind{
		kroneckerKind("kronecker", Shape{In: 4, Out: 3, Bias: true}),
		kroneckerKind("kronecker, out by in", Shape{In: 4, Out: 3, Bias: true, OutByIn: true}),
		kroneckerKind("diagonal A", Shape{In: 4, Out: 3, Bias: true, DiagonalA: true}),
		kroneckerKind("diagonal A, out by in", Shape{In: 4, Out: 3, DiagonalA: true, OutByIn: true}),
		kroneckerKind("diagonal G", Shape{In: 4, Out: 3, DiagonalG: true}),
		kroneckerKind("both diagonal", Shape{In: 4, Out: 3, Bias: true, DiagonalA: true, DiagonalG: true}),
		eigenKind("exact damping", Shape{In: 4, Out: 3, Bias: true}, false),
		eigenKind("exact damping, diagonal G, out by in", Shape{In: 4, Out: 3, DiagonalG: true, OutByIn: true}, false),
		eigenKind("EKFAC", Shape{In: 3, Out: 4, Bias: true, OutByIn: true}, true),
		eigenKind("EKFAC, diagonal A", Shape{In: 4, Out: 3, Bias: true, DiagonalA: true}, true),
		lookupKind(),
		patchKind(),
		tiedKind("tied", Shape{In: 4, Out: 3, Bias: true, Tied: true}),
		tiedKind("tied, diagonal A, out by in", Shape{In: 5, Out: 2, Tied: true, OutByIn: true, DiagonalA: true}),
		tiedKind("tied, both diagonal", Shape{In: 2, Out: 3, Bias: true, Tied: true, DiagonalA: true, DiagonalG: true}),
		chainKind(),
		recurrentKind("recurrent, symmetric", Shape{In: 3, Out: 3, Bias: true}, false),
		recurrentKind("recurrent, stationary", Shape{In: 3, Out: 2, OutByIn: true}, true),
		uncorrelatedKind("uncorrelated", Shape{In: 8, Out: 3, Channels: 2}),
		uncorrelatedKind("uncorrelated, bias, out by in", Shape{In: 6, Out: 3, Channels: 3, Bias: true, OutByIn: true}),
		elementwiseKind("elementwise, full", 1, 4, 4),
		elementwiseKind("elementwise, diagonal", 1, 5, 4),
		elementwiseKind("elementwise, pairs", 2, 3, 4),
		elementwiseKind("elementwise, pairs, full", 2, 3, 6),
		fullKind("full", 5),
		fullKind("full of two", 3, 4),
		diagonalKind("diagonal", 4, 4),
		diagonalKind("diagonal of a parameter with elements for each case", 3, 12),
		identityKind(),
	}
}

// eachKind runs f as a subtest for each kind.
func eachKind(t *testing.T, f func(t *testing.T, k kind)) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) { f(t, k) })
	}
}

// The inverse is that of the dense matrix, and V is not touched.
func TestInverseIsDenseInverse(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		for seed := range uint64(10) {
			s, b := newSource(seed), k.double()
			gamma := tikhonov(math.Pow(10, -2+3*s.Float64()))
			avg, v := seen(t, b, k.rows(s, 7)), k.vectors(s)
			u := applied(inverted(t, b, avg, gamma), v...)
			want := slices.Concat(v...)
			if k.inverse != nil {
				var product mat.VecDense
				product.MulVec(k.inverse(t, avg, gamma), mat.NewVecDense(len(want), slices.Clone(want)))
				want = product.RawVector().Data
			}
			checkNear(t, "direction", slices.Concat(u...), want, 1e-9)
		}
	})
}

// A model in float32 has the averages, the trace and the directions of one in float64, but for
// rounding.
func TestInFloat32(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newSource(3)
		rows, v := k.rows(s, 9), k.vectors(s)
		var narrow []Rows[float32]
		for i := range rows {
			r := rows[i]
			n := Rows[float32]{A: converted[float32](r.A), G: converted[float32](r.G)}
			n.Lookups, n.Cases, n.Steps, n.Patches = r.Lookups, r.Cases, r.Steps, r.Patches
			narrow = append(narrow, n)
		}
		b, d := k.single(), k.double()
		got, want := seen(t, b, narrow), seen(t, d, rows)
		for i, m := range want.Moments {
			checkNear(t, "moments", converted[float64](got.Moments[i]), m, 1e-5)
		}
		checkNear(t, "trace", []float64{b.Trace(got)}, []float64{d.Trace(want)}, 1e-5)
		var narrowV [][]float32
		for _, x := range v {
			narrowV = append(narrowV, converted[float32](x))
		}
		u := applied(inverted(t, b, got, tikhonov(0.5)), narrowV...)
		for i, x := range applied(inverted(t, d, want, tikhonov(0.5)), v...) {
			checkNear(t, "direction", converted[float64](u[i]), x, 1e-4)
		}
	})
}
