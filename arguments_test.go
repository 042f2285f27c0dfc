package kfac_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A Solver that NewSolver has not made answers with errors, or with nothing, and does not panic.
func TestSolverThatWasNotMade(t *testing.T) {
	tr := classifier(t)
	testnet.Check(t, tr.Run())
	weights, gradients := testnet.Weights(tr.Params), testnet.Gradients(t, tr.Params)
	for name, s := range map[string]*kfac.Solver{"nil": nil, "zero": {}} {
		for call, f := range map[string]func() error{
			"Step":           func() error { return s.Step(tr.ValueGrads()) },
			"Step of none":   func() error { return s.Step(nil) },
			"Accumulate":     func() error { return s.Accumulate(tr.ValueGrads()) },
			"Attach":         func() error { return s.Attach(tr.Cost, kfac.Categorical(tr.Out)) },
			"Attach to none": func() error { return s.Attach(nil, nil) },
			"UseAverage": func() error {
				restore, err := s.UseAverage()
				if restore != nil {
					t.Error("a restore beside an error")
				}
				return err
			},
		} {
			t.Run(name+", "+call, func(t *testing.T) {
				err := attempt(t, f)
				var ce *kfac.ConfigError
				if !errors.As(err, &ce) || ce.Setting != strings.Fields(call)[0] {
					t.Errorf("%T, want a ConfigError of that call: %v", err, err)
				}
				refused(t, err, nil, "zero Solver", "NewSolver")
			})
		}
		if plan := s.Plan(); len(plan.Params) > 0 || !reflect.DeepEqual(s.Stats(), kfac.Stats{}) {
			t.Errorf("%s: plan %v, stats %v", name, plan, s.Stats())
		}
	}
	testnet.SameBits(t, "weights", testnet.Weights(tr.Params), weights)
	testnet.SameBits(t, "gradients", testnet.Gradients(t, tr.Params), gradients)
}

// What is wrong for NewSolver is wrong for Attach, which changes nothing then.
func TestBadArgumentsOfAttach(t *testing.T) {
	tr, twin := classifier(t), classifier(t)
	tr.Steps(t, 2)
	twin.Steps(t, 2)
	for _, c := range []struct {
		name  string
		cost  *gorgonia.Node
		dist  kfac.Distribution
		words []string
	}{
		{"no cost", nil, kfac.Categorical(tr.Out), []string{"cost", "nil"}},
		{"no distribution", tr.Cost, nil, []string{"distribution", "Categorical"}},
		{"an embedded nil for a distribution", tr.Cost, struct{ kfac.Distribution }{},
			[]string{"not made by this package"}},
		{"no output", tr.Cost, kfac.Categorical(nil), []string{"Categorical", "nil"}},
		{"cost without a type", untyped(tr.Net), kfac.Categorical(tr.Out), []string{"cost", "no type"}},
		{"output without a type", tr.Cost, kfac.Gaussian(untyped(tr.Net), 1), []string{"Gaussian", "no type"}},
		{"cost that is no scalar", tr.Out, kfac.Categorical(tr.Out), []string{"cost", "Mean or Sum"}},
	} {
		before := stateOf(tr.Params, tr, tr.Solver)
		err := attempt(t, func() error { return tr.Solver.Attach(c.cost, c.dist) })
		refused(t, err, nil, c.words...)
		before.unchanged(t, tr.Params, tr, tr.Solver)
	}
	tr.Steps(t, 3)
	twin.Steps(t, 3)
	testnet.SameBits(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params))
}

// An emptied net has a node of size zero, which Gorgonia builds and does not run.
type emptied struct {
	name  string
	node  string // that the error names
	build func(n *testnet.Net)
}

// hollow is an input of a shape with a 0 in it, with a value if it is given one.
func hollow(n *testnet.Net, name string, valued bool, shape ...int) *gorgonia.Node {
	opts := []gorgonia.NodeConsOpt{gorgonia.WithShape(shape...), gorgonia.WithName(name)}
	if valued {
		opts = append(opts, gorgonia.WithValue(tensor.New(tensor.WithShape(shape...), tensor.Of(tensor.Float64))))
	}
	return gorgonia.NewMatrix(n.Graph, tensor.Float64, opts...)
}

