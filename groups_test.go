package kfac

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// groupNets are nets whose parameters are named w0, b0, w1, b1 and so on.
func groupNets() map[string]func() *testnet.Net {
	nets := map[string]func() *testnet.Net{}
	for _, cases := range []int{1, 7, 20} {
		m := testnet.MLP{Widths: []int{4, 5, 3, 2}, Cases: cases, Unit: gorgonia.Tanh, Loss: testnet.Squares(0.5)}
		nets[fmt.Sprint("float64 of ", cases)] = func() *testnet.Net { return m.Build(3) }
	}
	return nets
}

// weightsNamed are those of one parameter.
func weightsNamed(n *testnet.Net, name string) []float64 {
	return testnet.Numbers(n.Input(name).Value())
}

// Where all parameters have the same factor, on lambda or on the learning rate, nothing changes but
// what lambda and the learning rate count in.
func TestGroupOfAll(t *testing.T) {
	for name, build := range groupNets() {
		for rules, opts := range map[string][]Option{
			"default": nil, "paper": {WithPaperRules(), WithDamping(1)}, "chain": {WithBlockTridiagonal()},
			"background": {WithInverseUpdatePeriod(3), WithBackgroundInverses(2)},
			"averaging":  {WithIterateAveraging(0.9, 2), WithStepRejection()}, "L2": {WithL2Reg(0)},
		} {
			t.Run(name+", "+rules, func(t *testing.T) {
				plain := NewTrainer(t, build(), opts...)
				damped := opts
				if rules == "paper" {
					damped = []Option{WithPaperRules(), WithDamping(1.0 / 8)}
				}
				lambda := NewTrainer(t, build(), append(slices.Clone(damped), WithGroup("*", GroupLambda(8)))...)
				rate := NewTrainer(t, build(), append(slices.Clone(opts), WithGroup("*", GroupRate(3)))...)
				var first float64
				for k := range 12 {
					for _, tr := range []*Trainer{plain, lambda, rate} {
						tr.Steps(t, 1)
					}
					want := plain.Solver.Stats()
					byLambda, byRate := lambda.Solver.Stats(), rate.Solver.Stats()
					testnet.Near(t, "weights by lambda", weightsOf(lambda.Net), weightsOf(plain.Net), 1e-9)
					testnet.Near(t, "weights by the rate", weightsOf(rate.Net), weightsOf(plain.Net), 1e-9)
					testnet.Near(t, "lambda", []float64{8 * byLambda.Damping, byRate.Damping},
						[]float64{want.Damping, want.Damping}, 1e-8)
					if k == 0 {
						first = want.QuadModelChange
					}
					testnet.Near(t, "change", []float64{byLambda.QuadModelChange, byRate.QuadModelChange, first},
						[]float64{want.QuadModelChange, want.QuadModelChange, first}, 1e-9)
					if k == 0 { // later the two directions may be nearly parallel
						testnet.Near(t, "learning rate", []float64{byLambda.LearningRate, 3 * byRate.LearningRate},
							[]float64{want.LearningRate, want.LearningRate}, 1e-9)
					}
				}
			})
		}
	}
}

