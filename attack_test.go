package kfac

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A meddler is an op that returns its operand, and does something else first.
type meddler struct {
	fuse
	meddle *func(x *tensor.Dense)
}

func newMeddler() (op meddler, meddle *func(x *tensor.Dense)) {
	meddle = new(func(*tensor.Dense))
	*meddle = func(*tensor.Dense) {}
	return meddler{fuse{fuseState: &fuseState{}}, meddle}, meddle
}

func (m meddler) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	y := in[0].(*tensor.Dense).Clone().(*tensor.Dense)
	(*m.meddle)(in[0].(*tensor.Dense))
	return y, nil
}

// newMeddled is a net with a meddler behind an input, a parameter or a layer.
func newMeddled(where string) (n *testnet.Net, meddle *func(x *tensor.Dense)) {
	op, meddle := newMeddler()
	at := func(here string, x *gorgonia.Node) *gorgonia.Node {
		if here == where {
			return gorgonia.Must(gorgonia.ApplyOp(op, x))
		}
		return x
	}
	n = testnet.NewNet(4)
	n.X = n.Random("x", 6, 3)
	h := tanh(addRow(mul(at("input", n.X), at("parameter", n.Param("w", 3, 4))), n.Param("b", 1, 4)))
	return n.Ends(n.Dense("2", at("layer", h), 2), testnet.Squares(1)), meddle
}

var meddlers = []string{"input", "parameter", "layer"}

// An op that writes to its operands in the private runs changes nothing, and not the step either.
func TestOpsThatWriteToOperands(t *testing.T) {
	for _, where := range meddlers {
		t.Run(where, func(t *testing.T) {
			var weights, inputs [2][]float64
			for i := range 2 {
				n, meddle := newMeddled(where)
				tr := NewTrainer(t, n)
				for range 3 {
					testnet.Check(t, tr.Run())
					if i > 0 {
						*meddle = func(x *tensor.Dense) { x.Zero() }
					}
					testnet.Check(t, tr.Solver.Step(n.ValueGrads()))
					*meddle = func(*tensor.Dense) {}
				}
				weights[i], inputs[i] = testnet.Weights(n.Params), testnet.Numbers(n.X.Value())
			}
			testnet.SameBits(t, "weights", weights[1], weights[0])
			testnet.SameBits(t, "input", inputs[1], inputs[0])
		})
	}
}

// A call during another one is refused, and the other one goes on.
func TestCallsDuringCalls(t *testing.T) {
	calls := map[string]func(tr *Trainer) error{
		"Step":       func(tr *Trainer) error { return tr.Solver.Step(tr.ValueGrads()) },
		"Accumulate": func(tr *Trainer) error { return tr.Solver.Accumulate(tr.ValueGrads()) },
		"Attach":     func(tr *Trainer) error { return tr.Solver.Attach(tr.Cost, Declared(tr.Net)) },
		"UseAverage": func(tr *Trainer) error { _, err := tr.Solver.UseAverage(); return err },
	}
	for name, inner := range calls {
		t.Run(name, func(t *testing.T) {
			n, meddle := newMeddled("layer")
			tr := NewTrainer(t, n, WithIterateAveraging(0.9, 1))
			tr.Steps(t, 2)
			testnet.Check(t, tr.Run())
			refused := 0
			*meddle = func(*tensor.Dense) {
				var c *ConfigError
				if err := inner(tr); !errors.As(err, &c) || c.Setting != name {
					t.Errorf("error %v", err)
				}
				refused++
			}
			testnet.Check(t, tr.Solver.Step(n.ValueGrads()))
			if refused == 0 {
				t.Error("no call was tried")
			}
			*meddle = func(*tensor.Dense) {}
			tr.Steps(t, 2)
		})
	}
}

// Where an op ends the goroutine nothing has happened.
func TestGoexitInOp(t *testing.T) {
	n, meddle := newMeddled("layer")
	tr := NewTrainer(t, n)
	tr.Steps(t, 2)
	testnet.Check(t, tr.Run())
	before := testnet.Weights(n.Params)
	*meddle = func(*tensor.Dense) { runtime.Goexit() }
	done := make(chan struct{})
	go func() {
		defer close(done)
		tr.Solver.Step(n.ValueGrads())
	}()
	<-done
	*meddle = func(*tensor.Dense) {}
	testnet.SameBits(t, "weights", testnet.Weights(n.Params), before)
	testnet.Check(t, tr.Solver.Step(n.ValueGrads()))
}

// Targets in the place of the output are a Gaussian's mean as well, but nobody trains them.
func TestTargetsDeclaredAsOutput(t *testing.T) {
	n := testnet.FourLayers()
	tr := &Trainer{Net: n, Run: testnet.Machines["BindDualValues"](t, n)}
	var err error
	tr.Solver, err = NewSolver(n.Cost, Gaussian(n.Input("y"), 1))
	testnet.Check(t, err)
	if err := tr.Try(); !errors.Is(err, ErrLoss) {
		t.Errorf("error %v", err)
	}
}