func emptiedNets() (all []emptied) {
	for _, shape := range [][]int{{0, 3}, {3, 0}, {0, 0}} {
		for _, valued := range []bool{true, false} {
			all = append(all, emptied{fmt.Sprint("beside the layers ", shape, valued), "hole", func(n *testnet.Net) {
				hole := hollow(n, "hole", valued, shape...)
				n.Params = append(n.Params, hole)
				n.Ends(n.Layer(n.X, 0, 4, 3, true, false), testnet.Squares(1))
				n.Cost = testnet.Add(n.Cost, testnet.Sum(testnet.Square(hole)))
			}})
		}
	}
	return append(all,
		emptied{"a layer of no units", "hole", func(n *testnet.Net) {
			hole, next := hollow(n, "hole", true, 4, 0), hollow(n, "next", true, 0, 3)
			n.Params = append(n.Params, hole, next)
			n.Ends(testnet.Mul(testnet.Mul(n.X, hole), next), testnet.Squares(1))
		}},
		emptied{"no cases", "x", func(n *testnet.Net) {
			n.X = hollow(n, "x", true, 0, 4)
			n.Targets(hollow(n, "y", true, 0, 3))
			n.Ends(n.Layer(n.X, 0, 4, 3, true, false), testnet.Squares(1))
		}},
		emptied{"no outputs", "hole", func(n *testnet.Net) {
			hole := hollow(n, "hole", true, 4, 0)
			n.Params = append(n.Params, hole)
			n.Targets(hollow(n, "y", true, 5, 0))
			n.Ends(testnet.Mul(n.X, hole), testnet.Squares(1))
		}})
}

// A parameter without elements, and a batch without cases, are named when the graph is read, before
// Gorgonia's VM gets to them: that panics in a goroutine of its own, where nobody can recover it.
func TestNothingEmpty(t *testing.T) {
	for _, e := range emptiedNets() {
		t.Run(e.name, func(t *testing.T) {
			n := testnet.NewNet(1)
			n.X = n.Random("x", 5, 4)
			e.build(n)
			err := attempt(t, func() error { _, err := kfac.NewSolver(n.Cost, kfac.Declared(n)); return err })
			refused(t, err, kfac.ErrEmpty, `"`+e.node+`"`, "0")

			tr, twin := classifier(t), classifier(t)
			tr.Steps(t, 1)
			twin.Steps(t, 1)
			err = attempt(t, func() error { return tr.Solver.Attach(n.Cost, kfac.Declared(n)) })
			refused(t, err, kfac.ErrEmpty, `"`+e.node+`"`)
			tr.Steps(t, 2)
			twin.Steps(t, 2)
			testnet.SameBits(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params))
		})
	}
}

// A cost that the machine does not compute is none that is not finite.
func TestCostThatTheMachineDoesNotKeep(t *testing.T) {
	m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
	m.Grad(t)
	var wanted gorgonia.Nodes
	for _, p := range m.Params {
		wanted = append(wanted, p.Deriv())
	}
	prog, locMap, err := gorgonia.CompileFunction(m.Graph, append(gorgonia.Nodes{m.X, m.Y}, m.Params...), wanted)
	testnet.Check(t, err)
	tr := &kfac.Trainer{Net: m, Solver: kfac.NewSolverOf(t, m),
		Run: testnet.Tape(m, gorgonia.WithPrecompiled(prog, locMap), gorgonia.BindDualValues(m.Params...))}
	twin := classifier(t)
	for range 6 {
		tr.Steps(t, 1)
		twin.Steps(t, 1)
		if cost := tr.Solver.Stats().Cost; m.Cost.Value() != nil || cost == cost {
			t.Fatalf("the cost is %v, %v in Stats: nothing is tested", m.Cost.Value(), cost)
		}
	}
	testnet.Near(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params), 1e-6)
}

