package mpi

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// An Option is for New.
type Option func(*Communicator)

// timeout is the default of WithTimeout.
const timeout = 30 * time.Minute

// WithTimeout sets how long a rank waits for the others in an operation before it ends the
// training, with a message that names those that have not come. They are stopped, out of reach, or
// do something else for too long, such as a measurement on all data. Less than a second counts as
// one. Default: half an hour.
func WithTimeout(limit time.Duration) Option {
	return func(c *Communicator) { c.limit = max(limit, time.Second) }
}

// watched does the work of an operation. If that takes half of the limit, this rank tells two
// others that it waits; so those know at the limit who does not.
func (c *Communicator) watched(op operation, work func() error) error {
	if c.size == 1 {
		return work()
	}
	c.number++
	number, done := c.number, make(chan struct{})
	defer close(done)
	timer := time.AfterFunc(c.limit/2, func() { c.overdue(op, number, done) })
	defer timer.Stop()
	return work()
}

// overdue is called in an operation, of that number, after half of the limit. Rank 0 ends the
// training, or rank 1 if that is what is waited for.
func (c *Communicator) overdue(op operation, number int64, done chan struct{}) {
	for other := range min(2, c.size) {
		if other != c.rank {
			tell(other, number)
		}
	}
	if c.rank > 1 {
		return
	}
	select {
	case <-done:
		return
	case <-time.After(c.limit / 2):
	}
	var missing []int
	for other := range c.size {
		if other == c.rank {
			continue
		}
		// One that waits too may be in the operation before, or in the next.
		if told := hear(other); told < number-1 || told > number+1 {
			missing = append(missing, other)
		}
	}
	if c.rank == 1 && (len(missing) == 0 || missing[0] != 0) {
		return
	}
	c.end(fmt.Errorf("rank(s) %v have not come to %v within %v: %w", missing, op, c.limit, errTimeout))
}

var errTimeout = errors.New("stopped, out of reach or busy (WithTimeout)")

// end is Abort that can be called during an operation.
func (c *Communicator) end(cause error) {
	fmt.Fprintf(os.Stderr, "kfac/mpi: rank %d of %d ends the training: %v\n", c.rank, c.size, cause)
	abort()
	os.Exit(1)
}
