package kfac

// New makes a solver that needs no graph yet, as gorgonia.NewAdamSolver does:
//
//	solver := kfac.New()
//	...
//	err = vm.RunAll()
//	err = solver.Step(gorgonia.NodesToValueGrads(params))
//	vm.Reset()
//
// The first Step or Accumulate attaches it to the graph of the parameters that it is given. The
// cost is the node that gorgonia.Grad was called for; with a LispMachine, the graph's last scalar;
// of several, the one whose gradients Step is given. What the model predicts is told by how the
// cost is written. Its terms may be sums, means and weighted sums of
//
//   - logarithms of a softmax or of its parts, by LogSoftMax, SoftMax and Log, or Exp, Sum and Log:
//     [Categorical];
//   - logarithms of a sigmoid, and softplus, as BinaryXent has them: [Bernoulli];
//   - squares of a difference from targets: [SquaredError]; over the exp of another output:
//     [Heteroscedastic];
//   - absolute values of one: [AbsoluteError];
//   - the exp of a log rate, less the counts times that: [Poisson];
//   - these for several outputs, as in a variational autoencoder: a [Joint];
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
