// Package kfac is K-FAC, Kronecker-factored Approximate Curvature (Martens & Grosse 2015,
// arXiv:1503.05671), as a solver for Gorgonia. It takes the place of gorgonia.NewAdamSolver in a
// program; the model, its graph, the VM and the training loop stay as they are:
//
//	solver := kfac.New()
//	...
//	err = vm.RunAll()
//	err = solver.Step(gorgonia.NodesToValueGrads(params))
//	vm.Reset()
//
// vm is any of Gorgonia's VMs, or [Solver.VM], which is several times as fast.
// [New] finds in the graph what the model predicts. [NewSolver] is told.
//
// # What it computes
//
// Natural gradient descent moves the parameters by -F^-1 times the gradient of the cost. F is the
// Fisher matrix of the model's predictive distribution. It has as many rows and columns as there
// are parameters, which is too large to compute. But the block of a layer that computes s from its
// input a is nearly a Kronecker product of two small matrices,
//
//	F_layer ~ A (x) G,   A = E[abar abar^T],   G = E[g g^T].
//
// Here abar is a, followed by a homogeneous coordinate 1 for the bias. g is the gradient with
// respect to s of the negative log-likelihood, for targets sampled from the model's own
// predictions. The inverse of a Kronecker product is the Kronecker product of the inverses of its
// factors. So the preconditioned gradient of the layer is U = A^-1 V G^-1, for the gradient V.
//
// The step length and the momentum come from a quadratic model with the exact Fisher matrix,
// restricted to two directions: the preconditioned gradient and the previous update. The damping
// comes from how well the quadratic model has predicted the effect of steps. Nothing needs to be
// tuned.
//
// # Shapes
//
// Gorgonia is row-major and has one row per case: s = a W + b, where W is in x out. So A is (in+1)
// x (in+1) with the homogeneous coordinate last, or in x in without a bias. G is out x out. V and U
// are (in+1) x out with the bias in the last row. If the weight is stored as out x in, as in Mul(x,
// Transpose(w)), V and U are transposed.
//
// # Units
//
// The solver's objective h is the mean over cases of the negative log-likelihood, in nats. The
// user's cost is c times the sum over cases of the negative log-likelihood. The solver finds the
// scale c at the first step. So damping, learning rate and norm constraint have the same meaning
// for a cost that is a sum, a mean over cases, or a mean over cases and outputs. A, G and the
// sampled gradients are per case.
//
// # Supported
//
// Layers with a Kronecker block: dense layers, written as Mul(x, w), Mul(x, Transpose(w)), Mul(w,
// x) or Mul(Transpose(w), x) with x a matrix or a vector, as Tensordot, or as BatchedMatMul with a
// stack of one matrix; convolutions, Im2Col written out included; embeddings, by ByIndices or
// products with one-hot rows; recurrent weights, unrolled; weights tied with their transposes. A
// weight may be reshaped, and used once or several times. Its bias may be added by BroadcastAdd, as
// Add to a vector, after other summands, or by a column of ones in the input.
//
// Parameters that act element by element, such as the scale and shift of a normalisation, have a
// small full block. Every other parameter has a diagonal block, or the identity if its gradient
// can't be computed. [Solver.Plan] reports the treatment of each parameter and the reason.
//
// Losses: [Categorical], [Bernoulli], [Poisson], [SquaredError], [Gaussian] and [Laplace], and
// [Joint] for several outputs.
//
// # Limits
//
// The cost must be a negative log-likelihood of the model's output, of which [Weighted] cases may
// count more than others. Other costs are refused, but for outputs declared by [Policy], and with
// [WithoutLossCheck]. [New] tells by the way in which it is written which one it is.
//
// # Options
//
// All options are optional.
//
// Length of a step: [WithLearningRate], [WithMomentum], [WithNormConstraint], [WithoutMomentum],
// [WithDamping], [WithDampingAdaptation], [WithUndampedRho], [WithGammaAdaptation], [WithMaxGamma],
// [WithL2Reg], [WithStepRejection], [WithPaperRules].
//
// Direction of a step: [WithBlockTridiagonal], [WithWeightSharing], [WithTimeCorrelation],
// [WithSpatiallyUncorrelated], [WithMaxDim], [WithFullBlocks].
//
// How often the curvature is computed, and from how many cases: [WithCurvatureEMA],
// [WithInverseUpdatePeriod], [WithBackgroundInverses], [WithStatisticsFraction],
// [WithMinStatisticsCases], [WithModelFraction], [WithMinModelCases].
//
// Checks: [WithStrict], [WithoutGradientCheck], [WithoutLossCheck], [WithoutReachCheck].
//
// Other: [WithSeed], [WithStats], [WithLogger], [WithIterateAveraging] with [Solver.UseAverage],
// [GrowingBatch] with [Solver.Accumulate]; [Solver.Save] and [Solver.Load].
package kfac
