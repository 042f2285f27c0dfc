package mpi

import "cogentcore.org/lab/base/mpi"

// piece is how many numbers are sent at once.
const piece = 1 << 20

// wire sends numbers of one type, piece by piece, from buffers of its own. MPI does not see the
// slices of the caller: these may be part of something with Go pointers, which cgo forbids, and a
// sum in place has the binding hold MPI's mark for that, 1, as a pointer, at which the runtime can
// stop a program. It also keeps a length within MPI's 31 bits.
type wire[T float32 | float64] struct {
	sum  func(op mpi.Op, to, from []T) error
	send func(root int, x []T) error

	in, out []T
}

// allReduce puts the sum over the ranks into x.
func (w *wire[T]) allReduce(x []T) error {
	return w.inPieces(x, func(n int) error { return w.sum(mpi.OpSum, w.out[:n], w.in[:n]) })
}

// broadcast puts the x of rank root into x.
func (w *wire[T]) broadcast(x []T, root int) error {
	return w.inPieces(x, func(n int) error {
		copy(w.out, w.in[:n])
		return w.send(root, w.out[:n])
	})
}

// inPieces has work compute out from in for each piece of x.
func (w *wire[T]) inPieces(x []T, work func(n int) error) error {
	if size := min(len(x), piece); size > len(w.in) {
		w.in, w.out = make([]T, size), make([]T, size)
	}
	for len(x) > 0 {
		n := copy(w.in, x[:min(len(x), piece)])
		if err := work(n); err != nil {
			return err
		}
		x = x[copy(x, w.out[:n]):]
	}
	return nil
}
