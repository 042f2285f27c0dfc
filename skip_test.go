package kfac

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// skipNets are nets of either dtype and of several sizes of the batch.
func skipNets() map[string]func() *testnet.Net {
	all := map[string]func() *testnet.Net{}
	for _, cases := range []int{1, 5, 12} {
		s := testnet.Shape{Cases: cases, Widths: []int{5, 4, 3}}
		all[fmt.Sprint("float32 of ", cases)] = func() *testnet.Net {
			return testnet.NewMLP[float32](3, s, testnet.CrossEntropy)
		}
		all[fmt.Sprint("float64 of ", cases)] = func() *testnet.Net {
			return testnet.NewMLP[float64](3, s, testnet.CrossEntropy)
		}
	}
	return all
}

// setFirst sets the first input, and returns a function that sets it back.
func setFirst(n *testnet.Net, x float64) (back func()) {
	switch data := n.X.Value().Data().(type) {
	case []float32:
		was := data[0]
		data[0] = float32(x)
		return func() { data[0] = was }
	case []float64:
		was := data[0]
		data[0] = x
		return func() { data[0] = was }
	}
	panic("an input of another type")
}

// skipMachines are the ways to run a net that a batch can be left out with.
func skipMachines(t *testing.T) map[string]func(n *testnet.Net, opts ...Option) *Trainer {
	of := map[string]func(n *testnet.Net, opts ...Option) *Trainer{
		"solver's VM": func(n *testnet.Net, opts ...Option) *Trainer {
			n.Grad(t)
			s := NewSolverOf(t, n, opts...)
			vm, err := s.VM()
			testnet.Check(t, err)
			return &Trainer{Net: n, Run: func() error { vm.Reset(); return vm.RunAll() }, Solver: s}
		},
	}
	for _, name := range []string{"BindDualValues", "no BindDualValues"} {
		of[name] = func(n *testnet.Net, opts ...Option) *Trainer {
			return NewTrainerOn(t, testnet.Machines[name], n, opts...)
		}
	}
	return of
}

// A training in which batches with NaN are left out has the bits of one that never saw them, chunks
// among them, from the first step on.
func TestSkipNotFinite(t *testing.T) {
	for machine, train := range skipMachines(t) {
		for name, build := range skipNets() {
			t.Run(machine+", "+name, func(t *testing.T) {
				want, got := train(build()), train(build(), WithSkipNotFinite(2))
				left := 0
				bad := func(x float64, call func([]gorgonia.ValueGrad) error) {
					t.Helper()
					defer setFirst(got.Net, x)()
					testnet.Check(t, got.Run())
					testnet.Check(t, call(got.ValueGrads()))
					left++
				}
				for k := range 7 {
					for range k % 3 {
						bad(math.NaN(), got.Solver.Step)
						if st := got.Solver.Stats(); !st.Skipped || st.SkippedBatches != left || st.Step != k+1 ||
							!math.IsNaN(st.GradNorm) || st.UpdateNorm != 0 {
							t.Fatalf("%+v", st)
						}
					}
					if k == 4 {
						for _, tr := range []*Trainer{want, got} {
							testnet.Check(t, tr.Run())
							testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
						}
						bad(math.Inf(1), got.Solver.Accumulate)
						bad(math.NaN(), got.Solver.Step)
					}
					want.Steps(t, 1)
					got.Steps(t, 1)
					a, b := statsOf(got), statsOf(want)
					if a.Skipped || a.SkippedBatches != left {
						t.Fatalf("%+v", a)
					}
					a.SkippedBatches = 0
					if !SameStats(a, b) {
						t.Fatalf("step %+v, want %+v", a, b)
					}
				}
				testnet.SameBits(t, "weights", weightsOf(got.Net), weightsOf(want.Net))
			})
		}
	}
}

// After so many in a row the next is an error, also in a training that was loaded; a batch that
// counts starts the count anew. Weights that are not finite are never left out.
func TestSkipsInARow(t *testing.T) {
	build := skipNets()["float64 of 5"]
	tr := NewTrainer(t, build(), WithSkipNotFinite(2))
	for range 3 {
		back := setFirst(tr.Net, math.NaN())
		tr.Steps(t, 2)
		back()
		tr.Steps(t, 1)
	}
	back := setFirst(tr.Net, math.NaN())
	tr.Steps(t, 2)
	file := saved(t, tr.Solver)
	again := NewTrainer(t, build(), WithSkipNotFinite(2))
	testnet.Check(t, again.Solver.Load(bytes.NewReader(file)))
	setFirst(again.Net, math.NaN())
	for _, tr := range []*Trainer{tr, again} {
		before := weightsOf(tr.Net)
		err := tr.Try()
		var param *ParamError
		if !errors.As(err, &param) || !errors.Is(err, ErrNotFinite) ||
			!strings.Contains(err.Error(), "2 batches in a row") || strings.Contains(param.Hint, "WithSkipNotFinite") {
			t.Fatal(err)
		}
		testnet.SameBits(t, "weights", weightsOf(tr.Net), before)
		if s := trainingOf(tr).skipped; s.all != 8 || s.inRow != 2 {
			t.Fatalf("%+v", s)
		}
	}
	back()
	ZeroGradients(tr.ValueGrads())
	tr.Steps(t, 1)

	testnet.Check(t, tr.Run())
	testnet.Data(tr.Params[0])[0] = math.NaN()
	if err := tr.Solver.Step(tr.ValueGrads()); !errors.Is(err, ErrNotFinite) {
		t.Fatal(err)
	}
}

// ZeroGradients zeroes what a RunAll would add to.
func TestZeroGradients(t *testing.T) {
	for name, build := range skipNets() {
		t.Run(name, func(t *testing.T) {
			tr := NewTrainer(t, build())
			testnet.Check(t, tr.Run())
			want := testnet.Gradients(t, tr.Params)
			ZeroGradients(append(tr.ValueGrads(), nil, (*gorgonia.Node)(nil)))
			zero := make([]float64, len(want))
			if slices.Equal(want, zero) {
				t.Fatal("they were zero all along")
			}
			testnet.SameBits(t, "gradients", testnet.Gradients(t, tr.Params), zero)
			testnet.Check(t, tr.Run())
			testnet.SameBits(t, "gradients of the next run", testnet.Gradients(t, tr.Params), want)
		})
	}
}
