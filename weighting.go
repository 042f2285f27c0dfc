package kfac

// weighting is the weights of the target variables of a batch, by output and by natural parameter.
type weighting struct {
	entries [][]float64 // an output's is nil where all weights are 1
	cases   []int       // of a weight above 0 in some output; nil: all
}

// of returns the weight of an entry of an output.
func (w *weighting) of(output, entry int) float64 {
	if w.entries == nil || w.entries[output] == nil {
		return 1
	}
	return w.entries[output][entry]
}

// each calls f for the entries of an output on the cases in rows, or on all if rows is nil, where
// they have weights.
func (w *weighting) each(output int, rows []int, perCase int, f func(i int, weight float64)) {
	if w.entries == nil || w.entries[output] == nil {
		return
	}
	all := w.entries[output]
	if rows == nil {
		for i, x := range all {
			f(i, x)
		}
		return
	}
	for k, r := range rows {
		for j, x := range all[r*perCase : (r+1)*perCase] {
			f(k*perCase+j, x)
		}
	}
}

// count returns the number of cases that count, of a batch of so many.
func (w *weighting) count(cases int) int {
	if w.cases == nil {
		return cases
	}
	return len(w.cases)
}

// part returns the part of an output's entries that has a weight above 0, of those of the cases
// that count.
func (w *weighting) part(output, entries int) float64 {
	if w.entries == nil || w.entries[output] == nil {
		return 1
	}
	n, _ := w.sum(output, entries)
	return n / float64(entries)
}

// weigh takes the factors of all entries of an output as its weights. It returns their scale.
func (w *weighting) weigh(output, outputs int, c []float64) (scale float64) {
	n := 0.0
	for _, x := range c {
		if x > 0 {
			scale, n = scale+x, n+1
		}
	}
	scale /= n
	for i := range c {
		c[i] /= scale
	}
	w.set(output, outputs, c)
	return scale
}

// set sets the weights of all entries of an output.
func (w *weighting) set(output, outputs int, c []float64) {
	if w.entries == nil {
		w.entries = make([][]float64, outputs)
	}
	w.entries[output] = c
}

// sum returns how many of an output's entries have a weight above 0, and the sum of these.
func (w *weighting) sum(output, entries int) (n, sum float64) {
	if w.entries == nil || w.entries[output] == nil {
		return float64(entries), float64(entries)
	}
	for _, x := range w.entries[output] {
		if x > 0 {
			n, sum = n+1, sum+x
		}
	}
	return n, sum
}
