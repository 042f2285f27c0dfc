package kfac

import (
	"fmt"
	"math"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A watcher notices what is legal and likely wrong, if it lasts, and says so once. It is no state:
// no step depends on it, and a training that is loaded starts with another one.
type watcher struct {
	seen  []sighting // by the call in progress
	inRow map[sign]int
	said  map[sign]bool
	due   []Warning
}

// A sign is what may be wrong, and with which parameter, if with one.
type sign struct {
	kind  WarningKind
	param string
}

// A sighting says whether there was a sign where it was looked for.
type sighting struct {
	sign
	is     bool
	detail string
}

// patience is how many times in a row a sign has to be seen. Inputs that are off count at once.
const patience = 20

func (w *watcher) begin() { w.seen = w.seen[:0] }

// look notes whether there is a sign. It counts if the call succeeds.
func (w *watcher) look(kind WarningKind, param string, is bool, detail string) {
	w.seen = append(w.seen, sighting{sign{kind, param}, is, detail})
}

// lookAgain notes that a sign that was looked for before in the same call may not be there.
func (w *watcher) lookAgain(kind WarningKind, param string, is bool) {
	for i := range w.seen {
		if w.seen[i].sign == (sign{kind, param}) {
			w.seen[i].is = w.seen[i].is && is
		}
	}
}

// count counts what was seen, now that the call has succeeded.
func (w *watcher) count(step int) {
	if w.inRow == nil {
		w.inRow, w.said = map[sign]int{}, map[sign]bool{}
	}
	for _, s := range w.seen {
		if !s.is {
			delete(w.inRow, s.sign)
			continue
		}
		w.inRow[s.sign]++
		if !w.said[s.sign] && (s.kind == OffsetInputs || w.inRow[s.sign] >= patience) {
			w.said[s.sign] = true
			w.due = append(w.due, Warning{s.kind, step, s.param, fmt.Sprintf(meanings[s.kind], s.detail)})
		}
	}
	w.begin()
}

// take returns the warnings that are due.
func (w *watcher) take() []Warning {
	due := w.due
	w.due = nil
	return due
}

// vanishing is the largest factor on a step that counts as nothing.
const vanishing = 1.0 / 100

// step looks at what a step was.
func (w *watcher) step(shrink float64, rejected bool, lambda float64, b lambdaBounds) {
	w.look(VanishingSteps, "", shrink <= vanishing || rejected, "")
	switch {
	case !b.known:
	case lambda <= near*b.least:
		w.look(LambdaAtBound, "", true, fmt.Sprintf("the lowest, %.3g", b.least))
	case lambda >= b.most/near:
		w.look(LambdaAtBound, "", true, fmt.Sprintf("the highest, %.3g", b.most))
	default:
		w.look(LambdaAtBound, "", false, "")
	}
}

// near is how many times a bound still counts as the bound.
const near = 2

// lambdaBounds are the bounds that lambda has at a step, where they are known.
type lambdaBounds struct {
	known       bool
	least, most float64
}

// watchLayers looks at the rows that the layers have just observed; again says that these are other
// gradients of the same inputs. Whether inputs are off it looks at in runs, counted from 1, whose
// number is a power of two.
func watchLayers[T program.Float](w *watcher, p *planned[T], run int, again bool) {
	for i, b := range p.blocks {
		h, ok := p.hooks[i].(*layerHook[T])
		if !ok {
			continue
		}
		for j, g := range b.groups {
			r, name := &h.rows[j], g.params[0].name
			if again {
				w.lookAgain(NoGradients, name, zero(r.G))
				continue
			}
			w.look(NoGradients, name, zero(r.G), "")
			if len(r.A) == 0 { // lookups
				continue
			}
			w.look(NoInputs, name, zero(r.A), "")
			if run&(run-1) == 0 && h.unlearned[j] {
				if times := offset(r.A, g.shape.In); times >= farOff {
					w.look(OffsetInputs, name, true, fmt.Sprintf("%.3g", times))
				}
			}
		}
	}
}

// zero reports whether there is nothing but zeros. Mostly the first element tells.
func zero[T program.Float](x []T) bool {
	for _, v := range x {
		if v != 0 {
			return false
		}
	}
	return true
}

// Inputs are off if their mean is so many times their spread, in at least so many rows.
const (
	farOff     = 100
	fewestRows = 16
)

// offset returns how many times the spread of rows of n elements their mean is: the root of |E x|^2
// / E |x - E x|^2. It is 0 if there are few rows, or all are the same.
func offset[T program.Float](x []T, n int) float64 {
	rows := len(x) / n
	if rows < fewestRows {
		return 0
	}
	var squares, variance float64
	for j := range n {
		var sum, spread float64 // of the differences from the first
		for i := j; i < len(x); i += n {
			sum += float64(x[i]) - float64(x[j])
		}
		mean := float64(x[j]) + sum/float64(rows)
		for i := j; i < len(x); i += n {
			d := float64(x[i]) - mean
			spread += d * d / float64(rows)
		}
		squares, variance = squares+mean*mean, variance+spread
	}
	if variance == 0 {
		return 0
	}
	return math.Sqrt(squares / variance)
}
