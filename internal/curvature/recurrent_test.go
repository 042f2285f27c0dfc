package curvature

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/gorgonia-kfac/kfac/internal/curvature/curvaturetest"
)

// recurrentFisher is the dense Fisher matrix, for V of abar x out, of the linear Gaussian chain
// that damped moments define.
func recurrentFisher(t testing.TB, s Shape, avg *Averages[float64], d Damping, steps int, stationary bool) *mat.Dense {
	m := avg.Moments
	lagA, lagG := matrixOf(m[2], s.Abar()), matrixOf(m[3], s.Out)
	if stationary {
		steps = 0
	} else {
		lagA, lagG = curvaturetest.SymmetricPart(lagA), curvaturetest.SymmetricPart(lagG)
	}
	var lag mat.Dense
	lag.Kronecker(lagA, lagG)
	fisher, err := curvaturetest.ChainFisher(kronecker(factorsOf(s, m[0], m[1], d)), &lag, steps)
	check(t, err)
	return fisher
}

// The lag moments pair each time step with the one before it, case by case, with the divisors of
// the factors.
func TestLagMoments(t *testing.T) {
	const steps, cases = 4, 5
	for _, s := range []Shape{{In: 2, Out: 3, Bias: true}, {In: 3, Out: 1, OutByIn: true}} {
		r := layerRows(newSource(2), s, cases, steps)
		got := seen[float64](t, NewRecurrent[float64](s, false), []Rows[float64]{r}).Moments
		abar, n, a, g := withOnes(r.A, s.In, s.Bias), s.Abar(), cases*s.Abar(), cases*s.Out
		checkNear(t, "A", got[0], momentOf(abar, n, abar, n, cases*steps), rounding)
		checkNear(t, "G", got[1], momentOf(r.G, s.Out, r.G, s.Out, cases), rounding)
		checkNear(t, "A'", got[2], momentOf(abar[a:], n, abar[:len(abar)-a], n, cases*steps), rounding)
		checkNear(t, "G'", got[3], momentOf(r.G[g:], s.Out, r.G[:len(r.G)-g], s.Out, cases), rounding)
	}
}

// The direction solves the dense system of the chain that the moments define, for the number of
// steps observed last.
func TestRecurrentDirectionSolvesChain(t *testing.T) {
	const gamma = tikhonov(0.3)
	for _, stationary := range []bool{false, true} {
		for _, s := range []Shape{{In: 2, Out: 3, Bias: true}, {In: 3, Out: 2, OutByIn: true}} {
			b, src := NewRecurrent[float64](s, stationary), newSource(3)
			for _, steps := range []int{2, 6, 1, 3} {
				avg := seen[float64](t, b, []Rows[float64]{layerRows(src, s, 5, steps)})
				v := src.normals(s.Abar() * s.Out)
				u := applied(inverted[float64](t, b, avg, gamma), v)[0]
				want := solved(t, recurrentFisher(t, s, avg, gamma, steps, stationary), abarByOut(s, v))
				checkNear(t, fmt.Sprint("stationary: ", stationary, ", steps: ", steps), abarByOut(s, u), want, 1e-9)
				b.Keep(avg)
			}
		}
	}
}

// Without any correlation between the steps both are the independent approximation.
func TestUncorrelatedSteps(t *testing.T) {
	const gamma = tikhonov(0.1)
	s := Shape{In: 3, Out: 2, Bias: true}
	for _, stationary := range []bool{false, true} {
		b, src := NewRecurrent[float64](s, stationary), newSource(4)
		avg := seen[float64](t, b, []Rows[float64]{layerRows(src, s, 5, 4)})
		clear(avg.Moments[2])
		v := src.normals(8)
		want := solved(t, kronecker(factorsOf(s, avg.Moments[0], avg.Moments[1], gamma)), v)
		checkNear(t, "direction", applied(inverted[float64](t, b, avg, gamma), v)[0], want, rounding)
	}
}

// An inverse goes on with the number of steps that it was made for.
func TestRecurrentInverseKeepsItsSteps(t *testing.T) {
	s := Shape{In: 2, Out: 2}
	b, src := NewRecurrent[float64](s, false), newSource(5)
	avg, v := seen[float64](t, b, []Rows[float64]{layerRows(src, s, 5, 3)}), src.normals(4)
	job := b.Invert(avg, tikhonov(0.2))
	check(t, b.Observe([]Rows[float64]{layerRows(src, s, 5, 9)}))
	job.Run()
	inv, err := job.Inverse()
	check(t, err)
	want := solved(t, recurrentFisher(t, s, avg, tikhonov(0.2), 3, false), v)
	checkNear(t, "direction", applied(inv, v)[0], want, 1e-9)
}
