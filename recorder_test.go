package kfac

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// kept is a Recorder that keeps everything.
type kept []Stats

func (k *kept) Record(s Stats) error { *k = append(*k, s); return nil }

// recorderOf makes a Recorder of a function.
type recorderOf func(Stats) error

func (f recorderOf) Record(s Stats) error { return f(s) }

func numbers(s Stats) map[string]float64 { return maps.Collect(s.All()) }

func TestAll(t *testing.T) {
	nan := math.NaN()
	s := Stats{Step: 3, Cost: 0.5, Rho: nan, Rejected: true, Time: PhaseTimes{Inverses: 1500 * time.Millisecond},
		Layers: []LayerStats{{Params: []string{"w", "b"}, Share: 0.25, G: FactorStats{Trace: 7}},
			{Params: []string{"v"}}}}
	all := numbers(s)
	for name, want := range map[string]float64{
		"Step": 3, "Cost": 0.5, "Rejected": 1, "Skipped": 0, "Time/Inverses": 1.5, "Layers/w/Share": 0.25,
		"Layers/w/G/Trace": 7, "Layers/v/Share": 0,
	} {
		if got, ok := all[name]; !ok || got != want {
			t.Errorf("%s: %g, want %g", name, got, want)
		}
	}
	if !math.IsNaN(all["Rho"]) {
		t.Errorf("Rho: %g", all["Rho"])
	}
	n := 0
	for range s.All() {
		if n++; n == 4 {
			break
		}
	}
	count := 0
	for range s.All() {
		count++
	}
	if count != len(all) {
		t.Errorf("%d numbers by %d names", count, len(all))
	}
}

// A log in JSON has what was computed, and an infinity as a word.
func TestLogRecorder(t *testing.T) {
	var log bytes.Buffer
	r := NewLogRecorder(slog.New(slog.NewJSONHandler(&log, nil)))
	s := Stats{Step: 1e6, Cost: 0.1, Rho: math.Inf(-1), KL: math.NaN(),
		Warnings: []Warning{{Kind: RecorderFailed, Step: 1e6, Param: "w", What: "something"}}}
	testnet.Check(t, r.Record(s))
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	var step struct {
		Level string
		Stats map[string]any
	}
	testnet.Check(t, json.Unmarshal([]byte(lines[0]), &step))
	if step.Level != "INFO" || step.Stats["Step"] != 1e6 || step.Stats["Cost"] != 0.1 || step.Stats["Rho"] != "-Inf" {
		t.Errorf("%s", lines[0])
	}
	if _, ok := step.Stats["KL"]; ok || strings.Contains(lines[0], "!ERROR") {
		t.Errorf("%s", lines[0])
	}
	if len(lines) != 2 || !strings.Contains(lines[1], `"level":"WARN"`) || !strings.Contains(lines[1], "something") {
		t.Errorf("%q", lines[1:])
	}
}

// What a CSV file holds is what was recorded, to the last bit.
func TestCSVRecorder(t *testing.T) {
	var file bytes.Buffer
	var all kept
	tr := NewTrainer(t, statsNet(), WithRecorder(NewCSVRecorder(&file)), WithRecorder(&all), WithLayerStats(2))
	tr.Steps(t, 6)
	rows, err := csv.NewReader(&file).ReadAll()
	testnet.Check(t, err)
	if len(rows) != 7 || len(all) != 6 {
		t.Fatalf("%d rows, %d steps", len(rows), len(all))
	}
	names := rows[0]
	for k, row := range rows[1:] {
		s := all[k]
		s.Layers = nil
		want := numbers(s)
		if len(want)+1 != len(names) {
			t.Errorf("columns %q", names)
		}
		for i, cell := range row[:len(row)-1] {
			switch x, err := strconv.ParseFloat(cell, 64); {
			case cell == "":
				if !math.IsNaN(want[names[i]]) {
					t.Errorf("step %d: no %s", k+1, names[i])
				}
			case err != nil || x != want[names[i]]:
				t.Errorf("step %d: %s is %q, want %g", k+1, names[i], cell, want[names[i]])
			}
		}
	}
}

// A recorder that fails or panics changes nothing, and is a warning once, which the others are told
// of at the next step; all go on to be told.
func TestRecorderCannotBreakAStep(t *testing.T) {
	var all kept
	broken := errors.New("no space left")
	failures, panics := 0, 0
	want := NewTrainer(t, statsNet())
	got := NewTrainer(t, statsNet(),
		WithRecorder(recorderOf(func(Stats) error { failures++; return broken })),
		WithRecorder(recorderOf(func(s Stats) error {
			if panics++; s.Step == 3 {
				panic("a bug")
			}
			return nil
		})), WithRecorder(&all))
	for range 5 {
		want.Steps(t, 1)
		got.Steps(t, 1)
	}
	testnet.SameBits(t, "weights", weightsOf(got.Net), weightsOf(want.Net))
	if failures != 5 || panics != 5 || len(all) != 5 {
		t.Errorf("told %d, %d and %d times", failures, panics, len(all))
	}
	warnings := got.Solver.Warnings()
	if len(warnings) != 2 || warnings[0].Step != 1 || warnings[1].Step != 3 {
		t.Fatalf("%v", warnings)
	}
	for i, word := range []string{"no space left", "a bug"} {
		if w := warnings[i]; w.Kind != RecorderFailed || !strings.Contains(w.String(), word) {
			t.Errorf("%v", w)
		}
	}
	for k, s := range all {
		var want []Warning
		if k == 1 || k == 3 {
			want = warnings[k/2 : k/2+1]
		}
		if !slices.Equal(s.Warnings, want) {
			t.Errorf("step %d tells %v, want %v", k+1, s.Warnings, want)
		}
	}
}

// A recorder may ask the solver, and is told of batches that are left out.
func TestRecorderAsksTheSolver(t *testing.T) {
	var tr *Trainer
	var seen []string
	tr = NewTrainer(t, statsNet(), WithSkipNotFinite(1), WithRecorder(recorderOf(func(s Stats) error {
		if !SameStats(s, tr.Solver.Stats()) {
			t.Error("other statistics")
		}
		seen = append(seen, fmt.Sprint(s.Step, s.Skipped))
		return tr.Solver.Save(&bytes.Buffer{})
	})))
	tr.Steps(t, 1)
	back := setFirst(tr.Net, math.NaN())
	tr.Steps(t, 1)
	back()
	tr.Steps(t, 1)
	if want := []string{"1 false", "2 true", "2 false"}; !slices.Equal(seen, want) {
		t.Errorf("told of %q, want %q", seen, want)
	}
	if w := tr.Solver.Warnings(); len(w) > 0 {
		t.Error(w)
	}
}
