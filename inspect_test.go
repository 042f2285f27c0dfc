package kfac

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// What Inspect shows is the averages and their eigenvalues, and it changes nothing.
func TestInspect(t *testing.T) {
	for name, opts := range map[string][]Option{
		"blocks": nil, "chain": {WithBlockTridiagonal()}, "rate": {WithLearningRate(0.1)},
	} {
		t.Run(name, func(t *testing.T) {
			plain := NewTrainer(t, statsNet(), opts...)
			tr := NewTrainer(t, statsNet(), append(slices.Clone(opts), WithLayerStats(1))...)
			c := trainingOf(tr)
			for range 4 {
				tr.Steps(t, 1)
				plain.Steps(t, 1)
				all, err := tr.Solver.Inspect()
				testnet.Check(t, err)
				if len(all) != 2 {
					t.Fatalf("%d layers", len(all))
				}
				avg, layers := currentAverages(c), tr.Solver.Stats().Layers
				for i, one := range all {
					want := []string{fmt.Sprint("w", i), fmt.Sprint("b", i)}
					if !slices.Equal(one.Params, want) || one.F != nil {
						t.Errorf("layer of %q, want %q; F is %v", one.Params, want, one.F)
					}
					block, moment := i, 0
					if len(avg) == 1 {
						block, moment = 0, 2*i
					}
					for side, s := range []*Spectrum{one.A, one.G} {
						n := [][]int{{4, 5}, {4, 2}}[side][i]
						checkSpectrum(t, s, avg[block].Moments[moment+side], n)
						if want := []FactorStats{layers[i].A, layers[i].G}[side].Damping; s.Damping != want {
							t.Errorf("damping %g, want %g", s.Damping, want)
						}
					}
				}
			}
			testnet.SameBits(t, "weights", weightsOf(tr.Net), weightsOf(plain.Net))
		})
	}
}

func checkSpectrum(t *testing.T, s *Spectrum, moment []float64, n int) {
	t.Helper()
	testnet.SameBits(t, "factor", s.Matrix, moment)
	values := spectrum(t, moment, n)
	testnet.Near(t, "eigenvalues", s.Eigenvalues, values, 1e-12)
	last := values[n-1]
	testnet.Near(t, "condition numbers", []float64{s.Condition(), s.Damped()},
		[]float64{values[0] / last, (values[0] + s.Damping) / (last + s.Damping)}, 1e-8)
	damped := mat.NewSymDense(n, slices.Clone(moment)) // the trace of F (F + damping)^-1
	for i := range n {
		damped.SetSym(i, i, damped.At(i, i)+s.Damping)
	}
	var product mat.Dense
	testnet.Check(t, product.Solve(damped, mat.NewSymDense(n, moment)))
	testnet.Near(t, "directions", []float64{s.Effective()}, []float64{mat.Trace(&product)}, 1e-9)
}

func TestSpectrumOfSingularFactors(t *testing.T) {
	s := Spectrum{Eigenvalues: []float64{4, 0, -1e-17}, Damping: 1}
	if !math.IsInf(s.Condition(), 1) || s.Damped() != 5 || s.Effective() != 0.8 {
		t.Errorf("%g, %g, %g", s.Condition(), s.Damped(), s.Effective())
	}
	for _, zero := range []Spectrum{{}, {Eigenvalues: []float64{0}}} {
		if !math.IsNaN(zero.Condition()) {
			t.Errorf("%g of nothing", zero.Condition())
		}
	}
}

// Diagonal factors and blocks outside layers have eigenvalues and no matrix.
func TestInspectWithoutMatrices(t *testing.T) {
	tr := NewTrainer(t, testnet.Offsets(), WithMaxDim(2))
	tr.Steps(t, 2)
	all, err := tr.Solver.Inspect()
	testnet.Check(t, err)
	for _, one := range all {
		switch one.Params[0] {
		case "w":
			if one.A.Matrix != nil || len(one.A.Eigenvalues) != 3 || one.G.Matrix == nil {
				t.Errorf("%+v, %+v", one.A, one.G)
			}
			if !slices.IsSortedFunc(one.A.Eigenvalues, func(a, b float64) int { return int(math.Copysign(1, b-a)) }) {
				t.Errorf("%v do not fall", one.A.Eigenvalues)
			}
		default:
			if one.A != nil || one.G != nil || one.F.Matrix != nil || len(one.F.Eigenvalues) != 2 {
				t.Errorf("%+v", one)
			}
		}
	}
}

func TestInspectInFloat32(t *testing.T) {
	m := testnet.NewMLP[float32](2, testnet.Shape{Cases: 8, Widths: []int{3, 4, 2}}, testnet.CrossEntropy)
	tr := NewTrainer(t, m)
	tr.Steps(t, 3)
	all, err := tr.Solver.Inspect()
	testnet.Check(t, err)
	for _, one := range all {
		for _, s := range []*Spectrum{one.A, one.G} {
			n := len(s.Eigenvalues)
			trace := 0.0
			for i := range n {
				trace += s.Matrix[i*n+i]
			}
			testnet.Near(t, "trace", []float64{floats.Sum(s.Eigenvalues)}, []float64{trace}, 1e-12)
		}
	}
	if m.Cost.Dtype() != tensor.Float32 {
		t.Error(m.Cost.Dtype())
	}
}

func TestInspectErrors(t *testing.T) {
	tr := NewTrainer(t, statsNet())
	for _, s := range []*Solver{nil, {}, tr.Solver} {
		all, err := s.Inspect()
		var config *ConfigError
		if all != nil || !errors.As(err, &config) || config.Setting != "Inspect" {
			t.Errorf("%v, error %v", all, err)
		}
	}
	tr.Steps(t, 1)
	trainingOf(tr).calling.begin("a test")
	if _, err := tr.Solver.Inspect(); err == nil {
		t.Error("no error during another call")
	}
}
