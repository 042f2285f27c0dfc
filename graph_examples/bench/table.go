package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// print writes two tables: what an iteration costs, and where its time goes.
func (r result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s; batch %d, %s; square products alone %.3g GFLOP/s\n\n",
		r.model, models[r.model].what, r.batch, r.dtype, r.rateAlone)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "ms/iteration\tof %s\tby CPU\tslowest\tin products\tGFLOP\tGFLOP/s\tof alone\t"+
		"Step allocates\tin pieces\tpeak memory\t  optimizer\n", r.lines[0].name)
	for _, l := range r.lines {
		peak := "-"
		if l.peak > 0 {
			peak = fmt.Sprintf("%d MB", l.peak/1e6)
		}
		fmt.Fprintf(table, "%.4g\t%.2fx\t%s\t%.2fx\t%.0f %%\t%.3g\t%.3g\t%.0f %%\t%.3g MB\t%.0f\t%s\t  %s\n",
			1e3*l.seconds, l.ratio, l.cpu(), l.slowest, 100*l.products.seconds/l.seconds,
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

// cpu is the processors' time over the first optimizer's, if it was measured.
func (l line) cpu() string {
	if l.processor == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fx", l.cpuRatio)
}

// printRatios writes a table of all results, for Markdown: an iteration's seconds over the first
// optimizer's, and in parentheses the processors' time over its.
func printRatios(w io.Writer, results []result) {
	first := results[0].lines[0].name
	fmt.Fprintf(w, "\nAn iteration over that of %s, and in parentheses the same in processor time\n\n", first)
	fmt.Fprint(w, "| model | batch | dtype |")
	for _, l := range results[0].lines[1:] {
		fmt.Fprintf(w, " %s |", l.name)
	}
	fmt.Fprintf(w, "\n|%s\n", strings.Repeat(" --- |", 2+len(results[0].lines)))
	for _, r := range results {
		fmt.Fprintf(w, "| %s | %d | %s |", r.model, r.batch, r.dtype)
		for _, l := range r.lines[1:] {
			fmt.Fprintf(w, " %.2f (%s) |", l.ratio, strings.TrimSuffix(l.cpu(), "x"))
		}
		fmt.Fprintln(w)
	}
}
