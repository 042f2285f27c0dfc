package kfac_test

import (
	"reflect"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// node is gorgonia.Must.
func node(n *gorgonia.Node, err error) *gorgonia.Node { return gorgonia.Must(n, err) }

// A draft is a net whose cost is to be written, with an output of 12 cases and 4 columns.
type draft struct {
	*testnet.Net
	z      *gorgonia.Node // the output
	y      *gorgonia.Node // one-hot rows
	labels []int          // the classes of y
}

func newDraft[T testnet.Float]() draft {
	n := &testnet.Net{Sketch: testnet.NewSketchOf[T](11, 3)}
	n.X = n.Random("x", 12, 5)
	z := n.Dense("2", testnet.Tanh(n.Dense("1", n.X, 6)), 4)
	d := draft{Net: n, z: z, labels: n.SomeWords(12, 4)}
	y := make([]float64, 12*4)
	for i, class := range d.labels {
		y[4*i+class] = 1
	}
	d.y = n.Leaf("y", y, 12, 4)
	return d
}

// number is a constant in the net's dtype.
func (d draft) number(v float64) *gorgonia.Node {
	if d.Dtype == tensor.Float32 {
		return gorgonia.NewConstant(float32(v))
	}
	return gorgonia.NewConstant(v)
}

// picked is the entry of each case's class in a matrix, by a lookup in the flattened matrix.
func (d draft) picked(p *gorgonia.Node) *gorgonia.Node {
	places := make([]int, len(d.labels))
	for i, class := range d.labels {
		places[i] = 4*i + class
	}
	return node(gorgonia.ByIndices(testnet.Reshape(p, 48, 1), d.Words("places", places...), 0))
}

// bits is the binary cross-entropy of probabilities, by hand.
func (d draft) bits(p, y *gorgonia.Node) *gorgonia.Node {
	one := d.number(1)
	hit := testnet.Hadamard(y, node(gorgonia.Log(p)))
	miss := testnet.Hadamard(testnet.Sub(one, y), node(gorgonia.Log(testnet.Sub(one, p))))
	return testnet.Neg(testnet.Add(hit, miss))
}

// softmax is exp(z) / sum exp(z), by hand.
func softmax(z *gorgonia.Node) (exp, sum *gorgonia.Node) {
	exp = node(gorgonia.Exp(z))
	return exp, testnet.Reshape(testnet.Sum(exp, 1), 12, 1)
}

// classes is minus the mean of the log-probabilities of the classes.
func (d draft) classes(logp *gorgonia.Node) *gorgonia.Node {
	return testnet.Neg(testnet.Mean(testnet.Sum(testnet.Hadamard(logp, d.y), 1)))
}

// A writing is a cost as people write it, with what they would have to declare.
type writing struct {
	name  string
	write func(d draft) (cost *gorgonia.Node, declared kfac.Distribution)
	found string // in the plan
}

// of is a cost of the net's output as it is.
func of(dist func(*gorgonia.Node) kfac.Distribution, write func(d draft) *gorgonia.Node) func(
	d draft) (*gorgonia.Node, kfac.Distribution) {
	return func(d draft) (*gorgonia.Node, kfac.Distribution) { return write(d), dist(d.z) }
}

// heteroscedasticOf is the cost of a mean and the logarithm of its variance, by what their
// difference e from targets and the latter make of the square.
func heteroscedasticOf(scaled func(d draft, e, s *gorgonia.Node) *gorgonia.Node) func(
	d draft) (*gorgonia.Node, kfac.Distribution) {
	return func(d draft) (*gorgonia.Node, kfac.Distribution) {
		s := d.Dense("3", testnet.Tanh(d.z), 4)
		cost := testnet.Mean(testnet.Add(scaled(d, testnet.Sub(d.z, d.y), s), s))
		return testnet.Hadamard(d.number(0.5), cost), kfac.Heteroscedastic(d.z, s)
	}
}

var writings = []writing{
	{"LogSoftMax with one-hot targets", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		return d.classes(testnet.LogSoftMax(d.z))
	}), "log-softmax"},
	{"mean of the products, over the classes too", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		return testnet.Neg(testnet.Mean(testnet.Hadamard(testnet.LogSoftMax(d.z), d.y)))
	}), "log-softmax"},
	{"Log of SoftMax", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		return d.classes(node(gorgonia.Log(node(gorgonia.SoftMax(d.z)))))
	}), "log-softmax"},
	{"Log of SoftMax and a small number", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		return d.classes(node(gorgonia.Log(testnet.Add(node(gorgonia.SoftMax(d.z)), d.number(1e-8)))))
	}), "log of a softmax"},
	{"the sum, with the sign on the targets", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		return testnet.Sum(testnet.Hadamard(testnet.Neg(d.y), testnet.LogSoftMax(d.z)))
	}), "log-softmax"},
	{"Log of the sum of SoftMax times targets", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		p := testnet.Sum(testnet.Hadamard(node(gorgonia.SoftMax(d.z)), d.y), 1)
		return testnet.Neg(testnet.Mean(node(gorgonia.Log(p))))
	}), "log of a softmax"},
	{"Log of the entries that are looked up", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		return testnet.Neg(testnet.Mean(node(gorgonia.Log(d.picked(node(gorgonia.SoftMax(d.z)))))))
	}), "log of a softmax"},
	{"LogSoftMax, looked up", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		return testnet.Neg(testnet.Mean(d.picked(testnet.LogSoftMax(d.z))))
	}), "log-softmax"},
	{"Exp, Sum, Div and Log", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		exp, sum := softmax(d.z)
		return d.classes(node(gorgonia.Log(node(gorgonia.BroadcastHadamardDiv(exp, sum, nil, []byte{1})))))
	}), "log of a sum of exp"},
	{"z less log-sum-exp", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		_, sum := softmax(d.z)
		return d.classes(node(gorgonia.BroadcastSub(d.z, node(gorgonia.Log(sum)), nil, []byte{1})))
	}), "log of a sum of exp"},
	{"log-sum-exp of logits less their maximum", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		top := testnet.Reshape(node(gorgonia.Max(d.z, 1)), 12, 1)
		shifted := node(gorgonia.BroadcastSub(d.z, top, nil, []byte{1}))
		_, sum := softmax(shifted)
		return d.classes(node(gorgonia.BroadcastSub(shifted, node(gorgonia.Log(sum)), nil, []byte{1})))
	}), "log of a sum of exp"},
	{"BinaryXent of Sigmoid", of(kfac.Bernoulli, func(d draft) *gorgonia.Node {
		return testnet.Mean(node(gorgonia.BinaryXent(testnet.Sigmoid(d.z), d.y)))
	}), "softplus"},
	{"binary cross-entropy with Log and 1 - p", of(kfac.Bernoulli, func(d draft) *gorgonia.Node {
		return testnet.Mean(d.bits(testnet.Sigmoid(d.z), d.y))
	}), "softplus"},
	{"sigmoid by hand", of(kfac.Bernoulli, func(d draft) *gorgonia.Node {
		p := node(gorgonia.Inverse(testnet.Add(d.number(1), node(gorgonia.Exp(testnet.Neg(d.z))))))
		return testnet.Sum(d.bits(p, d.y))
	}), "log of 1 + exp"},
	{"sigmoid by hand, with Div", of(kfac.Bernoulli, func(d draft) *gorgonia.Node {
		p := node(gorgonia.Div(d.Ones("ones", 12, 4), testnet.Add(node(gorgonia.Exp(testnet.Neg(d.z))), d.number(1))))
		return testnet.Mean(testnet.Sum(d.bits(p, d.y), 1))
	}), "log of 1 + exp"},
	{"softplus less y z", of(kfac.Bernoulli, func(d draft) *gorgonia.Node {
		return testnet.Mean(testnet.Sub(testnet.Softplus(d.z), testnet.Hadamard(d.y, d.z)))
	}), "softplus"},
	{"Log1p of Exp, less y z", of(kfac.Bernoulli, func(d draft) *gorgonia.Node {
		return testnet.Sum(testnet.Sub(node(gorgonia.Log1p(node(gorgonia.Exp(d.z)))), testnet.Hadamard(d.z, d.y)))
	}), "softplus"},
	{"the largest of z and 0, less y z, and Log of 1 + exp of -|z|", of(kfac.Bernoulli, func(d draft) *gorgonia.Node {
		small := node(gorgonia.Exp(testnet.Neg(node(gorgonia.Abs(d.z)))))
		rest := node(gorgonia.Log(testnet.Add(d.number(1), small)))
		return testnet.Mean(testnet.Add(testnet.Sub(testnet.Rectify(d.z), testnet.Hadamard(d.z, d.y)), rest))
	}), "log of 1 + exp"},
	{"Mean of Square", of(kfac.SquaredError, func(d draft) *gorgonia.Node {
		return testnet.Mean(testnet.Square(testnet.Sub(d.z, d.y)))
	}), "square of a difference"},
	{"targets less the output", of(kfac.SquaredError, func(d draft) *gorgonia.Node {
		return testnet.Mean(testnet.Square(testnet.Sub(d.y, d.z)))
	}), "square of a difference"},
	{"HadamardProd of the difference with itself", of(kfac.SquaredError, func(d draft) *gorgonia.Node {
		e := testnet.Sub(d.z, d.y)
		return testnet.Mean(testnet.Hadamard(e, e))
	}), "square of a difference"},
	{"Pow", of(kfac.SquaredError, func(d draft) *gorgonia.Node {
		return testnet.Mean(node(gorgonia.Pow(testnet.Sub(d.z, d.y), d.number(2))))
	}), "square of a difference"},
	{"sum over the batch size, halved", of(kfac.SquaredError, func(d draft) *gorgonia.Node {
		sum := testnet.Sum(testnet.Square(testnet.Sub(d.z, d.y)))
		return testnet.Hadamard(node(gorgonia.Div(sum, d.number(12))), d.number(0.5))
	}), "square of a difference"},
	{"inner product of the flattened difference", of(kfac.SquaredError, func(d draft) *gorgonia.Node {
		e := testnet.Reshape(testnet.Sub(d.z, d.y), 48)
		return testnet.Mul(e, e)
	}), "square of a difference"},
	{"product of a row and a column", of(kfac.SquaredError, func(d draft) *gorgonia.Node {
		e := testnet.Reshape(testnet.Sub(d.z, d.y), 48, 1)
		return testnet.Sum(testnet.Mul(testnet.Transpose(e), e))
	}), "square of a difference"},
	{"multiplied out", of(kfac.SquaredError, func(d draft) *gorgonia.Node {
		cross := testnet.Mul(d.number(2), testnet.Hadamard(d.z, d.y))
		return testnet.Mean(testnet.Add(testnet.Sub(testnet.Square(d.z), cross), testnet.Square(d.y)))
	}), "square of a difference"},
	{"a difference in other units", of(kfac.SquaredError, func(d draft) *gorgonia.Node {
		return testnet.Mean(testnet.Square(node(gorgonia.HadamardDiv(testnet.Sub(d.z, d.y), d.number(3)))))
	}), "square of a difference"},
	{"squares of probabilities", func(d draft) (*gorgonia.Node, kfac.Distribution) {
		p := testnet.Sigmoid(d.z)
		return testnet.Mean(testnet.Square(testnet.Sub(p, d.y))), kfac.SquaredError(p)
	}, "square of a difference"},
	{"Exp less y z", of(kfac.Poisson, func(d draft) *gorgonia.Node {
		return testnet.Mean(testnet.Sub(node(gorgonia.Exp(d.z)), testnet.Hadamard(d.y, d.z)))
	}), "exp of a log rate"},
	{"the rate less y times its Log", of(kfac.Poisson, func(d draft) *gorgonia.Node {
		rate := node(gorgonia.Exp(d.z))
		return testnet.Sum(testnet.Sub(rate, testnet.Hadamard(d.y, node(gorgonia.Log(rate)))))
	}), "exp of a log rate"},
	{"Mean of Abs", of(kfac.AbsoluteError, func(d draft) *gorgonia.Node {
		return testnet.Mean(node(gorgonia.Abs(testnet.Sub(d.y, d.z))))
	}), "absolute value of a difference"},
	{"a mean and the logarithm of a variance, with Exp of its negative", heteroscedasticOf(func(d draft, e,
		s *gorgonia.Node) *gorgonia.Node {
		return testnet.Hadamard(testnet.Square(e), node(gorgonia.Exp(testnet.Neg(s))))
	}), "square of a difference over the exp of another output"},
	{"the same, with Div and a half", heteroscedasticOf(func(d draft, e, s *gorgonia.Node) *gorgonia.Node {
		return node(gorgonia.HadamardDiv(testnet.Hadamard(d.number(1), testnet.Square(e)), node(gorgonia.Exp(s))))
	}), "square of a difference over the exp of another output"},
	{"the same, with Inverse", heteroscedasticOf(func(d draft, e, s *gorgonia.Node) *gorgonia.Node {
		return testnet.Hadamard(node(gorgonia.Inverse(node(gorgonia.Exp(s)))), testnet.Square(e))
	}), "square of a difference over the exp of another output"},
	{"a mean and a variance in slices of one output", func(d draft) (*gorgonia.Node, kfac.Distribution) {
		m, s := node(gorgonia.Slice(d.z, nil, gorgonia.S(0))), node(gorgonia.Slice(d.z, nil, gorgonia.S(1)))
		e := testnet.Square(testnet.Sub(m, d.Random("t", 12)))
		cost := testnet.Mean(testnet.Add(s, testnet.Hadamard(e, node(gorgonia.Exp(testnet.Neg(s))))))
		return cost, kfac.Heteroscedastic(m, s)
	}, "square of a difference over the exp of another output"},
	{"classes along the channels of an image", func(d draft) (*gorgonia.Node, kfac.Distribution) {
		z := testnet.Reshape(d.z, 12, 2, 1, 2)
		logs := node(gorgonia.LogSoftMax(z, 1))
		// The classes of the positions (0, 0) and (0, 1) of a case in turn.
		y := node(gorgonia.Transpose(d.Leaf("t", testnet.OneHots(d.Rng, 24, 2), 12, 1, 2, 2), 0, 3, 1, 2))
		return testnet.Neg(testnet.Mean(testnet.Hadamard(logs, y))), kfac.Categorical(logs)
	}, "log-softmax"},
	{"one logit less than there are classes", func(d draft) (*gorgonia.Node, kfac.Distribution) {
		z := node(gorgonia.Concat(1, d.z, d.Constant("none", 0, 12, 1)))
		y := d.Leaf("t", testnet.OneHots(d.Rng, 12, 5), 12, 5)
		return testnet.Neg(testnet.Mean(testnet.Hadamard(testnet.LogSoftMax(z), y))), kfac.Categorical(z)
	}, "log-softmax"},
	{"targets that are a constant", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		y := gorgonia.NewConstant(d.y.Value(), gorgonia.WithName("constant"))
		return testnet.Neg(testnet.Mean(testnet.Sum(testnet.Hadamard(testnet.LogSoftMax(d.z), y), 1)))
	}), "log-softmax"},
	{"a variational autoencoder", func(d draft) (*gorgonia.Node, kfac.Distribution) {
		logVar := d.Dense("3", d.z, 4)
		std := node(gorgonia.Exp(testnet.Hadamard(d.number(0.5), logVar)))
		decoded := d.Dense("4", testnet.Add(d.z, testnet.Hadamard(d.Random("noise", 12, 4), std)), 5)
		parts := testnet.Sub(testnet.Add(testnet.Square(d.z), node(gorgonia.Exp(logVar))), logVar)
		divergence := testnet.Hadamard(d.number(0.5), testnet.Mean(testnet.Sum(parts, 1)))
		squares := testnet.Mean(testnet.Sum(testnet.Square(testnet.Sub(decoded, d.X)), 1))
		return testnet.Add(squares, divergence),
			kfac.Joint(kfac.SquaredError(d.z), kfac.Poisson(logVar), kfac.SquaredError(decoded))
	}, "square of a difference"},
	{"with a penalty on the weights", of(kfac.Categorical, func(d draft) *gorgonia.Node {
		cost := d.classes(testnet.LogSoftMax(d.z))
		for _, w := range d.Params {
			cost = testnet.Add(cost, testnet.Hadamard(d.number(1e-3), testnet.Sum(testnet.Square(w))))
		}
		return cost
	}), "log-softmax"},
	{"with a penalty on the weights, whose weight is an input", of(kfac.SquaredError, func(d draft) *gorgonia.Node {
		cost := testnet.Mean(testnet.Square(testnet.Sub(d.z, d.y)))
		return testnet.Add(testnet.Mul(d.Scalar("strength", 1e-3), testnet.Sum(node(gorgonia.Abs(d.Params[0])))), cost)
	}), "square of a difference"},
	{"two heads", func(d draft) (*gorgonia.Node, kfac.Distribution) {
		other := d.Dense("3", d.z, 3)
		squares := testnet.Mean(testnet.Square(testnet.Sub(other, d.Random("t", 12, 3))))
		classes := d.classes(testnet.LogSoftMax(d.z))
		return testnet.Add(testnet.Hadamard(d.number(0.3), squares), classes),
			kfac.Joint(kfac.Categorical(d.z), kfac.SquaredError(other))
	}, "log-softmax"},
	{"two heads of one kind", func(d draft) (*gorgonia.Node, kfac.Distribution) {
		a, b := d.Dense("3", testnet.Tanh(d.z), 4), d.Dense("4", testnet.Tanh(d.z), 4)
		cost := testnet.Add(d.classes(testnet.LogSoftMax(a)), d.classes(testnet.LogSoftMax(b)))
		return cost, kfac.Joint(kfac.Categorical(a), kfac.Categorical(b))
	}, "log-softmax"},
	{"a gate before the logits", func(d draft) (*gorgonia.Node, kfac.Distribution) {
		gated := testnet.Hadamard(testnet.Sigmoid(d.z), testnet.Tanh(d.Dense("3", d.z, 4)))
		return testnet.Mean(testnet.Sub(testnet.Softplus(gated), testnet.Hadamard(d.y, gated))), kfac.Bernoulli(gated)
	}, "softplus"},
	{"distances as logits", func(d draft) (*gorgonia.Node, kfac.Distribution) {
		far := testnet.Neg(testnet.Square(testnet.Sub(d.z, d.Random("centres", 12, 4))))
		_, sum := softmax(far)
		return d.classes(node(gorgonia.BroadcastSub(far, node(gorgonia.Log(sum)), nil, []byte{1}))),
			kfac.Categorical(far)
	}, "log of a sum of exp"},
}

