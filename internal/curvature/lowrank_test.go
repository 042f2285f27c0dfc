package curvature

import (
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// factored is a layer that has observed rows, errors E, and its gradient Abar^T E as the layer
// stores it.
func factored(t testing.TB, s source, l Shape, positions int) (b *Kronecker[float64], errors, grad []float64) {
	t.Helper()
	b = NewKronecker[float64](l)
	r := layerRows(s, l, positions, 1)
	check(t, b.Observe([]Rows[float64]{r}))
	errors = s.normals(positions * l.Out)
	grad = momentOf(withOnes(r.A, l.In, l.Bias), l.Abar(), errors, l.Out, 1)
	if l.OutByIn {
		grad = flatOf(mat.NewDense(l.Abar(), l.Out, grad).T())
	}
	return b, errors, grad
}

// The inverses applied to inputs and errors give what they give applied to their product.
func TestLowRankForm(t *testing.T) {
	for seed := range uint64(40) {
		s := newSource(seed)
		l := drawShape(s, 9)
		b, errors, grad := factored(t, s, l, s.between(1, 6))
		var low LowRank[float64]
		b.LowRank(&low, errors)
		if !low.Matches(grad, 1e-10, s.Rand) {
			t.Error("the gradient is not taken for the product of inputs and errors")
		}
		avg, err := b.Average(0.9)
		check(t, err)
		inv := inverted[float64](t, b, avg, tikhonov(0.3)).(*KroneckerInverse[float64])
		got := make([]float64, len(grad))
		inv.ApplyLowRank(got, &low)
		checkNear(t, "direction", got, applied(inv, grad)[0], 1e-10)
	}
}

// A gradient that has been changed, however little or at however few places, is found out.
func TestMatchesFindsChangedGradients(t *testing.T) {
	for seed := range uint64(40) {
		s := newSource(seed)
		l := Shape{In: 20, Out: 25, Bias: seed%2 == 0, OutByIn: seed%4 < 2}
		b, errors, grad := factored(t, s, l, 4)
		var low LowRank[float64]
		b.LowRank(&low, errors)
		for name, change := range map[string]func(g []float64){
			"longer by 1e-8": func(g []float64) {
				for i := range g {
					g[i] *= 1 + 1e-8
				}
			},
			"one element": func(g []float64) { g[s.IntN(len(g))] += 1e-4 },
			"clipped": func(g []float64) {
				for i := range g {
					g[i] = max(-1, min(1, g[i]))
				}
			},
			"decayed": func(g []float64) {
				for i, w := range s.normals(len(g)) {
					g[i] += 1e-6 * w
				}
			},
			"zero":                               func(g []float64) { clear(g) },
			"one element whose square overflows": func(g []float64) { g[s.IntN(len(g))] = 1e200 },
			"all elements so": func(g []float64) {
				for i := range g {
					g[i] = 1e200
				}
			},
			"one element near the largest number": func(g []float64) { g[s.IntN(len(g))] = -1.7e308 },
		} {
			changed := slices.Clone(grad)
			change(changed)
			if low.Matches(changed, 1e-10, s.Rand) {
				t.Errorf("%s: not found", name)
			}
		}
		if !low.Matches(grad, 1e-10, s.Rand) {
			t.Error("the gradient itself does not match")
		}
	}
}

// The savings are those of the products' sizes, and none where the factors are not those of the
// inputs.
func TestLowRankSavings(t *testing.T) {
	s := newSource(1)
	for _, test := range []struct {
		l           Shape
		rows, saved int
	}{
		{Shape{In: 9, Out: 8, Bias: true}, 2, 80*18 - 2*(100+64+80)},
		{Shape{In: 9, Out: 8}, 20, 72*17 - 20*(81+64+72)},
		{Shape{In: 9, Out: 8, DiagonalA: true}, 2, 0},
		{Shape{In: 9, Out: 8, DiagonalG: true}, 2, 0},
	} {
		b, _, _ := factored(t, s, test.l, test.rows)
		if saved, positions := b.LowRankSavings(); saved != test.saved || positions != test.rows {
			t.Errorf("%+v: %d saved of %d positions, want %d of %d", test.l, saved, positions, test.saved, test.rows)
		}
	}
	k := patchKind()
	b := k.double().(*Kronecker[float64])
	check(t, b.Observe(k.rows(s, 1)))
	if saved, _ := b.LowRankSavings(); saved != 0 {
		t.Errorf("%d saved for patches whose sums took a shortcut", saved)
	}
}