// With inputs times s and their weights by s the net is the same, and so is training by a penalty
// on steps and weights that is s^2 times as large for these weights: lambda and eta are theirs.
func TestGroupIsAnotherUnit(t *testing.T) {
	const s = 3.0
	for _, cases := range []int{5, 40} {
		for name, opts := range map[string][]Option{"default": nil, "paper": {WithPaperRules()},
			"rejection": {WithStepRejection()}, "rate": {WithLearningRate(0.3)}} {
			t.Run(fmt.Sprint(cases, ", ", name), func(t *testing.T) {
				m := testnet.MLP{Widths: []int{4, 6, 3}, Cases: cases, Unit: gorgonia.Tanh, NoBias: true,
					Loss: testnet.Squares(0.5)}
				opts = append(slices.Clone(opts), WithDamping(0.7), WithL2Reg(0.02))
				units := NewTrainer(t, m.Build(2), append(slices.Clone(opts),
					WithGroup("w0", GroupLambda(1/(s*s)), GroupL2(0.02/(s*s))))...)
				scaled := NewTrainer(t, m.Build(2), opts...)
				floats.Scale(s, testnet.Data(scaled.X))
				w := testnet.Data(scaled.Input("w0"))
				floats.Scale(1/s, w)
				for range 12 {
					units.Steps(t, 1)
					scaled.Steps(t, 1)
					back := slices.Clone(w)
					floats.Scale(s, back)
					testnet.Near(t, "w0", weightsNamed(units.Net, "w0"), back, 1e-9)
					testnet.Near(t, "w1", weightsNamed(units.Net, "w1"), weightsNamed(scaled.Net, "w1"), 1e-9)
					a, b := units.Solver.Stats(), scaled.Solver.Stats()
					testnet.Near(t, "step", []float64{a.LearningRate, a.Momentum, a.Damping, a.Gamma},
						[]float64{b.LearningRate, b.Momentum, b.Damping, b.Gamma}, 1e-8)
					if !math.IsNaN(b.QuadModelChange) {
						testnet.Near(t, "change", []float64{a.QuadModelChange}, []float64{b.QuadModelChange}, 1e-8)
					}
				}
			})
		}
	}
}

// With a learning rate each layer's first step is by itself: that of a training in which all
// parameters have its settings.
func TestGroupsFirstStep(t *testing.T) {
	for name, build := range groupNets() {
		for setting, of := range map[string]struct {
			group GroupOption
			all   []Option
		}{
			"lambda":    {GroupLambda(20), []Option{WithDamping(4)}},
			"rate":      {GroupRate(3), []Option{WithSchedule(LearningRate, Constant(0.15))}},
			"L2":        {GroupL2(0.5), []Option{WithL2Reg(0.5)}},
			"diagonal":  {GroupTreatment(Diagonal), []Option{WithGroup("*", GroupTreatment(Diagonal))}},
			"identity":  {GroupTreatment(Identity), []Option{WithGroup("*", GroupTreatment(Identity))}},
			"L2 of all": {GroupL2(0), nil},
		} {
			t.Run(name+", "+setting, func(t *testing.T) {
				opts := []Option{WithLearningRate(0.05), WithNormConstraint(math.Inf(1)), WithDamping(0.2)}
				others := slices.Clone(opts)
				if setting == "L2 of all" {
					others = append(others, WithL2Reg(0.5))
				}
				all := NewTrainer(t, build(), append(slices.Clone(opts), of.all...)...)
				none := NewTrainer(t, build(), others...)
				some := build()
				nodes := gorgonia.Nodes{some.Input("w1"), some.Input("b1")}
				group := NewTrainer(t, some, append(slices.Clone(others), WithGroupOf(nodes, of.group))...)
				for _, tr := range []*Trainer{all, none, group} {
					tr.Steps(t, 1)
				}
				for _, p := range group.Params {
					from := none
					if strings.HasSuffix(p.Name(), "1") {
						from = all
					}
					got, want := weightsNamed(group.Net, p.Name()), weightsNamed(from.Net, p.Name())
					testnet.Near(t, p.Name(), got, want, 1e-12)
				}
				if slices.Equal(weightsNamed(group.Net, "w1"), weightsNamed(none.Net, "w1")) {
					t.Fatal("the setting makes no difference")
				}
				group.Steps(t, 5)
			})
		}
	}
}

// By the quadratic model the first step has each group's factor, and the length that is the best.
func TestGroupRateOfTheModel(t *testing.T) {
	for name, build := range groupNets() {
		t.Run(name, func(t *testing.T) {
			step := func(opts ...Option) (of map[string][]float64, st Stats) {
				n := build()
				tr := NewTrainer(t, n, append(opts, WithDamping(0.3), WithoutMomentum(), WithPaperRules())...)
				before := weightsOf(n)
				tr.Steps(t, 1)
				change, of := weightsOf(n), map[string][]float64{}
				floats.Sub(change, before)
				for _, p := range n.Params {
					size := p.Shape().TotalSize()
					of[p.Name()], change = change[:size], change[size:]
				}
				return of, tr.Solver.Stats()
			}
			plain, a := step()
			some, b := step(WithGroup("?1", GroupRate(5)))
			for p, want := range plain {
				factor := b.LearningRate / a.LearningRate
				if strings.HasSuffix(p, "1") {
					factor *= 5
				}
				floats.Scale(factor, want)
				testnet.Near(t, p, some[p], want, 1e-9)
			}
		})
	}
}

