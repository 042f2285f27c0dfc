package trial

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

var defaults = Settings{
	Steps:      100,
	Batch:      10,
	Cases:      60,
	Eval:       20,
	Every:      5,
	Optimizers: []string{"kfac", "adam"},
	Rates:      map[string]float64{"kfac": 0, "adam": 0.001},
	Seed:       1,
	Out:        "out",
	Dtype:      "float32",
	DataUsage:  MNISTUsage,
}

func TestParse(t *testing.T) {
	args := strings.Fields("-steps 3 -seconds 1.5 -cases 40 -optimizers adam -lr adam=0.5,kfac=2 " +
		"-grid -seed 9 -out elsewhere -data there")
	s, err := defaults.Parse("demo", args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if s.Steps != 3 || s.Seconds != 1.5 || s.Cases != 40 || s.Batch != 10 || s.Seed != 9 ||
		!s.Grid || s.Out != "elsewhere" || s.Data != "there" {
		t.Errorf("parsed %+v", s)
	}
	if len(s.Optimizers) != 1 || s.Optimizers[0] != "adam" || s.Rates["adam"] != 0.5 || s.Rates["kfac"] != 2 {
		t.Errorf("optimizers %v at %v", s.Optimizers, s.Rates)
	}
	s, err = defaults.Parse("demo", strings.Fields("-dtype float64 -solver kfac -lr 0.25"), io.Discard)
	if err != nil || s.Dtype != "float64" || len(s.Optimizers) != 1 || s.Optimizers[0] != "kfac" ||
		s.Rates["kfac"] != 0.25 || s.Rates["adam"] != 0.25 {
		t.Errorf("parsed %+v (%v)", s, err)
	}
	if defaults.Rates["adam"] != 0.001 || len(defaults.Optimizers) != 2 {
		t.Errorf("the defaults changed: %+v", defaults)
	}
}

func TestBadFlags(t *testing.T) {
	for args, mention := range map[string]string{
		"-steps 0":              "-steps",
		"-steps x":              "-steps",
		"-batch 61":             "60 training cases",
		"-batch -1":             "-batch",
		"-cases 0":              "-cases",
		"-eval 0":               "-eval",
		"-every 0":              "-every",
		"-seconds -1":           "-seconds",
		"-seconds NaN":          "-seconds",
		"-seed -1":              "-seed",
		"-optimizers sgd":       `"sgd"`,
		"-optimizers adam,adam": "twice",
		"-optimizers=":          "no optimizer",
		"-lr adam=0":            "positive",
		"-lr adam=Inf":          "positive",
		"-lr adam":              "positive",
		"-lr sgd=1":             `"sgd"`,
		"-dtype float16":        "float64",
		"-solver sgd":           `"sgd"`,
		"-colour red":           "-colour",
		"steps 3":               `"steps"`,
	} {
		var stderr bytes.Buffer
		status := Main("demo", strings.Fields(args), defaults, func(context.Context, Settings) error {
			t.Errorf("%q: the program runs", args)
			return nil
		}, &stderr)
		line := stderr.String()
		if status != 2 || strings.Count(line, "\n") != 1 ||
			!strings.HasPrefix(line, "demo: ") || !strings.Contains(line, mention) {
			t.Errorf("%q: exit status %d and %q, want 2 and one line that mentions %s", args, status, line, mention)
		}
	}
}

func TestMainStatus(t *testing.T) {
	var stderr bytes.Buffer
	fails := func(context.Context, Settings) error { return errors.New("no luck") }
	if status := Main("demo", nil, defaults, fails, &stderr); status != 1 || stderr.String() != "demo: no luck\n" {
		t.Errorf("after an error: exit status %d and %q", status, stderr.String())
	}
	stderr.Reset()
	status := Main("demo", []string{"-help"}, defaults, nil, &stderr)
	if status != 0 || !strings.Contains(stderr.String(), "-optimizers") {
		t.Errorf("-help: exit status %d and %q", status, stderr.String())
	}
}
