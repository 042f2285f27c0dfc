package main

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// A result is what the optimizers reached on a task.
type result struct {
	task     task
	settings trial.Settings
	curves   []*trial.Curve
}

// of is the curve of an optimizer, one without points if it did not run.
func (r result) of(name string) *trial.Curve {
	for _, c := range r.curves {
		if c.Name == name {
			return c
		}
	}
	return &trial.Curve{}
}

var columns = []string{
	"task", "what", "batch", "updates", "untrained", "highest from update 10 on", "last: K-FAC", "Adam", "Momentum",
	"as Adam after", "as Momentum after", "seconds: K-FAC", "Adam", "Momentum",
}

// markdown writes a table with one row per task to w: losses, the first two of them K-FAC's; after
// how many updates and seconds K-FAC has the last losses of the others; and the seconds of all.
func markdown(w io.Writer, results []result) error {
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
	for _, r := range results {
		kfac, adam, momentum := r.of("kfac"), r.of("adam"), r.of("momentum")
		cells := []string{
			r.task.name, r.task.about, fmt.Sprint(r.settings.Batch), fmt.Sprint(r.settings.Steps),
			first(kfac), highest(kfac), last(kfac), rated(adam), rated(momentum),
			as(kfac, adam), as(kfac, momentum), seconds(kfac), seconds(adam), seconds(momentum),
		}
		if _, err := fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")); err != nil {
			return err
		}
	}
	return nil
}

// as says when a curve was at the last loss of a rival.
func as(c, rival *trial.Curve) string {
	end, ok := rival.AfterSteps()
	if !ok || rival.Diverged {
		return "-"
	}
	p, ok := c.Reached(end.Error)
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%d, %.2f s", p.Updates, p.Seconds)
}

// rated is the last loss with the learning rate.
func rated(c *trial.Curve) string {
	if len(c.Points) == 0 {
		return "-"
	}
	return fmt.Sprintf("%s (%s)", last(c), c.RateText())
}

// seconds are those of the updates that all make.
func seconds(c *trial.Curve) string {
	p, _ := c.AfterSteps()
	return fmt.Sprintf("%.2f", p.Seconds)
}

func first(c *trial.Curve) string {
	if len(c.Points) == 0 {
		return "-"
	}
	return number(c.Points[0].Error)
}

func last(c *trial.Curve) string {
	p, ok := c.AfterSteps()
	switch {
	case c.Diverged:
		return "diverged"
	case !ok:
		return "-"
	}
	return number(p.Error)
}

// highest is the highest loss from the tenth update on.
func highest(c *trial.Curve) string {
	high := math.Inf(-1)
	for _, p := range c.Points {
		if p.Updates >= 10 {
			high = max(high, p.Error)
		}
	}
	if math.IsInf(high, 0) {
		return "-"
	}
	return number(high)
}

func number(v float64) string { return fmt.Sprintf("%.4g", v) }

// grid writes the last losses of the baselines at their learning rates to w, one row per optimizer
// and task.
func grid(w io.Writer, results []result) error {
	for _, r := range results {
		for _, name := range []string{"adam", "momentum"} {
			var cells []string
			rate, lowest := 0.0, math.Inf(1)
			for _, c := range r.curves {
				if c.Name != name {
					continue
				}
				cells = append(cells, fmt.Sprintf("%g: %s", c.Rate, last(c)))
				if p, ok := c.AfterSteps(); ok && !c.Diverged && p.Error < lowest {
					rate, lowest = c.Rate, p.Error
				}
			}
			if len(cells) == 0 {
				continue
			}
			_, err := fmt.Fprintf(w, "| %s | %s | %g | %s |\n", r.task.name, name, rate, strings.Join(cells, ", "))
			if err != nil {
				return err
			}
		}
	}
	return nil
}
