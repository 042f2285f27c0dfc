package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// authorsLogs are the training errors after an update, by problem and size, in runs of the authors'
// own code with its settings. For the full problems they are from the logs that come with the code.
// For the small one the code itself was run in GNU Octave, on the first 10,000 cases with batches
// of 1000. Their CURVES are other curves than ours.
var authorsLogs = []struct {
	problem string
	full    bool
	method  string
	errors  map[int]float64
}{
	{"mnist", false, "kfac", map[int]float64{
		10: 61.8, 20: 53.4, 40: 51.0, 60: 43.9, 80: 34.9, 100: 23.9,
		120: 15.9, 140: 10.9, 160: 8.04, 180: 6.23, 200: 4.96,
	}},
	{"mnist", false, "kfac-tri", map[int]float64{
		10: 61.5, 20: 53.4, 40: 50.9, 60: 43.3, 80: 33.8, 100: 22.7,
		120: 14.7, 140: 9.91, 160: 7.31, 180: 5.60, 200: 4.44,
	}},
	{"mnist", false, "kfac-nomomentum", map[int]float64{10: 65.8, 20: 53.5, 40: 52.1, 60: 51.1, 80: 49.0, 100: 45.6}},
	{"mnist", false, "kfac-tri-nomomentum", map[int]float64{
		10: 64.9, 20: 53.5, 40: 52.1, 60: 50.7, 80: 48.2, 100: 43.8,
	}},
	{"mnist", true, "kfac-tri", map[int]float64{
		50: 49.1, 100: 23.6, 150: 8.23, 200: 4.35, 250: 2.75, 300: 1.98,
		400: 1.28, 500: 0.987, 750: 0.729, 1000: 0.659,
	}},
	{"curves", true, "kfac-tri", map[int]float64{50: 16.9, 100: 16.9, 250: 8.65, 400: 0.487, 500: 0.255, 1000: 0.121}},
}

// besideAuthors writes a table of the training errors for this problem beside those of the authors,
// at the same updates.
func besideAuthors(w io.Writer, problem string, full bool, curves []*trial.Curve) error {
	table := tabwriter.NewWriter(w, 12, 0, 2, ' ', 0)
	for _, log := range authorsLogs {
		if log.problem != problem || log.full != full {
			continue
		}
		for _, c := range curves {
			if c.Name != log.method {
				continue
			}
			fmt.Fprintf(table, "%s\tours\tthe authors' code\n", c.Name)
			for _, p := range c.Points {
				if theirs, ok := log.errors[p.Updates]; ok {
					fmt.Fprintf(table, "after %d\t%.3g\t%.3g\n", p.Updates, p.Error, theirs)
				}
			}
		}
	}
	return table.Flush()
}
