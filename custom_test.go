package kfac_test

import (
	"math"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// essential is a likelihood with nothing that it may lack.
type essential struct{ kfac.Likelihood }

// classes is a likelihood of classes as a user may write it.
type classes struct{ kfac.Likelihood }

func (classes) Variables(int) int { return 1 }

func (classes) Discrete() bool { return true }

// bits is one of bits.
type bits struct{ kfac.Likelihood }

func (bits) Discrete() bool { return true }

// scaled is one that finds factors.
type scaled struct{ kfac.FactorFinder }

// A likelihood of the user's that equals one of ours trains to the same numbers.
func TestCustomTrainsAsOurs(t *testing.T) {
	custom := func(l kfac.Likelihood) func(z *gorgonia.Node) kfac.Distribution {
		return func(z *gorgonia.Node) kfac.Distribution { return kfac.Custom(z, l) }
	}
	gaussian := lossCase{
		cost: func(s *testnet.Sketch, z *gorgonia.Node) *gorgonia.Node {
			return mean(testnet.Square(testnet.Sub(z, s.Scaled("y", 100, z.Shape()...))))
		},
		declare: func(z *gorgonia.Node) kfac.Distribution { return kfac.Gaussian(z, 0.3) },
	}
	for name, c := range map[string]struct {
		lossCase
		custom kfac.Likelihood
	}{
		"counts":               {lossCases["counts"], essential{likelihood.Poisson{}}},
		"absolute error":       {lossCases["absolute error"], scaled{likelihood.Laplace{Scale: 0.5}}},
		"squared error":        {gaussian, essential{likelihood.Gaussian{Variance: 0.3}}},
		"classes at positions": {lossCases["classes at positions"], classes{likelihood.Categorical{}}},
		"padded positions":     {lossCases["padded positions"], classes{likelihood.Categorical{}}},
		"weighted bits":        {lossCases["weight of the positive class"], bits{likelihood.Bernoulli{}}},
		"whole":                {lossCases["class weights"], likelihood.Categorical{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var trained [2][]float64
			for i, declare := range []func(z *gorgonia.Node) kfac.Distribution{c.declare, custom(c.custom)} {
				n, z := lossNet(t, c.lossCase)
				solver, err := kfac.NewSolver(n.Cost, declare(z), kfac.WithSeed(3))
				testnet.Check(t, err)
				costAfter(t, n, solver, 12)
				trained[i] = testnet.Weights(n.Params)
			}
			for i, want := range trained[0] {
				if got := trained[1][i]; !(math.Abs(got-want) <= 1e-12*max(1, math.Abs(want))) {
					t.Fatalf("weight %d is %.16g, with our own distribution %.16g", i, got, want)
				}
			}
		})
	}
}

// A cost that is not that of the likelihood is refused, as are arguments that are none.
func TestCustomIsChecked(t *testing.T) {
	n, z := lossNet(t, lossCases["counts"])
	solver, err := kfac.NewSolver(n.Cost, kfac.Custom(z, essential{likelihood.Gaussian{Variance: 1}}))
	testnet.Check(t, err)
	vm := gorgonia.NewTapeMachine(n.Graph, gorgonia.BindDualValues(n.Params...))
	defer vm.Close()
	testnet.Check(t, vm.RunAll())
	refused(t, solver.Step(n.ValueGrads()), kfac.ErrLoss, "Custom kfac_test.essential")

	_, err = kfac.NewSolver(n.Cost, kfac.Custom(z, nil))
	refused(t, err, nil, "Custom", "nil")
	_, err = kfac.NewSolver(n.Cost, kfac.Custom(nil, essential{likelihood.Poisson{}}))
	refused(t, err, nil, "Custom", "nil")
}
