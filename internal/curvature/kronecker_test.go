package curvature

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// randomAverages are of factors that are well conditioned.
func randomAverages(s source, l Shape) *Averages[float64] {
	return averagesOf(positive(s, l.Abar()), positive(s, l.Out))
}

// The direction solves the explicit Kronecker system, for weights stored in x out and out x in,
// with a bias and without.
func TestDirectionSolvesKroneckerSystem(t *testing.T) {
	for seed := range uint64(100) {
		s := newSource(seed)
		l := drawShape(s, 6)
		gamma := tikhonov(math.Pow(10, 5*s.Float64()-3))
		b, avg := NewKronecker[float64](l), randomAverages(s, l)
		v := s.normals(l.Abar() * l.Out)
		u := applied(inverted[float64](t, b, avg, gamma), v)[0]
		want := solved(t, kronecker(factorsOf(l, avg.Moments[0], avg.Moments[1], gamma)), abarByOut(l, v))
		checkNear(t, "direction", abarByOut(l, u), want, 1e-11)
	}
}

// Moving a constant from one factor to the other changes nothing, since pi moves along.
func TestDirectionIsIndependentOfSplit(t *testing.T) {
	s := newSource(1)
	l := Shape{In: 4, Out: 3, Bias: true}
	b, avg := NewKronecker[float64](l), randomAverages(s, l)
	v := s.normals(15)
	want := applied(inverted[float64](t, b, avg, tikhonov(0.2)), v)[0]
	for _, c := range []float64{1e-6, 0.3, 50, 1e9} {
		scaled := averagesOf(slices.Clone(avg.Moments[0]), slices.Clone(avg.Moments[1]))
		for i := range scaled.Moments[0] {
			scaled.Moments[0][i] *= c
		}
		for i := range scaled.Moments[1] {
			scaled.Moments[1][i] /= c
		}
		got := applied(inverted[float64](t, b, scaled, tikhonov(0.2)), v)[0]
		checkNear(t, fmt.Sprint("c = ", c), got, want, rounding)
	}
}

// Identity factors and lambda = 1/2 leave 1 / (1 + sqrt(1/2))^2 of the gradient.
func TestDirectionGolden(t *testing.T) {
	s := newSource(2)
	l := Shape{In: 3, Out: 2, Bias: true, OutByIn: true}
	unit := func(n int) []float64 { return flatOf(plusDiagonal(mat.NewDense(n, n, nil), 1)) }
	v := s.normals(8)
	inv := inverted[float64](t, NewKronecker[float64](l), averagesOf(unit(4), unit(2)), tikhonov(math.Sqrt(0.5)))
	want := slices.Clone(v)
	for i := range want {
		want[i] *= 0.34314575050761985
	}
	checkNear(t, "direction", applied(inv, v)[0], want, rounding)
}

// A layer that is dead on one side or on both is preconditioned by what is left, with gamma added
// to each factor.
func TestZeroFactors(t *testing.T) {
	const gamma = 0.1
	l := Shape{In: 4, Out: 3}
	for name, zero := range map[string][]int{"zero inputs": {0}, "zero gradients": {1}, "both": {0, 1}} {
		s := newSource(3)
		avg := randomAverages(s, l)
		for _, side := range zero {
			clear(avg.Moments[side])
		}
		v := s.normals(12)
		u := applied(inverted[float64](t, NewKronecker[float64](l), avg, tikhonov(gamma)), v)[0]
		want := solved(t, kronecker(matrixOf(avg.Moments[0], 4), matrixOf(avg.Moments[1], 3), gamma, gamma), v)
		checkNear(t, name, u, want, rounding)
	}
}

// A trace is that of the dense block without damping; of a chain, that of its diagonal blocks.
func TestTrace(t *testing.T) {
	for _, k := range kinds() {
		s, b := newSource(4), k.double()
		avg := seen(t, b, k.rows(s, 5))
		var want float64
		switch b := b.(type) {
		case *Kronecker[float64]:
			l := b.factors.shape
			want = mat.Trace(kronecker(matrixOf(avg.Moments[0], l.Abar()), matrixOf(avg.Moments[1], l.Out), 0, 0))
		case *Chain[float64]:
			for i, f := range b.layers {
				a, g := matrixOf(avg.Moments[2*i], f.shape.Abar()), matrixOf(avg.Moments[2*i+1], f.shape.Out)
				want += mat.Trace(a) * mat.Trace(g)
			}
		case *Recurrent[float64]:
			l := b.factors.shape
			want = mat.Trace(matrixOf(avg.Moments[0], l.Abar())) * mat.Trace(matrixOf(avg.Moments[1], l.Out))
		default:
			continue // in the tests of its kind
		}
		checkNear(t, k.name, []float64{b.Trace(avg)}, []float64{want}, rounding)
	}
}

