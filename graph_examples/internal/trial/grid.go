package trial

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
)

// Grid trains every optimizer of s that has learning rates in grid at each of them, and writes the errors to w as it goes.
// An interrupt ends it after the row of the run that was under way.
func Grid(ctx context.Context, s Settings, grid map[string][]float64, w io.Writer, train func(optimizer string, rate float64) (*Curve, error)) error {
	table := tabwriter.NewWriter(w, 12, 0, 2, ' ', 0)
	fmt.Fprintln(table, "optimizer\trate\tupdates\tlast error\tlowest error")
	for _, name := range s.Optimizers {
		for _, rate := range grid[name] {
			if ctx.Err() != nil {
				return table.Flush()
			}
			curve, err := train(name, rate)
			if err != nil {
				return err
			}
			fmt.Fprintln(table, gridRow(curve))
			if err := table.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func gridRow(c *Curve) string {
	row := fmt.Sprintf("%s\t%g\t%d", c.Name, c.Rate, c.Updates)
	last, ok := c.Last()
	if !ok {
		return row + "\t-\t-"
	}
	lowest := last.Error
	for _, p := range c.Points {
		lowest = min(lowest, p.Error)
	}
	if c.Diverged {
		return fmt.Sprintf("%s\tdiverged\t%.4g", row, lowest)
	}
	return fmt.Sprintf("%s\t%.4g\t%.4g", row, last.Error, lowest)
}
