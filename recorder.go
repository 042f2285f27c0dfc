package kfac

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// A Recorder is told what each step did; see [WithRecorder]. [NewLogRecorder] and [NewCSVRecorder]
// make some, and so does package tensorboard.
type Recorder interface {
	Record(Stats) error
}

// record calls a recorder. Its panic is an error.
func record(r Recorder, s Stats) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return r.Record(s)
}

// All yields the numbers of a step by their names, always in the same order, and then those of its
// layers. A duration is in seconds, and true is 1. The names are those of the fields, as in Cost,
// Time/Inverses, and Layers/w1/A/Trace for the layer whose first parameter is w1.
func (s Stats) All() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		if !eachNumber("", reflect.ValueOf(s), yield) {
			return
		}
		for _, l := range s.Layers {
			if !eachNumber("Layers/"+l.Params[0]+"/", reflect.ValueOf(l), yield) {
				return
			}
		}
	}
}

// eachNumber yields the numbers of a struct. It reports false where yield does.
func eachNumber(prefix string, v reflect.Value, yield func(string, float64) bool) bool {
	for i := range v.NumField() {
		name, ok := prefix+v.Type().Field(i).Name, true
		switch x := v.Field(i); {
		case x.Type() == reflect.TypeFor[time.Duration]():
			ok = yield(name, time.Duration(x.Int()).Seconds())
		case x.CanFloat():
			ok = yield(name, x.Float())
		case x.CanInt():
			ok = yield(name, float64(x.Int()))
		case x.Kind() == reflect.Bool && x.Bool():
			ok = yield(name, 1)
		case x.Kind() == reflect.Bool:
			ok = yield(name, 0)
		case x.Kind() == reflect.Struct:
			ok = eachNumber(name+"/", x, yield)
		}
		if !ok {
			return false
		}
	}
	return true
}

var _ slog.LogValuer = Stats{}

// LogValue is a group with the numbers of [Stats.All] that were computed.
func (s Stats) LogValue() slog.Value {
	var attrs []slog.Attr
	for name, v := range s.All() {
		switch {
		case math.IsNaN(v):
		case math.IsInf(v, 0): // not in JSON
			attrs = append(attrs, slog.String(name, fmt.Sprint(v)))
		case v == math.Trunc(v) && math.Abs(v) < 1e15:
			attrs = append(attrs, slog.Int64(name, int64(v)))
		default:
			attrs = append(attrs, slog.Float64(name, v))
		}
	}
	return slog.GroupValue(attrs...)
}

// logRecorder logs steps and warnings.
type logRecorder struct{ to *slog.Logger }

// NewLogRecorder makes a Recorder that logs each step at level Info, and each warning at level
// Warn. nil is slog.Default(), as it is at the time.
func NewLogRecorder(l *slog.Logger) Recorder { return logRecorder{l} }

func (r logRecorder) Record(s Stats) error {
	l, ctx := r.to, context.Background()
	if l == nil {
		l = slog.Default()
	}
	l.LogAttrs(ctx, slog.LevelInfo, "kfac step", slog.Any("stats", s))
	for _, w := range s.Warnings {
		l.LogAttrs(ctx, slog.LevelWarn, w.String(), slog.Int("step", w.Step), slog.String("kind", string(w.Kind)))
	}
	return nil
}

// csvRecorder writes a row for each step.
type csvRecorder struct {
	to    *csv.Writer
	began bool
	row   []string
}

// NewCSVRecorder makes a Recorder that writes a row of comma-separated values for each step, after
// one of names. A number that was not computed is empty; the last column has the warnings. Layers
// are left out. Each row is written at once; the error is that of w.
func NewCSVRecorder(w io.Writer) Recorder { return &csvRecorder{to: csv.NewWriter(w)} }

func (r *csvRecorder) Record(s Stats) error {
	var warnings []string
	for _, w := range s.Warnings {
		warnings = append(warnings, w.String())
	}
	s.Layers = nil
	if !r.began {
		r.began = true
		r.row = r.row[:0]
		for name := range s.All() {
			r.row = append(r.row, name)
		}
		if err := r.to.Write(append(r.row, "Warnings")); err != nil {
			return err
		}
	}
	r.row = r.row[:0]
	for _, v := range s.All() {
		cell := ""
		if !math.IsNaN(v) {
			cell = strconv.FormatFloat(v, 'g', -1, 64)
		}
		r.row = append(r.row, cell)
	}
	if err := r.to.Write(append(r.row, strings.Join(warnings, "; "))); err != nil {
		return err
	}
	r.to.Flush()
	return r.to.Error()
}
