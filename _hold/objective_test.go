package kfac

import (
	"testing"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// The objective at other weights is what a tape machine computes there, over the scale, plus the L2
// term.
func TestObjectiveAtOtherWeights(t *testing.T) {
	const eta = 0.3
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			n := testnet.MLP{Widths: []int{3, 4, 2}, Cases: 6, Unit: gorgonia.Tanh, Loss: loss}.Build(2)
			c := attach(t, n, WithL2Reg(eta))
			s := testnet.NewSketch(3)
			for _, p := range c.order {
				testnet.Check(t, p.readWeights(false))
				p.given = true
				copy(p.next, s.Normals(len(p.next)))
			}
			at := func(pick func(*parameter[float64]) []float64) float64 {
				h, err := c.evaluate([]chunk[float64]{{graph: c.graph, cases: c.model.Cases}}, pick)
				testnet.Check(t, err)
				return h
			}
			got := []float64{at((*parameter[float64]).present), at((*parameter[float64]).trial),
				at((*parameter[float64]).present)}

			var cost gorgonia.Value
			gorgonia.Read(n.Cost, &cost)
			vm := gorgonia.NewTapeMachine(n.Graph)
			defer vm.Close()
			displaced := func(by float64, update func(*parameter[float64]) []float64) float64 {
				var squares float64
				for _, p := range c.order {
					floats.AddScaled(testnet.Data(p.src), by, update(p))
					squares += floats.Dot(testnet.Data(p.src), testnet.Data(p.src))
				}
				testnet.Check(t, vm.RunAll())
				vm.Reset()
				h := cost.Data().(float64)/(c.scale*float64(c.model.Cases)) + eta/2*squares
				for _, p := range c.order {
					floats.AddScaled(testnet.Data(p.src), -by, update(p))
				}
				return h
			}
			next := func(p *parameter[float64]) []float64 { return p.next }
			want := []float64{displaced(0, next), displaced(1, next), displaced(0, next)}
			testnet.Near(t, "objective", got, want, 1e-12)
		})
	}
}
