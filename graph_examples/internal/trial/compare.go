package trial

import (
	"context"
	"fmt"
	"io"
	"runtime"
)

// An Entrant is an optimizer at a learning rate.
type Entrant struct {
	Name string
	Rate float64 // 0: the optimizer's own default
}

// Entrants lists the optimizers of s at their rates. With s.Grid it lists those that have rates in
// grid, at each of these.
func (s Settings) Entrants(grid map[string][]float64) []Entrant {
	var entrants []Entrant
	for _, name := range s.Optimizers {
		rates := []float64{s.Rates[name]}
		if s.Grid {
			rates = grid[name]
		}
		for _, rate := range rates {
			entrants = append(entrants, Entrant{Name: name, Rate: rate})
		}
	}
	return entrants
}

// Compare trains with one entrant after the other and returns their curves. The first error ends
// it, and so does the end of ctx. Then the curves are those of the entrants that began; the last
// may be cut short. Progress bars go to bar.
func Compare(
	ctx context.Context, s Settings, entrants []Entrant, bar io.Writer, train func(*Run) error,
) ([]*Curve, error) {
	var curves []*Curve
	for _, e := range entrants {
		if ctx.Err() != nil {
			break
		}
		runtime.GC() // so that nobody's time is spent on the garbage of the one before
		run := newRun(s, e, bar)
		err := train(run)
		curves = append(curves, run.finish())
		if err != nil {
			return curves, fmt.Errorf("%s, update %d: %w", e.Name, run.curve.Updates+1, err)
		}
	}
	return curves, nil
}
