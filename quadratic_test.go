package kfac

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
)

// directionsOf fills dir and velocity of every parameter with random numbers and returns them in one vector each.
func directionsOf(n *network, c *conductor[float64]) (u, v []float64) {
	for _, p := range c.order {
		p.given = true
		copy(p.dir, n.sketch.normals(len(p.dir)))
		copy(p.velocity, n.sketch.normals(len(p.velocity)))
		u, v = append(u, p.dir...), append(v, p.velocity...)
	}
	return u, v
}

func quadraticForm(m mat.Matrix, u, v []float64) float64 {
	return mat.Inner(mat.NewVecDense(len(u), u), m, mat.NewVecDense(len(v), v))
}

// TestExactFisherProducts: u^T F v by forward mode is that of the dense Fisher matrix, whole and of some cases.
func TestExactFisherProducts(t *testing.T) {
	for name, loss := range map[string]likelihood{"gaussian": squares(0.7), "bernoulli": binary, "categorical": classes} {
		t.Run(name, func(t *testing.T) {
			n := mlp{widths: []int{4, 5, 3}, cases: 6, unit: gorgonia.Tanh, loss: loss}.build(3)
			c := attach(t, n)
			u, v := directionsOf(n, c)
			perCase := jacobians(t, c)
			check(t, c.quadratic.prepare(nil))
			check(t, c.quadratic.along(proposal, c.order, func(p *parameter[float64]) []float64 { return p.dir }))
			check(t, c.quadratic.along(previous, c.order, func(p *parameter[float64]) []float64 { return p.velocity }))
			fisher := denseFisher(t, c, perCase)
			checkNear(t, "uFu, uFv, vFv",
				[]float64{c.quadratic.fisher(proposal, proposal), c.quadratic.fisher(proposal, previous), c.quadratic.fisher(previous, previous)},
				[]float64{quadraticForm(fisher, u, u), quadraticForm(fisher, u, v), quadraticForm(fisher, v, v)}, 1e-12)

			check(t, c.quadratic.prepare([]int{4, 1}))
			check(t, c.quadratic.along(proposal, c.order, func(p *parameter[float64]) []float64 { return p.dir }))
			var some float64
			for _, row := range []int{4, 1} {
				some += caseForm(t, c, perCase[row], row, u) / 2
			}
			checkNear(t, "uFu of two cases", []float64{c.quadratic.fisher(proposal, proposal)}, []float64{some}, 1e-12)
		})
	}
}

// caseForm is u^T J^T F_R J u of one case, with F_R by its textbook formula.
func caseForm(t *testing.T, c *conductor[float64], j *mat.Dense, row int, u []float64) float64 {
	t.Helper()
	o := c.outputs[0]
	whole := *c.sampler.run
	check(t, whole.Forward(nil))
	z := whole.Value(o.node).Data[row*o.cols : (row+1)*o.cols]
	f := mat.NewDense(o.cols, o.cols, plainFisher(o.head, z))
	var ju mat.VecDense
	ju.MulVec(j, mat.NewVecDense(len(u), u))
	return mat.Inner(&ju, f, &ju)
}

// TestMinimum: at (alpha, mu) the gradient of the model over the span vanishes, and M(delta) - M(0) = 1/2 grad^T delta (section 7).
func TestMinimum(t *testing.T) {
	m := span{f: [2][2]float64{{2, 0.3}, {0, 0.7}}, dots: [2][2]float64{{1.5, -0.4}, {0, 2}}, slope: [2]float64{-3, 0.5}}
	const c = 0.25
	at := func(alpha, mu float64) float64 {
		f := alpha*alpha*m.f[0][0] + 2*alpha*mu*m.f[0][1] + mu*mu*m.f[1][1]
		d := alpha*alpha*m.dots[0][0] + 2*alpha*mu*m.dots[0][1] + mu*mu*m.dots[1][1]
		return (f+c*d)/2 + alpha*m.slope[0] + mu*m.slope[1]
	}
	s := m.minimise(c, true)
	checkNear(t, "M", []float64{s.change}, []float64{at(s.alpha, s.mu)}, 1e-14)
	checkNear(t, "curvature", []float64{s.curvature}, []float64{s.alpha*s.alpha*2 + 2*s.alpha*s.mu*0.3 + s.mu*s.mu*0.7}, 1e-14)
	for _, d := range [][2]float64{{1e-3, 0}, {-1e-3, 0}, {0, 1e-3}, {0, -1e-3}, {1e-3, 1e-3}} {
		if at(s.alpha+d[0], s.mu+d[1]) <= s.change {
			t.Errorf("lower at %v beside the minimum", d)
		}
	}
	if one := m.minimise(c, false); one.mu != 0 || one.change <= s.change || math.Abs(one.change-at(one.alpha, 0)) > 1e-14 {
		t.Errorf("without momentum: %+v, with: %+v", one, s)
	}
	for _, by := range []float64{0.5, 0.01} {
		r := s.shrunk(by, &m, c)
		checkNear(t, "M of a shrunk step", []float64{r.change}, []float64{at(by*s.alpha, by*s.mu)}, 1e-14)
	}
	parallelDirections := span{f: [2][2]float64{{2, 4}, {0, 8}}, dots: [2][2]float64{{1, 2}, {0, 4}}, slope: [2]float64{-3, -6}}
	if s := parallelDirections.minimise(c, true); s.mu != 0 || !s.finite() || s.alpha != 3/2.25 {
		t.Errorf("parallel directions: %+v", s)
	}
}

