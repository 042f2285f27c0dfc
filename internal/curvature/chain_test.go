package curvature

import (
	"errors"
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// chainInverseOf is the matrix whose inverse agrees with the Kronecker products on the tridiagonal
// and which is zero outside, from the inverses of the joint blocks of neighbours less those of what
// they share; for V as the layers store it.
func chainInverseOf(t testing.TB, shapes []Shape, avg *Averages[float64], d Damping) *mat.Dense {
	n, m := len(shapes), avg.Moments
	at := []int{0}
	var products []*mat.Dense
	for i, s := range shapes {
		at = append(at, at[i]+s.Abar()*s.Out)
		products = append(products, kronecker(factorsOf(s, m[2*i], m[2*i+1], d)))
	}
	all := mat.NewDense(at[n], at[n], nil)
	add := func(alpha float64, from, to int, block *mat.Dense) {
		inv := inverseOf(t, block)
		inv.Scale(alpha, inv)
		part := all.Slice(at[from], at[to], at[from], at[to]).(*mat.Dense)
		part.Add(part, inv)
	}
	for i := range n - 1 {
		s, next := shapes[i], shapes[i+1]
		size := at[i+2] - at[i]
		joint, cut := mat.NewDense(size, size, nil), at[i+1]-at[i]
		var cross mat.Dense
		cross.Kronecker(mat.NewDense(s.Abar(), next.Abar(), m[2*(n+i)]), mat.NewDense(s.Out, next.Out, m[2*(n+i)+1]))
		joint.Slice(0, cut, 0, cut).(*mat.Dense).Copy(products[i])
		joint.Slice(cut, size, cut, size).(*mat.Dense).Copy(products[i+1])
		joint.Slice(0, cut, cut, size).(*mat.Dense).Copy(&cross)
		joint.Slice(cut, size, 0, cut).(*mat.Dense).Copy(cross.T())
		add(1, i, i+2, joint)
		if i > 0 {
			add(-1, i, i+1, products[i])
		}
	}
	return storedAs(shapes, at, all)
}

// storedAs is a matrix for V of abar x out for V as the layers store it.
func storedAs(shapes []Shape, offsets []int, m *mat.Dense) *mat.Dense {
	var from []int
	for i, s := range shapes {
		for k := range s.Abar() * s.Out {
			if s.OutByIn {
				k = k%s.Abar()*s.Out + k/s.Abar()
			}
			from = append(from, offsets[i]+k)
		}
	}
	stored := mat.NewDense(len(from), len(from), nil)
	for i, r := range from {
		for j, c := range from {
			stored.Set(i, j, m.At(r, c))
		}
	}
	return stored
}

// The moments are those of the rows: factors, and behind them what neighbours have in common.
func TestChainMoments(t *testing.T) {
	const cases = 6
	s := newSource(1)
	shapes := []Shape{{In: 3, Out: 2, Bias: true}, {In: 2, Out: 4, OutByIn: true}, {In: 4, Out: 1, Bias: true}}
	var rows []Rows[float64]
	for _, l := range shapes {
		rows = append(rows, layerRows(s, l, cases, 1))
	}
	got := seen[float64](t, NewChain[float64](shapes), rows).Moments
	moment := func(i, j int) (a, g []float64) {
		x, y := shapes[i], shapes[j]
		abarX, abarY := withOnes(rows[i].A, x.In, x.Bias), withOnes(rows[j].A, y.In, y.Bias)
		return momentOf(abarX, x.Abar(), abarY, y.Abar(), cases), momentOf(rows[i].G, x.Out, rows[j].G, y.Out, cases)
	}
	var want [][]float64
	for _, pair := range [][2]int{{0, 0}, {1, 1}, {2, 2}, {0, 1}, {1, 2}} {
		a, g := moment(pair[0], pair[1])
		want = append(want, a, g)
	}
	if len(got) != len(want) {
		t.Fatalf("%d moments, want %d", len(got), len(want))
	}
	for i := range want {
		checkNear(t, "moment", got[i], want[i], rounding)
	}
}

// An overflow of a moment of two layers is an error of the first that says so, when the moment is
// observed and when it is averaged.
func TestChainCrossMomentsNotFinite(t *testing.T) {
	shapes := []Shape{{In: 1, Out: 1}, {In: 1, Out: 1}, {In: 1, Out: 1}}
	b := NewChain[float64](shapes)
	rows := func(last float64) (r []Rows[float64]) {
		for range shapes {
			r = append(r, Rows[float64]{A: []float64{1}, G: []float64{1}, Cases: 1})
		}
		r[2].G[0] = last
		return r
	}
	check(t, b.Observe(rows(1)))
	b.Update(0.9)
	b.current.Moments[8][0] = math.Inf(1)
	check(t, b.Observe(rows(1)))
	_, err := b.Average(0.9)
	var e *Error
	const op = "averages of its cross moments"
	if !errors.As(err, &e) || !errors.Is(err, ErrNotFinite) || e.Layer != 1 || !e.Next || e.Op != op {
		t.Errorf("error %#v, want one of the averages of cross moments of layers 1 and 2", err)
	}
	if !errors.As(b.Observe(rows(1e200)), &e) || e.Layer != 2 || e.Next || e.Op != opMoments {
		t.Errorf("error %#v, want one of the moments of layer 2", e)
	}
}
