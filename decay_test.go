package kfac

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// decayRules are the rules that decay and clipping go with.
var decayRules = map[string][]Option{"default": nil, "paper": {WithPaperRules(), WithDamping(1)},
	"rate": {WithLearningRate(0.1)}, "rejection": {WithStepRejection()}}

// Weight decay is what the caller could take off after each step, whatever the step is made by.
func TestWeightDecay(t *testing.T) {
	const decay = 0.03
	for name, build := range skipNets() {
		for rules, opts := range decayRules {
			t.Run(name+", "+rules, func(t *testing.T) {
				with := NewTrainer(t, build(), append(slices.Clone(opts), WithWeightDecay(decay))...)
				byHand := NewTrainer(t, build(), opts...)
				for range 8 {
					before := weightsOf(byHand.Net)
					with.Steps(t, 1)
					byHand.Steps(t, 1)
					if byHand.Solver.Stats().Rejected {
						continue
					}
					for _, p := range byHand.Params {
						switch w := p.Value().Data().(type) {
						case []float64:
							for i := range w {
								w[i] -= decay * before[i]
							}
							before = before[len(w):]
						case []float32:
							for i := range w {
								w[i] -= decay * float32(before[i])
							}
							before = before[len(w):]
						}
					}
				}
				tol := innerTolerance(with.Net)
				testnet.Near(t, "weights", weightsOf(with.Net), weightsOf(byHand.Net), 100*tol)
			})
		}
	}
}

// A group has its own decay, and those that stay or that another solver steps have none.
func TestGroupDecay(t *testing.T) {
	build := groupNets()["float64 of 7"]
	opts := []Option{WithLearningRate(1e-12), WithWeightDecay(0.25), WithGroup("?0", GroupFrozen()),
		WithGroup("w1", GroupDecay(0.5)), WithGroup("b1", GroupSolver(plain(0)))}
	tr := NewTrainer(t, build(), opts...)
	factors := map[string]float64{"w0": 1, "b0": 1, "w1": 0.5, "b1": 1, "w2": 0.75, "b2": 0.75}
	want := map[string][]float64{}
	for name, factor := range factors {
		want[name] = weightsNamed(tr.Net, name)
		floats.Scale(factor*factor, want[name])
	}
	tr.Steps(t, 2)
	for name := range factors {
		testnet.Near(t, name, weightsNamed(tr.Net, name), want[name], 1e-9)
	}
}

// Clipping makes the step of the gradient times a factor, whose norm is the limit; and none where
// the norm is below it.
func TestClipNorm(t *testing.T) {
	for name, build := range groupNets() {
		for rules, opts := range decayRules {
			t.Run(name+", "+rules, func(t *testing.T) {
				opts := append(slices.Clone(opts), WithNormConstraint(math.Inf(1)), WithoutGradientCheck(),
					WithDamping(2))
				if rules == "default" || rules == "rejection" { // these have bounds of their own
					opts = append(opts, WithPaperRules())
				}
				free := NewTrainer(t, build(), opts...)
				free.Steps(t, 1)
				norm := free.Solver.Stats().GradNorm
				above := NewTrainer(t, build(), append(slices.Clone(opts), WithClipNorm(2*norm))...)
				above.Steps(t, 1)
				testnet.SameBits(t, "unclipped", weightsOf(above.Net), weightsOf(free.Net))

				limit := norm / 3
				clip := NewTrainer(t, build(), append(slices.Clone(opts), WithClipNorm(limit))...)
				byHand := NewTrainer(t, build(), opts...)
				for k := range 4 { // before lambda is adapted
					testnet.Check(t, byHand.Run())
					testnet.Check(t, clip.Run())
					testnet.Check(t, clip.Solver.Step(clip.ValueGrads()))
					st := clip.Solver.Stats()
					for _, p := range byHand.Params {
						g, err := p.Grad()
						testnet.Check(t, err)
						floats.Scale(min(1, limit/st.GradNorm), g.Data().([]float64))
					}
					testnet.Check(t, byHand.Solver.Step(byHand.ValueGrads()))
					testnet.Near(t, fmt.Sprint("weights ", k), weightsOf(clip.Net), weightsOf(byHand.Net), 1e-9)
					if k == 0 {
						testnet.Near(t, "shrink", []float64{st.Shrink}, []float64{1.0 / 3}, 1e-9)
					}
				}
			})
		}
	}
}

// By the default rules too a clipped step is a part of the whole one, which promises less.
func TestClipNormByDefault(t *testing.T) {
	for name, build := range groupNets() {
		t.Run(name, func(t *testing.T) {
			n := build()
			before := weightsOf(n)
			free := NewTrainer(t, n, WithDamping(1))
			free.Steps(t, 1)
			whole := weightsOf(n)
			floats.Sub(whole, before)
			st := free.Solver.Stats()
			m := build()
			clip := NewTrainer(t, m, WithDamping(1), WithClipNorm(st.GradNorm/100))
			clip.Steps(t, 1)
			part := weightsOf(m)
			floats.Sub(part, before)
			shrink := clip.Solver.Stats().Shrink
			if !(shrink <= 0.01) {
				t.Errorf("shrink %g", shrink)
			}
			floats.Scale(shrink/st.Shrink, whole)
			testnet.Near(t, "update", part, whole, 1e-9)
			clip.Steps(t, 20)
		})
	}
}
