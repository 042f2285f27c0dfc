package mpi

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorgonia-kfac/kfac"
)

// programVariable says, in the environment of a rank, which program it runs in place of the tests.
const programVariable = "KFAC_MPI_TEST_PROGRAM"

func TestMain(m *testing.M) {
	name := os.Getenv(programVariable)
	program := programs[name]
	if program == nil {
		os.Exit(m.Run())
	}
	var opts []Option
	if strings.Contains(name, "stops") || name == "is late" || os.Getenv(faultVariable) == "stopped" {
		opts = append(opts, WithTimeout(4*time.Second))
	}
	c, err := New(opts...)
	if err == nil {
		if err := program(c); err != nil {
			c.Abort(err)
		}
		if err = c.Close(); errors.Is(err, kfac.ErrOutOfStep) {
			err = nil // of which the program was told
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("rank %d of %d passed\n", c.Rank(), c.Size())
}

// programs are what ranks run.
var programs = map[string]func(c *Communicator) error{
	"computes":       computes,
	"trains":         trains,
	"out of step":    outOfStep,
	"other root":     otherRoot,
	"trains through": trainsThrough,
	"closes": one(func(c *Communicator) {
		if err := c.Close(); errors.Is(err, kfac.ErrRankLeft) {
			os.Exit(0)
		}
		os.Exit(1)
	}),
	"fails":       one(func(c *Communicator) { c.Abort(errors.New("its disk is full")) }),
	"panics":      one(func(*Communicator) { panic("its disk is full") }),
	"exits":       one(func(*Communicator) { os.Exit(0) }),
	"stops":       one(func(*Communicator) { _ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) }),
	"first stops": first(syscall.SIGSTOP),
	"first dies":  first(syscall.SIGKILL),
	"is late":     one(func(*Communicator) { time.Sleep(2500 * time.Millisecond) }),
	"dies":        one(func(*Communicator) { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) }),
}

// first is a program in which rank 0 gets a signal, while the others wait for it.
func first(signal syscall.Signal) func(c *Communicator) error {
	return func(c *Communicator) error {
		if c.Rank() == 0 {
			_ = syscall.Kill(os.Getpid(), signal)
		}
		return c.AllReduceFloat64(make([]float64, 3))
	}
}

// one is a program in which rank 1 leaves, while the others wait for it.
func one(leave func(c *Communicator)) func(c *Communicator) error {
	return func(c *Communicator) error {
		x := []float64{1}
		if err := c.AllReduceFloat64(x); err != nil || x[0] != float64(c.Size()) {
			return fmt.Errorf("%v, %w", x, err)
		}
		if c.Rank() == 1 {
			leave(c)
		}
		return c.BroadcastFloat32(make([]float32, 3), 1)
	}
}

// run runs a program on so many ranks, within ten seconds where it is to fail.
func run(t *testing.T, ranks int, program string, limit time.Duration) (output string, err error) {
	t.Helper()
	if !tagged {
		t.Skip("SKIPPED: built without -tags mpi or -tags mpich")
	}
	arguments := []string{"-np", fmt.Sprint(ranks), os.Args[0]}
	if isOpenMPI() {
		arguments = append([]string{"--allow-run-as-root", "--oversubscribe"}, arguments...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	mpirun := exec.CommandContext(ctx, "mpirun", arguments...)
	mpirun.Cancel = func() error { return mpirun.Process.Signal(syscall.SIGTERM) } // which it passes on
	mpirun.WaitDelay = 5 * time.Second
	mpirun.Env = append(os.Environ(), programVariable+"="+program)
	began := time.Now()
	all, err := mpirun.CombinedOutput()
	if ctx.Err() != nil {
		t.Errorf("%d ranks still run after %v", ranks, limit)
	}
	t.Logf("%d ranks ended after %v: %v", ranks, time.Since(began), err)
	return string(all), err
}

// isOpenMPI reports whether mpirun is that of Open MPI. That of MPICH says of a rank that was
// killed which process it was.
var isOpenMPI = sync.OnceValue(func() bool {
	version, err := exec.Command("mpirun", "--version").Output()
	return err == nil && strings.Contains(string(version), "Open MPI")
})

// On two and on three ranks: sums and broadcasts, a training, ranks that are out of step.
func TestPrograms(t *testing.T) {
	for _, program := range []string{"computes", "trains", "out of step", "other root"} {
		for _, ranks := range []int{2, 3} {
			t.Run(fmt.Sprint(program, "/", ranks), func(t *testing.T) {
				output, err := run(t, ranks, program, 3*time.Minute)
				if err != nil || strings.Count(output, " passed\n") != ranks {
					t.Errorf("%v\n%s", err, output)
				}
			})
		}
	}
}

// A rank that leaves ends the others within ten seconds, mpirun fails, and says which it was.
func TestRankLeaves(t *testing.T) {
	for program, message := range map[string]string{
		"closes":      "rank 1: waiting for it: " + kfac.ErrRankLeft.Error(),
		"fails":       "kfac/mpi: rank 1 of 3 ends the training: its disk is full",
		"panics":      "panic: its disk is full",
		"exits":       "rank 1",
		"dies":        "rank 1",
		"stops":       "rank 0 of 3 ends the training: rank(s) [1] have not come to broadcast of 3 float32 from rank 1",
		"first dies":  "rank 0",
		"first stops": "rank 1 of 3 ends the training: rank(s) [0] have not come to all-reduce of 3 float64",
	} {
		t.Run(program, func(t *testing.T) {
			output, err := run(t, 3, program, 10*time.Second)
			if !isOpenMPI() {
				switch program {
				case "dies", "first dies":
					message = "PID"
				case "exits", "closes": // with the status 0 at times, and without the last lines
					return
				}
			}
			if err == nil || !strings.Contains(output, message) {
				t.Errorf("%v, want %q\n%s", err, message, output)
			}
		})
	}
}

// A rank that is late, but not too late, is waited for.
func TestRankIsLate(t *testing.T) {
	if output, err := run(t, 3, "is late", 30*time.Second); err != nil || strings.Count(output, " passed\n") != 3 {
		t.Errorf("%v\n%s", err, output)
	}
}

// A process that was started with others that it does not see is refused, with the words that help.
func TestRefuses(t *testing.T) {
	for _, name := range []string{"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "3")
			for size, refused := range map[int]bool{1: true, 2: true, 3: false} {
				err := refuse(size)
				if errors.Is(err, ErrMPI) != refused || refused && !strings.Contains(err.Error(), "-tags mpi") {
					t.Errorf("size %d: %v", size, err)
				}
			}
			if tagged {
				return // New would start MPI
			}
			if _, err := New(); !errors.Is(err, ErrMPI) {
				t.Errorf("New: %v", err)
			}
		})
	}
}

