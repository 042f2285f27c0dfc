package kfac

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// statsNet is a net in which nothing is exact, with two losses.
func statsNet() *testnet.Net {
	return testnet.MLP{Widths: []int{3, 4, 2}, Cases: 9, Unit: gorgonia.Tanh, Loss: testnet.TwoHeads}.Build(6)
}

// inOrder picks something of all parameters, in the order of the plan.
func inOrder(c *training[float64], of func(p *parameter[float64]) []float64) (all []float64) {
	for _, p := range c.plan.order {
		all = append(all, of(p)...)
	}
	return all
}

func weightsInOrder(c *training[float64]) []float64 {
	return inOrder(c, func(p *parameter[float64]) []float64 { return testnet.Data(p.src) })
}

// statsCourses are ways to train, with what is to happen in them.
var statsCourses = map[string]struct {
	opts         []Option
	byRate       bool
	chunks       int
	constrained  bool // the norm constraint is at work
	withMomentum bool
}{
	"model":                {nil, false, 1, false, true},
	"model, constrained":   {[]Option{WithNormConstraint(1e-3)}, false, 1, true, true},
	"model, no momentum":   {[]Option{WithoutMomentum(), WithL2Reg(1e-3)}, false, 1, false, false},
	"model, in chunks":     {[]Option{WithNormConstraint(1e-2)}, false, 3, true, true},
	"model, paper's rules": {[]Option{WithPaperRules()}, false, 1, false, true},
	"model, every rho":     {[]Option{WithStepRejection()}, false, 1, false, true},
	"rate":                 {[]Option{WithLearningRate(0.02), WithNormConstraint(1e3)}, true, 1, false, true},
	"rate, constrained":    {[]Option{WithLearningRate(0.3), WithNormConstraint(1e-4)}, true, 1, true, true},
	"rate, no momentum":    {[]Option{WithLearningRate(0.1), WithMomentum(0)}, true, 1, true, false},
	"rate, in chunks":      {[]Option{WithLearningRate(0.3), WithNormConstraint(1e-3)}, true, 3, true, true},
	"rate, L2, old inverse": {[]Option{WithLearningRate(0.3), WithL2Reg(1e-2), WithInverseUpdatePeriod(7)}, true, 1,
		true, true},
}

// The change of the weights is alpha Delta + mu delta0, where Delta is the negative preconditioned
// gradient and delta0 the change before. Figures that were not computed are NaN, and no others.
func TestStatsTellTheUpdate(t *testing.T) {
	for name, course := range statsCourses {
		t.Run(name, func(t *testing.T) {
			n := statsNet()
			tr := NewTrainer(t, n, append(slices.Clone(course.opts), WithMinStatisticsCases(5))...)
			c := trainingOf(tr)
			var delta0 []float64
			var constrained, moved bool
			for k := 1; k <= 22; k++ {
				for chunk := range course.chunks {
					for i, x := range n.Normals(len(testnet.Data(n.X))) {
						testnet.Data(n.X)[i] += 0.05 * x
					}
					if chunk < course.chunks-1 {
						testnet.Check(t, tr.Run())
						testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
					}
				}
				before := weightsInOrder(c)
				tr.Steps(t, 1)
				change := weightsInOrder(c)
				floats.Sub(change, before)
				st := tr.Solver.Stats()

				if !course.byRate && (k == 1 || searchesGamma(&c.cfg, k)) { // the directions are those tried last
					directions(t, c, currentAverages(c), st.Gamma)
				}
				u := inOrder(c, func(p *parameter[float64]) []float64 { return p.direction })
				want := make([]float64, len(u))
				floats.AddScaled(want, -st.LearningRate, u)
				if delta0 != nil {
					floats.AddScaled(want, st.Momentum, delta0)
				}
				testnet.Near(t, fmt.Sprint("update of step ", k), change, want, 1e-12)
				delta0 = change

				grad := inOrder(c, func(p *parameter[float64]) []float64 { return p.grad })
				testnet.Near(t, "norms",
					[]float64{st.ParamNorm, st.UpdateNorm, st.GradNorm, st.DirectionNorm, st.PreconGradNorm},
					[]float64{floats.Norm(weightsInOrder(c), 2), floats.Norm(change, 2), floats.Norm(grad, 2),
						floats.Norm(u, 2), math.Sqrt(floats.Dot(grad, u))}, 1e-12)
				checkPresence(t, c, st, course.byRate)
				if st.Step != k || st.Chunks != course.chunks || st.Cases != 9*course.chunks {
					t.Errorf("step %d: %+v", k, st)
				}
				constrained = constrained || st.Shrink < 1
				moved = moved || st.Momentum != 0
			}
			if course.constrained && !constrained || moved != course.withMomentum {
				t.Errorf("a step was shortened: %v; one had momentum: %v", constrained, moved)
			}
		})
	}
}

// checkPresence demands a number of each figure that the step has computed, and of no other.
func checkPresence(t *testing.T, c *training[float64], st Stats, byRate bool) {
	t.Helper()
	judged := !byRate && (c.cfg.reject || st.Step%c.cfg.lambdaPeriod == 0)
	for _, f := range []struct {
		name     string
		value    float64
		computed bool
	}{
		{"QuadModelChange", st.QuadModelChange, !byRate}, {"KL", st.KL, !byRate}, {"Rho", st.Rho, judged},
		{"Cost", st.Cost, true}, {"Scale", st.Scale, true}, {"Damping", st.Damping, true}, {"Gamma", st.Gamma, true},
		{"LearningRate", st.LearningRate, true}, {"Momentum", st.Momentum, true}, {"Shrink", st.Shrink, true},
		{"GradNorm", st.GradNorm, true}, {"PreconGradNorm", st.PreconGradNorm, true},
		{"UpdateNorm", st.UpdateNorm, true}, {"ParamNorm", st.ParamNorm, true},
		{"DirectionNorm", st.DirectionNorm, true},
	} {
		if math.IsNaN(f.value) == f.computed {
			t.Errorf("step %d: %s is %g; computed: %v", st.Step, f.name, f.value, f.computed)
		}
	}
	if !(st.StatisticsCases > 0 && st.StatisticsCases <= st.Cases) {
		t.Errorf("step %d: factors of %d cases, of %d", st.Step, st.StatisticsCases, st.Cases)
	}
	if !(st.Shrink > 0 && st.Shrink <= 1) {
		t.Errorf("step %d: shortened by %g", st.Step, st.Shrink)
	}
	if !byRate && (!(st.QuadModelChange < 0) || !(st.KL > 0)) {
		t.Errorf("step %d: the model promises %g, at %g nats", st.Step, st.QuadModelChange, st.KL)
	}
}

