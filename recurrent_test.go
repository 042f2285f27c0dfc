package kfac

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/curvature/curvaturetest"
	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// recurrentLayers are those with a block of their time steps.
func recurrentLayers(t rapid.TB, c *training[float64]) (all []placedLayer) {
	t.Helper()
	for _, l := range placedLayers(c) {
		if _, ok := l.block.Block.(*curvature.Recurrent[float64]); ok {
			all = append(all, l)
		}
	}
	if len(all) == 0 {
		t.Fatalf("no recurrent block; plan:\n%v", c.describe())
	}
	return all
}

func TestRecurrentPlan(t *testing.T) {
	for timing, steps := range map[TimeCorrelation]string{TimeSymmetric: ", its time steps symmetric",
		TimeStationary: ", its time steps stationary", TimeIndependent: ""} {
		want := map[string]string{
			"w": "dense layer x w + b, used 3 times" + steps,
			"u": "recurrent weight h w, 3 time steps" + steps,
			"b": "homogeneous coordinate of w",
			"v": "dense layer x w",
		}
		for _, row := range attach(t, testnet.Recurrent(1, 3, false), WithTimeCorrelation(timing)).describe().Params {
			if row.Reason != want[row.Name] {
				t.Errorf("%s, %s: %q, want %q", timing, row.Name, row.Reason, want[row.Name])
			}
		}
	}
}

// The lag moments pair each time step with the one before it, case by case.
func TestLagMoments(t *testing.T) {
	const steps, cases = 4, testnet.Cases
	c := attach(t, testnet.Recurrent(2, steps, false), WithTimeCorrelation(TimeSymmetric))
	avg := sampledAverages(t, c)
	for _, l := range recurrentLayers(t, c) {
		seen, moments := l.seen(c), avg[l.index].Moments
		abar := l.block.groups[0].shape.Abar()
		wantA, wantG := make([]float64, abar*abar), make([]float64, l.Out*l.Out)
		input := func(t, k, i int) float64 {
			if i == l.In {
				return 1
			}
			return seen.A[(t*cases+k)*l.In+i]
		}
		for s := 1; s < steps; s++ {
			for k := range cases {
				for i := range abar {
					for j := range abar {
						wantA[i*abar+j] += input(s, k, i) * input(s-1, k, j) / (cases * steps)
					}
				}
				for i := range l.Out {
					for j := range l.Out {
						wantG[i*l.Out+j] += seen.G[(s*cases+k)*l.Out+i] * seen.G[((s-1)*cases+k)*l.Out+j] / cases
					}
				}
			}
		}
		testnet.Near(t, l.Name()+": A'", moments[2], wantA, identity)
		testnet.Near(t, l.Name()+": G'", moments[3], wantG, identity)
	}
}

// The steps lie in the order in which the graph was built, which is that of time, whatever order
// the products are reached in from the outputs.
func TestTimeStepsAreInOrder(t *testing.T) {
	c := attach(t, testnet.Recurrent(3, 5, false), WithTimeCorrelation(TimeSymmetric))
	for _, l := range recurrentLayers(t, c) {
		if !slices.IsSortedFunc(l.Sites, func(x, y layers.Site) int {
			return int(x.Output.Src.ID() - y.Output.Src.ID())
		}) || len(l.Sites) != 5 {
			t.Errorf("%s: %d steps out of order", l.Name(), len(l.Sites))
		}
	}
}

// The direction solves the dense system of the chain that the moments define.
func TestRecurrentDirectionSolvesChain(t *testing.T) {
	const gamma = 0.3
	for _, timing := range []TimeCorrelation{TimeSymmetric, TimeStationary} {
		for _, outByIn := range []bool{false, true} {
			for _, steps := range []int{2, 3, 6} {
				c := attach(t, testnet.Recurrent(uint64(10+steps), steps, outByIn), WithTimeCorrelation(timing))
				avg := sampledAverages(t, c)
				gradients(t, c)
				directions(t, c, avg, gamma)
				for _, l := range recurrentLayers(t, c) {
					m := avg[l.index].Moments
					a, g := tikhonovDamped(square(m[0]), square(m[1]), gamma)
					lagA, lagG, last := square(m[2]), square(m[3]), steps
					if timing == TimeSymmetric {
						lagA, lagG = curvaturetest.SymmetricPart(lagA), curvaturetest.SymmetricPart(lagG)
					} else {
						last = 0
					}
					var v0, v1 mat.Dense
					v0.Kronecker(a, g)
					v1.Kronecker(lagA, lagG)
					v := l.gradient(c)
					var want mat.VecDense
					fisher, err := curvaturetest.ChainFisher(&v0, &v1, last)
					testnet.Check(t, err)
					testnet.Check(t, want.SolveVec(fisher, mat.NewVecDense(len(v), v)))
					testnet.Near(t, fmt.Sprint(timing, " ", l.Name(), ", ", steps, " steps"), l.direction(c),
						want.RawVector().Data, 1e-9)
				}
			}
		}
	}
}

// The loss falls, in every kind of step, and a course is the same in every bit when it is repeated.
func TestRecurrentTraining(t *testing.T) {
	for _, timing := range []TimeCorrelation{TimeSymmetric, TimeStationary} {
		for name, opts := range map[string][]Option{"quadratic model": nil, "learning rate": {WithLearningRate(0.1)}} {
			course := func() []float64 {
				l := NewTrainer(t, testnet.Recurrent(6, 5, true), append(opts, WithTimeCorrelation(timing))...)
				l.Steps(t, 1)
				first := l.Solver.Stats().Cost
				l.Steps(t, 30)
				if last := l.Solver.Stats().Cost; !(last < 0.7*first) {
					t.Errorf("%s, %s: the cost went from %g to %g", timing, name, first, last)
				}
				return testnet.Weights(l.Params)
			}
			if !slices.Equal(course(), course()) {
				t.Errorf("%s, %s: two courses differ", timing, name)
			}
		}
	}
}

func TestBadTimeCorrelation(t *testing.T) {
	n := testnet.Recurrent(1, 2, false)
	_, err := NewSolver(n.Cost, Declared(n), WithTimeCorrelation("backwards"))
	var ce *ConfigError
	if !errors.As(err, &ce) || ce.Setting != "WithTimeCorrelation" {
		t.Errorf("error %v", err)
	}
}