// A process that was started alone is the only rank.
func TestAlone(t *testing.T) {
	if tagged {
		t.Skip("this is for builds without a tag")
	}
	c, err := New()
	if err != nil || c.Rank() != 0 || c.Size() != 1 {
		t.Fatal(c, err)
	}
	x := []float64{1, 2}
	err = errors.Join(c.AllReduceFloat64(x), c.BroadcastFloat64(x, 0))
	if err != nil || !slices.Equal(x, []float64{1, 2}) {
		t.Error(x, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.AllReduceFloat64(x); !errors.Is(err, errClosed) {
		t.Error(err)
	}
}

// computes compares sums and broadcasts with their own.
func computes(c *Communicator) error {
	for i, length := range []int{1, 2, 7, 1000, 10_001, piece + 3, 1} {
		root := i % c.Size()
		err := errors.Join(
			computesIn(c, length, root, c.AllReduceFloat64, c.BroadcastFloat64, 1e-15),
			computesIn(c, length, root, c.AllReduceFloat32, c.BroadcastFloat32, 1e-6))
		if err != nil {
			return err
		}
	}
	special := struct { // a slice of something with pointers
		x    [2]float64
		some *int
	}{[2]float64{1, 2}, new(int)}
	if c.Rank() == 1 {
		special.x = [2]float64{math.NaN(), math.Inf(1)}
	}
	if err := c.AllReduceFloat64(special.x[:]); err != nil {
		return err
	}
	if !math.IsNaN(special.x[0]) || !math.IsInf(special.x[1], 1) {
		return fmt.Errorf("NaN and infinity became %v", special.x)
	}
	return nil
}

func computesIn[T float32 | float64](
	c *Communicator, length, root int, sum func([]T) error, send func([]T, int) error, tolerance T,
) error {
	part := func(rank int) []T {
		rng := rand.New(rand.NewPCG(uint64(length), uint64(rank)))
		x := make([]T, length)
		for i := range x {
			x[i] = T(rng.NormFloat64())
		}
		return x
	}
	x, want, size := part(c.Rank()), make([]T, length), make([]T, length)
	for rank := range c.Size() {
		for i, v := range part(rank) {
			want[i] += v
			size[i] += max(v, -v)
		}
	}
	if err := sum(x); err != nil {
		return err
	}
	for i, v := range x {
		if d := v - want[i]; !(max(d, -d) <= tolerance*size[i]) {
			return fmt.Errorf("%T: sum %d of %d is %v, want %v", v, i, length, v, want[i])
		}
	}
	first := slices.Clone(x)
	if err := send(first, root); err != nil {
		return err
	}
	if !slices.Equal(first, x) {
		return fmt.Errorf("%T: sums of %d have other bits on rank %d", x, length, root)
	}
	y := part(c.Rank())
	if err := send(y, root); err != nil {
		return err
	}
	if !slices.Equal(y, part(root)) {
		return fmt.Errorf("%T: other numbers than rank %d has sent", y, root)
	}
	return nil
}

// outOfStep calls another operation on the last rank.
func outOfStep(c *Communicator) error {
	last := c.Size() - 1
	call := func() error { return c.AllReduceFloat64(make([]float64, 3)) }
	if c.Rank() == last {
		call = func() error { return c.BroadcastFloat32(make([]float32, 2), 1) }
	}
	const what = "broadcast of 2 float32 from rank 1, where rank 0 has called all-reduce of 3 float64"
	for range 3 { // once and for all
		err := call()
		var at *kfac.RankError
		if !errors.As(err, &at) || at.Rank != last || at.Op != what || !errors.Is(err, kfac.ErrOutOfStep) {
			return fmt.Errorf("not told: %w", err)
		}
	}
	return nil
}

// otherRoot sends from a rank that there is not.
func otherRoot(c *Communicator) error {
	if err := c.BroadcastFloat64([]float64{1}, c.Size()); !errors.Is(err, kfac.ErrOutOfStep) {
		return fmt.Errorf("not told: %w", err)
	}
	return nil
}
