// Package kfac trains Gorgonia models by K-FAC, Kronecker-factored Approximate Curvature (Martens &
// Grosse 2015, arXiv:1503.05671). It takes the place of gorgonia.NewAdamSolver; the model, its
// graph and the training loop stay as they are, and nothing has to be tuned:
//
//	solver := kfac.New() // was: gorgonia.NewAdamSolver(gorgonia.WithLearnRate(0.001))
//	...
//	err = vm.RunAll()
//	err = solver.Step(gorgonia.NodesToValueGrads(params))
//	vm.Reset()
//
// [New] finds in the graph what the model predicts; [NewSolver] is told. vm is any of Gorgonia's
// VMs, or [Solver.VM], which is several times as fast. [Solver.Plan] says what is done with each
// parameter, and why.
//
// # What it computes
//
// Natural gradient descent moves the parameters by -F^-1 times the gradient. F, the Fisher matrix
// of what the model predicts, is too large to compute. But its block for a layer s = a W + b is
// nearly a Kronecker product of two small matrices, whose inverse is that of their inverses:
//
//	F_layer ~ A (x) G,   A = E[abar abar^T],   G = E[g g^T],   U = A^-1 V G^-1
//
// abar is a, with a 1 behind it for the bias. g is the gradient of the negative log-likelihood with
// respect to s, for targets sampled from the model's own predictions. V is the gradient of the
// layer's parameters, and U the direction of the step. How far it goes, and how much of the
// previous update is added, comes from a quadratic model with the exact Fisher matrix; the damping
// from how well that has predicted the effect of earlier steps.
//
// # Shapes and units
//
// One row is one case. W is in x out, A is (in+1) x (in+1) with the bias last, G is out x out, and
// V and U are (in+1) x out; for a weight stored as out x in, V and U are transposed. The objective
// is the mean over cases of the negative log-likelihood, in nats. The user's cost may be any
// multiple of it, a sum or a mean: the first step finds the factor, and refuses a cost that is not
// one.
//
// # What it knows
//
// Layers: dense, convolution, embedding, recurrent, tied and shared weights, normalisation; any
// other parameter has a diagonal, or the plain gradient. Predictions: [Categorical], [Bernoulli],
// [Poisson], [NegativeBinomial], [SquaredError], [Gaussian], [Heteroscedastic], [AbsoluteError],
// [Laplace], [StudentT], [Custom] ones, [Joint] for several, [Weighted] for cases that count more
// than others, and [Policy] for a cost that is not the likelihood.
//
// # Options
//
// All are optional.
//
//   - How far: [WithLearningRate], [WithMomentum], [WithNormConstraint], [WithDamping],
//     [WithDampingAdaptation], [WithGammaAdaptation], [WithMaxGamma], [WithUndampedRho],
//     [WithL2Reg], [WithWeightDecay], [WithClipNorm], [WithoutMomentum], [WithStepRejection],
//     [WithPaperRules]
//   - Which way: [WithBlockTridiagonal], [WithEKFAC], [WithExactDamping], [WithWeightSharing],
//     [WithTimeCorrelation], [WithSpatiallyUncorrelated], [WithMaxDim], [WithFullBlocks]
//   - From how much, how often: [WithCurvatureEMA], [WithFisherEstimate], [WithFisherSamples],
//     [WithStatisticsFraction], [WithMinStatisticsCases], [WithModelFraction],
//     [WithMinModelCases], [WithInverseUpdatePeriod], [WithBackgroundInverses]
//   - On the way: [WithSchedule], [Solver.Set]; another solver's steps: [WithInner],
//     [Solver.Precondition]; larger batches: [Solver.Accumulate], [GrowingBatch]
//   - For some parameters: [WithGroup], [WithGroupOf]
//   - Checks: [WithStrict], [WithoutGradientCheck], [WithoutLossCheck], [WithoutReachCheck],
//     [WithSkipNotFinite]
//   - To watch: [WithRecorder], [WithStats], [WithLayerStats], [Solver.Warnings], [Solver.Inspect],
//     [WithLogger], and package tensorboard
//   - Several machines: [WithCommunicator], [WithPlacement], [WithSameWeights]
//   - Other: [WithSeed], [WithIterateAveraging] with [Solver.UseAverage]
//   - Of [Solver.Save] and [Solver.Load]: [WithoutWeights], [WithoutFactors], [WithoutInner],
//     [WithOtherSettings]
//
// The pages in docs say more: layers.md, losses.md, tuning.md, algorithm.md, faq.md.
package kfac
