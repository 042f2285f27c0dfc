package trial

import (
	"context"
	"fmt"
	"io"
	"iter"
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

// Compare trains with one entrant after the other and returns their curves. Each makes the updates
// of s; then those that are faster go on, until all have trained for as many seconds, unless
// s.UpdatesOnly or s.Grid says that they do not. The first error ends it, and so does the end of
// ctx. Then the curves are those of the entrants that began; the last may be cut short. Progress
// bars go to bar.
func Compare(
	ctx context.Context, s Settings, entrants []Entrant, bar io.Writer, train func(*Run) error,
) (curves []*Curve, err error) {
	goesOn := !s.UpdatesOnly && !s.Grid && len(entrants) > 1
	var waiting []*training
	longest := 0.0
	for _, e := range entrants {
		if ctx.Err() != nil {
			break
		}
		runtime.GC() // so that nobody's time is spent on the garbage of the one before
		t := start(newRun(s, e, bar), train)
		defer t.stop()
		curves = append(curves, &t.run.curve)
		if !goesOn {
			t.stop()
		}
		if t.err != nil {
			return curves, t.error()
		}
		waiting = append(waiting, t)
		longest = max(longest, t.run.curve.Seconds)
	}
	if !goesOn {
		return curves, nil
	}
	for _, t := range waiting {
		if t.goOn(longest); t.err != nil {
			return curves, t.error()
		}
	}
	return curves, nil
}

// A training is a run with its training loop, which waits after the updates that all make.
type training struct {
	run  *Run
	err  error
	next func() (struct{}, bool)
	stop func() // has the loop end, if it has not
}

// start trains until the updates are made, or the loop ends.
func start(run *Run, train func(*Run) error) *training {
	t := &training{run: run}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		run.wait = func() bool { return yield(struct{}{}) }
		t.err = run.train(train)
	})
	t.next()
	fmt.Fprintln(run.out) // leaves the line of the progress bar
	return t
}

// goOn trains until the run has had so many seconds, if the loop waits.
func (t *training) goOn(seconds float64) {
	if c := &t.run.curve; c.Seconds < seconds && t.err == nil {
		t.run.until = seconds
		t.next()
		fmt.Fprintf(t.run.out, "%s made %d updates in the %s of the slowest\n",
			c.Name, c.Updates, SecondsText(c.Seconds))
	}
	t.stop()
}

func (t *training) error() error {
	return fmt.Errorf("%s, update %d: %w", t.run.Name, t.run.curve.Updates+1, t.err)
}