// What New finds is what a user would declare: training is the same to the last bit.
func TestInference(t *testing.T) {
	t.Run("float64", testInference[float64])
	t.Run("float32", testInference[float32])
}

func testInference[T testnet.Float](t *testing.T) {
	for _, w := range writings {
		t.Run(w.name, func(t *testing.T) {
			var weights [2][]float64
			var trainers [2]*kfac.Trainer
			for i := range 2 {
				d := newDraft[T]()
				cost, declared := w.write(d)
				d.Cost = cost
				tr := &kfac.Trainer{Net: d.Net, Solver: kfac.New()}
				if i == 1 {
					var err error
					tr.Solver, err = kfac.NewSolver(cost, declared)
					testnet.Check(t, err)
				}
				tr.Run = testnet.Machines["BindDualValues"](t, d.Net)
				trainers[i] = tr
				tr.Steps(t, 5)
				weights[i] = testnet.Weights(d.Params)
			}
			testnet.SameBits(t, "weights", weights[0], weights[1])
			inferred, declared := trainers[0].Solver.Plan(), trainers[1].Solver.Plan()
			if !strings.HasSuffix(inferred.Losses[0], ", inferred from the cost: "+w.found) {
				t.Errorf("the plan says %q, want %q", inferred.Losses, w.found)
			}
			for i, l := range inferred.Losses {
				inferred.Losses[i], _, _ = strings.Cut(l, ", inferred")
			}
			if a, b := inferred.String(), declared.String(); a != b {
				t.Errorf("the plan is\n%s\nwhere a declared one is\n%s", a, b)
			}
		})
	}
}

