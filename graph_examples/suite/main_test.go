package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

var small = strings.Fields("-steps 4 -every 4 -batch 32 -cases 256 -eval 128")

func parse(t *testing.T, args ...string) trial.Settings {
	t.Helper()
	s, err := defaults.Parse("suite", append(slices.Clone(small), args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A few updates of K-FAC lower the loss of every task, in both dtypes.
func TestLossFalls(t *testing.T) {
	for _, dtype := range []string{"float32", "float64"} {
		s := parse(t, "-optimizers", "kfac", "-dtype", dtype)
		for _, task := range tasks {
			own := task.settings(s)
			problem, err := task.problem(&own)
			if err != nil {
				t.Fatal(err)
			}
			_, curves, err := problem.Curves(context.Background(), own, own.Entrants(nil), io.Discard)
			if err != nil {
				t.Fatalf("%s, %s: %v", task.name, dtype, err)
			}
			first := curves[0].Points[0].Error
			if last, _ := curves[0].Last(); last.Updates != 4 || !(last.Error < first) {
				t.Errorf("%s, %s: %g after %d updates, %g before", task.name, dtype, last.Error, last.Updates, first)
			}
		}
	}
}

func TestProgram(t *testing.T) {
	out := t.TempDir()
	args := append(slices.Clone(small), "-tasks", "full,houses", "-out", out)
	if status := trial.Main("suite", args, defaults, run, os.Stderr); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	pictures, err := filepath.Glob(filepath.Join(out, "*.png"))
	if err != nil || len(pictures) != 3 {
		t.Errorf("pictures %q, error %v, want those of three tasks", pictures, err)
	}
	var message bytes.Buffer
	args = []string{"-tasks", "none", "-out", out}
	if status := trial.Main("suite", args, defaults, run, &message); status != 1 ||
		!strings.Contains(message.String(), "none") {
		t.Errorf("exit status %d, %q", status, message.String())
	}
}

// losses are points at each fifth update.
func losses(name string, values ...float64) *trial.Curve {
	c := &trial.Curve{Entrant: trial.Entrant{Name: name, Rate: 0.1}, Steps: 5 * (len(values) - 1)}
	for i, v := range values {
		c.Points = append(c.Points, trial.Point{Updates: 5 * i, Seconds: float64(i), Error: v})
	}
	return c
}

func TestMarkdown(t *testing.T) {
	r := result{
		task: task{name: "a", about: "b"}, settings: trial.Settings{Batch: 7, Steps: 15},
		curves: []*trial.Curve{losses("kfac", 9, 12, 5, 2), losses("adam", 9, 8, 7, 6)},
	}
	var out bytes.Buffer
	if err := markdown(&out, []result{r}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := "| a | b | 7 | 15 | 9 | 5 | 2 | 6 (0.1) | - | 10, 2.00 s | - | 3.00 | 3.00 | 0.00 |"
	if len(lines) != 3 || lines[2] != want {
		t.Errorf("%q, want the last line %q", lines, want)
	}
}

func TestGrid(t *testing.T) {
	slow, fast, lost := losses("adam", 9, 8), losses("adam", 9, 4), losses("adam", 9)
	fast.Rate, lost.Rate, lost.Diverged = 0.2, 0.4, true
	var out bytes.Buffer
	if err := grid(&out, []result{{task: task{name: "a"}, curves: []*trial.Curve{slow, fast, lost}}}); err != nil {
		t.Fatal(err)
	}
	if want := "| a | adam | 0.2 | 0.1: 8, 0.2: 4, 0.4: diverged |\n"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
