package trial

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/gorgonia-kfac/kfac"
)

// process is one of a world in which nothing is sent.
type process struct {
	kfac.Communicator
	rank, size     int
	aborted, ended error
}

func (p *process) Rank() int         { return p.rank }
func (p *process) Size() int         { return p.size }
func (p *process) Abort(cause error) { p.aborted = cause }
func (p *process) Close() error      { return p.ended }

// joining sets Join for a test.
func joining(t *testing.T, w World, err error) {
	t.Cleanup(func() { Join = nil })
	Join = func() (World, error) { return w, err }
}

// The parts of the processes are disjoint, and together they are the batch.
func TestShare(t *testing.T) {
	batch := make([]int, 50)
	for i := range batch {
		batch[i] = i
	}
	for _, size := range []int{1, 2, 3, 7, 50} {
		var all []int
		for rank := range size {
			s := Settings{Batch: len(batch), world: &process{rank: rank, size: size}}
			own := Share(s, batch)
			if len(own) != s.OwnBatch() || len(own) < len(batch)/size || len(own) > len(batch)/size+1 {
				t.Errorf("rank %d of %d has %d cases, and says %d", rank, size, len(own), s.OwnBatch())
			}
			all = append(all, own...)
		}
		if !slices.Equal(all, batch) {
			t.Errorf("%d ranks have %v", size, all)
		}
	}
	if alone := (Settings{Batch: 50}); !slices.Equal(Share(alone, batch), batch) || alone.OwnBatch() != 50 {
		t.Error("a process that is alone has not all")
	}
}

// With -mpi K-FAC alone runs, rank 0 shows the result, and an error ends all processes.
func TestMPI(t *testing.T) {
	shared := defaults
	shared.Shares = true
	for rank := range 2 {
		p := &process{rank: rank, size: 2}
		joining(t, p, nil)
		failure := errors.New("no disk")
		status := Main("demo", []string{"-mpi"}, shared, func(_ context.Context, s Settings) error {
			if s.First() != (rank == 0) || s.Processes() != ", 2 rank(s)" || !s.UpdatesOnly ||
				!slices.Equal(s.Optimizers, []string{"kfac"}) || (s.Bar() == io.Discard) != (rank == 1) {
				t.Errorf("rank %d has %+v", rank, s)
			}
			return failure
		}, io.Discard)
		if p.aborted != failure || status != 0 { // Abort does not return
			t.Errorf("rank %d: aborted by %v", rank, p.aborted)
		}
		p.ended = failure
		if status := Main("demo", []string{"-mpi"}, shared, func(context.Context, Settings) error { return nil },
			io.Discard); status != 1 {
			t.Errorf("rank %d: status %d", rank, status)
		}
	}
}

func TestMPIRefuses(t *testing.T) {
	shared := defaults
	shared.Shares = true
	for args, mention := range map[string]string{
		"-mpi -optimizers adam": "K-FAC alone",
		"-mpi -grid":            "K-FAC alone",
		"-mpi -seconds 3":       "K-FAC alone",
		"-mpi -batch 2":         "3 processes for a batch of 2",
		"-mpi -seed 4":          "no MPI here",
	} {
		var err error
		if strings.Contains(args, "seed") {
			err = errors.New(mention)
		}
		joining(t, &process{rank: 0, size: 3}, err)
		var stderr bytes.Buffer
		nothing := func(context.Context, Settings) error { return nil }
		status := Main("demo", strings.Fields(args), shared, nothing, &stderr)
		if status != 2 || !strings.Contains(stderr.String(), mention) {
			t.Errorf("%s: status %d, %s", args, status, stderr.String())
		}
	}
	Join = nil
	var stderr bytes.Buffer
	if status := Main("demo", []string{"-mpi"}, shared, nil, &stderr); status != 2 ||
		!strings.Contains(stderr.String(), "mpi/with") {
		t.Error(status, stderr.String())
	}
	if _, err := defaults.Parse("demo", []string{"-mpi"}, io.Discard); err == nil {
		t.Error("-mpi in a program that can't share")
	}
}