// Frozen parameters are as those that Step is not given, whatever their gradients are; these are
// zeroed.
func TestFrozen(t *testing.T) {
	for machine, train := range skipMachines(t) {
		for name, build := range skipNets() {
			t.Run(machine+", "+name, func(t *testing.T) {
				frozen := train(build(), WithGroup("w0", GroupFrozen()))
				name := frozen.Params[0].Name()
				frozen = train(build(), WithGroup(name, GroupFrozen()))
				before := testnet.Numbers(frozen.Params[0].Value())
				without := train(build())
				without.Params = without.Params[1:]
				for k := range 6 {
					for _, tr := range []*Trainer{frozen, without} {
						testnet.Check(t, tr.Run())
					}
					if machine == "BindDualValues" && k > 2 {
						spoilGradient(t, frozen.Params[0])
					}
					for _, tr := range []*Trainer{frozen, without} {
						if k%2 == 1 {
							testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
							testnet.Check(t, tr.Run())
						}
						testnet.Check(t, tr.Solver.Step(tr.ValueGrads()))
					}
					ZeroGradients(gorgonia.NodesToValueGrads(gorgonia.Nodes{without.Input(name)}))
				}
				testnet.SameBits(t, "frozen weights", testnet.Numbers(frozen.Params[0].Value()), before)
				testnet.SameBits(t, "weights", weightsOf(frozen.Net), append(before, weightsOf(without.Net)...))
				if machine == "BindDualValues" {
					g, err := frozen.Params[0].Grad()
					testnet.Check(t, err)
					if floats.Norm(testnet.Numbers(g), 1) != 0 {
						t.Error("its gradient is not zeroed")
					}
				}
				plan := frozen.Solver.Plan().Params
				if last := plan[len(plan)-1]; last.Name != name || last.Treatment != Frozen {
					t.Errorf("%+v", last)
				}
			})
		}
	}
}

func spoilGradient(t *testing.T, p *gorgonia.Node) {
	t.Helper()
	g, err := p.Grad()
	testnet.Check(t, err)
	switch v := g.Data().(type) {
	case []float64:
		v[0] = math.NaN()
	case []float32:
		v[0] = float32(math.NaN())
	}
}

// Parameters that another solver steps are as those that Step is not given, and that this solver is
// given with the gradients of the objective; also in chunks, and with a batch that is left out.
func TestGroupSolver(t *testing.T) {
	const rate = 0.2
	for name, build := range skipNets() {
		t.Run(name, func(t *testing.T) {
			n := build()
			aside := n.Params[:2]
			damping := WithDamping(1) // in the weights as they are, whatever is above them
			groups := NewTrainer(t, n, WithGroupOf(aside, GroupSolver(plain(rate))), WithSkipNotFinite(1), damping)
			own := NewTrainer(t, build(), damping)
			for k := range 9 {
				for _, tr := range []*Trainer{groups, own} {
					testnet.Check(t, tr.Run())
				}
				if k%3 == 1 {
					testnet.Check(t, groups.Solver.Accumulate(groups.ValueGrads()))
					testnet.Check(t, groups.Run())
					testnet.Check(t, own.Solver.Accumulate(own.ValueGrads()[2:]))
					testnet.Check(t, own.Run())
				}
				if k == 5 {
					spoilGradient(t, aside[1])
					testnet.Check(t, groups.Solver.Step(groups.ValueGrads()))
					testnet.Check(t, groups.Run())
				}
				testnet.Check(t, groups.Solver.Step(groups.ValueGrads()))
				testnet.Check(t, own.Solver.Step(own.ValueGrads()[2:]))
				st := own.Solver.Stats()
				byHand := plain(rate / (st.Scale * float64(st.Cases))) // of the sum over chunks
				testnet.Check(t, byHand.Step(own.ValueGrads()[:2]))
			}
			testnet.Near(t, "weights", weightsOf(groups.Net), weightsOf(own.Net), innerTolerance(n))
			if row := groups.Solver.Plan().Params[0]; row.Treatment != Excluded {
				t.Errorf("%+v", row)
			}
			if err := groups.Solver.Step(groups.ValueGrads()[1:]); err == nil {
				t.Error("another list")
			}
		})
	}
}