// Outputs and costs that are no floats, or not of one type, or without a case.
func TestOutputsRefused(t *testing.T) {
	words := testnet.Lookup(5, false, []int{1, 2, 3, 4, 0, 1})
	ids := words.Input("words")
	count := gorgonia.NewScalar(words.Graph, tensor.Int, gorgonia.WithName("count"), gorgonia.WithValue(3))
	none := testnet.NewNet(1)
	none.X = none.Leaf("x", nil, 0, 3)
	none.Ends(none.Dense("1", none.X, 2), testnet.Squares(1))
	for name, test := range map[string]struct {
		cost *gorgonia.Node
		dist Distribution
	}{
		"no distribution":    {words.Cost, struct{ Distribution }{}},
		"none in a Joint":    {words.Cost, Joint(Declared(words), struct{ Distribution }{})},
		"ints":               {words.Cost, Bernoulli(ids)},
		"ints beside floats": {words.Cost, Joint(Declared(words), Bernoulli(ids))},
		"a cost of ints":     {count, Declared(words)},
	} {
		var c *ConfigError
		if _, err := NewSolver(test.cost, test.dist); !errors.As(err, &c) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := NewSolver(none.Cost, Declared(none)); !errors.Is(err, ErrEmpty) {
		t.Errorf("no case: error %v", err)
	}
}

// A parameter behind an op without a derivative, at a gradient of zero: there is no direction to
// take differences along.
func TestNoDirectionForDifferences(t *testing.T) {
	op, _ := newMeddler()
	n := testnet.NewNet(4)
	n.X = n.Random("x", 6, 3)
	h := gorgonia.Must(gorgonia.ApplyOp(underivable{op}, tanh(mul(n.X, n.Param("w", 3, 4)))))
	n.Ends(n.Dense("2", h, 2), testnet.Squares(1))
	tr := &Trainer{Net: n, Run: testnet.Lisp(n), Solver: NewSolverOf(t, n)}
	testnet.Check(t, tr.Run())
	testnet.ZeroGradients(n.Params)
	before := testnet.Weights(n.Params)
	testnet.Check(t, tr.Solver.Step(n.ValueGrads()))
	testnet.SameBits(t, "weights", testnet.Weights(n.Params), before)
}

// An underivable op says that it has derivatives of no operand.
type underivable struct{ meddler }

func (underivable) DiffWRT(int) []bool { return nil }

// What a user does with a plan is no matter to the solver.
func TestPlanIsACopy(t *testing.T) {
	tr := NewTrainer(t, testnet.FourLayers())
	want := tr.Solver.Plan().String()
	p := tr.Solver.Plan()
	p.Params[0].Name, p.Params[0].Shape[0], p.Losses[0] = "other", 99, "other"
	if got := tr.Solver.Plan().String(); got != want {
		t.Errorf("plan\n%s, want\n%s", got, want)
	}
}

// An input whose tensor was reshaped has as many elements, and is not the graph's.
func TestReshapedInput(t *testing.T) {
	n := testnet.FourLayers()
	tr := NewTrainer(t, n)
	tr.Steps(t, 3)
	testnet.Check(t, tr.Run())
	shape := n.X.Shape()
	testnet.Check(t, n.X.Value().(*tensor.Dense).Reshape(shape[1], shape[0]))
	var g *GraphError
	if err := tr.Solver.Step(n.ValueGrads()); !errors.As(err, &g) || g.Node != "x" {
		t.Errorf("error %v", err)
	}
	testnet.Check(t, n.X.Value().(*tensor.Dense).Reshape(shape...))
	testnet.Check(t, tr.Solver.Step(n.ValueGrads()))
}

// The norm of an update is finite where the squares of its elements are not.
func TestNormOfLargeUpdate(t *testing.T) {
	m := testnet.MLP{Widths: []int{3, 2}, Cases: 6, Loss: testnet.Squares(1)}
	tr := NewTrainer(t, m.Build(1), WithLearningRate(1e300), WithNormConstraint(math.Inf(1)), WithoutGradientCheck())
	testnet.Check(t, tr.Run())
	for _, p := range tr.Params {
		g := userGradient(p)
		for i := range g {
			g[i] *= 1e-130
		}
	}
	testnet.Check(t, tr.Solver.Step(tr.ValueGrads()))
	if norm := tr.Solver.Stats().UpdateNorm; math.IsInf(norm, 0) || norm < 1e160 {
		t.Errorf("norm %g", norm)
	}
}

// Of calls from several goroutines at once those that come during another one are refused, in a
// solver that has no graph yet, too. The race detector says whether that is safe.
func TestCallsFromGoroutines(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		net := testnet.NewMLP[float64](5, testnet.Shape{Cases: 24, Widths: []int{4, 5, 3}}, testnet.CrossEntropy)
		tr := NewTrainer(t, net)
		if fresh {
			tr.Solver = New(WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
		}
		testnet.Check(t, tr.Run())
		model := tr.ValueGrads()
		errs := make(chan error)
		const calls = 8
		for range calls {
			go func() { errs <- tr.Solver.Step(model) }()
		}
		steps := 0
		for range calls {
			err := <-errs
			var config *ConfigError
			switch {
			case err == nil:
				steps++
			case !errors.As(err, &config) && !errors.Is(err, ErrGradient):
				t.Errorf("fresh %v: %v", fresh, err)
			}
		}
		if steps != 1 {
			t.Errorf("fresh %v: %d steps after one RunAll", fresh, steps)
		}
	}
}

// asks makes each call that reads or writes the state without an update.
var asks = map[string]func(s *Solver, file []byte) error{
	"Save":     func(s *Solver, _ []byte) error { return s.Save(io.Discard) },
	"SaveFile": func(s *Solver, _ []byte) error { return s.SaveFile(os.DevNull + "/no such folder/x") },
	"Load":     func(s *Solver, file []byte) error { return s.Load(bytes.NewReader(file)) },
	"Inspect":  func(s *Solver, _ []byte) error { _, err := s.Inspect(); return err },
	"Set":      func(s *Solver, _ []byte) error { return s.Set(LearningRate, 0.1) },
	"UseAverage": func(s *Solver, _ []byte) error {
		restore, err := s.UseAverage()
		if err == nil {
			restore()
		}
		return err
	},
}

// A caller calls a solver in the middle of its Save: as a writer.
type caller func() error

func (c caller) Write(p []byte) (int, error) { return len(p), c() }

// During a call none other gets at the state, in a solver whose first graph is still to come, too;
// the next one does.
func TestCallsDuringSave(t *testing.T) {
	tr := NewTrainer(t, testnet.FourLayers(), WithLearningRate(0.05), WithIterateAveraging(0.9, 1))
	tr.Steps(t, 2)
	file := saved(t, tr.Solver)
	waiting := New(WithLearningRate(0.05), WithIterateAveraging(0.9, 1))
	testnet.Check(t, waiting.Load(bytes.NewReader(file)))
	asks := maps.Clone(asks)
	asks["Step"] = func(s *Solver, _ []byte) error { return s.Step(tr.ValueGrads()) }
	asks["Accumulate"] = func(s *Solver, _ []byte) error { return s.Accumulate(tr.ValueGrads()) }
	asks["Precondition"] = func(s *Solver, _ []byte) error { return s.Precondition(tr.ValueGrads()) }
	asks["VM"] = func(s *Solver, _ []byte) error { _, err := s.VM(tr.Cost); return err }
	asks["Attach"] = func(s *Solver, _ []byte) error { return s.Attach(tr.Cost, Declared(tr.Net)) }
	for name, ask := range asks {
		for _, s := range []*Solver{tr.Solver, waiting} {
			var err error
			testnet.Check(t, s.Save(caller(func() error {
				err = cmp.Or(err, ask(s, file))
				return nil
			})))
			var config *ConfigError
			if !errors.As(err, &config) || !strings.Contains(err.Error(), "during another") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	tr.Steps(t, 1)
}

// A recorder may save, load, look and turn knobs, but it can't make an update; and that the step
// was made stays true.
func TestCallsFromRecorders(t *testing.T) {
	for name, ask := range asks {
		var file []byte
		var tr *Trainer
		var asked, stepped error
		told := 0
		hear := func(Stats) {
			if told++; told == 3 {
				asked, stepped = ask(tr.Solver, file), tr.Solver.Step(tr.ValueGrads())
			}
		}
		tr = NewTrainer(t, testnet.FourLayers(), WithLearningRate(0.05), WithIterateAveraging(0.9, 1), WithStats(hear))
		tr.Steps(t, 2)
		file = saved(t, tr.Solver)
		tr.Steps(t, 3)
		var state *StateError
		if asked != nil && (name != "SaveFile" || !errors.As(asked, &state)) {
			t.Errorf("%s: %v", name, asked)
		}
		var config *ConfigError
		if !errors.As(stepped, &config) || told != 5 {
			t.Errorf("%s: a Step within a Step: %v; told of %d steps", name, stepped, told)
		}
		want := 5
		if name == "Load" {
			want = 4 // the state of step 2 again, and two more
		}
		if got := tr.Solver.Stats().Step; got != want {
			t.Errorf("%s: step %d, want %d", name, got, want)
		}
	}
}
