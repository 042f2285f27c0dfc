package kfac

import (
	"errors"
	"fmt"
	"sync"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A Communicator joins the ranks of a data-parallel training: processes, say of MPI, of which each
// has its own graph and its own cases of the batch. Ranks are numbered from 0 to Size()-1.
//
// An operation is collective: every rank calls it, in the same order, with slices of the same
// length and, of a broadcast, the same root. It returns when the slice holds the result. A solver
// calls one operation at a time, though not always from the same goroutine. It never calls one with
// an empty slice.
//
// The result has the same bits on every rank: ranks keep their weights equal by computing the same
// from the same numbers, and don't send them. The same numbers give the same bits in the next run
// too if the operations add in an order that depends on the size alone.
//
// [WithCommunicator] says what a solver does with it.
//
// An error means that the ranks are out of reach or out of step. It is final: every later operation
// returns an error too, on every rank. An operation never waits for a rank that has left; the error
// is then a *RankError with ErrRankLeft that names it. What the slice holds after an error does not
// matter.
type Communicator interface {
	Rank() int
	Size() int
	// AllReduceFloat32 puts the sum over the ranks into x, element by element.
	AllReduceFloat32(x []float32) error
	// AllReduceFloat64 does the same in float64.
	AllReduceFloat64(x []float64) error
	// BroadcastFloat32 puts the x of rank root into x.
	BroadcastFloat32(x []float32, root int) error
	// BroadcastFloat64 does the same in float64.
	BroadcastFloat64(x []float64, root int) error
}

// InProcess runs program once for each of so many ranks, at least 1, each in a goroutine with a
// Communicator of its own, and returns their errors, joined. It is for tests of programs that train
// on several machines. Each rank needs a graph and a solver of its own.
//
// A rank whose program ends has left: what the others ask of it afterwards is a *RankError with
// ErrRankLeft. Ranks that call different operations get ErrOutOfStep. Sums are added in the order
// of the ranks.
func InProcess(ranks int, program func(c Communicator) error) error {
	if ranks < 1 || program == nil {
		return &ConfigError{"InProcess", fmt.Sprintf("%d ranks, program nil: %v", ranks, program == nil),
			"at least 1 rank, and a program for them"}
	}
	r := newRoom(ranks)
	failed := make([]error, ranks)
	var running sync.WaitGroup
	for rank := range ranks {
		running.Go(func() {
			left := &RankError{Rank: rank, Op: "waiting for it", Err: ErrRankLeft}
			defer r.close(left) // also where a test ends its goroutine
			defer recovered("InProcess", &failed[rank])
			if failed[rank] = program(&local{r, rank}); failed[rank] != nil {
				left.Hint = "its program failed: " + failed[rank].Error()
			}
		})
	}
	running.Wait()
	return errors.Join(failed...)
}

// local is a rank of InProcess.
type local struct {
	room *room
	rank int
}

func (c *local) Rank() int { return c.rank }
func (c *local) Size() int { return c.room.size }

func (c *local) AllReduceFloat32(x []float32) error {
	return meet(c, &c.room.float32s, operation{"all-reduce", "float32", len(x), -1}, x)
}

func (c *local) AllReduceFloat64(x []float64) error {
	return meet(c, &c.room.float64s, operation{"all-reduce", "float64", len(x), -1}, x)
}

func (c *local) BroadcastFloat32(x []float32, root int) error {
	return meet(c, &c.room.float32s, operation{"broadcast", "float32", len(x), root}, x)
}

func (c *local) BroadcastFloat64(x []float64, root int) error {
	return meet(c, &c.room.float64s, operation{"broadcast", "float64", len(x), root}, x)
}

// A room is where the ranks of InProcess meet, for one operation at a time.
type room struct {
	size     int
	float32s table[float32]
	float64s table[float64]

	mutex   sync.Mutex
	changed sync.Cond
	now     operation // that the ranks which are there have called
	first   int       // the rank that was there first
	there   int       // number of ranks that wait for the others
	done    int       // operations so far
	closed  error     // why there will be no more of them
}

// operation is what all ranks have to call.
type operation struct {
	name, kind string
	length     int
	root       int // -1: none
}

// table holds what the ranks have brought to an operation, and its result.
type table[T program.Float] struct {
	parts  [][]T
	result []T
}

func newRoom(size int) *room {
	r := &room{size: size, float32s: table[float32]{parts: make([][]float32, size)},
		float64s: table[float64]{parts: make([][]float64, size)}}
	r.changed.L = &r.mutex
	return r
}

// close ends all operations with an error, unless they have ended.
func (r *room) close(err error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.closed == nil {
		r.closed = err
	}
	r.changed.Broadcast()
}

// meet takes part in an operation. The rank that comes last does the work.
func meet[T program.Float](c *local, on *table[T], op operation, x []T) error {
	r := c.room
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.closed == nil {
		r.closed = c.outOfStep(op)
	}
	if r.closed != nil {
		r.changed.Broadcast()
		return r.closed
	}
	if r.there == 0 {
		r.now, r.first = op, c.rank
	}
	on.parts[c.rank] = x
	r.there++
	if r.there == r.size {
		on.compute(op)
		r.there = 0
		r.done++
		r.changed.Broadcast()
	}
	for before := r.done; r.there > 0 && r.done == before; {
		if r.closed != nil {
			return r.closed
		}
		r.changed.Wait()
	}
	copy(x, on.result) // which stays until all ranks have come again
	return nil
}

// outOfStep reports an operation that is not the one that others wait in.
func (c *local) outOfStep(op operation) error {
	r := c.room
	if root := op.root; root >= r.size || root < -1 {
		return &RankError{Rank: c.rank, Op: fmt.Sprintf("a broadcast from rank %d of %d", root, r.size),
			Err: ErrOutOfStep}
	}
	if r.there == 0 || op == r.now {
		return nil
	}
	return &RankError{Rank: c.rank, Op: fmt.Sprintf("%v, where rank %d has called %v", op, r.first, r.now),
		Err: ErrOutOfStep}
}

func (o operation) String() string {
	s := fmt.Sprintf("%s of %d %s", o.name, o.length, o.kind)
	if o.root >= 0 {
		s += fmt.Sprintf(" from rank %d", o.root)
	}
	return s
}

// compute does the work of an operation.
func (t *table[T]) compute(op operation) {
	from := max(op.root, 0)
	t.result = append(t.result[:0], t.parts[from]...)
	if op.root < 0 {
		for _, part := range t.parts[1:] {
			for i, v := range part {
				t.result[i] += v
			}
		}
	}
	clear(t.parts)
}
