package learn

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/initial"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// A Task is a model and the data to train it with.
type Task struct {
	Model func(Options) *Model
	// Draw returns a function that writes the next batch for training into the inputs of m.
	Draw func(m *Model) func()
	// Walk returns a function that writes the cases on which the loss is measured into the inputs
	// of m, one batch after the other.
	Walk                   func(m *Model) func()
	WalkBatch, WalkBatches int // cases of such a batch, and how many there are
	// Start are the initial values of the first parameters, if these do not come from Options.Init.
	Start []gorgonia.Value
}

// build makes a model with initial weights and room for its inputs.
func (t Task) build(s trial.Settings, batch int, training bool) (*Model, error) {
	m := t.Model(Options{
		Dtype:    dtype(s.Dtype),
		Batch:    batch,
		Init:     initial.GlorotN(rand.New(rand.NewPCG(s.Seed, 1))),
		Training: training,
	})
	for i, v := range t.Start {
		own, err := gorgonia.CloneValue(v)
		if err != nil {
			return nil, err
		}
		if err := gorgonia.Let(m.Params[i], own); err != nil {
			return nil, err
		}
	}
	return m, m.allocate()
}

// Train is the training loop of one optimizer, as any Gorgonia program has it. It returns the
// trained model and its loss at the end. The loss is infinite or NaN if there is none.
func (t Task) Train(ctx context.Context, run *trial.Run, s trial.Settings) (trained *Model, loss float64, err error) {
	m, err := t.build(s, s.OwnBatch(), true)
	if err != nil {
		return nil, math.Inf(1), err
	}
	if _, err := gorgonia.Grad(m.Cost, m.Params...); err != nil {
		return nil, math.Inf(1), err
	}
	solver, err := NewSolver(run.Entrant, s.Seed, m, run.Watch()...)
	if err != nil {
		return nil, math.Inf(1), err
	}
	vm, err := trial.NewMachine(s.Machine, solver, m.Cost, m.Params)
	if err != nil {
		return nil, math.Inf(1), err
	}
	defer vm.Close()

	meter, err := t.newMeter(m, s)
	if err != nil {
		return nil, math.Inf(1), err
	}
	defer meter.Close()
	measure := func() error {
		var err error
		loss, err = meter.Loss()
		return run.Record(loss, err)
	}
	next := t.Draw(m)
	if err := run.Resume(solver, func(int) { next() }); err != nil {
		return nil, math.Inf(1), err
	}
	if err := measure(); err != nil {
		return nil, math.Inf(1), err
	}
	for run.More(ctx) {
		next()
		run.Start()
		if err := vm.RunAll(); err != nil {
			return nil, math.Inf(1), err
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(m.Params)); err != nil {
			return nil, math.Inf(1), err
		}
		vm.Reset()
		run.Stop()
		if run.Due(ctx) {
			if err := errors.Join(measure(), run.Save(solver)); err != nil {
				return nil, math.Inf(1), err
			}
		}
	}
	return m, loss, nil
}

// A meter measures the loss of a model in training: a second graph with the same weights.
type meter struct {
	task  Task
	model *Model
	vm    gorgonia.VM
	cost  gorgonia.Value
}

func (t Task) newMeter(trained *Model, s trial.Settings) (*meter, error) {
	m, err := t.build(s, t.WalkBatch, false)
	if err != nil {
		return nil, err
	}
	for i, p := range m.Params {
		if err := gorgonia.Let(p, trained.Params[i].Value()); err != nil {
			return nil, err
		}
	}
	r := &meter{task: t, model: m}
	gorgonia.Read(m.Cost, &r.cost)
	r.vm = gorgonia.NewTapeMachine(m.Cost.Graph())
	return r, nil
}

func (r *meter) Close() error { return r.vm.Close() }

// Loss is the mean cost of the batches of Walk.
func (r *meter) Loss() (float64, error) {
	var sum float64
	next := r.task.Walk(r.model)
	for range r.task.WalkBatches {
		next()
		if err := r.vm.RunAll(); err != nil {
			return 0, err
		}
		sum += Numbers(r.cost)[0]
		r.vm.Reset()
	}
	return sum / float64(r.task.WalkBatches), nil
}
