package kfac_test

import (
	"encoding/csv"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
)

// trainLine fits a line, with options, and returns the solver.
func trainLine(steps int, opts ...kfac.Option) *kfac.Solver {
	out, cost, theta, _, vm := line()
	defer vm.Close()
	solver, err := kfac.NewSolver(cost, kfac.Gaussian(out, 1), opts...)
	if err != nil {
		log.Fatal(err)
	}
	for range steps {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step([]gorgonia.ValueGrad{theta}); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
	}
	return solver
}

// worst keeps the largest cost: any type with this method is a Recorder.
type worst struct{ cost float64 }

func (w *worst) Record(s kfac.Stats) error {
	w.cost = max(w.cost, s.Cost)
	return nil
}

func ExampleWithRecorder() {
	w := &worst{}
	solver := trainLine(5, kfac.WithRecorder(w))
	fmt.Println("it fell:", solver.Stats().Cost < w.cost)
	// Output: it fell: true
}

func ExampleWithLayerStats() {
	solver := trainLine(1, kfac.WithLayerStats(1))
	for _, l := range solver.Stats().Layers {
		fmt.Printf("%s: share %.2f, curvature between the damping and above: %v\n", l.Params[0], l.Share,
			l.A.Damping < l.A.Largest)
	}
	// Output: theta: share 1.00, curvature between the damping and above: true
}

func ExampleNewLogRecorder() {
	only := func(_ []string, a slog.Attr) slog.Attr { // a few of the numbers
		if a.Key == "Step" || a.Key == "Cases" || a.Key == "msg" || a.Value.Kind() == slog.KindGroup {
			return a
		}
		return slog.Attr{}
	}
	to := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: only}))
	trainLine(2, kfac.WithRecorder(kfac.NewLogRecorder(to)))
	// Output:
	// msg="kfac step" stats.Step=1 stats.Cases=4
	// msg="kfac step" stats.Step=2 stats.Cases=4
}

func ExampleNewCSVRecorder() {
	var file strings.Builder
	trainLine(3, kfac.WithRecorder(kfac.NewCSVRecorder(&file)))
	rows, err := csv.NewReader(strings.NewReader(file.String())).ReadAll()
	if err != nil {
		log.Fatal(err)
	}
	for _, row := range rows {
		fmt.Println(row[0], row[3])
	}
	// Output:
	// Step Cases
	// 1 4
	// 2 4
	// 3 4
}

func ExampleSolver_Warnings() {
	full := func(kfac.Stats) error { return fmt.Errorf("the disk is full") }
	solver := trainLine(3, kfac.WithRecorder(recorderFunc(full)))
	for _, w := range solver.Warnings() {
		fmt.Println(w.Kind, "at step", w.Step)
	}
	// Output: recorder failed at step 1
}

type recorderFunc func(kfac.Stats) error

func (f recorderFunc) Record(s kfac.Stats) error { return f(s) }

func ExampleSolver_Inspect() {
	solver := trainLine(10)
	layers, err := solver.Inspect()
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range layers {
		fmt.Printf("%s: A of %d rows, G of %d\n", l.Params[0], len(l.A.Eigenvalues), len(l.G.Eigenvalues))
		fmt.Println("damping makes A better conditioned:", l.A.Damped() < l.A.Condition())
		fmt.Println("directions in effect:", l.A.Effective() <= float64(len(l.A.Eigenvalues)))
	}
	// Output:
	// theta: A of 2 rows, G of 1
	// damping makes A better conditioned: true
	// directions in effect: true
}
