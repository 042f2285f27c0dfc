package mpi

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// What a training that something goes wrong in is told, in the environment of its ranks.
const (
	faultVariable = "KFAC_MPI_TEST_FAULT" // its name
	faultyRank    = "KFAC_MPI_TEST_RANK"
	stateVariable = "KFAC_MPI_TEST_STATE" // the file
)

const (
	updates   = 60 // of a training
	saved     = 5  // updates from one file to the next
	faultyOne = 23 // at which a fault that is no end comes
)

// A run is a rank of a training that goes on from a file, if there is one, and saves.
type faultyRun struct {
	*Communicator
	net    *testnet.Net
	vm     func() error
	solver *kfac.Solver
	path   string
	fault  string
	faulty bool // it comes on this rank
}

func newFaultyRun(c *Communicator) (*faultyRun, error) {
	n := batch(c.Rank()*cases/c.Size(), (c.Rank()+1)*cases/c.Size())
	if _, err := gorgonia.Grad(n.Cost, n.Params...); err != nil {
		return nil, err
	}
	r := &faultyRun{Communicator: c, net: n, vm: testnet.DualTape(n), path: os.Getenv(stateVariable),
		fault: os.Getenv(faultVariable), faulty: fmt.Sprint(c.Rank()) == os.Getenv(faultyRank)}
	opts := []kfac.Option{kfac.WithCommunicator(c)}
	if r.fault == "other weights, compared" {
		opts = append(opts, kfac.WithSameWeights())
	}
	var err error
	if r.solver, err = kfac.NewSolver(n.Cost, kfac.Categorical(n.Loss.Out), opts...); err != nil {
		return nil, err
	}
	if strings.HasPrefix(r.fault, "other weights") && r.faulty {
		testnet.Data(n.Params[0])[0]++
	}
	if _, err := os.Stat(r.path); err == nil {
		return r, r.solver.LoadFile(r.path)
	}
	return r, nil
}

// step makes an update.
func (r *faultyRun) step() error { return errors.Join(r.vm(), r.solver.Step(r.net.ValueGrads())) }

// trainsThrough trains until a fault ends it, or through it.
func trainsThrough(c *Communicator) error {
	r, err := newFaultyRun(c)
	if err != nil {
		return err
	}
	if signals := map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP}; r.faulty {
		if s, ends := signals[r.fault]; ends {
			moment := time.Duration(rand.Int64N(int64(400 * time.Millisecond)))
			time.AfterFunc(moment, func() { _ = syscall.Kill(os.Getpid(), s) })
		}
	}
	endless := r.fault == "killed" || r.fault == "stopped"
	for n := 0; n < updates || endless; {
		if err := r.step(); err != nil {
			return err
		}
		if n = r.solver.Stats().Step; n%saved == 0 && n < updates { // an endless one goes on without
			if err := r.solver.SaveFile(r.path); err != nil {
				return err
			}
		}
		if c.Rank() == 0 {
			fmt.Printf("update %d\n", n)
		}
		if n == faultyOne {
			if err := r.spoil(); err != nil {
				return err
			}
		}
	}
	return r.compareHashes()
}

// spoil does what is no end, and checks that all ranks are told.
func (r *faultyRun) spoil() (err error) {
	switch r.fault {
	case "NaN":
		x, v := testnet.Data(r.net.X), testnet.Data(r.net.X)[0]
		if r.faulty {
			x[0] = math.NaN()
		}
		err = r.step()
		x[0] = v
		for _, p := range r.net.Params {
			grad, failed := p.Grad()
			if failed != nil {
				return failed
			}
			grad.(*tensor.Dense).Zero()
		}
	case "full disk":
		err = r.onFullDisk(func() error { return r.solver.SaveFile(r.path) })
	default:
		return nil
	}
	var at *kfac.RankError
	if !errors.As(err, &at) || fmt.Sprint(at.Rank) != os.Getenv(faultyRank) {
		return fmt.Errorf("%s: rank %d has %v", r.fault, r.Rank(), err)
	}
	if r.Rank() == 0 {
		fmt.Printf("told: %v\n", err)
	}
	return nil
}