// A step that fails, in the other solver too, has changed nothing, and one that is rejected no
// weight.
func TestGroupSolverFails(t *testing.T) {
	build := skipNets()["float64 of 5"]
	for solver, want := range map[failing]error{
		{}: errFailing, {panics: true}: errFailing, {overflows: true}: ErrNotFinite,
	} {
		n := build()
		tr := NewTrainer(t, n, WithGroupOf(n.Params[:2], GroupSolver(solver)))
		before := weightsOf(n)
		if err := tr.Try(); !errors.Is(err, want) {
			t.Errorf("%+v: %v", solver, err)
		}
		testnet.SameBits(t, "weights", weightsOf(n), before)
	}
	n := build()
	tr := NewTrainer(t, n, WithGroupOf(n.Params[:2], GroupSolver(gorgonia.NewAdamSolver())))
	tr.Steps(t, 1)
	var state *StateError
	if err := tr.Solver.Save(new(bytes.Buffer)); !errors.As(err, &state) || !errors.Is(err, ErrInner) {
		t.Error(err)
	}
	saved(t, tr.Solver, WithoutInner())
}

// A wrong group is an error that names parameters and changes nothing.
func TestGroupErrors(t *testing.T) {
	build := groupNets()["float64 of 7"]
	of := func(o ...GroupOption) Option { return WithGroup("w0", o...) }
	for name, test := range map[string]struct {
		opts  []Option
		early bool // an error of NewSolver
		words []string
	}{
		"overlap": {[]Option{WithGroup("w*", GroupRate(2)), WithGroup("?1", GroupL2(1))}, false,
			[]string{`"w1"`, `WithGroup("w*")`}},
		"twice":          {[]Option{of(GroupRate(2)), of(GroupRate(3))}, false, []string{`"w0"`}},
		"empty":          {[]Option{WithGroup("v*", GroupRate(2))}, false, []string{`WithGroup("v*")`, `"w0"`, `"b2"`}},
		"bad pattern":    {[]Option{WithGroup("[", GroupRate(2))}, true, []string{"pattern"}},
		"no setting":     {[]Option{of()}, true, []string{"no setting"}},
		"nil setting":    {[]Option{of(nil)}, true, nil},
		"nil node":       {[]Option{WithGroupOf(gorgonia.Nodes{nil}, GroupRate(2))}, true, []string{"nil"}},
		"no nodes":       {[]Option{WithGroupOf(nil, GroupRate(2))}, true, []string{"no node"}},
		"rate 0":         {[]Option{of(GroupRate(0))}, true, []string{"GroupRate"}},
		"rate NaN":       {[]Option{of(GroupRate(math.NaN()))}, true, []string{"GroupRate"}},
		"lambda -1":      {[]Option{of(GroupLambda(-1))}, true, []string{"GroupLambda"}},
		"L2 infinite":    {[]Option{of(GroupL2(math.Inf(1)))}, true, []string{"GroupL2"}},
		"treatment":      {[]Option{of(GroupTreatment(Kronecker))}, true, []string{"kronecker"}},
		"no solver":      {[]Option{of(GroupSolver(nil))}, true, []string{"GroupSolver"}},
		"frozen rate":    {[]Option{of(GroupFrozen(), GroupRate(2))}, true, []string{"alone"}},
		"solver and L2":  {[]Option{of(GroupSolver(plain(1)), GroupL2(2))}, true, []string{"alone"}},
		"frozen, solver": {[]Option{of(GroupSolver(plain(1)), GroupFrozen())}, true, []string{"alone"}},
		"part of layer":  {[]Option{of(GroupRate(2))}, true, []string{`"w0"`, `"b0"`, "one block"}},
		"all frozen":     {[]Option{WithGroup("*", GroupFrozen())}, false, []string{"GroupFrozen"}},
	} {
		n := build()
		before := weightsOf(n)
		s, err := NewSolver(n.Cost, Declared(n), test.opts...)
		if !test.early && err == nil {
			n.Grad(t)
			testnet.Check(t, testnet.DualTape(n)())
			err = s.Step(n.ValueGrads())
		}
		var config *ConfigError
		var param *ParamError
		if !errors.As(err, &config) && !errors.As(err, &param) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, w := range test.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %s", name, err, w)
			}
		}
		testnet.SameBits(t, "weights", weightsOf(n), before)
	}
	tr := NewTrainer(t, build(), WithLearningRate(0.1), WithGroup("?0", GroupSolver(plain(1))))
	testnet.Check(t, tr.Run())
	var config *ConfigError
	if err := tr.Solver.Precondition(tr.ValueGrads()); !errors.As(err, &config) {
		t.Error(err)
	}
}

