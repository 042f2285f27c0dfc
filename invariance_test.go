package kfac

import (
	"fmt"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// The tests of this file compare a net with the same function in other parameters (Martens & Grosse
// 2015, section 10). In the twin, layer i has the weights B' (abar x out), and
//
//	s' = abar' B',              abar'_i = [unit(s' Phi_i^T), 1] Omega_i^T,
//	abar'_0 = [x, 1] Omega_0^T,  z = s'_l Phi_l^T,
//
// which is the plain net with B = Omega_{i-1}^T B' Phi_i^T.

// reparametrisation holds Omega_0 ... Omega_{l-1} and Phi_1 ... Phi_l.
type reparametrisation struct{ omega, phi []*mat.Dense }

// forEach makes Omega and Phi of the right sizes for the widths of a net.
func forEach(widths []int, omega, phi func(layer, n int) *mat.Dense) (r reparametrisation) {
	for i := range len(widths) - 1 {
		r.omega = append(r.omega, omega(i, widths[i]+1))
		r.phi = append(r.phi, phi(i, widths[i+1]))
	}
	return r
}

func identityMatrix(n int) *mat.Dense { return plusDiagonal(make([]float64, n*n), 1) }

// back is the plain net's weights, or change, of layer i from the twin's: Omega^T B' Phi^T.
func (r reparametrisation) back(i int, twin mat.Matrix) []float64 {
	var b mat.Dense
	b.Product(r.omega[i].T(), twin, r.phi[i].T())
	return flatOf(&b)
}

// forth is the twin's weights of layer i from the plain net's.
func (r reparametrisation) forth(t *testing.T, i int, plain []float64) *mat.Dense {
	t.Helper()
	rows, cols := r.omega[i].RawMatrix().Rows, r.phi[i].RawMatrix().Rows
	var left, right mat.Dense
	testnet.Check(t, left.Solve(r.omega[i].T(), mat.NewDense(rows, cols, slices.Clone(plain))))
	testnet.Check(t, right.Solve(r.phi[i], left.T()))
	return mat.DenseCopyOf(right.T())
}

// twin is a plain net of layers with biases and tanh units in other parameters. Its layers have no
// biases: the last entry of abar' need not be 1.
func (r reparametrisation) twin(t *testing.T, m testnet.MLP, seed uint64) (plain, twin *testnet.Net) {
	t.Helper()
	plain = m.Build(seed)
	s := testnet.NewSketch(seed)
	twin = &testnet.Net{Sketch: s, X: s.Random("x", m.Cases, m.Widths[0])}
	h := twin.X
	for i := range r.omega {
		if i > 0 {
			h = gorgonia.Must(m.Unit(h))
		}
		abar := testnet.Concat(1, h, s.Ones(fmt.Sprint("ones ", i), m.Cases, 1))
		w := s.Matrix(fmt.Sprint("w", i), r.forth(t, i,
			slices.Concat(testnet.Data(plain.Params[2*i]), testnet.Data(plain.Params[2*i+1]))))
		twin.Params = append(twin.Params, w)
		h = testnet.Mul(testnet.Mul(abar, s.Matrix(fmt.Sprint("Omega ", i), r.omega[i].T())), w)
		h = testnet.Mul(h, s.Matrix(fmt.Sprint("Phi ", i), r.phi[i].T()))
	}
	twin.Ends(h, m.Loss)
	copy(testnet.Data(twin.Input("y")), testnet.Data(plain.Input("y")))
	return plain, twin
}

var tanhNet = testnet.MLP{Widths: []int{3, 4, 3, 2}, Cases: 12, Unit: gorgonia.Tanh, Loss: testnet.Binary}

// nearIdentity is the identity with random numbers added.
func nearIdentity(s *testnet.Sketch) func(_, n int) *mat.Dense {
	return func(_, n int) *mat.Dense {
		m := plusDiagonal(s.Normals(n*n), 4)
		m.Scale(0.3, m)
		return m
	}
}

// An exactStep is the solver of a net, which has its gradients, with the exact averages.
type exactStep struct {
	*training[float64]
	averages averages[float64]
}

func exactStepOf(t *testing.T, n *testnet.Net, opts ...Option) exactStep {
	t.Helper()
	c := attach(t, n, opts...)
	gradients(t, c)
	return exactStep{c, exactAverages(t, c, nil)}
}

// damped are the directions of the layers.
func (e exactStep) damped(t *testing.T, gamma float64) (u [][]float64) {
	t.Helper()
	directions(t, e.training, e.averages, gamma)
	for _, l := range placedLayers(e.training) {
		u = append(u, slices.Clone(l.u()))
	}
	return u
}

// checkSameStep demands that the twin's directions are the plain net's.
func checkSameStep(t *testing.T, r reparametrisation, plain, twin [][]float64) {
	t.Helper()
	for i := range plain {
		testnet.Near(t, fmt.Sprint("layer ", i), r.back(i, r.ofTwin(i, twin[i])), plain[i], 1e-9)
	}
}

// ofTwin is what the twin has for layer i, as a matrix.
func (r reparametrisation) ofTwin(i int, x []float64) *mat.Dense {
	rows := r.omega[i].RawMatrix().Rows
	return mat.NewDense(rows, len(x)/rows, x)
}

// Without damping, steps do not depend on the parameters that the function is written in.
func TestUndampedStepIsInvariant(t *testing.T) {
	s := testnet.NewSketch(1)
	r := forEach(tanhNet.Widths, nearIdentity(s), nearIdentity(s))
	plain, twin := r.twin(t, tanhNet, 2)
	checkSameStep(t, r, exactStepOf(t, plain).damped(t, 0), exactStepOf(t, twin).damped(t, 0))
}

// With damping that holds for orthogonal transformations, pi included, and only for them.
func TestDampedStepIsInvariantToRotations(t *testing.T) {
	s := testnet.NewSketch(3)
	rotation := func(_, n int) *mat.Dense { return orthogonal(s, n) }
	r := forEach(tanhNet.Widths, rotation, rotation)
	plain, twin := r.twin(t, tanhNet, 4)
	checkSameStep(t, r, exactStepOf(t, plain).damped(t, 0.3), exactStepOf(t, twin).damped(t, 0.3))

	r = forEach(tanhNet.Widths, nearIdentity(s), nearIdentity(s))
	plain, twin = r.twin(t, tanhNet, 4)
	a, b := exactStepOf(t, plain).damped(t, 0.3), exactStepOf(t, twin).damped(t, 0.3)
	if d := testnet.Distance(r.back(0, r.ofTwin(0, b[0])), a[0]); d < 1e-3 {
		t.Errorf("damping makes a difference of no more than %g", d)
	}
}

// In the parameters where all factors are the identity, the step is the gradient.
func TestWhiteningMakesGradientDescent(t *testing.T) {
	c := attach(t, tanhNet.Build(5))
	avg := exactAverages(t, c, nil)
	layers := placedLayers(c)
	// With A = L L^T, Omega = L^-1; with G = L L^T, Phi = L^-T.
	inverseRoot := func(factor []float64, n int) *mat.Dense {
		var chol mat.Cholesky
		if !chol.Factorize(mat.NewSymDense(n, slices.Clone(factor))) {
			t.Fatal("a factor is not positive definite")
		}
		var l mat.TriDense
		chol.LTo(&l)
		var inv mat.Dense
		testnet.Check(t, inv.Inverse(&l))
		return &inv
	}
	r := forEach(tanhNet.Widths,
		func(i, n int) *mat.Dense { a, _ := layers[i].factors(avg); return inverseRoot(a, n) },
		func(i, n int) *mat.Dense {
			_, g := layers[i].factors(avg)
			return mat.DenseCopyOf(inverseRoot(g, n).T())
		})
	plain, twin := r.twin(t, tanhNet, 5)
	white := exactStepOf(t, twin)
	step := white.damped(t, 0)
	for i, l := range placedLayers(white.training) {
		a, g := l.factors(white.averages)
		testnet.Near(t, fmt.Sprint("A ", i), a, flatOf(identityMatrix(tanhNet.Widths[i]+1)), 1e-9)
		testnet.Near(t, fmt.Sprint("G ", i), g, flatOf(identityMatrix(tanhNet.Widths[i+1])), 1e-9)
		testnet.Near(t, fmt.Sprint("step ", i), step[i], l.v(), 1e-9)
	}
	checkSameStep(t, r, exactStepOf(t, plain).damped(t, 0), step)
}

// train does steps with a tape machine, and returns the outputs at each, and those after the last.
func train(t *testing.T, n *testnet.Net, steps int, opts ...Option) (outputs [][]float64) {
	t.Helper()
	var out gorgonia.Value
	gorgonia.Read(n.Out, &out)
	tr := NewTrainer(t, n, opts...)
	for range steps {
		tr.Steps(t, 1)
		outputs = append(outputs, testnet.Numbers(out))
	}
	testnet.Check(t, tr.Run())
	return append(outputs, testnet.Numbers(out))
}

// checkSamePath demands that two nets predict the same from step to step, and not always the same.
func checkSamePath(t *testing.T, got, want [][]float64) {
	t.Helper()
	for k := range want {
		testnet.Near(t, fmt.Sprint("outputs after step ", k), got[k], want[k], 1e-9)
	}
	if d := testnet.Distance(want[len(want)-1], want[0]); d < 0.01 {
		t.Errorf("training has moved the outputs by no more than %g", d)
	}
}

// A course is a number of steps and settings under which they are invariant: next to no damping.
// The sampled targets are the same in both nets, since the outputs and the seed are.
type course struct {
	steps int
	opts  []Option
}

// undamped are courses by a learning rate and by the quadratic model. The latter's steps are so
// long that rounding errors grow fast.
func undamped() map[string]course {
	with := func(opts ...Option) []Option {
		return append(opts, WithDamping(1e-30), WithNormConstraint(0.1), WithMinStatisticsCases(50),
			WithStatisticsFraction(0.5))
	}
	return map[string]course{
		"learning rate":                      {4, with(WithLearningRate(0.1))},
		"quadratic model":                    {2, with(WithMinModelCases(60))},
		"learning rate, block-tridiagonal":   {2, with(WithLearningRate(0.1), WithBlockTridiagonal())},
		"learning rate, exact damping":       {2, with(WithLearningRate(0.1), WithExactDamping())},
		"quadratic model, block-tridiagonal": {2, with(WithMinModelCases(60), WithBlockTridiagonal())},
	}
}

// A net of logistic units is one of tanh units in other parameters, tanh(s/2) = 2 sigmoid(s) - 1:
// Phi = I/2, Omega = [[I/2, 1/2], [0, 1]].
func TestTanhAndLogisticNetsTrainAlike(t *testing.T) {
	m := testnet.MLP{Widths: []int{3, 4, 2}, Cases: 100, Unit: gorgonia.Tanh, Loss: testnet.Binary}
	r := forEach(m.Widths,
		func(i, n int) *mat.Dense {
			omega := identityMatrix(n)
			for k := 0; i > 0 && k < n-1; k++ {
				omega.Set(k, k, 0.5)
				omega.Set(k, n-1, 0.5)
			}
			return omega
		},
		func(i, n int) *mat.Dense {
			phi := identityMatrix(n)
			if i < len(m.Widths)-2 {
				phi.Scale(0.5, phi)
			}
			return phi
		})
	for name, c := range undamped() {
		t.Run(name, func(t *testing.T) {
			m.Unit = gorgonia.Tanh
			tanh := m.Build(6)
			m.Unit = gorgonia.Sigmoid
			logistic := m.Build(6)
			setTwin(t, r, logistic, tanh)
			checkSamePath(t, train(t, logistic, c.steps, c.opts...), train(t, tanh, c.steps, c.opts...))
		})
	}
}

// setTwin gives a twin with biases, whose Omega leave the homogeneous coordinate 1, its weights.
func setTwin(t *testing.T, r reparametrisation, twin, plain *testnet.Net) {
	t.Helper()
	for i := range r.omega {
		w, b := plain.Params[2*i], plain.Params[2*i+1]
		bar := flatOf(r.forth(t, i, slices.Concat(testnet.Data(w), testnet.Data(b))))
		copy(testnet.Data(twin.Params[2*i]), bar)
		copy(testnet.Data(twin.Params[2*i+1]), bar[len(testnet.Data(w)):])
	}
}

// Inputs that are mixed and shifted train alike: Omega_0 = [[M, c], [0, 1]].
func TestAffineInputsTrainAlike(t *testing.T) {
	m := testnet.MLP{Widths: []int{3, 4, 2}, Cases: 100, Unit: gorgonia.Tanh, Loss: testnet.Squares(1)}
	s := testnet.NewSketch(7)
	mixed := nearIdentity(s)(0, 3)
	shift := s.Normals(3)
	r := forEach(m.Widths,
		func(i, n int) *mat.Dense {
			omega := identityMatrix(n)
			if i == 0 {
				omega.Slice(0, 3, 0, 3).(*mat.Dense).Copy(mixed)
				omega.SetCol(3, append(slices.Clone(shift), 1))
			}
			return omega
		},
		func(_, n int) *mat.Dense { return identityMatrix(n) })
	for name, c := range undamped() {
		t.Run(name, func(t *testing.T) {
			plain, other := m.Build(8), m.Build(8)
			setTwin(t, r, other, plain)
			for row := range slices.Chunk(testnet.Data(other.X), 3) {
				var x mat.VecDense
				x.MulVec(mixed, mat.NewVecDense(3, slices.Clone(row)))
				for i := range row {
					row[i] = x.AtVec(i) + shift[i]
				}
			}
			checkSamePath(t, train(t, other, c.steps, c.opts...), train(t, plain, c.steps, c.opts...))
		})
	}
}

// Rotations of everything train alike with all settings at work, damping and weight decay included.
func TestRotatedNetsTrainAlike(t *testing.T) {
	m := testnet.MLP{Widths: []int{3, 4, 2}, Cases: 40, Unit: gorgonia.Tanh, Loss: testnet.Classes}
	s := testnet.NewSketch(9)
	rotation := func(_, n int) *mat.Dense { return orthogonal(s, n) }
	plain, twin := forEach(m.Widths, rotation, rotation).twin(t, m, 10)
	opts := []Option{WithL2Reg(0.01), WithMinStatisticsCases(10), WithInverseUpdatePeriod(2)}
	checkSamePath(t, train(t, twin, 5, opts...), train(t, plain, 5, opts...))
}

// exactChain is exactStepOf with the block-tridiagonal inverse.
func exactChain(t *testing.T, n *testnet.Net) exactStep {
	t.Helper()
	e := exactStepOf(t, n, WithBlockTridiagonal())
	if blockIndex[*curvature.Chain[float64]](e.training) != 0 || len(e.plan.blocks) != 1 {
		t.Fatalf("not one chain; plan:\n%v", e.describe())
	}
	return e
}

// With the block-tridiagonal inverse a step is invariant to rotations, damping and pi included ...
func TestChainIsInvariantToRotations(t *testing.T) {
	s := testnet.NewSketch(21)
	rotation := func(_, n int) *mat.Dense { return orthogonal(s, n) }
	m := testnet.MLP{Widths: []int{3, 4, 3, 5, 2}, Cases: 12, Unit: gorgonia.Tanh, Loss: testnet.Binary}
	r := forEach(m.Widths, rotation, rotation)
	plain, twin := r.twin(t, m, 22)
	a, b := exactChain(t, plain), exactChain(t, twin)
	for _, gamma := range []float64{0.01, 0.3, 5} {
		checkSameStep(t, r, a.damped(t, gamma), b.damped(t, gamma))
	}
}

// ... and to anything else if the damping is transformed as well, A + c I and A' + c Omega Omega^T,
// G + c I and G' + c Phi^T Phi, or if there is none. F^ is regular without damping, although the
// homogeneous coordinates of all layers are the same constant: for it to be singular the gradients
// of neighbours would have to be linear functions of each other too, as with linear units.
func TestChainIsInvariant(t *testing.T) {
	s := testnet.NewSketch(23)
	r := forEach(tanhNet.Widths, nearIdentity(s), nearIdentity(s))
	plain, twin := r.twin(t, tanhNet, 24)
	a, b := exactChain(t, plain), exactChain(t, twin)
	undamped := a.damped(t, 0)
	checkSameStep(t, r, undamped, b.damped(t, 0))

	const damping = 0.2
	for i, l := range placedLayers(a.training) {
		plainA, plainG := l.factors(a.averages)
		twinA, twinG := placedLayers(b.training)[i].factors(b.averages)
		copy(plainA, flatOf(plusDiagonal(plainA, damping)))
		copy(plainG, flatOf(plusDiagonal(plainG, damping)))
		addGram(twinA, damping, r.omega[i])
		addGram(twinG, damping, mat.DenseCopyOf(r.phi[i].T()))
	}
	damped := a.damped(t, 0)
	checkSameStep(t, r, damped, b.damped(t, 0))
	if d := testnet.Distance(slices.Concat(damped...), slices.Concat(undamped...)); d < 0.1 {
		t.Errorf("damping makes a difference of no more than %g", d)
	}
}

// plusDiagonal is a factor with d added to its diagonal.
func plusDiagonal(x []float64, d float64) *mat.Dense {
	m := square(slices.Clone(x))
	for i := range m.RawMatrix().Rows {
		m.Set(i, i, m.At(i, i)+d)
	}
	return m
}

// orthogonal is a random orthogonal matrix.
func orthogonal(s *testnet.Sketch, n int) *mat.Dense {
	var qr mat.QR
	qr.Factorize(mat.NewDense(n, n, s.Normals(n*n)))
	var q mat.Dense
	qr.QTo(&q)
	return &q
}

// addGram adds c M M^T.
func addGram(to []float64, c float64, m *mat.Dense) {
	var gram mat.Dense
	gram.Mul(m, m.T())
	for i, v := range flatOf(&gram) {
		to[i] += c * v
	}
}

// Rotations of everything train alike with the block-tridiagonal inverse too, and with all settings
// at work.
func TestRotatedChainsTrainAlike(t *testing.T) {
	m := testnet.MLP{Widths: []int{3, 4, 3, 2}, Cases: 40, Unit: gorgonia.Tanh, Loss: testnet.Classes}
	s := testnet.NewSketch(25)
	rotation := func(_, n int) *mat.Dense { return orthogonal(s, n) }
	plain, twin := forEach(m.Widths, rotation, rotation).twin(t, m, 26)
	opts := []Option{WithBlockTridiagonal(), WithL2Reg(0.01), WithMinStatisticsCases(10), WithMinModelCases(20),
		WithInverseUpdatePeriod(2), WithGammaAdaptation(3, 0.95), WithDampingAdaptation(2, 0.95)}
	checkSamePath(t, train(t, twin, 8, opts...), train(t, plain, 8, opts...))
}