// onFullDisk calls f where the faulty rank can write no file of more than 100 bytes.
func (r *faultyRun) onFullDisk(f func() error) error {
	if !r.faulty {
		return f()
	}
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 100, Max: before.Max}); err != nil {
		return err
	}
	return errors.Join(f(), syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before))
}

// compareHashes writes the weights to a file, if all ranks have the same by their hashes.
func (r *faultyRun) compareHashes() error {
	h := fnv.New64a()
	for _, w := range weightsOf(r.net) {
		fmt.Fprintf(h, "%x,", math.Float64bits(w))
	}
	own := float64(h.Sum64() >> 12)
	first := []float64{own}
	if err := r.BroadcastFloat64(first, 0); err != nil {
		return err
	}
	if first[0] != own {
		return fmt.Errorf("weights of the hash %.0f, on rank 0 of %.0f", own, first[0])
	}
	if r.Rank() > 0 {
		return nil
	}
	file := new(strings.Builder)
	for _, w := range weightsOf(r.net) {
		fmt.Fprintln(file, w)
	}
	return os.WriteFile(r.path+".weights", []byte(file.String()), 0o666)
}

// A training that something goes wrong in ends clearly, or goes on. In both cases it comes to the
// weights of one where nothing does, from the file where it has ended: the same bits where the
// ranks computed the same. The log is a table.
func TestFaults(t *testing.T) {
	const ranks = 3
	folder := t.TempDir()
	// train returns the output, and the weights at the end.
	train := func(name, fault string, rank int) (output string, weights []float64, err error) {
		t.Setenv(faultVariable, fault)
		t.Setenv(faultyRank, fmt.Sprint(rank))
		path := filepath.Join(folder, name)
		t.Setenv(stateVariable, path)
		output, err = run(t, ranks, "trains through", time.Minute)
		file, _ := os.ReadFile(path + ".weights")
		for _, line := range strings.Fields(string(file)) {
			w, _ := strconv.ParseFloat(line, 64)
			weights = append(weights, w)
		}
		return output, weights, err
	}
	output, want, err := train("nothing", "", 0)
	if err != nil || len(want) == 0 {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, of := range []struct {
		fault string
		ranks []int
		ends  bool
		says  string // %d is the rank
		bits  bool   // the ranks compute the same as without
	}{
		{"killed", []int{0, 1, 2}, true, "rank %d", true},
		{"stopped", []int{0, 1, 2}, true, "rank(s) [%d] have not come", true},
		{"NaN", []int{0, 1, 2}, false, "told: kfac: rank %d", true},
		{"other weights", []int{1, 2}, false, "", false},
		{"other weights, compared", []int{1, 2}, true, "kfac: rank %d: Step", true},
		{"full disk", []int{0}, false, "told: kfac: rank %d", false},
	} {
		for _, rank := range of.ranks {
			name := strings.ReplaceAll(fmt.Sprint(of.fault, rank), " ", "_")
			began := time.Now()
			output, got, err := train(name, of.fault, rank)
			took, says := time.Since(began), strings.ReplaceAll(of.says, "%d", fmt.Sprint(rank))
			if of.fault == "killed" && !isOpenMPI() {
				says = "PID"
			}
			if (err != nil) != of.ends || !strings.Contains(output, says) {
				t.Errorf("%s on rank %d: %v, want %q\n%s", of.fault, rank, err, says, output)
			}
			last, then := lastUpdate(output), "goes on"
			if of.ends {
				output, got, err = train(name, "", rank)
				then = fmt.Sprintf("goes on from update %d", firstUpdate(output)-1)
			}
			distance := testnet.Distance(got, want)
			if err != nil || !(distance <= 1e-9) || of.bits && distance > 0 {
				t.Errorf("%s on rank %d, at the end: %v, weights off by %g\n%s", of.fault, rank, err, distance, output)
			}
			t.Logf("| %s | %d | %.1f s | %d | %s | %.2g |", of.fault, rank, took.Seconds(), last, then, distance)
		}
	}
}

var update = regexp.MustCompile(`update (\d+)`)

func lastUpdate(output string) int {
	all := update.FindAllStringSubmatch(output, -1)
	if len(all) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(all[len(all)-1][1])
	return n
}

func firstUpdate(output string) int {
	first := update.FindString(output)
	return lastUpdate(first)
}