// A state goes on with other groups where that is asked for: frozen weights are in it.
func TestThaw(t *testing.T) {
	build := groupNets()["float64 of 7"]
	frozen, all := []Option{WithGroup("?0", GroupFrozen())}, []Option(nil)
	for name, from := range map[string][2][]Option{
		"thaw": {frozen, all}, "freeze": {all, frozen}, "stay": {frozen, frozen},
	} {
		t.Run(name, func(t *testing.T) {
			source := NewTrainer(t, build(), from[0]...)
			source.Steps(t, 5)
			file := saved(t, source.Solver)
			other := NewTrainer(t, build(), from[1]...)
			for _, p := range other.Params {
				spoilWeights(p)
			}
			if name != "stay" {
				if err := other.Solver.Load(bytes.NewReader(file)); !errors.Is(err, ErrOtherSettings) {
					t.Fatal(err)
				}
			}
			opts := []StateOption{WithOtherSettings()}
			if name == "freeze" {
				opts = append(opts, WithoutFactors())
			}
			testnet.Check(t, other.Solver.Load(bytes.NewReader(file), opts...))
			testnet.SameBits(t, "weights", weightsOf(other.Net), weightsOf(source.Net))
			other.Steps(t, 4)
			stays := slices.Equal(weightsNamed(other.Net, "w0"), weightsNamed(source.Net, "w0"))
			if stays != (name != "thaw") {
				t.Errorf("w0 has stayed: %v", stays)
			}
			again := NewTrainer(t, build(), from[1]...)
			testnet.Check(t, again.Solver.Load(bytes.NewReader(saved(t, other.Solver))))
			other.Steps(t, 3)
			again.Steps(t, 3)
			sameTraining(t, again, other)
		})
	}
	bad := NewTrainer(t, build(), WithGroup("v*", GroupRate(2)))
	source := NewTrainer(t, build())
	source.Steps(t, 1)
	var config *ConfigError
	err := bad.Solver.Load(bytes.NewReader(saved(t, source.Solver)), WithOtherSettings())
	if !errors.As(err, &config) {
		t.Error(err)
	}
}

// Groups go from graph to graph, by names and, where they were given as nodes, by name and shape.
func TestGroupsOverGraphs(t *testing.T) {
	build := groupNets()["float64 of 7"]
	first := build()
	opts := []Option{WithGroupOf(gorgonia.Nodes{first.Input("w0"), first.Input("b0")}, GroupFrozen()),
		WithGroup("?1", GroupSolver(plain(0.1))), WithGroup("?2", GroupRate(2))}
	want := NewTrainer(t, build(), WithGroup("?0", GroupFrozen()), opts[1], opts[2])
	tr := NewTrainer(t, first, opts...)
	for k := range 6 {
		if k > 0 {
			n := build()
			tr.Share(t, n)
			tr.Net = n
			testnet.Check(t, tr.Solver.Attach(n.Cost, Declared(n)))
			tr.Run = testnet.Machines["BindDualValues"](t, n)
		}
		tr.Steps(t, 1)
		want.Steps(t, 1)
		sameTraining(t, tr, want)
	}
}
