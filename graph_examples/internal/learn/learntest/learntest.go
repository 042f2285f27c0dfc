// Package learntest is what the tests of the example programs share.
package learntest

import (
	"bytes"
	"context"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
)

// Falls runs p with every optimizer in both dtypes, for the few steps that args ask for. It fails
// the test unless the training loss falls.
func Falls(t *testing.T, p learn.Program, args ...string) {
	t.Helper()
	s, err := p.Defaults.Parse(p.Name, args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	task, err := p.Task(&s)
	if err != nil {
		t.Fatal(err)
	}
	for _, s.Dtype = range []string{"float32", "float64"} {
		_, curves, err := task.Curves(context.Background(), s, s.Entrants(nil), io.Discard)
		if err != nil {
			t.Fatalf("%s: %v", s.Dtype, err)
		}
		for _, c := range curves {
			first := c.Points[0].Error
			last, _ := c.Last()
			if c.Diverged || !(last.Error < first) {
				t.Errorf("%s, %s: loss %g after %d updates, %g before (diverged: %v)",
					s.Dtype, c.Name, last.Error, last.Updates, first, c.Diverged)
			}
		}
	}
}

// SameOnMachines trains p in float64 with K-FAC and Adam on the VM of package kfac and on a tape
// machine, for the few steps that args ask for. It fails the test unless the losses are the same.
func SameOnMachines(t *testing.T, p learn.Program, args ...string) {
	t.Helper()
	var losses [][]float64
	for _, machine := range []string{"tape", "kfac"} {
		s, err := p.Defaults.Parse(p.Name, append(args, "-dtype", "float64", "-every", "1",
			"-optimizers", "kfac,adam", "-updates-only", "-vm", machine), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		task, err := p.Task(&s)
		if err != nil {
			t.Fatal(err)
		}
		_, curves, err := task.Curves(context.Background(), s, s.Entrants(nil), io.Discard)
		if err != nil {
			t.Fatalf("-vm %s: %v", machine, err)
		}
		var all []float64
		for _, c := range curves {
			for _, point := range c.Points {
				all = append(all, point.Error)
			}
		}
		losses = append(losses, all)
	}
	for i, want := range losses[0] {
		if got := losses[1][i]; !(math.Abs(got-want) <= 1e-7*math.Abs(want)) {
			t.Errorf("measurement %d: loss %v, on a tape machine %v", i, got, want)
		}
	}
}

// Rows is n cases of random pixels, with random labels out of classes.
func Rows(n, pixels, classes int) learn.Rows {
	rng := rand.New(rand.NewPCG(7, 7))
	var r learn.Rows
	for range n {
		x := make([]float64, pixels)
		for i := range x {
			x[i] = max(0, rng.Float64()-0.5)
		}
		r.X = append(r.X, x)
		r.Y = append(r.Y, learn.OneHot(classes, rng.IntN(classes)))
	}
	return r
}

// asProgram makes a test's binary the program.
const asProgram = "LEARNTEST_AS_PROGRAM"

// Main is the TestMain of a program that Killed runs.
func Main(m *testing.M, p learn.Program) {
	if os.Getenv(asProgram) != "" {
		p.Main()
	}
	os.Exit(m.Run())
}

// Killed runs the whole program with K-FAC, kills it several times at random moments, and resumes
// it. It fails the test unless the state at the end is that of a run that was not disturbed.
func Killed(t *testing.T, kills int, args ...string) {
	t.Helper()
	dir := t.TempDir()
	start := func(file string) *exec.Cmd {
		state := filepath.Join(dir, file)
		all := append([]string{"-optimizers", "kfac", "-every", "1", "-out", dir, "-save", state}, args...)
		if _, err := os.Stat(state); err == nil {
			all = append(all, "-resume", state)
		}
		c := exec.Command(os.Args[0], all...)
		c.Env = append(os.Environ(), asProgram+"=1")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	state := func(file string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	finish := func(c *exec.Cmd) {
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
	}

	began := time.Now()
	finish(start("undisturbed"))
	took := time.Since(began)
	for range kills {
		c := start("disturbed")
		time.Sleep(time.Duration(rand.Int64N(int64(took))))
		c.Process.Kill()
		c.Wait()
	}
	finish(start("disturbed"))
	if !bytes.Equal(state("disturbed"), state("undisturbed")) {
		t.Errorf("the state after %d kills is another", kills)
	}
}
