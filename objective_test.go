package kfac

import (
	"testing"

	"gonum.org/v1/gonum/floats"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// objectives are those where the parameters are, after updates, and where they are once more.
func objectives(t *testing.T, c *training[float64], b batch[float64], eta float64, updates [][]float64) (h []float64) {
	t.Helper()
	o := objective{eta: eta}
	for _, at := range []func() (float64, error){
		func() (float64, error) { return present(o, b, c.plan.order) },
		func() (float64, error) { return after(o, b, c.plan.order, updates) },
		func() (float64, error) { return present(o, b, c.plan.order) },
	} {
		v, err := at()
		testnet.Check(t, err)
		h = append(h, v)
	}
	return h
}

// The objective at other weights is what a tape machine computes there, over the scale, plus the L2
// term.
func TestObjectiveAtOtherWeights(t *testing.T) {
	const eta = 0.3
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			n := testnet.MLP{Widths: []int{3, 4, 2}, Cases: 6, Unit: gorgonia.Tanh, Loss: loss}.Build(2)
			c := attach(t, n, WithL2Reg(eta))
			s := testnet.NewSketch(3)
			var updates [][]float64
			for _, p := range c.plan.order {
				testnet.Check(t, p.readWeights(false))
				p.given = true
				updates = append(updates, s.Normals(p.size()))
			}
			got := objectives(t, c, batch[float64]{wholeChunk(c, nil)}, eta, updates)

			var cost gorgonia.Value
			gorgonia.Read(n.Cost, &cost)
			vm := gorgonia.NewTapeMachine(n.Graph)
			defer vm.Close()
			displaced := func(by float64) float64 {
				var squares float64
				for i, p := range c.plan.order {
					floats.AddScaled(testnet.Data(p.src), by, updates[i])
					squares += floats.Dot(testnet.Data(p.src), testnet.Data(p.src))
				}
				testnet.Check(t, vm.RunAll())
				vm.Reset()
				h := cost.Data().(float64)/(c.graph.scale()*float64(c.plan.model.Cases)) + eta/2*squares
				for i, p := range c.plan.order {
					floats.AddScaled(testnet.Data(p.src), -by, updates[i])
				}
				return h
			}
			want := []float64{displaced(0), displaced(1), displaced(0)}
			testnet.Near(t, "objective", got, want, 1e-12)
		})
	}
}
