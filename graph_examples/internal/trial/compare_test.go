package trial

import (
	"context"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
)

// pretend is a training loop without a model; the error after n updates is value(n).
func pretend(ctx context.Context, value func(updates int) float64) func(*Run) error {
	return func(run *Run) error {
		updates := 0
		if err := run.Record(value(0), nil); err != nil {
			return err
		}
		for run.More(ctx) {
			run.Start()
			updates++
			run.Stop()
			if run.Due(ctx) {
				if err := run.Record(value(updates), nil); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

var firstTen = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}

func measured(c *Curve) []int {
	var updates []int
	for _, p := range c.Points {
		updates = append(updates, p.Updates)
	}
	return updates
}

// compare ends all runs after their updates.
func compare(ctx context.Context, s Settings, train func(*Run) error) ([]*Curve, error) {
	s.UpdatesOnly = true
	return Compare(ctx, s, s.Entrants(nil), io.Discard, train)
}

func TestCompare(t *testing.T) {
	s := defaults
	s.Steps = 17
	ctx := context.Background()
	curves, err := compare(ctx, s, pretend(ctx, func(n int) float64 { return 10 / float64(n+1) }))
	if err != nil || len(curves) != 2 ||
		curves[0].Name != "kfac" || curves[1].Name != "adam" || curves[1].Rate != 0.001 {
		t.Fatalf("curves %v (%v), want one of kfac and one of adam", curves, err)
	}
	for _, c := range curves {
		want := append(firstTen, 15, 17)
		if !reflect.DeepEqual(measured(c), want) || c.Updates != 17 {
			t.Errorf("%s: %d updates, measured at %v, want 17 and %v", c.Name, c.Updates, measured(c), want)
		}
		if p, ok := c.Reached(2); !ok || p.Updates != 4 {
			t.Errorf("%s: error 2 reached at %+v, %v, want at update 4", c.Name, p, ok)
		}
		if _, ok := c.Reached(0.1); ok {
			t.Errorf("%s: error 0.1 reached, though the last one is 10/18", c.Name)
		}
	}
}

// An optimizer that is three times as fast makes three times the updates, before or after the slow
// one; an error of one that goes on, and the end of ctx, end it.
func TestEqualSeconds(t *testing.T) {
	s := defaults
	s.Steps = 10
	s.Optimizers = []string{"kfac", "adam"}
	cause := errors.New("no luck")
	for _, c := range []struct {
		slow          string
		fails, cancel int // at which update of the fast one; 0: never
		updates       int // of the fast one
	}{{"kfac", 0, 0, 30}, {"adam", 0, 0, 30}, {"kfac", 15, 0, 15}, {"adam", 0, 20, 20}} {
		ctx, cancel := context.WithCancel(context.Background())
		curves, err := Compare(ctx, s, s.Entrants(nil), io.Discard, func(run *Run) error {
			for run.More(ctx) {
				seconds := 1.0
				if run.Name == c.slow {
					seconds = 3
				}
				run.curve.Seconds += seconds
				run.curve.Updates++
				if run.Name != c.slow && run.curve.Updates == c.cancel {
					cancel()
				}
				if run.Name != c.slow && run.curve.Updates == c.fails {
					return run.Record(0, cause)
				}
				if run.Due(ctx) {
					if err := run.Record(1, nil); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if errors.Is(err, cause) != (c.fails > 0) || len(curves) != 2 {
			t.Fatalf("%+v: %d curves (%v)", c, len(curves), err)
		}
		for _, curve := range curves {
			want := c.updates
			if curve.Name == c.slow {
				want = 10
			}
			if p, ok := curve.AfterSteps(); curve.Updates != want || !ok || p.Updates != 10 {
				t.Errorf("%+v: %s made %d updates, want %d; at 10 it has %+v", c, curve.Name, curve.Updates, want, p)
			}
			if last, _ := curve.Last(); last.Updates != want && c.fails == 0 {
				t.Errorf("%+v: %s was measured at %d last, want %d", c, curve.Name, last.Updates, want)
			}
		}
		cancel()
	}
}

func TestSecondsEndRun(t *testing.T) {
	s := defaults
	s.Seconds = math.SmallestNonzeroFloat64
	ctx := context.Background()
	curves, err := compare(ctx, s, pretend(ctx, func(int) float64 { return 1 }))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range curves {
		last, ok := c.Last()
		if c.Updates == 0 || c.Updates == s.Steps || !ok || last.Updates != c.Updates {
			t.Errorf("%s: %d updates, last measured at %d, want a few, and the last one measured",
				c.Name, c.Updates, last.Updates)
		}
	}
}

func TestDivergenceEndsRun(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		ctx := context.Background()
		curves, err := compare(ctx, defaults, pretend(ctx, func(n int) float64 {
			if n >= 12 {
				return bad
			}
			return 1
		}))
		if err != nil || len(curves) != 2 {
			t.Fatalf("%d curves (%v), want 2", len(curves), err)
		}
		for _, c := range curves {
			if !c.Diverged || c.Updates != 15 || !reflect.DeepEqual(measured(c), firstTen) {
				t.Errorf("%s: diverged %v at update %d, measured at %v, want true at 15, and 0 to 10",
					c.Name, c.Diverged, c.Updates, measured(c))
			}
		}
	}
}

func TestInterruptKeepsWhatWasMeasured(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	curves, err := compare(ctx, defaults, func(run *Run) error {
		if err := run.Record(3, nil); err != nil {
			return err
		}
		for run.More(ctx) {
			run.Start()
			run.Stop()
			if run.curve.Updates == 12 {
				cancel()
			}
			if run.Due(ctx) {
				if err := run.Record(2, nil); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil || len(curves) != 1 || !reflect.DeepEqual(measured(curves[0]), append(firstTen, 12)) {
		t.Errorf("curves %v (%v), want one, measured at 0 to 10 and 12", curves, err)
	}
}

func TestErrorKeepsWhatWasMeasured(t *testing.T) {
	cause := errors.New("no luck")
	curves, err := compare(context.Background(), defaults, func(run *Run) error {
		if err := run.Record(3, nil); err != nil {
			return err
		}
		run.Start()
		run.Stop()
		return run.Record(0, cause)
	})
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "kfac") ||
		len(curves) != 1 || !reflect.DeepEqual(measured(curves[0]), []int{0}) {
		t.Errorf("curves %v and error %v, want one curve with its first point, and the cause under kfac's name",
			curves, err)
	}
}

func TestEntrants(t *testing.T) {
	grid := map[string][]float64{"adam": {1, 2}}
	s := defaults
	if got, want := s.Entrants(grid), []Entrant{{"kfac", 0}, {"adam", 0.001}}; !reflect.DeepEqual(got, want) {
		t.Errorf("entrants %v, want %v", got, want)
	}
	s.Grid = true
	if got, want := s.Entrants(grid), []Entrant{{"adam", 1}, {"adam", 2}}; !reflect.DeepEqual(got, want) {
		t.Errorf("entrants of the grid %v, want %v", got, want)
	}
}
