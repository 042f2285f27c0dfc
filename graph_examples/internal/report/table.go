// Package report shows the curves of several optimizers: as a table, as a plot, and as rows of digits.
package report

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// Table writes one column per curve to w: updates and training seconds to each of the goals, the last error, and the
// seconds of an update.
func Table(w io.Writer, goals []float64, curves []*trial.Curve) error {
	table := tabwriter.NewWriter(w, 16, 0, 2, ' ', 0)
	row := func(label string, cell func(*trial.Curve) string) {
		fmt.Fprint(table, label)
		for _, c := range curves {
			fmt.Fprint(table, "\t", cell(c))
		}
		fmt.Fprintln(table)
	}
	row("optimizer", func(c *trial.Curve) string { return c.Name })
	row("learning rate", (*trial.Curve).RateText)
	for _, goal := range goals {
		row(fmt.Sprintf("error <= %g", goal), func(c *trial.Curve) string { return reached(c, goal) })
	}
	row("last error", lastError)
	row("in all", func(c *trial.Curve) string { return when(c.Updates, c.Seconds) })
	row("seconds/update", secondsPerUpdate)
	return table.Flush()
}

// Grid writes one row per curve to w: the error at the end and the lowest one.
func Grid(w io.Writer, curves []*trial.Curve) error {
	table := tabwriter.NewWriter(w, 12, 0, 2, ' ', 0)
	fmt.Fprintln(table, "optimizer\tlearning rate\tin all\tlast error\tlowest error")
	for _, c := range curves {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", c.Name, c.RateText(), when(c.Updates, c.Seconds), lastError(c), lowestError(c))
	}
	return table.Flush()
}

func when(updates int, seconds float64) string {
	return fmt.Sprintf("%d in %.1f s", updates, seconds)
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
	return fmt.Sprintf("%.2f", last.Error)
}

func lowestError(c *trial.Curve) string {
	if len(c.Points) == 0 {
		return "-"
	}
	lowest := c.Points[0].Error
	for _, p := range c.Points {
		lowest = min(lowest, p.Error)
	}
	return fmt.Sprintf("%.2f", lowest)
}

func secondsPerUpdate(c *trial.Curve) string {
	if c.Updates == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", c.Seconds/float64(c.Updates))
}