// KL is 1/2 delta^T F delta, and QuadModelChange is that with the damping and the slope, by the
// dense Fisher matrix. A lambda that the user has set counts in the weights' own coordinates.
func TestKLByTheDenseFisher(t *testing.T) {
	for _, eta := range []float64{0, 0.01} {
		tr := NewTrainer(t, statsNet(), WithL2Reg(eta), WithDamping(0.1))
		c := trainingOf(tr)
		tr.Steps(t, 1) // finds the weights of the losses
		for range 8 {
			before, fisher := weightsInOrder(c), denseFisher(t, c, jacobians(t, c))
			tr.Steps(t, 1)
			delta := weightsInOrder(c)
			floats.Sub(delta, before)
			d, st := mat.NewVecDense(len(delta), delta), tr.Solver.Stats()
			kl := mat.Inner(d, fisher, d) / 2
			grad := inOrder(c, func(p *parameter[float64]) []float64 { return p.grad })
			change := kl + (st.Damping+eta)/2*floats.Dot(delta, delta) + floats.Dot(grad, delta)
			testnet.Near(t, fmt.Sprint("KL and change of step ", st.Step), []float64{st.KL, st.QuadModelChange},
				[]float64{kl, change}, 1e-10)
		}
	}
}

func TestSameStats(t *testing.T) {
	nan := math.NaN()
	a := Stats{Step: 3, Cost: 0.5, Rho: nan, KL: nan, QuadModelChange: nan, Time: PhaseTimes{Rho: 1}}
	b := a
	b.Time = PhaseTimes{}
	if !SameStats(a, b) {
		t.Error("the same, but for the times")
	}
	for _, spoil := range []func(s *Stats){
		func(s *Stats) { s.KL = 1 }, func(s *Stats) { s.Cost = nan }, func(s *Stats) { s.Step = 4 },
		func(s *Stats) { s.Rejected = true }, func(s *Stats) { s.Rho = 0 },
	} {
		other := a
		spoil(&other)
		if SameStats(a, other) || SameStats(other, a) {
			t.Errorf("%+v counts as %+v", other, a)
		}
	}
}

// KL is 1/2 delta^T F delta by the exact Fisher matrix, also at steps for which the provisions
// against noise have taken F to be larger. In a linear model with normal targets of variance 1 that
// is half the mean of |x^T delta|^2 over the cases.
func TestKLIsThatOfTheExactFisherMatrix(t *testing.T) {
	for _, chunks := range []int{1, 2} {
		for name, opts := range map[string][]Option{
			"default": nil, "lambda": {WithDamping(0.01)}, "rejection": {WithStepRejection()},
		} {
			t.Run(fmt.Sprint(name, chunks), func(t *testing.T) {
				m := testnet.MLP{Widths: []int{4, 3}, Cases: 10, NoBias: true, Loss: testnet.Squares(1)}
				l := NewTrainer(t, m.Build(5), opts...)
				draw, raised := testnet.NewSketch(77), 0
				for k := range 24 {
					size := 1.0
					if k%3 == 2 {
						size = 0.1
					}
					before := mat.DenseCopyOf(mat.NewDense(4, 3, testnet.Data(l.Params[0])))
					var rows []float64
					for i := range chunks {
						x := draw.Normals(40)
						floats.Scale(size, x)
						copy(testnet.Data(l.X), x)
						copy(testnet.Data(l.Input("y")), draw.Normals(30))
						rows = append(rows, x...)
						if i < chunks-1 {
							testnet.Check(t, l.Run())
							testnet.Check(t, l.Solver.Accumulate(l.ValueGrads()))
						}
					}
					l.Steps(t, 1)
					if l.Solver.Stats().Rejected {
						continue
					}
					var delta, change mat.Dense
					delta.Sub(mat.NewDense(4, 3, testnet.Data(l.Params[0])), before)
					change.Mul(mat.NewDense(10*chunks, 4, rows), &delta)
					norm := mat.Norm(&change, 2)
					want := norm * norm / float64(10*chunks) / 2
					if got := l.Solver.Stats().KL; math.Abs(got-want) > 1e-9*want {
						t.Errorf("step %d: KL %v, want %v", k+1, got, want)
					}
					if trainingOf(l).control.noise.curvature > 2*want*(1+1e-6) {
						raised++
					}
				}
				if raised < 3 {
					t.Errorf("the curvature was raised at %d steps: nothing is tested", raised)
				}
			})
		}
	}
}

// A learning rate needs no Fisher product, and has no KL.
func TestNoKLWithLearningRate(t *testing.T) {
	l := NewTrainer(t, statsNet(), WithLearningRate(0.1))
	for range 4 {
		l.Steps(t, 1)
		if kl := l.Solver.Stats().KL; !math.IsNaN(kl) {
			t.Errorf("KL %v, want NaN", kl)
		}
	}
}
