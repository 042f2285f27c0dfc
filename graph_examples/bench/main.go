// Bench measures what an update costs, for Adam, Momentum and K-FAC on several models: the seconds
// of an iteration (RunAll and Step), where in a step they go, and what is allocated. It also shows
// how fast the matrix products are beside those of the same BLAS alone. The images and characters
// are random: the time does not depend on them.
//
//	go run ./graph_examples/bench
//	go run ./graph_examples/bench -models autoencoder -dtypes float32,float64 -batch 256,1000,4000
//	go run ./graph_examples/bench -growth
//	openblas/with run ./graph_examples/bench
//
// Without flags it measures all models in float32. With -growth it measures a step against width,
// depth and batch.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
)

// settings are those of the command line.
type settings struct {
	models     []string
	dtypes     []string
	optimizers []string
	batches    []int // of every model; none: each model's own
	rounds     int
	steps      int // of a round
	warmup     int // steps before the first round
	seed       uint64
	shrink     int // divides the units of hidden layers
	memory     bool
	growth     bool
	out        string
	profile    string // file; none if empty
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == alone {
		exit(runAlone(os.Args[2:]))
	}
	s, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = os.MkdirAll(s.out, 0o755)
	}
	if err == nil && s.growth {
		exit(grow(os.Stdout, s))
	} else if err == nil {
		err = profiled(s.profile, func() error { return run(os.Stdout, s) })
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func parse(args []string, help io.Writer) (settings, error) {
	var s settings
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(help)
	models := f.String("models", strings.Join(modelNames(), ","), "models")
	dtypes := f.String("dtypes", "float32", "float32, float64 or both")
	optimizers := f.String("optimizers", "adam,momentum,kfac,kfac-rate",
		"optimizers; there are "+strings.Join(optimizerNames, ", "))
	batches := f.String("batch", "", "cases in a batch, one number or several (default: the model's own)")
	f.IntVar(&s.steps, "steps", period, "iterations of every optimizer in a round; "+
		"what K-FAC does not do at every step comes round in 20. Fewer are a trial: "+
		"unless other flags say otherwise one round of small models, without -warmup and -memory")
	f.IntVar(&s.rounds, "rounds", 3, "rounds, of which the medians are shown")
	f.IntVar(&s.shrink, "shrink", 1, "make hidden layers this many times smaller")
	f.IntVar(&s.warmup, "warmup", period, "iterations before the first round; "+
		"in the first twenty K-FAC checks the model, starts its damping and searches for gamma")
	f.Uint64Var(&s.seed, "seed", 1, "seed of data, weights and K-FAC's samples")
	f.BoolVar(&s.memory, "memory", true, "measure the peak memory of each optimizer in a process of its own (Linux)")
	f.BoolVar(&s.growth, "growth", false,
		"measure time and memory of a step against width, depth and batch, in place of the models")
	f.StringVar(&s.out, "out", "out/bench", "folder for the pictures")
	f.StringVar(&s.profile, "cpuprofile", "", "write a profile to this file, for go tool pprof")
	f.Int("cases", 0, "as in the other examples; batches are random here")
	f.Int("eval", 0, "as in the other examples; nothing is evaluated here")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if s.steps < period {
		s.makeTrial(f)
	}
	s.models = strings.Split(*models, ",")
	s.dtypes = strings.Split(*dtypes, ",")
	s.optimizers = strings.Split(*optimizers, ",")
	for _, list := range []struct {
		flag         string
		given, known []string
	}{
		{"models", s.models, modelNames()},
		{"dtypes", s.dtypes, []string{"float32", "float64"}},
		{"optimizers", s.optimizers, optimizerNames},
	} {
		for _, name := range list.given {
			if !slices.Contains(list.known, name) {
				return s, fmt.Errorf("-%s: no %q; there are %s", list.flag, name, strings.Join(list.known, ", "))
			}
		}
	}
	if *batches != "" {
		for text := range strings.SplitSeq(*batches, ",") {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				return s, fmt.Errorf("-batch: %q is not a number of cases", text)
			}
			s.batches = append(s.batches, n)
		}
	}
	if min(s.rounds, s.steps, s.shrink) < 1 || s.warmup < 0 || f.NArg() > 0 {
		return s, errors.New("-rounds, -steps and -shrink have to be at least 1, -warmup 0, " +
			"and there are no arguments but flags")
	}
	return s, nil
}

// makeTrial makes everything small that no flag was given for.
func (s *settings) makeTrial(f *flag.FlagSet) {
	given := map[string]bool{}
	f.Visit(func(flag *flag.Flag) { given[flag.Name] = true })
	for name, value := range map[string]string{"rounds": "1", "warmup": "0", "shrink": "8", "memory": "false"} {
		if !given[name] {
			if err := f.Set(name, value); err != nil {
				panic(err)
			}
		}
	}
}

// profiled calls f and writes a profile of it to the file, if there is one.
func profiled(file string, f func() error) error {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return errors.Join(err, out.Close())
	}
	err = f()
	pprof.StopCPUProfile()
	return errors.Join(err, out.Close())
}

// run measures every model in every dtype and at every batch. It prints each table as soon as it is
// known.
func run(w io.Writer, s settings) error {
	blas := countProducts()
	fmt.Fprintf(w, "%s\n%s\n", machine(blas), method(s))
	var results []result
	for _, name := range s.models {
		batches := s.batches
		if len(batches) == 0 {
			batches = models[name].batches
		}
		for _, batch := range batches {
			for _, dtype := range s.dtypes {
				r, err := measure(subject{name, dtype, batch}, s, blas)
				if err != nil {
					return fmt.Errorf("%s, batch %d, %s: %w", name, batch, dtype, err)
				}
				r.print(w)
				results = append(results, r)
			}
		}
	}
	printRatios(w, results)
	file := filepath.Join(s.out, "phases.png")
	if err := drawPhases(file, results); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nWhere the time of an iteration goes: %s\n", file)
	return nil
}

func method(s settings) string {
	text := fmt.Sprintf("Medians; rounds: %d, iterations in a round: %d. The optimizers take turns.", s.rounds, s.steps)
	if s.steps%period != 0 {
		text += fmt.Sprintf(" K-FAC renews its inverses at least every %d steps: "+
			"only -steps %d, or a multiple, shows what an iteration costs on average.", period, period)
	}
	if s.shrink > 1 {
		text += fmt.Sprintf(" Hidden layers have 1/%d of their units.", s.shrink)
	}
	return text
}
