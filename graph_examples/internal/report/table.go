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
func Table(w io.Writer, quantity string, goals []float64, curves []*trial.Curve) error {
	table := tabwriter.NewWriter(w, 14, 0, 3, ' ', 0)
	row := func(label string, cell func(*trial.Curve) string) {
		fmt.Fprint(table, label)
		for _, c := range curves {
			fmt.Fprint(table, "\t", cell(c))
		}
		fmt.Fprintln(table)
	}
	row(quantity, func(c *trial.Curve) string { return c.Name })
	row("learning rate", (*trial.Curve).RateText)
	for _, goal := range goals {
		row(fmt.Sprintf("<= %g after", goal), func(c *trial.Curve) string {
			p, ok := c.Reached(goal)
			if !ok {
				return "-"
			}
			return fmt.Sprintf("%d, %.1f s", p.Updates, p.Seconds)
		})
	}
	row("at the end", lastError)
	row("updates, seconds", func(c *trial.Curve) string { return fmt.Sprintf("%d, %.1f s", c.Updates, c.Seconds) })
	row("seconds per update", func(c *trial.Curve) string {
		if c.Updates == 0 {
			return "-"
		}
		return fmt.Sprintf("%.3f", c.Seconds/float64(c.Updates))
	})
	return table.Flush()
}

func lastError(c *trial.Curve) string {
	last, ok := c.Last()
	switch {
	case c.Diverged:
		return fmt.Sprintf("diverged (update %d)", c.Updates)
	case !ok:
		return "-"
	}
	return fmt.Sprintf("%.2f", last.Error)
}
