package kfac_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"io/fs"
	"math"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A mistake of somebody who begins is made in a training loop, and the error says what it was.
type mistake struct {
	name  string
	make  func(t *testing.T) error // what Step, or NewSolver, says then
	is    error
	words []string
	not   []string // misleading here
}

// scaledTo is the squared error of a small net, whose cost, inputs and targets are multiplied.
func scaledTo[T testnet.Float](cost, x, y float64, opts ...kfac.Option) func(t *testing.T) error {
	return func(t *testing.T) error {
		n := &testnet.Net{Sketch: testnet.NewSketchOf[T](3, 3)}
		n.X = n.Scaled("x", x, 12, 4)
		n.Targets(n.Scaled("y", y, 12, 3))
		n.Ends(n.Layer(n.X, 0, 4, 3, true, false), testnet.Times(testnet.SquaredError, cost))
		return kfac.NewTrainer(t, n, opts...).Try()
	}
}

// inLoop makes a mistake in the loop of a classifier, after so many steps, between RunAll and Step.
func inLoop(done int, spoil func(t *testing.T, tr *kfac.Trainer)) func(t *testing.T) error {
	return func(t *testing.T) error {
		tr := classifier(t)
		tr.Steps(t, done)
		testnet.Check(t, tr.Run())
		spoil(t, tr)
		return tr.Solver.Step(tr.ValueGrads())
	}
}

// onGradients changes the gradients by hand.
func onGradients(f func(float64) float64) func(t *testing.T, tr *kfac.Trainer) {
	return func(t *testing.T, tr *kfac.Trainer) {
		for _, p := range tr.Params {
			g, err := p.Grad()
			testnet.Check(t, err)
			for i, v := range g.Data().([]float64) {
				g.Data().([]float64)[i] = f(v)
			}
		}
	}
}

// later makes a call after two steps of a net with the parameters w0, b0, w1 and b1.
func later(call func(t *testing.T, tr *kfac.Trainer) error, opts ...kfac.Option) func(t *testing.T) error {
	return func(t *testing.T) error {
		tr := kfac.NewTrainer(t, testnet.NewMLP[float64](1, small, testnet.CrossEntropy), opts...)
		tr.Steps(t, 2)
		return call(t, tr)
	}
}

// atFirst makes the first step with some options.
func atFirst(opts ...kfac.Option) func(t *testing.T) error {
	return func(t *testing.T) error {
		tr := kfac.NewTrainer(t, testnet.NewMLP[float64](1, small, testnet.CrossEntropy), opts...)
		return tr.Try()
	}
}

func stateFile(t *testing.T, tr *kfac.Trainer) *bytes.Buffer {
	var file bytes.Buffer
	testnet.Check(t, tr.Solver.Save(&file))
	return &file
}

// withOptions makes a solver with some options.
func withOptions(opts ...kfac.Option) func(t *testing.T) error {
	return func(*testing.T) error {
		m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
		_, err := kfac.NewSolver(m.Cost, kfac.Categorical(m.Out), opts...)
		return err
	}
}

// A stubborn op runs once, for the VM, and then fails.
type stubborn struct {
	testnet.Cube
	runs *int
}

func (s stubborn) DiffWRT(int) []bool { return []bool{true} }
func (s stubborn) SymDiff(_ gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	return gorgonia.Nodes{grad}, nil
}
func (s stubborn) String() string        { return "stubborn" }
func (s stubborn) WriteHash(h hash.Hash) { fmt.Fprint(h, s) }
func (s stubborn) Hashcode() uint32      { h := fnv.New32a(); s.WriteHash(h); return h.Sum32() }

var errStubborn = errors.New("once is enough")

func (s stubborn) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	if *s.runs++; *s.runs > 1 {
		return nil, errStubborn
	}
	return gorgonia.CloneValue(in[0])
}

