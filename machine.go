package kfac

import (
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A machine is the solver's own VM of a graph, with what Step has to know of its last run.
type machine[T program.Float] struct {
	cost *gorgonia.Node
	run  *program.Machine[T]
	of   *program.Run[T] // that it runs for the model

	seed   uint64 // of the last run
	ran    bool   // at least once, and not in EvalMode
	spent  bool   // a Step or Accumulate has taken in the last run
	errors bool   // the model's run holds the gradients of the last run
}

// runAll runs the graph.
func (m *machine[T]) runAll(seed uint64, mode program.Mode) error {
	m.ran, m.spent, m.errors = false, false, false
	m.seed = seed
	if err := m.run.Run(seed, mode); err != nil {
		return err
	}
	if mode == program.Training {
		m.run.Remember()
		m.ran, m.errors = true, true
	}
	return nil
}

// left reports whether the last VM that has run this graph is the machine, with these parameters'
// gradients.
func (m *machine[T]) left(params []*parameter[T]) bool {
	if m == nil || !m.run.Left(m.cost) {
		return false
	}
	for _, p := range params {
		if !m.run.Left(p.src) {
			return false
		}
	}
	return true
}

// fresh returns an error if the machine's last run is not one of what the graph holds now, or has
// been taken in already.
func (m *machine[T]) fresh() error {
	const op = "comparing the graph with the last RunAll of the solver's VM"
	if !m.ran || m.spent {
		return &GraphError{Node: program.NameOf(m.cost), What: op, Err: ErrStale,
			Hint: "call RunAll, not in EvalMode, before each Step or Accumulate"}
	}
	if n := m.run.Changed(); n != nil {
		return &GraphError{Node: program.NameOf(n), What: op, Err: ErrStale,
			Hint: "its value has changed since then: put the next batch in after Step, not before it"}
	}
	return nil
}

// spend notes that a Step or Accumulate has taken in the run, and changed what it was one of.
func (m *machine[T]) spend() {
	if m != nil {
		m.spent, m.errors = true, false
	}
}
