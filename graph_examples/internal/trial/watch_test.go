package trial

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorgonia-kfac/kfac"
)

// Each optimizer has an event file, in a folder of its own.
func TestBoard(t *testing.T) {
	s := defaults
	s.Board = t.TempDir()
	ctx := context.Background()
	if _, err := compare(ctx, s, pretend(ctx, func(int) float64 { return 1 })); err != nil {
		t.Fatal(err)
	}
	for _, name := range s.Optimizers {
		files, err := filepath.Glob(filepath.Join(s.Board, name, "events.out.tfevents.*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: files %q, error %v", name, files, err)
		}
		if data, err := os.ReadFile(files[0]); err != nil || !bytes.Contains(data, []byte("error")) {
			t.Errorf("%s: %q, error %v", name, data, err)
		}
	}
	s.Board = filepath.Join(os.Args[0], "under a file")
	if _, err := compare(ctx, s, pretend(ctx, func(int) float64 { return 1 })); err == nil {
		t.Error("no error for a folder that can't be made")
	}
}

// The bar tells loss, lambda and the seconds left; a warning has a line.
func TestBarTellsSteps(t *testing.T) {
	var bar bytes.Buffer
	s := defaults
	r := newRun(s, Entrant{Name: "kfac"}, &bar)
	if len(r.Watch()) != 1 {
		t.Error("other options without a folder for event files")
	}
	warning := kfac.Warning{Step: 7, What: "something"}
	if err := (watching{r}).Record(kfac.Stats{Cost: 0.125, Damping: 3, Warnings: []kfac.Warning{warning}}); err != nil {
		t.Fatal(err)
	}
	r.Start()
	r.Stop()
	for _, want := range []string{"loss 0.125, lambda 3", "warning at step 7: something"} {
		if !strings.Contains(bar.String(), want) {
			t.Errorf("%q does not tell %q", bar.String(), want)
		}
	}
}
