// Scaling measures the training of the deep autoencoder on one rank or, built by mpi/with, on
// several, puts what a cost model says beside it, and draws the model's curves to 1,024 ranks.
//
//	GOMAXPROCS=1 go run ./graph_examples/scaling
//	GOMAXPROCS=1 mpi/with 2 run ../graph_examples/scaling -rate 10e9
//	go run ./graph_examples/scaling -draw -rate 10e9
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

func main() {
	log.SetFlags(0)
	var s settings
	flag.IntVar(&s.cases, "cases", 500, "cases of each rank")
	flag.IntVar(&s.updates, "updates", 20, "updates that are measured; 20 have one with new inverses")
	flag.Float64Var(&s.rate, "rate", 0, "operations in a second, as a run on one rank prints them")
	flag.BoolVar(&s.draw, "draw", false, "draw the curves, for -rate, and measure nothing")
	flag.StringVar(&s.out, "out", "out/scaling", "folder for the picture")
	flag.Parse()
	if err := s.run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

type settings struct {
	cases, updates int
	rate           float64
	draw           bool
	out            string
}

func (s settings) run(w io.Writer) error {
	switch {
	case s.draw && s.rate > 0:
		if err := os.MkdirAll(s.out, 0o755); err != nil {
			return err
		}
		limits(w, s.rate)
		return drawTo(filepath.Join(s.out, "scaling.png"), s.rate)
	case s.draw:
		return errors.New("-draw: with which -rate? Run it on one rank first")
	case s.cases < 1 || s.updates < 1:
		return errors.New("-cases and -updates: at least 1")
	case trial.Join == nil:
		return kfac.InProcess(1, func(c kfac.Communicator) error { return s.measure(w, c) })
	}
	world, err := trial.Join()
	if err != nil {
		return err
	}
	if err := s.measure(w, world); err != nil {
		world.Abort(err)
	}
	return world.Close()
}

// measure prints what this number of ranks takes, and what the model says.
func (s settings) measure(w io.Writer, c kfac.Communicator) error {
	got, err := measure(c, s.cases, s.updates)
	if err != nil {
		return err
	}
	n := dense("", float64(s.cases), autoencoder...)
	at := machine{rate: s.rate}
	if c.Size() > 1 {
		if at.latency, at.bandwidth, err = wire(c); err != nil {
			return err
		}
	} else {
		at.rate = n.update(machine{rate: 1}, 1, longestPeriod).total() / got.seconds
	}
	if c.Rank() > 0 {
		return nil
	}
	fmt.Fprintf(w, "%d rank(s) with %d cases each, GOMAXPROCS=%d: %.3f s an update\n", c.Size(), s.cases,
		runtime.GOMAXPROCS(0), got.seconds)
	fmt.Fprintf(w, "%.3f s of it in %.1f operations of %.1f MB\n", got.sending, got.operations, got.bytes/1e6)
	fmt.Fprintf(w, "%.3f s of it in the private passes for the statistics\n", got.passes)
	if c.Size() == 1 {
		fmt.Fprintf(w, "-rate %.3g (operations in a second)\n", at.rate)
		return nil
	}
	fmt.Fprintf(w, "latency %.0f us, bandwidth %.0f MB/s\n", at.latency*1e6, at.bandwidth/1e6)
	if at.rate > 0 {
		e := n.update(at, c.Size(), longestPeriod)
		fmt.Fprintf(w, "the model says %.3f s: cases %.3f, directions %.3f, inverses %.3f, latency %.4f, volume %.4f\n",
			e.total(), e.cases, e.directions, e.inverses, e.latency, e.volume)
	}
	return nil
}