// Graphs that are rebuilt are attached as they come, on tape machines and on LispMachines.
func TestNewFollowsRebuiltGraphs(t *testing.T) {
	for _, name := range []string{"BindDualValues", "LispMachine"} {
		t.Run(name, func(t *testing.T) {
			t.Run("float64", func(t *testing.T) { testNewFollows[float64](t, name) })
			t.Run("float32", func(t *testing.T) { testNewFollows[float32](t, name) })
		})
	}
}

func testNewFollows[T testnet.Float](t *testing.T, machine string) {
	var weights [2][]float64
	for i := range 2 {
		m := recurrent[T]()
		var solver *kfac.Solver
		if i == 0 {
			solver = kfac.New()
		}
		for k := range uint64(6) {
			n := m.graph(newBatch(k, 6+2*int(k%2), 2+int(k%3)), testnet.CrossEntropy)
			run := testnet.Machines[machine](t, n)
			testnet.Check(t, run())
			if i == 1 {
				if solver == nil {
					solver = kfac.NewSolverOf(t, n)
				} else {
					testnet.Check(t, solver.Attach(n.Cost, kfac.Declared(n)))
				}
			}
			if k == 3 {
				testnet.Check(t, solver.Accumulate(n.ValueGrads()))
				continue
			}
			testnet.Check(t, solver.Step(n.ValueGrads()))
			weights[i] = testnet.Weights(n.Params)
		}
	}
	testnet.SameBits(t, "weights", weights[0], weights[1])
}

