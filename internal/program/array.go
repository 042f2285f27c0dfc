package program

import (
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// Float is the set of element types of a program.
type Float = linalg.Float

// An Array is a dense row-major array. It belongs to the run, and holds until its next sweep.
type Array[T Float] struct {
	Shape []int
	Data  []T
	// Ints stands in place of Data if the node is not of the program's dtype: integers, or truth
	// values as 0 and 1.
	Ints []int
}

// buffer is memory kept from run to run.
type buffer[T Float] struct {
	data []T
	set  bool // data holds something now
	lent bool // data is the caller's
	view bool // it is that of another buffer, until the next sweep
	own  []T  // its memory, while data is the caller's
}

// lend makes data the buffer's until release.
func (b *buffer[T]) lend(data []T) {
	if !b.lent {
		b.own = b.data
	}
	b.data, b.set, b.lent, b.view = data, true, true, false
}

// release empties the buffer. Its own memory it keeps.
func (b *buffer[T]) release() {
	if b.set = false; b.lent {
		b.data, b.lent, b.own = b.own, false, nil
	}
}

// share makes what another buffer holds the buffer's, until the next sweep.
func (b *buffer[T]) share(data []T) {
	b.lend(data)
	b.view = true
}

// begin empties the buffer for a sweep. What the caller has lent it keeps.
func (b *buffer[T]) begin() {
	if b.set = false; b.view {
		b.view = false
		b.release()
	}
}

// sized is the buffer's memory for n elements, with whatever it holds.
func (b *buffer[T]) sized(n int) []T {
	if cap(b.data) < n {
		b.data = make([]T, n)
	}
	b.data = b.data[:n]
	return b.data
}

// dtypeOf is the dtype of T.
func dtypeOf[T Float]() tensor.Dtype {
	if _, ok := any(T(0)).(float64); ok {
		return tensor.Float64
	}
	return tensor.Float32
}
