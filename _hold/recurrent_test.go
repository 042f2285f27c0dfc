package kfac

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// recurrentBlocks are those of a conductor after the statistics of one sampled batch.
func recurrentBlocks(t *testing.T, c *conductor[float64]) (blocks []*recurrentBlock[float64]) {
	t.Helper()
	testnet.Check(t, c.sampler.sample(c.model, 1, cases, rand.New(rand.NewPCG(7, 7))))
	for _, b := range c.blocks {
		testnet.Check(t, b.observe(c.sampler.run))
		testnet.Check(t, b.average(0.95, true))
		if b, ok := b.(*recurrentBlock[float64]); ok {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

func TestRecurrentPlan(t *testing.T) {
	for timing, want := range map[TimeCorrelation]string{TimeSymmetric: ", its time steps symmetric",
		TimeStationary: ", its time steps stationary", TimeIndependent: ""} {
		c := attach(t, testnet.Recurrent(1, 3, false), WithTimeCorrelation(timing))
		for _, row := range c.plan.Params {
			if recurrent := row.Name == "w" || row.Name == "u"; recurrent &&
				!strings.HasSuffix(row.Reason, "3 positions per case"+want) {
				t.Errorf("%s, %s: %q", timing, row.Name, row.Reason)
			}
		}
	}
}

// The lag moments pair each time step with the one before it, case by case.
func TestLagMoments(t *testing.T) {
	const steps = 4
	c := attach(t, testnet.Recurrent(2, steps, false), WithTimeCorrelation(TimeSymmetric))
	for _, b := range recurrentBlocks(t, c) {
		l := b.layer
		var buf captured[float64]
		seen := capture(l, c.sampler.run, &buf)
		abar := l.abar()
		wantA, wantG := make([]float64, abar*abar), make([]float64, l.out*l.out)
		input := func(t, k, i int) float64 {
			if i == l.in {
				return 1
			}
			return seen.a[(t*cases+k)*l.in+i]
		}
		for s := 1; s < steps; s++ {
			for k := range cases {
				for i := range abar {
					for j := range abar {
						wantA[i*abar+j] += input(s, k, i) * input(s-1, k, j) / (cases * steps)
					}
				}
				for i := range l.out {
					for j := range l.out {
						wantG[i*l.out+j] += seen.g[(s*cases+k)*l.out+i] * seen.g[((s-1)*cases+k)*l.out+j] / cases
					}
				}
			}
		}
		testnet.Near(t, l.name()+": A'", b.lagA.next, wantA, identity)
		testnet.Near(t, l.name()+": G'", b.lagG.next, wantG, identity)
	}
}

// The steps lie in the order in which the graph was built, which is that of time, whatever order
// the products are reached in from the outputs.
func TestTimeStepsAreInOrder(t *testing.T) {
	for _, b := range recurrentBlocks(t, attach(t, testnet.Recurrent(3, 5, false),
		WithTimeCorrelation(TimeSymmetric))) {
		if !slices.IsSortedFunc(b.layer.sites, func(x, y site) int {
			return int(x.output.Src.ID() - y.output.Src.ID())
		}) || len(b.layer.sites) != 5 {
			t.Errorf("%s: %d steps out of order", b.layer.name(), len(b.layer.sites))
		}
	}
}

// chainFisher is the dense Fisher matrix of the linear Gaussian chain, the sum over |d| < steps of
// (1 - |d|/steps) V_d with V_d = Phi^d V_0 and V_{-d} = V_d^T; with steps 0 it is that of an
// endless one.
func chainFisher(t *testing.T, v0, v1 *mat.Dense, steps int) *mat.Dense {
	t.Helper()
	var inv, phi mat.Dense
	testnet.Check(t, inv.Inverse(v0))
	phi.Mul(v1, &inv)
	sum, power := mat.DenseCopyOf(v0), mat.DenseCopyOf(v0)
	for d := 1; d < steps || steps == 0 && d < 20000; d++ {
		var next, both mat.Dense
		next.Mul(&phi, power)
		power = &next
		both.Add(power, power.T())
		weight := 1.0
		if steps > 0 {
			weight -= float64(d) / float64(steps)
		}
		both.Scale(weight, &both)
		sum.Add(sum, &both)
		if mat.Norm(power, 2) < 1e-15*mat.Norm(sum, 2) {
			break
		}
	}
	return sum
}

// The direction solves the dense system of the chain that the moments define.
func TestRecurrentDirectionSolvesChain(t *testing.T) {
	const gamma = 0.3
	for _, timing := range []TimeCorrelation{TimeSymmetric, TimeStationary} {
		for _, outByIn := range []bool{false, true} {
			for _, steps := range []int{2, 3, 6} {
				c := attach(t, testnet.Recurrent(uint64(10+steps), steps, outByIn), WithTimeCorrelation(timing))
				for _, b := range recurrentBlocks(t, c) {
					gradients(t, c)
					first, then := b.inversions(gamma)
					parallel.Jobs(first)
					parallel.Jobs(then)
					raised, err := b.inverted()
					if testnet.Check(t, err); raised != 0 {
						t.Fatalf("%s: damping raised", b.layer.name())
					}
					b.precondition(gamma, true)

					dampA, dampG := b.dampings(gamma)
					lagA, lagG, last := square(slices.Clone(b.lagA.next)), square(slices.Clone(b.lagG.next)), steps
					if timing == TimeSymmetric {
						lagA, lagG = symmetricPart(lagA), symmetricPart(lagG)
					} else {
						last = 0
					}
					var v0, v1 mat.Dense
					v0.Kronecker(plusDiagonal(b.factors.a.next, dampA), plusDiagonal(b.factors.g.next, dampG))
					v1.Kronecker(lagA, lagG)
					v := gathered(b.layerBlock, gradientOf)
					var want mat.VecDense
					testnet.Check(t, want.SolveVec(chainFisher(t, &v0, &v1, last), mat.NewVecDense(len(v), v)))
					testnet.Near(t, fmt.Sprint(timing, " ", b.layer.name(), ", ", steps, " steps"),
						gathered(b.layerBlock, directionOf), want.RawVector().Data, 1e-9)
				}
			}
		}
	}
}

func symmetricPart(m *mat.Dense) *mat.Dense {
	var s mat.Dense
	s.Add(m, m.T())
	s.Scale(0.5, &s)
	return &s
}

// Without any correlation between the steps both are the independent approximation.
func TestUncorrelatedSteps(t *testing.T) {
	const gamma = 0.1
	for _, timing := range []TimeCorrelation{TimeSymmetric, TimeStationary} {
		c := attach(t, testnet.Recurrent(5, 4, false), WithTimeCorrelation(timing))
		for _, b := range recurrentBlocks(t, c) {
			gradients(t, c)
			clear(b.lagA.next)
			first, then := b.inversions(gamma)
			parallel.Jobs(first)
			parallel.Jobs(then)
			_, err := b.inverted()
			testnet.Check(t, err)
			b.precondition(gamma, true)
			dampA, dampG := b.dampings(gamma)
			want := solved(t, b.factors.a.next, b.factors.g.next, dampA, dampG, gathered(b.layerBlock, gradientOf))
			testnet.Near(t, fmt.Sprint(timing, " ", b.layer.name()), gathered(b.layerBlock, directionOf), want,
				identity)
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