// A library is one that takes a solver before there is a graph, as several do: it knows no more of
// it than that it is a gorgonia.Solver.
type library struct {
	solver gorgonia.Solver
	net    *testnet.Net
	run    testnet.Machine
}

func (l *library) compile(t *testing.T) {
	l.net = testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
	l.run = testnet.Machines["BindDualValues"](t, l.net)
}

func (l *library) fit(steps int) error {
	for range steps {
		if err := l.run(); err != nil {
			return err
		}
		if err := l.solver.Step(gorgonia.NodesToValueGrads(l.net.Params)); err != nil {
			return err
		}
	}
	return nil
}

func TestNewInsideALibrary(t *testing.T) {
	l := &library{solver: kfac.New()}
	l.compile(t)
	testnet.Check(t, l.fit(5))
	testnet.SameBits(t, "weights", testnet.Weights(l.net.Params), trained(t, 5))
}

// An input that is listed with the parameters is no parameter: Step refuses it by its name, and a
// VM is made for it, whose gradient is then wanted.
func TestNewIsGivenAnInput(t *testing.T) {
	n := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
	run := testnet.Machines["BindDualValues"](t, n)
	testnet.Check(t, run())
	refused(t, kfac.New().Step(gorgonia.NodesToValueGrads(append(gorgonia.Nodes{n.X}, n.Params...))),
		kfac.ErrNoGradient, `"x"`)

	solver := kfac.New()
	vm, err := solver.VM(n.Cost, n.X)
	testnet.Check(t, err)
	testnet.Check(t, vm.RunAll())
	testnet.Check(t, solver.Step(gorgonia.NodesToValueGrads(n.Params)))
	if grad, err := n.X.Grad(); err != nil || grad == nil {
		t.Errorf("the gradient of the input is %v, error %v", grad, err)
	}
}

