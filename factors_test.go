package kfac

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A moment that is not finite is an error that names the layer, and the current average stays as it
// is.
func TestMomentsNotFinite(t *testing.T) {
	for name, bad := range map[string]float64{"NaN": math.NaN(), "infinity": math.Inf(-1),
		"overflow of the square": 1e200} {
		t.Run(name, func(t *testing.T) {
			n := testnet.MLP{Widths: []int{3, 2}, Cases: 4, Loss: testnet.Squares(1)}.Build(12)
			c := attach(t, n)
			exactAverages(t, c, nil).keep(c.plan.blocks, 0.95)
			before := currentAverages(c)
			testnet.Data(n.X)[5] = bad
			run := c.plan.model.run
			testnet.Check(t, run.Forward(nil))
			seed := program.Seed[float64]{Node: c.plan.model.outputs[0].node, Data: make([]float64, 8)}
			testnet.Check(t, run.Reverse([]program.Seed[float64]{seed}, c.plan.path))
			err := observe(c.plan, false)
			var layer *LayerError
			if !errors.Is(err, ErrNotFinite) || !errors.As(err, &layer) || layer.Layer != "w0" {
				t.Fatalf("error %v, want a LayerError of w0 that wraps ErrNotFinite", err)
			}
			says := `kfac: layer "w0": second moments of its inputs and sampled gradients: `
			if s := err.Error(); !strings.HasPrefix(s, says) || !strings.Contains(s, "look at the data") {
				t.Errorf("error %q", s)
			}
			for i, avg := range currentAverages(c) {
				if avg.Updates != 1 || !slices.EqualFunc(avg.Moments, before[i].Moments, slices.Equal) {
					t.Error("the current average has changed")
				}
			}
		})
	}
}
