// Package trial holds what the example programs share in comparing optimizers: the command line,
// the run of one optimizer with its stopwatch and progress bar, and the resulting curve.
package trial

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Settings say what a program is to do. The flags of the same names set them.
type Settings struct {
	Steps   int     // updates that each optimizer makes
	Seconds float64 // training seconds an optimizer gets at most; 0: no limit
	// UpdatesOnly ends a run after Steps. Else the faster optimizers then go on until they have
	// trained for as many seconds as the slowest.
	UpdatesOnly bool
	Batch       int                // cases of an update
	Cases       int                // leading training cases that are used
	Eval        int                // leading cases on which the error is measured
	Every       int                // updates from one measurement to the next
	Optimizers  []string           // in the order in which they run
	Others      []string           // that do not run unless they are asked for
	Rates       map[string]float64 // learning rate of each optimizer that takes one; 0: its own default
	Seed        uint64             // of the initial weights, the batches and K-FAC's samples
	Machine     string             // one of Machines; "" is the first
	Grid        bool               // run the learning-rate grid of the baselines instead
	Data        string             // of the program; "": those it finds by itself
	DataUsage   string             // of the flag -data; "": there is none
	Out         string             // folder for the pictures
	Save        string             // file that K-FAC is saved to at each measurement; "": none
	Resume      string             // file of Save that K-FAC goes on from; "": none
	Board       string             // folder for TensorBoard's event files; "": none
	Dtype       string             // float32 or float64; "" in the defaults of a program that has one only
	Shares      bool               // the program can train on several processes: there is the flag -mpi
	MPI         bool               // it does; Batch is then that of all of them

	world World // nil: this process is alone

	// Flags declares flags of the program's own; it may be nil.
	Flags func(*flag.FlagSet)
}

// MNISTUsage is the DataUsage of the programs that learn MNIST.
const MNISTUsage = "folder of the four MNIST *-ubyte.gz files (default: the one in the GoMNIST module)"

// Parse reads the flags in args over the defaults in s, whose optimizers are the ones to choose
// from. The text for -help goes to help, and the error is then flag.ErrHelp. Any other error is one
// line.
func (s Settings) Parse(program string, args []string, help io.Writer) (Settings, error) {
	known := slices.Concat(s.Optimizers, s.Others)
	rates := make(map[string]float64, len(s.Rates))
	for name, rate := range s.Rates {
		rates[name] = rate
	}
	s.Rates = rates

	f := flag.NewFlagSet(program, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.IntVar(&s.Steps, "steps", s.Steps, "updates of each optimizer")
	f.Float64Var(&s.Seconds, "seconds", s.Seconds, "training seconds of each optimizer at most (0: no limit)")
	f.BoolVar(&s.UpdatesOnly, "updates-only", s.UpdatesOnly,
		"stop all optimizers after -steps updates: else the faster ones go on, for as many seconds as the slowest")
	f.IntVar(&s.Batch, "batch", s.Batch, "cases in a batch")
	f.IntVar(&s.Cases, "cases", s.Cases, "training cases that are used, from the first")
	f.IntVar(&s.Eval, "eval", s.Eval, "cases on which the error is measured, from the first")
	f.IntVar(&s.Every, "every", s.Every, "updates from one measurement of the error to the next")
	f.Uint64Var(&s.Seed, "seed", s.Seed, "seed of the initial weights, the batches and K-FAC's samples")
	f.StringVar(&s.Machine, "vm", Machines[0],
		"what runs the graph: own is K-FAC's own VM and Gorgonia's tape machine for the others, "+
			"tape and kfac are one of the two for all")
	f.BoolVar(&s.Grid, "grid", s.Grid,
		"run the baselines over their grid of learning rates, print the errors, and stop")
	if s.DataUsage != "" {
		f.StringVar(&s.Data, "data", s.Data, s.DataUsage)
	}
	f.StringVar(&s.Out, "out", s.Out, "folder for the pictures")
	f.StringVar(&s.Save, "save", s.Save, "file for K-FAC's state and weights, every -every updates and at the end")
	f.StringVar(&s.Resume, "resume", s.Resume, "file of -save that K-FAC goes on from, by the same flags")
	f.StringVar(&s.Board, "tensorboard", s.Board, "folder for TensorBoard's event files, with a run for each optimizer")
	if s.Shares {
		f.BoolVar(&s.MPI, "mpi", false, "train K-FAC on all processes that mpirun has started, each with its part of "+
			"a batch, as in: mpi/with 2 run ../graph_examples/NAME -mpi")
	}
	optimizers := f.String("optimizers", strings.Join(s.Optimizers, ","), optimizersHelp(s.Others))
	f.StringVar(optimizers, "solver", *optimizers, "the same as -optimizers, for one of them")
	lrUsage := "learning rates other than the tuned ones, as in adam=0.002,momentum=0.01, or one for all"
	f.Func("lr", lrUsage, func(list string) error {
		return parseRates(list, rates)
	})
	choice := s.Dtype != ""
	if choice {
		f.StringVar(&s.Dtype, "dtype", s.Dtype, "float32 or float64")
	}
	if s.Flags != nil {
		s.Flags(f)
	}
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(help)
			f.Usage()
		}
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	s.Optimizers = strings.Split(*optimizers, ",")
	if choice && s.Dtype != "float32" && s.Dtype != "float64" {
		return s, fmt.Errorf("-dtype is %q, must be float32 or float64", s.Dtype)
	}
	return s, s.check(known)
}