// Without Grad the solver's VM is told what is trained. Where it is not, it says so, and does not
// blame the cost.
func TestNewOnItsOwnVMWithoutGrad(t *testing.T) {
	var weights [2][]float64
	for i := range 2 {
		n := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
		solver := kfac.New()
		nodes := gorgonia.Nodes{n.Cost}
		if i == 0 {
			n.Grad(t)
		} else {
			_, err := solver.VM(n.Cost)
			refused(t, err, kfac.ErrNotInferred, "Grad was not called")
			nodes = append(nodes, n.Params...)
		}
		vm, err := solver.VM(nodes...)
		testnet.Check(t, err)
		tr := &kfac.Trainer{Net: n, Run: vm.RunAll, Solver: solver}
		tr.Steps(t, 5)
		weights[i] = testnet.Weights(n.Params)
	}
	testnet.SameBits(t, "weights", weights[0], weights[1])
}

// A Step that fails leaves a solver of New as it was, with the graph that it had or with none.
func TestNewAfterAFailure(t *testing.T) {
	twin, other := classifier(t), classifier(t)
	tr := &kfac.Trainer{Net: testnet.NewMLP[float64](1, small, testnet.CrossEntropy), Solver: kfac.New()}
	tr.Run = testnet.Machines["BindDualValues"](t, tr.Net)

	empty := tr.Solver.Plan().String()
	refused(t, tr.Solver.Step(tr.ValueGrads()), kfac.ErrNoGradient, "RunAll")
	if plan := tr.Solver.Plan().String(); plan != empty {
		t.Errorf("after an error at the first Step there is a plan:\n%s", plan)
	}
	single := testnet.NewMLP[float32](1, small, testnet.CrossEntropy)
	single.Grad(t)
	refused(t, tr.Solver.Step(single.ValueGrads()), kfac.ErrNoGradient, "RunAll") // decides about no dtype
	tr.Steps(t, 2)
	twin.Steps(t, 2)

	testnet.Check(t, other.Run())
	before := stateOf(tr.Params, tr, tr.Solver)
	refused(t, tr.Solver.Step(other.ValueGrads()), kfac.ErrOtherWeights, "WithValue(old.Value())")
	refused(t, tr.Solver.Accumulate(single.ValueGrads()), nil, "float32")
	before.unchanged(t, tr.Params, tr, tr.Solver)
	tr.Steps(t, 3)
	twin.Steps(t, 3)
	testnet.SameBits(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params))
}