var mistakes = []mistake{
	{"a parameter that has no value", func(t *testing.T) error {
		n := testnet.NewNet(2)
		x := n.Random("x", 6, 4)
		w := gorgonia.NewMatrix(n.Graph, n.Dtype, gorgonia.WithShape(4, 3), gorgonia.WithName("w"))
		n.Params = gorgonia.Nodes{w}
		n.Ends(testnet.Mul(x, w), testnet.Squares(1))
		n.Grad(t)
		return kfac.NewSolverOf(t, n).Step(n.ValueGrads())
	}, kfac.ErrNoValue, []string{`"w"`, "no value", "WithInit"}, []string{"no gradient"}},
	{"RunAll forgotten", func(t *testing.T) error {
		tr := classifier(t)
		return tr.Solver.Step(tr.ValueGrads())
	}, kfac.ErrNoGradient, []string{`"w0"`, "RunAll before Step"}, nil},
	{"another list between chunks", func(t *testing.T) error {
		tr := classifier(t)
		testnet.Check(t, tr.Run())
		testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
		testnet.Check(t, tr.Run())
		return tr.Solver.Step(tr.ValueGrads()[1:])
	}, kfac.ErrOtherList, []string{`"w0"`, "it was given then", "chunks"}, []string{"no gradient"}},
	{"a longer list between chunks", func(t *testing.T) error {
		tr := classifier(t)
		testnet.Check(t, tr.Run())
		testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()[1:]))
		testnet.Check(t, tr.Run())
		return tr.Solver.Step(tr.ValueGrads())
	}, kfac.ErrOtherList, []string{`"w0"`, "it was not given then", "chunks"}, []string{"no gradient"}},
	{"three RunAlls for one Step", inLoop(0, func(t *testing.T, tr *kfac.Trainer) {
		testnet.Check(t, tr.Run())
		testnet.Check(t, tr.Run())
	}), kfac.ErrGradient, []string{"sum of 3 RunAlls", "Step zeroes them", "Accumulate"},
		[]string{"WithoutGradientCheck"}},
	{"clipped gradients", inLoop(0, onGradients(func(v float64) float64 { return max(-1e-2, min(1e-2, v)) })),
		kfac.ErrGradient, []string{"cut off at 0.01", "bounds its steps"}, []string{"WithoutGradientCheck"}},
	{"scaled gradients", inLoop(1, onGradients(func(v float64) float64 { return v / 4 })),
		kfac.ErrGradient, []string{"multiplied by 0.25", "bounds its steps"}, []string{"WithoutGradientCheck"}},
	{"a view of columns as input", func(t *testing.T) error {
		n := testnet.NewNet(7)
		table := testnet.Tensor(n.Dtype, n.Normals(30), 6, 5)
		view, err := table.Slice(nil, gorgonia.S(1, 3))
		testnet.Check(t, err)
		n.X = gorgonia.NewMatrix(n.Graph, n.Dtype, gorgonia.WithShape(6, 2), gorgonia.WithName("x"))
		testnet.Check(t, gorgonia.Let(n.X, view))
		n.Ends(n.Layer(n.X, 0, 2, 1, false, false), testnet.Squares(1))
		return kfac.NewTrainer(t, n).Try()
	}, kfac.ErrGradient, []string{`"x" is a view of columns`, "Materialize"}, []string{"WithoutGradientCheck"}},
	{"a machine that is not reset", func(t *testing.T) error {
		m := testnet.NewMLP[float64](1, small, testnet.CrossEntropy)
		m.Grad(t)
		vm := gorgonia.NewTapeMachine(m.Graph, gorgonia.BindDualValues(m.Params...))
		tr := &kfac.Trainer{Net: m, Run: vm.RunAll, Solver: kfac.NewSolverOf(t, m)}
		tr.Steps(t, 1)
		return tr.Try()
	}, kfac.ErrGradient, []string{"Reset and RunAll", "zero or unrelated"}, []string{"WithoutGradientCheck"}},
	{"the next batch put in before Step", inLoop(0, func(_ *testing.T, tr *kfac.Trainer) {
		x := testnet.Data(tr.X)
		for i := range x {
			x[i] = 3 * x[len(x)-1-i]
		}
	}), kfac.ErrGradient, []string{"the VM's cost is 1.", "what the graph holds now", "next batch"},
		[]string{"WithoutGradientCheck"}},
	{"the next targets put in before Step", inLoop(1, func(_ *testing.T, tr *kfac.Trainer) {
		y := testnet.Data(tr.Y)
		copy(y, append(append([]float64{}, y[30:]...), y[:30]...))
	}), kfac.ErrGradient, []string{"what the graph holds now", "targets"}, []string{"WithoutGradientCheck"}},
	{"an op that runs but once", func(t *testing.T) error {
		n := testnet.NewNet(5)
		n.X = n.Random("x", 6, 4)
		h := gorgonia.Must(gorgonia.ApplyOp(stubborn{runs: new(int)}, n.Layer(n.X, 0, 4, 3, true, false)))
		n.Ends(h, testnet.Squares(1))
		return kfac.NewTrainer(t, n).Try()
	}, errStubborn, []string{"forward of stubborn", "once is enough", "keep state from call to call"},
		[]string{"call RunAll"}},
	{"a cost of 1e-200", scaledTo[float64](1e-200, 1, 1), nil, nil, nil},
	{"a cost of 1e200", scaledTo[float64](1e200, 1, 1), nil, nil, nil},
	{"inputs of 1e-150", scaledTo[float64](1, 1e-150, 1), nil, nil, nil},
	{"gradients whose squares overflow", scaledTo[float64](1, 1e100, 1), kfac.ErrNotFinite, []string{"outliers"},
		[]string{"a gradient of zero", "linear in it", "raise WithDamping"}},
	{"gradients whose squares overflow, with a rate", scaledTo[float64](1, 1e100, 1, kfac.WithLearningRate(0.1)),
		kfac.ErrNotFinite, []string{"outliers"}, []string{"a gradient of zero", "raise WithDamping"}},
	{"gradients that overflow", scaledTo[float64](1, 1e200, 1), kfac.ErrNotFinite,
		[]string{"w0", "gradient", "overflow"}, []string{"a gradient of zero", "raise WithDamping"}},
	{"targets whose squares overflow", scaledTo[float64](1, 1, 1e200), kfac.ErrLoss,
		[]string{"a finite cost", "+Inf", "overflows"}, []string{"a gradient of zero", "linear in it"}},
	{"lambda out of range", withOptions(kfac.WithDamping(1e31)), nil,
		[]string{"WithDamping", "1e+31", "(0, 1e30]"}, nil},
	{"L2 out of range", withOptions(kfac.WithL2Reg(1e60)), nil, []string{"WithL2Reg", "1e+60", "[0, 1e30]"}, nil},
	{"an interval of years", withOptions(kfac.WithDampingAdaptation(1<<40, 0.95)), nil,
		[]string{"WithDampingAdaptation", "0.95", "1099511627776", "decay^interval >= 1e-6"}, nil},
	{"a gamma of years", withOptions(kfac.WithGammaAdaptation(1<<40, 0.95)), nil,
		[]string{"WithGammaAdaptation", "0.95", "sqrt(decay)^interval >= 1e-12"}, nil},
	{"a group of nobody", atFirst(kfac.WithGroup("body*", kfac.GroupFrozen())), nil,
		[]string{`WithGroup("body*")`, "w0", "b1"}, nil},
	{"two groups of one", withOptions(kfac.WithGroup("w*", kfac.GroupFrozen()),
		kfac.WithGroup("?0", kfac.GroupRate(2))), nil,
		[]string{`WithGroup("w*")`, `WithGroup("?0")`, "w0"}, []string{"b1"}},
	{"a pattern that is none", withOptions(kfac.WithGroup("[", kfac.GroupFrozen())), nil,
		[]string{`WithGroup("[")`, "path.Match"}, nil},
	{"another solver without a rate", withOptions(kfac.WithInner(gorgonia.NewAdamSolver())), nil,
		[]string{"WithInner", "WithLearningRate"}, nil},
	{"directions without a rate", later(func(t *testing.T, tr *kfac.Trainer) error {
		testnet.Check(t, tr.Run())
		return tr.Solver.Precondition(tr.ValueGrads())
	}), nil, []string{"Precondition", "WithLearningRate"}, nil},
	{"a rate that is turned where none is", later(func(_ *testing.T, tr *kfac.Trainer) error {
		return tr.Solver.Set(kfac.LearningRate, 0.1)
	}), nil, []string{"learning rate", "WithLearningRate"}, nil},
	{"a knob that has a schedule", later(func(_ *testing.T, tr *kfac.Trainer) error {
		return tr.Solver.Set(kfac.LearningRate, 0.1)
	}, kfac.WithSchedule(kfac.LearningRate, kfac.Constant(0.1))), nil, []string{"schedule", "learning rate"}, nil},
	{"a schedule that ends below zero", withOptions(kfac.WithSchedule(kfac.LearningRate,
		func(step int) float64 { return 1 - float64(step) })), nil, []string{"learning rate", "step 1", "> 0"}, nil},
	{"an average that nobody keeps", later(func(_ *testing.T, tr *kfac.Trainer) error {
		_, err := tr.Solver.UseAverage()
		return err
	}), nil, []string{"UseAverage", "WithIterateAveraging"}, nil},
	{"an average that has not begun", later(func(_ *testing.T, tr *kfac.Trainer) error {
		_, err := tr.Solver.UseAverage()
		return err
	}, kfac.WithIterateAveraging(0.9, 10)), nil, []string{"UseAverage", "no average yet"}, nil},
	{"a file between chunks", later(func(t *testing.T, tr *kfac.Trainer) error {
		testnet.Check(t, tr.Run())
		testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
		return tr.Solver.Save(io.Discard)
	}), kfac.ErrInUpdate, []string{"Save", "Step"}, nil},
	{"a file of Adam's", later(func(t *testing.T, tr *kfac.Trainer) error {
		return tr.Solver.Save(io.Discard)
	}, kfac.WithLearningRate(0.1), kfac.WithInner(gorgonia.NewAdamSolver())), kfac.ErrInner,
		[]string{"Save", "WithoutInner"}, nil},
	{"a file of another model", later(func(t *testing.T, tr *kfac.Trainer) error {
		other := kfac.NewTrainer(t, testnet.NewMLP[float64](1, testnet.Shape{Cases: 6, Widths: []int{4, 9, 3}},
			testnet.CrossEntropy))
		other.Steps(t, 1)
		return tr.Solver.Load(stateFile(t, other))
	}), kfac.ErrOtherModel, []string{"w0"}, nil},
	{"a file of other settings", later(func(t *testing.T, tr *kfac.Trainer) error {
		other := kfac.NewTrainer(t, testnet.NewMLP[float64](1, small, testnet.CrossEntropy), kfac.WithL2Reg(0.1))
		other.Steps(t, 1)
		return tr.Solver.Load(stateFile(t, other))
	}), kfac.ErrOtherSettings, []string{"WithL2Reg: 0.1 in the file, 0 here", "WithOtherSettings"}, nil},
	{"a file that is a picture", later(func(_ *testing.T, tr *kfac.Trainer) error {
		return tr.Solver.Load(strings.NewReader("\x89PNG\r\n\x1a\nand so on"))
	}), kfac.ErrForeignFile, []string{"Load"}, nil},
	{"half a file", later(func(t *testing.T, tr *kfac.Trainer) error {
		file := stateFile(t, tr)
		file.Truncate(file.Len() / 2)
		return tr.Solver.Load(file)
	}), kfac.ErrTruncated, []string{"Load"}, nil},
	{"a file where none can be", later(func(t *testing.T, tr *kfac.Trainer) error {
		return tr.Solver.SaveFile(t.TempDir() + "/no such folder/x")
	}), fs.ErrNotExist, []string{"Save", "no such folder"}, nil},
	{"batches that are never finite", later(func(t *testing.T, tr *kfac.Trainer) error {
		var err error
		for range 3 {
			testnet.Check(t, tr.Run())
			onGradients(func(float64) float64 { return math.NaN() })(t, tr)
			err = tr.Solver.Step(tr.ValueGrads())
			kfac.ZeroGradients(tr.ValueGrads())
		}
		return err
	}, kfac.WithSkipNotFinite(2)), kfac.ErrNotFinite, []string{"2 batches in a row"}, nil},
	{"no interval", withOptions(kfac.WithDampingAdaptation(0, 0.95)), nil,
		[]string{"WithDampingAdaptation", "not 0"}, nil},
}

// Each mistake is told for what it is, in words that lead to it, and without words that lead away.
func TestWordsOfErrors(t *testing.T) {
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			err := attempt(t, func() error { return m.make(t) })
			if m.words == nil && m.is == nil {
				testnet.Check(t, err) // it is none
				return
			}
			refused(t, err, m.is, m.words...)
			for _, w := range append(m.not, "differs by 0 ", "NaN of the", "%!") {
				if strings.Contains(err.Error(), w) {
					t.Errorf("the message says %q: %v", w, err)
				}
			}
		})
	}
}
