package kfac

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// waiting is a loop of a solver of New.
func waiting(t *testing.T, n *testnet.Net, opts ...Option) *Trainer {
	return &Trainer{Net: n, Run: testnet.Machines["BindDualValues"](t, n), Solver: New(opts...)}
}

// A solver of New keeps the state that it loads for its first graph, and goes on as if it had never
// stopped: to the last bit where its VM is made before RunAll, and but for rounding where the first
// Step or Accumulate brings the graph.
func TestLoadBeforeAGraph(t *testing.T) {
	for _, with := range [][]Option{nil, {WithGroup("?1", GroupFrozen())}} {
		source := waiting(t, testnet.FourLayers(), with...)
		source.Steps(t, 5)
		file := saved(t, source.Solver)
		wanted := waiting(t, testnet.FourLayers(), with...)
		testnet.Check(t, wanted.Solver.Load(bytes.NewReader(file)))
		if st := wanted.Solver.Stats(); st.Step != 5 {
			t.Errorf("at step %d, want 5", st.Step)
		}
		if got := saved(t, wanted.Solver); !bytes.Equal(got, file) {
			t.Error("a state that waits is saved as another")
		}
		for _, p := range wanted.Params {
			spoilWeights(p)
		}
		chunk := waiting(t, testnet.FourLayers(), with...)
		testnet.Check(t, chunk.Solver.Load(bytes.NewReader(file)))
		twin := waiting(t, testnet.FourLayers(), with...)
		_, err := twin.Solver.VM(twin.Cost) // brings the graph
		testnet.Check(t, err)
		testnet.Check(t, twin.Solver.Load(bytes.NewReader(file)))
		for _, tr := range []*Trainer{chunk, twin} {
			testnet.Check(t, tr.Run())
			testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
		}

		onVM := waiting(t, testnet.FourLayers(), with...)
		testnet.Check(t, onVM.Solver.Load(bytes.NewReader(file)))
		vm, err := onVM.Solver.VM(onVM.Cost)
		testnet.Check(t, err)
		onVM.Run = vm.RunAll
		other := waiting(t, testnet.FourLayers(), with...)
		vm, err = other.Solver.VM(other.Cost)
		testnet.Check(t, err)
		other.Run = vm.RunAll
		testnet.Check(t, other.Solver.Load(bytes.NewReader(file)))

		for _, tr := range []*Trainer{source, wanted, chunk, twin, onVM, other} {
			tr.Steps(t, 4)
		}
		testnet.Near(t, "Step", weightsOf(wanted.Net), weightsOf(source.Net), 1e-9)
		testnet.Near(t, "Accumulate", weightsOf(chunk.Net), weightsOf(twin.Net), 1e-9)
		sameTraining(t, onVM, other)
	}
}

// What does not fit the first graph is found there: the call fails, the graph has the weights that
// it had, and the state waits on.
func TestLoadBeforeAnotherGraph(t *testing.T) {
	source := waiting(t, testnet.FourLayers())
	source.Steps(t, 3)
	file := saved(t, source.Solver)
	foreign := waiting(t, testnet.TiedLayers(8))
	foreign.Steps(t, 1)

	tr := waiting(t, testnet.FourLayers())
	if err := tr.Solver.Load(bytes.NewReader(file[:100])); !errors.Is(err, ErrTruncated) {
		t.Error(err)
	}
	testnet.Check(t, tr.Solver.Load(bytes.NewReader(saved(t, foreign.Solver))))
	before := weightsOf(tr.Net)
	for range 2 {
		var state *StateError
		if err := tr.Try(); !errors.As(err, &state) || !errors.Is(err, ErrOtherModel) || state.Call != "Load" {
			t.Fatal(err)
		}
		testnet.SameBits(t, "weights", weightsOf(tr.Net), before)
	}
	testnet.Check(t, tr.Solver.Load(bytes.NewReader(file)))
	ZeroGradients(tr.ValueGrads())
	x := testnet.Data(tr.X)
	good := slices.Clone(x)
	x[0] = math.NaN()
	if err := tr.Try(); !errors.Is(err, ErrNotFinite) {
		t.Fatal(err)
	}
	testnet.SameBits(t, "weights after a step that fails", weightsOf(tr.Net), before)
	copy(x, good)
	ZeroGradients(tr.ValueGrads())
	tr.Steps(t, 1)
	source.Steps(t, 1)
	testnet.Near(t, "weights", weightsOf(tr.Net), weightsOf(source.Net), 1e-9)
}
