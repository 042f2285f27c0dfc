package trial

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/gorgonia-kfac/kfac"
)

// A World joins the processes that mpirun has started, of which each trains with its own cases.
type World interface {
	kfac.Communicator
	Abort(cause error) // ends all processes
	Close() error
}

// Join joins the world for -mpi. It is nil in a program without MPI; mpi/with builds programs that
// have it.
var Join func() (World, error)

// join joins the world, and leaves out what can't train in it.
func (s *Settings) join() (err error) {
	if !s.MPI {
		return nil
	}
	if Join == nil {
		return errors.New("-mpi: this program is built without MPI; try mpi/with 2 run ../graph_examples/NAME -mpi")
	}
	s.Optimizers = slices.DeleteFunc(s.Optimizers, func(name string) bool { return !strings.HasPrefix(name, "kfac") })
	if len(s.Optimizers) == 0 || s.Grid || s.Seconds > 0 {
		return errors.New("-mpi: K-FAC alone knows other processes, and makes -steps updates: no -grid, no -seconds")
	}
	s.UpdatesOnly = true
	if s.world, err = Join(); err == nil && s.world.Size() > s.Batch {
		err = fmt.Errorf("-mpi: %d processes for a batch of %d cases", s.world.Size(), s.Batch)
	}
	return err
}

// leave leaves the world after a run, or ends it with an error.
func (s *Settings) leave(err error) error {
	switch {
	case s.world == nil:
		return err
	case err != nil:
		s.world.Abort(err)
	}
	return s.world.Close()
}

// First reports whether this is the process that shows what has come of the training.
func (s Settings) First() bool { return s.world == nil || s.world.Rank() == 0 }

// Bar is where progress bars go.
func (s Settings) Bar() io.Writer {
	if s.First() {
		return os.Stderr
	}
	return io.Discard
}

// Share returns this process's part of a list that is the same on all. The parts are disjoint, and
// together they are the list.
func Share[E any](s Settings, list []E) []E {
	from, to := s.part(len(list))
	return list[from:to]
}

// OwnBatch is the number of cases that this process has of a batch.
func (s Settings) OwnBatch() int {
	from, to := s.part(s.Batch)
	return to - from
}

func (s Settings) part(cases int) (from, to int) {
	if s.world == nil {
		return 0, cases
	}
	rank, size := s.world.Rank(), s.world.Size()
	return rank * cases / size, (rank + 1) * cases / size
}

// Processes says on how many processes the training is, for a table's title.
func (s Settings) Processes() string {
	if s.world == nil {
		return ""
	}
	return fmt.Sprintf(", %d rank(s)", s.world.Size())
}