// Two parameters may not share memory, when they are first read and whenever a value has been
// exchanged since.
func TestSharedMemory(t *testing.T) {
	of := func(shape ...int) *tensor.Dense {
		n := tensor.Shape(shape).TotalSize()
		return testnet.Tensor(tensor.Float64, testnet.NewSketch(9).Normals(n), shape...)
	}
	part := func(d *tensor.Dense, by ...tensor.Slice) *tensor.Dense {
		view, err := d.Slice(by...)
		testnet.Check(t, err)
		return view.(*tensor.Dense)
	}
	for _, c := range []struct {
		name   string
		values func() (u, v gorgonia.Value)
		shared bool
	}{
		{"one tensor", func() (u, v gorgonia.Value) { d := of(3, 2); return d, d }, true},
		{"two headers of one memory", func() (u, v gorgonia.Value) {
			d := of(3, 2)
			return d, d.ShallowClone()
		}, true},
		{"overlapping rows", func() (u, v gorgonia.Value) {
			d := of(5, 2)
			return part(d, gorgonia.S(0, 3)), part(d, gorgonia.S(2, 5))
		}, true},
		{"overlapping columns", func() (u, v gorgonia.Value) {
			d := of(3, 3)
			return part(d, nil, gorgonia.S(0, 2)), part(d, nil, gorgonia.S(1, 3))
		}, true},
		{"a tensor and a view of it", func() (u, v gorgonia.Value) {
			d := of(3, 2)
			return d, part(d, nil, gorgonia.S(0, 2))
		}, true},
		{"disjoint rows", func() (u, v gorgonia.Value) {
			d := of(6, 2)
			return part(d, gorgonia.S(0, 3)), part(d, gorgonia.S(3, 6))
		}, false},
		{"disjoint columns", func() (u, v gorgonia.Value) {
			d := of(3, 4)
			return part(d, nil, gorgonia.S(0, 2)), part(d, nil, gorgonia.S(2, 4))
		}, false},
		{"every other column", func() (u, v gorgonia.Value) {
			d := of(3, 4)
			return part(d, nil, gorgonia.S(0, 4, 2)), part(d, nil, gorgonia.S(1, 4, 2))
		}, false},
	} {
		for _, done := range []int{0, 3} {
			t.Run(fmt.Sprint(c.name, "/", done), func(t *testing.T) {
				tr, twin := pair(t), pair(t)
				tr.Steps(t, done)
				twin.Steps(t, done)
				own := [2]gorgonia.Value{tr.Params[0].Value(), tr.Params[1].Value()}
				u, v := c.values()
				if !c.shared { // the same numbers elsewhere
					for i, view := range []gorgonia.Value{u, v} {
						overwrite(view.(*tensor.Dense), testnet.Numbers(own[i]))
					}
				}
				testnet.Check(t, gorgonia.UnsafeLet(tr.Params[0], u))
				testnet.Check(t, gorgonia.UnsafeLet(tr.Params[1], v))
				if !c.shared {
					tr.Steps(t, 4)
					twin.Steps(t, 4)
					testnet.Near(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params), 1e-9)
					return
				}
				testnet.Check(t, tr.Run())
				tr.refusesShared(t, `"u and v"`)
				testnet.Check(t, gorgonia.UnsafeLet(tr.Params[0], own[0]))
				testnet.Check(t, gorgonia.UnsafeLet(tr.Params[1], own[1]))
				testnet.ZeroGradients(tr.Params)
				tr.Steps(t, 4)
				twin.Steps(t, 4)
				testnet.SameBits(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params))
			})
		}
	}
}

// A pairOfWeights is a training of two weights u and v of one shape, and two numbers a and b.
type pairOfWeights struct{ *kfac.Trainer }

func pair(t *testing.T) pairOfWeights {
	t.Helper()
	n := testnet.NewNet(4)
	x, y := n.Random("x", 6, 3), n.Random("z", 6, 3)
	u, v, a, b := n.Random("u", 3, 2), n.Random("v", 3, 2), n.Scalar("a", 0.7), n.Scalar("b", 1.3)
	n.Params = gorgonia.Nodes{u, v, a, b}
	one := n.Ones("one", 3, 2) // Gorgonia multiplies by views of columns as if they were whole tensors
	of := func(x, w *gorgonia.Node) *gorgonia.Node { return testnet.Mul(x, testnet.Hadamard(w, one)) }
	h := testnet.Hadamard(testnet.Tanh(testnet.Add(of(x, u), of(y, v))), a)
	n.Ends(testnet.Add(h, b), testnet.Squares(1))
	return pairOfWeights{kfac.NewTrainer(t, n)}
}

// overwrite gives a view new numbers, in row-major order.
func overwrite(d *tensor.Dense, to []float64) {
	testnet.EachElement(d, func(at, i int) { d.Set(at, to[i]) })
}

func (tr pairOfWeights) refusesShared(t *testing.T, names string) {
	t.Helper()
	before := stateOf(tr.Params, tr.Trainer, tr.Solver)
	for _, f := range []func([]gorgonia.ValueGrad) error{tr.Solver.Step, tr.Solver.Accumulate} {
		refused(t, attempt(t, func() error { return f(tr.ValueGrads()) }), kfac.ErrSharedMemory, names, "of its own")
		before.unchanged(t, tr.Params, tr.Trainer, tr.Solver)
	}
}

// Two parameters that are one number. It is found also where only one of them was exchanged.
func TestSharedNumber(t *testing.T) {
	for _, done := range []int{0, 3} {
		tr, twin := pair(t), pair(t)
		tr.Steps(t, done)
		twin.Steps(t, done)
		b := tr.Params[3].Value()
		testnet.Check(t, gorgonia.UnsafeLet(tr.Params[3], tr.Params[2].Value()))
		testnet.Check(t, tr.Run())
		tr.refusesShared(t, `"a and b"`)
		testnet.Check(t, gorgonia.UnsafeLet(tr.Params[3], b))
		testnet.ZeroGradients(tr.Params)
		tr.Steps(t, 4)
		twin.Steps(t, 4)
		testnet.SameBits(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params))
	}
}
