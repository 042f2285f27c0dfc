package kfac

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A panickingBlock panics where it is told to, in the step's goroutine or in that of a job.
type panickingBlock struct {
	curvature.Block[float64]
	where string
	value any
}

// blockCalls are the calls of a block that a step makes before it is committed.
var blockCalls = []string{"Observe", "Average", "Average after its work", "Invert", "first job",
	"second job"}

func (b panickingBlock) at(where string) {
	if b.where == where {
		panic(b.value)
	}
}

func (b panickingBlock) Observe(rows []curvature.Rows[float64]) error {
	b.at("Observe")
	return b.Block.Observe(rows)
}

func (b panickingBlock) Average(ema float64) (*curvature.Averages[float64], error) {
	b.at("Average")
	defer b.at("Average after its work")
	return b.Block.Average(ema)
}

func (b panickingBlock) Invert(avg *curvature.Averages[float64], d curvature.Damping) *curvature.Inversion[float64] {
	b.at("Invert")
	v := b.Block.Invert(avg, d)
	if b.where == "first job" {
		v.First = append(v.First, func() { panic(b.value) })
	}
	if b.where == "second job" {
		v.Then = append(v.Then, func() { panic(b.value) })
	}
	return v
}

// panicOf demands a PanicError with what was given to panic, and where.
func panicOf(call string, value any, where string) func(err error) bool {
	return func(err error) bool {
		var pe *PanicError
		if !errors.As(err, &pe) {
			return false
		}
		text := err.Error()
		own, _ := value.(error)
		return pe.Value == value && pe.Call == call && errors.Unwrap(pe) == own &&
			strings.Contains(string(pe.Stack), where) && strings.Contains(text, string(pe.Stack)) &&
			strings.Contains(text, fmt.Sprint(call, ": panic: ", value)) && strings.Contains(text, "as they were")
	}
}

// A panic below Step or Accumulate, in their goroutine or in another, is their error, which leaves
// no trace.
func TestPanicsLeaveNoTrace(t *testing.T) {
	t.Parallel()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for _, mode := range shortly(faultModes) {
		for _, chunks := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, %d chunks", mode.name, chunks), func(t *testing.T) {
				happened := 0
				first, last := mode.updates[0], slices.Max(mode.updates)
				twin, _ := twinOf(t, last+faultSteps, chunks, false, mode.opts...)
				for n, where := range blockCalls {
					for _, k := range []int{first, last} {
						value := []any{errFuse, "a word"}[n%2]
						bad := n % chunks
						spoil := func(c *faultCourse) (repair func()) {
							blocks := trainingOf(c.Trainer).plan.blocks
							b := blocks[len(blocks)-1]
							sound := b.Block
							b.Block = panickingBlock{sound, where, value}
							return func() { b.Block = sound }
						}
						call := "Step"
						if bad < chunks-1 {
							call = "Accumulate"
						}
						f := fault{name: where, after: spoil, as: panicOf(call, value, "panics_test.go")}
						inverting := where == "Invert" || strings.HasSuffix(where, "job")
						if inverting && strings.HasPrefix(mode.name, "background") {
							continue // in the background or, after the step, on the way to it
						}
						if f.test(t, newFaultCourse(t, chunks, false, mode.opts...), k, bad, twin) {
							happened++
						}
					}
				}
				if happened == 0 {
					t.Error("nothing has panicked")
				}
			})
		}
	}
}

// An op of the user's that panics in the solver's private runs, forwards or in a sweep, is named by
// the error, which leaves no trace.
func TestPanickingOpsLeaveNoTrace(t *testing.T) {
	named := func(err error) bool {
		var ge *GraphError
		return errors.As(err, &ge) && strings.Contains(ge.Node, "fuse") && strings.Contains(err.Error(), "panic: ") &&
			!strings.Contains(err.Error(), "call RunAll")
	}
	for _, mode := range shortly(faultModes[:3]) {
		t.Run(mode.name, func(t *testing.T) {
			k := mode.updates[1]
			course := func() *faultCourse {
				return (&faultCourse{chunks: 1, twofold: true}).begun(t, true, mode.opts...)
			}
			twin := course().milestones(t, k+faultSteps)
			failed, calls := 0, 1
			what := map[string]bool{}
			for n := 1; n <= calls; n++ {
				c := course()
				f := fault{as: named, after: func(c *faultCourse) func() {
					c.fuse.left, c.fuse.calls, c.fuse.panics = n, 0, []any{errFuse, "a word"}[n%2]
					return func() { calls, c.fuse.left = max(calls, c.fuse.calls+1), 0 }
				}}
				f.as = func(err error) bool {
					var ge *GraphError
					if errors.As(err, &ge) {
						what[strings.Fields(ge.What)[0]] = true
					}
					return named(err) && errors.Is(err, errFuse) == (n%2 == 0)
				}
				if f.test(t, c, k, 0, twin) {
					failed++
				} else if c.fuse.calls < n {
					break
				}
			}
			if failed < 5 || !what["forward"] || !what["reverse"] || mode.name != "learning rate" && !what["tangent"] {
				t.Errorf("%d have panicked, in %v", failed, what)
			}

			twin = course().milestones(t, 1+faultSteps)
			f := fault{is: errFuse, as: named, after: func(c *faultCourse) func() {
				c.fuse.symbolic, c.fuse.panics = true, errFuse
				return func() { c.fuse.symbolic = false }
			}}
			if !f.test(t, course(), 1, 0, twin) {
				t.Error("SymDiff has not panicked")
			}
		})
	}
}

// A nameless op panics when it is asked for its name, once that is switched on.
type nameless struct{ fuse }

func (n nameless) String() string {
	if n.symbolic {
		panic("no name")
	}
	return "nameless"
}

// An op that can't even say its name for the error about it.
func TestPanicInAnErrorsWords(t *testing.T) {
	state := &fuseState{}
	build := func() *testnet.Net {
		n := testnet.NewNet(3)
		h := n.Layer(n.Random("x", 4, 3), 0, 3, 5, true, false)
		h = gorgonia.Must(gorgonia.ApplyOp(nameless{fuse{fuseState: state}}, h))
		return n.Ends(n.Layer(tanh(h), 1, 5, 2, true, false), testnet.Squares(1))
	}
	for _, done := range []int{0, 3} {
		l, twin := NewTrainer(t, build()), NewTrainer(t, build())
		l.Steps(t, done)
		twin.Steps(t, done)
		testnet.Check(t, l.Run())
		before := testnet.Weights(l.Params)
		state.symbolic, state.left = true, 1
		err := l.Solver.Step(l.ValueGrads())
		state.symbolic, state.left = false, 0
		if !panicOf("Step", "no name", "nameless")(err) {
			t.Errorf("%T: %v", err, err)
		}
		testnet.SameBits(t, "weights", testnet.Weights(l.Params), before)
		testnet.ZeroGradients(l.Params)
		l.Steps(t, 3)
		twin.Steps(t, 3)
		testnet.SameBits(t, "weights", testnet.Weights(l.Params), testnet.Weights(twin.Params))
	}
}
