package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// print writes two tables: what an iteration costs, and where its time goes.
func (r result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s; batch %d, %s; square products alone %.3g GFLOP/s\n\n",
		r.model, models[r.model].what, r.batch, r.dtype, r.rateAlone)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "ms/iteration\tof %s\tslowest\tin products\tGFLOP\tGFLOP/s\tof alone\t"+
		"Step allocates\tin pieces\tpeak memory\t  optimizer\n", r.lines[0].name)
	for _, l := range r.lines {
		peak := "-"
		if l.peak > 0 {
			peak = fmt.Sprintf("%d MB", l.peak/1e6)
		}
		fmt.Fprintf(table, "%.4g\t%.2fx\t%.2fx\t%.0f %%\t%.3g\t%.3g\t%.0f %%\t%.3g MB\t%.0f\t%s\t  %s\n",
			1e3*l.seconds, l.ratio, l.slowest, 100*l.products.seconds/l.seconds,
			l.products.operations/1e9, l.products.rate(), 100*l.products.rate()/r.rateAlone,
			l.allocated/1e6, l.mallocs, peak, l.name)
	}
	_ = table.Flush()
	fmt.Fprintln(w)
	for _, p := range parts {
		fmt.Fprintf(table, "%s\t", p.name)
	}
	fmt.Fprintln(table, "  % of the iteration")
	for _, l := range r.lines {
		for _, seconds := range l.parts {
			fmt.Fprintf(table, "%.1f\t", 100*seconds/l.seconds)
		}
		fmt.Fprintln(table, " ", l.name)
	}
	_ = table.Flush()
}
