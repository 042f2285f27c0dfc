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

func measured(c *Curve) []int {
	var updates []int
	for _, p := range c.Points {
		updates = append(updates, p.Updates)
	}
	return updates
}

func compare(ctx context.Context, s Settings, train func(*Run) error) ([]*Curve, error) {
	return Compare(ctx, s, s.Entrants(nil), io.Discard, train)
}

func TestCompare(t *testing.T) {
	s := defaults
	s.Steps = 12
	ctx := context.Background()
	curves, err := compare(ctx, s, pretend(ctx, func(n int) float64 { return 10 / float64(n+1) }))
	if err != nil || len(curves) != 2 ||
		curves[0].Name != "kfac" || curves[1].Name != "adam" || curves[1].Rate != 0.001 {
		t.Fatalf("curves %v (%v), want one of kfac and one of adam", curves, err)
	}
	for _, c := range curves {
		if want := []int{0, 5, 10, 12}; !reflect.DeepEqual(measured(c), want) || c.Updates != 12 {
			t.Errorf("%s: %d updates, measured at %v, want 12 and %v", c.Name, c.Updates, measured(c), want)
		}
		if p, ok := c.Reached(2); !ok || p.Updates != 5 {
			t.Errorf("%s: error 2 reached at %+v, %v, want at update 5", c.Name, p, ok)
		}
		if _, ok := c.Reached(0.1); ok {
			t.Errorf("%s: error 0.1 reached, though the last one is 10/13", c.Name)
		}
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
			if n >= 10 {
				return bad
			}
			return 1
		}))
		if err != nil || len(curves) != 2 {
			t.Fatalf("%d curves (%v), want 2", len(curves), err)
		}
		for _, c := range curves {
			if !c.Diverged || c.Updates != 10 || !reflect.DeepEqual(measured(c), []int{0, 5}) {
				t.Errorf("%s: diverged %v at update %d, measured at %v, want true at 10, and 0 and 5",
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
			if run.curve.Updates == 7 {
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
	if err != nil || len(curves) != 1 || !reflect.DeepEqual(measured(curves[0]), []int{0, 5, 7}) {
		t.Errorf("curves %v (%v), want one, measured at 0, 5 and 7", curves, err)
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
