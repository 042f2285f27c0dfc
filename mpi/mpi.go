package mpi

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"cogentcore.org/lab/base/mpi"

	"github.com/gorgonia-kfac/kfac"
)

// ErrMPI: MPI could not be started, or is not the one that the program was built for.
var ErrMPI = errors.New("kfac/mpi: no MPI")

// A Communicator joins all processes that mpirun has started. It implements kfac.Communicator.
type Communicator struct {
	rank, size int
	world      *mpi.Comm
	float32s   wire[float32]
	float64s   wire[float64]
	own, most  []int64 // of check
	limit      time.Duration
	number     int64 // of the operation
	broken     error // why there are no more operations
}

var _ kfac.Communicator = (*Communicator)(nil)

// start starts MPI, which a process does once.
var start = sync.OnceValue(func() error {
	if mpi.IsOn() {
		return nil
	}
	return mpi.InitThreadSafe() // goroutines move between threads
})

// New starts MPI and returns the communicator of all ranks, which all call it. The error is ErrMPI
// where this process can't find the others that it was started with. A process that was started
// alone is the only rank.
func New(opts ...Option) (*Communicator, error) {
	if err := start(); err != nil {
		return nil, fmt.Errorf("%w: %w (an MPI that was built with threads is needed)", ErrMPI, err)
	}
	world, err := mpi.NewComm(nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMPI, err)
	}
	c := &Communicator{rank: mpi.WorldRank(), size: mpi.WorldSize(), world: world,
		own: make([]int64, 2*fields), most: make([]int64, 2*fields), limit: timeout}
	for _, o := range opts {
		o(c)
	}
	c.float32s = wire[float32]{sum: world.AllReduceF32, send: world.BcastF32}
	c.float64s = wire[float64]{sum: world.AllReduceF64, send: world.BcastF64}
	return c, refuse(c.size)
}

// refuse returns an error where the process was started with others that it does not see.
func refuse(size int) error {
	for _, name := range []string{"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"} {
		started, err := strconv.Atoi(os.Getenv(name))
		if err != nil || started <= size {
			continue
		}
		hint := "build it with -tags mpi for Open MPI, -tags mpich for MPICH"
		if tagged {
			hint = "start it with the mpirun that it is built for: -tags mpi is for Open MPI, -tags mpich for MPICH"
		}
		return fmt.Errorf("%w: started as one of %d ranks (%s), but this program sees %d (%s)",
			ErrMPI, started, name, size, hint)
	}
	return nil
}

// Rank returns the number of this process, from 0.
func (c *Communicator) Rank() int { return c.rank }

// Size returns the number of ranks.
func (c *Communicator) Size() int { return c.size }

// AllReduceFloat32 puts the sum over the ranks into x, element by element.
func (c *Communicator) AllReduceFloat32(x []float32) error {
	return c.do(operation{sum, 32, len(x), 0}, func() error { return c.float32s.allReduce(x) })
}

// AllReduceFloat64 does the same in float64.
func (c *Communicator) AllReduceFloat64(x []float64) error {
	return c.do(operation{sum, 64, len(x), 0}, func() error { return c.float64s.allReduce(x) })
}

// BroadcastFloat32 puts the x of rank root into x.
func (c *Communicator) BroadcastFloat32(x []float32, root int) error {
	return c.do(operation{broadcast, 32, len(x), root}, func() error { return c.float32s.broadcast(x, root) })
}

// BroadcastFloat64 does the same in float64.
func (c *Communicator) BroadcastFloat64(x []float64, root int) error {
	return c.do(operation{broadcast, 64, len(x), root}, func() error { return c.float64s.broadcast(x, root) })
}

// Close leaves the others, and ends MPI when all have left. Nothing of MPI can be used after it.
// Where others still wait in an operation they get a *kfac.RankError with kfac.ErrRankLeft, and so
// does this rank, when they have left too.
func (c *Communicator) Close() error {
	if errors.Is(c.broken, errClosed) {
		return errClosed
	}
	err := c.broken
	if err == nil {
		leaving := operation{what: leave}
		err = c.watched(leaving, func() error { return c.check(leaving) })
	}
	if err != nil && c.size > 1 {
		// Others may call Abort now, which mpirun does not always survive while a rank finalizes.
		err = errors.Join(err, c.world.Barrier())
	}
	if mpi.IsOn() {
		mpi.Finalize()
	}
	c.broken = errClosed
	return err
}

var errClosed = errors.New("kfac/mpi: the communicator is closed")

// Abort ends all ranks, in whatever they are, after a message with the number of this one and the
// cause. It doesn't return. mpirun and the processes have a status that is not 0.
func (c *Communicator) Abort(cause error) {
	fmt.Fprintf(os.Stderr, "kfac/mpi: rank %d of %d ends the training: %v\n", c.rank, c.size, cause)
	if mpi.IsOn() && !errors.Is(c.broken, errClosed) {
		abort()
	}
	os.Exit(1)
}

// do takes part in an operation, which is work.
func (c *Communicator) do(op operation, work func() error) error {
	if c.broken == nil {
		c.broken = c.watched(op, func() error {
			if err := c.check(op); err != nil || c.size == 1 {
				return err
			}
			return work()
		})
	}
	return c.broken
}