// Diagonal factors are the diagonals of whole ones.
func TestDiagonalFactors(t *testing.T) {
	for seed := range uint64(20) {
		s := newSource(seed)
		l := drawShape(s, 5)
		rows := []Rows[float64]{layerRows(s, l, 3, 2)}
		whole := seen[float64](t, NewKronecker[float64](l), rows).Moments
		d := l
		d.DiagonalA, d.DiagonalG = seed%3 != 0, seed%3 != 1
		got := seen[float64](t, NewKronecker[float64](d), rows).Moments
		want := [][]float64{whole[0], whole[1]}
		if d.DiagonalA {
			want[0] = diagonalOf(matrixOf(whole[0], l.Abar()))
		}
		if d.DiagonalG {
			want[1] = diagonalOf(matrixOf(whole[1], l.Out))
		}
		checkNear(t, "A", got[0], want[0], rounding)
		checkNear(t, "G", got[1], want[1], rounding)
	}
}

// A lookup is the product with one-hot rows: the same block from a diagonal A in place of a whole
// one, and the same direction. Some rows of a run may be lookups, and others not.
func TestLookupsAreOneHotRows(t *testing.T) {
	const in, cases = 6, 5
	for _, some := range []int{0, 2} { // cases that are not lookups
		for _, outByIn := range []bool{false, true} {
			s := newSource(5)
			l := Shape{In: in, Out: 3, OutByIn: outByIn}
			looked, product := layerRows(s, l, cases, 1), Rows[float64]{Cases: cases}
			product.A, product.G = make([]float64, cases*in), looked.G
			looked.A = nil
			frequencies := make([]float64, in)
			for k := range cases {
				id := s.IntN(in - 1) // the last does not occur
				product.A[k*in+id] = 1
				frequencies[id] += 1.0 / cases
				if k < some {
					looked.A = append(looked.A, product.A[k*in:(k+1)*in]...)
				} else {
					looked.Lookups = append(looked.Lookups, id)
				}
			}
			d := l
			d.DiagonalA = true
			b, whole := NewKronecker[float64](d), NewKronecker[float64](l)
			got, want := seen[float64](t, b, []Rows[float64]{looked}), seen[float64](t, whole, []Rows[float64]{product})
			checkNear(t, "A", got.Moments[0], frequencies, rounding)
			checkNear(t, "A as a matrix", flatOf(matrixOf(got.Moments[0], in)), want.Moments[0], rounding)
			v := s.normals(in * 3)
			u := applied(inverted[float64](t, b, got, tikhonov(0.2)), v)[0]
			checkNear(t, "direction", u, applied(inverted[float64](t, whole, want, tikhonov(0.2)), v)[0], 1e-10)
		}
	}
}

// Rows of V that are zero, as those of words that do not occur, are zero in U, in every bit.
func TestZeroRowsStayZero(t *testing.T) {
	const in, out = 40, 20
	s := newSource(6)
	b := NewKronecker[float64](Shape{In: in, Out: out, DiagonalA: true})
	avg := averagesOf(positive(s, in)[:in], positive(s, out))
	for i := range avg.Moments[0] {
		avg.Moments[0][i] = math.Abs(avg.Moments[0][i])
	}
	inv := inverted[float64](t, b, avg, tikhonov(0.3))
	for _, occur := range []float64{0, 0.3, 1} {
		v := s.normals(in * out)
		for i := range in {
			if s.Float64() >= occur {
				clear(v[i*out : (i+1)*out])
			}
		}
		u := applied(inv, v)[0]
		l := Shape{In: in, Out: out}
		want := solved(t, kronecker(factorsOf(l, avg.Moments[0], avg.Moments[1], tikhonov(0.3))), v)
		checkNear(t, fmt.Sprint("direction of ", occur), u, want, 1e-10)
		for i := range u {
			if v[i] == 0 && u[i] != 0 {
				t.Fatal("a row is not zero")
			}
		}
	}
}

func TestShape(t *testing.T) {
	for _, test := range []struct {
		s    Shape
		abar int
		ops  float64
	}{
		{Shape{In: 4, Out: 3, Bias: true}, 5, 125 + 27},
		{Shape{In: 4, Out: 3}, 4, 64 + 27},
		{Shape{In: 4, Out: 3, DiagonalA: true}, 4, 27},
		{Shape{In: 4, Out: 3, DiagonalG: true}, 4, 64},
		{Shape{In: 18, Out: 3, Bias: true, Channels: 2}, 19, 27 + 27},
	} {
		if test.s.Abar() != test.abar || test.s.InverseOperations() != test.ops {
			t.Errorf("%+v: abar %d, %g operations; want %d, %g",
				test.s, test.s.Abar(), test.s.InverseOperations(), test.abar, test.ops)
		}
	}
}
