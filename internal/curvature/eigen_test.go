package curvature

import (
	"fmt"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// update does an update as a training does, with an inverse from it, or with that of before.
func update(t testing.TB, b *Eigen[float64], rows []Rows[float64], ema float64, anew bool,
	now Inverse[float64]) Inverse[float64] {
	t.Helper()
	check(t, b.Observe(rows))
	avg, err := b.Average(ema)
	check(t, err)
	if anew {
		v := inverted[float64](t, b, avg, tikhonov(0.3))
		if now != nil {
			now.Release()
		}
		now = v
	}
	b.Keep(avg)
	b.Rebase(now, true)
	return now
}

// eigenRows draws rows of a layer in groups of positions of each case.
func eigenRows(s source, l Shape, cases, groups, positions int) []Rows[float64] {
	r := layerRows(s, l, cases, groups*positions)
	r.Groups, r.Steps = groups, 1
	return []Rows[float64]{r}
}

// denseOf is the mean over cases of vec(V) vec(V)^T, with V the sum of abar g^T over the rows of a
// case, of abar by out.
func denseOf(l Shape, r Rows[float64]) *mat.Dense {
	n, m := l.Abar(), l.Out
	a, rows := withOnes(r.A, l.In, l.Bias), len(r.G)/m
	f := mat.NewDense(n*m, n*m, nil)
	each := rows / (r.Groups * r.Cases)
	for c := range r.Cases {
		v := mat.NewVecDense(n*m, nil)
		for g := range r.Groups {
			for p := range each {
				row := (g*r.Cases+c)*each + p
				for i := range n {
					for j := range m {
						v.SetVec(i*m+j, v.AtVec(i*m+j)+a[row*n+i]*r.G[row*m+j])
					}
				}
			}
		}
		var outer mat.Dense
		outer.Outer(1/float64(r.Cases), v, v)
		f.Add(f, &outer)
	}
	return f
}

// basisOf is Q_A (x) Q_G.
func basisOf(e *eigenbasis[float64]) *mat.Dense {
	side := func(v *eigenvectors[float64]) *mat.Dense {
		if v.q == nil {
			return matrixOf(slices.Repeat([]float64{1}, v.n), v.n)
		}
		return mat.NewDense(v.n, v.n, v.q)
	}
	var q mat.Dense
	q.Kronecker(side(&e.a), side(&e.g))
	return &q
}

// eigenFisher is Q diag(S) Q^T.
func eigenFisher(e *eigenbasis[float64], s []float64) *mat.Dense {
	q := basisOf(e)
	var f mat.Dense
	f.Product(q, matrixOf(s, len(s)), q.T())
	return &f
}

// diagonalIn is the diagonal of Q^T F Q.
func diagonalIn(e *eigenbasis[float64], f *mat.Dense) (d []float64) {
	q := basisOf(e)
	var m mat.Dense
	m.Product(q.T(), f, q)
	for i := range m.RawMatrix().Rows {
		d = append(d, m.At(i, i))
	}
	return d
}

func frobenius(x, y mat.Matrix) float64 {
	var d mat.Dense
	d.Sub(x, y)
	return mat.Norm(&d, 2)
}

// S is the diagonal of the dense Fisher block in the basis, and EKFAC is never further from that
// block than K-FAC in the Frobenius norm: for layers used once and at several positions, with
// factors that are diagonal, and when several sweeps make the gradients.
func TestEKFACIsNearerThanKFAC(t *testing.T) {
	for seed := range uint64(60) {
		s := newSource(seed)
		l := drawShape(s, 5)
		l.DiagonalA, l.DiagonalG = s.IntN(4) == 0, s.IntN(4) == 0
		rows := eigenRows(s, l, s.between(1, 6), s.between(1, 3), s.between(1, 3))
		t.Run(fmt.Sprintf("%d %+v", seed, l), func(t *testing.T) {
			b := NewEigen[float64](l, true)
			v := update(t, b, rows, 0, true, nil)
			update(t, b, rows, 0, false, v)
			avg := b.Copy()
			fisher := denseOf(l, rows[0])
			checkNear(t, "S", avg.Moments[2], diagonalIn(b.inUse, fisher), 1e-10)
			kfac := kronecker(matrixOf(avg.Moments[0], l.Abar()), matrixOf(avg.Moments[1], l.Out), 0, 0)
			before, now := frobenius(kfac, fisher), frobenius(eigenFisher(b.inUse, avg.Moments[2]), fisher)
			if now > before+1e-12*mat.Norm(fisher, 2) {
				t.Errorf("%g from the Fisher block, K-FAC %g", now, before)
			}

			again := slices.Clone(rows)
			again[0].Again = true
			check(t, b.Observe(rows))
			check(t, b.Observe(again))
			twice, err := b.Average(0)
			check(t, err)
			for i, x := range avg.Moments[2] {
				avg.Moments[2][i] = 2 * x
			}
			checkNear(t, "S of two sweeps", twice.Moments[2], avg.Moments[2], 1e-12)
		})
	}
}

// Where cases can't be told apart, rows count as independent ones.
func TestEKFACWithoutGroups(t *testing.T) {
	s := newSource(3)
	l := Shape{In: 3, Out: 2, Bias: true}
	rows := eigenRows(s, l, 4, 1, 3)
	b := NewEigen[float64](l, true)
	v := update(t, b, rows, 0, true, nil)
	rows[0].Groups = 0
	update(t, b, rows, 0, false, v)
	each := rows[0]
	each.Groups, each.Cases = 1, 12
	fisher := denseOf(l, each)
	fisher.Scale(3, fisher)
	checkNear(t, "S", b.Copy().Moments[2], diagonalIn(b.inUse, fisher), 1e-10)
}

// Where the basis changes, S is the diagonal of the matrix so far in the new one, and its sum, the
// trace, stays. The inverse of the step that changes it is made from that.
func TestEKFACInAnotherBasis(t *testing.T) {
	for seed := range uint64(20) {
		s := newSource(seed)
		l := drawShape(s, 5)
		l.DiagonalA = s.IntN(4) == 0
		b := NewEigen[float64](l, true)
		v := update(t, b, eigenRows(s, l, 5, 1, 1), 0, true, nil)
		v = update(t, b, eigenRows(s, l, 5, 1, 1), 0.5, false, v)
		rows := eigenRows(s, l, 5, 1, 1)
		check(t, b.Observe(rows))
		avg, err := b.Average(0.7)
		check(t, err)
		dense := eigenFisher(b.inUse, avg.Moments[2])
		fresh := inverted[float64](t, b, avg, tikhonov(0.4))
		grad := s.normals(l.Abar() * l.Out)
		u := applied(fresh, grad)
		want := diagonalIn(fresh.(*eigenInverse[float64]).basis, dense)
		inNew := eigenFisher(fresh.(*eigenInverse[float64]).basis, want)
		checkNear(t, "direction", abarByOut(l, u[0]),
			solved(t, plusDiagonal(inNew, 0.4*0.4), abarByOut(l, grad)), 1e-9)
		v.Release()
		b.Keep(avg)
		b.Rebase(fresh, true)
		checkNear(t, "S", b.Copy().Moments[2], want, 1e-10)
		checkNear(t, "trace", []float64{sumOf(b.Copy().Moments[2])}, []float64{mat.Trace(dense)}, 1e-10)
	}
}

func sumOf(x []float64) (sum float64) {
	for _, v := range x {
		sum += v
	}
	return sum
}

// All inverses from the same averages share one basis, which is computed once.
func TestInversesShareTheirBasis(t *testing.T) {
	s := newSource(5)
	l := Shape{In: 4, Out: 3, Bias: true}
	b := NewEigen[float64](l, true)
	avg := seen[float64](t, b, eigenRows(s, l, 6, 1, 1))
	first := inverted[float64](t, b, avg, tikhonov(0.1))
	making := b.Invert(avg, tikhonov(0.5))
	if len(making.First)+len(making.Then) > 0 {
		t.Error("the basis is computed again")
	}
	second, err := making.Inverse()
	check(t, err)
	other := NewEigen[float64](l, true)
	alone := inverted[float64](t, other, &Averages[float64]{Updates: 1, Moments: avg.Moments}, tikhonov(0.5))
	v := s.normals(15)
	checkNear(t, "direction", applied(second, v)[0], applied(alone, v)[0], 0)
	first.Release()
	second.Release()
	b.Release(avg)
	if len(b.bases.free) != 1 || len(b.inverses.free) != 2 {
		t.Errorf("%d bases and %d inverses are free, want 1 and 2", len(b.bases.free), len(b.inverses.free))
	}
}