// TestDampingRules: sections 6.5 and 6.6, the held-out rule, and the first damping.
func TestDampingRules(t *testing.T) {
	for _, tc := range []struct{ rho, paper, heldOut float64 }{
		{2, 0.5, 0.5}, {0.76, 0.5, 0.5}, {0.75, 1, 0.5}, {0.25, 1, 0.5}, {0.24, 2, 0.5}, {0.05, 2, 1}, {0, 2, 1}, {-0.1, 2, 2},
		{math.NaN(), 2, 2}, {math.Inf(-1), 2, 2},
	} {
		if got := adaptLambda(1, tc.rho, 0.5); got != tc.paper {
			t.Errorf("adaptLambda, rho %g: %g, want %g", tc.rho, got, tc.paper)
		}
		if got := adaptHeldOut(1, tc.rho, 0.5); got != tc.heldOut {
			t.Errorf("adaptHeldOut, rho %g: %g, want %g", tc.rho, got, tc.heldOut)
		}
	}
	s := step{change: -2}
	for _, tc := range []struct {
		before, after float64
		without       bool
		want          float64
	}{{5, 4, false, 0.5}, {5, 4, true, 1 / 2.5}, {5, 6, false, math.Inf(-1)}, {5, math.NaN(), false, math.Inf(-1)}} {
		if got := reductionRatio(tc.before, tc.after, s, 0.5, 2, tc.without); math.Abs(got-tc.want) > 1e-15 {
			t.Errorf("reductionRatio(%v) = %g", tc, got)
		}
	}
	omega := math.Pow(19.0/20, 10)
	checkNear(t, "gammas", gammas(2, omega, 0, math.Inf(1)), []float64{2 * omega, 2, 2 / omega}, 1e-15)
	checkNear(t, "gammas at the floor", gammas(2, omega, 2, math.Inf(1)), []float64{2, 2 / omega}, 1e-15)
	checkNear(t, "gammas with the authors' cap", gammas(7.333, omega, 0, 1), []float64{7.333 * omega, 7.333, 1}, 1e-15)

	valley := func(best float64) func(float64) float64 {
		return func(lambda float64) float64 { return 1 + math.Pow(math.Log10(lambda/best), 2)/100 }
	}
	for _, best := range []float64{1e-4, 1, 1e3} {
		if got := lowestStart(1, 2, valley(best)); best <= 1 && math.Abs(math.Log10(got/best)) > 0.5 {
			t.Errorf("lowestStart found %g, the valley is at %g", got, best)
		}
	}
	overflows := func(lambda float64) float64 {
		if lambda < 50 {
			return math.Inf(1)
		}
		return 1
	}
	if got := lowestStart(1, 2, overflows); got != 100 {
		t.Errorf("lowestStart went up to %g, want 100", got)
	}
	if got := lowestStart(1, 2, func(float64) float64 { return math.Inf(1) }); math.IsInf(got, 0) || math.IsNaN(got) {
		t.Errorf("lowestStart with nothing finite: %g", got)
	}
}

// TestObjectiveAtTrial: h at a trial point is the user's cost there, in the solver's units, with the L2 term.
func TestObjectiveAtTrial(t *testing.T) {
	n := mlp{widths: []int{4, 5, 3}, cases: 6, unit: gorgonia.Tanh, loss: classes}.build(5)
	c := attach(t, n)
	_, _ = directionsOf(n, c)
	var squares float64
	for _, p := range c.order {
		check(t, p.readWeights())
		copy(p.next, p.velocity)
		for i := range p.next {
			w := p.store.data[i] + p.next[i]
			squares += w * w
		}
	}
	before, err := c.objective.at(c.order, c.scaleOfMean(), 0.5, (*parameter[float64]).trial)
	check(t, err)
	for _, p := range c.order {
		p.write()
	}
	vm := gorgonia.NewTapeMachine(n.cost.Graph())
	defer vm.Close()
	check(t, vm.RunAll())
	checkNear(t, "h", []float64{before}, []float64{costValue(n.cost)/c.scaleOfMean() + 0.25*squares}, 1e-12)
}
