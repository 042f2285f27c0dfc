package kfac_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gorgonia-kfac/kfac"
)

// Sums are those of the ranks' numbers, in the order of the ranks, and broadcasts the root's, on
// every rank, in any mixture, with other lengths from one to the next.
func TestInProcessComputes(t *testing.T) {
	for _, ranks := range []int{1, 2, 3, 7} {
		part := func(rank, round int) []float64 {
			rng := rand.New(rand.NewPCG(uint64(rank), uint64(round)))
			x := make([]float64, 1+round*13%29)
			for i := range x {
				x[i] = rng.NormFloat64()
			}
			return x
		}
		err := kfac.InProcess(ranks, func(c kfac.Communicator) error {
			if c.Size() != ranks || c.Rank() < 0 || c.Rank() >= ranks {
				t.Errorf("rank %d of %d, want one of %d", c.Rank(), c.Size(), ranks)
			}
			for round := range 200 {
				root := round % ranks
				x, sum, sum32 := part(c.Rank(), round), part(0, round), narrow(part(0, round))
				for r := 1; r < ranks; r++ {
					for i, v := range part(r, round) {
						sum[i] += v
						sum32[i] += float32(v)
					}
				}
				x32, y, y32 := narrow(x), slices.Clone(x), narrow(x)
				err := errors.Join(c.AllReduceFloat64(x), c.AllReduceFloat32(x32), c.BroadcastFloat32(y32, root),
					c.BroadcastFloat64(y, root))
				if err != nil {
					return err
				}
				want := part(root, round)
				if !slices.Equal(x, sum) || !slices.Equal(x32, sum32) || !slices.Equal(y, want) ||
					!slices.Equal(y32, narrow(want)) {
					t.Errorf("%d ranks, round %d: other numbers on rank %d", ranks, round, c.Rank())
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

// NaN and infinities go their way as in any sum.
func TestInProcessKeepsWhatIsNotFinite(t *testing.T) {
	err := kfac.InProcess(2, func(c kfac.Communicator) error {
		x := []float64{1, 2}
		if c.Rank() == 1 {
			x = []float64{math.NaN(), math.Inf(1)}
		}
		err := c.AllReduceFloat64(x)
		if !math.IsNaN(x[0]) || !math.IsInf(x[1], 1) {
			t.Error(x)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A rank whose program ends, fails or panics lets go of all that wait for it now or later, with an
// error that names it and, where there is one, the cause.
func TestInProcessRankLeaves(t *testing.T) {
	cause := errors.New("its disk is full")
	for name, leave := range map[string]func() error{
		"ends":   func() error { return nil },
		"fails":  func() error { return cause },
		"panics": func() error { panic(cause) },
	} {
		var told atomic.Int32
		err := kfac.InProcess(3, func(c kfac.Communicator) error {
			x := []float64{1}
			if err := c.AllReduceFloat64(x); err != nil || x[0] != 3 {
				t.Error(x, err)
			}
			if c.Rank() == 1 {
				return leave()
			}
			for range 3 {
				err := c.BroadcastFloat32([]float32{1}, 1)
				var at *kfac.RankError
				if errors.As(err, &at) && at.Rank == 1 && errors.Is(err, kfac.ErrRankLeft) &&
					(name != "fails" || strings.Contains(err.Error(), cause.Error())) {
					told.Add(1)
				} else {
					t.Errorf("%s: %v", name, err)
				}
			}
			return nil
		})
		if told.Load() != 6 {
			t.Errorf("%s: %d of 6 calls were told", name, told.Load())
		}
		if (name == "ends") != (err == nil) || name != "ends" && !errors.Is(err, cause) {
			t.Errorf("%s: InProcess returned %v", name, err)
		}
	}
}

// Ranks that call different operations are told which, and none of them waits.
func TestInProcessOutOfStep(t *testing.T) {
	sum := func(n int) func(c kfac.Communicator) error {
		return func(c kfac.Communicator) error { return c.AllReduceFloat64(make([]float64, n)) }
	}
	narrowSum := func(c kfac.Communicator) error { return c.AllReduceFloat32(make([]float32, 2)) }
	broadcast := func(root int) func(c kfac.Communicator) error {
		return func(c kfac.Communicator) error { return c.BroadcastFloat64(make([]float64, 2), root) }
	}
	for name, calls := range map[string][2]func(kfac.Communicator) error{
		"lengths":    {sum(2), sum(3)},
		"kinds":      {sum(2), narrowSum},
		"operations": {sum(2), broadcast(0)},
		"roots":      {broadcast(0), broadcast(1)},
		"no root":    {broadcast(2), broadcast(2)},
	} {
		var told atomic.Int32
		err := kfac.InProcess(2, func(c kfac.Communicator) error {
			err := calls[c.Rank()](c)
			if errors.Is(err, kfac.ErrOutOfStep) && sum(1)(c) != nil {
				told.Add(1)
			}
			return err
		})
		if told.Load() != 2 || !errors.Is(err, kfac.ErrOutOfStep) {
			t.Errorf("%s: %d of 2 ranks were told: %v", name, told.Load(), err)
		}
	}
}

func TestInProcessArguments(t *testing.T) {
	var config *kfac.ConfigError
	if err := kfac.InProcess(0, func(kfac.Communicator) error { return nil }); !errors.As(err, &config) {
		t.Error(err)
	}
	if err := kfac.InProcess(1, nil); !errors.As(err, &config) {
		t.Error(err)
	}
}

// In the steady state the ranks allocate nothing.
func TestInProcessAllocatesNothing(t *testing.T) {
	err := kfac.InProcess(1, func(c kfac.Communicator) error {
		x := make([]float32, 100)
		if n := testing.AllocsPerRun(100, func() { c.AllReduceFloat32(x) }); n > 0 {
			t.Errorf("%v allocations", n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
