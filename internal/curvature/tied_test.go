package curvature

import (
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/gorgonia-kfac/kfac/internal/curvature/curvaturetest"
)

// waysOf are A_1, G_1, A_2 and G_2, the last with a homogeneous coordinate of zero if the layer has
// one.
func waysOf(s Shape, avg *Averages[float64]) (a1, g1, a2, g2 *mat.Dense) {
	m := avg.Moments
	g2 = mat.NewDense(s.Abar(), s.Abar(), nil)
	g2.Slice(0, s.In, 0, s.In).(*mat.Dense).Copy(matrixOf(m[3], s.In))
	return matrixOf(m[0], s.Abar()), matrixOf(m[1], s.Out), matrixOf(m[2], s.Out), g2
}

// tiedProduct is L and R by their definition, and the trace that their product is to be divided by.
func tiedProduct(s Shape, avg *Averages[float64]) (l, r *mat.Dense, trace float64) {
	a1, g1, a2, g2 := waysOf(s, avg)
	sum := func(alpha float64, x *mat.Dense, beta float64, y *mat.Dense) *mat.Dense {
		var ax, by mat.Dense
		ax.Scale(alpha, x)
		by.Scale(beta, y)
		ax.Add(&ax, &by)
		return &ax
	}
	l = sum(mat.Trace(g1), a1, mat.Trace(a2), g2)
	r = sum(mat.Trace(a1), g1, mat.Trace(g2), a2)
	return l, r, mat.Trace(a1)*mat.Trace(g1) + mat.Trace(a2)*mat.Trace(g2)
}

// everyPair are rows in which each input meets each gradient, so that they are independent.
func everyPair(s source, l Shape, inputs, gradients int) Rows[float64] {
	a, g := s.normals(inputs*l.In), s.normals(gradients*l.Out)
	r := Rows[float64]{Cases: inputs * gradients}
	for i := range inputs {
		for j := range gradients {
			r.A = append(r.A, a[i*l.In:(i+1)*l.In]...)
			r.G = append(r.G, g[j*l.Out:(j+1)*l.Out]...)
		}
	}
	return r
}

// denseFisher is the mean over cases of v v^T with v = vec(abar g^T).
func denseFisher(l Shape, r Rows[float64]) *mat.Dense {
	n, m := l.Abar(), l.Out
	abar := withOnes(r.A, l.In, l.Bias)
	f := mat.NewDense(n*m, n*m, nil)
	for k := range len(r.G) / m {
		var v mat.VecDense
		v.CloneFromVec(mat.NewVecDense(n*m, nil))
		for i := range n {
			for o := range m {
				v.SetVec(i*m+o, abar[k*n+i]*r.G[k*m+o])
			}
		}
		f.RankOne(f, 1/float64(r.Cases), &v, &v)
	}
	return f
}

// Of independent inputs and gradients, A (x) G is the Fisher matrix.
func TestKroneckerOfIndependentRowsIsExact(t *testing.T) {
	for seed := range uint64(10) {
		s := newSource(seed)
		l := drawShape(s, 4)
		r := everyPair(s, l, 5, 4)
		avg := seen[float64](t, NewKronecker[float64](l), []Rows[float64]{r})
		got := kronecker(matrixOf(avg.Moments[0], l.Abar()), matrixOf(avg.Moments[1], l.Out), 0, 0)
		checkNear(t, "F", flatOf(got), flatOf(denseFisher(l, r)), rounding)
	}
}

// turnedUse is F of the use as W^T for V of abar x out, given that for its own V of Out x In.
func turnedUse(l Shape, f *mat.Dense) *mat.Dense {
	n, m := l.Abar(), l.Out
	turned := mat.NewDense(n*m, n*m, nil)
	for i := range l.In {
		for o := range m {
			for j := range l.In {
				for p := range m {
					turned.Set(i*m+o, j*m+p, f.At(o*l.In+i, p*l.In+j))
				}
			}
		}
	}
	return turned
}

// The one Kronecker product has the partial traces of the sum of the two uses' Fisher matrices, and
// the block its trace.
func TestTiedKeepsPartialTraces(t *testing.T) {
	for seed := range uint64(20) {
		s := newSource(seed)
		l := drawShape(s, 4)
		l.DiagonalA, l.DiagonalG = seed%3 == 1, seed%5 == 1
		back := Shape{In: l.Out, Out: l.In}
		rows := []Rows[float64]{everyPair(s, l, 4, 3), everyPair(s, back, 5, 4)}
		b := NewTied[float64](l)
		avg := seen[float64](t, b, rows)
		var sum mat.Dense
		sum.Add(denseFisher(l, rows[0]), turnedUse(l, denseFisher(back, rows[1])))

		var of tiedSum[float64]
		of.l, of.r = make([]float64, len(avg.Moments[0])), make([]float64, len(avg.Moments[1]))
		b.sum(&of, avg)
		got := kronecker(matrixOf(of.l, l.Abar()), matrixOf(of.r, l.Out), 0, 0)
		gotLeft, gotRight := curvaturetest.PartialTraces(got, l.Abar(), l.Out)
		wantLeft, wantRight := curvaturetest.PartialTraces(&sum, l.Abar(), l.Out)
		if l.DiagonalA {
			wantLeft = matrixOf(diagonalOf(wantLeft), l.Abar())
		}
		if l.DiagonalG {
			wantRight = matrixOf(diagonalOf(wantRight), l.Out)
		}
		checkNear(t, "left", flatOf(gotLeft), flatOf(wantLeft), rounding)
		checkNear(t, "right", flatOf(gotRight), flatOf(wantRight), rounding)
		checkNear(t, "trace", []float64{b.Trace(avg)}, []float64{mat.Trace(&sum)}, rounding)
	}
}

func diagonalOf(m *mat.Dense) (d []float64) {
	for i := range m.RawMatrix().Rows {
		d = append(d, m.At(i, i))
	}
	return d
}

// Where one use has no gradients the block is the other's, and where neither has it is the damping.
func TestTiedOfOneUse(t *testing.T) {
	const gamma = tikhonov(0.3)
	s := newSource(2)
	l := Shape{In: 3, Out: 2, Bias: true}
	back := Shape{In: 2, Out: 3}
	first, second := everyPair(s, l, 4, 3), everyPair(s, back, 4, 3)
	v := s.normals(8)
	none := func(r Rows[float64]) Rows[float64] {
		r.G = make([]float64, len(r.G))
		return r
	}
	direction := func(rows ...Rows[float64]) []float64 {
		b := NewTied[float64](l)
		return applied(inverted[float64](t, b, seen[float64](t, b, rows), gamma), v)[0]
	}
	b := NewKronecker[float64](l)
	want := applied(inverted[float64](t, b, seen[float64](t, b, []Rows[float64]{first}), gamma), v)[0]
	checkNear(t, "the first", direction(first, none(second)), want, 1e-11)

	avg := seen[float64](t, NewTied[float64](l), []Rows[float64]{none(first), second})
	_, _, a2, g2 := waysOf(l, avg)
	dampA, dampG := gamma.Split(mat.Trace(g2), 4, mat.Trace(a2), 2)
	checkNear(t, "the second", direction(none(first), second), solved(t, kronecker(g2, a2, dampA, dampG), v), 1e-11)

	scaled := direction(none(first), none(second))
	for i := range scaled {
		scaled[i] *= float64(gamma * gamma)
	}
	checkNear(t, "none", scaled, v, rounding)
}
