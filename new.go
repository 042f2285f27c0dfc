package kfac

import "gorgonia.org/gorgonia"

// New makes a solver that needs no graph yet, as gorgonia.NewAdamSolver does:
//
//	solver := kfac.New()
//	...
//	err = vm.RunAll()
//	err = solver.Step(gorgonia.NodesToValueGrads(params))
//	vm.Reset()
//
// The first Step or Accumulate attaches it to the graph of the parameters that it is given. The cost
// is the node that gorgonia.Grad was called for; with a LispMachine, the graph's last scalar. What
// the model predicts is told by how the cost is written. Its terms may be sums, means and weighted
// sums of
//
//   - logarithms of a softmax or of its parts, by LogSoftMax, SoftMax and Log, or Exp, Sum and Log:
//     [Categorical];
//   - logarithms of a sigmoid, and softplus, as BinaryXent has them: [Bernoulli];
//   - squares of a difference from targets: [SquaredError];
//   - these for several outputs: a [Joint];
//   - penalties on weights, which are no output.
//
// The loss check proves it, as for a distribution that was declared, and [Solver.Plan] says what it
// is. A cost that is written in another way is an *InferenceError, which names the candidates. Then
// declare the distribution, by [NewSolver] or by [Solver.Attach] before the first Step.
//
// Where Step is given the parameters of another graph, as in a loop that builds a graph for each
// batch or sequence, the solver goes on with that graph, under the conditions of [Solver.Attach].
//
// An option that is out of range makes each call an error, a *ConfigError.
func New(opts ...Option) *Solver {
	cfg, err := configured(opts)
	return &Solver{cfg: cfg, infers: true, invalid: err}
}

// follow attaches a solver of New to the graph of the parameters that it is given, if it is not
// attached to it. back undoes that.
func (s *Solver) follow(call string, model []gorgonia.ValueGrad) (back func(), err error) {
	back = func() {}
	if !s.infers {
		return back, nil
	}
	if err := s.calling.begin(call); err != nil {
		return back, err
	}
	defer s.calling.end()
	defer recovered(call, &err)
	params, err := listed(model)
	if err != nil {
		return back, err
	}
	if s.engine != nil && s.engine.graphOf() == params[0].Graph() {
		return back, nil
	}
	cost, err := inferCost(params)
	if err != nil {
		return back, err
	}
	dist, err := inferDistribution(cost, params)
	if err != nil {
		return back, err
	}
	engine, plan := s.engine, s.plan
	detach := func() {}
	if engine != nil {
		detach = engine.mark()
	}
	if err := s.attach(cost, dist); err != nil {
		return back, err
	}
	return func() {
		detach()
		s.engine, s.plan = engine, plan
	}, nil
}
