package kfac_test

import (
	"math"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// Terms of the cost outside the likelihood: the quadratic model has their curvature, so that a
// parameter of which the Fisher matrix knows nothing hinders no other, and the cost does not swing.
func TestTermsOutsideTheLikelihood(t *testing.T) {
	half := gorgonia.NewConstant(0.5)
	for name, term := range map[string]func(s *testnet.Sketch, w *gorgonia.Node) *gorgonia.Node{
		"a parameter of its own": func(s *testnet.Sketch, p *gorgonia.Node) *gorgonia.Node {
			off := testnet.Sub(gorgonia.Must(gorgonia.Sum(p)), gorgonia.NewConstant(3.0))
			return testnet.Mul(gorgonia.Must(gorgonia.Square(off)), half)
		},
		"a weight decay": func(_ *testnet.Sketch, w *gorgonia.Node) *gorgonia.Node {
			squares := gorgonia.Must(gorgonia.Sum(gorgonia.Must(gorgonia.Square(w))))
			return testnet.Mul(squares, gorgonia.NewConstant(0.03))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := testnet.NewSketch(2)
			n := &testnet.Net{Sketch: s, X: s.Random("x", 64, 4)}
			w := s.Random("w", 4, 3)
			n.Params, n.Out = gorgonia.Nodes{w}, testnet.Mul(n.X, w)
			likelihood, _ := testnet.CrossEntropy(s, n.Out)
			of := w
			if name == "a parameter of its own" {
				of = s.Random("p", 1, 1)
				n.Params = append(n.Params, of)
			}
			n.Cost = testnet.Add(likelihood, term(s, of))
			n.Grad(t)
			solver, err := kfac.NewSolver(n.Cost, kfac.Categorical(n.Out))
			testnet.Check(t, err)
			vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
			defer vm.Close()
			lowest, highest, early := math.Inf(1), 0.0, 0.0 // of the last steps, and after ten
			for k := range 120 {
				testnet.Check(t, vm.RunAll())
				if cost := testnet.Numbers(n.Cost.Value())[0]; k >= 100 {
					lowest, highest = min(lowest, cost), max(highest, cost)
				} else if k == 10 {
					early = cost
				}
				testnet.Check(t, solver.Step(n.ValueGrads()))
				vm.Reset()
			}
			if !(highest < 1.001*lowest) {
				t.Errorf("the cost swings between %g and %g", lowest, highest)
			}
			if !(early < 1.001*lowest) {
				t.Errorf("the cost is %g after ten updates, and %g in the end", early, lowest)
			}
		})
	}
}

// With Dropout a step is tried with the masks that it was made from: with others, where labels are
// noise, no step would be short enough, and training would stand still.
func TestTermsWithDropout(t *testing.T) {
	s := testnet.NewSketch(2)
	n := &testnet.Net{Sketch: s, X: s.Random("x", 64, 20)}
	w, v := s.Random("w", 20, 40), s.Random("v", 40, 3)
	n.Params = gorgonia.Nodes{w, v}
	h := gorgonia.Must(gorgonia.Dropout(gorgonia.Must(gorgonia.Tanh(testnet.Mul(n.X, w))), 0.5))
	n.Out = testnet.Mul(h, v)
	likelihood, _ := testnet.CrossEntropy(s, n.Out)
	squares := gorgonia.Must(gorgonia.Sum(gorgonia.Must(gorgonia.Square(w))))
	n.Cost = testnet.Add(likelihood, testnet.Mul(squares, gorgonia.NewConstant(1e-4)))
	n.Grad(t)
	solver, err := kfac.NewSolver(n.Cost, kfac.Categorical(n.Out))
	testnet.Check(t, err)
	vm, err := solver.VM()
	testnet.Check(t, err)
	for k := range 40 {
		testnet.Check(t, vm.RunAll())
		testnet.Check(t, solver.Step(n.ValueGrads()))
		if st := solver.Stats(); !(st.Shrink > 1e-3) {
			t.Errorf("step %d is shortened by %g", k+1, st.Shrink)
		}
	}
}