// What a solver of New can't do before it has a graph is an error, and so is each call of one with
// a wrong option.
func TestNewWithoutAGraph(t *testing.T) {
	tr := classifier(t)
	s := kfac.New()
	_, err := s.UseAverage()
	refused(t, err, nil, "UseAverage", "no graph yet", "a Step")
	refused(t, s.Step(nil), kfac.ErrNoGradient, "NodesToValueGrads")
	if plan := s.Plan(); len(plan.Params) > 0 || !reflect.DeepEqual(s.Stats(), kfac.Stats{}) {
		t.Errorf("plan %v, stats %v", plan, s.Stats())
	}
	testnet.Check(t, tr.Run())
	for _, o := range []kfac.Option{nil, kfac.WithDamping(-1)} {
		s := kfac.New(o)
		refused(t, s.Step(tr.ValueGrads()), nil, "got", "want")
		refused(t, s.Accumulate(tr.ValueGrads()), nil, "got", "want")
		refused(t, s.Attach(tr.Cost, kfac.Categorical(tr.Out)), nil, "got", "want")
	}
}

// A distribution that can't be inferred is declared by Attach, before the first Step.
func TestNewDeclaredByAttach(t *testing.T) {
	tr := classifier(t)
	tr.Solver = kfac.New()
	testnet.Check(t, tr.Solver.Attach(tr.Cost, kfac.Categorical(tr.Out)))
	tr.Steps(t, 5)
	testnet.SameBits(t, "weights", testnet.Weights(tr.Params), trained(t, 5))
}

