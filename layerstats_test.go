package kfac

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// spectrum is the eigenvalues of a moment, the largest first.
func spectrum(t testing.TB, moment []float64, n int) []float64 {
	t.Helper()
	var e mat.EigenSym
	if !e.Factorize(mat.NewSymDense(n, moment), false) {
		t.Fatal("no eigenvalues")
	}
	values := e.Values(nil)
	slices.Reverse(values)
	return values
}

// The statistics of layers are those of the averages, of the damping of the step, and of what it
// has changed.
func TestLayerStats(t *testing.T) {
	for name, opts := range map[string][]Option{
		"model": nil, "rate": {WithLearningRate(0.1)}, "L2": {WithL2Reg(0.01)},
		"old inverses": {WithInverseUpdatePeriod(7)}, "chain": {WithBlockTridiagonal()},
	} {
		t.Run(name, func(t *testing.T) {
			n := statsNet()
			tr := NewTrainer(t, n, append(slices.Clone(opts), WithLayerStats(1))...)
			c := trainingOf(tr)
			var damped []float64
			for range 12 {
				before := weightsInOrder(c)
				tr.Steps(t, 1)
				st := tr.Solver.Stats()
				change := weightsInOrder(c)
				floats.Sub(change, before)
				if len(st.Layers) != 2 {
					t.Fatalf("%d layers, want 2", len(st.Layers))
				}
				avg := currentAverages(c)
				var shares, weights, gradients float64
				for i, l := range st.Layers {
					if want := []string{fmt.Sprint("w", i), fmt.Sprint("b", i)}; !slices.Equal(l.Params, want) {
						t.Errorf("layer of %q, want %q", l.Params, want)
					}
					block, moment := i, 0
					if len(avg) == 1 {
						block, moment = 0, 2*i
					}
					a, g := avg[block].Moments[moment], avg[block].Moments[moment+1]
					na, ng := []int{4, 5}[i], []int{4, 2}[i]
					as, gs := spectrum(t, a, na), spectrum(t, g, ng)
					traceA, traceG := floats.Sum(as), floats.Sum(gs)
					testnet.Near(t, "traces", []float64{l.A.Trace, l.G.Trace}, []float64{traceA, traceG}, 1e-12)
					testnet.Near(t, "eigenvalues", []float64{l.A.Largest, l.A.Smallest, l.G.Largest, l.G.Smallest},
						[]float64{as[0], as[na-1], gs[0], gs[ng-1]}, 1e-12)
					pi := math.Sqrt(traceA / float64(na) / traceG * float64(ng))
					testnet.Near(t, "pi", []float64{l.Pi}, []float64{pi}, 1e-12)
					if st.InverseUpdated {
						damped = append(damped[:2*i], l.Pi*st.Gamma, st.Gamma/l.Pi)
					}
					testnet.Near(t, "damping", []float64{l.A.Damping, l.G.Damping}, damped[2*i:2*i+2], 1e-12)
					if !math.IsNaN(l.F.Trace) || !math.IsNaN(l.F.Damping) {
						t.Errorf("a layer has an F: %+v", l.F)
					}
					shares, weights = shares+l.Share, math.Hypot(weights, l.ParamNorm)
					gradients = math.Hypot(gradients, l.GradNorm)
					testnet.Near(t, "share", []float64{l.Share * st.UpdateNorm * st.UpdateNorm},
						[]float64{l.UpdateNorm * l.UpdateNorm}, 1e-12)
				}
				testnet.Near(t, "whole", []float64{shares, weights, gradients},
					[]float64{1, st.ParamNorm, st.GradNorm}, 1e-12)
				size := len(testnet.Data(n.Params[0])) + len(testnet.Data(n.Params[1]))
				testnet.Near(t, "update", []float64{st.Layers[0].UpdateNorm},
					[]float64{floats.Norm(change[:size], 2)}, 1e-12)
			}
		})
	}
}

// Layers are told about at the steps that were asked for, and a step is the same with and without.
func TestLayerStatsOnRequest(t *testing.T) {
	plain, watched := NewTrainer(t, statsNet()), NewTrainer(t, statsNet(), WithLayerStats(3))
	for k := 1; k <= 7; k++ {
		plain.Steps(t, 1)
		watched.Steps(t, 1)
		if told := watched.Solver.Stats().Layers != nil; told != (k%3 == 0) || plain.Solver.Stats().Layers != nil {
			t.Errorf("step %d: layers told %v", k, told)
		}
	}
	testnet.SameBits(t, "weights", weightsOf(watched.Net), weightsOf(plain.Net))
}

// Parameters outside layers have an F, or nothing; a parameter that was not given has no share.
func TestLayerStatsOutsideLayers(t *testing.T) {
	n := testnet.Offsets()
	tr := NewTrainer(t, n, WithLayerStats(1))
	tr.Steps(t, 3)
	of := map[string]LayerStats{}
	for _, l := range tr.Solver.Stats().Layers {
		of[l.Params[0]] = l
	}
	st := tr.Solver.Stats()
	for _, name := range []string{"a", "b"} { // a diagonal whose two entries repeat over twelve rows
		f := of[name].F
		testnet.Near(t, name, []float64{f.Damping, f.Trace},
			[]float64{st.Gamma * st.Gamma, 12 * (f.Largest + f.Smallest)}, 1e-12)
		if l := of[name]; !math.IsNaN(l.A.Trace) || !math.IsNaN(l.G.Trace) || !math.IsNaN(l.Pi) {
			t.Errorf("factors of a parameter outside layers: %+v", l)
		}
	}
	testnet.Check(t, tr.Run())
	testnet.Check(t, tr.Solver.Step(gorgonia.NodesToValueGrads(n.Params[:1])))
	for _, l := range tr.Solver.Stats().Layers {
		if given := l.Params[0] == n.Params[0].Name(); (l.Share > 0) != given {
			t.Errorf("%q has the share %g", l.Params, l.Share)
		}
	}
}
