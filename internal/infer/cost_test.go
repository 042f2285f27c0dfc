package infer_test

import (
	"slices"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/infer"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// The cost is what Grad was called for, or the last scalar; nothing that is read or reported beside
// it, and no part of it.
func TestCosts(t *testing.T) {
	type costs = []*gorgonia.Node
	for _, c := range []struct {
		name string
		make func(t *testing.T, m model) (params, want costs)
	}{
		{"one that Grad was called for", func(t *testing.T, m model) (costs, costs) {
			cost := m.classes(m.a)
			testnet.Mean(m.b)
			_, err := gorgonia.Grad(cost, m.Params[:4]...)
			testnet.Check(t, err)
			return m.Params[:4], costs{cost}
		}},
		{"the last scalar", func(_ *testing.T, m model) (costs, costs) {
			cost := testnet.Add(m.classes(m.a), m.squares(m.b))
			return m.Params, costs{cost}
		}},
		{"a scalar that is read", func(_ *testing.T, m model) (costs, costs) {
			cost := m.classes(m.a)
			var v gorgonia.Value
			gorgonia.Read(cost, &v)
			return m.Params, costs{cost}
		}},
		{"no scalar but one that something else is computed from", func(_ *testing.T, m model) (costs, costs) {
			testnet.Hadamard(testnet.Mean(m.a), m.b)
			return m.Params, nil
		}},
		{"a scalar that no parameter is before", func(_ *testing.T, m model) (costs, costs) {
			cost := m.classes(m.a)
			testnet.Mean(m.y)
			return m.Params, costs{cost}
		}},
		{"several, of other parameters", func(t *testing.T, m model) (costs, costs) {
			first, second := m.squares(m.a), m.squares(m.b)
			_, err := gorgonia.Grad(first, m.Params[2:4]...)
			testnet.Check(t, err)
			_, err = gorgonia.Grad(second, m.Params[4:6]...)
			testnet.Check(t, err)
			return m.Params[4:6], costs{second}
		}},
		{"several", func(_ *testing.T, m model) (costs, costs) {
			first, second := m.classes(m.a), m.squares(m.b)
			return m.Params, costs{first, second}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			params, want := c.make(t, newModel())
			if got := infer.Costs(params); !slices.Equal(got, want) {
				t.Errorf("found %v, want %v", got, want)
			}
		})
	}
}
