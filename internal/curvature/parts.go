package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// An update may have several parts, each with some of the cases, and on a machine of its own. The
// averages of a part are its share: those of the whole are the sum of the shares, because all parts
// divide by the same counts. So shares can be averaged for many updates before they are summed.

// inputTraces are the traces of a moment of inputs over all parts: of the averages before the
// update, and of the mean over its runs.
type inputTraces struct{ before, own float64 }

// Tally appends what has to be summed over the parts before Average, Restart or Update: a few
// numbers.
func (b *moments[T]) Tally(sums []float64) []float64 {
	for i, f := range b.list {
		sums = append(sums, float64(f.totalCount+f.runCount))
		if f.inputs {
			sums = append(sums, b.inputTrace(i, b.current), f.sumTrace())
		}
	}
	return sums
}

// Whole takes the sums of what Tally has appended, from the front, for the update in progress.
func (b *moments[T]) Whole(sums []float64) (rest []float64) {
	if b.parts == nil {
		b.parts = make([]inputTraces, len(b.list))
	}
	for i, f := range b.list {
		f.partsCount = int(sums[0])
		if sums = sums[1:]; f.inputs {
			b.parts[i] = inputTraces{sums[0], sums[1] / float64(f.partsCount)}
			sums = sums[2:]
		}
	}
	return sums
}

// sumTrace is the trace of the sum over the runs of the update.
func (f *moment[T]) sumTrace() (sum float64) {
	if f.totalCount > 0 {
		sum = f.trace(f.total)
	}
	switch {
	case f.runCount == 0:
	case f.byRows:
		sum += linalg.Dot64(f.xt, f.xt)
	default:
		sum += f.trace(f.run)
	}
	return sum
}

// Swap exchanges the current averages. It does not end an update.
func (b *moments[T]) Swap(a *Averages[T]) (before *Averages[T]) {
	before, b.current = b.current, a
	return before
}

// Pack appends a share of averages, of symmetric ones the upper triangle only.
func (b *moments[T]) Pack(dst []T, share *Averages[T]) []T {
	for i, f := range b.list {
		x := share.Moments[i]
		if !f.symmetric {
			dst = append(dst, x...)
			continue
		}
		for r := range f.n {
			dst = append(dst, x[r*f.n+r:(r+1)*f.n]...)
		}
	}
	return dst
}

// Unpack makes averages of the sum of all shares, as Pack has laid them out, from the front. The
// error is an *Error. Release takes them back.
func (b *moments[T]) Unpack(share *Averages[T], src []T) (whole *Averages[T], rest []T, err error) {
	whole = b.unused.get()
	whole.Updates, whole.Restarted, whole.dwarfs = share.Updates, share.Restarted, share.dwarfs
	for i, f := range b.list {
		x := whole.Moments[i]
		if !f.symmetric {
			src = src[copy(x, src):]
			continue
		}
		for r := range f.n {
			src = src[copy(x[r*f.n+r:(r+1)*f.n], src):]
		}
	}
	whole, err = b.checked(whole)
	return whole, src, err
}
