// Package report shows the curves of several optimizers, as a table and as a plot. It also shows
// rows of digits.
package report

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// Table writes one column per curve to w: updates and training seconds to each of the goals, the
// error after the updates that all have made and the last one, and the seconds of an update.
func Table(w io.Writer, goals []float64, curves []*trial.Curve) error {
	table := tabwriter.NewWriter(w, 16, 0, 2, ' ', 0)
	row := rower(table, curves)
	row("optimizer", func(c *trial.Curve) string { return c.Name })
	row("learning rate", (*trial.Curve).RateText)
	for _, goal := range goals {
		row(fmt.Sprintf("error <= %g", goal), func(c *trial.Curve) string { return reached(c, goal) })
	}
	afterSteps(row, curves)
	row("last error", lastError)
	row("in all", func(c *trial.Curve) string { return when(c.Updates, c.Seconds) })
	row("seconds/update", secondsPerUpdate)
	return table.Flush()
}

// Losses writes one column per curve to w: the first, the lowest and the last loss and the one
// after the updates that all have made, how far the last is above the lowest, and when the curve
// reached what each of the other optimizers had after these updates, in updates and training
// seconds.
func Losses(w io.Writer, curves []*trial.Curve) error {
	table := tabwriter.NewWriter(w, 16, 0, 2, ' ', 0)
	row := rower(table, curves)
	row("optimizer", func(c *trial.Curve) string { return c.Name })
	row("learning rate", (*trial.Curve).RateText)
	row("first loss", func(c *trial.Curve) string {
		if len(c.Points) == 0 {
			return "-"
		}
		return number(c.Points[0].Error)
	})
	row("lowest loss", lowestError)
	afterSteps(row, curves)
	row("last loss", lastError)
	row("rise / fall", func(c *trial.Curve) string {
		return rise(c, func(lowest float64) float64 { return c.Points[0].Error - lowest })
	})
	row("rise / lowest", func(c *trial.Curve) string { return rise(c, func(lowest float64) float64 { return lowest }) })
	for _, rival := range curves {
		if last, ok := rival.AfterSteps(); ok && !rival.Diverged && rival.Name != "kfac" {
			row("as "+rival.Name, func(c *trial.Curve) string { return reached(c, last.Error) })
		}
	}
	row("in all", func(c *trial.Curve) string { return when(c.Updates, c.Seconds) })
	row("seconds/update", secondsPerUpdate)
	return table.Flush()
}

// afterSteps is the row of the errors after the updates that all have made.
func afterSteps(row func(string, func(*trial.Curve) string), curves []*trial.Curve) {
	if len(curves) == 0 {
		return
	}
	row(fmt.Sprintf("after %d", curves[0].Steps), func(c *trial.Curve) string {
		p, ok := c.AfterSteps()
		if !ok || p.Updates < c.Steps {
			return "-"
		}
		return number(p.Error)
	})
}

// rise is what the last error has above the lowest one, in percent of a quantity.
func rise(c *trial.Curve, of func(lowest float64) float64) string {
	last, ok := c.Last()
	if !ok || c.Diverged {
		return "-"
	}
	lowest := lowest(c)
	if !(of(lowest) > 0) {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*(last.Error-lowest)/of(lowest))
}

// rower returns a function that writes a row of a table: a label and a cell for each curve.
func rower(table io.Writer, curves []*trial.Curve) func(label string, cell func(*trial.Curve) string) {
	return func(label string, cell func(*trial.Curve) string) {
		fmt.Fprint(table, label)
		for _, c := range curves {
			fmt.Fprint(table, "\t", cell(c))
		}
		fmt.Fprintln(table)
	}
}

// Grid writes one row per curve to w: the error at the end and the lowest one.
func Grid(w io.Writer, curves []*trial.Curve) error {
	table := tabwriter.NewWriter(w, 12, 0, 2, ' ', 0)
	fmt.Fprintln(table, "optimizer\tlearning rate\tin all\tlast error\tlowest error")
	for _, c := range curves {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n",
			c.Name, c.RateText(), when(c.Updates, c.Seconds), lastError(c), lowestError(c))
	}
	return table.Flush()
}

func when(updates int, seconds float64) string {
	return fmt.Sprintf("%d in %s", updates, trial.SecondsText(seconds))
}

func reached(c *trial.Curve, goal float64) string {
	p, ok := c.Reached(goal)
	if !ok {
		return "-"
	}
	return when(p.Updates, p.Seconds)
}

func lastError(c *trial.Curve) string {
	last, ok := c.Last()
	switch {
	case c.Diverged:
		return fmt.Sprintf("diverged at %d", c.Updates)
	case !ok:
		return "-"
	}
	return number(last.Error)
}

func lowestError(c *trial.Curve) string {
	if len(c.Points) == 0 {
		return "-"
	}
	return number(lowest(c))
}

// lowest is the lowest of the errors; there is at least one.
func lowest(c *trial.Curve) float64 {
	low := c.Points[0].Error
	for _, p := range c.Points {
		low = min(low, p.Error)
	}
	return low
}

func number(v float64) string { return fmt.Sprintf("%.4g", v) }

func secondsPerUpdate(c *trial.Curve) string {
	if c.Updates == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g", c.Seconds/float64(c.Updates))
}
