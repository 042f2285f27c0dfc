package curvature

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// noted is a Damping that notes what it was asked, and answers with other numbers each time.
type noted struct {
	gave []float64
	rows []int
}

func (d *noted) Split(traceA float64, n int, traceG float64, m int) (dampA, dampG float64) {
	x := 0.25 + float64(len(d.gave))/8
	d.gave, d.rows = append(d.gave, x, 2*x), append(d.rows, n, m)
	return x, 2 * x
}

func (d *noted) Whole() float64 {
	d.gave = append(d.gave, 0.75)
	return 0.75
}

// dense is a factor as a matrix.
func (f Factor[T]) dense() *mat.Dense {
	m := mat.NewDense(f.N, f.N, nil)
	for i := range f.N {
		from := i / f.Width * f.Width
		for j := range f.Width {
			m.Set(i, from+j, float64(f.Data[i*f.Width+j]))
		}
	}
	return m
}

// The factors are those that the trace and the inverse are made from, and the inverse says what was
// added to them.
func TestFactorsAndDampings(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s, b, d := newSource(5), k.double(), &noted{}
		b.Keep(seen(t, b, k.rows(s, 9)))
		avg := b.Copy()
		inverse := inverted(t, b, avg, d)
		factors, dampings := b.Factors(), inverse.Dampings()
		if _, eigen := b.(*Eigen[float64]); eigen {
			if len(factors) != 2 || len(dampings) != 0 || len(d.gave) != 1 {
				t.Errorf("dampings %v of %d factors; want none of 2", dampings, len(factors))
			}
			return
		}
		if len(factors) != len(dampings) || !slices.Equal(dampings, d.gave) {
			t.Fatalf("dampings %v of %d factors; want %v", dampings, len(factors), d.gave)
		}
		var trace float64
		switch {
		case len(factors) == 1:
			trace = factors[0].Trace
		default:
			for i := 0; i < len(factors); i += 2 {
				trace += factors[i].Trace * factors[i+1].Trace
				if rows := []int{factors[i].Rows, factors[i+1].Rows}; !slices.Equal(rows, d.rows[i:i+2]) {
					t.Errorf("%d rows, want %d", rows, d.rows[i:i+2])
				}
			}
		}
		if want := b.Trace(avg); !(math.Abs(trace-want) <= rounding*want) {
			t.Errorf("trace %g, want %g", trace, want)
		}
		for i, f := range factors {
			if got := mat.Trace(f.dense()); f.Rows == f.N && !(math.Abs(got-f.Trace) <= rounding*got) {
				t.Errorf("trace of factor %d: %g, want %g", i, f.Trace, got)
			}
		}
		_, chain := b.(*Recurrent[float64])
		if len(factors) != 2 || chain || factors[0].N != factors[0].Rows {
			return
		}
		v := k.vectors(s)
		var u mat.VecDense
		shape := shapeOf(b)
		product := kronecker(factors[0].dense(), factors[1].dense(), dampings[0], dampings[1])
		u.MulVec(turnedInverse(t, shape, product), mat.NewVecDense(len(v[0]), slices.Clone(v[0])))
		checkNear(t, "direction", slices.Concat(applied(inverse, v...)...), u.RawVector().Data, 1e-9)
	})
}

func shapeOf(b Block[float64]) Shape {
	switch b := b.(type) {
	case *Kronecker[float64]:
		return b.factors.shape
	case *Tied[float64]:
		return b.ways[0].shape
	}
	panic("no layer")
}

// Damping that was raised is told as it is in force.
func TestDampingIsRaised(t *testing.T) {
	b := NewKronecker[float64](Shape{In: 2, Out: 1})
	avg := b.Copy()
	copy(avg.Moments[0], []float64{1, 0, 0, -0.5})
	copy(avg.Moments[1], []float64{1})
	making := b.Invert(avg, fixed{0.1, 0.2})
	making.Run()
	inverse, err := making.Inverse()
	check(t, err)
	if got := inverse.Dampings(); !slices.Equal(got, []float64{1, 0.2}) {
		t.Errorf("dampings %v, want 1 and 0.2", got)
	}
}

func TestEigenvaluesOfBlocks(t *testing.T) {
	s := newSource(8)
	a, b := []float64{3, 1, 0.5}, []float64{7, 2, 0.01}
	data := slices.Concat(symmetric(s, a...), symmetric(s, b...))
	f := Factor[float64]{N: 6, Width: 3, Data: data}
	got, err := f.Eigenvalues()
	check(t, err)
	checkNear(t, "eigenvalues", got, []float64{7, 3, 2, 1, 0.5, 0.01}, rounding)
	got, err = Factor[float64]{N: 3, Width: 1, Data: b}.Eigenvalues()
	check(t, err)
	checkNear(t, "eigenvalues", got, b, 0)
}

// Extremes are exact where Krylov's space is small: up to 32 rows, or up to 32 different
// eigenvalues. Otherwise they lie within the spectrum.
func TestExtremes(t *testing.T) {
	s := newSource(9)
	few := make([]float64, 90)
	for i := range few {
		few[i] = []float64{1e-3, 0.2, 1, 5}[i%4]
	}
	spread := make([]float64, 150)
	for i := range spread {
		spread[i] = math.Pow(10, -4*s.Float64())
	}
	for name, c := range map[string]struct {
		values []float64
		exact  bool
	}{
		"few rows": {spread[:32], true}, "few values": {few, true}, "many": {spread, false},
		"zero": {make([]float64, 50), true},
	} {
		t.Run(name, func(t *testing.T) {
			n := len(c.values)
			f := Factor[float64]{N: n, Width: n, Data: symmetric(s, c.values...)}
			largest, smallest := f.Extremes()
			most, least := slices.Max(c.values), slices.Min(c.values)
			if c.exact {
				checkNear(t, "extremes", []float64{largest - smallest, largest}, []float64{most - least, most}, 1e-10)
				return
			}
			if !(largest <= most*(1+rounding) && largest > 0.99*most) {
				t.Errorf("largest %g, want %g", largest, most)
			}
			if !(smallest >= least-rounding && smallest < 100*least) {
				t.Errorf("smallest %g, want %g", smallest, least)
			}
			if a, b := f.Extremes(); a != largest || b != smallest {
				t.Error("other numbers the second time")
			}
		})
	}
	bad := Factor[float64]{N: 40, Width: 40, Data: make([]float64, 1600)}
	bad.Data[7] = math.NaN()
	if a, b := bad.Extremes(); !math.IsNaN(a) || !math.IsNaN(b) {
		t.Errorf("%g and %g of what is not finite", a, b)
	}
}
