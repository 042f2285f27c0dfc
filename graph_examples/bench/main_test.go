package main

import (
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	args := strings.Fields("-models rnn,wide -dtypes float64 -optimizers kfac -batch 8,16 -rounds 2 -out x " +
		"-cases 9 -eval 7")
	s, err := parse(args, io.Discard)
	want := settings{
		models: []string{"rnn", "wide"}, dtypes: []string{"float64"}, optimizers: []string{"kfac"},
		batches: []int{8, 16}, rounds: 2, steps: 20, shrink: 1, warmup: 20, seed: 1, memory: true, out: "x",
	}
	if err != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("parsed %+v (%v), want %+v", s, err, want)
	}
	s, err = parse(strings.Fields("-steps 3 -rounds 2"), io.Discard)
	if err != nil || s.rounds != 2 || s.shrink != 8 || s.warmup != 0 || s.memory {
		t.Errorf("a trial is %+v (%v)", s, err)
	}
	for _, bad := range []string{
		"-models x", "-dtypes int", "-optimizers sgd", "-batch 0", "-batch x",
		"-steps 0", "-rounds 0", "-shrink 0", "-warmup -1", "more",
	} {
		if _, err := parse(strings.Fields(bad), io.Discard); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
	if _, err := parse([]string{"-help"}, io.Discard); err != flag.ErrHelp {
		t.Errorf("-help: %v", err)
	}
}

// TestRun measures every model, and every optimizer and dtype, in trials.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	every := strings.Join(optimizerNames, ",")
	for args, mentions := range map[string][]string{
		"-steps 1 -batch 16 -shrink 16 -optimizers adam,kfac": append(modelNames(), "inverses",
			"| relu | 16 | float32 |"),
		"-steps 2 -models rnn -batch 4 -dtypes float32,float64 -optimizers " + every: append(optimizerNames,
			"float32;", "float64;"),
	} {
		out := t.TempDir()
		s, err := parse(append(strings.Fields(args), "-out", out), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		if err := run(&text, s); err != nil {
			t.Fatal(err)
		}
		for _, want := range mentions {
			if !strings.Contains(text.String(), want) {
				t.Errorf("%s: no %q in\n%s", args, want, &text)
			}
		}
		if strings.Contains(text.String(), "NaN") {
			t.Errorf("%s: NaN in\n%s", args, &text)
		}
		if _, err := os.Stat(filepath.Join(out, "phases.png")); err != nil {
			t.Error(err)
		}
	}
}

// TestPartsAddUp checks that the parts of an iteration are all of it, nearly.
func TestPartsAddUp(t *testing.T) {
	s, err := parse(strings.Fields("-steps 2 -models classifier -optimizers adam,kfac"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r, err := measure(subject{"classifier", "float32", 200}, s, countProducts())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range r.lines {
		var sum float64
		for _, p := range l.parts {
			sum += p
		}
		if !(math.Abs(sum/l.seconds-1) < 0.1) {
			t.Errorf("%s: parts of %g seconds in an iteration of %g", l.name, sum, l.seconds)
		}
		if !(l.products.operations > 0) || l.name == "adam" && l.ratio != 1 {
			t.Errorf("%+v", l)
		}
	}
	// Adam's iteration has a forward and a backward pass. These take one and two products with each
	// of the weights 784x62, 62x62 and 62x10, but none into the images.
	want := 2 * 200 * float64(3*(784*62+62*62+62*10))
	if got := r.lines[0].products.operations; got > want*1.01 || got < want-2*200*784*62 {
		t.Errorf("an iteration of Adam has %g operations, want about %g", got, want)
	}
}

func TestGrowth(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	out := t.TempDir()
	s, err := parse([]string{"-growth", "-steps", "1", "-shrink", "64", "-out", out}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := grow(&text, s); err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(filepath.Join(out, "growth.png"))
	if err != nil || !strings.Contains(text.String(), "4096") || strings.Contains(text.String(), "NaN") {
		t.Errorf("%v\n%s", err, &text)
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("median of 3, 1, 2 is %g", got)
	}
	if got := median([]float64{4, 1, 2, 3}); got != 2.5 {
		t.Errorf("median of 4, 1, 2, 3 is %g", got)
	}
}