// What can't be told from the graph is an error that names the candidates and the line to write.
func TestNotInferred(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(d draft) *gorgonia.Node
		is    error
		words []string
	}{
		{"hinge errors", func(d draft) *gorgonia.Node {
			return testnet.Mean(testnet.Rectify(testnet.Sub(d.number(1), testnet.Hadamard(d.z, d.y))))
		}, kfac.ErrNotInferred, []string{"of shape (12, 4)", "kfac.NewSolver(cost, ", "solver.Attach(cost, ",
			"kfac.GaussNewton(z)"}},
		{"a likelihood and another term", func(d draft) *gorgonia.Node {
			return testnet.Add(d.classes(testnet.LogSoftMax(d.z)), testnet.Mean(testnet.Tanh(d.Dense("3", d.X, 2))))
		}, kfac.ErrNotInferred, []string{"kfac.NewSolver(cost, kfac.Categorical("}},
		{"no logarithm", func(d draft) *gorgonia.Node {
			return testnet.Neg(testnet.Mean(testnet.Hadamard(node(gorgonia.SoftMax(d.z)), d.y)))
		}, kfac.ErrLoss, []string{"Categorical", "logarithm is missing", "kfac.Policy"}},
		{"the root of a mean", func(d draft) *gorgonia.Node {
			return node(gorgonia.Sqrt(testnet.Mean(testnet.Square(testnet.Sub(d.z, d.y)))))
		}, kfac.ErrLoss, []string{"SquaredError", "root"}},
		{"another axis", func(d draft) *gorgonia.Node { return d.classes(testnet.SoftMax(d.z, 0)) }, kfac.ErrLoss,
			nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDraft[float64]()
			d.Cost = c.write(d)
			tr := &kfac.Trainer{Net: d.Net, Run: testnet.Machines["BindDualValues"](t, d.Net), Solver: kfac.New()}
			before := testnet.Weights(d.Params)
			refused(t, tr.Try(), c.is, c.words...)
			testnet.SameBits(t, "weights", testnet.Weights(d.Params), before)
		})
	}
}

