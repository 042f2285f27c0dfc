package curvature

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// Decay returns epsilon_k = min(1 - 1/k, ema) for update k, counted from 1. The average is the
// plain mean of the first updates. Later updates make the older ones fade (Martens & Grosse 2015,
// section 5).
func Decay(k int, ema float64) float64 { return math.Min(1-1/float64(k), ema) }

// moments holds the second moments of a block and their running averages. Every kind of block
// embeds it.
//
// Update adds to the upper triangle of a symmetric average only. Average and Copy fill in the lower
// triangle, because inverses read the whole matrix.
type moments[T Float] struct {
	list      []*moment[T]
	overflows []Error // by moment: the error to report if its average is not finite
	current   *Averages[T]
	unused    pool[Averages[T]]
	parts     []inputTraces // by moment; of an update in several parts
}

// add adds a moment to the block, by a name that is its own in the block. overflow is the error to
// report if the moment's average is not finite.
func (b *moments[T]) add(name string, f *moment[T], overflow Error) *moment[T] {
	f.name = name
	overflow.Err = ErrNotFinite
	b.list, b.overflows = append(b.list, f), append(b.overflows, overflow)
	return f
}

// ready allocates the averages. It is called after all moments were added.
func (b *moments[T]) ready() {
	b.unused.make = func() *Averages[T] {
		a := &Averages[T]{Moments: make([][]T, len(b.list))}
		for i, f := range b.list {
			a.Moments[i] = make([]T, f.size())
		}
		return a
	}
	b.current = b.unused.make()
}

func (b *moments[T]) Accumulate() {
	for _, f := range b.list {
		f.accumulate()
	}
}

func (b *moments[T]) Discard() {
	for _, f := range b.list {
		f.discard()
	}
}

func (b *moments[T]) Average(ema float64) (*Averages[T], error) {
	next := b.unused.get()
	b.advance(next, ema)
	return b.checked(next)
}

func (b *moments[T]) Restart() (*Averages[T], error) {
	next := b.unused.get()
	b.restart(next)
	return b.checked(next)
}

// checked makes averages whole, and releases them if they are not finite.
func (b *moments[T]) checked(next *Averages[T]) (*Averages[T], error) {
	for i, f := range b.list {
		f.mirrored(next.Moments[i])
		if !linalg.Finite(next.Moments[i]) {
			b.Release(next)
			overflow := b.overflows[i]
			return nil, &overflow
		}
	}
	return next, nil
}

// advance makes next what the runs of the update make of the current averages. next may be those.
func (b *moments[T]) advance(next *Averages[T], ema float64) {
	now := b.current
	eps := Decay(now.Updates+1, ema)
	dwarfs := false
	for i, f := range b.list {
		before := b.inputTrace(i, now)
		f.average(eps, next.Moments[i], now.Moments[i])
		own := (b.inputTrace(i, next) - eps*before) / (1 - eps)
		if f.partsCount > 0 {
			before, own = b.parts[i].before, b.parts[i].own
		}
		dwarfs = dwarfs || before > dwarf*own
	}
	next.Updates, next.Restarted = now.Updates+1, false
	if next.dwarfs = now.dwarfs + 1; !dwarfs {
		next.dwarfs = 0
	}
	if next.dwarfs >= patience {
		b.restart(next)
	}
}

// restart makes next the mean over the runs of the update.
func (b *moments[T]) restart(next *Averages[T]) {
	for i, f := range b.list {
		f.average(0, next.Moments[i], b.current.Moments[i])
	}
	next.Updates, next.Restarted, next.dwarfs = 1, true, 0
}

// inputTrace is the trace of a moment of inputs, or 0 of another.
func (b *moments[T]) inputTrace(i int, a *Averages[T]) float64 {
	if f := b.list[i]; f.inputs {
		return f.trace(a.Moments[i])
	}
	return 0
}

// Averages start anew where they dwarf the second moments of the inputs in patience updates one
// after the other: they are dwarf times as large, and so owe nearly everything to an outlier, which
// would fade by some 5 % with each update.
const (
	dwarf    = 1e4
	patience = 10
)

func (b *moments[T]) Keep(next *Averages[T]) {
	b.Release(b.current)
	b.current = next
	b.Discard()
}

func (b *moments[T]) Update(ema float64) (restarted bool) {
	b.advance(b.current, ema)
	b.Discard()
	return b.current.Restarted
}

func (b *moments[T]) Copy() *Averages[T] {
	c := b.unused.get()
	c.Updates = b.current.Updates
	for i, f := range b.list {
		copy(c.Moments[i], b.current.Moments[i])
		f.mirrored(c.Moments[i])
	}
	return c
}

func (b *moments[T]) Release(a *Averages[T]) { b.unused.put(a) }
