// Package kfac is K-FAC, Kronecker-factored Approximate Curvature (Martens & Grosse 2015,
// arXiv:1503.05671), as a solver for Gorgonia. It takes the place of gorgonia.NewAdamSolver in a
// program; the model, its graph, the VM and the training loop stay as they are:
//
//	solver, err := kfac.NewSolver(cost, kfac.Categorical(logits))
//	...
//	err = vm.RunAll()
//	err = solver.Step(gorgonia.NodesToValueGrads(params))
//	vm.Reset()
//
// # What it computes
//
// Natural gradient descent moves the parameters by -F^-1 times the gradient of the cost, where F is
// the Fisher matrix of the model's predictive distribution. F is as large as the parameters
// squared, but the block of a layer that computes s from its input a is nearly a Kronecker product
// of two small matrices,
//
//	F_layer ~ A (x) G,   A = E[abar abar^T],   G = E[g g^T].
//
// Here abar is a with a homogeneous coordinate 1 behind it for the bias, and g is the gradient with
// respect to s of the negative log-likelihood of targets sampled from the model's own predictions.
// The inverse of a Kronecker product is that of its factors, so the preconditioned gradient of the
// layer is U = A^-1 V G^-1.
//
// How far to go, and how much of the previous update to add, comes from the exact Fisher matrix
// along these two directions; how much damping, from how well that has predicted what steps do.
// Nothing needs to be tuned.
//
// # Shapes
//
// Gorgonia is row-major and has one row per case: s = a W + b, W is in x out. So A is (in+1) x
// (in+1) with the homogeneous coordinate last, or in x in without a bias, G is out x out, and V and
// U are (in+1) x out with the bias in the last row. For weights stored the other way round, as in
// Mul(x, Transpose(w)), everything is transposed.
//
// # Units
//
// The solver works with h, the mean over cases of the negative log-likelihood, in nats. It finds
// the scale c in cost = c x (sum over cases of the negative log-likelihood) by itself at the first
// step. So damping, learning rate and norm constraint mean the same whether a cost is a sum, a mean
// over cases or a mean over cases and outputs. A, G and the sampled gradients are per case.
//
// # Supported
//
// Layers with a Kronecker block: dense layers, written as Mul(x, w), Mul(x, Transpose(w)), Mul(w,
// x) or Mul(Transpose(w), x) with x a matrix or a vector, as Tensordot, or as BatchedMatMul with a
// stack of one matrix; convolutions, Im2Col written out included; embeddings, by ByIndices or
// products with one-hot rows; recurrent weights, unrolled; weights tied with their transposes. A
// weight may be reshaped, and used once or several times. Its bias may be added by BroadcastAdd, as
// Add to a vector, behind other summands, or by a column of ones in the input.
//
// Parameters that act element by element, such as the scale and shift of a normalisation, have a
// small full block. Every other parameter has a diagonal block; where its gradient can't be had,
// the identity. [Solver.Plan] says which, and why.
//
// Losses: [Categorical], [Bernoulli] and [Gaussian]; [Joint] for several outputs.
//
// # Limits
//
// A model whose cost is not a negative log-likelihood of its output is refused.
//
// # Options
//
// None has to be set.
//
// How far a step goes: [WithLearningRate], [WithMomentum], [WithNormConstraint], [WithoutMomentum],
// [WithDamping], [WithDampingAdaptation], [WithUndampedRho], [WithGammaAdaptation], [WithMaxGamma],
// [WithL2Reg], [WithStepRejection], [WithPaperRules].
//
// Which way it goes: [WithBlockTridiagonal], [WithWeightSharing], [WithTimeCorrelation],
// [WithSpatiallyUncorrelated], [WithMaxDim], [WithFullBlocks].
//
// How often curvature is computed, and from how much: [WithCurvatureEMA],
// [WithInverseUpdatePeriod], [WithBackgroundInverses], [WithStatisticsFraction],
// [WithMinStatisticsCases], [WithModelFraction], [WithMinModelCases].
//
// What is checked: [WithStrict], [WithoutGradientCheck], [WithoutReachCheck].
//
// Around it: [WithSeed], [WithStats], [WithIterateAveraging] with [Solver.UseAverage],
// [GrowingBatch] with [Solver.Accumulate].
package kfac