func optimizersHelp(others []string) string {
	help := "optimizers to run, in this order"
	if len(others) > 0 {
		help += "; there are also " + strings.Join(others, ", ")
	}
	return help
}

func parseRates(list string, rates map[string]float64) error {
	for entry := range strings.SplitSeq(list, ",") {
		name, value, named := strings.Cut(entry, "=")
		if !named {
			value = entry
		} else if _, ok := rates[name]; !ok {
			return fmt.Errorf("no optimizer %q that takes a learning rate", name)
		}
		rate, err := strconv.ParseFloat(value, 64)
		if err != nil || !(rate > 0) || math.IsInf(rate, 0) {
			return fmt.Errorf("%q is not a positive number", value)
		}
		for each := range rates {
			if !named || each == name {
				rates[each] = rate
			}
		}
	}
	return nil
}

func (s Settings) check(known []string) error {
	for _, c := range []struct {
		flag  string
		value int
	}{{"steps", s.Steps}, {"batch", s.Batch}, {"cases", s.Cases}, {"eval", s.Eval}, {"every", s.Every}} {
		if c.value < 1 {
			return fmt.Errorf("-%s is %d, must be at least 1", c.flag, c.value)
		}
	}
	if !slices.Contains(Machines, s.Machine) {
		return fmt.Errorf("-vm: no %q; there are %s", s.Machine, strings.Join(Machines, ", "))
	}
	if !(s.Seconds >= 0) {
		return fmt.Errorf("-seconds is %g, must be 0 (no limit) or more", s.Seconds)
	}
	if s.Batch > s.Cases {
		return fmt.Errorf("-batch is %d, must not exceed the %d training cases", s.Batch, s.Cases)
	}
	for i, name := range s.Optimizers {
		if !slices.Contains(known, name) {
			return fmt.Errorf("-optimizers: no optimizer %q; there are %s", name, strings.Join(known, ", "))
		}
		if slices.Contains(s.Optimizers[:i], name) {
			return fmt.Errorf("-optimizers: %s is named twice", name)
		}
	}
	return nil
}

// MakeOut makes the folder for the pictures, if one is needed. So a bad one shows before the
// training.
func (s Settings) MakeOut() error {
	if s.Grid {
		return nil
	}
	if err := os.MkdirAll(s.Out, 0o755); err != nil {
		return fmt.Errorf("folder for the pictures: %w", err)
	}
	return nil
}