// Of several costs in a graph, of other solvers say, the one counts whose gradients Step is given.
func TestTheCostOfTheGradients(t *testing.T) {
	t.Run("float64", testTheCostOfTheGradients[float64])
	t.Run("float32", testTheCostOfTheGradients[float32])
}

func testTheCostOfTheGradients[T testnet.Float](t *testing.T) {
	d := newDraft[T]()
	d.Cost = testnet.Mean(testnet.Sub(testnet.Softplus(d.z), testnet.Hadamard(d.y, d.z)))
	tr := &kfac.Trainer{Net: d.Net, Solver: kfac.New()}
	d.Grad(t)
	// A solver of its own trains the weights that follow, but it depends on all.
	w := d.Random("w", 5, 6)
	hidden := testnet.Mul(d.Random("other x", 3, 5), d.Params[0])
	_, err := gorgonia.Grad(testnet.Mean(testnet.Square(testnet.Mul(hidden, testnet.Transpose(w)))), w)
	testnet.Check(t, err)
	tr.Run = testnet.DualTape(d.Net)
	tr.Steps(t, 3)
	if losses := tr.Solver.Plan().Losses; len(losses) != 1 || !strings.HasPrefix(losses[0], "Bernoulli") {
		t.Errorf("the plan says %q", losses)
	}
}

// Where two scalars may be the cost the error lists both. A Read, or a figure beside the cost, is
// none.
func TestWhichIsTheCost(t *testing.T) {
	for _, name := range []string{"BindDualValues", "LispMachine"} {
		d := newDraft[float64]()
		d.Cost = testnet.Mean(testnet.Square(testnet.Sub(d.z, d.y)))
		var v gorgonia.Value
		gorgonia.Read(d.Cost, &v)
		tr := &kfac.Trainer{Net: d.Net, Run: testnet.Machines[name](t, d.Net), Solver: kfac.New()}
		if name == "BindDualValues" {
			testnet.Mean(d.z)
		}
		tr.Steps(t, 2)
	}
	d := newDraft[float64]()
	d.Cost = testnet.Mean(testnet.Square(testnet.Sub(d.z, d.y)))
	testnet.Mean(testnet.Tanh(d.z))
	testnet.Check(t, gorgonia.NewLispMachine(d.Graph).RunAll())
	refused(t, kfac.New().Step(d.ValueGrads()), kfac.ErrNotInferred, "2 scalars", "SubgraphRoots(cost)",
		"kfac.NewSolver(cost, ")

	d = newDraft[float64]()
	d.Cost = testnet.Mean(testnet.Square(testnet.Sub(d.z, d.y)))
	testnet.Mean(testnet.Tanh(d.z))
	testnet.Check(t, gorgonia.NewLispMachine(d.Graph.SubgraphRoots(d.Cost)).RunAll())
	testnet.Check(t, kfac.New().Step(d.ValueGrads()))
}

// The solver's own VM, too, needs no more than the cost.
func TestNewOnItsOwnVM(t *testing.T) {
	var weights [2][]float64
	for i := range 2 {
		n := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
		n.Grad(t)
		solver := kfac.New()
		nodes := gorgonia.Nodes{n.Cost}
		if i == 0 {
			_, err := solver.VM()
			refused(t, err, nil, "solver.VM(cost)")
		} else {
			solver, nodes = kfac.NewSolverOf(t, n), nil
		}
		vm, err := solver.VM(nodes...)
		testnet.Check(t, err)
		tr := &kfac.Trainer{Net: n, Run: vm.RunAll, Solver: solver}
		tr.Steps(t, 5)
		weights[i] = testnet.Weights(n.Params)
	}
	testnet.SameBits(t, "weights", weights[0], weights[1])
}
